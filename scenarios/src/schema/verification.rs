//! Whether answers are good (hidden truth), and the verifier that judges them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Money, Span};

/// Who checks answers, how well, and at what price. Without this table no verified output is
/// counted.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VerificationSpec {
    /// Share of answers that are bad in truth, 0 to 1.
    pub error_rate: f64,
    /// Share of bad answers that the verifier rejects, 0 to 1.
    pub sensitivity: f64,
    /// Share of good answers that it accepts, 0 to 1.
    pub specificity: f64,
    /// Time of one check, after the last token.
    pub latency: Span,
    /// Price of one check.
    pub price: Money,
}

impl Default for VerificationSpec {
    fn default() -> Self {
        Self {
            error_rate: 0.01,
            sensitivity: 0.95,
            specificity: 0.97,
            latency: Span(windtunnel_base::time::SimDuration::from_millis(20)),
            price: Money(windtunnel_base::units::NanoUsd(30_000)),
        }
    }
}
