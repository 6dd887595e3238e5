//! Two runs of the same traffic: paired differences over common seeds. Under one seed both face the
//! same requests, so the difference is free of what they share, and Student's t applies to the
//! seeds' differences.

use crate::metric::{self, Direction, METRICS, Metric};
use crate::render::number::{difference, figure};
use crate::stats;
use crate::summary::{RunSummary, Summary};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Why two runs cannot be compared.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompareError {
    /// No common seed.
    #[error(
        "nothing pairs: `{base}` has seeds {base_seeds:?}, `{other}` has {other_seeds:?}; \
         run both with the same seeds"
    )]
    NothingPairs {
        /// One.
        base: String,
        /// Its seeds.
        base_seeds: Vec<u64>,
        /// The other.
        other: String,
        /// Its seeds.
        other_seeds: Vec<u64>,
    },
    /// Formats of different versions.
    #[error("summaries of versions {0} and {1} do not mean the same")]
    Versions(u32, u32),
}

/// What a difference says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The interval lies on the good side of zero.
    Better,
    /// The interval lies on the bad side of zero.
    Worse,
    /// The interval lies on one side of zero, and the metric has no good side.
    Different,
    /// The interval holds zero, or there is a single pair.
    NoDifferenceShown,
    /// Every pair is equal to the last digit.
    Same,
}

impl Change {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Different => "different",
            Self::NoDifferenceShown => "no difference shown",
            Self::Same => "same",
        }
    }
}

/// One metric of both.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// The metric.
    pub metric: String,
    /// The class; null for all requests.
    pub class: Option<String>,
    /// Its unit.
    pub unit: String,
    /// Mean of the base over the pairs.
    pub base: f64,
    /// Mean of the other over the pairs.
    pub other: f64,
    /// Mean of other − base.
    pub difference: f64,
    /// Its 95 % interval; null with a single pair.
    pub ci95: Option<[f64; 2]>,
    /// `difference` over `base`; null if the base is zero.
    pub relative: Option<f64>,
    /// Pairs.
    pub pairs: u32,
    /// What it says.
    pub change: Change,
}

/// Two runs, compared.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Name of the base.
    pub base: String,
    /// Name of the other.
    pub other: String,
    /// Common seeds.
    pub seeds: Vec<u64>,
    /// Whether every common seed gave the same digest: then everything is equal.
    pub identical: bool,
    /// Every metric that both have, over all requests, then by class.
    pub metrics: Vec<Paired>,
}

/// Compares `other` with `base`.
///
/// # Errors
/// If no seed is common, or the formats differ.
pub fn compare(base: &Summary, other: &Summary) -> Result<Comparison, CompareError> {
    if base.schema_version != other.schema_version {
        return Err(CompareError::Versions(
            base.schema_version,
            other.schema_version,
        ));
    }
    let pairs: Vec<(&RunSummary, &RunSummary)> = base
        .runs
        .iter()
        .filter_map(|b| Some((b, other.runs.iter().find(|o| o.seed == b.seed)?)))
        .collect();
    if pairs.is_empty() {
        return Err(CompareError::NothingPairs {
            base: base.scenario.name.clone(),
            base_seeds: base.seeds.clone(),
            other: other.scenario.name.clone(),
            other_seeds: other.seeds.clone(),
        });
    }
    let mut metrics: Vec<Paired> = METRICS
        .iter()
        .filter_map(|m| paired(m, None, &pairs))
        .collect();
    for class in base.by_class.keys().filter(|_| base.by_class.len() > 1) {
        metrics.extend(
            METRICS
                .iter()
                .filter_map(|m| paired(m, Some(class), &pairs)),
        );
    }
    Ok(Comparison {
        base: base.scenario.name.clone(),
        other: other.scenario.name.clone(),
        seeds: pairs.iter().map(|(b, _)| b.seed).collect(),
        identical: pairs.iter().all(|(b, o)| b.digest == o.digest),
        metrics,
    })
}

