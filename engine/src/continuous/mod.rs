//! The LLM engine: iteration-level scheduling over paged KV.
//!
//! Forming a batch (who computes how many tokens) is kept apart from timing it: the schedulers
//! fill a `Plan`, its sums make a `BatchShape`, and only then is a cost model asked. Something
//! that executes batches for real takes the plan instead (`crate::execute`).
//!
//! **Ties.** A step that begins at the instant the previous one ended sees the waiting room as
//! it was before that instant, unless it would otherwise be empty; a cancellation takes effect at
//! the first step end after its instant. So results do not depend on the order in which the
//! caller handles events of equal time, which fast-forward could not reproduce.

/// Limits and rules by which a batch is formed.
mod rules;
/// One request, and the arena of all.
mod sequence;
/// What a request holds of device memory.
mod memory;
/// Who is admitted next.
mod waiting;
/// The decoding requests, as sums.
mod decode_set;
/// Filling a step from the running requests.
mod schedule;
/// Filling a step from the waiting room.
mod admission;
/// Throwing running requests out of memory.
mod preemption;
/// Steps in progress.
mod run;
/// Ending steps: tokens come out, requests leave.
mod commit;
/// Prompts fetched from a shared cache.
mod refilling;
/// Who leaves when the step in progress ends.
mod leaving;
/// Steps that are computed for real.
mod execution;
/// What a replica is asked to do, and when it says something.
mod serving;

use crate::batch::BatchShape;
use crate::cost::CostModel;
use crate::engine::{EngineOutcome, EngineStats};
use crate::kv::Imbalance;
use crate::replica::ReplicaFacts;
use decode_set::DecodeSet;
use execution::Execution;
pub(crate) use memory::Memory;
use refilling::Refilling;
pub(crate) use rules::{Common, Rules};
use run::{Run, StepEnd};
use sequence::{Phase, Sequences};
use std::collections::VecDeque;
use std::sync::Arc;
use waiting::WaitingRoom;
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::{FineTime, SimTime};

/// Who computes what in the step being formed, beside the decode set.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Prompt tokens to compute: slot and how many, in batch order.
    chunks: Vec<(u32, u32)>,
    /// What those served so far were given, while memory is short and they are served in order.
    in_order: Vec<schedule::Planned>,
    /// Bytes to swap.
    swap_bytes: u64,
    /// Somebody was preempted.
    preempted: bool,
    /// The longest prompt admitted to this step, in tokens to compute.
    longest: u32,
    /// The decode set sits this step out: it is one of prompts alone.
    decodes_rest: bool,
}

/// An LLM engine with continuous batching and paged KV. What most steps touch lies side by side: in a large
/// fleet each replica's memory has to be fetched when its turn comes.
#[derive(Debug)]
#[repr(C)]
pub struct ContinuousBatching {
    common: Arc<Common>,
    run: Run,
    decoding: DecodeSet,
    plan: Plan,
    /// All running requests: place in the batch and slot, in that order. Mostly the first leave.
    running: VecDeque<(u64, u32)>,
    /// Those with prompt tokens left, in batch order.
    prefilling: Vec<u32>,
    /// End of the latest step to a fraction of a nanosecond.
    clock: FineTime,
    /// Start and end of the latest step.
    last_begin: SimTime,
    last_end: Option<SimTime>,
    pending_prompt_tokens: u64,
    admissions: u64,
    waiting: WaitingRoom,
    /// Those left out of the step in progress.
    paused: Vec<u32>,
    /// Those whose end is told, but whose slots and blocks the next plan still finds in use.
    leaving: Vec<u32>,
    /// Running requests to drop, and since when.
    cancels: Vec<(RequestId, SimTime)>,
    /// Outcomes for the next call of `next_event`.
    told_next: Vec<EngineOutcome>,
    ended: Vec<(u64, EngineOutcome)>,
    /// Whoever computes the steps, if they are computed.
    execution: Option<Box<Execution>>,
    /// The link to a cache shared with other replicas, if there is one.
    refilling: Option<Box<Refilling>>,
    /// When the head of the waiting room was last cancelled.
    head_left: Option<SimTime>,
    /// Somebody reads the prefix cache between two events.
    watched: bool,
    /// Requests that the static batch in progress began with.
    batch: u64,
    memory: Memory,
    sequences: Sequences,
}

