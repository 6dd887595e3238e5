//! A plain engine that moves one token at a time, to compare with. It keeps every request as its
//! own record, walks all of them in every step, and knows nothing of sums, runs or prefix caches.

use crate::harness::{Call, Job};
use std::collections::BTreeMap;
use windtunnel_base::time::{FineDuration, FineTime, SimTime};
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::SchedulerKind;
use windtunnel_engine::cost::{CostFn, CostModel};

#[derive(Clone, Debug)]
struct Request {
    id: u32,
    came: u64,
    /// Some step has begun since it came.
    seen: bool,
    age: usize,
    prompt: u32,
    output: u32,
    work: u32,
    priority: i32,
    class: u32,
    last_token: u64,
    computed: u32,
    generated: u32,
    /// Its prompt is complete: it computes one token per step.
    decoding: bool,
    /// Preemptions put it in front, the latest first; zero if never preempted.
    front: i64,
    blocks: u32,
    /// Tokens to compute in this step.
    scheduled: u32,
    cancelled_at: Option<u64>,
}

/// Limits of the plain engine.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) kind: SchedulerKind,
    pub(crate) budget: u32,
    pub(crate) seqs: usize,
    pub(crate) cap: u32,
    pub(crate) blocks: u32,
    pub(crate) block_size: u32,
    pub(crate) watermark: u32,
    pub(crate) whole_prompt: bool,
}

/// First and last token of each request that got them.
pub(crate) type Times = Vec<(Option<u64>, Option<u64>)>;

/// How often each class saw each gap between tokens.
pub(crate) type Gaps = BTreeMap<(u32, u64), u64>;

pub(crate) struct Naive<'a> {
    limits: Limits,
    cost: &'a CostFn,
    waiting: Vec<Request>,
    running: Vec<Request>,
    preempted: i64,
    head_left: Option<u64>,
    times: Times,
    gaps: Gaps,
}

impl<'a> Naive<'a> {
    pub(crate) fn new(limits: Limits, cost: &'a CostFn, requests: usize) -> Self {
        Self {
            limits,
            cost,
            waiting: Vec::new(),
            running: Vec::new(),
            preempted: 0,
            head_left: None,
            times: vec![(None, None); requests],
            gaps: Gaps::new(),
        }
    }

    /// Runs to the end. A call at the instant a step ends comes after that end, and the step that
    /// begins then does not see it, unless nothing else runs.
    pub(crate) fn run(mut self, jobs: &[Job], calls: &[(u64, Call)]) -> (Times, Gaps) {
        let mut now = 0;
        let mut at = 0;
        // Where the last step ended, to a fraction of a nanosecond.
        let mut clock = FineTime::default();
        loop {
            // Idle: the next call starts a step at its own time.
            while self.waiting.is_empty() && at < calls.len() {
                now = calls[at].0.max(now);
                self.call(jobs, &calls[at]);
                at += 1;
            }
            if self.waiting.is_empty() {
                return (self.times, self.gaps);
            }
            if self.waiting.iter().all(|r| r.came >= now) {
                clock = FineTime::of(SimTime::from_nanos(now));
            }
            loop {
                self.form(now);
                while self.running.iter().all(|r| r.scheduled == 0) {
                    self.form(now);
                }
                clock += self.duration();
                let end = clock.rounded_up().as_nanos();
                // Calls up to and including the end of the step belong to it.
                while at < calls.len() && calls[at].0 <= end {
                    self.call(jobs, &calls[at]);
                    at += 1;
                }
                self.finish(end);
                now = end;
                if self.running.is_empty() {
                    break;
                }
            }
        }
    }

    /// Who of those that a step has seen waiting goes first.
    fn head(&self) -> Option<usize> {
        let key = |r: &Request| match self.limits.kind {
            SchedulerKind::Priority => (i64::from(r.priority), 0, r.age),
            _ if r.front != 0 => (i64::MIN, r.front, 0),
            SchedulerKind::Shortest => (i64::from(r.work), 0, r.age),
            _ => (0, 0, r.age),
        };
        (0..self.waiting.len())
            .filter(|&i| self.waiting[i].seen)
            .min_by_key(|&i| key(&self.waiting[i]))
    }

    fn call(&mut self, jobs: &[Job], (time, call): &(u64, Call)) {
        match *call {
            Call::Submit(id) => {
                let job = &jobs[id as usize];
                let limit = self.limits.blocks * self.limits.block_size;
                let asked = job.max_output.unwrap_or(1).max(1);
                if job.prompt + asked > limit {
                    return;
                }
                let room = limit - job.prompt;
                self.waiting.push(Request {
                    id,
                    came: *time,
                    seen: false,
                    age: id as usize,
                    prompt: job.prompt,
                    output: job.output.min(job.max_output.unwrap_or(room).min(room)),
                    work: job.prompt + job.predicted.or(job.max_output).unwrap_or(0),
                    priority: job.priority,
                    class: job.class,
                    last_token: 0,
                    computed: 0,
                    generated: 0,
                    decoding: false,
                    front: 0,
                    blocks: 0,
                    scheduled: 0,
                    cancelled_at: None,
                });
            }
            Call::Cancel(id) => {
                if self.head().is_some_and(|h| self.waiting[h].id == id) {
                    self.head_left = Some(*time);
                }
                self.waiting.retain(|r| r.id != id);
                for r in self.running.iter_mut().filter(|r| r.id == id) {
                    r.cancelled_at.get_or_insert(*time);
                }
            }
            Call::Look | Call::Peek => {}
        }
    }

    fn free(&self) -> u32 {
        let held: u32 = self.running.iter().map(|r| r.blocks).sum();
        self.limits.blocks - held
    }

