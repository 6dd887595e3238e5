//! A plain service station: so many servers, one rule for who goes next. For gateways' back ends and
//! for checking the simulator against queueing theory.

use crate::batch::BatchShape;
use crate::cascade::{Arrival, Cascade};
use crate::config::{FrontendSpec, StationOrder, StationSpec};
use crate::engine::{CacheEvent, Engine, EngineOutcome, EngineStats, Outcome, StepObserver};
use crate::replica::ReplicaFacts;
use crate::request::Submission;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use windtunnel_base::content::Extent;
use windtunnel_base::directory::Directory;
use windtunnel_base::ids::RequestId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::MicroJoules;

/// Shared work is counted in 2^-32 nanoseconds, so that sharing loses less than a nanosecond in four
/// billion changes of the number of requests.
const SHARE_BITS: u32 = 32;

#[derive(Clone, Copy, Debug)]
struct Job {
    request: RequestId,
    service: SimDuration,
    started: SimTime,
    /// Rank of its submission; tells live heap entries from stale ones.
    age: u64,
    state: State,
    /// Prompt tokens a cascade found in a kept context.
    cached_tokens: u32,
    output_tokens: u32,
    /// A layer of the cascade has spoiled the answer.
    spoiled: bool,
}

impl Job {
    /// Tokens of the answer that are there after so much work: it is made evenly.
    fn generated_in(&self, done: SimDuration) -> u32 {
        let (tokens, work) = (u128::from(self.output_tokens), u128::from(done.as_nanos()));
        let made = (tokens * work).checked_div(u128::from(self.service.as_nanos()));
        made.map_or(0, |made| made as u32).min(self.output_tokens)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waiting,
    Served,
    Gone,
}

/// Those who wait, by the rule of who goes next: age and slot. Entries of those who were cancelled
/// stay behind.
#[derive(Clone, Debug)]
enum Line {
    Fifo(VecDeque<(u64, u32)>),
    Lifo(Vec<(u64, u32)>),
    /// Smallest priority, then age.
    Ranked(BinaryHeap<Reverse<(i32, u64, u32)>>),
}

impl Line {
    fn new(order: StationOrder) -> Self {
        match order {
            StationOrder::Fcfs | StationOrder::Sharing => Self::Fifo(VecDeque::new()),
            StationOrder::Lifo => Self::Lifo(Vec::new()),
            StationOrder::Priority => Self::Ranked(BinaryHeap::new()),
        }
    }

    fn push(&mut self, priority: i32, age: u64, slot: u32) {
        match self {
            Self::Fifo(line) => line.push_back((age, slot)),
            Self::Lifo(line) => line.push((age, slot)),
            Self::Ranked(line) => line.push(Reverse((priority, age, slot))),
        }
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        match self {
            Self::Fifo(line) => line.pop_front(),
            Self::Lifo(line) => line.pop(),
            Self::Ranked(line) => line.pop().map(|Reverse((_, age, slot))| (age, slot)),
        }
    }
}

/// A service station. One of [`Replica`](crate::replica::Replica)'s kinds.
#[derive(Clone, Debug)]
pub struct Station {
    facts: ReplicaFacts,
    servers: u32,
    queue_limit: u32,
    order: StationOrder,
    busy_power: f64,
    cascade: Option<Box<Cascade>>,
    jobs: Vec<Job>,
    free: Vec<u32>,
    by_request: Directory,
    waiting: Line,
    /// (end, age, slot); under sharing the end is in shared time.
    served: BinaryHeap<Reverse<(u128, u64, u32)>>,
    waiting_count: u32,
    served_count: u32,
    submitted: u64,
    /// Work that each request served since the beginning would have received, in
    /// 2^-32 nanoseconds, at `shared_at`.
    shared: u128,
    shared_at: SimTime,
    told_next: Vec<EngineOutcome>,
    /// The latest answer of `next_event`.
    promised: Option<SimTime>,
}

impl Station {
    /// A station as the scenario says. No servers at all count as one.
    pub fn new(spec: &StationSpec) -> Self {
        let facts = ReplicaFacts {
            price: spec.price,
            idle_watts: spec.idle_power.0,
            gpus: 0,
            kv: None,
            max_tokens_per_request: None,
            frontend: FrontendSpec::default(),
        };
        Self {
            facts,
            servers: spec.servers.max(1),
            queue_limit: spec.queue_limit.unwrap_or(u32::MAX),
            order: spec.order,
            busy_power: spec.busy_power.0,
            cascade: spec.cascade.as_ref().map(|c| Box::new(Cascade::new(c))),
            jobs: Vec::new(),
            free: Vec::new(),
            by_request: Directory::default(),
            waiting: Line::new(spec.order),
            served: BinaryHeap::new(),
            waiting_count: 0,
            served_count: 0,
            submitted: 0,
            shared: 0,
            shared_at: SimTime::ZERO,
            told_next: Vec::new(),
            promised: None,
        }
    }

