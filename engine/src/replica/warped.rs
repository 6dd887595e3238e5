//! Replicas that stand still for a while, or are slow. Such a replica lives on a time of its own,
//! which stops, or passes more slowly; everything that comes in or goes out is translated. So the engine
//! inside knows nothing of it, and what holds of engines (that fast-forward shows nowhere) holds
//! here as well.
//!
//! A replica that stands still says nothing. Work in progress is frozen and goes on afterwards; who
//! comes meanwhile is taken into the queue, or refused, and begins no earlier than it goes on.

use crate::batch::BatchShape;
use crate::continuous::ContinuousBatching;
use crate::engine::{
    CacheEvent, Engine, EngineOutcome, EngineStats, Leaving, Onward, StepObserver,
};
use crate::request::Submission;
use crate::station::Station;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::MicroJoules;

/// Factors are counted in 2^-32, so that times translate exactly.
const FACTOR_BITS: u32 = 32;
/// The factor of one.
const ONE: u64 = 1 << FACTOR_BITS;

/// From `outside` on a replica's own time passes from `inside` on, a nanosecond of it every
/// `factor / 2^32` nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    outside: u64,
    inside: u64,
    factor: u64,
}

impl Stretch {
    /// When it is `inside` within, rounded up.
    fn outside(&self, inside: u64) -> u64 {
        let passed = u128::from(inside - self.inside) * u128::from(self.factor);
        let passed = u64::try_from(passed.div_ceil(u128::from(ONE))).unwrap_or(u64::MAX);
        self.outside.saturating_add(passed)
    }

    /// What time it is within at `outside`, rounded down: the opposite of [`Self::outside`], because no
    /// factor is below one.
    fn inside(&self, outside: u64) -> u64 {
        let passed = u128::from(outside - self.outside) << FACTOR_BITS;
        let passed = u64::try_from(passed / u128::from(self.factor)).unwrap_or(u64::MAX);
        self.inside.saturating_add(passed)
    }
}

/// How a replica's own time passes. Between the end of one stretch within and the begin of the next
/// outside it stands still.
#[derive(Clone, Debug)]
struct OwnTime {
    /// In order; the last one may begin later than now.
    stretches: Vec<Stretch>,
}

impl OwnTime {
    fn new() -> Self {
        let first = Stretch {
            outside: 0,
            inside: 0,
            factor: ONE,
        };
        Self {
            stretches: vec![first],
        }
    }

    /// What time it is within.
    fn inside(&self, now: SimTime) -> SimTime {
        let next = self
            .stretches
            .partition_point(|s| s.outside <= now.as_nanos());
        let inside = self.stretches[next - 1].inside(now.as_nanos());
        let frozen = self.stretches.get(next).map_or(u64::MAX, |s| s.inside);
        SimTime::from_nanos(inside.min(frozen))
    }

    /// When something ends that ends at `inside` within: before a standstill that begins then.
    fn end(&self, inside: SimTime) -> SimTime {
        let inside = inside.as_nanos();
        let next = self.stretches.partition_point(|s| s.inside < inside);
        SimTime::from_nanos(self.stretches[next.saturating_sub(1)].outside(inside))
    }

    /// When something begins that begins at `inside` within: after a standstill that begins then.
    fn begin(&self, inside: SimTime) -> SimTime {
        let inside = inside.as_nanos();
        let next = self.stretches.partition_point(|s| s.inside <= inside);
        SimTime::from_nanos(self.stretches[next - 1].outside(inside))
    }

    /// Until when it stands still, if it does at `now`.
    fn still_until(&self, now: SimTime) -> Option<SimTime> {
        let last = self
            .stretches
            .last()
            .map(|s| SimTime::from_nanos(s.outside));
        last.filter(|&until| until > now)
    }

    /// From `now` on, at the earliest from `outside` on, time passes like this.
    fn change(&mut self, now: SimTime, outside: SimTime, factor: Option<u64>) {
        let inside = self.inside(now).as_nanos();
        let standing = self.still_until(now).is_some();
        let last = self.stretches.last().copied();
        let factor = factor.or(last.map(|s| s.factor)).unwrap_or(ONE);
        let begin = match last {
            Some(last) if standing => last.outside.max(outside.as_nanos()),
            _ => outside.as_nanos(),
        };
        if standing {
            self.stretches.pop();
        }
        self.stretches.push(Stretch {
            outside: begin,
            inside,
            factor,
        });
    }
}

