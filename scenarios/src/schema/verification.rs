//! Whether answers are good (hidden truth), and the verifier that judges them.

use super::ladder::LadderSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Money, Power, Span};

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
    /// Power that the verifier draws during a check.
    pub power: Power,
    /// What a bad answer that was accepted costs.
    pub false_accept_cost: Money,
    /// What a good answer that was rejected costs.
    pub false_reject_cost: Money,
    /// Several verifiers, cheap ones first, in the place of the one described by `sensitivity`,
    /// `specificity`, `latency`, `price` and `power`.
    pub ladder: Option<LadderSpec>,
    /// Who checks a sample of the answers of classes that are released while the verifier is out.
    pub backup: Option<BackupSpec>,
}

/// A second verifier, for the time in which the first one is out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupSpec {
    /// Share of answers that it checks, 0 to 1.
    pub share: f64,
    /// Share of bad answers that it rejects, 0 to 1.
    pub sensitivity: f64,
    /// Share of good answers that it accepts, 0 to 1.
    pub specificity: f64,
    /// Time of one check.
    pub latency: Span,
    /// Price of one check.
    pub price: Money,
}

/// What becomes of an answer that nobody can check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unverified {
    /// It is delivered unchecked.
    #[default]
    Release,
    /// It waits until the verifier is back, unless its client gives up.
    Hold,
    /// Its request is refused (`unavailable`).
    Refuse,
}

impl Default for VerificationSpec {
    fn default() -> Self {
        Self {
            error_rate: 0.01,
            sensitivity: 0.95,
            specificity: 0.97,
            latency: Span(windtunnel_base::time::SimDuration::from_millis(20)),
            price: Money(windtunnel_base::units::NanoUsd(30_000)),
            power: Power(0.0),
            false_accept_cost: Money(windtunnel_base::units::NanoUsd(1_000_000_000)),
            false_reject_cost: Money(windtunnel_base::units::NanoUsd(10_000_000)),
            ladder: None,
            backup: None,
        }
    }
}