    /// What it is, whatever it does.
    pub fn facts(&self) -> &ReplicaFacts {
        &self.facts
    }

    fn shares(&self) -> bool {
        self.order == StationOrder::Sharing
    }

    /// Brings the shared work up to `now`.
    fn share_until(&mut self, now: SimTime) {
        if self.served_count > 0 {
            let work = u128::from(now.since(self.shared_at).as_nanos()) << SHARE_BITS;
            let (servers, served) = (u128::from(self.servers), u128::from(self.served_count));
            self.shared += if served <= servers {
                work
            } else {
                work * servers / served
            };
        }
        self.shared_at = now;
    }

    /// When a request whose shared work is done at `target` leaves if nothing changes.
    fn end_of_share(&self, target: u128) -> SimTime {
        let missing = target.saturating_sub(self.shared);
        let (servers, served) = (u128::from(self.servers), u128::from(self.served_count));
        let nanos = if served <= servers {
            missing.div_ceil(1 << SHARE_BITS)
        } else {
            (missing * served).div_ceil(servers << SHARE_BITS)
        };
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.shared_at
            .saturating_add(SimDuration::from_nanos(nanos))
    }

    /// Begins the service of waiting requests on free servers.
    fn serve(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) {
        while self.waiting_count > 0 && (self.shares() || self.served_count < self.servers) {
            let Some((age, slot)) = self.waiting.pop() else {
                return;
            };
            let job = self.jobs[slot as usize];
            if job.age != age || job.state != State::Waiting {
                continue; // it was cancelled
            }
            let service = u128::from(job.service.as_nanos());
            let end = if self.shares() {
                self.share_until(now);
                self.shared + (service << SHARE_BITS)
            } else {
                u128::from(now.as_nanos()) + service
            };
            self.served.push(Reverse((end, age, slot)));
            self.waiting_count -= 1;
            self.served_count += 1;
            let job = &mut self.jobs[slot as usize];
            job.state = State::Served;
            job.started = now;
            outcomes.push(EngineOutcome {
                request: job.request,
                outcome: Outcome::Started {
                    cached_tokens: job.cached_tokens,
                },
            });
        }
    }

    /// The next to finish: when its service is complete (in shared time under sharing) and where.
    fn first_served(&mut self) -> Option<(u128, u32)> {
        while let Some(&Reverse((end, age, slot))) = self.served.peek() {
            let job = &self.jobs[slot as usize];
            if job.age == age && job.state == State::Served {
                return Some((end, slot));
            }
            self.served.pop();
        }
        None
    }

    fn next_end(&mut self) -> Option<SimTime> {
        let (end, _) = self.first_served()?;
        Some(if self.shares() {
            self.end_of_share(end)
        } else {
            SimTime::from_nanos(u64::try_from(end).unwrap_or(u64::MAX))
        })
    }

    /// Takes a request out; what it was served for is energy.
    fn remove<O: StepObserver>(&mut self, slot: u32, now: SimTime, done: SimDuration, o: &mut O) {
        let job = &mut self.jobs[slot as usize];
        if job.state == State::Served {
            self.served_count -= 1;
            if self.busy_power > 0.0 {
                let joules = self.busy_power * done.as_secs_f64();
                let energy = MicroJoules::from_f64(joules * 1e6);
                o.step(job.started, now, &BatchShape::default(), energy, false);
            }
        } else {
            self.waiting_count -= 1;
        }
        job.state = State::Gone;
        self.by_request.remove(job.request.0);
        self.free.push(slot);
    }

