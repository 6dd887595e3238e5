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

    /// One fact of each kind, in the order of [`Self::kind`].
    pub const KINDS: [Self; 12] = [
        Self::Sent,
        Self::Refused(Refusal::QueueFull),
        Self::Dispatched(ReplicaId(0)),
        Self::Accepted,
        Self::Started { cached_tokens: 0 },
        Self::FirstToken,
        Self::Preempted { generated: 0 },
        Self::Generated,
        Self::Verified { accepted: false },
        Self::Finished,
        Self::Abandoned,
        Self::Unfinished,
    ];

    /// What kind of fact it is, less than the number of [`Self::KINDS`].
    #[inline]
    pub const fn kind(self) -> u8 {
        match self {
            Self::Sent => 0,
            Self::Refused(_) => 1,
            Self::Dispatched(_) => 2,
            Self::Accepted => 3,
            Self::Started { .. } => 4,
            Self::FirstToken => 5,
            Self::Preempted { .. } => 6,
            Self::Generated => 7,
            Self::Verified { .. } => 8,
            Self::Finished => 9,
            Self::Abandoned => 10,
            Self::Unfinished => 11,
        }
    }

    /// The fact of this kind and [`Self::detail`].
    ///
    /// # Panics
    /// If there is none: no fact gave these two.
    pub fn of(kind: u8, detail: u32) -> Self {
        match Self::KINDS[usize::from(kind)] {
            Self::Refused(_) => Self::Refused(Refusal::ALL[detail as usize]),
            Self::Dispatched(_) => Self::Dispatched(ReplicaId(detail)),
            Self::Started { .. } => Self::Started {
                cached_tokens: detail,
            },
            Self::Preempted { .. } => Self::Preempted { generated: detail },
            Self::Verified { .. } => Self::Verified {
                accepted: detail != 0,
            },
            plain => plain,
        }
    }

    /// What it says beside its kind, for digests; distinct for distinct facts of one kind.
    #[inline]
    pub const fn detail(self) -> u32 {
        match self {
            Self::Refused(reason) => reason as u32,
            Self::Dispatched(replica) => replica.0,
            Self::Started { cached_tokens } => cached_tokens,
            Self::Preempted { generated } => generated,
            Self::Verified { accepted } => accepted as u32,
            _ => 0,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_numbered_in_their_order() {
        for (number, fact) in Fact::KINDS.into_iter().enumerate() {
            assert_eq!(usize::from(fact.kind()), number);
            assert_eq!(Fact::of(fact.kind(), fact.detail()), fact);
        }
        let details = Refusal::ALL.map(Fact::Refused).into_iter().chain([
            Fact::Dispatched(ReplicaId(7)),
            Fact::Started { cached_tokens: 7 },
            Fact::Preempted { generated: 7 },
            Fact::Verified { accepted: true },
        ]);
        for fact in details {
            assert_eq!(Fact::of(fact.kind(), fact.detail()), fact);
        }
    }
}