impl ContinuousBatching {
    pub(crate) fn new(common: Arc<Common>, memory: Memory) -> Self {
        let spread = common.cost.needs_spread();
        Self {
            waiting: WaitingRoom::new(common.rules.kind, common.rules.bucket_count()),
            decoding: DecodeSet::new(memory.block_size(), spread),
            common,
            memory,
            sequences: Sequences::default(),
            running: VecDeque::new(),
            prefilling: Vec::new(),
            paused: Vec::new(),
            leaving: Vec::new(),
            plan: Plan::default(),
            run: Run::default(),
            last_begin: SimTime::ZERO,
            last_end: None,
            clock: FineTime::default(),
            head_left: None,
            cancels: Vec::new(),
            told_next: Vec::new(),
            watched: false,
            batch: 0,
            ended: Vec::new(),
            pending_prompt_tokens: 0,
            admissions: 0,
            execution: None,
            refilling: None,
        }
    }

    /// What it is, whatever it does.
    pub fn facts(&self) -> &ReplicaFacts {
        &self.common.facts
    }

    /// Whether a step is in progress, or somebody is here.
    pub(crate) fn is_busy(&self) -> bool {
        self.run.end().is_some() || !self.running.is_empty() || self.waiting.len() > 0
    }

    /// Checks that every KV block is accounted for once, at no cost; `thorough` counts everything
    /// again, which is slow.
    ///
    /// # Errors
    /// If not: a bug.
    pub fn check_memory(&self, thorough: bool) -> Result<(), Imbalance> {
        self.memory.check(thorough)
    }

    /// Forgets all prompts that are cached and no request holds: what a machine that lost its memory does.
    pub fn forget_cache(&mut self) {
        self.memory.forget();
    }

    /// Starts a step at `now`, and as many after it as cannot be told apart from their start.
    fn start(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) {
        self.memory.expire(now);
        if self.refilling.is_some() {
            self.come_back(now);
        }
        // What happened at the very instant the last step ended comes too late for this one.
        let follows = self.last_end == Some(now) && !self.running.is_empty();
        let closed = follows && self.head_left == Some(now);
        let begin = self.begin_at(now);
        let planned = match self.common.rules.plans_ahead {
            true => self.last_begin,
            false => now,
        };
        let everybody = !follows || self.common.rules.joins_at_boundary;
        self.waiting.let_in(planned, everybody, &mut self.sequences);
        self.plan.swap_bytes = 0;
        let mut first_growth = self.plan_step(closed, outcomes);
        let mut shape = self.shape();
        self.list_work();
        // Who did not fit beside those who leave may fit into the next step.
        let released = !self.leaving.is_empty() && self.waiting.head(&self.sequences).is_some();
        let overruns = shape.decode_seqs != self.decoding.count();
        self.release_leaving();
        while shape.seqs() == 0 {
            if self.running.is_empty() && self.all_stand_aside() {
                // The only one had no block for its token too many, or waits for its prompt.
                self.memory.date_events(now);
                return;
            }
            if self.common.rules.plans_ahead || self.refilling.is_some() {
                // Nothing runs meanwhile: the plan waits for all that can be known.
                self.waiting.let_in(now, true, &mut self.sequences);
            }
            // Else the first in the batch had the worst priority and gave up its own place, which
            // ends the walk (vLLM then runs an empty step). It cannot go on: the batch gets smaller.
            first_growth = self.plan_step(closed, outcomes);
            shape = self.shape();
            self.list_work();
        }
        self.memory.date_events(now);
        self.run.start = now;
        self.run.shape = shape;
        self.run.first_growth = first_growth;
        let Some(end) = self.compute(now, begin) else {
            return;
        };
        self.run.ends.push(end);
        let undisturbed = !(closed || released || overruns || self.plan.preempted);
        let decodes_only = self.plan.chunks.is_empty() && self.plan.swap_bytes == 0;
        if self.common.rules.fast_forward
            && self.execution.is_none()
            && undisturbed
            && decodes_only
            && self.paused.is_empty()
            && self.cancels.is_empty()
            && !self.newcomers_could_join()
        {
            self.fast_forward();
        }
    }

