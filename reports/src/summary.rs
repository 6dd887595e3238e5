//! `summary.json`: the figures of one or several seeds of one scenario, with units, counts and
//! intervals; verdicts; and a small `ci` block that scripts may rely on.

use crate::estimate::Estimate;
use crate::metric::{METRICS, Measured, Metric, Reading, Scope};
use crate::rollouts::{self, RolloutStage};
use crate::steady::{self, Stationarity, Steadiness};
use crate::tenants;
use crate::threshold::{self, Outcome, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use windtunnel_base::refusal::Refusal;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::threshold::PHASES;

/// Version of the format; a change of meaning raises it.
pub const SCHEMA_VERSION: u32 = 1;

/// A share of steps outside the cost model's range that is worth a warning.
const EXTRAPOLATION_WORTH_SAYING: f64 = 0.001;

/// Figures by the name of the metric.
pub type Figures = BTreeMap<String, Estimate>;

/// The figures of one or several seeds of one scenario.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of this format; a change of meaning raises it.
    pub schema_version: u32,
    /// What was run.
    pub scenario: ScenarioId,
    /// What made this.
    pub generator: Generator,
    /// The seeds, in order.
    pub seeds: Vec<u64>,
    /// What of the scenario people look for first.
    pub setup: Setup,
    /// Whether the runs had settled: the worst of them.
    pub stationarity: Stationarity,
    /// What a reader must know before believing the figures.
    pub warnings: Vec<Warning>,
    /// Over all requests.
    pub metrics: Figures,
    /// By class of service.
    pub by_class: BTreeMap<String, Figures>,
    /// Before, during and after the scenario's disturbance; absent if it has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_phase: BTreeMap<String, Figures>,
    /// By tenant: the twelve that sent most, and `(others)` together; absent if there is only one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_tenant: BTreeMap<String, Figures>,
    /// The stages of kernels that are rolled out, in order; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutStage>,
    /// Requests turned away, by reason, all seeds together; reasons that did not occur are absent.
    pub refused_by_reason: BTreeMap<String, u64>,
    /// What came of the scenario's conditions.
    pub thresholds: Vec<Outcome>,
    /// Each seed's own window, verdict and figures.
    pub runs: Vec<RunSummary>,
    /// Small and stable, for scripts.
    pub ci: Ci,
}

/// What was run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioId {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// Hash of the scenario with all defaults; seeds excluded.
    pub hash: String,
}

/// What made this.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// `windtunnel`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What of the scenario people look for first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Replicas of all pools, at the start.
    pub replicas: u32,
    /// The routing policy.
    pub routing: String,
}

/// What a reader must know before believing the figures.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Warning {
    /// Its kind, for scripts.
    pub kind: WarningKind,
    /// What is the matter, in words.
    pub text: String,
}

/// Kinds of warnings.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// More arrives than can be served.
    Overloaded,
    /// Too short to have settled.
    TooShort,
    /// Steps outside the cost model's range.
    Extrapolated,
    /// Requests were under way when the run was cut off.
    CutOff,
}

/// One seed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSummary {
    /// The seed.
    pub seed: u64,
    /// Hash over everything that happened, in order.
    pub digest: String,
    /// Events handled.
    pub events: u64,
    /// What is measured, and whether it had settled.
    pub steady: Steadiness,
    /// This seed's own figures, in the units of `metrics`.
    pub metrics: BTreeMap<String, f64>,
    /// The same by class.
    pub by_class: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Small and stable, for scripts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ci {
    /// The worst of all conditions; `pass` if there are none.
    pub verdict: Verdict,
    /// Conditions that pass.
    pub passed: u32,
    /// Conditions that fail.
    pub failed: u32,
    /// Conditions that are undecided.
    pub undecided: u32,
    /// Digests in the order of seeds.
    pub digests: Vec<String>,
    /// Whether the runs had settled.
    pub stationarity: Stationarity,
}

impl Summary {
    /// The phases that have figures, in order of time.
    pub fn phases(&self) -> Vec<(&String, &Figures)> {
        let of = |phase: &&str| self.by_phase.get_key_value(*phase);
        PHASES.iter().filter_map(of).collect()
    }

