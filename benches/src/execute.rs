//! Run points to worker threads; results in point order, so that the number of threads changes no
//! byte of any output.

use crate::computing::{Computing, computes, measures};
use rayon::prelude::*;
use std::sync::Arc;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_engine::config::ContinuousSpec;
use windtunnel_engine::execute::ExecutionError;
use windtunnel_ledger::result::RunResult;
use windtunnel_reference::runtime::clock::Epoch;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload::Traffic;
use windtunnel_sim::run::{Progress, RunError, RunOptions, Step, run};

/// One run: a scenario, its traffic and a seed.
#[derive(Clone, Debug)]
pub struct RunPoint {
    /// What is run.
    pub scenario: Arc<Scenario>,
    /// Where its requests come from; trace files are read already.
    pub traffic: Arc<Traffic>,
    /// The seed.
    pub seed: u64,
    /// Check the laws while it runs.
    pub laws: bool,
    /// Keep a row per request.
    pub rows: bool,
    /// Keep every entry of this request, and what the router saw when it sent it on.
    pub watch: Option<u32>,
}

/// Runs all points, at most `jobs` at once; `ended` is told of requests that ended, while they do.
///
/// # Panics
/// If the threads cannot be started.
pub fn execute(
    points: &[RunPoint],
    jobs: Option<usize>,
    ended: &(dyn Fn(u64) + Sync),
) -> Vec<Result<RunResult, RunError>> {
    if points.iter().any(|p| measures(&p.scenario)) {
        // One after the other: each has the machine for itself, as what is measured shows in it.
        return points.iter().map(|p| run_point(p, ended)).collect();
    }
    on_threads(jobs, || {
        points
            .par_iter()
            .map(|point| run_point(point, ended))
            .collect()
    })
}

/// Runs `work` on a pool of `jobs` threads; all cores if `None`.
///
/// # Panics
/// If the threads cannot be started.
pub fn on_threads<T: Send>(jobs: Option<usize>, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs.unwrap_or(0))
        .build();
    match pool {
        Ok(pool) => pool.install(work),
        Err(error) => panic!("cannot start worker threads: {error}"),
    }
}

/// Runs one point on this thread; `ended` is told of requests that ended, while they do.
///
/// # Errors
/// If the fleet cannot be built or a law is broken.
pub fn run_point(point: &RunPoint, ended: &(dyn Fn(u64) + Sync)) -> Result<RunResult, RunError> {
    run_point_by_steps(point, ended, None)
}

/// As [`run_point`]; told of every step of every replica as it ends, if somebody listens.
///
/// # Errors
/// Likewise.
pub fn run_point_by_steps(
    point: &RunPoint,
    ended: &(dyn Fn(u64) + Sync),
    steps: Option<&mut dyn FnMut(&Step)>,
) -> Result<RunResult, RunError> {
    run_on_clock(point, None, ended, steps)
}

/// As [`run_point`], in real time: what comes is waited for, and a step that is computed ends when it
/// ends. Told of every step, if somebody listens.
///
/// # Errors
/// If nothing in the scenario computes, the fleet cannot be built, a device fails, or a law is broken.
pub fn run_live(
    point: &RunPoint,
    ended: &(dyn Fn(u64) + Sync),
    steps: Option<&mut dyn FnMut(&Step)>,
) -> Result<RunResult, RunError> {
    if !computes(&point.scenario) {
        return Err(RunError::Executor {
            replica: ReplicaId(0),
            error: ExecutionError(
                "a live run needs an engine that computes; set `fleet.engine.kind` to \"reference\"".into(),
            ),
        });
    }
    run_on_clock(point, Some(&Epoch::default()), ended, steps)
}

/// Runs one point on a simulated clock or a real one.
pub(crate) fn run_on_clock(
    point: &RunPoint,
    epoch: Option<&Epoch>,
    ended: &(dyn Fn(u64) + Sync),
    mut steps: Option<&mut dyn FnMut(&Step)>,
) -> Result<RunResult, RunError> {
    let computing = Computing::of(&point.scenario)?;
    let scenario = computing.as_ref().map_or(&point.scenario, |c| &c.scenario);
    let mut make = |_: ReplicaId, spec: &ContinuousSpec, blocks: u64| match &computing {
        Some(computing) => computing.executor(spec, blocks, point.seed, epoch),
        None => Err(ExecutionError("nothing here computes".into())),
    };
    let mut pace = |at| {
        if let Some(epoch) = epoch {
            epoch.wait_for(at);
        }
    };
    let listens = steps.is_some();
    let mut tell = |step: &Step| {
        if let Some(steps) = &mut steps {
            steps(step);
        }
    };
    let mut told = 0;
    let mut progress = |now: Progress| {
        let done = now.sent - now.in_system;
        ended(done - told);
        told = done;
    };
    let options = RunOptions {
        laws: point.laws,
        keep_rows: point.rows,
        watch: point.watch.map(RequestId),
        names: Some(point.traffic.names()),
        progress: Some(&mut progress),
        steps: if listens { Some(&mut tell) } else { None },
        executors: Some(&mut make),
        pace: match epoch {
            Some(_) => Some(&mut pace),
            None => None,
        },
        ..RunOptions::default()
    };
    let mut workload = point.traffic.workload(point.seed);
    let result = run(scenario, workload.as_mut(), point.seed, options)?;
    ended(result.segments.iter().map(|s| s.all.sent).sum::<u64>() - told);
    Ok(result)
}
