//! The life of a request, fact by fact. An entry is a time, a request and a fact; laws check
//! each before it counts, and the run's digest absorbs each in order.

use serde::{Deserialize, Serialize};
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;

/// What happened to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Its client sent it.
    Sent,
    /// It was turned away; it has ended.
    Refused(Refusal),
    /// The gateway sent it to a replica.
    Dispatched(ReplicaId),
    /// The replica took it into its queue.
    Accepted,
    /// It joined a batch, with so many prompt tokens found in cache.
    Started {
        /// Prompt tokens found in cache.
        cached_tokens: u32,
    },
    /// Its first output token left the replica.
    FirstToken,
    /// It was thrown out of memory, having produced so many output tokens.
    Preempted {
        /// Output tokens so far.
        generated: u32,
    },
    /// Its last output token left the replica.
    Generated,
    /// A verifier judged its answer.
    Verified {
        /// Whether it was accepted.
        accepted: bool,
    },
    /// Its client received the whole answer; it has ended.
    Finished,
    /// Its client gave up; it has ended.
    Abandoned,
    /// It was still under way when the run was cut off; it has ended.
    Unfinished,
}

impl Fact {
    /// Whether the request has ended with this.
    pub const fn is_end(self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Finished | Self::Abandoned | Self::Unfinished
        )
    }

    /// The fact as two words, for digests; distinct for distinct facts.
    pub const fn words(self) -> (u64, u64) {
        match self {
            Self::Sent => (1, 0),
            Self::Refused(reason) => (2, reason as u64),
            Self::Dispatched(replica) => (3, replica.0 as u64),
            Self::Accepted => (4, 0),
            Self::Started { cached_tokens } => (5, cached_tokens as u64),
            Self::FirstToken => (6, 0),
            Self::Preempted { generated } => (7, generated as u64),
            Self::Generated => (8, 0),
            Self::Verified { accepted } => (9, accepted as u64),
            Self::Finished => (10, 0),
            Self::Abandoned => (11, 0),
            Self::Unfinished => (12, 0),
        }
    }
}

/// One fact, stamped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When it happened.
    pub at: SimTime,
    /// To whom.
    pub request: RequestId,
    /// What.
    pub fact: Fact,
}