    /// Work done so far for a request in service that would end at `end`.
    fn work_done(&self, slot: u32, end: u128, now: SimTime) -> SimDuration {
        let job = &self.jobs[slot as usize];
        if self.shares() {
            let left = (end.saturating_sub(self.shared)) >> SHARE_BITS;
            SimDuration::from_nanos(job.service.as_nanos().saturating_sub(left as u64))
        } else {
            now.since(job.started)
        }
    }
}

impl Engine for Station {
    fn submit<O: StepObserver>(
        &mut self,
        now: SimTime,
        submission: &Submission<'_>,
        _observer: &mut O,
    ) -> Result<(), Refusal> {
        let inside = u64::from(self.waiting_count) + u64::from(self.served_count);
        let room = u64::from(self.servers) + u64::from(self.queue_limit);
        if inside >= room {
            return Err(Refusal::QueueFull);
        }
        let age = self.submitted;
        self.submitted += 1;
        let mut job = Job {
            request: submission.request.id,
            service: submission.truth.service,
            started: SimTime::ZERO,
            age,
            state: State::Waiting,
            cached_tokens: 0,
            output_tokens: submission.truth.output_tokens,
            spoiled: false,
        };
        if let Some(cascade) = &mut self.cascade {
            let turn = cascade.turn(&Arrival {
                now,
                session: submission.request.session,
                prompt_tokens: submission.request.prompt_tokens,
                output_tokens: submission.truth.output_tokens,
            });
            job.service = turn.time;
            job.cached_tokens = turn.cached_tokens;
            job.spoiled = turn.spoiled;
        }
        let slot = if let Some(slot) = self.free.pop() {
            self.jobs[slot as usize] = job;
            slot
        } else {
            self.jobs.push(job);
            (self.jobs.len() - 1) as u32
        };
        self.by_request.insert(job.request.0, slot);
        self.waiting.push(submission.request.priority, age, slot);
        self.waiting_count += 1;
        Ok(())
    }

    /// A station has no steps: whoever is in service leaves at once too, with the share of its answer that was
    /// made by then.
    fn cancel<O: StepObserver>(
        &mut self,
        now: SimTime,
        request: RequestId,
        observer: &mut O,
    ) -> bool {
        let Some(slot) = self.by_request.get(request.0) else {
            return false;
        };
        let (mut done, mut generated) = (SimDuration::ZERO, 0);
        if self.jobs[slot as usize].state == State::Served {
            if self.shares() {
                self.share_until(now);
            }
            let age = self.jobs[slot as usize].age;
            let end = self.served.iter().find(|e| e.0.1 == age).map(|e| e.0.0);
            done = self.work_done(slot, end.unwrap_or_default(), now);
            generated = self.jobs[slot as usize].generated_in(done);
        }
        self.remove(slot, now, done, observer);
        self.told_next.push(EngineOutcome {
            request,
            outcome: Outcome::Cancelled { generated },
        });
        true
    }

    fn next_event(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) -> Option<SimTime> {
        if !self.told_next.is_empty() {
            outcomes.append(&mut self.told_next);
        }
        self.serve(now, outcomes);
        self.promised = self.next_end();
        self.promised
    }

    fn advance<O: StepObserver>(
        &mut self,
        now: SimTime,
        outcomes: &mut Vec<EngineOutcome>,
        observer: &mut O,
    ) {
        assert!(
            self.promised == Some(now),
            "no service ends at {now:?} but at {:?}",
            self.promised
        );
        if self.shares() {
            self.share_until(now);
        }
        while let Some((end, slot)) = self.first_served() {
            let complete = if self.shares() {
                end <= self.shared
            } else {
                end <= u128::from(now.as_nanos())
            };
            if !complete {
                break;
            }
            self.served.pop();
            let Job {
                request,
                service,
                output_tokens,
                spoiled,
                ..
            } = self.jobs[slot as usize];
            self.remove(slot, now, service, observer);
            let spoiled = spoiled.then_some(Outcome::Answered {
                tokens: output_tokens,
                good: false,
            });
            let ends = [Outcome::FirstToken].into_iter().chain(spoiled);
            for outcome in ends.chain([Outcome::Finished]) {
                outcomes.push(EngineOutcome { request, outcome });
            }
        }
    }

    fn stats(&self, _now: SimTime) -> EngineStats {
        EngineStats {
            running: self.served_count,
            waiting: self.waiting_count,
            ..EngineStats::default()
        }
    }

    fn watch_cache(&mut self, _on: bool) {}

    fn cached_prefix_tokens(&self, _prefix: &[Extent], _prompt_tokens: u32) -> u32 {
        0
    }

    fn record_cache_events(&mut self, _on: bool) {}

    fn take_cache_events(&mut self, _events: &mut Vec<CacheEvent>) {}
}
