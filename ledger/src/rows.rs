//! Entries folded to one row per request: what files, exports and exact statistics are made of.

use crate::entry::AnswerSource;
use serde::{Deserialize, Serialize};
use windtunnel_base::refusal::Refusal;

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The client has the whole answer.
    Finished,
    /// Turned away, for this reason.
    Refused(Refusal),
    /// The client gave up.
    Abandoned,
    /// Still under way when the run was cut off.
    Unfinished,
}

impl End {
    /// The end as a word, as in files: `finished`, `refused_queue_full`, ….
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Refused(Refusal::QueueFull) => "refused_queue_full",
            Self::Refused(Refusal::TooLong) => "refused_too_long",
            Self::Refused(Refusal::RateLimited) => "refused_rate_limited",
            Self::Refused(Refusal::Shed) => "refused_shed",
            Self::Refused(Refusal::NoReplica) => "refused_no_replica",
            Self::Refused(Refusal::Throttled) => "refused_throttled",
            Self::Refused(Refusal::TimedOut) => "refused_timed_out",
            Self::Refused(Refusal::Unavailable) => "refused_unavailable",
            Self::Refused(Refusal::Blocked) => "refused_blocked",
            Self::Abandoned => "abandoned",
            Self::Unfinished => "unfinished",
        }
    }
}

/// One request. Times are nanoseconds since the run began; absent where it did not come so far.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Rank in arrival order.
    pub request: u32,
    /// Conversation; equal for all turns of one.
    pub session: u64,
    /// Turn within the conversation, from 0.
    pub turn: u32,
    /// Tenant, by rank in the scenario.
    pub tenant: u32,
    /// Class, by rank in the scenario.
    pub class: u32,
    /// Replica that served it (the last one, if several).
    pub replica: Option<u32>,
    /// How it ended.
    pub end: End,
    /// Whether it was sent in the measured window (after warm-up).
    pub measured: bool,
    /// Sent by the client.
    pub sent_ns: u64,
    /// Left the gateway towards a replica.
    pub dispatched_ns: Option<u64>,
    /// Taken into the replica's queue.
    pub accepted_ns: Option<u64>,
    /// First joined a batch.
    pub started_ns: Option<u64>,
    /// First output token, at the client.
    pub first_token_ns: Option<u64>,
    /// Last output token left the replica.
    pub generated_ns: Option<u64>,
    /// Last output token, at the client. Tokens stream; a verdict, if there is one, comes later.
    pub last_token_ns: Option<u64>,
    /// Ended: last token, or verdict after it, at the client; or refused, abandoned, cut off.
    pub ended_ns: u64,
    /// Prompt length in tokens.
    pub prompt_tokens: u32,
    /// Prompt tokens found in cache when it first joined a batch.
    pub cached_tokens: u32,
    /// Output tokens delivered.
    pub output_tokens: u32,
    /// How often it was thrown out of memory.
    pub preemptions: u32,
    /// Verdict of the verifier, if one looked.
    pub accepted_by_verifier: Option<bool>,
    /// Hidden truth: whether the answer was good.
    pub good: bool,
    /// Whether it met every objective of its class (finished, and within all limits).
    pub met_objectives: bool,
    /// Attempts that its client made, if clients make several.
    pub attempts: Option<u32>,
    /// Where its answer came from, if that was not its own work alone.
    pub answer: Option<AnswerSource>,
}

// Rows also come from files, so times out of order give no figure instead of a panic.
impl Row {
    fn finished(&self) -> Option<()> {
        matches!(self.end, End::Finished).then_some(())
    }

    /// Time to first token at the client, in ns.
    pub fn ttft_ns(&self) -> Option<u64> {
        self.finished()?;
        self.first_token_ns?.checked_sub(self.sent_ns)
    }

    /// End-to-end latency at the client, sent to last token, in ns. A check of the answer after
    /// its last token is not part of it.
    pub fn e2e_ns(&self) -> Option<u64> {
        self.finished()?;
        self.last_token_ns?.checked_sub(self.sent_ns)
    }

    /// Time per output token after the first, in ns; `None` for outputs of one token.
    pub fn tpot_ns(&self) -> Option<f64> {
        let decode = self.e2e_ns()?.checked_sub(self.ttft_ns()?)?;
        (self.output_tokens > 1).then(|| decode as f64 / f64::from(self.output_tokens - 1))
    }

    /// Time in queues before it first joined a batch, in ns.
    pub fn queue_ns(&self) -> Option<u64> {
        self.started_ns?.checked_sub(self.sent_ns)
    }
}
