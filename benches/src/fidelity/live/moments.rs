//! Slow and fast moments. A machine that computes does not run at one speed: within a stretch, moments differ by
//! a third and more, and who falls into a slow one is in the tail. How slow and fast moments come, and how long
//! they last, a stretch has from the ones beside it.

use super::stretches::Stretches;
use super::times::{LiveStep, StepTimes};
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::schema::faults::{FaultSpec, Target};

/// A moment: long enough for a request or two, short enough to be of one speed.
const MOMENT: SimDuration = SimDuration::from_millis(100);
/// No moment is so many times slower or faster than usual. What is was no step of ours.
const FURTHEST: f64 = 8.0;

/// The speed of each moment of a stretch, as a scenario has it: where its left half was last, in the second
/// half of the stretch before it, and where its right half is next, in the first half of the one after.
pub(super) fn moments(
    stretches: &Stretches,
    stretch: usize,
    steps: &[LiveStep],
    times: &StepTimes,
) -> Vec<FaultSpec> {
    let length = stretches.length().as_nanos();
    let count = (length / MOMENT.as_nanos()).max(1);
    let beside = stretches.beside(stretch, steps);
    let mut usual = 1.0;
    let moment = |n: u64| {
        let from = source(stretches.count() as u64, stretch as u64, n, count);
        let begin = from.0 * length + from.1 * MOMENT.as_nanos();
        let within = |s: &&LiveStep| {
            let at = s.from.as_nanos();
            begin <= at && at - begin < MOMENT.as_nanos()
        };
        let (mut took, mut said) = (0.0, 0.0);
        for step in beside.iter().filter(within) {
            took += step.took;
            said += times.says(step);
        }
        if took > 0.0 && said > 0.0 {
            usual = (took / said).clamp(FURTHEST.recip(), FURTHEST);
        }
        let at = stretch as u64 * length + n * MOMENT.as_nanos();
        FaultSpec::Slowdown {
            at: Span(SimDuration::from_nanos(at)),
            lasts: Span(MOMENT),
            speed: usual.recip(),
            on: Target::default(),
        }
    };
    (0..count).map(moment).collect()
}

/// From which moment of which stretch the `n`th of `count` has its speed.
fn source(stretches: u64, stretch: u64, n: u64, count: u64) -> (u64, u64) {
    let half = count / 2;
    match (stretch > 0, stretch + 1 < stretches) {
        (true, true) if n < half => (stretch - 1, n + count - half),
        (true, true) => (stretch + 1, n - half),
        (true, false) => (stretch - 1, n),
        _ => (stretch + 1, n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::time::SimTime;
    use windtunnel_engine::batch::BatchShape;
    use windtunnel_engine::config::{DecodePoint, PrefillPoint, TableSpec};

    /// A decode takes a millisecond.
    fn alone() -> TableSpec {
        let point = |seqs, context| DecodePoint {
            seqs,
            context,
            ms: 1.0,
        };
        let prefill = |tokens, context| PrefillPoint {
            tokens,
            context,
            ms: 1.0,
        };
        TableSpec {
            decode: vec![point(1, 1), point(1, 512), point(8, 1), point(8, 512)],
            prefill: [(1, 0), (1, 384), (256, 0), (256, 384)]
                .map(|(tokens, context)| prefill(tokens, context))
                .to_vec(),
            ..TableSpec::default()
        }
    }

    /// A step each 10 ms of two minutes; `slow` says how slow it is, of its time in ms.
    fn steps(slow: impl Fn(u64) -> f64) -> Vec<LiveStep> {
        let step = |i: u64| LiveStep {
            shape: BatchShape {
                decode_seqs: 1,
                decode_context: 50,
                ..BatchShape::default()
            },
            from: SimTime::from_nanos(i * 10_000_000),
            took: 1e-3 * slow(i * 10),
            rested: false,
        };
        (0..12_000).map(step).collect()
    }

    /// Twenty stretches of six seconds.
    fn stretches() -> Stretches {
        let requests: Vec<(u64, u64)> = (0..1_200_u64)
            .map(|i| (i * 100_000_000, i * 100_000_000 + 1_000_000))
            .collect();
        Stretches::of(&requests)
    }

    fn speeds(stretch: usize, steps: &[LiveStep]) -> Vec<f64> {
        let times = StepTimes::of(alone(), &stretches().beside(stretch, steps));
        assert!(times.says(&steps[0]) > 0.0);
        let speed = |fault: FaultSpec| match fault {
            FaultSpec::Slowdown { speed, .. } => speed,
            other => panic!("{other:?}"),
        };
        let all = moments(&stretches(), stretch, steps, &times);
        all.into_iter().map(speed).collect()
    }

    #[test]
    fn a_steady_machine_has_no_moments() {
        for stretch in [0, 7, 19] {
            let all = speeds(stretch, &steps(|_| 1.3));
            assert!(all.len() >= 59, "{}", all.len());
            assert!(all.iter().all(|s| (s - 1.0).abs() < 1e-9), "{all:?}");
        }
    }

    #[test]
    fn as_many_moments_are_slow_as_beside() {
        // A fifth of the time it is half as fast.
        let slow = |ms: u64| if ms % 1_000 < 200 { 2.0 } else { 1.0 };
        for stretch in [0, 7, 19] {
            let all = speeds(stretch, &steps(slow));
            let slow = all.iter().filter(|s| **s < 0.7).count() as f64;
            assert!((0.15..0.25).contains(&(slow / all.len() as f64)), "{all:?}");
        }
    }

    /// What the stretch itself was like has no say.
    #[test]
    fn no_moment_is_its_own() {
        let own = |ms: u64| stretches().at(ms * 1_000_000) == 7;
        let all = speeds(7, &steps(|ms| if own(ms) { 3.0 } else { 1.0 }));
        assert!(all.iter().all(|s| (s - 1.0).abs() < 1e-9), "{all:?}");
    }
}
