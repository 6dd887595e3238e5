//! Predictions beside measurements: what was measured, what was simulated for the same requests, how far
//! apart they are, and whether that meets the stated targets.
//!
//! Percentiles are interpolated linearly between order statistics: of `n` sorted values, the `p`-th
//! is at rank `p / 100 * (n - 1)` (numpy's default). Measured and simulated figures are made the
//! same way.

use crate::threshold::Verdict;
use serde::Serialize;
use std::collections::BTreeMap;

/// Statistics that every metric is compared by.
pub const STATISTICS: [&str; 5] = ["mean", "p50", "p90", "p95", "p99"];

/// What came of comparing all runs of all systems.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Fidelity {
    /// Version of the document's format.
    pub schema_version: u32,
    /// How percentiles are defined.
    pub percentiles: &'static str,
    /// Pass if every stated target is met, fail if one is missed, undecided if none was compared.
    pub verdict: Verdict,
    /// The systems, in the order of their names.
    pub systems: Vec<System>,
}

/// A measured system, or another simulator's runs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct System {
    /// Its folder's name.
    pub name: String,
    /// What its files are: `vllm`, `blis`, `vidur`.
    pub layout: &'static str,
    /// Its runs.
    pub runs: Vec<Run>,
}

/// One run of a system.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Run {
    /// Its name within the system.
    pub name: String,
    /// What the run was made with, as its files say.
    pub settings: BTreeMap<String, String>,
    /// Requests that were played.
    pub requests: u64,
    /// Steps that the simulated replicas took.
    pub steps: u64,
    /// Figures over all requests, or over time.
    pub figures: Vec<Figure>,
    /// Request by request: absolute errors.
    pub errors: Vec<Errors>,
    /// What must be equal, value by value.
    pub equalities: Vec<Equality>,
    /// What to know when reading the figures.
    pub notes: Vec<String>,
    /// Why nothing could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// Pass if every target is met; undecided if there was nothing to compare.
    pub verdict: Verdict,
    /// Values request by request, for plots and tables: not part of the document.
    #[serde(skip)]
    pub pairs: Vec<Pairs>,
    /// Curves over time, for plots: not part of the document.
    #[serde(skip)]
    pub curves: Vec<Curve>,
}

impl Run {
    /// A run of which nothing is known yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            settings: BTreeMap::new(),
            requests: 0,
            steps: 0,
            figures: Vec::new(),
            errors: Vec::new(),
            equalities: Vec::new(),
            notes: Vec::new(),
            not_compared: None,
            verdict: Verdict::Undecided,
            pairs: Vec::new(),
            curves: Vec::new(),
        }
    }

    /// A run that could not be compared.
    pub fn without(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            not_compared: Some(reason.into()),
            ..Self::new(name)
        }
    }

    /// Compares the distributions of a metric: figures over all requests and, where both sides have a
    /// value for a request, absolute errors. Values are in request order; what has none is `None`
    /// (such as the time per output token of an answer of one token).
    pub fn compare(
        &mut self,
        metric: &'static str,
        unit: &'static str,
        measured: Vec<Option<f64>>,
        simulated: Vec<Option<f64>>,
        target: Option<f64>,
    ) {
        self.compare_samples(
            metric,
            unit,
            measured.iter().copied().flatten().collect(),
            simulated.iter().copied().flatten().collect(),
            target,
        );
        let pairs = Pairs {
            metric,
            unit,
            measured,
            simulated,
        };
        self.errors.extend(pairs.errors());
        self.pairs.push(pairs);
    }

    /// Compares two samples of a metric that have no common order.
    pub fn compare_samples(
        &mut self,
        metric: &'static str,
        unit: &'static str,
        mut measured: Vec<f64>,
        mut simulated: Vec<f64>,
        target: Option<f64>,
    ) {
        measured.sort_by(f64::total_cmp);
        simulated.sort_by(f64::total_cmp);
        for statistic in STATISTICS {
            self.figures.push(Figure::new(
                metric,
                statistic,
                unit,
                value_of(statistic, &measured),
                value_of(statistic, &simulated),
                target,
            ));
        }
    }

    /// Settles the verdict, once everything is compared.
    pub fn conclude(&mut self) {
        let figures = self.figures.iter().filter_map(|f| f.verdict);
        let verdicts = figures.chain(self.equalities.iter().map(|e| e.verdict));
        // Fail is the worst of them, and nothing at all decides nothing.
        self.verdict = verdicts.max().unwrap_or(Verdict::Undecided);
    }
}

