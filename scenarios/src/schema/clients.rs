//! What clients do when an answer does not come: time out, try again, hold back, ask twice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Span;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimDuration;

/// How clients make attempts. Without this table a request is its own only attempt, and its client
/// waits for it as long as the class's `deadline` says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientsSpec {
    /// An attempt without its whole answer after this time has failed; absent: none ever has.
    pub attempt_timeout: Option<Span>,
    /// Whether an attempt that its client has given up is cancelled, at the gateway and at the replica. If
    /// not, the work is still done, and nobody takes the answer.
    pub cancel_dead_work: bool,
    /// When and how often they try again.
    pub retries: RetriesSpec,
    /// Retries and hedges as a share of requests; absent: no limit but `retries.max`.
    pub retry_budget: Option<RetryBudgetSpec>,
    /// Holding back while servers turn too much away (adaptive throttling of the SRE book); absent:
    /// never.
    pub throttling: Option<ThrottlingSpec>,
    /// Asking a second time while the first attempt is under way; absent: never.
    pub hedging: Option<HedgingSpec>,
}

impl Default for ClientsSpec {
    fn default() -> Self {
        Self {
            attempt_timeout: None,
            cancel_dead_work: true,
            retries: RetriesSpec::default(),
            retry_budget: None,
            throttling: None,
            hedging: None,
        }
    }
}

/// Callers above one another, at most.
pub const MOST_LAYERS: u32 = 4;

/// When and how often clients try again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetriesSpec {
    /// Retries after the first attempt, at most.
    pub max: u32,
    /// Callers above one another that all try again by these rules, 1 to 4: a page, a service behind
    /// it, the library that it calls. Each does so when the one below it has given up, has a budget of
    /// its own, and asks the one below anew: attempts multiply.
    pub layers: u32,
    /// Wait before the first retry.
    pub backoff: Span,
    /// Each further wait is so many times as long.
    pub factor: f64,
    /// No wait is longer.
    pub cap: Span,
    /// What chance does to a wait.
    pub jitter: Jitter,
    /// Failures after which clients try again.
    pub on: Vec<Failure>,
}

impl Default for RetriesSpec {
    fn default() -> Self {
        Self {
            max: 0,
            layers: 1,
            backoff: Span(SimDuration::ZERO),
            factor: 2.0,
            cap: Span(SimDuration::from_secs(30)),
            jitter: Jitter::None,
            on: vec![
                Failure::TimedOut,
                Failure::Unavailable,
                Failure::QueueFull,
                Failure::Shed,
                Failure::NoReplica,
            ],
        }
    }
}

/// What chance does to the wait `t = min(cap, backoff * factor^n)` before a retry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Nothing: `t`.
    #[default]
    None,
    /// Uniform between 0 and `t`.
    Full,
    /// Half of `t`, and uniform between 0 and the other half.
    Equal,
    /// Uniform between `backoff` and three times the last wait, at most `cap`.
    Decorrelated,
}

/// Why an attempt has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No answer within `attempt_timeout`.
    TimedOut,
    /// What should have answered failed.
    Unavailable,
    /// A waiting room was full.
    QueueFull,
    /// Admission control turned it away under load.
    Shed,
    /// A rate limit of its tenant.
    RateLimited,
    /// No replica could take it.
    NoReplica,
    /// Its own client held it back.
    Throttled,
}

impl Failure {
    /// The reason that stands in the books.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::TimedOut => Refusal::TimedOut,
            Self::Unavailable => Refusal::Unavailable,
            Self::QueueFull => Refusal::QueueFull,
            Self::Shed => Refusal::Shed,
            Self::RateLimited => Refusal::RateLimited,
            Self::NoReplica => Refusal::NoReplica,
            Self::Throttled => Refusal::Throttled,
        }
    }
}

/// Whose attempts are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CountedPer {
    /// Those of all clients.
    #[default]
    All,
    /// Those of each tenant.
    Tenant,
}

/// A bucket that every request fills by `share`, and every retry or hedge empties by one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryBudgetSpec {
    /// Retries and hedges per request, in the long run.
    pub share: f64,
    /// Retries and hedges that a full bucket allows at once; it is full at first.
    pub burst: u32,
    /// Whose bucket.
    pub per: CountedPer,
}

impl Default for RetryBudgetSpec {
    fn default() -> Self {
        Self {
            share: 0.1,
            burst: 10,
            per: CountedPer::All,
        }
    }
}

/// An attempt is held back with probability `max(0, (requests - k * accepts) / (requests + 1))`, counted
/// over a window of the past.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottlingSpec {
    /// Attempts that may be sent per accepted one.
    pub k: f64,
    /// How far back attempts count, to a sixtieth of it.
    pub window: Span,
    /// Whose attempts.
    pub per: CountedPer,
}

impl Default for ThrottlingSpec {
    fn default() -> Self {
        Self {
            k: 2.0,
            window: Span(SimDuration::from_secs(120)),
            per: CountedPer::All,
        }
    }
}

/// Further attempts beside one that is under way; the first whole answer counts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HedgingSpec {
    /// How long after an attempt the next is made beside it.
    pub after: Span,
    /// Such attempts per request, at most.
    pub max: u32,
}

impl Default for HedgingSpec {
    fn default() -> Self {
        Self {
            after: Span(SimDuration::from_secs(1)),
            max: 1,
        }
    }
}
