//! Runs scenarios for cases, in independent replications, and reads figures off them.

use super::{CaseError, Point, Sampled};
use crate::execute::{RunPoint, run_point};
use rayon::prelude::*;
use std::sync::Arc;
use windtunnel_ledger::account::Books;
use windtunnel_ledger::result::{Distribution, Population, RunResult, Segment};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload;

/// Independent replications per point, for a standard error.
const REPLICATIONS: u64 = 8;

/// Share of a run that is left out at its beginning: stations start empty.
const WARM_UP: f64 = 0.05;

/// A scenario about to run under several seeds.
pub(super) struct Lab {
    points: Vec<RunPoint>,
    warm_up: f64,
}

impl Lab {
    /// An open-ended scenario, cut after `arrivals` requests over all replications (times the
    /// point's effort); the beginning of each is left out.
    pub(super) fn new(text: &str, point: &Point<'_>, arrivals: f64) -> Result<Self, CaseError> {
        Self::settled(text, point, arrivals, WARM_UP)
    }

    /// The same with another share of each run left out.
    pub(super) fn settled(
        text: &str,
        point: &Point<'_>,
        arrivals: f64,
        warm_up: f64,
    ) -> Result<Self, CaseError> {
        let each = point.length(arrivals / REPLICATIONS as f64).max(1_000);
        let mut scenario = parse(text)?;
        scenario.traffic.num_prompts = Some(each);
        Self::of(&scenario, point, warm_up)
    }

    /// A scenario that ends by itself; all of it counts.
    pub(super) fn whole(text: &str, point: &Point<'_>) -> Result<Self, CaseError> {
        Self::of(&parse(text)?, point, 0.0)
    }

    fn of(scenario: &Scenario, point: &Point<'_>, warm_up: f64) -> Result<Self, CaseError> {
        let traffic = workload::prepare(scenario, None, point.traces, false)
            .map_err(|e| CaseError::Run(e.to_string()))?;
        let (scenario, traffic) = (Arc::new(scenario.clone()), Arc::new(traffic));
        let point_of = |i| RunPoint {
            scenario: Arc::clone(&scenario),
            traffic: Arc::clone(&traffic),
            seed: point.seed + i,
            laws: true,
            rows: false,
            watch: None,
        };
        Ok(Self {
            points: (0..REPLICATIONS).map(point_of).collect(),
            warm_up,
        })
    }

    /// Times of the arrivals of one seed, in seconds.
    pub(super) fn arrivals_of(text: &str, seed: u64) -> Result<Vec<f64>, CaseError> {
        let arrivals = Self::arrivals_by_class(text, seed)?;
        Ok(arrivals.into_iter().map(|(at, _)| at).collect())
    }

    /// Times of the arrivals of one seed, in seconds, with their classes; classes count in the order of
    /// their names.
    pub(super) fn arrivals_by_class(text: &str, seed: u64) -> Result<Vec<(f64, usize)>, CaseError> {
        let scenario = parse(text)?;
        let traffic = workload::prepare(&scenario, None, None, false)
            .map_err(|e| CaseError::Run(e.to_string()))?;
        let mut source = traffic.workload(seed);
        let (mut times, mut prefix) = (Vec::new(), Vec::new());
        while source.next_at().is_some() {
            prefix.clear();
            let arrival = source.take(&mut prefix);
            times.push((arrival.at.as_secs_f64(), arrival.class.index()));
        }
        Ok(times)
    }

    /// Runs all replications.
    pub(super) fn run(self) -> Result<Runs, CaseError> {
        let warm_up = self.warm_up;
        let runs: Result<Vec<Run>, CaseError> = self
            .points
            .par_iter()
            .map(|p| Run::of(p, warm_up))
            .collect();
        Ok(Runs(runs?))
    }

    /// Runs the first replication only.
    pub(super) fn once(self) -> Result<Run, CaseError> {
        Run::of(&self.points[0], self.warm_up)
    }
}

