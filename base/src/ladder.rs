//! A priority queue for times: a ladder queue (Tang, Goh and Thng, "Ladder queue: an O(1) priority
//! queue structure for large-scale discrete event simulation", ACM TOMACS 15, 2005). A binary heap of a
//! million entries misses the cache at every level. Here an entry waits in a coarse bucket with its
//! neighbours in time and is moved to finer ones as its time comes, always to the end of a buffer;
//! only the next few are in order: a bucket is sorted when its time comes, and what is added later for a time
//! before its end waits in a heap that is small and stays in the cache.
//!
//! The order is the entries' own, bit for bit that of a heap: buckets are cut by time alone, so entries of
//! one time never part, and what leaves is the less of the first of a sorted bucket and of the heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a ladder orders. The order must agree with the time: an earlier time is less.
pub trait Timed: Ord {
    /// When it is due, in ns.
    fn time(&self) -> u64;
}

/// A bucket of no more than this is sorted as it is.
const FEW: usize = 32;
/// The heap is cut into buckets when it holds more than this.
const MANY: usize = 512;
/// Entries per bucket to aim at.
const PER_BUCKET: usize = 8;
/// Most buckets of a rung: so many ends of buffers stay in the cache.
const MOST_BITS: u32 = 10;
/// Least, so that every rung is much finer than the one above it.
const LEAST_BITS: u32 = 4;
/// Buffers kept for later use: at most so many, with room for no more entries than there have been. Small
/// ones are for fine buckets, large ones for coarse ones, which would have to grow to their size again.
const SPARE: usize = 1 << MOST_BITS;
const SMALL: usize = 64;
/// After every entry.
const NO_END: u64 = u64::MAX;

/// Entries in order of time, then by their own order.
///
/// Adding and taking one costs a few moves whatever the number of entries; only crowds of one time pay a
/// heap's price. Memory follows the most entries that were kept at once.
#[derive(Clone, Debug)]
pub struct Ladder<T> {
    /// The bucket whose turn it is, the last entry first.
    sorted: Vec<T>,
    /// All others before `near_end`.
    near: BinaryHeap<Reverse<T>>,
    near_end: u64,
    /// The heap may grow to this.
    near_limit: usize,
    /// From coarse to fine; each covers the time from where the finer ones (or the heap) end to its own
    /// end.
    rungs: Vec<Rung<T>>,
    /// All after the first rung, in no order.
    far: Vec<T>,
    spare: Spare<T>,
    len: usize,
    /// The most entries there have been.
    most: usize,
}

/// Empty buffers, small and large ones.
#[derive(Clone, Debug)]
struct Spare<T> {
    small: Vec<Vec<T>>,
    large: Vec<Vec<T>>,
    /// Entries that the large ones have room for.
    room: usize,
}

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self {
            small: Vec::new(),
            large: Vec::new(),
            room: 0,
        }
    }
}

impl<T> Spare<T> {
    /// A buffer, if there is one.
    fn take(&mut self, large: bool) -> Option<Vec<T>> {
        if !large {
            return self.small.pop();
        }
        let buffer = self.large.pop()?;
        self.room -= buffer.capacity();
        Some(buffer)
    }

    /// Keeps an empty buffer for later, unless large ones then have room for more than `most` entries.
    fn keep(&mut self, buffer: Vec<T>, most: usize) {
        let room = buffer.capacity();
        if room > SMALL {
            if self.large.len() < SPARE && self.room + room <= most {
                self.room += room;
                self.large.push(buffer);
            }
        } else if self.small.len() < SPARE {
            self.small.push(buffer);
        }
    }
}

#[derive(Clone, Debug)]
struct Rung<T> {
    /// Bucket `i` begins at `start + (i << shift)`.
    start: u64,
    shift: u32,
    end: u64,
    /// Buckets before this one are done.
    next: usize,
    /// Buckets are mostly large.
    large: bool,
    buckets: Vec<Vec<T>>,
}

impl<T: Timed> Default for Ladder<T> {
    fn default() -> Self {
        Self {
            sorted: Vec::new(),
            near: BinaryHeap::new(),
            near_end: NO_END,
            near_limit: MANY,
            rungs: Vec::new(),
            far: Vec::new(),
            spare: Spare::default(),
            len: 0,
            most: 0,
        }
    }
}

/// The time that decides on the bucket. The last two share one, so that every time has an end after it.
#[inline]
fn at<T: Timed>(entry: &T) -> u64 {
    entry.time().min(NO_END - 1)
}

