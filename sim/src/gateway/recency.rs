//! An order of use over slots of an arena: intrusive, so that touching allocates nothing.

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// A slot's neighbours in its order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    older: u32,
    newer: u32,
}

impl Links {
    /// In no order.
    pub(super) const LOOSE: Self = Self {
        older: NONE,
        newer: NONE,
    };
}

/// One order. Several may share the links of one arena; a slot is in one of them at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recency {
    oldest: u32,
    newest: u32,
}

impl Recency {
    /// Nothing yet.
    pub(super) const EMPTY: Self = Self {
        oldest: NONE,
        newest: NONE,
    };

    /// The slot that was used longest ago.
    pub(super) const fn oldest(&self) -> Option<u32> {
        if self.oldest == NONE {
            None
        } else {
            Some(self.oldest)
        }
    }

    /// Puts a loose slot at the end of the most recent use.
    pub(super) fn push(&mut self, links: &mut [Links], slot: u32) {
        links[slot as usize] = Links {
            older: self.newest,
            newer: NONE,
        };
        if self.newest == NONE {
            self.oldest = slot;
        } else {
            links[self.newest as usize].newer = slot;
        }
        self.newest = slot;
    }

    /// Takes a slot out of its order.
    pub(super) fn remove(&mut self, links: &mut [Links], slot: u32) {
        let Links { older, newer } = links[slot as usize];
        if older == NONE {
            self.oldest = newer;
        } else {
            links[older as usize].newer = newer;
        }
        if newer == NONE {
            self.newest = older;
        } else {
            links[newer as usize].older = older;
        }
        links[slot as usize] = Links::LOOSE;
    }
}

/// Values in slots that are reused.
#[derive(Clone, Debug)]
pub(super) struct Arena<T> {
    slots: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Arena<T> {
    /// Stores a value and says where.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = value;
            slot
        } else {
            self.slots.push(value);
            (self.slots.len() - 1) as u32
        }
    }

    /// Gives a slot back; its value is void.
    pub(super) fn release(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots ever used at once: how long arrays beside the arena must be.
    pub(super) fn extent(&self) -> usize {
        self.slots.len()
    }
}

impl<T> std::ops::Index<u32> for Arena<T> {
    type Output = T;
    fn index(&self, slot: u32) -> &T {
        &self.slots[slot as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, slot: u32) -> &mut T {
        &mut self.slots[slot as usize]
    }
}
