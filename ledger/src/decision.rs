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
}
