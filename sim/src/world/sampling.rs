//! The state of the whole system at equal distances, for plots. The distance follows the length of the
//! run: it doubles, and every second sample goes, whenever there are too many.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::EngineStats;
use windtunnel_ledger::result::{ReplicaSample, Sample};

/// First guess of the distance, where nothing is known of the length.
const FIRST_DISTANCE: SimDuration = SimDuration::from_millis(1);
/// Where something is known, a run may still be this much shorter without losing a sample: a fifth,
/// which of some hundred arrivals at random is beyond all chance.
const SHORTER: (u64, u64) = (4, 5);
/// States of single replicas that a run keeps at most, so that a fleet of thousands is not mostly busy with
/// being looked at.
const MOST_STATES: usize = 1 << 17;
/// However large the fleet: so many samples still show what a run was like.
const FEWEST: usize = 128;
/// So many samples of a replica share a line of memory.
const TOGETHER: usize = 64 / size_of::<Kept>();

/// A sample, replicas apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) at_ns: u64,
    pub(super) gateway_waiting: u32,
    pub(super) in_system: u32,
}

/// Takes samples.
///
/// What a replica was like at a sample's time is read when something is about to happen to it, or at the
/// end of the run: until then it stays what it is, and a large fleet is not walked at every sample.
#[derive(Debug)]
pub(super) struct Sampler {
    /// The most that are kept; zero takes none.
    capacity: usize,
    distance: SimDuration,
    next: SimTime,
    samples: Vec<Taken>,
    /// Places of no sample, the last of them the next to be used.
    free: Vec<u32>,
    /// Of how many samples each replica was read.
    read: Vec<u32>,
    /// What was read, `capacity` places for each replica.
    replicas: Vec<Kept>,
    /// Counts of blocks that do not fit there, by index there.
    wide: FxHashMap<usize, [u64; 2]>,
}

/// A sample, and where replicas' parts of it are kept: a place that stays its own while others are
/// dropped, so that nothing of a large fleet is moved then.
#[derive(Clone, Copy, Debug)]
struct Taken {
    totals: Totals,
    place: u32,
}

/// What is kept of a replica in a sample: requests running and waiting, blocks held and cached. How many
/// blocks there are in all does not change.
type Kept = [u32; 4];

/// What is kept of a replica that is off, or on order.
const OFF: Kept = [u32::MAX; 4];

impl Sampler {
    /// For at most `capacity` samples, and fewer of a large fleet, of so many replicas in a run that ends
    /// about at `expected_end`; a time of zero says nothing. It moves no sample that stays, and saves those
    /// that would not.
    pub(super) fn new(capacity: usize, replicas: usize, expected_end: SimTime) -> Self {
        let capacity = capacity_for(capacity, replicas);
        let mut distance = FIRST_DISTANCE;
        let shortest = expected_end.as_nanos() / SHORTER.1 * SHORTER.0;
        while capacity > 0 && distance.saturating_mul(capacity as u64).as_nanos() < shortest {
            distance = distance.saturating_mul(2);
        }
        Self {
            capacity,
            distance,
            next: if capacity == 0 {
                SimTime::MAX
            } else {
                SimTime::ZERO
            },
            samples: Vec::new(),
            free: (0..capacity as u32).rev().collect(),
            read: vec![0; replicas],
            // Memory that nobody has written to costs nothing.
            replicas: vec![[0; 4]; replicas * capacity],
            wide: FxHashMap::default(),
        }
    }

    /// Takes the samples due before `until`, while the system's state is still the one since the last
    /// event; `look` reads it as of a given time.
    #[inline]
    pub(super) fn up_to(&mut self, until: SimTime, look: impl Fn(SimTime) -> Totals) {
        while self.next < until {
            let Some(place) = self.free.pop() else {
                self.halve();
                continue;
            };
            let totals = look(self.next);
            self.samples.push(Taken { totals, place });
            self.next = self.next.saturating_add(self.distance);
        }
    }

    /// Reads a replica for the samples taken since it was read last. Nothing may have happened to it
    /// meanwhile; `off` says whether it was out of service, `look` reads its state as of given times, one
    /// after the other.
    #[inline(always)]
    pub(super) fn read(
        &mut self,
        replica: usize,
        off: impl FnOnce() -> bool,
        look: impl FnMut(SimTime) -> EngineStats,
    ) {
        // Asked at every event of a replica, and mostly no sample was taken since the last one.
        if self.read[replica] as usize != self.samples.len() {
            self.read_on(replica, off, look);
        }
    }

