//! The state of the whole system at equal distances, for plots. The distance follows the length of the
//! run: it doubles, and every second sample goes, whenever there are too many.

use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::EngineStats;
use windtunnel_ledger::result::{ReplicaSample, Sample};

/// First guess of the distance, where nothing is known of the length.
const FIRST_DISTANCE: SimDuration = SimDuration::from_millis(1);
/// Where something is known, a run may still be shorter by this factor without losing a sample.
const SHORTER: u64 = 2;

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
    samples: Vec<Totals>,
    /// Of how many samples each replica was read.
    read: Vec<u32>,
    /// What was read, `capacity` for each replica.
    replicas: Vec<Kept>,
}

/// What is kept of a replica in a sample: requests running and waiting, blocks held and cached. How many
/// blocks there are in all does not change.
type Kept = [u64; 3];

impl Sampler {
    /// For at most `capacity` samples of so many replicas in a run that ends about at `expected_end`; a
    /// time of zero says nothing. It moves no sample that stays, and saves those that would not.
    pub(super) fn new(capacity: usize, replicas: usize, expected_end: SimTime) -> Self {
        // Halving needs a pair.
        let capacity = if capacity == 0 { 0 } else { capacity.max(2) };
        let mut distance = FIRST_DISTANCE;
        let fits = |distance: SimDuration| distance.saturating_mul(SHORTER * capacity as u64);
        while capacity > 0 && SimTime::ZERO.saturating_add(fits(distance)) < expected_end {
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
            read: vec![0; replicas],
            // Memory that nobody has written to costs nothing.
            replicas: vec![[0; 3]; replicas * capacity],
        }
    }

    /// Takes the samples due before `until`, while the system's state is still the one since the last
    /// event; `look` reads it as of a given time.
    #[inline]
    pub(super) fn up_to(&mut self, until: SimTime, look: impl Fn(SimTime) -> Totals) {
        while self.next < until {
            if self.samples.len() == self.capacity {
                self.halve();
                continue;
            }
            self.samples.push(look(self.next));
            self.next = self.next.saturating_add(self.distance);
        }
    }

    /// Reads a replica for the samples taken since it was read last. Nothing may have happened to it
    /// meanwhile; `look` reads its state as of a given time.
    #[inline]
    pub(super) fn read(&mut self, replica: usize, look: impl Fn(SimTime) -> EngineStats) {
        let read = self.read[replica] as usize;
        if read == self.samples.len() {
            return;
        }
        let first = replica * self.capacity;
        let places = self.replicas[first + read..].iter_mut();
        for (place, sample) in places.zip(&self.samples[read..]) {
            let stats = look(SimTime::from_nanos(sample.at_ns));
            let requests = u64::from(stats.running) << 32 | u64::from(stats.waiting);
            *place = [requests, stats.kv_held, stats.kv_cached];
        }
        self.read[replica] = self.samples.len() as u32;
    }

    /// Drops every second sample. The distance doubles, and the next sample stays on its grid.
    #[cold]
    fn halve(&mut self) {
        let samples = self.samples.len();
        halve(&mut self.samples);
        self.samples.truncate(samples.div_ceil(2));
        let each = self.replicas.chunks_exact_mut(self.capacity);
        for (read, samples) in self.read.iter_mut().zip(each) {
            halve(&mut samples[..*read as usize]);
            *read = read.div_ceil(2);
        }
        self.distance = self.distance.saturating_mul(2);
        let last = self.samples.last().map_or(0, |s| s.at_ns);
        self.next = SimTime::from_nanos(last).saturating_add(self.distance);
    }

    /// All samples; every replica must have been read. `blocks` says how many blocks a replica has in all.
    pub(super) fn finish(self, blocks: impl Fn(usize) -> u64) -> Vec<Sample> {
        let replicas = self.read.len();
        let sample = |totals: &Totals| Sample {
            at_ns: totals.at_ns,
            gateway_waiting: totals.gateway_waiting,
            in_system: totals.in_system,
            replicas: Vec::with_capacity(replicas),
        };
        let mut samples: Vec<Sample> = self.samples.iter().map(sample).collect();
        for replica in 0..replicas {
            let kv_total = blocks(replica);
            let kept = &self.replicas[replica * self.capacity..];
            for (sample, &[requests, kv_held, kv_cached]) in samples.iter_mut().zip(kept) {
                sample.replicas.push(ReplicaSample {
                    running: (requests >> 32) as u32,
                    waiting: requests as u32,
                    kv_held,
                    kv_cached,
                    kv_total,
                });
            }
        }
        samples
    }
}

/// Moves every second entry, the first included, to the front.
fn halve<T: Copy>(list: &mut [T]) {
    for i in 1..list.len().div_ceil(2) {
        list[i] = list[2 * i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            }
            // To know about when it ends saves work and changes nothing.
            for guess in [end, 2 * end, end / 10] {
                assert_eq!(self::samples(end, SimTime::from_nanos(guess)), samples);
            }
        }
    }

    /// Events come at odd times; each finds the samples before it taken.
    fn samples(end: u64, expected_end: SimTime) -> Vec<Sample> {
        let mut sampler = Sampler::new(100, 2, expected_end);
        let state = |more: u32| {
            move |at: SimTime| EngineStats {
                running: at.as_nanos() as u32 + more,
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
                sampler.read(0, state(0));
            }
        }
        sampler.read(0, state(0));
        sampler.read(1, state(1));
        sampler.finish(|_| 7)
    }

    #[test]
    fn none_are_taken_unless_asked_for() {
        let mut sampler = Sampler::new(0, 1, SimTime::from_nanos(u64::MAX));
        sampler.up_to(SimTime::from_nanos(u64::MAX - 1), |_| unreachable!());
        sampler.read(0, |_| unreachable!());
        assert!(sampler.finish(|_| 7).is_empty());
    }
}
