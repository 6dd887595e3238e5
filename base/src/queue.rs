//! The event queue. Events order by (time, class, sequence), packed into one 128-bit integer,
//! so that ties are total and cost one comparison.

use crate::ladder::{Ladder, Timed};
use crate::time::SimTime;
use rustc_hash::FxHashSet;
use std::cmp::Ordering;

/// Names one scheduled event, for [`EventQueue::cancel`]. Never reused within a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventKey(u64);

#[derive(Clone, Debug)]
struct Slot<E> {
    time: u64,
    /// Class, then sequence.
    rank: u64,
    event: E,
}

impl<E> Slot<E> {
    #[inline]
    fn key(&self) -> u128 {
        (u128::from(self.time) << 64) | u128::from(self.rank)
    }
}

impl<E> PartialEq for Slot<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<E> Eq for Slot<E> {}
impl<E> PartialOrd for Slot<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Slot<E> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
impl<E> Timed for Slot<E> {
    #[inline]
    fn time(&self) -> u64 {
        self.time
    }
}

/// Pending events. Among equal times the lower class goes first, then the one scheduled first.
#[derive(Clone, Debug)]
pub struct EventQueue<E> {
    slots: Ladder<Slot<E>>,
    /// By class and sequence, which no two events share.
    cancelled: FxHashSet<u64>,
    sequence: u64,
    last: SimTime,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> EventQueue<E> {
    /// An empty queue at time zero.
    pub fn new() -> Self {
        Self {
            slots: Ladder::default(),
            cancelled: FxHashSet::default(),
            sequence: 0,
            last: SimTime::ZERO,
        }
    }

    /// Schedules `event` at `at`.
    ///
    /// # Panics
    /// If `at` lies before the event last taken: the caller lost track of time, which no
    /// input can cause.
    #[inline]
    pub fn schedule(&mut self, at: SimTime, class: u8, event: E) -> EventKey {
        assert!(
            at >= self.last,
            "event at {at:?} scheduled in the past of {:?}",
            self.last
        );
        let rank = (u64::from(class) << 56) | self.sequence;
        self.sequence += 1;
        debug_assert!(self.sequence < 1 << 56);
        let time = at.as_nanos();
        self.slots.push(Slot { time, rank, event });
        EventKey(rank)
    }

    /// Cancels an event that is still pending. Cancelling one that was taken already is the
    /// caller's error and leaks a few bytes; keep the key only while the event is pending.
    pub fn cancel(&mut self, key: EventKey) {
        self.cancelled.insert(key.0);
    }

    /// Takes the next event.
    #[inline]
    pub fn pop(&mut self) -> Option<(SimTime, E)> {
        while let Some(slot) = self.slots.pop() {
            if !self.cancelled.is_empty() && self.cancelled.remove(&slot.rank) {
                continue;
            }
            self.last = SimTime::from_nanos(slot.time);
            return Some((self.last, slot.event));
        }
        None
    }

    /// When the next event is due; drops cancelled ones on the way.
    #[inline]
    pub fn next_time(&mut self) -> Option<SimTime> {
        loop {
            let &Slot { time, rank, .. } = self.slots.peek()?;
            if self.cancelled.is_empty() || !self.cancelled.remove(&rank) {
                return Some(SimTime::from_nanos(time));
            }
            self.slots.pop();
        }
    }

    /// Events pending, cancelled ones not counted.
    pub fn len(&self) -> usize {
        self.slots.len() - self.cancelled.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn t(n: u64) -> SimTime {
        SimTime::from_nanos(n)
    }

    #[test]
    fn orders_by_time_then_class_then_sequence() {
        let mut q = EventQueue::new();
        q.schedule(t(5), 1, "late");
        q.schedule(t(3), 2, "second class");
        q.schedule(t(3), 1, "first");
        q.schedule(t(3), 1, "second");
        let got: Vec<_> = std::iter::from_fn(|| q.pop().map(|(_, e)| e)).collect();
        assert_eq!(got, ["first", "second", "second class", "late"]);
    }

    #[test]
    fn a_cancelled_event_never_comes() {
        let mut q = EventQueue::new();
        let a = q.schedule(t(1), 0, 'a');
        q.schedule(t(2), 0, 'b');
        q.cancel(a);
        assert_eq!(q.len(), 1);
        assert_eq!(q.next_time(), Some(t(2)));
        assert_eq!(q.pop(), Some((t(2), 'b')));
        assert!(q.is_empty() && q.pop().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a sorted set of (time, class, sequence): with ties, with events at the instant of
        /// the last one, and with timers of which most are cancelled.
        #[test]
        fn the_order_is_that_of_a_sorted_set(
            moves in prop::collection::vec((0_u64..2_000, 0_u8..3, 1_usize..600, 0_usize..600), 1..30),
        ) {
            let (mut queue, mut naive) = (EventQueue::new(), BTreeSet::new());
            let (mut now, mut sequence) = (SimTime::ZERO, 0_u64);
            for (delay, class, pushes, pops) in moves {
                for i in 0..pushes as u64 {
                    let at = t(now.as_nanos() + (delay * i) % 10_000);
                    let key = queue.schedule(at, class, sequence);
                    if i % 3 == 0 {
                        queue.cancel(key);
                    } else {
                        naive.insert((at, class, sequence));
                    }
                    sequence += 1;
                }
                for _ in 0..pops {
                    prop_assert_eq!(queue.next_time(), naive.first().map(|e| e.0));
                    let first = naive.pop_first().map(|(at, _, event)| (at, event));
                    prop_assert_eq!(queue.pop(), first);
                    now = first.map_or(now, |(at, _)| at);
                }
                prop_assert_eq!(queue.len(), naive.len());
            }
        }
    }

    #[test]
    #[should_panic(expected = "in the past")]
    fn the_past_is_closed() {
        let mut q = EventQueue::new();
        q.schedule(t(5), 0, ());
        q.pop();
        q.schedule(t(4), 0, ());
    }
}
