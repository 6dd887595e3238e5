//! Which pool serves a request: the frontier, or a kernel while it is there; and what becomes of a
//! kernel's requests when it is not.

use super::probing::ProbingSpec;
use super::rollout::RolloutSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use windtunnel_base::quantity::{Rate, Span};
use windtunnel_base::time::SimDuration;

/// Pools by class. Without this table every replica serves everybody.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathsSpec {
    /// The pool of all requests that no kernel serves; absent: all replicas that no kernel has.
    pub frontier: Option<String>,
    /// Kernels: pools that serve one class.
    pub kernels: Vec<KernelSpec>,
    /// What becomes of a kernel's requests once it is evicted.
    pub eviction: EvictionSpec,
    /// Limits what of the kernels' requests reaches the frontier.
    pub leakage: Option<LeakageSpec>,
    /// A pool for requests that are to be served by a smaller model (`small`).
    pub small: Option<String>,
    /// Whose answers the verifier checks.
    pub checked: Checked,
    /// What becomes of an answer of a kernel, or of the small model, that the verifier rejects.
    pub on_reject: OnReject,
    /// Who looks after the kernels' quality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probing: Option<ProbingSpec>,
    /// Kernels that are new, by name: how each comes into use. The others serve from the beginning.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rollouts: BTreeMap<String, RolloutSpec>,
}

/// Whose answers the verifier checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// Everybody's.
    #[default]
    All,
    /// Those of kernels and of the small model; the frontier's are delivered as they are.
    Kernels,
}

/// What becomes of a rejected answer that the frontier did not give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    /// It is delivered with the verdict.
    #[default]
    Deliver,
    /// It is withdrawn, and the frontier answers the request anew; whether that answer is good is drawn
    /// anew too.
    Frontier,
}

/// A kernel.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelSpec {
    /// Its name, for faults.
    pub name: String,
    /// The class whose requests it serves.
    pub class: String,
    /// The pool that runs it.
    pub pool: String,
}

/// What becomes of a kernel's requests once it is evicted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EvictionSpec {
    /// All of them go to the frontier at once.
    #[default]
    Step,
    /// Each goes to the frontier with probability `clamp((t - t0 - J_k) / over, 0, 1)`, `t0` being the
    /// time of the eviction and `J_k` the kernel's own delay, uniform on `0..jitter`.
    Jittered {
        /// Time in which the probability rises from 0 to 1.
        #[serde(default = "two_minutes")]
        over: Span,
        /// Longest delay of a kernel; drawn, so that kernels evicted together do not rise together.
        #[serde(default = "one_minute")]
        jitter: Span,
        /// What becomes of the others.
        #[serde(default)]
        meanwhile: Instead,
    },
}

fn two_minutes() -> Span {
    Span(SimDuration::from_secs(120))
}
fn one_minute() -> Span {
    Span(SimDuration::from_secs(60))
}

/// What becomes of a request that does not go to the frontier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Instead {
    /// The evicted kernel serves it all the same; a verifier, if there is one, sees it as any other.
    #[default]
    StaleKernel,
    /// The pool `small` serves it.
    Small,
    /// The expired answer to the same question, if one is kept that may still be given
    /// (`gateway.answers.stale_if_error`); otherwise it waits as with `queue`.
    StaleAnswer,
    /// It waits until the kernel is back or there is room for it, in the order of `gateway.queue`, or until
    /// its client gives up.
    Queue,
    /// It is refused (`shed`).
    Reject,
}

/// A token bucket of requests at the frontier's door, for those that a kernel should have served: rate
/// `max(0, u_max * capacity - rate of the others)`, burst so many seconds of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeakageSpec {
    /// What the frontier can serve.
    pub capacity: Rate,
    /// Share of that which may be in use.
    #[serde(default = "four_fifths")]
    pub u_max: f64,
    /// Seconds of the rate that a full bucket holds.
    #[serde(default = "five_seconds")]
    pub burst: Span,
    /// The others' rate is their number within so long, over that time.
    #[serde(default = "ten_seconds")]
    pub window: Span,
    /// What becomes of those that the bucket does not allow.
    #[serde(default)]
    pub overflow: Instead,
    /// The same by class, where it differs.
    #[serde(default)]
    pub overflow_by_class: BTreeMap<String, Instead>,
}

fn four_fifths() -> f64 {
    0.8
}
fn five_seconds() -> Span {
    Span(SimDuration::from_secs(5))
}
fn ten_seconds() -> Span {
    Span(SimDuration::from_secs(10))
}