/// One statistic of one metric.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// Which metric, by the names of `summary.json`.
    pub metric: &'static str,
    /// `mean`, `p50`, …; empty for a metric that is one number.
    pub statistic: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// What was measured; null if the files do not say.
    pub measured: Option<f64>,
    /// What was simulated; null if there is nothing to take it from.
    pub simulated: Option<f64>,
    /// `(simulated - measured) / measured`; null where that has no sense.
    pub relative_error: Option<f64>,
    /// Where the relative error of another such run would lie, in 95 of 100; left out where that was not reckoned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Largest relative error that is allowed; null if no target is stated.
    pub target: Option<f64>,
    /// Whether it is met; null without a target.
    pub verdict: Option<Verdict>,
}

impl Figure {
    /// Compares two values.
    pub fn new(
        metric: &'static str,
        statistic: &'static str,
        unit: &'static str,
        measured: Option<f64>,
        simulated: Option<f64>,
        target: Option<f64>,
    ) -> Self {
        let pair = measured.zip(simulated);
        let relative_error = pair.and_then(|(m, s)| {
            let error = (s - m) / m;
            // Nothing predicted where nothing was: no error.
            (m == 0.0 && s == 0.0)
                .then_some(0.0)
                .or(error.is_finite().then_some(error))
        });
        let verdict = target.filter(|_| measured.is_some()).map(|target| {
            let met = relative_error.is_some_and(|error| error.abs() <= target);
            if met { Verdict::Pass } else { Verdict::Fail }
        });
        Self {
            metric,
            statistic,
            unit,
            measured,
            simulated,
            relative_error,
            interval: None,
            target,
            verdict,
        }
    }
}

/// Absolute errors of a metric, request by request.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Errors {
    /// Which metric.
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Requests that have a value on both sides.
    pub n: u64,
    /// Median of `|simulated - measured|`.
    pub median: f64,
    /// Its 95th percentile.
    pub p95: f64,
    /// Its largest value.
    pub max: f64,
}

/// Values of a metric, request by request.
#[derive(Clone, PartialEq, Debug)]
pub struct Pairs {
    /// Which metric.
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Measured, in request order.
    pub measured: Vec<Option<f64>>,
    /// Simulated, in the same order.
    pub simulated: Vec<Option<f64>>,
}

impl Pairs {
    /// The requests that have both values: measured, simulated.
    pub fn both(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let pairs = self.measured.iter().zip(&self.simulated);
        pairs.filter_map(|(m, s)| m.zip(*s))
    }

    fn errors(&self) -> Option<Errors> {
        let mut errors: Vec<f64> = self.both().map(|(m, s)| (s - m).abs()).collect();
        errors.sort_by(f64::total_cmp);
        Some(Errors {
            metric: self.metric,
            unit: self.unit,
            n: errors.len() as u64,
            median: percentile(&errors, 50.0)?,
            p95: percentile(&errors, 95.0)?,
            max: *errors.last()?,
        })
    }
}

/// A quantity over time, measured and simulated.
#[derive(Clone, PartialEq, Debug)]
pub struct Curve {
    /// Name of its plot's file.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// Whether it is a share of a whole.
    pub share: bool,
    /// Seconds and values.
    pub measured: Vec<(f64, f64)>,
    /// Seconds and values.
    pub simulated: Vec<(f64, f64)>,
}

/// Values that must agree one by one.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Equality {
    /// What is compared, such as `ttft of every request`.
    pub what: String,
    /// Values on both sides.
    pub compared: u64,
    /// Of those, equal (within the bound).
    pub equal: u64,
    /// Values that only the measurement has.
    pub only_measured: u64,
    /// Values that only the simulation has.
    pub only_simulated: u64,
    /// The largest difference.
    pub largest: f64,
    /// Its unit; empty for names and counts.
    pub unit: &'static str,
    /// The largest difference that counts as equal, in that unit.
    pub bound: f64,
    /// Where the bound comes from.
    pub basis: String,
    /// The first that differ.
    pub first_mismatch: Option<Mismatch>,
    /// Whether all are equal and none is missing.
    pub verdict: Verdict,
}