impl<T: Timed> Ladder<T> {
    /// Entries.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry, at any time.
    #[inline]
    pub fn push(&mut self, entry: T) {
        self.len += 1;
        self.most = self.most.max(self.len);
        let time = at(&entry);
        if time < self.near_end {
            self.near.push(Reverse(entry));
            if self.near.len() > self.near_limit {
                self.cut_near();
            }
            return;
        }
        for rung in self.rungs.iter_mut().rev() {
            if time < rung.end {
                return rung.put(time, entry, &mut self.spare);
            }
        }
        self.far.push(entry);
    }

    /// The first entry.
    #[inline]
    pub fn peek(&mut self) -> Option<&T> {
        if self.len == 0 && self.rungs.is_empty() {
            return None;
        }
        self.first()
    }

    fn first(&mut self) -> Option<&T> {
        if !self.prepare() {
            return None;
        }
        match (self.sorted.last(), self.near.peek()) {
            (Some(a), Some(Reverse(b))) => Some(a.min(b)),
            (Some(first), None) | (None, Some(Reverse(first))) => Some(first),
            (None, None) => None,
        }
    }

    /// Takes the first entry.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if !self.prepare() {
            return None;
        }
        self.len -= 1;
        match (self.sorted.last(), self.near.peek()) {
            (Some(a), Some(Reverse(b))) if a < b => self.sorted.pop(),
            (Some(_), None) => self.sorted.pop(),
            _ => self.near.pop().map(|first| first.0),
        }
    }

    /// Whether there is an entry; then the first is sorted or near.
    #[inline]
    fn prepare(&mut self) -> bool {
        if self.sorted.is_empty() && self.near.is_empty() {
            if self.len == 0 {
                self.rest();
                return false;
            }
            self.refill();
        }
        true
    }

    /// Takes down what is left of the ladder when nothing is left on it.
    #[inline]
    fn rest(&mut self) {
        if !self.rungs.is_empty() {
            self.rungs.clear();
            self.near_end = NO_END;
        }
    }

    /// Sorts the next bucket, heap and sorted bucket being empty.
    #[cold]
    fn refill(&mut self) {
        self.near_limit = MANY;
        while let Some(rung) = self.rungs.last_mut() {
            let rest = &rung.buckets[rung.next..];
            let Some(empty) = rest.iter().position(|bucket| !bucket.is_empty()) else {
                self.near_end = rung.end;
                self.rungs.pop();
                continue;
            };
            let index = rung.next + empty;
            rung.next = index + 1;
            let mut bucket = std::mem::take(&mut rung.buckets[index]);
            let begin = rung.start + ((index as u64) << rung.shift);
            let end = begin.saturating_add(1 << rung.shift).min(rung.end);
            let few = bucket.len() <= FEW || rung.shift == 0;
            if few || bucket.iter().all(|entry| at(entry) == at(&bucket[0])) {
                self.near_end = end;
                bucket.sort_unstable_by(|a, b| b.cmp(a));
                let empty = std::mem::replace(&mut self.sorted, bucket);
                self.spare.keep(empty, self.most);
                return;
            }
            self.add_rung(&mut bucket, end);
            self.spare.keep(bucket, self.most);
        }
        if self.far.len() <= FEW {
            self.near_end = NO_END;
            self.near.extend(self.far.drain(..).map(Reverse));
            return;
        }
        let mut far = std::mem::take(&mut self.far);
        let last = far.iter().map(at).max().unwrap_or_default();
        self.add_rung(&mut far, last + 1);
        self.far = far;
        self.refill();
    }

    /// Cuts the heap and what is left of the sorted bucket into new ones, unless all entries have one time.
    #[cold]
    fn cut_near(&mut self) {
        let near = self.near.iter().map(|entry| &entry.0);
        let times = || near.clone().chain(&self.sorted).map(at);
        let (Some(first), Some(last)) = (times().min(), times().max()) else {
            return;
        };
        if first == last {
            self.near_limit = 2 * self.near.len();
            return;
        }
        // Without rungs, nothing is after the heap, and all beyond its last entry will be far.
        let end = if self.rungs.is_empty() {
            last + 1
        } else {
            self.near_end
        };
        let near = std::mem::take(&mut self.near).into_vec();
        let mut entries: Vec<T> = near.into_iter().map(|entry| entry.0).collect();
        entries.append(&mut self.sorted);
        self.add_rung(&mut entries, end);
    }

    /// Spreads entries over a new rung that ends at `end`; the heap ends where it begins.
    fn add_rung(&mut self, entries: &mut Vec<T>, end: u64) {
        let start = entries.iter().map(at).min().unwrap_or_default();
        let bits = (entries.len() / PER_BUCKET).max(1).ilog2();
        let bits = bits.clamp(LEAST_BITS, MOST_BITS);
        let span = end - 1 - start;
        let shift = (u64::BITS - span.leading_zeros()).saturating_sub(bits);
        let mut buckets = Vec::new();
        buckets.resize_with((span >> shift) as usize + 1, Vec::new);
        let large = entries.len() / buckets.len() > SMALL;
        let mut rung = Rung {
            start,
            shift,
            end,
            next: 0,
            large,
            buckets,
        };
        for entry in entries.drain(..) {
            rung.put(at(&entry), entry, &mut self.spare);
        }
        self.near_end = start;
        self.rungs.push(rung);
    }
}

