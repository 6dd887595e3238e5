//! What several gateways share: a store of small facts (such as Redis), how fast it is, and what
//! happens without it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;

/// A store that every routing decision asks once: which replica is a key's, and how many requests the
/// other gateways have in flight. It serves one operation after the other, and fails when a fault of
/// kind `store_blackout` says so.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateStoreSpec {
    /// Time of one operation, read or write, at the store.
    pub service: Span,
    /// Time from a gateway to the store and back.
    pub round_trip: Span,
    /// Gateways that share it. Requests come to them in turn. Each counts its own requests in flight
    /// exactly, and knows of the others' what the store said when it was asked last.
    pub gateways: u32,
    /// How long each gateway gathers changes of its counts before it writes them, one write per
    /// replica that changed; `0s` writes at every dispatch and every answer.
    pub write_batch: Span,
    /// Every replica's address is written anew this often, by whoever watches the replicas; `0s`
    /// never. What the store has lost is found again at the next such time.
    pub refresh: Span,
    /// How long a gateway waits for an answer.
    pub timeout: Span,
    /// How long a gateway that got no answer does without asking again.
    pub retry_after: Span,
    /// What a gateway does with a request while the store tells it nothing.
    pub on_blackout: BlackoutRule,
    /// Whether its contents survive its own restart. A promoted copy has them in any case.
    pub persistent: bool,
    /// A copy that takes over when the store fails; absent: everybody waits until it is back.
    pub failover: Option<FailoverSpec>,
}

impl Default for StateStoreSpec {
    fn default() -> Self {
        Self {
            service: Span(SimDuration::from_micros(10)),
            round_trip: Span(SimDuration::from_micros(300)),
            gateways: 1,
            write_batch: Span::default(),
            refresh: Span(SimDuration::from_secs(30)),
            timeout: Span(SimDuration::from_millis(50)),
            retry_after: Span(SimDuration::from_millis(100)),
            on_blackout: BlackoutRule::LastKnownGood,
            persistent: false,
            failover: None,
        }
    }
}

/// What a gateway does without its store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlackoutRule {
    /// It goes by what it knew last. Keys that it has never seen go to a replica at random.
    #[default]
    LastKnownGood,
    /// It turns requests away.
    Refuse,
}

/// A watcher that promotes a copy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailoverSpec {
    /// Silence after which the store counts as failed (Redis Sentinel `down-after-milliseconds`,
    /// which ships as 30 s).
    pub down_after: Span,
    /// From there until the copy serves.
    pub promotion: Span,
}

impl Default for FailoverSpec {
    fn default() -> Self {
        Self {
            down_after: Span(SimDuration::from_secs(30)),
            promotion: Span(SimDuration::from_secs(1)),
        }
    }
}
