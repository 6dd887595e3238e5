//! A scenario in real time beside its simulation. Step times are measured alone, on a grid of all steps that
//! the scheduler may ask for; what scheduler, gateway and waking up add is taken from the live run
//! itself, stretch by stretch: the requests of each are simulated with what the steps of the stretches
//! before and after it say, and with what happened to them. So no request has a say in its own
//! prediction, and a machine whose speed changes is measured close to the moments that it is judged in.

/// Simulated steps.
mod predicted;

/// How sure errors are.
mod resample;

/// Stretches of time.
mod stretches;

/// What happened to steps.
mod tape;

/// What steps take in a live run.
mod times;

use self::predicted::Predicted;
use self::resample::intervals;
use self::stretches::Stretches;
use self::tape::Tape;
use self::times::{LiveStep, StepTimes};
use super::FidelityError;
use crate::computing::Computing;
use crate::execute::{RunPoint, run_live};
use std::sync::Arc;
use std::time::Duration;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::time::SimTime;
use windtunnel_engine::config::{ContinuousSpec, EngineSpec};
use windtunnel_engine::execute::{ExecutionError, StepExecutor};
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::Row;
use windtunnel_reference::calibrate::Measured;
use windtunnel_reports::fidelity::{Fidelity, Figure, Run, System};
use windtunnel_scenarios::schema::Scenario;
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
    let computing = computing.ok_or_else(|| failed(cannot("nothing computes".into())))?;
    let alone = computing.measure(&spec, ALONE, seed);
    let alone = alone.map_err(|error| failed(cannot(error.0)))?;
    let (steps, measured) = watched(&point, ended).map_err(failed)?;
    let mut live = measured.rows;
    live.sort_by_key(|row| row.request);
    let spans: Vec<(u64, u64)> = live.iter().map(span).collect();
    let stretches = Stretches::of(&spans);
    let mut simulated = Vec::with_capacity(live.len());
    let mut said = Vec::with_capacity(stretches.count());
    for stretch in 0..stretches.count() {
        let beside = stretches.beside(stretch, &steps);
        let times = Arc::new(StepTimes::of(alone.table.clone(), &beside));
        let tape = Tape::of(&stretches.nearest(stretch, &steps), &times);
        let predicted = Predicted::new(Arc::clone(&times), tape, stretches.begin(stretch));
        let world = (&*computing.scenario, &**traffic, seed);
        let rows = simulate(world, &predicted, &live).map_err(failed)?;
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
        "what a live run adds is taken from the steps of other requests: each of {} stretches of {:.1} s is predicted from the two beside it, and meets what happened to their steps",
        stretches.count(),
        stretches.length().as_secs_f64(),
    ));
    run.notes.extend(StepTimes::residuals(&said));
    figures(&mut run, &live, &simulated);
    let of: Vec<usize> = spans.iter().map(|(sent, _)| stretches.at(*sent)).collect();
    intervals(&mut run, &of, stretches.count());
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
        _ => Err(cannot(
            "a live comparison needs replicas that all compute alike; give them one engine of kind \"reference\"".into(),
        )),
    }
}

const fn cannot(reason: String) -> RunError {
    RunError::Executor {
        replica: ReplicaId(0),
        error: ExecutionError(reason),
    }
}

/// The requests of a live run through the simulator: same arrivals and prompts, answers as long as
/// those that came, steps as they are predicted.
fn simulate(
    (scenario, traffic, seed): (&Scenario, &Traffic, u64),
    predicted: &Predicted,
    live: &[Row],
) -> Result<Vec<Row>, RunError> {
    let mut make = |_: ReplicaId, _: &ContinuousSpec, _: u64| {
        Ok(Box::new(predicted.clone()) as Box<dyn StepExecutor>)
    };
    let mut workload = Answered {
        inner: traffic.workload(seed),
        taken: 0,
        live,
    };
    let options = RunOptions {
        names: Some(traffic.names()),
        executors: Some(&mut make),
        ..RunOptions::default()
    };
    Ok(run(scenario, &mut workload, seed, options)?.rows)
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
        // Nobody answers it again: its length is known.
        arrival.truth.task = None;
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

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_engine::config::{CostSpec, DecodePoint, PrefillPoint, TableSpec};
    use windtunnel_scenarios::workload::prepare;
    use windtunnel_scenarios::{LoadEnv, Override, Source, load};

    /// Times that grow with everything.
    fn table() -> TableSpec {
        let mut table = TableSpec::default();
        for seqs in [1, 8] {
            for context in [1, 512] {
                let ms = 0.5 + 0.1 * f64::from(seqs) + 0.001 * f64::from(context);
                table.decode.push(DecodePoint { seqs, context, ms });
            }
        }
        for tokens in [1, 256] {
            for context in [0, 384] {
                let ms = 1.0 + 0.02 * f64::from(tokens) + 0.002 * f64::from(context);
                table.prefill.push(PrefillPoint {
                    tokens,
                    context,
                    ms,
                });
            }
        }
        table
    }

    /// Steps that nothing happened to predict what the cost model predicts, to the rounding of each step.
    #[test]
    fn where_nothing_happened_it_is_the_plain_simulation() {
        let source = Source::Library("reference-live".into());
        let small: Vec<Override> = [
            "traffic.num_prompts=200",
            "traffic.request_rate=\"60 req/s\"",
        ]
        .into_iter()
        .map(Override::new)
        .collect();
        let loaded = load(&source, &small, &LoadEnv::default()).unwrap();
        let traffic = prepare(&loaded.scenario, None, None, false).unwrap();
        let fitted = Computing::of(&loaded.scenario).unwrap().unwrap().scenario;
        let times = Arc::new(StepTimes::of(table(), &[]));
        let predicted = Predicted::new(Arc::clone(&times), Tape::default(), SimTime::ZERO);
        let executed = simulate((&fitted, &traffic, 3), &predicted, &[]).unwrap();
        let mut plain = (*fitted).clone();
        let EngineSpec::Reference(spec) = &mut plain.fleet.engine else {
            panic!("an engine that computes");
        };
        spec.cost = CostSpec::Table(table());
        plain.fleet.engine = EngineSpec::Continuous(spec.clone());
        let mut workload = Answered {
            inner: traffic.workload(3),
            taken: 0,
            live: &[],
        };
        let simulated = run(&plain, &mut workload, 3, RunOptions::default()).unwrap();
        assert_eq!(executed.len(), 200);
        for (a, b) in executed.iter().zip(&simulated.rows) {
            assert_eq!((a.request, a.output_tokens), (b.request, b.output_tokens));
            for (a, b) in [
                (a.first_token_ns, b.first_token_ns),
                (a.last_token_ns, b.last_token_ns),
            ] {
                // A nanosecond for each step of the busiest second.
                let off = a.unwrap().abs_diff(b.unwrap());
                assert!(off <= 2_000, "{off} ns");
            }
        }
    }
}