    /// Where a step that starts at `now` begins: where the last one ended if somebody was here then.
    fn begin_at(&mut self, now: SimTime) -> FineTime {
        let busy = self.goes_on() || self.waiting.waited_before(now, &self.sequences);
        if busy && self.last_end == Some(now) {
            self.clock
        } else {
            FineTime::of(now)
        }
    }

    /// Plans one step and takes its blocks; returns how many of those are for decoding requests.
    fn plan_step(&mut self, closed: bool, outcomes: &mut Vec<EngineOutcome>) -> u64 {
        self.plan.chunks.clear();
        self.plan.preempted = false;
        self.plan.decodes_rest = false;
        self.resume_paused();
        let mut budget = self.common.rules.step_budget();
        if self.common.rules.prompts_alone() {
            if !closed || self.running.is_empty() {
                self.admit(&mut budget, outcomes);
            }
            if !self.plan.chunks.is_empty() {
                self.plan.decodes_rest = true;
                self.run.first_evicted = 0;
                return 0;
            }
            budget = u64::MAX;
        }
        let growth = self.schedule_running(&mut budget, outcomes);
        // Who was thrown out must not come back in the same step, unless that is the rule.
        let open = !self.plan.preempted || self.common.rules.admit_after_preemption;
        if open && !self.common.rules.prompts_alone() && (!closed || self.running.is_empty()) {
            self.admit(&mut budget, outcomes);
        }
        growth
    }

    /// Adds the steps that follow, up to the next finish or shortage of free blocks.
    fn fast_forward(&mut self) {
        let finish = self.decoding.next_finish(&self.sequences);
        let until_finish = finish.map_or(1, |f| f - self.decoding.steps());
        let steps = (self.run.limit() as u64).min(until_finish);
        let mut shape = self.run.shape;
        let spread = self.common.cost.needs_spread();
        // Later steps take their blocks when the run is committed. That must not be too late for
        // those who watch what the cache forgets.
        let watched = self.watched || self.memory.records_events() || self.refilling.is_some();
        let mut free = if watched {
            self.memory.empty()
        } else {
            self.memory.available()
        };
        let Some(mut end) = self.run.ends.last().map(StepEnd::fine) else {
            return;
        };
        let needed = self.decoding.blocks_from(1);
        // Who stood aside may join the next step; what expires is forgotten as it begins.
        let wake = [self.wake(), self.memory.next_expiry()];
        let wake = wake.into_iter().flatten().min();
        let run = self.common.cost.decode_run(&shape);
        for (_, blocks) in (1..steps).zip(needed) {
            if blocks + self.common.rules.spare > free {
                break;
            }
            if wake.is_some_and(|at| at <= end.rounded_up()) {
                break;
            }
            free -= blocks;
            shape.pass(1, spread);
            let cost = run.step(&shape);
            end += cost.time;
            self.run.ends.push(StepEnd::new(end, cost.extrapolated));
        }
    }

    /// Whether somebody in the lobby, or who enters it now, could join the next step.
    fn newcomers_could_join(&mut self) -> bool {
        if self.running.len() >= self.common.rules.max_num_seqs as usize {
            return false;
        }
        if self.common.rules.is_static() {
            return false;
        }
        // While decodes only run, a head that did not fit will not: memory only shrinks.
        let behind = self.waiting.is_fifo() && self.waiting.head(&self.sequences).is_some();
        self.waiting.has_newcomers() && !behind
    }

