//! Least recently used: what has been idle longest leaves first.

use super::EvictionPolicy;
use super::list::{Links, List, NONE};

// --- state -------------------------------------------------------------------------------

/// Least recently used. Every operation is O(1).
#[derive(Clone, Debug, Default)]
pub struct Lru {
    /// Idle slots, longest idle at the front.
    order: List,
    links: Links,
}

impl Lru {
    /// The slot that has been idle longest.
    #[inline]
    pub(super) fn oldest(&self) -> Option<u32> {
        Some(self.order.front()).filter(|&slot| slot != NONE)
    }

    /// The slot that became idle last, if it still is.
    #[inline]
    pub(super) fn newest(&self) -> Option<u32> {
        Some(self.order.back()).filter(|&slot| slot != NONE)
    }
}

// --- contract ----------------------------------------------------------------------------

impl EvictionPolicy for Lru {
    #[inline]
    fn insert(&mut self, slot: u32, _name: u64) {
        self.order.push_back(&mut self.links, slot);
    }

    #[inline]
    fn reuse(&mut self, slot: u32) {
        self.forget(slot);
    }

    #[inline]
    fn split(&mut self, _slot: u32, _upper: u32) {
        // A slot in use has no place in the order; it gets one when it is idle again.
    }

    #[inline]
    fn evict(&mut self) -> Option<u32> {
        let victim = self.order.front();
        if victim == NONE {
            return None;
        }
        self.order.remove(&mut self.links, victim);
        Some(victim)
    }

    #[inline]
    fn forget(&mut self, slot: u32) {
        if self.links.contains(slot) {
            self.order.remove(&mut self.links, slot);
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.order.len()
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
    fn who_was_idle_longest_leaves() {
        let mut lru = Lru::default();
        for slot in [1, 2, 3] {
            lru.insert(slot, 0);
        }
        hit(&mut lru, 1);
        assert_eq!(lru.evict(), Some(2), "1 was used after 2");
        lru.reuse(3);
        assert_eq!(lru.len(), 1, "3 is in use");
        assert_eq!(lru.evict(), Some(1), "3 may not leave");
        assert_eq!(lru.evict(), None);
        lru.insert(3, 0);
        lru.forget(3);
        assert_eq!(lru.evict(), None, "3 is gone");
    }
}
