//! Where requests come from. Everything about a request, its hidden truth too, is drawn before it
//! enters the system, from streams of the workload's own: two policies under one seed face the
//! same requests.

use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::request::Truth;

/// One request as its client sends it. Its prefix is written to the buffer given to
/// [`Workload::take`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Arrival {
    /// When the client sends it.
    pub at: SimTime,
    /// Who pays.
    pub tenant: TenantId,
    /// Which objectives apply.
    pub class: ClassId,
    /// Conversation; unique per request if it is no conversation.
    pub session: u64,
    /// Turn within the conversation, from 0.
    pub turn: u32,
    /// Prompt length in tokens, shared prefix and history included; more than zero.
    pub prompt_tokens: u32,
    /// The client's limit on the output, in tokens.
    pub max_output_tokens: Option<u32>,
    /// What policies are told about the output length, in tokens.
    pub predicted_output_tokens: Option<u32>,
    /// How long its client waits before it gives up.
    pub patience: Option<SimDuration>,
    /// Hidden truth.
    pub truth: Truth,
}

/// Where requests come from.
pub trait Workload {
    /// When the next request comes, or `None` if none is due without a departure first. Never
    /// earlier than the last one taken.
    fn next_at(&mut self) -> Option<SimTime>;

    /// Takes the request due at [`Self::next_at`] and appends what its prompt begins with to
    /// `prefix`. Requests are numbered in the order they are taken.
    ///
    /// # Panics
    /// If none is due.
    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival;

    /// Told once per request that left the system, however it left, when its client learns of
    /// it. A closed-loop workload may then have a request due, also earlier than it said before.
    fn departed(&mut self, request: RequestId, at: SimTime, finished: bool);
}
