//! Routing decisions, kept when somebody wants to know why: the policy's scores, and what it saw.

use serde::{Deserialize, Serialize};
use windtunnel_base::refusal::Refusal;

/// One routing decision.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// When, in ns.
    pub at_ns: u64,
    /// For which request.
    pub request: u32,
    /// The replica it was sent to; absent if it was refused.
    pub replica: Option<u32>,
    /// Why it was refused, if it was.
    pub refused: Option<Refusal>,
    /// The replicas that could be chosen, by ascending id.
    pub candidates: Vec<Candidate>,
}

/// One replica at the time of a decision, as the gateway saw it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// Which replica.
    pub replica: u32,
    /// The policy's score, higher is better; absent if the policy gives none.
    pub score: Option<f64>,
    /// Requests sent there and not yet answered.
    pub in_flight: u32,
    /// Requests running there, as telemetry had it; zero if the policy does not read it.
    pub running: u32,
    /// Requests waiting there, as telemetry had it; zero if the policy does not read it.
    pub waiting: u32,
    /// Age of that telemetry, ns; absent if the policy reads none.
    pub telemetry_age_ns: Option<u64>,
}

/// What the gateway did over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GatewayTotals {
    /// Requests that reached it.
    pub received: u64,
    /// Requests it sent to a replica.
    pub dispatched: u64,
    /// Requests that had to wait for a replica with room.
    pub queued: u64,
    /// The most that waited at once.
    pub queue_peak: u64,
    /// Times that a request cancelled by its client was dropped before a replica had it.
    pub dropped: u64,
    /// Times that a cancellation was sent on to a replica.
    pub cancelled: u64,
    /// Requests that reached a replica after it was lost; absent where no replica ever is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_routes: Option<u64>,
    /// Times that a replica was ejected because it failed one request after the other; absent where none ever is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejections: Option<u64>,
    /// Stored answers and coalescing; absent where there are none.
    #[serde(default, skip_serializing_if = "AnswerTotals::is_nothing")]
    pub answers: AnswerTotals,
}

/// What came of stored answers and of coalescing over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnswerTotals {
    /// Requests that asked something and looked for an answer.
    pub asked: u64,
    /// Fresh stored answers given, to the same words.
    pub exact: u64,
    /// Expired ones given.
    pub stale: u64,
    /// Stored answers given to similar questions.
    pub similar: u64,
    /// Of all those given, answers to another question than the one that was asked.
    pub wrong: u64,
    /// Of all those given, those given because a fetch failed.
    pub stale_on_error: u64,
    /// Fetches: requests and refreshes that went on for an answer that others may get too.
    pub fetches: u64,
    /// Of those, the ones that found nobody fetching the same.
    pub flights: u64,
    /// The most fetches that began in one second (of those that begin on the clock), after a fixed warm-up.
    pub fetch_peak: u64,
    /// Stored answers made anew for nobody in particular.
    pub refreshes: u64,
    /// Requests that waited for another.
    pub coalesced: u64,
    /// Of those, the ones that went on in the place of one that failed.
    pub promoted: u64,
    /// Of those, the ones that failed with the one they waited for.
    pub failed_with_leader: u64,
    /// Of those, the ones that waited too long and went on alone.
    pub follower_timeouts: u64,
    /// Requests whose clients left, and that went on because others waited for them.
    pub kept_on: u64,
    /// Stored answers that left for want of room.
    pub evictions: u64,
}

impl AnswerTotals {
    /// Whether there was nothing of the kind.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
