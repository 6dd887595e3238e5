//! What happened to the steps of a live run, in the order in which it happened. A machine that computes does not run
//! at one speed, and now and then it stands still for a moment, often shorter than a request: spread over
//! more time than that, it would hit many requests a little where it hit one hard. So a stretch is predicted with what
//! happened beside it step by step, busy period by busy period.

use super::times::{LiveStep, StepTimes};

/// A step: what it is said to take, and what it took, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Heard {
    said: f64,
    took: f64,
}

/// The steps from one rest to the next.
#[derive(Clone, PartialEq, Debug, Default)]
struct Busy {
    /// The step after the rest; none if the rest came before the steps that were heard.
    first: Option<Heard>,
    more: Vec<Heard>,
}

/// What happened to steps, to be played to others. It begins again when it is over.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Tape {
    periods: Vec<Busy>,
    /// The period that is played, once one is,
    period: Option<usize>,
    /// which of its later steps,
    step: usize,
    /// and how much of what that one is said to take is over.
    over: f64,
}

/// No step after a rest takes less than this part of what it is said to take, however fast another was.
const LEAST: f64 = 0.125;

impl Tape {
    /// What happened to `steps`, which are in order.
    pub(super) fn of(steps: &[LiveStep], times: &StepTimes) -> Self {
        let mut periods: Vec<Busy> = Vec::new();
        for step in steps {
            let said = times.says(&step.shape, step.rested);
            let heard = Heard {
                said,
                took: step.took,
            };
            if said <= 0.0 {
                continue;
            }
            if step.rested {
                periods.push(Busy {
                    first: Some(heard),
                    more: Vec::new(),
                });
                continue;
            }
            match periods.last_mut() {
                Some(period) => period.more.push(heard),
                None => periods.push(Busy {
                    first: None,
                    more: vec![heard],
                }),
            }
        }
        Self {
            periods,
            ..Self::default()
        }
    }

    /// Begins again.
    pub(super) fn rewind(&mut self) {
        (self.period, self.step, self.over) = (None, 0, 0.0);
    }

    /// Seconds of a step after a rest that is said to take so many: it is off by as much as the next such step
    /// was. By as much and not by the same share: what a rest adds does not depend on what is computed.
    pub(super) fn after_rest(&mut self, said: f64) -> f64 {
        for _ in 0..self.periods.len() {
            if let Some(first) = self.next_period().first {
                return (said + first.took - first.said).max(LEAST * said);
            }
        }
        said
    }

    /// Seconds of a step after another that is said to take so many. What happened in as much time of steps
    /// happens in it: the longer it is, the more it meets.
    pub(super) fn after_step(&mut self, said: f64) -> f64 {
        let (mut left, mut took) = (said, 0.0);
        let mut empty = 0;
        while left > 0.0 {
            let Some(heard) = self.heard() else {
                if empty == self.periods.len() {
                    // No step that was heard followed another.
                    return took + left;
                }
                empty += 1;
                self.next_period();
                continue;
            };
            empty = 0;
            let here = left.min(heard.said - self.over);
            took += here * heard.took / heard.said;
            left -= here;
            self.over += here;
            if self.over >= heard.said {
                (self.step, self.over) = (self.step + 1, 0.0);
            }
        }
        took
    }

    /// The later step that is played.
    fn heard(&self) -> Option<Heard> {
        self.periods.get(self.period?)?.more.get(self.step).copied()
    }