fn paired(
    metric: &Metric,
    class: Option<&String>,
    pairs: &[(&RunSummary, &RunSummary)],
) -> Option<Paired> {
    let value = |run: &RunSummary| match class {
        None => run.metrics.get(metric.name).copied(),
        Some(class) => run.by_class.get(class)?.get(metric.name).copied(),
    };
    // A figure that some run lacks would compare different sets of seeds.
    let values: Vec<(f64, f64)> = pairs
        .iter()
        .map(|(b, o)| Some((value(b)?, value(o)?)))
        .collect::<Option<_>>()?;
    let differences: Vec<f64> = values.iter().map(|(b, o)| o - b).collect();
    let base = stats::mean(&values.iter().map(|v| v.0).collect::<Vec<_>>())?;
    let other = stats::mean(&values.iter().map(|v| v.1).collect::<Vec<_>>())?;
    let difference = stats::mean(&differences)?;
    let ci95 = stats::ci95(&differences);
    let change = match ci95 {
        _ if differences.iter().all(|&d| d == 0.0) => Change::Same,
        Some([low, high]) if low > 0.0 || high < 0.0 => match metric.direction {
            Direction::Neutral => Change::Different,
            Direction::Lower if difference < 0.0 => Change::Better,
            Direction::Higher if difference > 0.0 => Change::Better,
            _ => Change::Worse,
        },
        _ => Change::NoDifferenceShown,
    };
    Some(Paired {
        metric: metric.name.to_owned(),
        class: class.cloned(),
        unit: metric.unit.to_owned(),
        base,
        other,
        difference,
        ci95,
        relative: (base != 0.0).then(|| difference / base),
        pairs: values.len() as u32,
        change,
    })
}

impl Comparison {
    /// The comparison as text of at most 100 columns. Metrics whose relative change is below
    /// `threshold` (0 to 1) are hidden, and so are those that are the same; `all` shows all.
    pub fn table(&self, threshold: f64, all: bool) -> String {
        let mut text = format!(
            "{} against {}, {} common seed{}\n",
            self.other,
            self.base,
            self.seeds.len(),
            if self.seeds.len() == 1 { "" } else { "s" }
        );
        if self.identical {
            text.push_str("identical: every common seed gives the same digest\n");
            return text;
        }
        let _ = writeln!(
            text,
            "\n{:27}{:>17}{:>17}{:>20}  verdict",
            "metric", "base", "other", "change (95 %)"
        );
        let (mut small, mut unclear) = (0, 0);
        for m in &self.metrics {
            if !all && (m.class.is_some() || metric::find(&m.metric).is_none()) {
                continue;
            }
            if !all && (m.change == Change::Same || m.relative.is_some_and(|r| r.abs() < threshold))
            {
                small += 1;
                continue;
            }
            // With one pair nothing can be shown, so everything is.
            if !all && m.change == Change::NoDifferenceShown && m.pairs > 1 {
                unclear += 1;
                continue;
            }
            let name = match &m.class {
                Some(class) => format!("{} {class}", m.metric),
                None => m.metric.clone(),
            };
            let name: String = name.chars().take(27).collect();
            let _ = writeln!(
                text,
                "{name:27}{:>17}{:>17}{:>20}  {}",
                figure(m.base, &m.unit),
                figure(m.other, &m.unit),
                change(m),
                m.change.words()
            );
        }
        if unclear > 0 {
            let _ = writeln!(text, "{unclear} metrics show no difference beyond chance");
        }
        if small > 0 {
            let _ = writeln!(
                text,
                "{small} metrics are the same, or differ by less than asked for"
            );
        }
        if self.seeds.len() == 1 {
            text.push_str("one pair has no interval: run several seeds for a verdict\n");
        }
        text
    }
}

/// `+7.2 % ± 1.9`, or the plain difference where there is nothing to relate it to.
fn change(m: &Paired) -> String {
    let half = m.ci95.map(|[low, high]| (high - low) / 2.0);
    match m.relative {
        Some(relative) if m.unit != "share" => {
            let width = half.map_or(String::new(), |h| {
                format!(" ± {:.1}", h / m.base.abs() * 100.0)
            });
            format!("{:+.1} %{width}", relative * 100.0)
        }
        _ => {
            let sign = if m.difference > 0.0 { "+" } else { "" };
            let width = half.map_or(String::new(), |h| format!(" ± {}", difference(h, &m.unit)));
            format!("{sign}{}{width}", difference(m.difference, &m.unit))
        }
    }
}
