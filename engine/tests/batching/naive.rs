//! A plain engine that moves one token at a time, to compare with. It keeps every request as its
//! own record, walks all of them in every step, and knows nothing of sums, runs or prefix caches.

use crate::harness::{Call, Job};
use std::collections::BTreeMap;
use windtunnel_base::time::{FineDuration, FineTime, SimTime};
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{LengthBuckets, RestartKind, SchedulerKind};
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
    /// Tokens to have in KV before the next comes out of a prefill.
    target: u32,
    /// It may emit no more than it does, so its scheduler sees the end coming.
    foreseen: bool,
    /// Its first token was reported.
    talking: bool,
    /// Decodes left nothing for its prompt in the last step.
    passed_over: bool,
    /// Its last token is out, but the next step is planned with it.
    done: bool,
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
    pub(crate) reserve: bool,
    pub(crate) whole_prompt: bool,
    pub(crate) spare: u32,
    pub(crate) restart: RestartKind,
    pub(crate) padded: bool,
    pub(crate) buckets: Option<LengthBuckets>,
    pub(crate) decodes_first: bool,
    pub(crate) same_step: bool,
    pub(crate) ahead: bool,
    pub(crate) boundary: bool,
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
    /// Start of the last step, and whether the next is being planned anew.
    last_start: u64,
    anew: bool,
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
            last_start: 0,
            anew: false,
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
            loop {
                let goes_on = |r: &Request| !r.done || !r.foreseen;
                let busy = self.running.iter().any(goes_on);
                if self.waiting.is_empty() && !busy {
                    self.running.clear();
                    break;
                }
                if !busy && self.waiting.iter().all(|r| r.came >= now) {
                    clock = FineTime::of(SimTime::from_nanos(now));
                }
                self.form(now);
                let mut duration = self.duration();
                self.running.retain(|r| !r.done);
                while duration.is_none() && !(self.running.is_empty() && self.waiting.is_empty()) {
                    self.anew = self.limits.ahead;
                    self.form(now);
                    duration = self.duration();
                }
                self.anew = false;
                let Some(duration) = duration else { break };
                clock += duration;
                let end = clock.rounded_up().as_nanos();
                // Calls up to and including the end of the step belong to it.
                while at < calls.len() && calls[at].0 <= end {
                    self.call(jobs, &calls[at]);
                    at += 1;
                }
                self.finish(end);
                self.last_start = now;
                now = end;
                if self.running.is_empty() {
                    break;
                }
            }
        }
    }

    /// Who of those that a step has seen waiting goes first.
    fn head(&self) -> Option<usize> {
        self.head_of(|_| true)
    }

    /// Of similar lengths, as far as they matter.
    fn bucket(&self, r: &Request) -> usize {
        match &self.limits.buckets {
            Some(buckets) if self.limits.kind == SchedulerKind::Static => {
                buckets.of(r.prompt, r.work - r.prompt)
            }
            _ => 0,
        }
    }

    /// The same of some of them.
    fn head_of(&self, some: impl Fn(&usize) -> bool) -> Option<usize> {
        let key = |r: &Request| match self.limits.kind {
            SchedulerKind::Priority => (i64::from(r.priority), 0, r.age),
            _ if r.front != 0 => (i64::MIN, r.front, 0),
            SchedulerKind::Shortest => (i64::from(r.work), 0, r.age),
            _ => (0, 0, r.age),
        };
        (0..self.waiting.len())
            .filter(|i| self.waiting[*i].seen && some(i))
            .min_by_key(|&i| key(&self.waiting[i]))
    }

    fn call(&mut self, jobs: &[Job], (time, call): &(u64, Call)) {
        match *call {
            Call::Submit(id) => {
                let job = &jobs[id as usize];
                let limit = (self.limits.blocks - self.limits.spare) * self.limits.block_size;
                let asked = job.max_output.unwrap_or(1).max(1);
                if job.prompt + asked > limit {
                    return;
                }
                let room = limit - job.prompt;
                let most = job.max_output.unwrap_or(room).min(room);
                self.waiting.push(Request {
                    id,
                    came: *time,
                    seen: false,
                    age: id as usize,
                    prompt: job.prompt,
                    output: job.output.min(most),
                    target: job.prompt,
                    foreseen: job.output >= most,
                    talking: false,
                    passed_over: false,
                    done: false,
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
                for r in self.running.iter_mut().filter(|r| r.id == id && !r.done) {
                    r.cancelled_at.get_or_insert(*time);
                }
            }
            Call::Look | Call::Peek => {}
            Call::Stall(_) | Call::Slow(_) => panic!("the plain engine knows no faults"),
        }
    }

    fn free(&self) -> u32 {
        let held: u32 = self.running.iter().map(|r| r.blocks).sum();
        self.limits.blocks - held
    }

    /// Prompts are computed whole.
    fn whole(&self) -> bool {
        matches!(
            self.limits.kind,
            SchedulerKind::Static | SchedulerKind::Fcfs | SchedulerKind::PrefillFirst
        )
    }

    /// Fills the step that begins at `now`.
    fn form(&mut self, now: u64) {
        let follows = !self.running.is_empty();
        let planned = if self.limits.ahead {
            self.last_start
        } else {
            now
        };
        for r in &mut self.waiting {
            r.seen |= !follows || self.anew || self.limits.boundary || r.came < planned;
        }
        let mut budget = match self.limits.kind {
            SchedulerKind::Static => u32::MAX,
            _ => self.limits.budget,
        };
        for r in &mut self.running {
            r.scheduled = 0;
        }
        let is_static = self.limits.kind == SchedulerKind::Static;
        let closed = follows && (is_static || self.head_left == Some(now));
        if self.limits.kind == SchedulerKind::PrefillFirst {
            if !closed {
                self.admissions(&mut budget);
            }
            if self.running.iter().all(|r| r.scheduled == 0) {
                self.preemptions(&mut u32::MAX.clone());
            }
            return;
        }
        let preempted = self.preemptions(&mut budget);
        if (preempted && !self.limits.same_step) || closed {
            return;
        }
        self.admissions(&mut budget);
    }

    /// Admits who waits, head by head.
    fn admissions(&mut self, budget: &mut u32) {
        let mut prompts: Vec<u32> = Vec::new();
        let prefills = self.running.iter().filter(|r| !r.decoding && !r.done);
        prompts.extend(prefills.filter(|r| r.scheduled > 0).map(|r| r.scheduled));
        // Lengths matter only where batches stay together.
        let bucket = |naive: &Self, i: usize| naive.bucket(&naive.waiting[i]);
        let first = self.head().map(|i| bucket(self, i));
        loop {
            let open = |i: &usize| first == Some(bucket(self, *i));
            let Some(next) = self.head_of(open) else {
                return;
            };
            if self.running.len() == self.limits.seqs || *budget == 0 {
                return;
            }
            let r = &self.waiting[next];
            let mut tokens = r.target;
            if !self.whole() {
                tokens = tokens.min(self.limits.cap).min(*budget);
            } else if !prompts.is_empty() {
                let longest = prompts.iter().copied().max().unwrap_or(0).max(tokens);
                let fits = match self.limits.padded && self.limits.kind != SchedulerKind::Static {
                    true => (prompts.len() as u32 + 1) * longest <= *budget,
                    false => tokens <= *budget,
                };
                if !fits {
                    return;
                }
            }
            let size = self.limits.block_size;
            let whole = r.target.div_ceil(size);
            let takes = match self.limits.whole_prompt {
                true => whole,
                false => tokens.div_ceil(size),
            };
            let asked = if self.limits.reserve { whole } else { takes };
            let watermark = match self.running.is_empty() {
                true => 0,
                false => self.limits.watermark,
            };
            if asked + watermark > self.free() {
                return;
            }
            let mut r = self.waiting.remove(next);
            r.scheduled = tokens;
            r.blocks = takes;
            if !(self.limits.padded && self.whole()) {
                *budget = budget.saturating_sub(tokens);
            }
            prompts.push(tokens);
            let place = match self.limits.kind {
                SchedulerKind::PrefillFirst => self.running.partition_point(|o| o.age < r.age),
                _ => self.running.len(),
            };
            self.running.insert(place, r);
        }
    }

    /// Serves the running requests in order; true if somebody had to go.
    fn preemptions(&mut self, budget: &mut u32) -> bool {
        let mut somebody = false;
        let mut i = 0;
        let decodes_first = self.limits.decodes_first;
        while i < self.running.len() {
            let r = &self.running[i];
            let decodes = r.decoding || r.done;
            if (r.done && r.foreseen) || (decodes_first && !decodes) {
                i += 1;
                continue;
            }
            let mut tokens = if decodes { 1 } else { r.target - r.computed };
            let bounded = !decodes || !decodes_first;
            if bounded && !self.whole() {
                tokens = tokens.min(self.limits.cap).min(*budget);
            }
            if tokens == 0 || (*budget == 0 && !decodes_first) {
                break;
            }
            let size = self.limits.block_size;
            let needs = (r.computed + tokens).div_ceil(size).max(r.blocks);
            let spare = if decodes { self.limits.spare } else { 0 };
            let mut gone = false;
            while (needs - self.running[i].blocks).max(spare) > self.free() {
                let victim = self.victim(i);
                let v = self.running.remove(victim);
                somebody = true;
                gone = victim == i;
                if victim < i {
                    *budget = budget.saturating_add(v.scheduled);
                    i -= 1;
                }
                self.throw_out(v);
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
        if decodes_first {
            // Those behind where the walk ended get nothing.
            for r in &mut self.running[..i] {
                if !r.decoding && !r.done {
                    r.scheduled = (r.target - r.computed).min(self.limits.cap).min(*budget);
                    r.passed_over = r.scheduled == 0;
                    *budget -= r.scheduled;
                }
            }
        }
        somebody
    }

    fn victim(&self, i: usize) -> usize {
        let last = self.running.len() - 1;
        if self.limits.kind == SchedulerKind::Priority {
            return (0..=last)
                .max_by_key(|&v| (self.running[v].priority, self.running[v].age))
                .unwrap_or(last);
        }
        match self.limits.decodes_first {
            true => (i..=last)
                .rev()
                .find(|&v| !self.running[v].passed_over)
                .unwrap_or(i),
            false => last,
        }
    }

    fn throw_out(&mut self, mut v: Request) {
        if v.done {
            return;
        }
        self.preempted += 1;
        v.front = -self.preempted;
        match self.limits.restart {
            RestartKind::Scratch if !self.running.is_empty() => {
                (v.target, v.generated) = (v.prompt, 0);
            }
            RestartKind::Everything | RestartKind::Scratch if v.decoding => {
                v.target = v.computed + 1;
            }
            RestartKind::Everything | RestartKind::Scratch => {}
            RestartKind::Computed if v.decoding => v.target = v.computed + 1,
            RestartKind::Computed if v.computed > 0 => {
                v.output += v.target - v.computed;
                v.target = v.computed;
            }
            RestartKind::Computed => {}
        }
        (v.decoding, v.passed_over) = (false, false);
        (v.computed, v.blocks, v.scheduled) = (0, 0, 0);
        self.waiting.push(v);
    }

    /// Duration of the step that was formed, if anybody has anything to do in it.
    fn duration(&self) -> Option<FineDuration> {
        let mut shape = BatchShape::default();
        let step = u64::from(self.cost.context_step());
        let scheduled = || self.running.iter().filter(|r| r.scheduled > 0);
        // Padded prompts of a static batch are computed as long as the longest.
        let prompts = || scheduled().filter(|r| !(r.decoding || r.done));
        let longest = match self.limits.padded && self.limits.kind == SchedulerKind::Static {
            true => prompts().map(|r| r.scheduled).max().unwrap_or(0),
            false => 0,
        };
        let computes = |r: &Request| match r.decoding || r.done {
            true => r.scheduled,
            false => r.scheduled.max(longest),
        };
        if self.cost.needs_spread() {
            // Whoever computes one token.
            let contexts = || scheduled().filter(|r| computes(r) == 1).map(|r| r.computed);
            shape.context_max = contexts().max().unwrap_or(0);
            shape.context_squares = contexts().map(|c| u128::from(c).pow(2)).sum();
        }
        for r in self.running.iter().filter(|r| r.scheduled > 0) {
            let (t, c) = (u64::from(computes(r)), u64::from(r.computed));
            if r.decoding || r.done {
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
                shape.sampled += u32::from(r.computed + r.scheduled == r.target);
            }
        }
        (shape.seqs() > 0).then(|| self.cost.step(&shape).time)
    }

    /// Ends the step: everybody who has computed all it has, emits a token.
    fn finish(&mut self, end: u64) {
        let (times, gaps) = (&mut self.times, &mut self.gaps);
        let ahead = self.limits.ahead;
        self.running.retain_mut(|r| {
            r.computed += r.scheduled;
            if r.scheduled > 0 && (r.decoding || r.computed == r.target) {
                r.generated += 1;
                r.decoding = true;
                let time = &mut times[r.id as usize];
                if !r.talking {
                    r.talking = true;
                    time.0 = Some(end);
                } else {
                    *gaps.entry((r.class, end - r.last_token)).or_default() += 1;
                }
                r.last_token = end;
                if r.generated == r.output {
                    time.1 = Some(end);
                    r.done = true;
                    return ahead;
                }
            }
            r.cancelled_at.is_none_or(|at| at >= end)
        });
        // A request that was thrown out after its cancellation leaves at the end of the step.
        self.waiting
            .retain(|r| r.cancelled_at.is_none_or(|at| at >= end));
    }
}
