//! Conditions on metrics. With several seeds a condition passes if the whole 95 % interval does,
//! fails if none of it does, and is undecided otherwise; with one seed the figure decides.

use crate::estimate::Estimate;
use crate::metric::{self, Measured, Reading};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_scenarios::threshold::{Comparison, Limit, Operand, Statistic, Threshold};

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

fn holds(comparison: Comparison, value: f64, limit: f64) -> bool {
    match comparison {
        Comparison::Below => value < limit,
        Comparison::AtMost => value <= limit,
        Comparison::Above => value > limit,
        Comparison::AtLeast => value >= limit,
    }
}

/// How far inside the limit a value is; negative outside.
fn margin(comparison: Comparison, value: f64, limit: f64) -> f64 {
    match comparison {
        Comparison::Below | Comparison::AtMost => limit - value,
        Comparison::Above | Comparison::AtLeast => value - limit,
    }
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
    pub statistic: Option<String>,
    /// The class it is about; null for all requests.
    pub class: Option<String>,
    /// The phase it is about; absent for the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
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

/// Evaluates conditions on the runs of one scenario. A condition that cannot be read (checked
/// scenarios have none) is undecided.
pub fn evaluate_all(conditions: &[String], runs: &[Measured<'_>]) -> Vec<Outcome> {
    conditions
        .iter()
        .map(|text| match text.parse() {
            Ok(condition) => evaluate(&condition, runs),
            Err(error) => Outcome {
                condition: text.clone(),
                verdict: Verdict::Undecided,
                metric: String::new(),
                statistic: None,
                class: None,
                phase: None,
                value: None,
                ci95: None,
                limit: 0.0,
                unit: String::new(),
                margin: None,
                reason: Some(format!("not a condition: {error}")),
            },
        })
        .collect()
}

/// Evaluates a condition on the runs of one scenario.
pub fn evaluate(condition: &Threshold, runs: &[Measured<'_>]) -> Outcome {
    let operand = &condition.operand;
    let mut outcome = Outcome {
        condition: condition.text.clone(),
        verdict: Verdict::Undecided,
        metric: operand.metric.clone(),
        statistic: operand.statistic.map(statistic_name),
        class: operand.class.clone(),
        phase: operand.phase.clone(),
        value: None,
        ci95: None,
        limit: 0.0,
        unit: operand.unit.to_owned(),
        margin: None,
        reason: None,
    };
    let estimate = match figure(operand, runs) {
        Ok(estimate) => estimate,
        Err(reason) => {
            outcome.reason = Some(reason);
            return outcome;
        }
    };
    let value = estimate.value.unwrap_or_default();
    outcome.value = Some(value);
    outcome.ci95 = estimate.ci95;
    // What is compared with the limit, and its interval.
    let (limit, [low, high]) = match &condition.limit {
        Limit::Value(limit) => (*limit, estimate.ci95.unwrap_or([value, value])),
        Limit::Times(factor, other) => match relative(operand, *factor, other, runs) {
            Ok((limit, [low, high])) => (limit, [limit + low, limit + high]),
            Err(reason) => {
                outcome.reason = Some(reason);
                return outcome;
            }
        },
    };
    let comparison = condition.comparison;
    outcome.limit = limit;
    outcome.margin = Some(margin(comparison, value, limit));
    outcome.verdict = match (
        holds(comparison, low, limit),
        holds(comparison, high, limit),
    ) {
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

/// A figure over seeds that has a value, or why there is none.
fn figure(operand: &Operand, runs: &[Measured<'_>]) -> Result<Estimate, String> {
    let readings: Vec<Reading> = runs.iter().map(|run| read(operand, run)).collect();
    let estimate = Estimate::over_seeds(operand.unit, &readings);
    match estimate {
        None => Err("this run has no such figure".to_owned()),
        Some(Estimate {
            value: None,
            reason,
            ..
        }) => Err(reason.unwrap_or_default()),
        Some(estimate) => Ok(estimate),
    }
}

/// A limit that is another figure of each run: its mean, and the interval of the distance of
/// the first figure from it, taken run by run because both rise and fall with the seed.
fn relative(
    operand: &Operand,
    factor: f64,
    other: &Operand,
    runs: &[Measured<'_>],
) -> Result<(f64, [f64; 2]), String> {
    let limit = figure(other, runs)?.value.unwrap_or_default() * factor;
    let distances: Vec<Reading> = runs
        .iter()
        .map(|run| match (read(operand, run), read(other, run)) {
            (Reading::Value { value, n }, Reading::Value { value: other, .. }) => Reading::Value {
                value: value - factor * other,
                n,
            },
            _ => Reading::Absent,
        })
        .collect();
    let distance = Estimate::over_seeds(operand.unit, &distances);
    let found = distance.and_then(|d| Some(d.ci95.unwrap_or([d.value?, d.value?])));
    found
        .map(|interval| (limit, interval))
        .ok_or_else(|| "no run has both figures".to_owned())
}

/// The worst of several; pass if there are none.
pub fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    verdicts.max().unwrap_or(Verdict::Pass)
}

fn read(condition: &Operand, run: &Measured<'_>) -> Reading {
    let class = match &condition.class {
        None => None,
        Some(class) => match run.run.class_names.iter().position(|name| name == class) {
            None => return Reading::Absent,
            found => found,
        },
    };
    let scope = match (&condition.phase, class) {
        (Some(phase), class) => run.phase(phase, class),
        (None, Some(class)) => run.class(class),
        (None, None) => Some(run.whole()),
    };
    let Some(scope) = scope else {
        return Reading::Absent;
    };
    match condition.statistic {
        Some(stat) => metric::distribution(&condition.metric, scope.population)
            .map_or(Reading::Absent, |d| metric::statistic(d, stat)),
        None => metric::find(&condition.metric).map_or(Reading::Absent, |m| (m.read)(&scope)),
    }
}

fn statistic_name(statistic: Statistic) -> String {
    match statistic {
        Statistic::Mean => "mean".to_owned(),
        Statistic::Min => "min".to_owned(),
        Statistic::Max => "max".to_owned(),
        Statistic::Quantile(q) => metric::quantile_name(q),
    }
}