    #[inline(never)]
    fn read_on(
        &mut self,
        replica: usize,
        off: impl FnOnce() -> bool,
        mut look: impl FnMut(SimTime) -> EngineStats,
    ) {
        let read = self.read[replica] as usize;
        let first = replica * self.capacity;
        if off() {
            for sample in &self.samples[read..] {
                self.replicas[first + sample.place as usize] = OFF;
            }
            self.read[replica] = self.samples.len() as u32;
            return;
        }
        for sample in &self.samples[read..] {
            let stats = look(SimTime::from_nanos(sample.totals.at_ns));
            let at = first + sample.place as usize;
            let (held, cached) = (stats.kv_held, stats.kv_cached);
            self.replicas[at] = [stats.running, stats.waiting, held as u32, cached as u32];
            if (held | cached) > u64::from(u32::MAX) {
                self.wide.insert(at, [held, cached]);
            } else if !self.wide.is_empty() {
                self.wide.remove(&at); // of one that was dropped
            }
        }
        self.read[replica] = self.samples.len() as u32;
    }

    /// Drops every second sample. The distance doubles, and the next sample stays on its grid.
    #[cold]
    fn halve(&mut self) {
        let dropped = self.samples.iter().skip(1).step_by(2);
        self.free.extend(dropped.map(|sample| sample.place));
        // The next samples come close together, so that a replica's share lines of memory.
        self.free.sort_unstable_by_key(|&place| Reverse(place));
        let samples = self.samples.len();
        for i in 1..samples.div_ceil(2) {
            self.samples[i] = self.samples[2 * i];
        }
        self.samples.truncate(samples.div_ceil(2));
        for read in &mut self.read {
            *read = read.div_ceil(2);
        }
        self.distance = self.distance.saturating_mul(2);
        let last = self.samples.last().map_or(0, |s| s.totals.at_ns);
        self.next = SimTime::from_nanos(last).saturating_add(self.distance);
    }

    /// All samples; every replica must have been read. `blocks` says how many blocks a replica has in all.
    pub(super) fn finish(self, blocks: impl Fn(usize) -> u64) -> Vec<Sample> {
        let totals: Vec<u64> = (0..self.read.len()).map(blocks).collect();
        let sample = |taken: &Taken| Sample {
            at_ns: taken.totals.at_ns,
            gateway_waiting: taken.totals.gateway_waiting,
            in_system: taken.totals.in_system,
            replicas: Vec::with_capacity(totals.len()),
        };
        let mut samples: Vec<Sample> = self.samples.iter().map(sample).collect();
        // Samples whose places are side by side at once: each line of memory is met once.
        let place = |i: usize| self.samples[i].place as usize;
        let mut by_place: Vec<usize> = (0..samples.len()).collect();
        by_place.sort_unstable_by_key(|&i| place(i));
        for together in by_place.chunk_by(|&a, &b| place(a) / TOGETHER == place(b) / TOGETHER) {
            for (replica, &kv_total) in totals.iter().enumerate() {
                for &i in together {
                    let at = replica * self.capacity + place(i);
                    if self.replicas[at] == OFF {
                        samples[i].replicas.push(ReplicaSample::default());
                        continue;
                    }
                    let [running, waiting, held, cached] = self.replicas[at];
                    let narrow = [u64::from(held), u64::from(cached)];
                    let [kv_held, kv_cached] = match self.wide.is_empty() {
                        true => narrow,
                        false => self.wide.get(&at).copied().unwrap_or(narrow),
                    };
                    samples[i].replicas.push(ReplicaSample {
                        running,
                        waiting,
                        kv_held,
                        kv_cached,
                        kv_total,
                    });
                }
            }
        }
        samples
    }
}

