//! Distributions over `0..n`.

use super::{SampleError, require};
use crate::rng::Rng;

/// Zipf over `0..n`: `k` has a weight of `(k + 1)^-exponent`, so 0 is the most popular.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Zipf {
    n: u64,
    exponent: f64,
    integral_at_begin: f64,
    integral_at_end: f64,
    squeeze: f64,
}

impl Zipf {
    /// Over `0..n` with any exponent from zero (uniform) up.
    ///
    /// # Errors
    /// If `n` is zero, or the exponent is negative.
    pub fn new(n: u64, exponent: f64) -> Result<Self, SampleError> {
        if n == 0 {
            return Err(SampleError::Nothing {
                distribution: "zipf",
                what: "items",
            });
        }
        require(
            exponent >= 0.0,
            "zipf",
            "exponent",
            "at least zero",
            exponent,
        )?;
        Ok(Self {
            n,
            exponent,
            integral_at_begin: integral(1.5, exponent) - 1.0,
            integral_at_end: integral(n as f64 + 0.5, exponent),
            squeeze: 2.0
                - integral_inverse(integral(2.5, exponent) - weight(2.0, exponent), exponent),
        })
    }

    /// One draw in O(1), without a table, by rejection-inversion (Hörmann and Derflinger, ACM
    /// TOMACS 6, 1996): a draw from the density `x^-exponent` is rounded to an item, which is
    /// kept with the probability that its weight has in the area drawn from.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> usize {
        loop {
            let u =
                self.integral_at_end + rng.f64() * (self.integral_at_begin - self.integral_at_end);
            let x = integral_inverse(u, self.exponent);
            let k = ((x + 0.5) as u64).clamp(1, self.n);
            let rank = k as f64;
            // The first test spares most draws the second, which is the exact one.
            if rank - x <= self.squeeze
                || u >= integral(rank + 0.5, self.exponent) - weight(rank, self.exponent)
            {
                return (k - 1) as usize;
            }
        }
    }

    /// The exact probability of every item.
    pub fn probabilities(&self) -> Vec<f64> {
        let mut p: Vec<f64> = (1..=self.n)
            .map(|k| weight(k as f64, self.exponent))
            .collect();
        // Small ones first, so that the sum loses nothing.
        let total: f64 = p.iter().rev().sum();
        p.iter_mut().for_each(|p| *p /= total);
        p
    }
}

fn weight(x: f64, exponent: f64) -> f64 {
    libm::exp(-exponent * libm::log(x))
}

/// Integral of `t^-exponent` from 1 to `x`, also near an exponent of 1.
fn integral(x: f64, exponent: f64) -> f64 {
    let log = libm::log(x);
    let t = (1.0 - exponent) * log;
    // (e^t - 1) / t, with its series where it would be 0 / 0.
    let ratio = if t.abs() > 1e-8 {
        libm::expm1(t) / t
    } else {
        1.0 + t * 0.5
    };
    log * ratio
}

fn integral_inverse(y: f64, exponent: f64) -> f64 {
    // Rounding may take it past the pole, which is at -1.
    let t = (y * (1.0 - exponent)).max(-1.0);
    let ratio = if t.abs() > 1e-8 {
        libm::log1p(t) / t
    } else {
        1.0 - t * 0.5
    };
    libm::exp(ratio * y)
}

/// Any distribution over `0..n`, from weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Empirical {
    /// Per column: what part of it, in 2^-64, is the item itself; the rest is the alias.
    columns: Vec<Column>,
    total: f64,
    weights: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Column {
    own: u64,
    alias: u32,
}

impl Empirical {
    /// From weights, which need not add up to 1.
    ///
    /// # Errors
    /// If there are none (or more than `u32` can count), one is negative or not finite, or all
    /// are zero.
    pub fn new(weights: &[f64]) -> Result<Self, SampleError> {
        if weights.is_empty() || weights.len() > u32::MAX as usize {
            return Err(SampleError::Nothing {
                distribution: "empirical",
                what: "weights, or too many",
            });
        }
        for w in weights {
            require(*w >= 0.0, "empirical", "weight", "at least zero", *w)?;
        }
        let total: f64 = weights.iter().sum();
        require(
            total > 0.0,
            "empirical",
            "sum of weights",
            "more than zero and finite",
            total,
        )?;
        Ok(Self {
            columns: columns(weights, total),
            total,
            weights: weights.to_vec(),
        })
    }

    /// One draw: one random number each, whose upper part chooses a column and whose lower part
    /// chooses within it (Walker 1977; the table by Vose, IEEE TSE 17, 1991). Probabilities are
    /// off by less than `n / 2^64`.
    #[inline]
    pub fn sample(&self, rng: &mut Rng) -> usize {
        let wide = u128::from(rng.next_u64()) * self.columns.len() as u128;
        let index = (wide >> 64) as usize;
        let column = self.columns[index];
        if (wide as u64) < column.own {
            index
        } else {
            column.alias as usize
        }
    }

    /// The probability of an item; zero if there is no such item.
    pub fn probability(&self, item: usize) -> f64 {
        self.weights.get(item).map_or(0.0, |w| w / self.total)
    }
}

/// Vose's table: columns of equal height, each made of one item and part of another.
fn columns(weights: &[f64], total: f64) -> Vec<Column> {
    const WHOLE: f64 = 18_446_744_073_709_551_616.0; // 2^64
    let n = weights.len() as f64;
    let mut heights: Vec<f64> = weights.iter().map(|w| w / total * n).collect();
    let mut columns: Vec<Column> = (0..weights.len() as u32)
        .map(|own| Column {
            own: u64::MAX,
            alias: own,
        })
        .collect();
    let (mut low, mut high): (Vec<u32>, Vec<u32>) =
        (0..weights.len() as u32).partition(|i| heights[*i as usize] < 1.0);
    while let (Some(small), Some(&large)) = (low.pop(), high.last()) {
        columns[small as usize] = Column {
            own: (heights[small as usize] * WHOLE) as u64,
            alias: large,
        };
        heights[large as usize] -= 1.0 - heights[small as usize];
        if heights[large as usize] < 1.0 {
            high.pop();
            low.push(large);
        }
    }
    // What is left is whole up to rounding, and stays its own.
    columns
}
