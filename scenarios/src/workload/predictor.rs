//! What policies are told about output lengths: the truth with a lognormal error.

use super::lengths::MAX_TOKENS;
use super::sample::normal;
use windtunnel_base::rng::Rng;

/// `truth * exp(error * N(0, 1))`, to the nearest token and at least 1. An error of 0 is an oracle.
#[inline]
pub(crate) fn predict(truth: u32, error: f64, rng: &mut Rng) -> u32 {
    if error <= 0.0 {
        return truth;
    }
    let predicted = f64::from(truth) * libm::exp(error * normal(rng)) + 0.5;
    (predicted as u32).clamp(1, MAX_TOKENS)
}
