//! A live run in two folds: stretches of time by turns, so that each request is predicted from the steps
//! of others that were made around the same minute.

use super::times::LiveStep;
use windtunnel_base::time::{SimDuration, SimTime};

/// As many stretches as a run has if its requests are short.
const STRETCHES: u64 = 12;
/// A stretch is at least so many times as long as nine tenths of the requests take: the steps that
/// still serve requests of the stretch before say nothing.
const LATENCIES: u64 = 8;

/// One half of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fold {
    /// The first stretch and every second one after it.
    A,
    /// The others.
    B,
}

/// Which stretch is of which fold, and from when on it is free of the requests of the one before.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Folds {
    length: SimDuration,
    /// When the last request that was sent before a stretch was through.
    free_from: Vec<SimTime>,
}

impl Folds {
    /// Of the requests of a live run: when they were sent and when they were through, ns.
    pub(super) fn of(requests: &[(u64, u64)]) -> Self {
        let mut took: Vec<u64> = requests.iter().map(|(sent, end)| end - sent).collect();
        took.sort_unstable();
        let usual = took.get(took.len() * 9 / 10).copied().unwrap_or(0);
        let whole = requests.iter().map(|(sent, _)| sent + 1).max().unwrap_or(1);
        let fit = whole / (usual * LATENCIES).max(1);
        // An even number, two at least: both folds get the same.
        let stretches = (fit.min(STRETCHES) / 2 * 2).max(2);
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

    /// How many stretches there are.
    pub(super) const fn count(&self) -> usize {
        self.free_from.len()
    }

    /// How long each of them is.
    pub(super) const fn length(&self) -> SimDuration {
        self.length
    }

    /// The stretch of a moment; the last one has no end.
    fn stretch(&self, at_ns: u64) -> usize {
        let n = (at_ns / self.length.as_nanos()) as usize;
        n.min(self.free_from.len() - 1)
    }

    const fn fold(stretch: usize) -> Fold {
        if stretch.is_multiple_of(2) {
            Fold::A
        } else {
            Fold::B
        }
    }

    /// The fold of a request sent at a moment.
    pub(super) fn of_request(&self, sent_ns: u64) -> Fold {
        Self::fold(self.stretch(sent_ns))
    }

    /// The steps that served nothing of `fold`.
    pub(super) fn others(&self, fold: Fold, steps: &[LiveStep]) -> Vec<LiveStep> {
        let free = |step: &&LiveStep| {
            let stretch = self.stretch(step.from.as_nanos());
            Self::fold(stretch) != fold && step.from >= self.free_from[stretch]
        };
        steps.iter().filter(free).copied().collect()
    }

    /// The steps of the stretches of `fold`.
    pub(super) fn judged(&self, fold: Fold, steps: &[LiveStep]) -> Vec<LiveStep> {
        let of = |step: &&LiveStep| self.of_request(step.from.as_nanos()) == fold;
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
    fn stretches_take_turns() {
        let folds = Folds::of(&requests());
        assert_eq!(folds.count(), 12);
        let of_a = |r: &&(u64, u64)| folds.of_request(r.0) == Fold::A;
        let of_a = requests().iter().filter(of_a).count();
        assert!((299..=301).contains(&of_a), "{of_a}");
        assert_eq!(folds.of_request(0), Fold::A);
        assert_eq!(folds.of_request(5_100_000_000), Fold::B);
        assert_eq!(folds.of_request(u64::MAX), Fold::B);
    }

    /// No step that has a say about a fold served one of its requests.
    #[test]
    fn no_request_has_a_say_about_itself() {
        let requests = requests();
        let folds = Folds::of(&requests);
        let steps: Vec<LiveStep> = (0..60_000).map(step).collect();
        for fold in [Fold::A, Fold::B] {
            let others = folds.others(fold, &steps);
            assert!(others.len() > 20_000, "{}", others.len());
            for step in others {
                let at = step.from.as_nanos();
                let served = |r: &&(u64, u64)| r.0 <= at && at < r.1;
                for (sent, _) in requests.iter().filter(served) {
                    assert_ne!(folds.of_request(*sent), fold, "step at {at}");
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
        assert_eq!(Folds::of(&requests).count(), 4);
        assert_eq!(Folds::of(&requests[..1]).count(), 2);
        assert_eq!(Folds::of(&[]).count(), 2);
    }
}