/// How many samples of so many replicas are kept where `most` are asked for.
fn capacity_for(most: usize, replicas: usize) -> usize {
    if most == 0 {
        return 0;
    }
    let affordable = (MOST_STATES / replicas.max(1)).max(FEWEST);
    // Halving needs a pair.
    most.min(affordable).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_fleet_is_sampled_less_often() {
        let of = |most| [1, 64, 163, 164, 1024, 100_000].map(|n| capacity_for(most, n));
        assert_eq!(of(800), [800, 800, 800, 799, 128, 128]);
        assert_eq!(of(10), [10; 6]);
        assert_eq!((of(1), of(0)), ([2; 6], [0; 6]));
    }

    #[test]
    fn samples_stay_few_and_equally_far_apart() {
        for end in [1_u64, 999_999, 7_000_000, 123_456_789, 86_400_000_000_000] {
            let samples = samples(end, SimTime::ZERO);
            assert!((1..=100).contains(&samples.len()), "{}", samples.len());
            assert!(end < 60_000_000 || samples.len() >= 50, "{}", samples.len());
            let step = samples.get(1).map_or(0, |s| s.at_ns);
            for (i, sample) in samples.iter().enumerate() {
                assert_eq!(sample.at_ns, i as u64 * step);
                let running: Vec<u32> = sample.replicas.iter().map(|r| r.running).collect();
                assert_eq!(running, [sample.at_ns as u32, sample.at_ns as u32 + 1]);
                assert!(sample.replicas.iter().all(|r| r.kv_total == 7));
                // Counts that take 64 bits come back whole, and leave nothing where others follow.
                let blocks: Vec<u64> = sample.replicas.iter().map(|r| r.kv_held).collect();
                assert_eq!(blocks, [held(sample.at_ns), held(sample.at_ns + 1)]);
            }
            // To know about when it ends saves work and changes nothing.
            for guess in [end, 5 * (end / 4), end / 10] {
                assert_eq!(self::samples(end, SimTime::from_nanos(guess)), samples);
            }
        }
    }

    /// Sometimes more than 32 bits hold.
    fn held(ns: u64) -> u64 {
        (ns % 3) << (ns % 5 * 16)
    }

    /// Events come at odd times; each finds the samples before it taken.
    fn samples(end: u64, expected_end: SimTime) -> Vec<Sample> {
        let mut sampler = Sampler::new(100, 2, expected_end);
        let state = |more: u32| {
            move |at: SimTime| EngineStats {
                running: at.as_nanos() as u32 + more,
                kv_held: held(at.as_nanos() + u64::from(more)),
                ..EngineStats::default()
            }
        };
        let (mut now, mut events) = (0, 0_u32);
        while now < end {
            now = (now + 1 + now / 7).min(end);
            sampler.up_to(SimTime::from_nanos(now), |at| Totals {
                at_ns: at.as_nanos(),
                gateway_waiting: 0,
                in_system: 0,
            });
            // Something happens now and then to the one, and only in the end to the other.
            events += 1;
            if events.is_multiple_of(3) {
                sampler.read(0, || false, state(0));
            }
        }
        sampler.read(0, || false, state(0));
        sampler.read(1, || false, state(1));
        sampler.finish(|_| 7)
    }

    /// A replica that is off has nothing, memory included.
    #[test]
    fn replicas_that_are_off_have_nothing() {
        let mut sampler = Sampler::new(10, 1, SimTime::ZERO);
        let totals = |at: SimTime| Totals {
            at_ns: at.as_nanos(),
            gateway_waiting: 0,
            in_system: 0,
        };
        for (ms, off) in [(2, false), (5, true), (9, false)] {
            sampler.up_to(SimTime::ZERO + SimDuration::from_millis(ms), totals);
            sampler.read(0, || off, |_| EngineStats::default());
        }
        let samples = sampler.finish(|_| 7);
        let there: Vec<bool> = samples
            .iter()
            .map(|s| s.replicas[0].kv_total == 7)
            .collect();
        let expected = [true, true, false, false, false, true, true, true, true];
        assert_eq!(there, expected);
    }

    #[test]
    fn none_are_taken_unless_asked_for() {
        let mut sampler = Sampler::new(0, 1, SimTime::from_nanos(u64::MAX));
        sampler.up_to(SimTime::from_nanos(u64::MAX - 1), |_| unreachable!());
        sampler.read(0, || unreachable!(), |_| unreachable!());
        assert!(sampler.finish(|_| 7).is_empty());
    }
}
