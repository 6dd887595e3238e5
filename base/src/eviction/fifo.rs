//! First in, first out: what became idle for the first time longest ago leaves first, whether
//! or not it has been used since.

use super::EvictionPolicy;
use super::heap::SlotHeap;

// --- state -------------------------------------------------------------------------------

/// First in, first out. Every operation is O(log n), because a slot that was in use comes back
/// to its old place.
#[derive(Clone, Debug, Default)]
pub struct Fifo {
    /// Idle slots by rank. Parts of a split object have one rank; the slot decides.
    idle: SlotHeap<(u64, u32)>,
    /// Rank of first arrival per slot; zero if unknown.
    ranks: Vec<u64>,
    last_rank: u64,
}

impl Fifo {
    fn rank(&mut self, slot: u32) -> &mut u64 {
        if self.ranks.len() <= slot as usize {
            self.ranks.resize(slot as usize + 1, 0);
        }
        &mut self.ranks[slot as usize]
    }
}

// --- contract ----------------------------------------------------------------------------

impl EvictionPolicy for Fifo {
    fn insert(&mut self, slot: u32, _name: u64) {
        if *self.rank(slot) == 0 {
            self.last_rank += 1;
            *self.rank(slot) = self.last_rank;
        }
        let rank = *self.rank(slot);
        self.idle.push((rank, slot), slot);
    }

    fn reuse(&mut self, slot: u32) {
        self.idle.remove(slot);
    }

    fn split(&mut self, slot: u32, upper: u32) {
        *self.rank(upper) = *self.rank(slot);
    }

    fn evict(&mut self) -> Option<u32> {
        let victim = self.idle.pop()?;
        *self.rank(victim) = 0;
        Some(victim)
    }

    fn forget(&mut self, slot: u32) {
        self.idle.remove(slot);
        *self.rank(slot) = 0;
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
    fn who_came_first_leaves_first_whatever_its_use() {
        let mut fifo = Fifo::default();
        for slot in [1, 2, 3] {
            fifo.insert(slot, 0);
        }
        hit(&mut fifo, 1);
        assert_eq!(fifo.evict(), Some(1), "use does not help");
        fifo.reuse(2);
        assert_eq!(fifo.evict(), Some(3), "but whoever is in use stays");
        fifo.insert(3, 0);
        fifo.insert(2, 0);
        assert_eq!(fifo.evict(), Some(2), "its place was kept; 3 came anew");
        fifo.split(3, 4);
        fifo.insert(5, 0);
        fifo.insert(4, 0);
        assert_eq!(fifo.evict(), Some(3), "both halves are as old as the whole");
        assert_eq!(fifo.evict(), Some(4));
    }
}
