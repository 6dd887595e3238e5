//! The state of the whole system at equal distances, for plots. The distance follows the length of the
//! run: it doubles, and every second sample goes, whenever there are too many.

use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::result::Sample;

/// First guess of the distance.
const FIRST_DISTANCE: SimDuration = SimDuration::from_millis(1);

/// Takes samples.
#[derive(Debug)]
pub(super) struct Sampler {
    /// The most that are kept; zero takes none.
    capacity: usize,
    distance: SimDuration,
    next: SimTime,
    samples: Vec<Sample>,
}

impl Sampler {
    pub(super) fn new(capacity: usize) -> Self {
        // Halving needs a pair.
        let capacity = if capacity == 0 { 0 } else { capacity.max(2) };
        Self {
            capacity,
            distance: FIRST_DISTANCE,
            next: if capacity == 0 {
                SimTime::MAX
            } else {
                SimTime::ZERO
            },
            samples: Vec::new(),
        }
    }

    /// Takes the samples due before `until`, while the system's state is still the one since the last
    /// event; `look` reads it as of a given time.
    #[inline]
    pub(super) fn up_to(&mut self, until: SimTime, mut look: impl FnMut(SimTime) -> Sample) {
        while self.next < until {
            if self.samples.len() == self.capacity {
                self.halve();
                continue;
            }
            self.samples.push(look(self.next));
            self.next = self.next.saturating_add(self.distance);
        }
    }

    /// Drops every second sample. The distance doubles, and the next sample stays on its grid.
    fn halve(&mut self) {
        let mut keep = false;
        self.samples.retain(|_| {
            keep = !keep;
            keep
        });
        self.distance = self.distance.saturating_mul(2);
        let last = self.samples.last().map_or(0, |s| s.at_ns);
        self.next = SimTime::from_nanos(last).saturating_add(self.distance);
    }

    pub(super) fn finish(self) -> Vec<Sample> {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stay_few_and_equally_far_apart() {
        for end in [1_u64, 999_999, 7_000_000, 123_456_789, 86_400_000_000_000] {
            let mut sampler = Sampler::new(100);
            // Events come at odd times; each finds the samples before it taken.
            let mut now = 0;
            while now < end {
                now = (now + 1 + now / 7).min(end);
                sampler.up_to(SimTime::from_nanos(now), |at| Sample {
                    at_ns: at.as_nanos(),
                    ..Sample::default()
                });
            }
            let samples = sampler.finish();
            assert!((1..=100).contains(&samples.len()), "{}", samples.len());
            assert!(end < 60_000_000 || samples.len() >= 50, "{}", samples.len());
            let step = samples.get(1).map_or(0, |s| s.at_ns);
            for (i, sample) in samples.iter().enumerate() {
                assert_eq!(sample.at_ns, i as u64 * step);
            }
        }
    }

    #[test]
    fn none_are_taken_unless_asked_for() {
        let mut sampler = Sampler::new(0);
        sampler.up_to(SimTime::from_nanos(u64::MAX - 1), |_| unreachable!());
        assert!(sampler.finish().is_empty());
    }
}
