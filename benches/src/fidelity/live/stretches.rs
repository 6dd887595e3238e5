//! A live run in stretches of time, each of which is predicted from the ones beside it: from steps that served
//! none of its requests, made in the same moments.

use super::times::LiveStep;
use windtunnel_base::time::{SimDuration, SimTime};

/// As many stretches as a run has if its requests are short.
const STRETCHES: u64 = 20;
/// A stretch is at least so many times as long as nine tenths of the requests take: the steps that
/// still serve requests of the stretch before say nothing.
const LATENCIES: u64 = 8;

/// Where stretches begin, and from when on each is free of the requests before it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Stretches {
    length: SimDuration,
    /// When the last request that was sent before a stretch was through.
    free_from: Vec<SimTime>,
}

impl Stretches {
    /// Of the requests of a live run: when they were sent and when they were through, ns.
    pub(super) fn of(requests: &[(u64, u64)]) -> Self {
        let mut took: Vec<u64> = requests.iter().map(|(sent, end)| end - sent).collect();
        took.sort_unstable();
        let usual = took.get(took.len() * 9 / 10).copied().unwrap_or(0);
        let whole = requests.iter().map(|(sent, _)| sent + 1).max().unwrap_or(1);
        let fit = whole / (usual * LATENCIES).max(1);
        // Two at least: each says something of the other.
        let stretches = fit.clamp(2, STRETCHES);
        let length = whole.div_ceil(stretches);
        let mut free_from = vec![SimTime::ZERO; stretches as usize];
        for &(sent, end) in requests {
            let next = (sent / length) as usize + 1;
            for free in free_from.iter_mut().skip(next) {
                *free = (*free).max(SimTime::from_nanos(end));
            }
        }
        Self {
            length: SimDuration::from_nanos(length),
            free_from,
        }
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.free_from.len()
    }

    /// How long each of them is.
    pub(super) const fn length(&self) -> SimDuration {
        self.length
    }

    /// The stretch of a moment; the last one has no end.
    pub(super) fn at(&self, ns: u64) -> usize {
        let n = (ns / self.length.as_nanos()) as usize;
        n.min(self.free_from.len() - 1)
    }

    /// The steps of the stretches beside one that served none of its requests.
    pub(super) fn beside(&self, stretch: usize, steps: &[LiveStep]) -> Vec<LiveStep> {
        let says = |step: &&LiveStep| {
            let at = self.at(step.from.as_nanos());
            at.abs_diff(stretch) == 1 && step.from >= self.free_from[at]
        };
        steps.iter().filter(says).copied().collect()
    }

    /// As [`Stretches::beside`], but each step for one stretch only where there is one on either side: the second
    /// half of the stretch before it, and the first half of the one after.
    pub(super) fn nearest(&self, stretch: usize, steps: &[LiveStep]) -> Vec<LiveStep> {
        let mut nearest = self.beside(stretch, steps);
        if stretch > 0 && stretch + 1 < self.count() {
            let begin = stretch as u64 * self.length.as_nanos();
            let half = self.length.as_nanos() / 2;
            let [from, to] = [begin - half, begin + self.length.as_nanos() + half];
            nearest.retain(|step| (from..to).contains(&step.from.as_nanos()));
        }
        nearest
    }

    /// When a stretch begins.
    pub(super) const fn begin(&self, stretch: usize) -> SimTime {
        SimTime::from_nanos(stretch as u64 * self.length.as_nanos())
    }

    /// The steps of a stretch.
    pub(super) fn within(&self, stretch: usize, steps: &[LiveStep]) -> Vec<LiveStep> {
        let of = |step: &&LiveStep| self.at(step.from.as_nanos()) == stretch;
        steps.iter().filter(of).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_engine::batch::BatchShape;

    /// A request every 0.1 s for a minute, each 40 ms long, but one of 3 s.
    fn requests() -> Vec<(u64, u64)> {
        let request = |i: u64| {
            let sent = i * 100_000_000;
            let took = if i == 248 { 3_000_000_000 } else { 40_000_000 };
            (sent, sent + took)
        };
        (0..600).map(request).collect()
    }

    fn step(at_ms: u64) -> LiveStep {
        LiveStep {
            shape: BatchShape::default(),
            from: SimTime::from_nanos(at_ms * 1_000_000),
            took: 0.001,
            rested: false,
        }
    }

    #[test]
    fn stretches_are_as_long_as_one_another() {
        let stretches = Stretches::of(&requests());
        assert_eq!(stretches.count(), 20);
        for stretch in 0..20 {
            let of = |r: &&(u64, u64)| stretches.at(r.0) == stretch;
            let n = requests().iter().filter(of).count();
            assert!((29..=31).contains(&n), "{stretch}: {n}");
        }
        assert_eq!(stretches.at(u64::MAX), 19);
    }

    /// No step that has a say about a stretch served one of its requests, and all are near it.
    #[test]
    fn no_request_has_a_say_about_itself() {
        let requests = requests();
        let stretches = Stretches::of(&requests);
        let steps: Vec<LiveStep> = (0..60_000).map(step).collect();
        for stretch in 0..stretches.count() {
            let beside = stretches.beside(stretch, &steps);
            assert!(beside.len() > 2_000, "{}", beside.len());
            for step in beside {
                let at = step.from.as_nanos();
                assert_eq!(stretches.at(at).abs_diff(stretch), 1);
                let served = |r: &&(u64, u64)| r.0 <= at && at < r.1;
                for (sent, _) in requests.iter().filter(served) {
                    assert_ne!(stretches.at(*sent), stretch, "step at {at}");
                }
            }
        }
    }

    #[test]
    fn long_requests_make_long_stretches() {
        let mut requests = requests();
        for (sent, end) in &mut requests {
            *end = *sent + 1_500_000_000;
        }
        assert_eq!(Stretches::of(&requests).count(), 4);
        assert_eq!(Stretches::of(&requests[..1]).count(), 2);
        assert_eq!(Stretches::of(&[]).count(), 2);
    }
}
