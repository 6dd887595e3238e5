//! The metrics: what each is called, counts and means. One table feeds `summary.json`, the
//! terminal, the HTML report and METRICS.md (a test compares the names).

use crate::steady::Window;
use windtunnel_base::quantity::Money;
use windtunnel_ledger::result::{Distribution, Population, RunResult, Segment};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::threshold::Statistic as Stat;

/// How each is computed.
pub mod formula;
/// The table.
mod table;

pub use table::METRICS;

/// Fewer values than this beyond a quantile cannot support it.
pub const MIN_BEYOND_QUANTILE: f64 = 5.0;

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Less.
    Lower,
    /// More.
    Higher,
    /// Neither: it describes the load, not the service.
    Neutral,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its stable name.
    pub name: &'static str,
    /// Its unit: `ms`, `req/s`, `tokens/s`, `USD`, `Wh`, `tokens`, `requests`, `share` (0 to 1), …
    pub unit: &'static str,
    /// Which way is better.
    pub direction: Direction,
    /// Over whom.
    pub population: &'static str,
    /// How it is computed.
    pub formula: &'static str,
    /// The key of `vllm bench serve` that means the same.
    pub vllm: Option<&'static str>,
    /// Computes it.
    pub read: fn(&Scope<'_>) -> Reading,
}

/// The metric of a name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|m| m.name == name)
}

/// What a metric says about one run.
#[derive(Clone, PartialEq, Debug)]
pub enum Reading {
    /// A figure, and how many observations it rests on.
    Value {
        /// In the metric's unit.
        value: f64,
        /// Observations.
        n: u64,
    },
    /// It exists here, but the observations cannot support a figure.
    Withheld {
        /// Observations.
        n: u64,
        /// Why.
        reason: String,
    },
    /// The scenario cannot have it.
    Absent,
}

impl Reading {
    /// The figure, if there is one.
    pub const fn value(&self) -> Option<f64> {
        match self {
            Self::Value { value, .. } => Some(*value),
            Self::Withheld { .. } | Self::Absent => None,
        }
    }
}

/// One run, its measured window and its measured segments as one.
#[derive(Debug)]
pub struct Measured<'a> {
    /// The run.
    pub run: &'a RunResult,
    /// What is measured.
    pub window: Window,
    /// The measured segments as one.
    pub segment: Segment,
    /// By class: whether there are objectives.
    objectives: Vec<bool>,
    verification: bool,
    /// What a bad answer that was accepted costs, and a good one that was rejected, USD.
    pub(crate) error_costs: (f64, f64),
}

impl<'a> Measured<'a> {
    /// Merges the measured segments of a run of a scenario.
    pub fn new(scenario: &Scenario, run: &'a RunResult, window: Window) -> Self {
        let objectives = run
            .class_names
            .iter()
            .map(|name| {
                scenario
                    .classes
                    .get(name)
                    .is_some_and(|c| c.ttft.is_some() || c.tpot.is_some() || c.e2e.is_some())
            })
            .collect();
        Self {
            run,
            window,
            segment: window.merge(run),
            objectives,
            verification: scenario.verification.is_some(),
            error_costs: scenario.verification.as_ref().map_or((0.0, 0.0), |v| {
                let usd = |cost: Money| cost.0.as_usd();
                (usd(v.false_accept_cost), usd(v.false_reject_cost))
            }),
        }
    }

    /// All requests, replicas and books.
    pub fn whole(&self) -> Scope<'_> {
        Scope {
            population: &self.segment.all,
            seconds: self.window.seconds(),
            sending_seconds: self.sending_seconds(),
            objectives: self.objectives.contains(&true),
            verification: self.verification,
            whole: Some(self),
        }
    }

    /// The requests of one class. A run of a single class keeps no figures by class; they are
    /// those of all.
    pub fn class(&self, class: usize) -> Option<Scope<'_>> {
        let population = match self.run.class_names.len() {
            1 if class == 0 => &self.segment.all,
            _ => self.segment.classes.get(class)?,
        };
        Some(Scope {
            population,
            seconds: self.window.seconds(),
            sending_seconds: self.sending_seconds(),
            objectives: self.objectives.get(class).copied().unwrap_or(false),
            verification: self.verification,
            whole: None,
        })
    }

    /// The requests of a phase of the run, of one class or of all; none if the run has no such phase.
    pub fn phase(&self, name: &str, class: Option<usize>) -> Option<Scope<'_>> {
        let phase = self.run.phases.iter().find(|phase| phase.name == name)?;
        let (population, objectives) = match class {
            None => (&phase.all, self.objectives.contains(&true)),
            Some(class) => {
                let only = class == 0 && phase.classes.is_empty();
                let population = match only {
                    true => &phase.all,
                    false => phase.classes.get(class)?,
                };
                (population, self.objectives.get(class).copied()?)
            }
        };
        let sending = phase.all.last_sent_ns.saturating_sub(phase.from_ns);
        Some(Scope {
            population,
            seconds: (phase.to_ns - phase.from_ns) as f64 / 1e9,
            sending_seconds: sending as f64 / 1e9,
            objectives,
            verification: self.verification,
            whole: None,
        })
    }

    /// From the begin of the window to the last request, of whichever class.
    fn sending_seconds(&self) -> f64 {
        let last = self.segment.all.last_sent_ns;
        last.saturating_sub(self.window.from_ns) as f64 / 1e9
    }
}

/// What a metric is computed over: all requests of a run, or those of one class.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The requests sent in the measured window.
    pub population: &'a Population,
    /// Length of the measured window, s.
    pub seconds: f64,
    /// Length of the part of it in which requests were sent, s.
    pub sending_seconds: f64,
    /// Whether any of the requests has objectives.
    pub objectives: bool,
    /// Whether the scenario has a verifier.
    pub verification: bool,
    /// The run, for metrics that no single class has.
    pub whole: Option<&'a Measured<'a>>,
}

/// The distribution of times behind a family of metrics: `ttft`, `tpot`, `itl`, `e2e`, `queue`.
pub fn distribution<'a>(family: &str, population: &'a Population) -> Option<&'a Distribution> {
    match family {
        "ttft" => Some(&population.ttft),
        "tpot" => Some(&population.tpot),
        "itl" => Some(&population.itl),
        "e2e" => Some(&population.e2e),
        "queue" => Some(&population.queue),
        _ => None,
    }
}

/// A statistic of a distribution in ms; quantiles that the sample cannot support are withheld.
pub fn statistic(of: &Distribution, stat: Stat) -> Reading {
    let n = of.count();
    let ns = match stat {
        Stat::Mean => of.mean(),
        Stat::Min => of.min().map(|ns| ns as f64),
        Stat::Max => of.max().map(|ns| ns as f64),
        Stat::Quantile(q) => {
            // A grain of tolerance: 50 * (1 - 0.9) is a hair below 5 in floats.
            let beyond = n as f64 * (1.0 - q);
            if n > 0 && beyond < MIN_BEYOND_QUANTILE - 1e-6 {
                let needed = (MIN_BEYOND_QUANTILE / (1.0 - q) - 1e-6).ceil();
                let name = quantile_name(q);
                let reason =
                    format!("{name} needs at least {needed:.0} values per run, there are {n}");
                return Reading::Withheld { n, reason };
            }
            of.quantile(q)
        }
    };
    ns.map_or(Reading::Absent, |ns| Reading::Value { value: ns / 1e6, n })
}

/// `p99` for 0.99, without the noise of `0.999 * 100`.
pub(crate) fn quantile_name(q: f64) -> String {
    format!("p{}", (q * 1e5).round() / 1e3)
}
