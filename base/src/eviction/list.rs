//! Doubly linked lists over slots: O(1) everywhere, no allocation once the slots are known.

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// One list. Several may share one [`Links`] as long as no slot is in two of them.
#[derive(Clone, Debug)]
pub(super) struct List {
    front: u32,
    back: u32,
    len: usize,
}

/// The neighbours of every slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Links(Vec<Link>);

#[derive(Clone, Copy, Debug)]
struct Link {
    /// Towards the front; the slot itself if it is in no list.
    ahead: u32,
    /// Towards the back.
    behind: u32,
}

impl Default for List {
    fn default() -> Self {
        Self {
            front: NONE,
            back: NONE,
            len: 0,
        }
    }
}

impl Links {
    /// Whether the slot is in a list.
    pub(super) fn contains(&self, slot: u32) -> bool {
        self.0
            .get(slot as usize)
            .is_some_and(|link| link.ahead != slot)
    }

    /// The neighbour towards the back, or [`NONE`].
    pub(super) fn behind(&self, slot: u32) -> u32 {
        self.0[slot as usize].behind
    }

    fn know(&mut self, slot: u32) {
        while self.0.len() <= slot as usize {
            let own = self.0.len() as u32;
            self.0.push(Link {
                ahead: own,
                behind: own,
            });
        }
    }
}

impl List {
    /// Slots in the list.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The slot at the front, or [`NONE`].
    pub(super) const fn front(&self) -> u32 {
        self.front
    }

    /// The slot at the back, or [`NONE`].
    pub(super) const fn back(&self) -> u32 {
        self.back
    }

    /// Appends a slot that is in no list.
    pub(super) fn push_back(&mut self, links: &mut Links, slot: u32) {
        self.insert_behind(links, self.back, slot);
    }

    /// Puts a slot that is in no list behind another of this list; at the front if that is
    /// [`NONE`].
    pub(super) fn insert_behind(&mut self, links: &mut Links, place: u32, slot: u32) {
        links.know(slot);
        debug_assert!(!links.contains(slot), "a slot is in one list at most");
        let behind = if place == NONE {
            self.front
        } else {
            links.0[place as usize].behind
        };
        links.0[slot as usize] = Link {
            ahead: place,
            behind,
        };
        match place {
            NONE => self.front = slot,
            _ => links.0[place as usize].behind = slot,
        }
        match behind {
            NONE => self.back = slot,
            _ => links.0[behind as usize].ahead = slot,
        }
        self.len += 1;
    }

    /// Takes a slot of this list out.
    pub(super) fn remove(&mut self, links: &mut Links, slot: u32) {
        let Link { ahead, behind } = links.0[slot as usize];
        debug_assert!(ahead != slot, "only what is in the list can leave it");
        match ahead {
            NONE => self.front = behind,
            _ => links.0[ahead as usize].behind = behind,
        }
        match behind {
            NONE => self.back = ahead,
            _ => links.0[behind as usize].ahead = ahead,
        }
        links.0[slot as usize] = Link {
            ahead: slot,
            behind: slot,
        };
        self.len -= 1;
    }
}
