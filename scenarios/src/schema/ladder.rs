//! A ladder of verifiers: cheap ones first, dear ones where it pays.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Money, Power, Span};
use windtunnel_base::sample::normal_quantile;

/// Verifiers that are asked one after the other, and the policy that goes up. It sees what the levels
/// say, never the truth: from the share of bad answers that it reckons with and the evidence follows
/// the probability that an answer is bad; below `accept_below` it is accepted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LadderSpec {
    /// Share of bad answers that the policy reckons with before it knows anything; absent:
    /// `verification.error_rate`.
    pub prior: Option<f64>,
    /// An answer is accepted if it is bad with a probability below this; absent: where both mistakes
    /// cost the same, `false_reject_cost / (false_accept_cost + false_reject_cost)`.
    pub accept_below: Option<f64>,
    /// When the next level is asked.
    #[serde(default)]
    pub climb: Climb,
    /// Most that checks may cost.
    pub budget: Option<BudgetSpec>,
    /// The levels, cheapest first; every answer is seen by the first.
    pub levels: Vec<LevelSpec>,
}

/// When the next level is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Climb {
    /// While the expected loss that it removes exceeds its price.
    #[default]
    WorthIt,
    /// Always: every answer is seen by all levels.
    Always,
}

/// Mean price of all checks of an answer: `share * (frontier_price - kernel_price)` at most. A level
/// above the first is not asked where that would bring the mean of the run so far above it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetSpec {
    /// Share of what a kernel saves.
    #[serde(default = "a_fifth")]
    pub share: f64,
    /// What an answer of the frontier costs.
    pub frontier_price: Money,
    /// What an answer of a kernel costs.
    #[serde(default)]
    pub kernel_price: Money,
}

const fn a_fifth() -> f64 {
    0.2
}

impl BudgetSpec {
    /// Nano-dollars per answer, rounded down.
    pub fn per_answer(&self) -> u64 {
        let saved = self
            .frontier_price
            .0
            .0
            .saturating_sub(self.kernel_price.0.0);
        (self.share * saved as f64) as u64
    }
}

/// One level.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LevelSpec {
    /// Its name, for reports.
    pub name: String,
    /// What it can tell.
    pub evidence: EvidenceSpec,
    /// Time of one check.
    pub latency: Span,
    /// Price of one check.
    pub price: Money,
    /// Power that it draws during a check.
    #[serde(default)]
    pub power: Power,
}

/// What a level can tell about an answer.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EvidenceSpec {
    /// Passes or fails it: a schema, a compiler, a unit test.
    Test {
        /// Share of bad answers that fail, 0 to 1.
        sensitivity: f64,
        /// Share of good answers that pass, 0 to 1.
        specificity: f64,
    },
    /// Gives it a score, as a model that judges does: normal with variance 1 and mean 0 for good answers,
    /// `separation` for bad ones.
    Score {
        /// Distance between the means.
        separation: f64,
    },
    /// The same, told by the share of bad answers that it would reject alone with a limit that accepts
    /// so many good ones: `separation = z(sensitivity) + z(specificity)`.
    ScoreAt {
        /// Share of bad answers rejected, 0 to 1.
        sensitivity: f64,
        /// Share of good answers accepted, 0 to 1.
        specificity: f64,
    },
}

impl EvidenceSpec {
    /// Distance between the mean scores of bad and of good answers; none for a test.
    pub fn separation(&self) -> Option<f64> {
        match *self {
            Self::Test { .. } => None,
            Self::Score { separation } => Some(separation),
            Self::ScoreAt {
                sensitivity,
                specificity,
            } => Some(normal_quantile(sensitivity) + normal_quantile(specificity)),
        }
    }
}