/// Two values that should have been equal.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Mismatch {
    /// Which request or iteration, and where the measurement says so.
    pub place: String,
    /// What was measured.
    pub measured: String,
    /// What was simulated.
    pub simulated: String,
}

impl Equality {
    /// Nothing compared yet.
    pub fn new(
        what: impl Into<String>,
        unit: &'static str,
        bound: f64,
        basis: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            compared: 0,
            equal: 0,
            only_measured: 0,
            only_simulated: 0,
            largest: 0.0,
            unit,
            bound,
            basis: basis.into(),
            first_mismatch: None,
            verdict: Verdict::Undecided,
        }
    }

    /// Compares two values; what is not a number equals nothing. `place` is asked for the first
    /// that differ.
    pub fn add(&mut self, measured: f64, simulated: f64, place: impl FnOnce() -> String) {
        self.compared += 1;
        let difference = (simulated - measured).abs();
        if difference.is_nan() || difference > self.largest {
            self.largest = if difference.is_nan() {
                f64::MAX
            } else {
                difference
            };
        }
        if difference <= self.bound {
            self.equal += 1;
        } else if self.first_mismatch.is_none() {
            self.first_mismatch = Some(Mismatch {
                place: place(),
                measured: format!("{measured}"),
                simulated: format!("{simulated}"),
            });
        }
    }

    /// The measurement has `measured`, the simulation nothing to set beside it.
    pub fn lacks(&mut self, measured: impl std::fmt::Display, place: impl FnOnce() -> String) {
        self.only_measured += 1;
        self.first_mismatch.get_or_insert_with(|| Mismatch {
            place: place(),
            measured: measured.to_string(),
            simulated: "nothing".into(),
        });
    }

    /// The simulation has `n` values that were not measured.
    pub fn exceeds(&mut self, n: u64, place: impl FnOnce() -> String) {
        if n > 0 {
            self.only_simulated += n;
            self.first_mismatch.get_or_insert_with(|| Mismatch {
                place: place(),
                measured: "nothing".into(),
                simulated: format!("{n} more"),
            });
        }
    }

    /// Settles the verdict; `None` if there was nothing to compare.
    pub fn conclude(mut self) -> Option<Self> {
        let all = self.compared + self.only_measured;
        let same = self.equal == all && self.only_simulated == 0;
        self.verdict = if same { Verdict::Pass } else { Verdict::Fail };
        (all > 0 || self.only_simulated > 0).then_some(self)
    }
}

impl Fidelity {
    /// Gathers what was compared.
    pub fn of(systems: Vec<System>) -> Self {
        let runs = systems.iter().flat_map(|system| &system.runs);
        let decided = runs
            .map(|run| run.verdict)
            .filter(|&v| v != Verdict::Undecided);
        Self {
            schema_version: 1,
            percentiles: "linear interpolation between order statistics, rank p/100*(n-1)",
            verdict: decided.max().unwrap_or(Verdict::Undecided),
            systems,
        }
    }
}

/// The `p`-th percentile of sorted values, interpolated linearly; `None` of nothing.
pub fn percentile(sorted: &[f64], p: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = p / 100.0 * last as f64;
    let low = (rank.floor() as usize).min(last);
    let high = (rank.ceil() as usize).min(last);
    let (a, b) = (sorted[low], sorted[high]);
    Some(a + (b - a) * (rank - low as f64))
}

/// A statistic of sorted values by its name; `None` of nothing.
pub fn value_of(statistic: &str, sorted: &[f64]) -> Option<f64> {
    match statistic.strip_prefix('p').and_then(|p| p.parse().ok()) {
        Some(p) => percentile(sorted, p),
        None => crate::stats::mean(sorted),
    }
}

#[cfg(test)]
mod tests;
