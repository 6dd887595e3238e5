//! The draws that workloads are made of. All take their randomness from one stream each and use
//! `libm`, so that the same stream gives the same values on every platform.

use windtunnel_base::rng::Rng;

/// Exponential with mean 1.
#[inline]
pub(crate) fn exponential(rng: &mut Rng) -> f64 {
    -libm::log(rng.f64_open())
}

/// Normal with mean 0 and variance 1, by Marsaglia's polar method (1964).
#[inline]
pub(crate) fn normal(rng: &mut Rng) -> f64 {
    loop {
        let u = 2.0 * rng.f64() - 1.0;
        let v = 2.0 * rng.f64() - 1.0;
        let s = u * u + v * v;
        if s > 0.0 && s < 1.0 {
            return u * (-2.0 * libm::log(s) / s).sqrt();
        }
    }
}

/// Gamma with this shape and scale 1 (Marsaglia and Tsang 2000; below shape 1 by their boost
/// with a uniform, taken in logarithms because `u^(1/shape)` underflows for very small shapes).
pub(crate) fn gamma(rng: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let log_u = libm::log(rng.f64_open()) / shape;
        return libm::exp(libm::log(gamma(rng, shape + 1.0)) + log_u);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let v = v * v * v;
        if libm::log(rng.f64_open()) < 0.5 * x * x + d * (1.0 - v + libm::log(v)) {
            return d * v;
        }
    }
}

/// Zipf over `0..n`: rank `k` has weight `(k + 1)^-exponent`. By rejection-inversion (Hörmann and
/// Derflinger 1996): no table, any `n`, any exponent from zero up.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    n: f64,
    exponent: f64,
    h_begin: f64,
    h_end: f64,
    squeeze: f64,
}

impl Zipf {
    /// `n` is at least 1, `exponent` finite and not negative.
    pub(crate) fn new(n: u32, exponent: f64) -> Self {
        debug_assert!(n >= 1 && exponent >= 0.0, "a Zipf needs a rank to draw");
        let mut zipf = Self {
            n: f64::from(n),
            exponent,
            h_begin: 0.0,
            h_end: 0.0,
            squeeze: 0.0,
        };
        zipf.h_begin = zipf.h(1.5) - 1.0;
        zipf.h_end = zipf.h(zipf.n + 0.5);
        zipf.squeeze = 2.0 - zipf.h_inverse(zipf.h(2.5) - zipf.weight(2.0));
        zipf
    }

    /// One rank.
    pub(crate) fn draw(&self, rng: &mut Rng) -> u32 {
        loop {
            let u = self.h_end + rng.f64() * (self.h_begin - self.h_end);
            let x = self.h_inverse(u);
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.squeeze || u >= self.h(k + 0.5) - self.weight(k) {
                return k as u32 - 1;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        libm::exp(-self.exponent * libm::log(x))
    }

    /// The integral of the weight, up to a constant: `(x^(1-s) - 1) / (1-s)`.
    fn h(&self, x: f64) -> f64 {
        let log = libm::log(x);
        expm1_over((1.0 - self.exponent) * log) * log
    }

    fn h_inverse(&self, u: f64) -> f64 {
        let t = (u * (1.0 - self.exponent)).max(-1.0);
        libm::exp(log1p_over(t) * u)
    }
}

/// `(e^x - 1) / x`, also at zero.
fn expm1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        libm::expm1(x) / x
    } else {
        1.0 + 0.5 * x
    }
}

/// `log(1 + x) / x`, also at zero.
fn log1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        libm::log1p(x) / x
    } else {
        1.0 - 0.5 * x
    }
}