/// What lives on a time of its own.
#[derive(Debug)]
pub(super) enum Inner {
    Continuous(Box<ContinuousBatching>),
    Station(Box<Station>),
}

/// Asks whichever it is.
macro_rules! ask {
    ($inner:expr, $engine:ident => $question:expr) => {
        match $inner {
            Inner::Continuous($engine) => $question,
            Inner::Station($engine) => $question,
        }
    };
}

/// A replica with a time of its own.
#[derive(Debug)]
pub struct Warped {
    inner: Inner,
    time: OwnTime,
    /// When it was last said to have something to say only because it goes on then.
    wake: Option<SimTime>,
    /// It has something under way, or was told something to which it may have an answer.
    busy: bool,
    /// Until then it had nothing to do. Its own time has no moment for each of those outside, and a
    /// step that begins at one of its own must not seem to begin before there was a reason for it.
    rested_until: SimTime,
}

impl Warped {
    pub(super) fn new(inner: Inner) -> Self {
        let busy = match &inner {
            Inner::Continuous(engine) => engine.is_busy(),
            Inner::Station(station) => station.stats(SimTime::ZERO) != EngineStats::default(),
        };
        Self {
            inner,
            time: OwnTime::new(),
            wake: None,
            busy,
            rested_until: SimTime::ZERO,
        }
    }

    /// What time it is on its own.
    pub(super) fn inside(&self, now: SimTime) -> SimTime {
        self.time.inside(now)
    }

    /// The replica on its own time.
    pub(super) const fn inner(&self) -> &Inner {
        &self.inner
    }

    /// The replica on its own time.
    pub(super) const fn inner_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }

    /// See `Replica::stall`.
    pub(super) fn stall(&mut self, now: SimTime, until: SimTime) {
        if until > now {
            self.time.change(now, until, None);
        }
    }

    /// See `Replica::set_speed`.
    pub(super) fn set_speed(&mut self, now: SimTime, factor: f64) {
        let factor = (factor * ONE as f64).round();
        // What is no number becomes one.
        let factor = if factor > ONE as f64 {
            factor as u64
        } else {
            ONE
        };
        self.time.change(now, now, Some(factor));
    }
}

/// Tells an observer on the time outside what happens on a replica's own.
struct Outside<'a, O> {
    time: &'a OwnTime,
    rested_until: SimTime,
    observer: &'a mut O,
}

impl<O: StepObserver> StepObserver for Outside<'_, O> {
    fn token_gap(&mut self, at: SimTime, class: ClassId, gap: SimDuration, count: u64) {
        let before = SimTime::from_nanos(at.as_nanos().saturating_sub(gap.as_nanos()));
        let (at, before) = (self.time.end(at), self.time.end(before));
        self.observer.token_gap(at, class, at.since(before), count);
    }

    fn step(
        &mut self,
        from: SimTime,
        to: SimTime,
        shape: &BatchShape,
        energy: MicroJoules,
        extrapolated: bool,
    ) {
        let from = self.time.begin(from).max(self.rested_until);
        let to = self.time.end(to).max(from);
        self.observer.step(from, to, shape, energy, extrapolated);
    }
}

