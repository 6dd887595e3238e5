//! Samplers. All draws go through `libm` and plain arithmetic, so the same stream gives the same
//! values on every platform; the standard library's `ln` and `exp` promise no such thing.
//!
//! A sampler checks its parameters when it is made and cannot fail afterwards. It keeps no state:
//! what it draws depends on the stream alone.

/// Distributions with a density, and mixtures of them.
mod continuous;
/// Distributions over `0..n`.
mod discrete;
#[cfg(test)]
mod tests;

pub use continuous::{
    Exponential, Gamma, Hyperexponential, Lognormal, Normal, TwoPoint, Weibull, normal_quantile,
    standard_normal,
};
pub use discrete::{Empirical, Zipf};

/// Why there is no such distribution.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
pub enum SampleError {
    /// A parameter is out of its range.
    #[error("{distribution}: {parameter} must be {must_be}, not {found}")]
    Parameter {
        /// Which distribution.
        distribution: &'static str,
        /// Which parameter.
        parameter: &'static str,
        /// Its range, in words.
        must_be: &'static str,
        /// What was given.
        found: f64,
    },
    /// There is nothing to choose from.
    #[error("{distribution}: no {what}")]
    Nothing {
        /// Which distribution.
        distribution: &'static str,
        /// What is missing.
        what: &'static str,
    },
}

fn require(
    holds: bool,
    distribution: &'static str,
    parameter: &'static str,
    must_be: &'static str,
    found: f64,
) -> Result<(), SampleError> {
    if holds && found.is_finite() {
        return Ok(());
    }
    Err(SampleError::Parameter {
        distribution,
        parameter,
        must_be,
        found,
    })
}

fn require_positive(
    distribution: &'static str,
    parameter: &'static str,
    found: f64,
) -> Result<(), SampleError> {
    let must_be = "more than zero and finite";
    require(found > 0.0, distribution, parameter, must_be, found)
}