impl<T> Rung<T> {
    #[inline]
    fn put(&mut self, time: u64, entry: T, spare: &mut Spare<T>) {
        let bucket = &mut self.buckets[((time - self.start) >> self.shift) as usize];
        if bucket.capacity() == 0
            && let Some(buffer) = spare.take(self.large)
        {
            *bucket = buffer;
        }
        bucket.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Entry = (u64, u32);

    impl Timed for Entry {
        fn time(&self) -> u64 {
            self.0
        }
    }

    /// Times of every scale, many of them equal, and both ends.
    fn delays() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0_u64..4,
            4 => 0_u64..10_000,
            2 => 0_u64..1_000_000_000,
            1 => any::<u64>(),
            1 => Just(u64::MAX),
            1 => Just(u64::MAX - 1),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against the standard library's heap, entry by entry: crowds that come at once, times that
        /// run on or back, looks at the first that come before later pushes of earlier times.
        #[test]
        fn the_order_is_that_of_a_heap(
            moves in prop::collection::vec((delays(), 0_usize..900, 0_usize..900, 0_u8..3), 1..40),
        ) {
            let (mut ladder, mut heap) = (Ladder::<Entry>::default(), BinaryHeap::new());
            let (mut now, mut number) = (0_u64, 0_u32);
            for (delay, pushes, pops, how) in moves {
                for i in 0..pushes as u64 {
                    // All at once; some way apart; going on from what was taken last.
                    let time = match how {
                        0 => now.saturating_add(delay),
                        1 => delay.wrapping_mul(i + 1) ^ (i << 20),
                        _ => now.saturating_add(delay / (i + 1)),
                    };
                    number += 1;
                    ladder.push((time, number));
                    heap.push(Reverse((time, number)));
                }
                prop_assert_eq!(ladder.peek(), heap.peek().map(|first| &first.0));
                for _ in 0..pops {
                    let taken = ladder.pop();
                    prop_assert_eq!(taken, heap.pop().map(|first| first.0));
                    now = taken.map_or(now, |first| first.0);
                }
                prop_assert_eq!(ladder.len(), heap.len());
                prop_assert_eq!(ladder.is_empty(), heap.is_empty());
            }
            while let Some(Reverse(first)) = heap.pop() {
                prop_assert_eq!(ladder.pop(), Some(first));
            }
            prop_assert_eq!(ladder.pop(), None);
        }
    }

    #[test]
    fn a_large_crowd_is_cut_finer_and_finer_and_leaves_in_order() {
        let mut ladder = Ladder::<Entry>::default();
        let mut random = crate::rng::Rng::from_seed(1);
        // One far away stretches the first rung so that all others share a bucket of it.
        ladder.push((1 << 60, 0));
        for i in 1..=100_000 {
            ladder.push((random.below(1 << 40), i));
        }
        let mut last = (0, 0);
        let mut deepest = 0;
        while let Some(next) = ladder.pop() {
            assert!(last < next);
            last = next;
            deepest = deepest.max(ladder.rungs.len());
        }
        assert_eq!(last, (1 << 60, 0));
        assert!(deepest >= 3, "{deepest}");
        let Spare { small, large, room } = &ladder.spare;
        assert!(small.len() + large.len() <= 2 * SPARE && ladder.rungs.is_empty());
        let kept: usize = large.iter().map(Vec::capacity).sum();
        assert!(kept == *room && kept <= 100_001, "{kept}");
    }
}