    /// Goes on to the next period; there is one.
    fn next_period(&mut self) -> &Busy {
        let next = self.period.map_or(0, |at| at + 1) % self.periods.len();
        (self.period, self.step, self.over) = (Some(next), 0, 0.0);
        &self.periods[next]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fidelity::live::times::tests::{alone, step};
    use windtunnel_base::rng::Rng;

    const MS: f64 = 1e-3;

    /// Busy periods of a prefill after a rest and 40 decodes, each of which takes what `took` says, in ms.
    fn periods(count: usize, mut took: impl FnMut(usize, usize) -> f64) -> Vec<LiveStep> {
        let mut steps = Vec::new();
        for period in 0..count {
            let seconds = took(period, 0);
            steps.push(step(0, 100, true, seconds));
            steps.extend((1..=40).map(|i| step(1, 0, false, took(period, i))));
        }
        steps
    }

    /// What is said of those steps without anything happening: 3 ms, and 0.6 ms.
    fn usual(i: usize) -> f64 {
        if i == 0 { 3.0 } else { 0.6 }
    }

    fn tape(steps: &[LiveStep]) -> Tape {
        Tape::of(steps, &StepTimes::of(alone(), &[]))
    }

    #[test]
    fn what_took_what_was_said_changes_nothing() {
        let mut tape = tape(&periods(5, |_, i| usual(i)));
        for said in [0.1, 0.6, 1.7, 25.0, 0.6] {
            assert!((tape.after_step(said * MS) - said * MS).abs() < 1e-12);
            assert!((tape.after_rest(said * MS) - said * MS).abs() < 1e-12);
        }
        let mut nothing = Tape::default();
        assert_eq!(
            (nothing.after_rest(1.0), nothing.after_step(2.0)),
            (1.0, 2.0)
        );
        // Only steps after rests, and only steps after others.
        let all = periods(3, |_, _| 1.0);
        let (first, more): (Vec<LiveStep>, Vec<_>) = all.iter().partition(|s| s.rested);
        assert_eq!(
            Tape::of(&first, &StepTimes::of(alone(), &[])).after_step(2.0),
            2.0
        );
        assert_eq!(
            Tape::of(&more, &StepTimes::of(alone(), &[])).after_rest(2.0),
            2.0
        );
    }

    #[test]
    fn the_same_steps_take_the_same_again_and_it_begins_anew_at_the_end() {
        let mut rng = Rng::from_seed(5);
        let steps = periods(7, |_, i| usual(i) * (0.8 + rng.f64()));
        let times = StepTimes::of(alone(), &[]);
        let mut tape = tape(&steps);
        for _ in 0..3 {
            for step in &steps {
                let said = times.says(&step.shape, step.rested);
                let took = if step.rested {
                    tape.after_rest(said)
                } else {
                    tape.after_step(said)
                };
                assert!((took - step.took).abs() < 1e-9, "{took} {}", step.took);
            }
        }
        tape.after_step(1.0);
        tape.rewind();
        assert!((tape.after_rest(3.0 * MS) - steps[0].took).abs() < 1e-9);
    }

    /// A stop of 6 ms every 400 steps, anywhere: a tenth of the requests of 40 steps meet one, of 1,000 about 105 as
    /// theirs are a little longer (deviation 10), and hardly any a part of one.
    #[test]
    fn a_stop_in_one_request_of_ten_stays_one_in_ten() {
        let stopped = |period: usize, i: usize| period % 10 == 3 && i == 1 + period * 7 / 10 % 40;
        let steps = periods(200, |p, i| usual(i) + if stopped(p, i) { 6.0 } else { 0.0 });
        let mut tape = tape(&steps);
        let (mut hit, mut partly) = (0, 0);
        for request in 0..1_000 {
            // Not the same number of steps, nor the same contexts.
            let length = 30 + request * 7 % 21;
            let first = tape.after_rest(2.5 * MS);
            let more: f64 = (0..length).map(|_| tape.after_step(0.63 * MS)).sum();
            let late = first + more - (2.5 + 0.63 * length as f64) * MS;
            hit += usize::from((late - 6.0 * MS).abs() < 1e-9);
            partly += usize::from(late > 1e-9 && (late - 6.0 * MS).abs() >= 1e-9);
        }
        assert!((70..=140).contains(&hit), "{hit}");
        assert!(partly <= 10, "{partly} stops met in part");
    }
}
