//! How long a client waits before it tries again: exponential backoff with the jitters of Brooker,
//! "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::schema::clients::{Jitter, RetriesSpec};

/// Waits before retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    base: SimDuration,
    factor: f64,
    cap: SimDuration,
    jitter: Jitter,
}

impl Backoff {
    pub(super) fn new(spec: &RetriesSpec) -> Self {
        Self {
            base: spec.backoff.0,
            factor: spec.factor,
            cap: spec.cap.0,
            jitter: spec.jitter,
        }
    }

    /// The wait before retry `nth`, from 0; `last` is the one before it, and `draw` gives a number from 0
    /// to below 1, asked for only where chance has a say.
    pub(super) fn wait(
        &self,
        nth: u32,
        last: SimDuration,
        draw: impl FnOnce() -> f64,
    ) -> SimDuration {
        let cap = self.cap.as_secs_f64();
        let grown = self.base.as_secs_f64() * libm::pow(self.factor, f64::from(nth));
        let most = grown.min(cap);
        let seconds = match self.jitter {
            Jitter::None => most,
            Jitter::Full => most * draw(),
            Jitter::Equal => most / 2.0 * (1.0 + draw()),
            Jitter::Decorrelated => {
                let base = self.base.as_secs_f64();
                let last = last.as_secs_f64().max(base);
                (base + (3.0 * last - base) * draw()).min(cap)
            }
        };
        SimDuration::from_secs_f64_saturating(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use windtunnel_base::quantity::Span;

    fn backoff(jitter: Jitter) -> Backoff {
        Backoff::new(&RetriesSpec {
            backoff: Span(SimDuration::from_millis(100)),
            factor: 2.0,
            cap: Span(SimDuration::from_millis(1000)),
            jitter,
            ..RetriesSpec::default()
        })
    }

    fn millis(jitter: Jitter, nth: u32, last: u64, draw: f64) -> f64 {
        let last = SimDuration::from_millis(last);
        backoff(jitter).wait(nth, last, || draw).as_millis_f64()
    }

    #[test]
    fn waits_are_those_of_the_formulas() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5, "{a} {b}");
        for (nth, expected) in [
            (0, 100.0),
            (1, 200.0),
            (3, 800.0),
            (4, 1000.0),
            (90, 1000.0),
        ] {
            near(millis(Jitter::None, nth, 0, 0.9), expected);
            near(millis(Jitter::Full, nth, 0, 0.25), expected / 4.0);
            near(millis(Jitter::Equal, nth, 0, 0.5), expected * 0.75);
        }
        near(millis(Jitter::Decorrelated, 0, 0, 0.5), 200.0); // between 100 and 300
        near(millis(Jitter::Decorrelated, 1, 200, 0.5), 350.0); // between 100 and 600
        near(millis(Jitter::Decorrelated, 2, 900, 0.9), 1000.0);
    }

    #[test]
    fn no_wait_stays_none_and_needs_no_chance() {
        let none = Backoff::new(&RetriesSpec::default());
        let wait = none.wait(5, SimDuration::ZERO, || panic!("nothing to draw"));
        assert_eq!(wait, SimDuration::ZERO);
    }

    proptest! {
        #[test]
        fn waits_keep_their_bounds(nth in 0_u32..40, last in 0_u64..2000, draw in 0.0..1.0_f64) {
            let most = millis(Jitter::None, nth, last, draw);
            prop_assert!(millis(Jitter::Full, nth, last, draw) <= most);
            let equal = millis(Jitter::Equal, nth, last, draw);
            prop_assert!(most / 2.0 <= equal + 1e-6 && equal <= most + 1e-6);
            let free = millis(Jitter::Decorrelated, nth, last, draw);
            prop_assert!((100.0 - 1e-6..=1000.0 + 1e-6).contains(&free));
        }
    }
}
