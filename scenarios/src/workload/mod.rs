//! Where requests come from. Everything about a request, its hidden truth too, is drawn before it
//! enters the system, from streams of the workload's own: two policies under one seed face the
//! same requests.

/// Why traffic cannot be made.
mod error;
/// What is known of the traffic before it is played.
mod facts;
/// The draws that workloads are made of.
mod sample;
/// Lengths in tokens and service times.
mod lengths;
/// Rates that change with time, integrated and inverted.
mod rate;
/// When requests come.
mod arrivals;
/// Prefixes that many requests share.
mod prefixes;
/// What policies are told about output lengths.
mod predictor;
/// One client of a synthetic workload.
mod clients;
/// Requests that are real routine tasks.
mod tasks;
/// Which questions are asked.
mod questions;
/// Conversations in closed loop.
mod sessions;
/// The superposition of clients.
mod synthetic;
/// When clients stop, and how many requests they have under way.
mod limits;
/// Files of traces: found, unpacked, read by lines.
mod input;
/// CSV as traces use it.
mod table;
/// Readers, one per format.
mod formats;
/// What is done to a trace before it is played.
mod transform;
/// Traces with stamps.
mod replay;
/// Requests drawn from a ServeGen pool.
mod pool;
/// Agent sessions.
mod agents;

pub use error::TrafficError;
pub use facts::{Facts, FileFact};
pub use questions::Question;

use crate::names::Names;
use crate::schema::Scenario;
use crate::schema::traffic::{TraceFormat, TraceSpec};
use agents::AgentPlan;
use input::Source;
use limits::{Limited, Limits};
use pool::PoolPlan;
use replay::ReplayPlan;
use std::path::Path;
use synthetic::SyntheticPlan;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::quantity::Span;
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
    /// What it asks, if others may ask the same.
    pub question: Option<Question>,
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

    /// Whether departures can change what is due. A workload that says no, before its first request,
    /// need not be told of any.
    fn heeds_departures(&self) -> bool {
        true
    }
}

/// The traffic of a scenario, read and compiled once; every seed plays it anew. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Traffic {
    plan: Plan,
    limits: Limits,
    facts: Facts,
    names: Names,
}

#[derive(Clone, Debug)]
enum Plan {
    Synthetic(SyntheticPlan),
    Replay(ReplayPlan),
    Pool(PoolPlan),
    Agents(AgentPlan),
}

/// Reads what the traffic of a scenario needs and compiles it.
///
/// A trace file is looked for in `dir` (the folder of the scenario file), then in `traces` (the
/// traces folder). With `skip_bad_rows` rows that cannot be used are left out and counted in
/// [`Facts::skipped_rows`] instead of being an error.
///
/// # Errors
/// If a file is missing, damaged or not of its format, a row cannot be used, or the scenario
/// asks for what cannot be.
pub fn prepare(
    scenario: &Scenario,
    dir: Option<&Path>,
    traces: Option<&Path>,
    skip_bad_rows: bool,
) -> Result<Traffic, TrafficError> {
    let source = Source {
        dir,
        traces,
        skip_bad_rows,
    };
    let mut names = Names::of(scenario);
    let mut facts = Facts::default();
    let plan = match &scenario.traffic.trace {
        None => Plan::Synthetic(SyntheticPlan::new(scenario, &names, &mut facts)?),
        Some(trace) => read(scenario, trace, &source, &mut names, &mut facts)?,
    };
    let traffic = &scenario.traffic;
    let limits = Limits {
        num_prompts: traffic.num_prompts,
        until: traffic.duration.map(|d| SimTime::ZERO + d.0),
        max_concurrency: traffic.max_concurrency,
    };
    if limits.max_concurrency == Some(0) {
        return Err(TrafficError::scenario(
            "traffic.max_concurrency",
            "with 0 nothing is ever sent",
            "give at least 1, or leave it out",
        ));
    }
    Ok(Traffic {
        plan,
        limits,
        facts,
        names,
    })
}

/// Reads a trace and compiles it.
fn read(
    scenario: &Scenario,
    trace: &TraceSpec,
    source: &Source<'_>,
    names: &mut Names,
    facts: &mut Facts,
) -> Result<Plan, TrafficError> {
    if !scenario.traffic.clients.is_empty() {
        return Err(TrafficError::scenario(
            "traffic.clients",
            "with a trace, requests come from its file",
            "leave out either `clients` or `trace`",
        ));
    }
    let file = trace.file.as_str();
    let rows = match trace.format {
        TraceFormat::Mooncake => formats::mooncake::read(file, source, facts)?,
        TraceFormat::Azure => formats::azure::read(file, source, facts)?,
        TraceFormat::Burstgpt => formats::burstgpt::read(file, source, facts)?,
        TraceFormat::Vtc => formats::vtc::read(file, source, facts)?,
        TraceFormat::Native => formats::native::read(file, source, facts)?,
        TraceFormat::Servegen => {
            let Some(tokens) = &trace.tokens_file else {
                return Err(TrafficError::scenario(
                    "traffic.trace.tokens_file",
                    "the format `servegen` keeps token distributions in a second file",
                    "name it here",
                ));
            };
            let seconds = |span: Option<Span>, absent| span.map_or(absent, |s| s.0.as_secs_f64());
            let from = seconds(trace.slice.from, 0.0);
            let to = seconds(trace.slice.to, f64::INFINITY);
            let pool = formats::servegen::read(file, tokens, (from, to), source, facts)?;
            return PoolPlan::new(scenario, trace, pool, names, facts).map(Plan::Pool);
        }
        TraceFormat::AgenticCoding => {
            let sessions = formats::agentic::read(file, source, facts)?;
            return AgentPlan::new(scenario, trace, sessions, names, facts).map(Plan::Agents);
        }
    };
    ReplayPlan::new(scenario, trace, rows, names, facts).map(Plan::Replay)
}

impl Traffic {
    /// The requests of one seed, from the beginning. Equal seeds give equal requests, whatever
    /// policies do, as far as clients do not wait for answers.
    pub fn workload(&self, seed: u64) -> Box<dyn Workload + Send> {
        match &self.plan {
            Plan::Synthetic(plan) => Box::new(Limited::new(plan.start(seed), self.limits)),
            Plan::Replay(plan) => Box::new(Limited::new(plan.start(seed), self.limits)),
            Plan::Pool(plan) => Box::new(Limited::new(plan.start(seed), self.limits)),
            Plan::Agents(plan) => Box::new(Limited::new(plan.start(seed), self.limits)),
        }
    }

    /// What is known of the traffic before it is played.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Classes and tenants by id: the scenario's, then those that the trace brings.
    pub fn names(&self) -> &Names {
        &self.names
    }
}
