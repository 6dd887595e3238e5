//! S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, SOSP 2023): newcomers pass a small queue with a
//! tenth of the slots; what was asked for more than once there moves on to the main queue, the
//! rest leaves and is remembered by name in a ghost queue. Who comes back while remembered goes
//! straight to main. Main gives as many more rounds as there were hits, at most three.

use super::EvictionPolicy;
use super::list::{Links, List, NONE};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

// --- state -------------------------------------------------------------------------------

/// S3-FIFO. Queue sizes count slots, whatever their weight to the owner. O(1) amortised but for
/// slots in use, which keep their places in the queues and are passed one by one.
#[derive(Clone, Debug, Default)]
pub struct S3Fifo {
    small: List,
    main: List,
    links: Links,
    slots: Vec<Slot>,
    ghost: Ghost,
    /// Idle slots of the small and of the main queue.
    idle: [usize; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Queue {
    #[default]
    Small,
    Main,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    name: u64,
    /// Hits since it came or since the hand of its queue last passed, 0 to 3.
    hits: u8,
    idle: bool,
    queue: Queue,
}

/// Hits that count.
const MOST_HITS: u8 = 3;

/// The names of what left the small queue last.
#[derive(Clone, Debug, Default)]
struct Ghost {
    /// By age, with the ticket under which each was entered.
    order: VecDeque<(u64, u64)>,
    tickets: FxHashMap<u64, u64>,
    last_ticket: u64,
}

impl Ghost {
    fn remember(&mut self, name: u64, most: usize) {
        self.last_ticket += 1;
        self.tickets.insert(name, self.last_ticket);
        self.order.push_back((name, self.last_ticket));
        while self.tickets.len() > most {
            let Some((name, ticket)) = self.order.pop_front() else {
                break;
            };
            if self.tickets.get(&name) == Some(&ticket) {
                self.tickets.remove(&name);
            }
        }
        // An entry whose ticket is not the name's last is void; half of them may be.
        if self.order.len() > 2 * self.tickets.len() + 16 {
            let tickets = &self.tickets;
            self.order
                .retain(|(name, ticket)| tickets.get(name) == Some(ticket));
        }
    }

    fn recall(&mut self, name: u64) -> bool {
        self.tickets.remove(&name).is_some()
    }
}

impl S3Fifo {
    fn slot(&mut self, slot: u32) -> &mut Slot {
        if self.slots.len() <= slot as usize {
            self.slots.resize(slot as usize + 1, Slot::default());
        }
        &mut self.slots[slot as usize]
    }

    fn set_idle(&mut self, slot: u32, idle: bool) {
        let s = &mut self.slots[slot as usize];
        let was = std::mem::replace(&mut s.idle, idle);
        let count = &mut self.idle[s.queue as usize];
        *count = *count + usize::from(idle) - usize::from(was);
    }

    fn move_to_main(&mut self, slot: u32) {
        self.small.remove(&mut self.links, slot);
        self.main.push_back(&mut self.links, slot);
        self.idle[Queue::Small as usize] -= 1;
        self.idle[Queue::Main as usize] += 1;
        let s = &mut self.slots[slot as usize];
        s.queue = Queue::Main;
        s.hits = 0;
    }

    /// Passes the small queue once, oldest first, until one leaves.
    fn evict_small(&mut self) -> Option<u32> {
        let mut at = self.small.front();
        while at != NONE {
            let next = self.links.behind(at);
            let s = self.slots[at as usize];
            if s.idle && s.hits > 1 {
                self.move_to_main(at);
            } else if s.idle {
                self.forget(at);
                self.ghost.remember(s.name, self.main.len().max(1));
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// Passes the main queue, oldest first, until one leaves: at most one round per hit.
    fn evict_main(&mut self) -> Option<u32> {
        for _ in 0..=MOST_HITS {
            let mut at = self.main.front();
            for _ in 0..self.main.len() {
                let next = self.links.behind(at);
                let s = &mut self.slots[at as usize];
                if s.idle && s.hits > 0 {
                    s.hits -= 1;
                    self.main.remove(&mut self.links, at);
                    self.main.push_back(&mut self.links, at);
                } else if s.idle {
                    self.forget(at);
                    return Some(at);
                }
                at = next;
            }
        }
        None
    }
}

// --- contract ----------------------------------------------------------------------------

impl EvictionPolicy for S3Fifo {
    fn insert(&mut self, slot: u32, name: u64) {
        self.slot(slot).name = name;
        if !self.links.contains(slot) {
            if self.ghost.recall(name) {
                self.slot(slot).queue = Queue::Main;
                self.main.push_back(&mut self.links, slot);
            } else {
                self.slot(slot).queue = Queue::Small;
                self.small.push_back(&mut self.links, slot);
            }
        }
        self.set_idle(slot, true);
    }

    fn reuse(&mut self, slot: u32) {
        let s = self.slot(slot);
        s.hits = (s.hits + 1).min(MOST_HITS);
        self.set_idle(slot, false);
    }

    fn split(&mut self, slot: u32, upper: u32) {
        let whole = *self.slot(slot);
        *self.slot(upper) = Slot {
            idle: false,
            ..whole
        };
        if self.links.contains(slot) {
            let queue = match whole.queue {
                Queue::Small => &mut self.small,
                Queue::Main => &mut self.main,
            };
            queue.insert_behind(&mut self.links, slot, upper);
        }
    }

    fn evict(&mut self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let known = self.small.len() + self.main.len();
        // Passing the small queue may move all its idle slots on to main, so main comes last.
        if self.small.len() * 10 >= known {
            return self.evict_small().or_else(|| self.evict_main());
        }
        self.evict_main()
            .or_else(|| self.evict_small())
            .or_else(|| self.evict_main())
    }

    fn forget(&mut self, slot: u32) {
        self.slot(slot);
        self.set_idle(slot, false);
        if self.links.contains(slot) {
            match self.slots[slot as usize].queue {
                Queue::Small => self.small.remove(&mut self.links, slot),
                Queue::Main => self.main.remove(&mut self.links, slot),
            }
        }
        self.slots[slot as usize] = Slot::default();
    }

    fn len(&self) -> usize {
        self.idle.iter().sum()
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
    fn one_hit_wonders_leave_early_and_are_remembered() {
        let mut s3 = S3Fifo::default();
        for slot in 1..=10 {
            s3.insert(slot, u64::from(slot));
        }
        hit(&mut s3, 1);
        hit(&mut s3, 1);
        hit(&mut s3, 2);
        assert_eq!(
            s3.evict(),
            Some(2),
            "1 was asked for twice and moves to main; 2 once"
        );
        s3.insert(11, 2);
        assert_eq!(s3.evict(), Some(3), "11 is 2 come back: straight to main");
        for slot in 4..=10 {
            assert_eq!(s3.evict(), Some(slot), "newcomers in order");
        }
        hit(&mut s3, 1);
        assert_eq!(s3.evict(), Some(11), "1 gets another round for its hit");
        s3.reuse(1);
        assert_eq!(s3.evict(), None, "in use");
        s3.insert(1, 1);
        assert_eq!(s3.evict(), Some(1));
    }
    #[test]
    fn whoever_is_idle_is_found_in_whichever_queue() {
        let mut s3 = S3Fifo::default();
        for slot in 1..=20 {
            s3.insert(slot, u64::from(slot));
            hit(&mut s3, slot);
            hit(&mut s3, slot);
        }
        s3.insert(21, 21);
        assert_eq!(s3.evict(), Some(21), "the twenty have moved to main");
        for slot in 1..=20 {
            s3.reuse(slot);
        }
        s3.insert(22, 22);
        assert_eq!(
            s3.evict(),
            Some(22),
            "small has its tenth, but main is in use"
        );
        s3.insert(23, 23);
        hit(&mut s3, 23);
        hit(&mut s3, 23);
        assert_eq!(
            s3.evict(),
            Some(23),
            "moves to main, and is alone to leave it"
        );
    }
}
