//! Run points to worker threads; results in point order, so that the number of threads changes no
//! byte of any output.

use rayon::prelude::*;
use std::sync::Arc;
use windtunnel_base::ids::RequestId;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload::Traffic;
use windtunnel_sim::run::{Progress, RunError, RunOptions, run};

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
        ..RunOptions::default()
    };
    let mut workload = point.traffic.workload(point.seed);
    let result = run(&point.scenario, workload.as_mut(), point.seed, options)?;
    ended(result.segments.iter().map(|s| s.all.sent).sum::<u64>() - told);
    Ok(result)
}
