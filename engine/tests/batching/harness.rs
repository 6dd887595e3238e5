//! Drives a replica through a list of calls and writes down all that can be observed.

use std::collections::BTreeMap;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::MicroJoules;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::EngineSpec;
use windtunnel_engine::engine::{
    CacheEvent, Engine, EngineOutcome, EngineStats, Onward, Outcome, StepObserver,
};
use windtunnel_engine::replica::Replica;
use windtunnel_engine::request::{RequestView, Submission, Truth};

/// A request of a test.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) prompt: u32,
    pub(crate) output: u32,
    pub(crate) max_output: Option<u32>,
    pub(crate) predicted: Option<u32>,
    pub(crate) class: u32,
    pub(crate) priority: i32,
    pub(crate) prefix: Vec<Extent>,
    pub(crate) continues: bool,
    pub(crate) service: u64,
    pub(crate) task: Option<u64>,
}

impl Job {
    pub(crate) fn new(prompt: u32, output: u32) -> Self {
        Self {
            prompt,
            output,
            max_output: None,
            predicted: None,
            class: 0,
            priority: 0,
            prefix: Vec::new(),
            continues: false,
            service: 0,
            task: None,
        }
    }

    pub(crate) fn sharing(mut self, prefix: &[(u64, u32)]) -> Self {
        self.prefix = prefix
            .iter()
            .map(|&(key, tokens)| Extent { key, tokens })
            .collect();
        self
    }

    pub(crate) fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// A request of a station with so many nanoseconds of work.
    pub(crate) fn service(nanos: u64) -> Self {
        Self {
            service: nanos,
            ..Self::new(1, 1)
        }
    }
}

/// The replica of a specification that is meant to be fine.
pub(crate) fn built(spec: &EngineSpec) -> Replica {
    Replica::build(spec).unwrap_or_else(|error| panic!("{error}"))
}

/// What the caller does at some time.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// The request is the one of this rank in the list of jobs.
    Submit(u32),
    Cancel(u32),
    Look,
    /// It stands still for so many nanoseconds.
    Stall(u64),
    /// Everything takes so many times as long.
    Slow(f64),
    /// Reads the prefix cache, which must be watched.
    Peek,
}

/// All that can be observed.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Log {
    pub(crate) outcomes: Vec<(u64, u32, Outcome)>,
    pub(crate) refused: Vec<(u32, Refusal)>,
    pub(crate) cancelled: Vec<(u32, bool)>,
    pub(crate) looks: Vec<(u64, EngineStats)>,
    pub(crate) peeks: Vec<(u64, u32)>,
    pub(crate) steps: Vec<(u64, u64, BatchShape, u64, bool)>,
    /// (class, gap) and how many.
    pub(crate) gaps: BTreeMap<(u32, u64), u64>,
    pub(crate) cache: Vec<CacheEvent>,
}

impl Log {
    /// When something happened to a request, in order.
    pub(crate) fn times(&self, request: u32, what: fn(&Outcome) -> bool) -> Vec<u64> {
        let hits = self
            .outcomes
            .iter()
            .filter(|o| o.1 == request && what(&o.2));
        hits.map(|o| o.0).collect()
    }

    pub(crate) fn first_token(&self, request: u32) -> Option<u64> {
        let times = self.times(request, |o| matches!(o, Outcome::FirstToken));
        assert!(times.len() <= 1, "one first token each");
        times.first().copied()
    }

    pub(crate) fn finished(&self, request: u32) -> Option<u64> {
        let times = self.times(request, |o| matches!(o, Outcome::Finished));
        assert!(times.len() <= 1, "one end each");
        times.first().copied()
    }
}

impl StepObserver for Log {
    fn token_gap(&mut self, _: SimTime, class: ClassId, gap: SimDuration, count: u64) {
        *self.gaps.entry((class.0, gap.as_nanos())).or_default() += count;
    }

