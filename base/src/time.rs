//! Simulated time: integer nanoseconds, so that equality and ties are exact and sums do not
//! depend on their order. Floats are rounded *up*, once, in `SimDuration::from_secs_f64`.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Nanoseconds of simulated time since the run began. Never wall-clock time.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct SimTime(u64);

/// A length of simulated time, in whole nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SimDuration(u64);

impl SimTime {
    /// The start of a run.
    pub const ZERO: Self = Self(0);
    /// Later than any event; used for "never".
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the start, for people and plots.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> SimDuration {
        SimDuration(self.0.saturating_sub(earlier.0))
    }

    /// `self + d`, or [`SimTime::MAX`] on overflow.
    pub const fn saturating_add(self, d: SimDuration) -> Self {
        Self(self.0.saturating_add(d.0))
    }
}

impl SimDuration {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The longest duration.
    pub const MAX: Self = Self(u64::MAX);

    /// A duration of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A duration of `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros * 1_000)
    }

    /// A duration of `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// A duration of `secs` whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000_000)
    }

    /// Rounds up to the next nanosecond, so that work never takes zero time by rounding.
    /// `None` if `seconds` is negative, NaN, or longer than about 584 years.
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        let nanos = seconds * 1e9;
        // So large a float is whole: what is below the end stays there when rounded up.
        (seconds >= 0.0 && nanos < u64::MAX as f64).then_some(Self(round_up(nanos)))
    }

    /// Like [`Self::from_secs_f64`], with out-of-range values pinned to the nearest end and
    /// NaN to zero: for samplers, whose tails may leave any range.
    pub fn from_secs_f64_saturating(seconds: f64) -> Self {
        Self(round_up(seconds * 1e9))
    }

    /// Whole nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds, for people, plots and cost models.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Milliseconds, for people.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Whether this is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `self * n`, pinned to [`SimDuration::MAX`].
    pub const fn saturating_mul(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }
}

/// The least whole number that is not less, pinned to the nearest end; NaN is zero. As
/// `f64::ceil`, which is a call into a library where the target has no instruction for it.
#[inline]
fn round_up(x: f64) -> u64 {
    let whole = x as u64;
    whole.saturating_add(u64::from((whole as f64) < x))
}

impl Add<SimDuration> for SimTime {
    type Output = Self;
    fn add(self, d: SimDuration) -> Self {
        Self(self.0 + d.0)
    }
}

impl AddAssign<SimDuration> for SimTime {
    fn add_assign(&mut self, d: SimDuration) {
        self.0 += d.0;
    }
}

impl Add for SimDuration {
    type Output = Self;
    fn add(self, d: Self) -> Self {
        Self(self.0 + d.0)
    }
}

impl AddAssign for SimDuration {
    fn add_assign(&mut self, d: Self) {
        self.0 += d.0;
    }
}

impl Sub for SimDuration {
    type Output = Self;
    fn sub(self, d: Self) -> Self {
        Self(self.0 - d.0)
    }
}

impl fmt::Debug for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={}ns", self.0)
    }
}

impl fmt::Debug for SimDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_up_is_what_ceil_does() {
        let ends = [
            0.0,
            -0.0,
            -0.5,
            -3.0,
            f64::MIN_POSITIVE,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            (1_u64 << 53) as f64,
            (1_u64 << 63) as f64,
            u64::MAX as f64,
            1e300,
        ];
        let mut random = crate::rng::Rng::from_seed(3);
        let draws = (0..100_000).map(|i| random.f64() * (1_u128 << (i % 66)) as f64);
        for x in draws.chain(ends) {
            for x in [x, x.floor(), x.next_up(), x.next_down()] {
                assert_eq!(round_up(x), x.ceil() as u64, "{x:e}");
            }
        }
    }

    #[test]
    fn floats_round_up_and_bad_ones_are_refused() {
        assert_eq!(
            SimDuration::from_secs_f64(1e-12),
            Some(SimDuration::from_nanos(1))
        );
        assert_eq!(SimDuration::from_secs_f64(0.0), Some(SimDuration::ZERO));
        assert_eq!(SimDuration::from_secs_f64(-1.0), None);
        assert_eq!(SimDuration::from_secs_f64(f64::NAN), None);
        assert_eq!(SimDuration::from_secs_f64(1e12), None);
        assert_eq!(
            SimDuration::from_secs_f64_saturating(1e12),
            SimDuration::MAX
        );
    }
}
