//! The event queue. Events order by (time, class, sequence), packed into one 128-bit integer,
//! so that ties are total and cost one comparison.

use crate::time::SimTime;
use rustc_hash::FxHashSet;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Names one scheduled event, for [`EventQueue::cancel`]. Never reused within a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventKey(u128);

#[derive(Clone, Debug)]
struct Slot<E> {
    key: u128,
    event: E,
}

impl<E> PartialEq for Slot<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<E> Eq for Slot<E> {}
impl<E> PartialOrd for Slot<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Slot<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key) // the heap is a max-heap; the least key goes first
    }
}

/// Pending events. Among equal times the lower class goes first, then the one scheduled first.
#[derive(Clone, Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Slot<E>>,
    cancelled: FxHashSet<u128>,
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
            heap: BinaryHeap::new(),
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
    pub fn schedule(&mut self, at: SimTime, class: u8, event: E) -> EventKey {
        assert!(
            at >= self.last,
            "event at {at:?} scheduled in the past of {:?}",
            self.last
        );
        let key = (u128::from(at.as_nanos()) << 64)
            | (u128::from(class) << 56)
            | u128::from(self.sequence);
        self.sequence += 1;
        debug_assert!(self.sequence < 1 << 56);
        self.heap.push(Slot { key, event });
        EventKey(key)
    }

    /// Cancels an event that is still pending. Cancelling one that was taken already is the
    /// caller's error and leaks a few bytes; keep the key only while the event is pending.
    pub fn cancel(&mut self, key: EventKey) {
        self.cancelled.insert(key.0);
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(SimTime, E)> {
        while let Some(slot) = self.heap.pop() {
            if !self.cancelled.is_empty() && self.cancelled.remove(&slot.key) {
                continue;
            }
            self.last = SimTime::from_nanos((slot.key >> 64) as u64);
            return Some((self.last, slot.event));
        }
        None
    }

    /// When the next event is due; drops cancelled ones on the way.
    pub fn next_time(&mut self) -> Option<SimTime> {
        while let Some(slot) = self.heap.peek() {
            if !self.cancelled.is_empty() && self.cancelled.contains(&slot.key) {
                if let Some(slot) = self.heap.pop() {
                    self.cancelled.remove(&slot.key);
                }
                continue;
            }
            return Some(SimTime::from_nanos((slot.key >> 64) as u64));
        }
        None
    }

    /// Events pending, cancelled ones not counted.
    pub fn len(&self) -> usize {
        self.heap.len() - self.cancelled.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    #[should_panic(expected = "in the past")]
    fn the_past_is_closed() {
        let mut q = EventQueue::new();
        q.schedule(t(5), 0, ());
        q.pop();
        q.schedule(t(4), 0, ());
    }
}
