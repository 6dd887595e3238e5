//! A scenario in real time beside its simulation. Step times are measured alone, on a grid of all steps that
//! the scheduler may ask for; what scheduler, gateway and waking up add is taken from the live run
//! itself, stretch by stretch: the requests of each are simulated with what the steps of the stretches
//! before and after it say, their slow and fast moments included. So no request has a say in its own
//! prediction, and a machine whose speed changes is measured close to the moments that it is judged in.

/// Slow and fast moments.
mod moments;

/// Stretches of time.
mod stretches;

/// What steps take in a live run.
mod times;

use self::moments::moments;
use self::stretches::Stretches;
use self::times::{LiveStep, StepTimes};
use super::FidelityError;
use crate::computing::Computing;
use crate::execute::{RunPoint, run_live};
use std::sync::Arc;
use std::time::Duration;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::quantity::Span;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::config::{ContinuousSpec, CostSpec, EngineSpec};
use windtunnel_engine::execute::ExecutionError;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::Row;
use windtunnel_reference::calibrate::Measured;
use windtunnel_reports::fidelity::{Fidelity, Figure, Run, System};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::faults::FaultSpec;
use windtunnel_scenarios::workload::{Arrival, Traffic, Workload};
use windtunnel_sim::run::{RunError, RunOptions, Step, run};

/// Largest relative error of medians, and of figures that are one number.
const TARGET_MEDIAN: f64 = 0.05;
/// Largest relative error of the 99th percentile.
const TARGET_TAIL: f64 = 0.10;
/// How long steps are measured alone.
const ALONE: Duration = Duration::from_secs(30);

/// Runs a scenario live under `seed`, and compares it with the simulation of the same requests. Takes as
/// long as the live run and half a minute.
///
/// # Errors
/// If nothing in the scenario computes, its engines differ, it cannot be built, a device fails, or a
/// law is broken.
pub fn compare_live(
    name: &str,
    scenario: &Arc<Scenario>,
    traffic: &Arc<Traffic>,
    seed: u64,
    ended: &(dyn Fn(u64) + Sync),
) -> Result<Fidelity, FidelityError> {
    let failed = |error| failure(name, error);
    let point = RunPoint {
        scenario: Arc::clone(scenario),
        traffic: Arc::clone(traffic),
        seed,
        laws: true,
        rows: true,
        watch: None,
    };
    let spec = engine(scenario).map_err(failed)?;
    let computing = Computing::of(scenario).map_err(failed)?;
    let alone = computing.as_ref().map(|c| c.measure(&spec, ALONE, seed));
    let alone = alone.unwrap_or_else(|| Err(ExecutionError("nothing computes".into())));
    let alone = alone.map_err(|error| failed(cannot(error)))?;
    let (steps, measured) = watched(&point, ended).map_err(failed)?;
    let mut live = measured.rows;
    live.sort_by_key(|row| row.request);
    let spans: Vec<(u64, u64)> = live.iter().map(span).collect();
    let stretches = Stretches::of(&spans);
    let mut simulated = Vec::with_capacity(live.len());
    let mut said = Vec::with_capacity(stretches.count());
    for stretch in 0..stretches.count() {
        let beside = stretches.beside(stretch, &steps);
        let times = StepTimes::of(alone.table.clone(), &beside);
        let moments = moments(&stretches, stretch, &steps, &times);
        let rows = simulate(scenario, traffic, seed, (&times, moments), &live).map_err(failed)?;
        // A request is of the stretch that it was sent in live, whenever the simulation sends it.
        let live_at = |row: &Row| live.binary_search_by_key(&row.request, |r| r.request);
        let judged = |row: &Row| live_at(row).is_ok_and(|at| stretches.at(spans[at].0) == stretch);
        simulated.extend(rows.into_iter().filter(judged));
        said.push((times, stretches.within(stretch, &steps)));
    }
    simulated.sort_by_key(|row| row.request);
    let mut run = Run::new(name);
    run.requests = live.len() as u64;
    run.steps = steps.len() as u64;
    for (stretch, (times, _)) in said.iter().enumerate() {
        let named = |(name, value)| (format!("{name}_{stretch:02}"), value);
        run.settings.extend(times.settings().into_iter().map(named));
    }
    run.notes.push(measured_alone(&alone));
    run.notes.push(format!(
        "what a live run adds is taken from the steps of other requests: each of {} stretches of {:.1} s is predicted from the two beside it, slow and fast moments too",
        stretches.count(),
        stretches.length().as_secs_f64(),
    ));
    run.notes.extend(StepTimes::residuals(&said));
    figures(&mut run, &live, &simulated);
    run.conclude();
    Ok(Fidelity::of(vec![System {
        name: "live".into(),
        layout: "live",
        runs: vec![run],
    }]))
}

fn failure(name: &str, error: RunError) -> FidelityError {
    match error {
        RunError::Law(violation) => FidelityError::Law {
            run: name.to_owned(),
            violation: violation.to_string(),
        },
        other => FidelityError::Scenario {
            run: name.to_owned(),
            findings: other.to_string(),
        },
    }
}

