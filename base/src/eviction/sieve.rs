//! SIEVE (Zhang, Yang, Yue, Vigfusson and Rashmi, NSDI 2024): a queue in order of arrival, one
//! mark per slot, and a hand that moves from the oldest towards the newest. What is marked
//! loses its mark and stays where it is; the first unmarked slot leaves.

use super::EvictionPolicy;
use super::list::{Links, List, NONE};

// --- state -------------------------------------------------------------------------------

/// SIEVE. O(1) but for the hand, which passes marked slots and slots in use one by one.
#[derive(Clone, Debug, Default)]
pub struct Sieve {
    /// Known slots, oldest at the front. Slots in use keep their place.
    queue: List,
    links: Links,
    marks: Vec<Mark>,
    /// Where the hand looks next; none means the oldest.
    hand: Option<u32>,
    idle: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    visited: bool,
    idle: bool,
}

impl Sieve {
    fn mark(&mut self, slot: u32) -> &mut Mark {
        if self.marks.len() <= slot as usize {
            self.marks.resize(slot as usize + 1, Mark::default());
        }
        &mut self.marks[slot as usize]
    }
}

// --- contract ----------------------------------------------------------------------------

impl EvictionPolicy for Sieve {
    fn insert(&mut self, slot: u32, _name: u64) {
        if !self.links.contains(slot) {
            self.queue.push_back(&mut self.links, slot);
        }
        self.mark(slot).idle = true;
        self.idle += 1;
    }

    fn reuse(&mut self, slot: u32) {
        let was_idle = std::mem::replace(
            self.mark(slot),
            Mark {
                visited: true,
                idle: false,
            },
        )
        .idle;
        self.idle -= usize::from(was_idle);
    }

    fn split(&mut self, slot: u32, upper: u32) {
        let visited = self.mark(slot).visited;
        *self.mark(upper) = Mark {
            visited,
            idle: false,
        };
        if self.links.contains(slot) {
            // The hand meets the end of a prefix before its beginning.
            self.queue.insert_behind(&mut self.links, slot, upper);
        }
    }

    fn evict(&mut self) -> Option<u32> {
        if self.idle == 0 {
            return None;
        }
        let mut slot = self.hand.unwrap_or(self.queue.front());
        loop {
            let mark = &mut self.marks[slot as usize];
            if mark.idle && !mark.visited {
                break;
            }
            if mark.idle {
                mark.visited = false;
            }
            slot = match self.links.behind(slot) {
                NONE => self.queue.front(),
                next => next,
            };
        }
        self.hand = Some(slot);
        self.forget(slot);
        Some(slot)
    }

    fn forget(&mut self, slot: u32) {
        if self.links.contains(slot) {
            if self.hand == Some(slot) {
                let next = self.links.behind(slot);
                self.hand = (next != NONE).then_some(next);
            }
            self.queue.remove(&mut self.links, slot);
        }
        let was_idle = std::mem::take(self.mark(slot)).idle;
        self.idle -= usize::from(was_idle);
    }

    fn len(&self) -> usize {
        self.idle
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
    fn the_hand_clears_marks_and_takes_the_first_unmarked() {
        let mut sieve = Sieve::default();
        for slot in [1, 2, 3, 4] {
            sieve.insert(slot, 0);
        }
        hit(&mut sieve, 1);
        hit(&mut sieve, 3);
        assert_eq!(
            sieve.evict(),
            Some(2),
            "1 loses its mark and keeps its place"
        );
        sieve.insert(5, 0);
        assert_eq!(sieve.evict(), Some(4), "the hand goes on: 3 loses its mark");
        sieve.reuse(5);
        assert_eq!(
            sieve.evict(),
            Some(1),
            "5 is in use; from the newest back to the oldest"
        );
        sieve.insert(5, 0);
        assert_eq!(sieve.evict(), Some(3), "unmarked by now");
        assert_eq!(sieve.evict(), Some(5), "marked, but alone");
        assert_eq!(sieve.evict(), None);
    }
}
