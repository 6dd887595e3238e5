//! The one law that every arrival process is made of; all others come from `base::sample`.

use windtunnel_base::rng::Rng;

/// Exponential with mean 1: the operational time between events of a Poisson process.
#[inline]
pub(crate) fn exponential(rng: &mut Rng) -> f64 {
    -libm::log(rng.f64_open())
}
