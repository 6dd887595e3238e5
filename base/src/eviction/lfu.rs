//! Least frequently used: what was asked for least often since it came leaves first; among
//! equals, what has been idle longest.

use super::EvictionPolicy;
use super::heap::SlotHeap;

// --- state -------------------------------------------------------------------------------

/// Least frequently used, in-cache counts (a slot that leaves starts again from nothing). Every
/// operation is O(log n).
#[derive(Clone, Debug, Default)]
pub struct Lfu {
    /// Idle slots by hits, then by when they became idle.
    idle: SlotHeap<(u64, u64)>,
    /// Hits per slot.
    hits: Vec<u64>,
    clock: u64,
}

impl Lfu {
    fn hits(&mut self, slot: u32) -> &mut u64 {
        if self.hits.len() <= slot as usize {
            self.hits.resize(slot as usize + 1, 0);
        }
        &mut self.hits[slot as usize]
    }
}

// --- contract ----------------------------------------------------------------------------

impl EvictionPolicy for Lfu {
    fn insert(&mut self, slot: u32, _name: u64) {
        self.clock += 1;
        let hits = *self.hits(slot);
        self.idle.push((hits, self.clock), slot);
    }

    fn reuse(&mut self, slot: u32) {
        self.idle.remove(slot);
        *self.hits(slot) += 1;
    }

    fn split(&mut self, slot: u32, upper: u32) {
        *self.hits(upper) = *self.hits(slot);
    }

    fn evict(&mut self) -> Option<u32> {
        let victim = self.idle.pop()?;
        *self.hits(victim) = 0;
        Some(victim)
    }

    fn forget(&mut self, slot: u32) {
        self.idle.remove(slot);
        *self.hits(slot) = 0;
    }

    fn len(&self) -> usize {
        self.idle.len()
    }
}

// --- story -------------------------------------------------------------------------------

#[cfg(test)]
mod tests {
    use super::*;

    /// A hit that is over at once.
    fn hit(policy: &mut impl EvictionPolicy, slot: u32) {
        policy.reuse(slot);
        policy.insert(slot, u64::from(slot));
    }

    #[test]
    fn who_was_asked_for_least_leaves() {
        let mut lfu = Lfu::default();
        for slot in [1, 2, 3] {
            lfu.insert(slot, 0);
        }
        hit(&mut lfu, 1);
        hit(&mut lfu, 1);
        hit(&mut lfu, 2);
        assert_eq!(lfu.evict(), Some(3), "no hit");
        lfu.insert(3, 0);
        hit(&mut lfu, 3);
        assert_eq!(lfu.evict(), Some(2), "one hit each, but 2 was idle longer");
        lfu.split(1, 4);
        lfu.insert(4, 0);
        lfu.insert(5, 0);
        hit(&mut lfu, 5);
        assert_eq!(lfu.evict(), Some(3), "one hit, as 5, and idle longer");
        assert_eq!(lfu.evict(), Some(5), "both halves of 1 have its two hits");
    }
}
