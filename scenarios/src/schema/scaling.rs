//! How many replicas there are: who orders more of them, who lets them go, and how long an order
//! takes. Names are those of the horizontal pod autoscaler of Kubernetes where it has one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Rate, Span};
use windtunnel_base::time::SimDuration;

/// A pool whose size follows its load. It starts with `replicas` of the pool, all ready. What is
/// ordered costs money and idle power from the order on, serves after `provisioning`, with empty
/// caches, and is paid until it is released. A replica that has to go gets no new requests, ends what
/// it has, and is released then; it cannot be called back. What is kept per request nowhere but in
/// replicas cannot move: give replicas a limit (`gateway.queue.max_in_flight`), so that a backlog
/// waits at the gateway, where new replicas find it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScalingSpec {
    /// Which pool; the replicas of `fleet.engine` if absent.
    pub pool: Option<String>,
    /// Never fewer, ready and ordered ones together; 1 or more.
    #[serde(default = "one")]
    pub min_replicas: u32,
    /// Never more, those that are on their way out included.
    pub max_replicas: u32,
    /// From an order until the replica serves: boot and loading of weights.
    #[serde(default = "two_minutes")]
    pub provisioning: Span,
    /// Time between two looks at the signal (15 s with Kubernetes, 30 s with KEDA).
    #[serde(default = "a_quarter_minute")]
    pub period: Span,
    /// Nothing changes while the signal is within this share of its target.
    #[serde(default = "a_tenth")]
    pub tolerance: f64,
    /// Who says how many replicas there should be.
    pub policy: ScalingPolicySpec,
    /// How fast more are ordered. If nothing is said: at once, and within 15 s at most 4 or as many as
    /// there are, whichever is more.
    #[serde(default)]
    pub scale_up: ScalingRuleSpec,
    /// How fast they are let go. If nothing is said: after 300 s in which no more were wanted.
    #[serde(default)]
    pub scale_down: ScalingRuleSpec,
}

const fn one() -> u32 {
    1
}

const fn two_minutes() -> Span {
    Span(SimDuration::from_secs(120))
}

const fn a_quarter_minute() -> Span {
    Span(SimDuration::from_secs(15))
}

const fn a_tenth() -> f64 {
    0.1
}

const fn a_half() -> f64 {
    0.5
}

const fn a_fifth() -> f64 {
    0.2
}

const fn nine_tenths() -> f64 {
    0.9
}

/// Who says how many replicas there should be.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScalingPolicySpec {
    /// Follows what is: as many replicas as bring the signal to its target.
    Reactive {
        /// What is looked at.
        signal: ScalingSignalSpec,
        /// The signal is its mean over this time, and that of `ttft` is taken from answers that
        /// began in it; `0s`: as it is at the moment (`ttft`: since the last look).
        #[serde(default)]
        window: Span,
    },
    /// Orders now what a forecast says will be needed when the order is ready. It knows nothing but
    /// the requests that came so far, counted from look to look; forecasts are Holt's linear trend of
    /// these counts and, once a whole `season` has been seen, the profile of the seasons before
    /// plus Holt's trend of what differs from it.
    Predictive {
        /// Requests per second that one replica is to serve.
        per_replica: Rate,
        /// Weight of the last count in the level, more than 0 and at most 1.
        #[serde(default = "a_half")]
        level: f64,
        /// Weight of the last change of the level in the trend, 0 to 1.
        #[serde(default = "a_tenth")]
        trend: f64,
        /// Length of what repeats itself, such as a day; absent: nothing does.
        season: Option<Span>,
        /// Weight of the last season in the profile of seasons, more than 0 and at most 1.
        #[serde(default = "a_half")]
        seasonal: f64,
        /// Besides what will come, what waits already is to be served within this time; absent: it
        /// is left to the margin that `per_replica` leaves.
        work_off: Option<Span>,
    },
    /// So many replicas at such times, ordered as much earlier as provisioning takes. To those who
    /// write down what will happen it is the bound on what any forecast could do.
    Scheduled {
        /// When there should be how many, by time; before the first, as many as at the start.
        at: Vec<ScheduledReplicas>,
        /// After so much time it begins anew; absent: it does not.
        every: Option<Span>,
    },
}

/// How many replicas from when on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduledReplicas {
    /// From this time on.
    pub from: Span,
    /// So many, within `min_replicas` and `max_replicas`.
    pub replicas: u32,
}

/// What a reactive policy looks at, and what it should be.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScalingSignalSpec {
    /// Requests that wait, at the gateway and at replicas, per replica.
    QueueDepth {
        /// So many.
        target: f64,
    },
    /// Requests in the running batch, per replica.
    Running {
        /// So many.
        target: f64,
    },
    /// Requests sent to replicas and not yet answered, and those that wait for one at the gateway, per
    /// replica (as Knative counts).
    Concurrency {
        /// So many.
        target: f64,
    },
    /// Share of the KV memory that running requests hold, mean over replicas.
    KvUsage {
        /// So much, 0 to 1.
        target: f64,
    },
    /// Time to first token as the gateway sees it. It is told when first tokens come: of requests that
    /// wait without one it knows nothing.
    Ttft {
        /// So long.
        target: Span,
        /// Which quantile of the window, 0 to 1.
        #[serde(default = "nine_tenths")]
        quantile: f64,
    },
    /// Load of the hosts' processors, mean over replicas: what an autoscaler made for web servers looks at.
    /// Accelerators do the work, so it hardly tells of it: its correlation with the
    /// requests at a replica is `correlation`, the rest is noise.
    Cpu {
        /// So much, 0 to 1.
        #[serde(default = "a_half")]
        target: f64,
        /// Correlation with the requests at the replica, 0 to 1.
        #[serde(default = "a_fifth")]
        correlation: f64,
        /// Its mean, 0 to 1.
        #[serde(default = "a_half")]
        mean: f64,
        /// Its standard deviation.
        #[serde(default = "a_tenth")]
        deviation: f64,
    },
}

/// How fast the number of replicas goes one way.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScalingRuleSpec {
    /// Of all that was said to be needed within this time, the least change counts (Kubernetes:
    /// `stabilizationWindowSeconds`); `0s` for more replicas and `300s` for fewer if absent.
    pub stabilization: Option<Span>,
    /// At most so many within `per`.
    pub replicas: Option<u32>,
    /// At most this share of those at the begin of `per` within it, in per cent; of two limits the wider
    /// holds. If neither is given: 4 and 100 % for more replicas, no limit for fewer.
    pub percent: Option<f64>,
    /// What the limits are about; 15 s if absent.
    pub per: Option<Span>,
}
