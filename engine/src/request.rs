//! What is visible of a request, what is so, and what a replica is given.

use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};

/// All that policies may know of a request. What is *true* of it is in [`Truth`].
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Rank in arrival order.
    pub id: RequestId,
    /// When the client sent it.
    pub sent_at: SimTime,
    /// When its client gives up, if ever.
    pub deadline: Option<SimTime>,
    /// Prompt length in tokens; more than zero.
    pub prompt_tokens: u32,
    /// The client's own limit on the output, in tokens.
    pub max_output_tokens: Option<u32>,
    /// What the scenario's length predictor says, in tokens, with that predictor's error.
    pub predicted_output_tokens: Option<u32>,
    /// Who pays.
    pub tenant: TenantId,
    /// Which objectives apply.
    pub class: ClassId,
    /// Scheduling priority of its class; lower goes first, as in vLLM.
    pub priority: i32,
    /// Which conversation it belongs to; unique per request if it is no conversation.
    pub session: u64,
    /// What the prompt begins with, as far as others may share it.
    pub prefix: &'a [Extent],
}

/// What is so. Only environment models (engines, verifiers, drift) and metrics may hold one;
/// no policy trait mentions this type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Truth {
    /// Tokens it will in fact generate; more than zero.
    pub output_tokens: u32,
    /// Time of service at a station (`engine.kind = "station"`); zero elsewhere.
    pub service: SimDuration,
    /// Whether the answer is good, should anybody look.
    pub good: bool,
    /// Whether it is an attack (a prompt injection), for filters that look for them.
    pub attack: bool,
    /// Whether the output continues the last extent of the prompt, as in a conversation whose
    /// next prompt repeats it.
    pub output_continues: bool,
    /// What is asked, if it is a real task: the number it can be drawn from again. An engine that
    /// computes reads its prompt and ends its answer where the model does.
    pub task: Option<u64>,
}

/// A request as a replica receives it.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// What its scheduler may see.
    pub request: RequestView<'a>,
    /// What its execution will show.
    pub truth: Truth,
}
