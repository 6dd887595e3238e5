//! The life of a request, fact by fact. An entry is a time, a request and a fact; laws check
//! each before it counts, and the run's digest absorbs each in order.

use serde::{Deserialize, Serialize};
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;

/// What a piece of work that is no call is done for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The first attempt of a call whose client may make several.
    Attempt,
    /// Another attempt, after one that failed or took too long.
    Retry,
    /// Another attempt beside one that is still under way.
    Hedge,
    /// A stored answer that the gateway makes anew, for nobody in particular.
    Refresh,
    /// What a kernel has answered, asked again to compare.
    Probe,
}

impl Purpose {
    /// All of them, each at its own place.
    pub const ALL: [Self; 5] = [
        Self::Attempt,
        Self::Retry,
        Self::Hedge,
        Self::Refresh,
        Self::Probe,
    ];

    /// As a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attempt => "first",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Refresh => "refresh",
            Self::Probe => "probe",
        }
    }
}

/// Where the answer of a call comes from, if not from work of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerSource {
    /// One of the attempts that its client made.
    Attempt,
    /// A stored answer to the same question.
    Stored,
    /// A stored answer past its time.
    Stale,
    /// A stored answer to a similar question.
    Similar,
    /// The work of another call, under way at the same time.
    Coalesced,
}

impl AnswerSource {
    /// All of them, each at its own place.
    pub const ALL: [Self; 5] = [
        Self::Attempt,
        Self::Stored,
        Self::Stale,
        Self::Similar,
        Self::Coalesced,
    ];

    /// The source as a word, as in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Stored => "stored",
            Self::Stale => "stale",
            Self::Similar => "similar",
            Self::Coalesced => "coalesced",
        }
    }
}

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
    /// A piece of work that is no call began.
    Begun(Purpose),
    /// Such a piece of work ended, however it ended.
    Closed,
    /// It was given an answer from elsewhere; what it would have been given itself counts no more.
    Answered(AnswerSource),
    /// Its answer was rejected and withdrawn; it is to be answered anew.
    FellBack,
}

impl Fact {
    /// Whether the request has ended with this.
    pub const fn is_end(self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::Finished | Self::Abandoned | Self::Unfinished | Self::Closed
        )
    }

    /// One fact of each kind, in the order of [`Self::kind`].
    pub const KINDS: [Self; 16] = [
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
        Self::Begun(Purpose::Attempt),
        Self::Closed,
        Self::Answered(AnswerSource::Attempt),
        Self::FellBack,
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
            Self::Begun(_) => 12,
            Self::Closed => 13,
            Self::Answered(_) => 14,
            Self::FellBack => 15,
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
            Self::Begun(_) => Self::Begun(Purpose::ALL[detail as usize]),
            Self::Answered(_) => Self::Answered(AnswerSource::ALL[detail as usize]),
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
            Self::Begun(purpose) => purpose as u32,
            Self::Answered(source) => source as u32,
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
        let purposes = Purpose::ALL.map(Fact::Begun).into_iter();
        let sources = AnswerSource::ALL.map(Fact::Answered).into_iter();
        let refusals = Refusal::ALL.map(Fact::Refused).into_iter();
        let details = refusals.chain(purposes).chain(sources).chain([
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