    fn chunks(&self) -> bool {
        !matches!(
            self.limits.kind,
            SchedulerKind::Static | SchedulerKind::Fcfs
        )
    }

    /// Fills the step that begins at `now`.
    fn form(&mut self, now: u64) {
        let follows = !self.running.is_empty();
        for r in &mut self.waiting {
            r.seen |= !follows || r.came < now;
        }
        let mut budget = match self.limits.kind {
            SchedulerKind::Static => u32::MAX,
            _ => self.limits.budget,
        };
        for r in &mut self.running {
            r.scheduled = 0;
        }
        let preempted = self.preemptions(&mut budget);
        let is_static = self.limits.kind == SchedulerKind::Static;
        let closed = follows && self.head_left == Some(now);
        if preempted || closed || (is_static && follows) {
            return;
        }
        let mut prompts = self
            .running
            .iter()
            .filter(|r| r.scheduled > 0 && r.generated == 0)
            .count();
        loop {
            let Some(next) = self.head() else { return };
            if self.running.len() == self.limits.seqs || budget == 0 {
                return;
            }
            let r = &self.waiting[next];
            let target = r.prompt + r.generated;
            let mut tokens = target;
            if self.chunks() {
                tokens = tokens.min(self.limits.cap).min(budget);
            } else if tokens > budget && prompts > 0 {
                return;
            }
            let size = self.limits.block_size;
            let asked = if self.limits.whole_prompt {
                target
            } else {
                tokens
            };
            let reserve = if self.running.is_empty() {
                0
            } else {
                self.limits.watermark
            };
            if asked.div_ceil(size) + reserve > self.free() {
                return;
            }
            let mut r = self.waiting.remove(next);
            r.scheduled = tokens;
            r.blocks = tokens.div_ceil(size);
            budget = budget.saturating_sub(tokens);
            prompts += 1;
            self.running.push(r);
        }
    }

    /// Serves the running requests in order; true if somebody had to go.
    fn preemptions(&mut self, budget: &mut u32) -> bool {
        let mut somebody = false;
        let mut i = 0;
        while i < self.running.len() && *budget > 0 {
            let r = &self.running[i];
            let target = (r.prompt + r.generated).max(r.computed + 1);
            let mut tokens = target - r.computed;
            if self.chunks() {
                tokens = tokens.min(self.limits.cap).min(*budget);
            }
            let needs = (r.computed + tokens).div_ceil(self.limits.block_size);
            let mut gone = false;
            while needs - self.running[i].blocks > self.free() {
                let last = self.running.len() - 1;
                let victim = match self.limits.kind {
                    SchedulerKind::Priority => (0..=last)
                        .max_by_key(|&v| (self.running[v].priority, self.running[v].age))
                        .unwrap_or(last),
                    _ => last,
                };
                let mut v = self.running.remove(victim);
                somebody = true;
                gone = victim == i;
                if victim < i {
                    *budget = budget.saturating_add(v.scheduled);
                    i -= 1;
                }
                self.preempted += 1;
                v.front = -self.preempted;
                v.decoding = false;
                (v.computed, v.blocks, v.scheduled) = (0, 0, 0);
                self.waiting.push(v);
                if gone {
                    break;
                }
            }
            if gone {
                break;
            }
            self.running[i].blocks = needs;
            self.running[i].scheduled = tokens;
            *budget = budget.saturating_sub(tokens);
            i += 1;
        }
        somebody
    }

    /// Duration of the step that was formed.
    fn duration(&self) -> FineDuration {
        let mut shape = BatchShape::default();
        let step = u64::from(self.cost.context_step());
        let scheduled = || self.running.iter().filter(|r| r.scheduled > 0);
        if self.cost.needs_context_range() {
            // Whoever computes one token.
            let contexts = || scheduled().filter(|r| r.scheduled == 1).map(|r| r.computed);
            shape.context_min = contexts().min().unwrap_or(0);
            shape.context_max = contexts().max().unwrap_or(0);
        }
        for r in self.running.iter().filter(|r| r.scheduled > 0) {
            let (t, c) = (u64::from(r.scheduled), u64::from(r.computed));
            let target = r.prompt + r.generated;
            if r.decoding {
                shape.decode_seqs += 1;
                shape.decode_context += c;
                shape.sampled += 1;
            } else {
                shape.prefill_seqs += 1;
                shape.prefill_tokens += t;
                shape.prefill_context += c;
                shape.prefill_pairs += t * c + t * (t + 1) / 2;
                shape.prefill_squares += t * t;
                shape.prefill_context_rounded += c.div_ceil(step) * step;
                shape.single_prefills += u32::from(t == 1);
                shape.single_context += if t == 1 { c } else { 0 };
                shape.sampled += u32::from(r.computed + r.scheduled == target);
            }
        }
        self.cost.step(&shape).time
    }

    /// Ends the step: everybody who has computed all it has, emits a token.
    fn finish(&mut self, end: u64) {
        let (times, gaps) = (&mut self.times, &mut self.gaps);
        self.running.retain_mut(|r| {
            let before = r.scheduled;
            r.computed += before;
            if before > 0 && r.computed == r.prompt + r.generated {
                r.generated += 1;
                r.decoding = true;
                let time = &mut times[r.id as usize];
                if r.generated == 1 {
                    time.0 = Some(end);
                } else {
                    *gaps.entry((r.class, end - r.last_token)).or_default() += 1;
                }
                r.last_token = end;
                if r.generated == r.output {
                    time.1 = Some(end);
                    return false;
                }
            }
            r.cancelled_at.is_none_or(|at| at >= end)
        });
        // A request that was thrown out after its cancellation leaves at the end of the step.
        self.waiting
            .retain(|r| r.cancelled_at.is_none_or(|at| at >= end));
    }
}
