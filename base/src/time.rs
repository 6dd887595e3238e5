//! Simulated time: integer nanoseconds, so that equality and ties are exact and sums do not
//! depend on their order. Floats are rounded *up*, once, in `SimDuration::from_secs_f64`.
//!
//! What runs back to back, as the steps of an engine do, keeps its own finer clock (`FineTime`,
//! `FineDuration`), or rounding up each step would add half a nanosecond per step.

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

    /// `self - other`, or zero if that is longer.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self * n`, pinned to [`SimDuration::MAX`].
    pub const fn saturating_mul(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n))
    }
}

/// An instant to a fraction of a nanosecond: where a step ends that began where another ended.
/// Everybody else sees it rounded up ([`Self::rounded_up`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FineTime {
    nanos: u64,
    /// In 2^-32 nanoseconds.
    fraction: u32,
}

/// A length of time to a fraction of a nanosecond. Sums are exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FineDuration {
    nanos: u64,
    /// In 2^-32 nanoseconds.
    fraction: u32,
}

/// Parts of a nanosecond that floats are rounded to: about a femtosecond each. Coarser than the
/// rounding of sums and products of floats up to some tenths of a second, so that what is a whole number
/// of nanoseconds on paper is one here; fine enough that a hundred thousand steps are a twentieth
/// of a nanosecond out at worst.
const PARTS: f64 = (1_u64 << 20) as f64;

impl FineTime {
    /// The end of the first step of those that lie back to back: an instant that others see.
    pub const fn of(time: SimTime) -> Self {
        Self {
            nanos: time.0,
            fraction: 0,
        }
    }

    /// Whole nanoseconds, and the rest in 2^-32 nanoseconds: for those who keep many.
    #[inline]
    pub const fn parts(self) -> (u64, u32) {
        (self.nanos, self.fraction)
    }

    /// The instant with these [`Self::parts`].
    #[inline]
    pub const fn of_parts((nanos, fraction): (u64, u32)) -> Self {
        Self { nanos, fraction }
    }

    /// The first whole nanosecond not before it.
    #[inline]
    pub const fn rounded_up(self) -> SimTime {
        SimTime(self.nanos + (self.fraction > 0) as u64)
    }
}

impl FineDuration {
    /// No time at all.
    pub const ZERO: Self = Self::from_nanos(0);

    /// A duration of `nanos` nanoseconds, exactly.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos, fraction: 0 }
    }

    /// A duration of `micros` microseconds, exactly.
    pub const fn from_micros(micros: u64) -> Self {
        Self::from_nanos(micros * 1_000)
    }

    /// The nearest multiple of 2^-20 nanoseconds. `None` if `seconds` is negative, NaN, or longer
    /// than about 584 years.
    #[inline]
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        let nanos = seconds * 1e9;
        if !(nanos >= 0.0 && nanos < u64::MAX as f64) {
            return None;
        }
        let whole = nanos as u64;
        // The difference of a float and its whole part is exact, and less than one.
        let parts = ((nanos - whole as f64) * PARTS + 0.5) as u64;
        let carry = parts >> 20;
        Some(Self {
            nanos: whole + carry,
            fraction: (parts << 12) as u32,
        })
    }

    /// Seconds, for people and plots.
    pub fn as_secs_f64(self) -> f64 {
        (self.nanos as f64 + f64::from(self.fraction) / (1_u64 << 32) as f64) / 1e9
    }

    /// The first whole number of nanoseconds that is not less.
    pub const fn rounded_up(self) -> SimDuration {
        SimDuration(self.nanos + (self.fraction > 0) as u64)
    }
}

impl Add<FineDuration> for FineTime {
    type Output = Self;
    #[inline]
    fn add(self, d: FineDuration) -> Self {
        let (fraction, carry) = self.fraction.overflowing_add(d.fraction);
        Self {
            nanos: self.nanos + d.nanos + u64::from(carry),
            fraction,
        }
    }
}

impl AddAssign<FineDuration> for FineTime {
    #[inline]
    fn add_assign(&mut self, d: FineDuration) {
        *self = *self + d;
    }
}

impl Add for FineDuration {
    type Output = Self;
    #[inline]
    fn add(self, d: Self) -> Self {
        let (fraction, carry) = self.fraction.overflowing_add(d.fraction);
        Self {
            nanos: self.nanos + d.nanos + u64::from(carry),
            fraction,
        }
    }
}

impl From<SimDuration> for FineDuration {
    fn from(d: SimDuration) -> Self {
        Self::from_nanos(d.0)
    }
}

impl fmt::Debug for FineTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={}ns+{}/2^32", self.nanos, self.fraction)
    }
}

impl fmt::Debug for FineDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns+{}/2^32", self.nanos, self.fraction)
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

    /// Steps of `a/b` nanoseconds, whose sum is known without floats.
    #[test]
    fn steps_back_to_back_do_not_drift() {
        for (a, b) in [(20_000_003_u64, 7_u64), (1, 3), (999_999_999, 11), (5, 4)] {
            let steps = 100_000_u64;
            let step = FineDuration::from_secs_f64(a as f64 / b as f64 / 1e9).unwrap();
            let mut clock = FineTime::of(SimTime::from_nanos(12_345));
            for _ in 0..steps {
                clock += step;
            }
            let exact = 12_345 + (a * steps).div_ceil(b);
            let error = clock.rounded_up().as_nanos().abs_diff(exact);
            // The sum itself is off by a twentieth of a nanosecond at most, which can move what
            // is rounded up by one.
            assert!(error <= 1, "{a}/{b}: {error}");
            let part = (u128::from(clock.nanos) << 32) + u128::from(clock.fraction);
            let sum = (12_345 << 32) + (u128::from(a * steps) << 32) / u128::from(b);
            assert!(part.abs_diff(sum) < 1 << 28, "{a}/{b}");
        }
    }

    #[test]
    fn whole_times_stay_whole() {
        let mut clock = FineTime::of(SimTime::ZERO);
        for micros in 1..1000 {
            clock += FineDuration::from_micros(micros);
        }
        assert_eq!(clock.rounded_up(), SimTime::from_nanos(499_500_000));
        // What is whole on paper is whole here, though the floats are not.
        for n in 1..2000_u32 {
            let seconds = 0.001 + 5e-7 * f64::from(n);
            let expected = FineDuration::from_nanos(1_000_000 + 500 * u64::from(n));
            assert_eq!(FineDuration::from_secs_f64(seconds), Some(expected));
        }
        let almost = FineDuration::from_secs_f64(1.999_999_999_9e-9);
        assert_eq!(almost, Some(FineDuration::from_nanos(2)));
        assert_eq!(FineDuration::from_secs_f64(-1e-9), None);
        assert_eq!(FineDuration::from_secs_f64(f64::NAN), None);
        assert_eq!(FineDuration::from_secs_f64(1e12), None);
    }

    #[test]
    fn fractions_carry() {
        let half = FineDuration::from_secs_f64(0.5e-9).unwrap();
        let at = FineTime::of(SimTime::from_nanos(4)) + half;
        assert_eq!(at.parts(), (4, 1 << 31));
        assert_eq!(FineTime::of_parts(at.parts()), at);
        assert_eq!(half + half, FineDuration::from_nanos(1));
        assert_eq!(half.rounded_up(), SimDuration::from_nanos(1));
        let start = FineTime::of(SimTime::from_nanos(4));
        assert_eq!((start + half).rounded_up(), SimTime::from_nanos(5));
        assert_eq!((start + half + half).rounded_up(), SimTime::from_nanos(5));
        assert!(start < start + half && half.as_secs_f64() == 0.5e-9);
    }
}