/// How good the grid is that steps were measured on alone.
fn measured_alone(alone: &Measured) -> String {
    let held_out = &alone.held_out;
    format!(
        "steps alone: median of {} rounds, a single measurement is {:.1} % off; on steps it was not made from the table is off by {:.1} % (decode), {:.1} % (prefill) and {:.1} % (both) at the median",
        alone.rounds,
        100.0 * alone.noise,
        100.0 * held_out.decode.median,
        100.0 * held_out.prefill.median,
        100.0 * held_out.mixed.median,
    )
}

/// When a request was sent and when it needed no more steps, ns.
fn span(row: &Row) -> (u64, u64) {
    (row.sent_ns, row.last_token_ns.unwrap_or(row.ended_ns))
}

/// A live run and its steps.
fn watched(
    point: &RunPoint,
    ended: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<LiveStep>, RunResult), RunError> {
    let mut steps = Vec::new();
    let mut log = |step: &Step| steps.push(*step);
    let result = run_live(point, ended, Some(&mut log))?;
    Ok((LiveStep::all(&steps), result))
}

/// The engine that computes, of which a scenario must have one kind: what steps take is measured for it.
fn engine(scenario: &Scenario) -> Result<ContinuousSpec, RunError> {
    let fleet = &scenario.fleet;
    // With pools, the fleet's own engine serves nobody.
    let mut engines: Vec<&EngineSpec> = fleet.pools.iter().map(|p| &p.engine).collect();
    if engines.is_empty() {
        engines.push(&fleet.engine);
    }
    match engines[..] {
        [EngineSpec::Reference(first), ref more @ ..] if more.iter().all(|e| *e == engines[0]) => {
            Ok((**first).clone())
        }
        _ => Err(cannot(ExecutionError(
            "a live comparison needs replicas that all compute alike; give them one engine of kind \"reference\"".into(),
        ))),
    }
}

const fn cannot(error: ExecutionError) -> RunError {
    RunError::Executor {
        replica: ReplicaId(0),
        error,
    }
}

/// The requests of a live run through the simulator: same arrivals and prompts, answers as long as
/// those that came.
fn simulate(
    scenario: &Scenario,
    traffic: &Traffic,
    seed: u64,
    (times, moments): (&StepTimes, Vec<FaultSpec>),
    live: &[Row],
) -> Result<Vec<Row>, RunError> {
    let computing = Computing::of(scenario)?;
    let mut scenario = computing.map_or_else(|| scenario.clone(), |c| (*c.scenario).clone());
    scenario.faults.extend(moments);
    let fleet = &mut scenario.fleet;
    let pools = fleet.pools.iter_mut().map(|p| &mut p.engine);
    for engine in std::iter::once(&mut fleet.engine).chain(pools) {
        if let EngineSpec::Reference(spec) = engine {
            spec.cost = CostSpec::Table(times.table().clone());
            let waking = SimDuration::from_secs_f64_saturating(times.waking());
            spec.frontend.input = Span(spec.frontend.input.0 + waking);
            *engine = EngineSpec::Continuous(spec.clone());
        }
    }
    let mut workload = Answered {
        inner: traffic.workload(seed),
        taken: 0,
        live,
    };
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    Ok(run(&scenario, &mut workload, seed, options)?.rows)
}

/// A workload whose answers are as long as those of a live run.
struct Answered<'a> {
    inner: Box<dyn Workload>,
    taken: usize,
    live: &'a [Row],
}

impl Workload for Answered<'_> {
    fn next_at(&mut self) -> Option<SimTime> {
        self.inner.next_at()
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let mut arrival = self.inner.take(prefix);
        if let Some(row) = self.live.get(self.taken)
            && row.output_tokens > 0
        {
            arrival.truth.output_tokens = row.output_tokens;
        }
        self.taken += 1;
        arrival
    }

    fn departed(&mut self, request: RequestId, at: SimTime, finished: bool) {
        self.inner.departed(request, at, finished);
    }
}

/// Sets the figures of both sides beside each other.
fn figures(run: &mut Run, live: &[Row], simulated: &[Row]) {
    let since_sent = |row: &Row, at: Option<u64>| Some((at? - row.sent_ns) as f64 / 1e6);
    type Value = fn(&Row) -> Option<u64>;
    let metrics: [(&'static str, Value); 2] =
        [("ttft", |r| r.first_token_ns), ("e2e", |r| r.last_token_ns)];
    let all = |rows: &[Row], value: Value| -> Vec<Option<f64>> {
        rows.iter().map(|r| since_sent(r, value(r))).collect()
    };
    for (metric, value) in metrics {
        run.compare(metric, "ms", all(live, value), all(simulated, value), None);
    }
    let tpot = |rows: &[Row]| -> Vec<Option<f64>> {
        rows.iter()
            .map(|r| r.tpot_ns().map(|ns| ns / 1e6))
            .collect()
    };
    run.compare("tpot", "ms", tpot(live), tpot(simulated), None);
    let of = |row: &Row| {
        let end = row.last_token_ns? as f64 / 1e9;
        Some((row.sent_ns as f64 / 1e9, end, row.output_tokens))
    };
    super::play::throughput(run, live.iter().filter_map(of), simulated);
    for figure in &mut run.figures {
        let target = match figure.statistic {
            "p50" | "" => Some(TARGET_MEDIAN),
            "p99" => Some(TARGET_TAIL),
            _ => None,
        };
        *figure = Figure::new(
            figure.metric,
            figure.statistic,
            figure.unit,
            figure.measured,
            figure.simulated,
            target,
        );
    }
}
