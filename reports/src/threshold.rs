//! Conditions on metrics. With several seeds a condition passes if the whole 95 % interval does,
//! fails if none of it does, and is undecided otherwise; with one seed the figure decides.

use crate::estimate::Estimate;
use crate::metric::{self, Measured, Reading, Stat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What came of a condition, or of all.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// Not enough evidence.
    Undecided,
    /// It does not hold.
    Fail,
}

/// How a metric compares with its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// Less.
    Below,
    /// Less or equal.
    AtMost,
    /// More.
    Above,
    /// More or equal.
    AtLeast,
}

impl Comparison {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
            Self::Above => value > limit,
            Self::AtLeast => value >= limit,
        }
    }

    /// How far inside the limit a value is; negative outside.
    fn margin(self, value: f64, limit: f64) -> f64 {
        match self {
            Self::Below | Self::AtMost => limit - value,
            Self::Above | Self::AtLeast => value - limit,
        }
    }
}

/// A condition on a metric.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    /// As the scenario has it.
    pub text: String,
    /// A metric of the table, or with `stat` a family: `ttft`, `tpot`, `itl`, `e2e`, `queue`.
    pub metric: String,
    /// A statistic of the family.
    pub stat: Option<Stat>,
    /// Of one class only.
    pub class: Option<String>,
    /// How it compares.
    pub comparison: Comparison,
    /// The limit, in the metric's unit (families: ms).
    pub limit: f64,
}

/// What came of a condition.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The condition, as the scenario has it.
    pub condition: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// The metric it is about: a name of the table, or a family.
    pub metric: String,
    /// The statistic, if it is about a family: `mean`, `min`, `max`, or `p99` and the like.
    pub stat: Option<String>,
    /// The class it is about; null for all requests.
    pub class: Option<String>,
    /// The figure.
    pub value: Option<f64>,
    /// Its 95 % interval over seeds; null with a single seed.
    pub ci95: Option<[f64; 2]>,
    /// The limit.
    pub limit: f64,
    /// Unit of all of these.
    pub unit: String,
    /// How far the figure is inside the limit; negative outside.
    pub margin: Option<f64>,
    /// Why it is undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Evaluates a condition on the runs of one scenario.
pub fn evaluate(condition: &Condition, runs: &[Measured<'_>]) -> Outcome {
    let unit = match condition.stat {
        Some(_) => "ms",
        None => metric::find(&condition.metric).map_or("", |m| m.unit),
    };
    let readings: Vec<Reading> = runs.iter().map(|run| read(condition, run)).collect();
    let estimate = Estimate::over_seeds(unit, &readings);
    let mut outcome = Outcome {
        condition: condition.text.clone(),
        verdict: Verdict::Undecided,
        metric: condition.metric.clone(),
        stat: condition.stat.map(stat_name),
        class: condition.class.clone(),
        value: None,
        ci95: None,
        limit: condition.limit,
        unit: unit.to_owned(),
        margin: None,
        reason: None,
    };
    let Some(estimate) = estimate else {
        outcome.reason = Some("this run has no such figure".to_owned());
        return outcome;
    };
    let Some(value) = estimate.value else {
        outcome.reason = estimate.reason;
        return outcome;
    };
    let (comparison, limit) = (condition.comparison, condition.limit);
    outcome.value = Some(value);
    outcome.ci95 = estimate.ci95;
    outcome.margin = Some(comparison.margin(value, limit));
    let [low, high] = estimate.ci95.unwrap_or([value, value]);
    outcome.verdict = match (comparison.holds(low, limit), comparison.holds(high, limit)) {
        (true, true) => Verdict::Pass,
        (false, false) => Verdict::Fail,
        _ => {
            outcome.reason = Some(format!(
                "the limit lies within the interval of {} seeds",
                runs.len()
            ));
            Verdict::Undecided
        }
    };
    outcome
}

/// The worst of several; pass if there are none.
pub fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    verdicts.max().unwrap_or(Verdict::Pass)
}

fn read(condition: &Condition, run: &Measured<'_>) -> Reading {
    let scope = match &condition.class {
        None => Some(run.whole()),
        Some(class) => run
            .run
            .class_names
            .iter()
            .position(|name| name == class)
            .and_then(|i| run.class(i)),
    };
    let Some(scope) = scope else {
        return Reading::Absent;
    };
    match condition.stat {
        Some(stat) => metric::distribution(&condition.metric, scope.population)
            .map_or(Reading::Absent, |d| metric::statistic(d, stat)),
        None => metric::find(&condition.metric).map_or(Reading::Absent, |m| (m.read)(&scope)),
    }
}

fn stat_name(stat: Stat) -> String {
    match stat {
        Stat::Mean => "mean".to_owned(),
        Stat::Min => "min".to_owned(),
        Stat::Max => "max".to_owned(),
        // Without the noise of 0.999 * 100.
        Stat::Quantile(q) => format!("p{}", (q * 1e5).round() / 1e3),
    }
}