    fn step(&mut self, from: SimTime, to: SimTime, s: &BatchShape, e: MicroJoules, out: bool) {
        self.steps
            .push((from.as_nanos(), to.as_nanos(), *s, e.0, out));
    }
}

/// More steps than any test takes.
const ENDLESS: usize = 5_000_000;

/// Runs calls (times in nanoseconds, in order) to the end, when the replica is idle again. At equal
/// times the calls come before the replica's own events if `calls_first`.
pub(crate) fn drive(
    engine: &mut Replica,
    jobs: &[Job],
    calls: &[(u64, Call)],
    calls_first: bool,
) -> Log {
    let mut log = Log::default();
    let mut calls = calls.iter().peekable();
    let mut next: Option<SimTime> = None;
    let mut outcomes = Vec::new();
    loop {
        let call_at = calls.peek().map(|c| SimTime::from_nanos(c.0));
        let (now, is_call) = match (call_at, next) {
            (Some(c), Some(n)) if c < n || (c == n && calls_first) => (c, true),
            (_, Some(n)) => (n, false),
            (Some(c), None) => (c, true),
            (None, None) => break,
        };
        if is_call {
            if let Some((_, call)) = calls.next() {
                perform(engine, jobs, call, now, &mut log);
            }
        } else {
            engine.advance(now, &mut outcomes, &mut log);
        }
        next = engine.next_event(now, &mut outcomes);
        assert!(next.is_none_or(|n| n >= now), "time runs forward");
        assert!(log.steps.len() < ENDLESS, "it never ends");
        for EngineOutcome { request, outcome } in outcomes.drain(..) {
            log.outcomes.push((now.as_nanos(), request.0, outcome));
        }
        engine.take_cache_events(&mut log.cache);
    }
    log
}

fn perform(engine: &mut Replica, jobs: &[Job], call: &Call, now: SimTime, log: &mut Log) {
    match *call {
        Call::Submit(id) => {
            let refused = submit(engine, jobs, id, now, log).err();
            log.refused.extend(refused.map(|r| (id, r)));
        }
        Call::Cancel(id) => {
            let was_here = engine.cancel(now, RequestId(id), log);
            log.cancelled.push((id, was_here));
        }
        Call::Look => {
            log.looks.push((now.as_nanos(), engine.stats(now)));
            // One who looks on and on sees what one sees who looks once.
            let mut onward = Onward::default();
            for ahead in [0, 1, 3, 10, 10, 30, 100, 1_000, 100_000] {
                let at = now + SimDuration::from_nanos(ahead);
                assert_eq!(engine.stats_onward(at, &mut onward), engine.stats(at));
            }
        }
        Call::Stall(span) => engine.stall(now, now + SimDuration::from_nanos(span)),
        Call::Slow(factor) => engine.set_speed(now, factor),
        Call::Peek => {
            for job in jobs {
                let cached = engine.cached_prefix_tokens(&job.prefix, job.prompt);
                log.peeks.push((now.as_nanos(), cached));
            }
        }
    }
}

pub(crate) fn submit<E: Engine>(
    engine: &mut E,
    jobs: &[Job],
    id: u32,
    now: SimTime,
    log: &mut Log,
) -> Result<(), Refusal> {
    let job = &jobs[id as usize];
    let submission = Submission {
        request: RequestView {
            id: RequestId(id),
            sent_at: now,
            deadline: None,
            prompt_tokens: job.prompt,
            max_output_tokens: job.max_output,
            predicted_output_tokens: job.predicted,
            tenant: TenantId(0),
            class: ClassId(job.class),
            priority: job.priority,
            session: u64::from(id),
            prefix: &job.prefix,
        },
        truth: Truth {
            output_tokens: job.output,
            service: SimDuration::from_nanos(job.service),
            good: true,
            attack: false,
            output_continues: job.continues,
            task: job.task,
        },
    };
    engine.submit(now, &submission, log)
}
