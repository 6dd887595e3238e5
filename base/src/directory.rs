//! Finds where something is kept by its id. Ids rise in even steps and most of their owners live for
//! a short while. Multiplied by the golden ratio, such ids spread so evenly that hardly two of
//! those alive fall on the same place: a lookup is one multiplication and one comparison, where
//! a hash map would probe groups and leave tombstones.

use rustc_hash::FxHashMap;

/// Marks a place without an entry; no slot has this number.
const VACANT: u32 = u32::MAX;
/// Places at first.
const FEWEST: usize = 64;
/// Most places per entry.
const SPARSEST: usize = 8;

/// Slots by id. Memory follows the most entries that were kept at once.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Id and slot, at the id's place; a power of two of them.
    places: Vec<(u32, u32)>,
    /// 32 less the bits of a place.
    shift: u32,
    /// Those whose place was taken by another id.
    displaced: FxHashMap<u32, u32>,
    len: usize,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            places: vec![(0, VACANT); FEWEST],
            shift: 32 - FEWEST.trailing_zeros(),
            displaced: FxHashMap::default(),
            len: 0,
        }
    }
}

impl Directory {
    /// Where `id` is kept, if it is.
    #[inline]
    pub fn get(&self, id: u32) -> Option<u32> {
        let (owner, slot) = self.places[self.place(id)];
        if owner == id && slot != VACANT {
            return Some(slot);
        }
        if self.displaced.is_empty() {
            return None;
        }
        self.displaced.get(&id).copied()
    }

    /// Notes that `id` is kept in `slot`; says where it was kept before, if it was.
    ///
    /// # Panics
    /// If `slot` is `u32::MAX`.
    #[inline]
    pub fn insert(&mut self, id: u32, slot: u32) -> Option<u32> {
        assert!(slot != VACANT, "no slot has this number");
        let place = self.place(id);
        if self.places[place].1 == VACANT && self.displaced.is_empty() {
            self.places[place] = (id, slot);
            self.len += 1;
            return None;
        }
        self.insert_among_others(id, slot)
    }

    fn insert_among_others(&mut self, id: u32, slot: u32) -> Option<u32> {
        let before = self.remove(id);
        self.len += 1;
        self.put(id, slot);
        let crowded = self.displaced.len() > self.places.len() / SPARSEST;
        if crowded && self.places.len() < SPARSEST * self.len {
            self.grow();
        }
        before
    }

    /// Forgets `id`; says where it was kept, if it was.
    #[inline]
    pub fn remove(&mut self, id: u32) -> Option<u32> {
        let place = self.place(id);
        let (owner, slot) = self.places[place];
        let found = if owner == id && slot != VACANT {
            self.places[place].1 = VACANT;
            Some(slot)
        } else if self.displaced.is_empty() {
            None
        } else {
            self.displaced.remove(&id)
        };
        self.len -= usize::from(found.is_some());
        found
    }

    /// Entries.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn place(&self, id: u32) -> usize {
        // The upper bits of id * 2^32 / golden ratio (Knuth, vol. 3, section 6.4).
        (id.wrapping_mul(0x9e37_79b9) >> self.shift) as usize
    }

    /// Puts an entry at its place, and who was there aside.
    fn put(&mut self, id: u32, slot: u32) {
        let place = self.place(id);
        let (owner, taken) = std::mem::replace(&mut self.places[place], (id, slot));
        if taken != VACANT {
            self.displaced.insert(owner, taken);
        }
    }

    fn grow(&mut self) {
        let places = vec![(0, VACANT); 2 * self.places.len()];
        self.shift -= 1;
        let placed = std::mem::replace(&mut self.places, places);
        let displaced = std::mem::take(&mut self.displaced);
        for (id, slot) in displaced.into_iter().chain(placed) {
            if slot != VACANT {
                self.put(id, slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a plain map, with ids that rise, crowd and stay: whatever the layout, the same
        /// answers, and never more places than promised.
        #[test]
        fn answers_like_a_map(
            steps in prop::collection::vec((0_u32..4, 0_u32..3, any::<prop::sample::Index>()), 0..600),
            stride in prop::sample::select(vec![1_u32, 3, 64, 1 << 20]),
        ) {
            let (mut directory, mut naive) = (Directory::default(), BTreeMap::new());
            let mut id = 0_u32;
            for (what, slot, which) in steps {
                // Three of four steps insert, so that many are alive; some insert again.
                let known = (!naive.is_empty())
                    .then(|| *naive.keys().nth(which.index(naive.len())).unwrap());
                match (what, known) {
                    (0, Some(known)) => {
                        prop_assert_eq!(directory.remove(known), naive.remove(&known));
                        prop_assert_eq!(directory.remove(known), None);
                    }
                    (1, Some(known)) => {
                        prop_assert_eq!(directory.insert(known, slot), naive.insert(known, slot));
                    }
                    _ => {
                        id = id.wrapping_add(stride);
                        prop_assert_eq!(directory.get(id), naive.get(&id).copied());
                        prop_assert_eq!(directory.insert(id, slot), naive.insert(id, slot));
                    }
                }
                prop_assert_eq!(directory.len(), naive.len());
                prop_assert_eq!(directory.is_empty(), naive.is_empty());
            }
            for (&id, &slot) in &naive {
                prop_assert_eq!(directory.get(id), Some(slot));
            }
            prop_assert!(directory.places.len() <= FEWEST.max(2 * SPARSEST * 600));
        }
    }

    #[test]
    fn an_old_entry_costs_no_memory() {
        let mut directory = Directory::default();
        directory.insert(0, 7);
        for id in 1..1_000_000 {
            directory.insert(id, 1);
            assert_eq!(directory.remove(id), Some(1));
        }
        assert_eq!(directory.get(0), Some(7));
        assert_eq!(directory.places.len(), FEWEST);
    }
}
