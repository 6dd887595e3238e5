//! Agent sessions, played again: sessions begin as a Poisson process, and every call comes its
//! think time after the answer to the call before it (closed loop), or when it was recorded (open
//! loop). Sub-agents run beside their parents.

use super::clients::{Draws, Labels, OutcomePlan};
use super::formats::agentic::AgentTrace;
use super::replay::trace_labels;
use super::sample::exponential;
use super::sessions::{ClosedLoop, SESSION_BITS};
use super::transform::{Transform, entity_of, refuse};
use super::{Arrival, Facts, TrafficError, Workload};
use crate::names::Names;
use crate::schema::Scenario;
use crate::schema::traffic::TraceSpec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::ids::RequestId;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::time::{SimDuration, SimTime};

/// Agent sessions, seed apart.
#[derive(Clone, Debug)]
pub(crate) struct AgentPlan {
    trace: Arc<AgentTrace>,
    /// The first so many sessions.
    sessions: u32,
    transform: Transform,
    /// Seconds between the beginnings of sessions, on the trace's clock.
    mean_gap: f64,
    open_loop: bool,
    labels: Labels,
    outcome: OutcomePlan,
    keys: u64,
}

impl AgentPlan {
    /// Compiles sessions with the scenario's transformations.
    pub(crate) fn new(
        scenario: &Scenario,
        spec: &TraceSpec,
        trace: AgentTrace,
        names: &Names,
        facts: &mut Facts,
    ) -> Result<Self, TrafficError> {
        let traffic = &scenario.traffic;
        let keys = [
            ("request_rate", traffic.request_rate.is_some()),
            ("trace.slice.from", spec.slice.from.is_some()),
            ("trace.slice.to", spec.slice.to.is_some()),
            ("trace.jitter", spec.jitter.is_some()),
        ];
        refuse(traffic, &keys, "agentic_coding")?;
        let rate = spec.session_rate.map_or(0.0, |r| r.0);
        if rate.is_nan() || rate <= 0.0 {
            return Err(TrafficError::scenario(
                "traffic.trace.session_rate",
                "the sessions of this trace have no times of their own",
                "say how often one begins, such as \"0.1 req/s\", or \"inf\" for all at once",
            ));
        }
        let (labels, outcome) = trace_labels(scenario, spec, names)?;
        let transform = Transform::new(spec)?;
        transform.describe(spec, facts);
        let sessions = transform.first.min(trace.sessions.len() as u64) as u32;
        facts.transformations.push(format!(
            "session_rate: sessions begin as a Poisson process of {rate} per second, in the \
             order of the file"
        ));
        facts.transformations.push(if spec.open_loop {
            "open loop: calls come at their recorded times since their session began".into()
        } else {
            "closed loop: each call comes its recorded think time after the answer before it; a \
             call that fails ends its chain"
                .to_owned()
        });
        let calls: u64 = trace.sessions[..sessions as usize]
            .iter()
            .flat_map(|s| &trace.chains[s.start as usize..s.end as usize])
            .map(|c| u64::from(c.calls.end - c.calls.start))
            .sum();
        let expected = calls as f64 * f64::from(transform.copies) * transform.thin;
        facts.requests = Some((expected + 0.5) as u64);
        Ok(Self {
            trace: Arc::new(trace),
            sessions,
            transform,
            mean_gap: 1.0 / rate,
            open_loop: spec.open_loop,
            labels,
            outcome,
            keys: namespace(&spec.file),
        })
    }

    /// The traffic of one seed.
    pub(crate) fn start(&self, seed: u64) -> Agents {
        let streams = Streams::new(seed);
        let copies = 0..self.transform.copies;
        let mut agents = Agents {
            plan: self.clone(),
            streams,
            starts: copies
                .clone()
                .map(|copy| Start {
                    gaps: streams.stream("sessions", u64::from(copy)),
                    seconds: 0.0,
                    session: 0,
                })
                .collect(),
            heads: BinaryHeap::new(),
            calls: ClosedLoop::default(),
            taken: 0,
        };
        for copy in copies {
            agents.head(copy);
        }
        agents.settle();
        agents
    }
}

/// Where a copy is in its sequence of sessions.
#[derive(Debug)]
struct Start {
    gaps: Rng,
    /// When the last session began, in seconds of the trace's clock.
    seconds: f64,
    /// The next session.
    session: u32,
}

/// A chain of calls under way, before its next call.
#[derive(Clone, Copy, Debug)]
struct Running {
    copy: u32,
    chain: u32,
    call: u32,
    /// When its session began, in ns of the run.
    begin: u64,
}

/// Agent sessions being played.
#[derive(Debug)]
pub(crate) struct Agents {
    plan: AgentPlan,
    streams: Streams,
    starts: Vec<Start>,
    /// The next session of every copy: (ns of the run, copy, session).
    heads: BinaryHeap<Reverse<(u64, u32, u32)>>,
    calls: ClosedLoop<Running>,
    taken: u32,
}