    /// The step that is planned.
    fn shape(&mut self) -> BatchShape {
        let mut shape = self.sums(0);
        if self.common.rules.is_static() {
            let done = self.batch.saturating_sub(shape.seqs().into());
            shape.room = shape.tokens() + self.prompt_padding() + done;
        }
        shape
    }

    /// Tokens by which the prompts of the step are shorter than the longest, if they are padded.
    fn prompt_padding(&self) -> u64 {
        if !self.common.rules.padded_prompts {
            return 0;
        }
        let longest = self.plan.longest;
        let short = |&(_, tokens): &(u32, u32)| u64::from(longest.saturating_sub(tokens));
        self.plan.chunks.iter().map(short).sum()
    }

    /// What the step takes its time for: in a static batch, prompts as long as the longest.
    fn priced(&mut self) -> BatchShape {
        if self.common.rules.is_static() && self.prompt_padding() > 0 {
            return self.sums(self.plan.longest);
        }
        self.run.shape
    }

    /// The sums of the step that is planned, prompts computed up to so many tokens at least.
    fn sums(&mut self, at_least: u32) -> BatchShape {
        let mut shape = BatchShape {
            swap_bytes: self.plan.swap_bytes,
            ..BatchShape::default()
        };
        if !self.plan.decodes_rest {
            shape.decode_seqs = self.decoding.count();
            shape.decode_context = self.decoding.context();
            shape.sampled = self.decoding.count();
            shape.context_squares = self.decoding.squares();
            shape.context_max = self.decoding.longest(&self.sequences).unwrap_or(0);
        }
        // Of those that compute one token beside the decode set.
        let (mut longest, mut squares) = (0, 0);
        let square = |context: u32| u128::from(context) * u128::from(context);
        for &slot in &self.leaving {
            let s = &self.sequences[slot];
            if s.phase == Phase::Overrunning {
                longest = longest.max(s.computed);
                squares += square(s.computed);
                shape.decode_seqs += 1;
                shape.decode_context += u64::from(s.computed);
                shape.sampled += 1;
            }
        }
        for &(slot, tokens) in &self.plan.chunks {
            let s = &self.sequences[slot];
            let more = at_least.saturating_sub(tokens);
            let (tokens, target) = (tokens + more, s.target + more);
            self.add_prefill(&mut shape, tokens, s.computed, target);
            if tokens == 1 {
                longest = longest.max(s.computed);
                squares += square(s.computed);
            }
        }
        shape.context_max = shape.context_max.max(longest);
        shape.context_squares += squares;
        if !self.common.cost.needs_spread() {
            (shape.context_max, shape.context_squares) = (0, 0);
        }
        shape
    }

    /// Whether somebody in the batch has anything left to compute.
    fn goes_on(&self) -> bool {
        let foreseen = |&&slot: &&u32| self.sequences[slot].foreseen;
        self.running.len() > self.leaving.iter().filter(foreseen).count()
    }

    /// What telemetry reads while so many steps of the run have begun, of which those after the first took
    /// so many blocks.
    fn stats_in_step(&self, begun: usize, growth: u64) -> EngineStats {
        let (mut held, mut cached) = (self.memory.held(), self.memory.cached());
        if begun == 0 && self.run.end().is_some() {
            held -= self.run.first_growth;
            cached += self.run.first_evicted;
        }
        held += growth;
        cached -= growth.saturating_sub(self.memory.empty());
        EngineStats {
            running: self.running.len() as u32,
            waiting: self.waiting.len(),
            pending_prompt_tokens: self.pending_prompt_tokens,
            kv_held: held,
            kv_cached: cached,
            kv_total: self.memory.total(),
        }
    }

    /// Place of a running request in [`Self::running`].
    fn place(&self, slot: u32) -> usize {
        let admission = self.sequences[slot].admission;
        match self.running.front() {
            Some(&(first, _)) if first == admission => 0,
            _ => self.running.partition_point(|&(a, _)| a < admission),
        }
    }
}
