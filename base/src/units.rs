//! Money and energy as integers, so that the books balance to the last unit.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};

macro_rules! integer_units {
    ($($(#[$doc:meta])* $name:ident)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u64);
        impl $name {
            /// Nothing.
            pub const ZERO: Self = Self(0);
            /// Rounds a non-negative float to the nearest unit; NaN and negatives become zero.
            pub fn from_f64(units: f64) -> Self { Self((units + 0.5) as u64) }
        }
        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self { Self(self.0 + other.0) }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) { self.0 += other.0; }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self { Self(self.0 - other.0) }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, |a, b| a + b)
            }
        }
    )* };
}

integer_units! {
    /// Money, in billionths of a US dollar.
    NanoUsd
    /// Energy, in millionths of a joule.
    MicroJoules
}

impl NanoUsd {
    /// US dollars, for people.
    pub fn as_usd(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl MicroJoules {
    /// Joules.
    pub fn as_joules(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Watt-hours, for people.
    pub fn as_watt_hours(self) -> f64 {
        self.0 as f64 / 3.6e9
    }
}
