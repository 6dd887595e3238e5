//! What the stages and safeguards of a gateway did over a run.

use crate::distribution::Distribution;
use serde::{Deserialize, Serialize};

/// A stage that requests pass at the gateway.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// Reading and validating.
    Parse,
    /// Blocking prompt injections.
    IngressFilter,
    /// Checking who asks.
    Authenticate,
    /// Counting tokens.
    Tokenize,
    /// Budgets of tenants.
    RateLimit,
    /// Looking for a stored answer under the exact key.
    ExactLookup,
    /// Looking for a similar question.
    SemanticLookup,
    /// Looking for a kernel.
    KernelLookup,
    /// Choosing the pool.
    PathChoice,
    /// Deciding who gets in.
    Admission,
    /// Choosing the replica.
    Routing,
}

impl StageKind {
    /// All stages, in their order.
    pub const ALL: [Self; 11] = [
        Self::Parse,
        Self::IngressFilter,
        Self::Authenticate,
        Self::Tokenize,
        Self::RateLimit,
        Self::ExactLookup,
        Self::SemanticLookup,
        Self::KernelLookup,
        Self::PathChoice,
        Self::Admission,
        Self::Routing,
    ];

    /// The stage as a word, as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::IngressFilter => "ingress_filter",
            Self::Authenticate => "authenticate",
            Self::Tokenize => "tokenize",
            Self::RateLimit => "rate_limit",
            Self::ExactLookup => "exact_lookup",
            Self::SemanticLookup => "semantic_lookup",
            Self::KernelLookup => "kernel_lookup",
            Self::PathChoice => "path_choice",
            Self::Admission => "admission",
            Self::Routing => "routing",
        }
    }
}

/// What one stage did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageTotals {
    /// Whether the gateway has it.
    pub present: bool,
    /// Time of each request in it, ns; those that were broken off included.
    pub time: Distribution,
    /// Requests that took longer than the stage's share of the budget.
    pub over_share: u64,
    /// Requests that went on without it, or were refused, because the budget was over.
    pub left_out: u64,
    /// Money it cost, in nano-dollars.
    pub price_nano_usd: u64,
}

impl StageTotals {
    /// A request was in the stage for so long; `share` is the stage's share of the budget; `done`
    /// tells whether the stage came to its end.
    pub fn record(&mut self, ns: u64, share: Option<u64>, done: bool) {
        self.time.record(ns, 1);
        self.over_share += u64::from(share.is_some_and(|share| ns > share));
        self.left_out += u64::from(!done);
    }
}

/// What all stages did over a run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineTotals {
    /// By stage, in the order of [`StageKind::ALL`].
    pub stages: Vec<StageTotals>,
    /// Time of each request in all stages together, ns.
    pub time: Distribution,
    /// Whether there is a budget.
    pub budgeted: bool,
    /// Requests whose time in all stages was over the budget.
    pub over_budget: u64,
    /// Attacks that reached the ingress filter.
    pub attacks: u64,
    /// Attacks that it blocked.
    pub attacks_blocked: u64,
    /// Honest requests that it blocked.
    pub honest_blocked: u64,
}

impl PipelineTotals {
    /// Of a gateway that has these stages.
    pub fn new(present: [bool; StageKind::ALL.len()]) -> Self {
        let stage = |present| StageTotals {
            present,
            ..StageTotals::default()
        };
        Self {
            stages: present.map(stage).into(),
            ..Self::default()
        }
    }

    /// A request was in all stages together for so long.
    pub fn passed(&mut self, ns: u64, budget: Option<u64>) {
        self.time.record(ns, 1);
        self.budgeted = budget.is_some();
        self.over_budget += u64::from(budget.is_some_and(|budget| ns > budget));
    }
}

/// What the choice of pools did over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathTotals {
    /// Requests that a kernel served, those by an evicted one included.
    pub kernel: u64,
    /// Of those, by an evicted one.
    pub stale_kernel: u64,
    /// Requests whose class a kernel is for.
    pub eligible: u64,
    /// Of those, sent to the frontier: leakage.
    pub leaked: u64,
    /// Requests that a rollout left to the frontier.
    #[serde(default)]
    pub kept: u64,
    /// Requests that were never meant for a kernel, sent to the frontier.
    pub reserved: u64,
    /// Requests that the leakage control did not let through.
    pub overflow: u64,
    /// Requests that the small model served.
    pub small: u64,
    /// Requests that were held back for a while.
    pub held: u64,
    /// Rejected answers in whose place the frontier was asked; absent where it never is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallbacks: Option<u64>,
    /// Requests whose kernel was suspected of having drifted.
    pub quarantined: u64,
    /// What probing the kernels came to, if they are probed.
    pub probing: Option<ProbeTotals>,
    /// What their drift came to, if they ever drift.
    pub drift: Option<DriftTotals>,
}

/// What probing kernels came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeTotals {
    /// Answers of kernels that were drawn as probes.
    pub probes: u64,
    /// Of those, compared with the reference's, and told to the detectors.
    pub compared: u64,
    /// Of those, found to differ.
    pub differed: u64,
    /// What probes cost beside the frontier's work for them, in nano-dollars.
    pub price_nano_usd: u64,
    /// Alarms of the detectors.
    pub alarms: u64,
    /// Of those, while their kernel had not drifted, which only the world knows.
    pub false_alarms: u64,
}

/// What the drift of kernels came to, as only the world knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftTotals {
    /// Times that a kernel began to drift.
    pub drifts: u64,
    /// Of those, followed by an alarm before they were over.
    pub detected: u64,
    /// From the beginning of each of these to its alarm, together, ns.
    pub delay_ns: u64,
    /// Answers that came to clients, were not rejected, and would have been good without the drift.
    pub bad_outputs: u64,
}
