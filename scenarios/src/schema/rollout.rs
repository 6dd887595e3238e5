//! Safe rollout of a kernel: stages that expose ever more users to it, each with a test to pass.

use super::probing::ReferenceSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Money, Span};
use windtunnel_base::time::SimDuration;

/// How a new kernel comes into use. Until its last stage the frontier serves whom the kernel does not; a kernel
/// that fails a test is withdrawn, and the frontier serves all.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutSpec {
    /// When the first stage begins; nobody is served by the kernel before.
    pub at: Span,
    /// The stages, in this order.
    pub stages: Vec<RolloutStage>,
    /// What a kernel has to pass in each stage but `full`.
    pub test: SequentialTestSpec,
    /// Share of its answers to users that are compared with a reference's, 0 to 1. In `replay` and `shadow`
    /// they are compared with the frontier's own, which is there anyway.
    pub checked: f64,
    /// Who answers those.
    pub reference: ReferenceSpec,
    /// Price of a comparison, in any stage. What the frontier, or the kernel, does for it is paid as any other
    /// work.
    pub price: Money,
    /// Share of the differences that a comparison finds, 0 to 1.
    pub sensitivity: f64,
    /// Share of the others that it takes for the same, 0 to 1.
    pub specificity: f64,
    /// A stage may not begin if its pilot risk magnitude is more than this; absent: it may.
    pub max_risk: Option<f64>,
    /// How much a bad output counts.
    pub severity: f64,
    /// How long a withdrawal takes at most; drawn evenly from 0 to that.
    pub propagation: Span,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        let canary = |share| RolloutStage::Canary { share };
        Self {
            at: Span::default(),
            stages: vec![
                RolloutStage::Replay {
                    samples: 300,
                    lasts: Span(SimDuration::from_secs(60)),
                },
                RolloutStage::Shadow { share: 1.0 },
                canary(0.01),
                canary(0.05),
                canary(0.25),
                RolloutStage::Full {},
            ],
            test: SequentialTestSpec::default(),
            checked: 1.0,
            reference: ReferenceSpec::default(),
            price: Money::default(),
            sensitivity: 1.0,
            specificity: 1.0,
            max_risk: None,
            severity: 1.0,
            propagation: Span(SimDuration::from_secs(5)),
        }
    }
}

/// A stage of a rollout.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RolloutStage {
    /// The kernel answers requests of the past, beside the fleet and not in it; no user sees it.
    Replay {
        /// How many of the latest that the frontier answered since the stage before.
        #[serde(default = "three_hundred")]
        samples: u64,
        /// Time until that is done; it is done again until the test has come to an end.
        #[serde(default = "one_minute", rename = "for")]
        lasts: Span,
    },
    /// The kernel's pool answers copies of requests, and no user sees it.
    Shadow {
        /// Share of the class's requests, 0 to 1.
        share: f64,
    },
    /// Read-only assist: the kernel's answer is a suggestion to a human, and if it is rejected the frontier
    /// answers.
    Assist {
        /// Share of the class's requests, 0 to 1.
        share: f64,
        /// Share of bad suggestions that humans accept.
        #[serde(default = "three_tenths")]
        accept_bad: f64,
        /// Share of good ones.
        #[serde(default = "nine_tenths")]
        accept_good: f64,
        /// Time that a human takes.
        #[serde(default)]
        latency: Span,
        /// What that costs.
        #[serde(default)]
        price: Money,
    },
    /// The kernel serves a share of the class's requests; who is in a smaller share is in a larger one.
    Canary {
        /// 0 to 1; at 1 the frontier stands by and serves nobody (blue-green).
        share: f64,
    },
    /// The kernel serves its class, and the rollout is over. As the only stage: a big bang.
    Full {},
}

const fn three_hundred() -> u64 {
    300
}
fn one_minute() -> Span {
    Span(SimDuration::from_secs(60))
}
const fn three_tenths() -> f64 {
    0.3
}
const fn nine_tenths() -> f64 {
    0.9
}

impl RolloutStage {
    /// Share of the class's requests that the kernel answers for users.
    pub const fn exposure(&self) -> f64 {
        match *self {
            Self::Replay { .. } | Self::Shadow { .. } => 0.0,
            Self::Assist { share, .. } | Self::Canary { share } => share,
            Self::Full {} => 1.0,
        }
    }

    /// Share of its bad answers there that reach their users.
    pub const fn passed_on(&self) -> f64 {
        match *self {
            Self::Assist { accept_bad, .. } => accept_bad,
            _ => 1.0,
        }
    }
}

/// Wald's sequential probability ratio test of the share of comparisons that differ: `p0` or less is fit, `p1` is
/// not. The sum of log-likelihood ratios ends at `ln((1 - beta) / alpha)` (withdrawn) or
/// `ln(beta / (1 - alpha))` (passed).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SequentialTestSpec {
    /// Share that differ of a kernel that is fit.
    pub p0: f64,
    /// Of one that is not.
    pub p1: f64,
    /// Probability that a fit kernel is withdrawn.
    pub alpha: f64,
    /// Probability that one that is not fit passes.
    pub beta: f64,
}

impl Default for SequentialTestSpec {
    fn default() -> Self {
        Self {
            p0: 0.05,
            p1: 0.25,
            alpha: 0.05,
            beta: 0.05,
        }
    }
}