    /// The figures of the runs of one scenario; one run per seed, sorted by seed here.
    ///
    /// `hash` identifies the scenario with all defaults, without seeds.
    pub fn from_runs(scenario: &Scenario, name: &str, hash: &str, runs: &[RunResult]) -> Self {
        let mut runs: Vec<&RunResult> = runs.iter().collect();
        runs.sort_by_key(|run| run.seed);
        let steadiness: Vec<Steadiness> = runs.iter().map(|run| steady::assess(run)).collect();
        let measured: Vec<Measured<'_>> = runs
            .iter()
            .zip(&steadiness)
            .map(|(run, steady)| Measured::new(scenario, run, steady.window))
            .collect();
        let whole: Vec<Scope<'_>> = measured.iter().map(Measured::whole).collect();
        let metrics = figures(&whole);
        let thresholds = threshold::evaluate_all(&scenario.thresholds, &measured);
        let stationarity = steadiness
            .iter()
            .map(|s| s.verdict)
            .max()
            .unwrap_or(Stationarity::TooShort);
        let classes = runs.first().map_or(&[][..], |run| &run.class_names[..]);
        let by_class = classes
            .iter()
            .enumerate()
            .map(|(i, class)| (class.clone(), figures(&of_class(&measured, i))))
            .collect();
        Self {
            schema_version: SCHEMA_VERSION,
            scenario: ScenarioId {
                name: name.to_owned(),
                purpose: scenario.purpose.clone(),
                hash: hash.to_owned(),
            },
            generator: Generator {
                name: "windtunnel".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            seeds: runs.iter().map(|run| run.seed).collect(),
            setup: Setup::of(scenario),
            stationarity,
            warnings: warnings(&steadiness, &metrics),
            metrics,
            by_class,
            by_phase: by_phase(&measured),
            by_tenant: tenants::figures(&measured),
            rollouts: rollouts::stages(&measured),
            refused_by_reason: refused(&measured),
            ci: Ci::of(&thresholds, &runs, stationarity),
            thresholds,
            runs: measured
                .iter()
                .zip(steadiness.iter().cloned())
                .map(|(m, steady)| RunSummary::of(m, steady))
                .collect(),
        }
    }
}

impl Setup {
    fn of(scenario: &Scenario) -> Self {
        // The policy's word is that of the file format.
        let routing = serde_json::to_value(&scenario.gateway.routing)
            .ok()
            .and_then(|v| Some(v.get("kind")?.as_str()?.to_owned()));
        Self {
            replicas: scenario.fleet.sizes().map(|(_, start, _)| start).sum(),
            routing: routing.unwrap_or_default(),
        }
    }
}

impl RunSummary {
    fn of(measured: &Measured<'_>, steady: Steadiness) -> Self {
        let classes = &measured.run.class_names;
        Self {
            seed: measured.run.seed,
            digest: measured.run.digest.clone(),
            events: measured.run.events,
            steady,
            metrics: values(&measured.whole()),
            by_class: classes
                .iter()
                .enumerate()
                .filter_map(|(i, class)| Some((class.clone(), values(&measured.class(i)?))))
                .collect(),
        }
    }
}

impl Ci {
    fn of(thresholds: &[Outcome], runs: &[&RunResult], stationarity: Stationarity) -> Self {
        let count = |verdict| thresholds.iter().filter(|t| t.verdict == verdict).count() as u32;
        Self {
            verdict: threshold::worst(thresholds.iter().map(|t| t.verdict)),
            passed: count(Verdict::Pass),
            failed: count(Verdict::Fail),
            undecided: count(Verdict::Undecided),
            digests: runs.iter().map(|run| run.digest.clone()).collect(),
            stationarity,
        }
    }
}

fn of_class<'a>(measured: &'a [Measured<'a>], class: usize) -> Vec<Scope<'a>> {
    measured.iter().filter_map(|m| m.class(class)).collect()
}

fn by_phase(measured: &[Measured<'_>]) -> BTreeMap<String, Figures> {
    let phases = measured.first().map_or(&[][..], |m| &m.run.phases[..]);
    phases
        .iter()
        .map(|phase| {
            let scopes: Vec<Scope<'_>> = measured
                .iter()
                .filter_map(|m| m.phase(&phase.name, None))
                .collect();
            (phase.name.clone(), figures(&scopes))
        })
        .collect()
}

fn figures(scopes: &[Scope<'_>]) -> Figures {
    let over = |metric: &Metric| {
        let readings: Vec<Reading> = scopes.iter().map(|s| (metric.read)(s)).collect();
        Estimate::over_seeds(metric.unit, &readings)
    };
    METRICS
        .iter()
        .filter_map(|m| Some((m.name.to_owned(), over(m)?)))
        .collect()
}

fn values(scope: &Scope<'_>) -> BTreeMap<String, f64> {
    METRICS
        .iter()
        .filter_map(|m| Some((m.name.to_owned(), (m.read)(scope).value()?)))
        .collect()
}

fn refused(measured: &[Measured<'_>]) -> BTreeMap<String, u64> {
    Refusal::ALL
        .iter()
        .enumerate()
        .map(|(i, reason)| {
            let n = measured.iter().map(|m| m.segment.all.refused[i]).sum();
            (reason.name().to_owned(), n)
        })
        .filter(|&(_, n)| n > 0)
        .collect()
}

fn warnings(steadiness: &[Steadiness], metrics: &Figures) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut say = |kind, text| warnings.push(Warning { kind, text });
    for (verdict, kind, what) in [
        (Stationarity::Growing, WarningKind::Overloaded, "overloaded"),
        (Stationarity::TooShort, WarningKind::TooShort, "not settled"),
    ] {
        let mut those = steadiness.iter().filter(|s| s.verdict == verdict);
        if let Some(first) = those.next() {
            let n = 1 + those.count();
            let whom = match (n, steadiness.len()) {
                (_, 1) => String::new(),
                (n, all) => format!(" ({n} of {all} seeds)"),
            };
            say(kind, format!("{what}{whom}: {}", first.evidence));
        }
    }
    let value = |name: &str| metrics.get(name).and_then(|e| e.value).unwrap_or(0.0);
    let outside = value("extrapolated_share");
    if outside >= EXTRAPOLATION_WORTH_SAYING {
        let percent = outside * 100.0;
        say(
            WarningKind::Extrapolated,
            format!("{percent:.1} % of steps are outside the cost model's range"),
        );
    }
    let unfinished = value("unfinished");
    if unfinished > 0.0 {
        say(
            WarningKind::CutOff,
            format!("{unfinished:.0} requests per seed were under way when the run was cut off"),
        );
    }
    warnings
}
