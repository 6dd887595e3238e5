//! Executing steps for real, under the scheduler and the books of memory of the simulated replica.
//!
//! The scheduler decides who computes how many tokens in which blocks; a `StepExecutor` computes
//! them and says how long that took. One call per step: nothing here is asked per token.

/// What was done.
mod done;

pub use done::{Executed, Layers, Signals, Stored};

use crate::batch::BatchShape;
use crate::request::Submission;
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::{SimDuration, SimTime};

/// What one request computes in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SequenceWork {
    /// Whose.
    pub request: RequestId,
    /// Its tokens that are in memory already, those found in the prefix cache included; the first
    /// token to compute is the one at this position, counted through prompt and answer.
    pub start: u32,
    /// Tokens to compute; one or more.
    pub tokens: u32,
    /// Whether the token that follows them is drawn.
    pub samples: bool,
    /// Where its blocks begin in [`StepPlan::blocks`].
    pub first_block: u32,
    /// How many blocks it has: room for all its tokens, those of this step included.
    pub blocks: u32,
}

/// One step, as the scheduler formed it.
#[derive(Clone, Copy, Debug)]
pub struct StepPlan<'a> {
    /// When it begins.
    pub begin: SimTime,
    /// Its sums.
    pub shape: &'a BatchShape,
    /// Who computes what, in batch order; each request once.
    pub sequences: &'a [SequenceWork],
    /// Numbers of the blocks of all sequences, those of each in the order of its tokens. A block
    /// that several have holds the same tokens for all of them; whoever is to compute it in this
    /// step does so for all.
    pub blocks: &'a [u32],
    /// Blocks given out since the last step: what was in them is void. A number may be named twice.
    pub fresh: &'a [u32],
}

/// How long a step took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepTime {
    /// What the cost model says.
    Modelled,
    /// So long, as measured; at least a nanosecond counts.
    Measured(SimDuration),
}

/// What came of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whether its answer is right, by a verifier that looked at it.
    pub good: bool,
}

/// Why nothing can be computed any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExecutionError(pub String);

/// Computes the steps of one replica. Calls come in this order for each request: `submit`; any
/// number of steps; `finish` if its last token came out; `release`. A request may start over (its
/// `start` then falls) when its blocks were taken from it: it computes its prompt and the tokens
/// that came out so far once more.
pub trait StepExecutor: std::fmt::Debug {
    /// A request was taken in. One with a task ([`crate::request::Truth::task`]) ends where a
    /// step says so, or at its limit; others at the length that their truth says.
    ///
    /// # Errors
    /// If it can never be computed: the run ends.
    fn submit(&mut self, submission: &Submission<'_>) -> Result<(), ExecutionError>;

    /// Computes a step. Requests with a task whose answer ended with the token drawn in it are
    /// appended to `ended`.
    ///
    /// # Errors
    /// If the device fails or computes what are no numbers: the run ends.
    fn step(
        &mut self,
        plan: &StepPlan<'_>,
        ended: &mut Vec<RequestId>,
    ) -> Result<StepTime, ExecutionError>;

    /// A request's last token came out. Says whether the answer is right, if it can.
    fn finish(&mut self, request: RequestId) -> Option<Answer>;

    /// Nothing more will be computed for a request.
    fn release(&mut self, request: RequestId);

    /// The run is over: nothing more will be asked, and what was put off until then is done, outside of
    /// the run's time.
    ///
    /// # Errors
    /// If the device fails.
    fn close(&mut self) -> Result<(), ExecutionError> {
        Ok(())
    }

    /// What it has done so far, if it counts.
    fn done(&self) -> Option<Executed> {
        None
    }
}
