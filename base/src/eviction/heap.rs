//! A binary heap over slots with the least key on top. Any entry can be removed in O(log n);
//! nothing is allocated once the slots are known.

const OUT: u32 = u32::MAX;

/// Slots by key.
#[derive(Clone, Debug)]
pub(super) struct SlotHeap<K> {
    entries: Vec<(K, u32)>,
    /// Where each slot is among the entries, or [`OUT`].
    places: Vec<u32>,
}

impl<K> Default for SlotHeap<K> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            places: Vec::new(),
        }
    }
}

impl<K: Ord + Copy> SlotHeap<K> {
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.places.get(slot as usize).is_some_and(|p| *p != OUT)
    }

    /// Adds a slot that is not in the heap. Keys must differ from slot to slot, so that the
    /// order is total.
    pub(super) fn push(&mut self, key: K, slot: u32) {
        debug_assert!(!self.contains(slot), "a slot is in the heap once");
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, OUT);
        }
        let place = self.entries.len();
        self.entries.push((key, slot));
        self.places[slot as usize] = place as u32;
        self.rise(place);
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        let (_, slot) = *self.entries.first()?;
        self.remove(slot);
        Some(slot)
    }

    /// Takes a slot out, if it is in.
    pub(super) fn remove(&mut self, slot: u32) {
        if !self.contains(slot) {
            return;
        }
        let place = self.places[slot as usize] as usize;
        self.entries.swap_remove(place);
        self.places[slot as usize] = OUT;
        if let Some((_, moved)) = self.entries.get(place) {
            self.places[*moved as usize] = place as u32;
            self.rise(place);
            self.sink(place);
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.entries[parent].0 <= self.entries[place].0 {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.entries.len() && self.entries[child].0 < self.entries[least].0 {
                    least = child;
                }
            }
            if least == place {
                break;
            }
            self.swap(place, least);
            place = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.entries.swap(a, b);
        self.places[self.entries[a].1 as usize] = a as u32;
        self.places[self.entries[b].1 as usize] = b as u32;
    }
}
