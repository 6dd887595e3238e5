//! What policies are told about output lengths: the truth with a lognormal error.

use super::lengths::MAX_TOKENS;
use windtunnel_base::rng::Rng;
use windtunnel_base::sample::Normal;

/// `truth * exp(error)`, to the nearest token and at least 1. An error that is always 0 is an oracle.
#[inline]
pub(crate) fn predict(truth: u32, error: &Normal, rng: &mut Rng) -> u32 {
    let predicted = f64::from(truth) * libm::exp(error.sample(rng)) + 0.5;
    (predicted as u32).clamp(1, MAX_TOKENS)
}
