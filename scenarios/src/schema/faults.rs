//! What goes wrong in a world, and when. Faults are the environment's: policies never read them, they
//! see what comes of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;

/// Something that goes wrong at a time, for a while. Faults may overlap: slowdowns multiply, errors strike
/// independently, and what is gone is back when nothing keeps it away any more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultSpec {
    /// Replicas stop: what they were doing is frozen and goes on afterwards.
    Stall {
        /// When.
        at: Span,
        /// For how long.
        #[serde(rename = "for")]
        lasts: Span,
        /// Which replicas.
        #[serde(default)]
        on: Target,
    },
    /// Replicas get slower: a brown-out.
    Slowdown {
        /// When.
        at: Span,
        /// For how long.
        #[serde(rename = "for")]
        lasts: Span,
        /// Share of their speed that is left, more than 0 and at most 1.
        speed: f64,
        /// Which replicas.
        #[serde(default)]
        on: Target,
    },
    /// Replicas are lost with all they were doing and all they had cached: their requests fail. They
    /// come back empty.
    ReplicaLoss {
        /// When.
        at: Span,
        /// For how long.
        #[serde(rename = "for")]
        lasts: Span,
        /// How long the gateway goes on sending requests there, which fail; and how long after
        /// their return it takes them back.
        #[serde(default)]
        detection: Span,
        /// Which replicas.
        #[serde(default)]
        on: Target,
    },
    /// Requests that reach replicas fail at once, each with this probability.
    OriginErrors {
        /// When.
        at: Span,
        /// For how long.
        #[serde(rename = "for")]
        lasts: Span,
        /// Probability that a request fails, 0 to 1.
        share: f64,
        /// Which replicas.
        #[serde(default)]
        on: Target,
    },
    /// Nobody checks answers; what becomes of them meanwhile is for `verification.outage` to say.
    VerifierOutage {
        /// When.
        at: Span,
        /// For how long.
        #[serde(rename = "for")]
        lasts: Span,
    },
    /// The gateway's state store answers nobody.
    StoreBlackout {
        /// When.
        at: Span,
        /// For how long.
        #[serde(rename = "for")]
        lasts: Span,
    },
    /// A kernel is evicted: its classes have to go elsewhere (`gateway.paths.eviction` says how).
    KernelEvicted {
        /// When.
        at: Span,
        /// For how long.
        #[serde(rename = "for")]
        lasts: Span,
        /// Name of the kernel.
        kernel: String,
    },
    /// A kernel gets worse: more of its answers are bad. Nobody is told; who probes it may find out. What a
    /// kernel has drifted is gone once it was built anew (`gateway.paths.probing.rebuild`).
    KernelDrift {
        /// When; with `every`, not before.
        at: Span,
        /// For how long; absent: until the kernel is built anew.
        #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
        lasts: Option<Span>,
        /// Name of the kernel.
        kernel: String,
        /// What is added to the share of its answers that are bad.
        #[serde(default = "one_fifth")]
        excess: f64,
        /// Time in which that rises evenly from nothing; zero: at once.
        #[serde(default)]
        over: Span,
        /// The kernel drifts at random, on average so long after `at` or after it was last as it should be; the
        /// times are exponential.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        every: Option<Span>,
    },
    /// Requests that others wait for (leaders of coalesced flights) fail at this instant.
    LeaderCrash {
        /// When.
        at: Span,
    },
}

const fn one_fifth() -> f64 {
    0.2
}

/// Which replicas a fault strikes; all if nothing is said.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// Those of this pool.
    pub pool: Option<String>,
    /// Those of these numbers; within the pool, if one is named, counted from its first.
    pub replicas: Vec<u32>,
}

impl FaultSpec {
    /// When it begins.
    pub const fn at(&self) -> Span {
        match self {
            Self::Stall { at, .. }
            | Self::Slowdown { at, .. }
            | Self::ReplicaLoss { at, .. }
            | Self::OriginErrors { at, .. }
            | Self::VerifierOutage { at, .. }
            | Self::StoreBlackout { at, .. }
            | Self::KernelEvicted { at, .. }
            | Self::KernelDrift { at, .. }
            | Self::LeaderCrash { at } => *at,
        }
    }

    /// How long it lasts; zero for what happens at an instant, and the longest time there is for what ends
    /// otherwise.
    pub const fn lasts(&self) -> Span {
        match self {
            Self::Stall { lasts, .. }
            | Self::Slowdown { lasts, .. }
            | Self::ReplicaLoss { lasts, .. }
            | Self::OriginErrors { lasts, .. }
            | Self::VerifierOutage { lasts, .. }
            | Self::StoreBlackout { lasts, .. }
            | Self::KernelEvicted { lasts, .. } => *lasts,
            Self::KernelDrift {
                lasts, every: None, ..
            } => match lasts {
                Some(lasts) => *lasts,
                None => Span(SimDuration::MAX),
            },
            Self::KernelDrift { .. } => Span(SimDuration::MAX),
            Self::LeaderCrash { .. } => Span(SimDuration::ZERO),
        }
    }

    /// Which replicas it strikes, if it strikes any.
    pub const fn target(&self) -> Option<&Target> {
        match self {
            Self::Stall { on, .. }
            | Self::Slowdown { on, .. }
            | Self::ReplicaLoss { on, .. }
            | Self::OriginErrors { on, .. } => Some(on),
            Self::VerifierOutage { .. }
            | Self::StoreBlackout { .. }
            | Self::KernelEvicted { .. }
            | Self::KernelDrift { .. }
            | Self::LeaderCrash { .. } => None,
        }
    }
}