impl Engine for Warped {
    fn submit<O: StepObserver>(
        &mut self,
        now: SimTime,
        submission: &Submission<'_>,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        if !self.busy {
            self.rested_until = now;
        }
        self.busy = true;
        let (time, inside) = (&self.time, self.time.inside(now));
        let rested_until = self.rested_until;
        let mut outside = Outside {
            time,
            rested_until,
            observer,
        };
        ask!(&mut self.inner, e => e.submit(inside, submission, &mut outside))
    }

    fn cancel<O: StepObserver>(
        &mut self,
        now: SimTime,
        request: RequestId,
        observer: &mut O,
    ) -> bool {
        self.busy = true;
        let (time, inside) = (&self.time, self.time.inside(now));
        let rested_until = self.rested_until;
        let mut outside = Outside {
            time,
            rested_until,
            observer,
        };
        ask!(&mut self.inner, e => e.cancel(inside, request, &mut outside))
    }

    fn next_event(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) -> Option<SimTime> {
        self.wake = None;
        if let Some(until) = self.time.still_until(now) {
            self.wake = self.busy.then_some(until);
            return self.wake;
        }
        let inside = self.time.inside(now);
        let next = ask!(&mut self.inner, e => e.next_event(inside, outcomes));
        self.busy = next.is_some();
        Some(self.time.end(next?).max(now))
    }

    fn advance<O: StepObserver>(
        &mut self,
        now: SimTime,
        outcomes: &mut Vec<EngineOutcome>,
        observer: &mut O,
    ) {
        if self.wake.take() == Some(now) {
            return; // it goes on, and begins when it is asked what comes next
        }
        let (time, inside) = (&self.time, self.time.inside(now));
        let rested_until = self.rested_until;
        let mut outside = Outside {
            time,
            rested_until,
            observer,
        };
        ask!(&mut self.inner, e => e.advance(inside, outcomes, &mut outside));
    }

    fn stats(&self, now: SimTime) -> EngineStats {
        ask!(&self.inner, e => e.stats(self.time.inside(now)))
    }

    fn stats_onward(&self, now: SimTime, onward: &mut Onward) -> EngineStats {
        ask!(&self.inner, e => e.stats_onward(self.time.inside(now), onward))
    }

    fn leaving(&self, now: SimTime) -> Leaving {
        ask!(&self.inner, e => e.leaving(self.time.inside(now)))
    }

    fn watch_cache(&mut self, on: bool) {
        ask!(&mut self.inner, e => e.watch_cache(on));
    }

    fn cached_prefix_tokens(&self, prefix: &[Extent], prompt_tokens: u32) -> u32 {
        ask!(&self.inner, e => e.cached_prefix_tokens(prefix, prompt_tokens))
    }

    fn record_cache_events(&mut self, on: bool) {
        ask!(&mut self.inner, e => e.record_cache_events(on));
    }

    fn take_cache_events(&mut self, events: &mut Vec<CacheEvent>) {
        let known = events.len();
        ask!(&mut self.inner, e => e.take_cache_events(events));
        for event in &mut events[known..] {
            event.at = self.time.end(event.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(nanos: u64) -> SimTime {
        SimTime::from_nanos(nanos)
    }

    #[test]
    fn time_stops_and_goes_on() {
        let mut time = OwnTime::new();
        time.change(at(10), at(30), None);
        let inside = |t| time.inside(at(t)).as_nanos();
        assert_eq!([5, 10, 20, 30, 35].map(inside), [5, 10, 10, 10, 15]);
        assert_eq!(time.end(at(10)), at(10), "it ended before it stood still");
        assert_eq!(time.begin(at(10)), at(30), "it began afterwards");
        assert_eq!((time.end(at(11)), time.begin(at(9))), (at(31), at(9)));
        // Longer, and slower afterwards.
        time.change(at(20), at(50), None);
        time.change(at(25), at(25), Some(3 * ONE));
        let inside = |t| time.inside(at(t)).as_nanos();
        assert_eq!([10, 49, 52, 53, 59].map(inside), [10, 10, 10, 11, 13]);
        assert_eq!(time.end(at(13)), at(59));
    }

    proptest! {
        /// Whatever happens to it, a replica's own time never runs back or ahead of the time outside, and
        /// what is due at some time of its own is due when it is that time there.
        #[test]
        fn times_translate_exactly(
            changes in prop::collection::vec((0_u64..500, 0_u64..300, prop::option::of(1.0..9.0_f64)), 0..12),
            probes in prop::collection::vec(0_u64..9_000, 1..40),
        ) {
            let mut time = OwnTime::new();
            let mut now = 0;
            for (gap, span, factor) in changes {
                now += gap;
                let before = time.inside(at(now));
                match factor {
                    Some(f) => time.change(at(now), at(now), Some((f * ONE as f64) as u64)),
                    None => time.change(at(now), at(now + span), None),
                }
                prop_assert_eq!(time.inside(at(now)), before, "a change changes no present");
            }
            for &t in &probes {
                let (here, next) = (time.inside(at(t)), time.inside(at(t + 1)));
                prop_assert!(here <= next && next.since(here).as_nanos() <= 1 && here <= at(t));
                let due = at(t);
                prop_assert_eq!(time.inside(time.end(due)), due);
                prop_assert_eq!(time.inside(time.begin(due)), due);
                prop_assert!(time.end(due) <= time.begin(due));
            }
        }
    }
}