impl Agents {
    /// Puts the next kept session of a copy at its head.
    fn head(&mut self, copy: u32) {
        let plan = &self.plan;
        let start = &mut self.starts[copy as usize];
        while start.session < plan.sessions {
            let session = start.session;
            start.session += 1;
            // Drawn for sessions that are left out, too: thinning moves no other.
            start.seconds += plan.mean_gap * exponential(&mut start.gaps);
            if plan.transform.keeps(self.streams, u64::from(session), copy) {
                let at = SimDuration::from_secs_f64_saturating(start.seconds).as_nanos();
                let shift = plan.transform.shift * u64::from(copy);
                let at = plan.transform.run_time(at.saturating_add(shift));
                self.heads.push(Reverse((at, copy, session)));
                return;
            }
        }
    }

    /// Begins all sessions that begin before the next call.
    fn settle(&mut self) {
        while let Some(&Reverse((begin, copy, session))) = self.heads.peek() {
            let next = self.calls.next_at();
            if next.is_some_and(|at| at.as_nanos() < begin) {
                return;
            }
            self.heads.pop();
            self.head(copy);
            let trace = Arc::clone(&self.plan.trace);
            for chain in trace.sessions[session as usize].clone() {
                let Chain { calls, begins } = self.plan.chain(chain);
                if begins || self.plan.open_loop {
                    let running = Running {
                        copy,
                        chain,
                        call: calls.start,
                        begin,
                    };
                    self.plan_call(running, begin);
                }
            }
        }
    }

    /// Plans the next call of a chain; in closed loop the call before it ended at `ended`.
    fn plan_call(&mut self, running: Running, ended: u64) {
        let call = &self.plan.trace.calls[running.call as usize];
        let transform = &self.plan.transform;
        let at = if self.plan.open_loop {
            running.begin.saturating_add(transform.run_time(call.at))
        } else {
            ended.saturating_add(transform.run_time(call.after))
        };
        let order = running.id();
        self.calls.plan(SimTime::from_nanos(at), order, running);
    }
}

/// A chain as a player needs it.
struct Chain {
    calls: std::ops::Range<u32>,
    begins: bool,
}

impl AgentPlan {
    fn chain(&self, chain: u32) -> Chain {
        let chain = &self.trace.chains[chain as usize];
        Chain {
            calls: chain.calls.clone(),
            begins: chain.begins_session,
        }
    }
}

impl Running {
    /// Every chain is a conversation of its own.
    fn id(self) -> u64 {
        u64::from(self.copy) << SESSION_BITS | u64::from(self.chain)
    }
}

impl Workload for Agents {
    fn next_at(&mut self) -> Option<SimTime> {
        self.calls.next_at()
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let Some((at, running)) = self.calls.pop() else {
            panic!("a request was taken although none is due");
        };
        let trace = Arc::clone(&self.plan.trace);
        let calls = self.plan.chain(running.chain).calls;
        let call = &trace.calls[running.call as usize];
        let next = Running {
            call: running.call + 1,
            ..running
        };
        if self.plan.open_loop {
            if next.call < calls.end {
                self.plan_call(next, at.as_nanos());
            }
        } else if next.call < calls.end || !trace.spawned_by(running.call).is_empty() {
            self.calls.wait(RequestId(self.taken), next);
        }
        self.taken += 1;
        self.settle();
        let plan = &self.plan;
        let keys = stream_key(plan.keys, u64::from(running.copy));
        prefix.extend(trace.prefix(running.call).iter().map(|e| Extent {
            key: stream_key(keys, e.key),
            tokens: e.tokens,
        }));
        let entity = entity_of(u64::from(running.call), running.copy);
        let mut draws = Draws::new(self.streams, entity);
        let (truth, predicted) = plan.outcome.draw(&mut draws, Some(call.output), false);
        Arrival {
            at,
            tenant: plan.labels.tenant,
            class: plan.labels.class,
            session: running.id(),
            turn: running.call - calls.start,
            prompt_tokens: call.input,
            max_output_tokens: plan.labels.max_output_tokens,
            predicted_output_tokens: predicted,
            patience: plan.labels.patience,
            question: None,
            truth,
        }
    }

    fn departed(&mut self, request: RequestId, at: SimTime, finished: bool) {
        let Some(next) = self.calls.answered(request) else {
            return;
        };
        if !finished {
            return;
        }
        let trace = Arc::clone(&self.plan.trace);
        if next.call < trace.chains[next.chain as usize].calls.end {
            self.plan_call(next, at.as_nanos());
        }
        for &(_, chain) in trace.spawned_by(next.call - 1) {
            let call = trace.chains[chain as usize].calls.start;
            let child = Running {
                chain,
                call,
                ..next
            };
            self.plan_call(child, at.as_nanos());
        }
    }
}