fn parse(text: &str) -> Result<Scenario, CaseError> {
    toml::from_str(text).map_err(|e| CaseError::Run(format!("the case's scenario is wrong: {e}")))
}

/// All replications of a point.
pub(super) struct Runs(Vec<Run>);

impl Runs {
    /// A figure of each replication.
    pub(super) fn values(&self, figure: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.0.iter().map(figure).collect()
    }

    /// A figure over replications, with its standard error.
    pub(super) fn each(&self, figure: impl Fn(&Run) -> f64) -> Sampled {
        Sampled::of(&self.values(figure))
    }

    /// The whole results.
    pub(super) fn results(&self) -> Vec<&RunResult> {
        self.0.iter().map(|r| &r.result).collect()
    }
}

/// One replication.
pub(super) struct Run {
    /// The whole result.
    pub(super) result: RunResult,
    kept: Segment,
}

impl Run {
    fn of(point: &RunPoint, warm_up: f64) -> Result<Self, CaseError> {
        let result = run_point(point, &|_| ()).map_err(|e| CaseError::Run(e.to_string()))?;
        let first = (result.segments.len() as f64 * warm_up).ceil() as usize;
        let mut kept = result.segments.get(first).cloned().unwrap_or_default();
        result
            .segments
            .iter()
            .skip(first + 1)
            .for_each(|s| kept.merge(s));
        if kept.all.sent == 0 {
            let reason = "nothing came after the warm-up: too short a run, raise the effort";
            return Err(CaseError::Run(reason.into()));
        }
        Ok(Self { result, kept })
    }

    /// Mean of a distribution, in seconds.
    pub(super) fn mean_seconds(&self, of: impl Fn(&Population) -> &Distribution) -> f64 {
        of(&self.kept.all).mean().unwrap_or(f64::NAN) / 1e9
    }

    /// A quantile of a distribution, in seconds.
    pub(super) fn quantile_seconds(
        &self,
        q: f64,
        of: impl Fn(&Population) -> &Distribution,
    ) -> f64 {
        of(&self.kept.all).quantile(q).unwrap_or(f64::NAN) / 1e9
    }

    /// Mean number in the system over the samples after warm-up.
    pub(super) fn mean_in_system(&self) -> f64 {
        self.result.in_system_ns as f64 / self.result.end_ns as f64
    }

    /// The population of one class.
    pub(super) fn class(&self, name: &str) -> &Population {
        let index = self.result.class_names.iter().position(|c| c == name);
        index
            .and_then(|i| self.kept.classes.get(i))
            .unwrap_or(&self.kept.all)
    }

    /// All requests.
    pub(super) const fn population(&self) -> &Population {
        &self.kept.all
    }

    /// Money, energy and tokens.
    pub(super) const fn books(&self) -> &Books {
        &self.kept.books
    }

    /// Requests sent.
    pub(super) const fn sent(&self) -> u64 {
        self.kept.all.sent
    }

    /// Share of requests refused.
    pub(super) fn refused_share(&self) -> f64 {
        self.kept.all.refused.iter().sum::<u64>() as f64 / self.kept.all.sent as f64
    }

    /// When the run ended, ns.
    pub(super) const fn end_ns(&self) -> u64 {
        self.result.end_ns
    }

    /// KV blocks of the first replica, as telemetry has it.
    pub(super) fn kv_blocks(&self) -> Result<u64, CaseError> {
        let first = self.result.samples.first().and_then(|s| s.replicas.first());
        first
            .map(|r| r.kv_total)
            .filter(|&blocks| blocks > 0)
            .ok_or_else(|| CaseError::Run("the run tells of no KV memory".into()))
    }
}

/// Share of requests that waited at all.
pub(super) fn wait_share(run: &Run) -> f64 {
    let queue = &run.kept.all.queue;
    // Requests served at once wait exactly zero: they are the first point of the distribution.
    let at_once = queue
        .cdf()
        .first()
        .filter(|p| p.0 < 1.0)
        .map_or(0.0, |p| p.1);
    1.0 - at_once
}
