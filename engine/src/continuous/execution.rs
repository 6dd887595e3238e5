//! Steps that are computed for real: the plan is told to an executor, and what it found is told to
//! the plan.

use super::sequence::Phase;
use super::{ContinuousBatching, StepEnd};
use crate::cost::CostModel;
use crate::engine::Outcome;
use crate::execute::{Executed, ExecutionError, SequenceWork, StepExecutor, StepPlan, StepTime};
use crate::request::Submission;
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::{FineDuration, FineTime, SimTime};

/// Whoever computes, and buffers for what is told.
#[derive(Debug)]
pub(super) struct Execution {
    executor: Box<dyn StepExecutor>,
    /// Why it computes no more.
    failure: Option<ExecutionError>,
    work: Vec<SequenceWork>,
    blocks: Vec<u32>,
    fresh: Vec<u32>,
    ended: Vec<RequestId>,
    /// Requests that left while a step that they are part of is being formed.
    released: Vec<RequestId>,
}

impl Execution {
    pub(super) fn new(executor: Box<dyn StepExecutor>) -> Self {
        Self {
            executor,
            failure: None,
            work: Vec::new(),
            blocks: Vec::new(),
            fresh: Vec::new(),
            ended: Vec::new(),
            released: Vec::new(),
        }
    }

    pub(super) fn failure(&self) -> Option<&ExecutionError> {
        self.failure.as_ref()
    }

    pub(super) fn close(&mut self) -> Result<(), ExecutionError> {
        self.executor.close()
    }

    pub(super) fn done(&self) -> Option<Executed> {
        self.executor.done()
    }

    /// A request was taken in.
    pub(super) fn submit(&mut self, submission: &Submission<'_>) {
        if self.failure.is_none() {
            self.failure = self.executor.submit(submission).err();
        }
    }

    /// A request has gone. It is told once the step in progress is formed, of which it may be part.
    pub(super) fn release(&mut self, request: RequestId) {
        self.released.push(request);
    }

    pub(super) fn tell_released(&mut self) {
        for request in self.released.drain(..) {
            self.executor.release(request);
        }
    }
}

impl ContinuousBatching {
    /// Lets an executor compute the steps from now on, one by one: a step is computed when it begins.
    /// Nobody may have been taken in yet.
    pub fn execute_with(&mut self, executor: Box<dyn StepExecutor>) {
        debug_assert!(self.running.is_empty() && self.waiting.len() == 0);
        self.memory.number_blocks();
        self.execution = Some(Box::new(Execution::new(executor)));
    }

    /// Tells an executor that the run is over.
    ///
    /// # Errors
    /// If what it had put off until then fails.
    pub fn close(&mut self) -> Result<(), ExecutionError> {
        self.execution.as_mut().map_or(Ok(()), |e| e.close())
    }

    /// What an executor has done so far, if there is one and it counts.
    pub fn executed(&self) -> Option<Executed> {
        self.execution.as_ref()?.done()
    }

    /// Lists who computes what in the step that was formed, before those leave who only finish it.
    pub(super) fn list_work(&mut self) {
        let Some(execution) = &mut self.execution else {
            return;
        };
        execution.work.clear();
        execution.blocks.clear();
        for &(_, slot) in &self.running {
            let s = &mut self.sequences[slot];
            let start = s.computed_at(self.decoding.steps());
            let (tokens, samples) = match s.phase {
                Phase::Decoding if !self.plan.decodes_rest => (1, true),
                Phase::Overrunning => (1, true),
                Phase::Prefilling => {
                    let planned = self.plan.chunks.iter().find(|c| c.0 == slot);
                    let tokens = planned.map_or(0, |c| c.1);
                    (tokens, start + tokens == s.target)
                }
                _ => (0, false),
            };
            if tokens == 0 {
                continue;
            }
            let size = self.memory.block_size();
            self.memory.cover(&mut s.pages, start + tokens);
            let blocks = (start + tokens).div_ceil(size);
            execution.work.push(SequenceWork {
                request: s.request,
                start,
                tokens,
                samples,
                first_block: execution.blocks.len() as u32,
                blocks,
            });
            let table = s.pages.table();
            execution
                .blocks
                .extend_from_slice(&table[..blocks as usize]);
        }
    }

    /// Ends the first step of the run in progress when it is computed; `begin` is when it began. Without
    /// an executor that is when the cost model says; `None` if the executor failed.
    pub(super) fn compute(&mut self, now: SimTime, begin: FineTime) -> Option<StepEnd> {
        let (shape, priced) = (self.run.shape, self.priced());
        let modelled = |cost: &crate::cost::CostFn| {
            let cost = cost.step(&priced);
            StepEnd::new(begin + cost.time, cost.extrapolated)
        };
        let Some(execution) = &mut self.execution else {
            return Some(modelled(&self.common.cost));
        };
        execution.fresh.clear();
        self.memory.take_issued(&mut execution.fresh);
        let plan = StepPlan {
            begin: now,
            shape: &shape,
            sequences: &execution.work,
            blocks: &execution.blocks,
            fresh: &execution.fresh,
        };
        execution.ended.clear();
        let time = execution.executor.step(&plan, &mut execution.ended);
        let end = match time {
            Ok(StepTime::Modelled) => modelled(&self.common.cost),
            Ok(StepTime::Measured(time)) => {
                let time = FineDuration::from_nanos(time.as_nanos().max(1));
                StepEnd::new(begin + time, false)
            }
            Err(failure) => {
                execution.failure = Some(failure);
                return None;
            }
        };
        execution.tell_released();
        let ended = std::mem::take(&mut execution.ended);
        for &request in &ended {
            self.ends_with_this_step(request);
        }
        if let Some(execution) = &mut self.execution {
            execution.ended = ended;
        }
        Some(end)
    }

    /// A request's answer ends with the token that the step in progress draws.
    fn ends_with_this_step(&mut self, request: RequestId) {
        let Some(slot) = self.sequences.find(request) else {
            return; // it was told to end a step ago
        };
        let steps = self.decoding.steps();
        let s = &mut self.sequences[slot];
        let generated = s.generated_at(steps) + 1;
        if generated >= s.output || !matches!(s.phase, Phase::Decoding | Phase::Prefilling) {
            return;
        }
        s.output = generated;
        s.foreseen = false;
        if s.phase == Phase::Decoding {
            self.decoding.finish_next(slot, &mut self.sequences);
        }
    }

    /// What came of a request whose last token is out.
    pub(super) fn answer(&mut self, slot: u32) -> Option<Outcome> {
        let execution = self.execution.as_mut()?;
        let s = &self.sequences[slot];
        let answer = execution.executor.finish(s.request)?;
        Some(Outcome::Answered {
            tokens: s.generated,
            good: answer.good,
        })
    }
}
