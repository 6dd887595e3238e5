//! One figure over seeds: the mean of the seeds' own figures, the count of all observations, and
//! Student's 95 % interval. Or none, with the reason.

use crate::metric::Reading;
use crate::stats;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One figure, as in `summary.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// Mean over seeds of the seeds' own figures; null if one of them cannot support it.
    pub value: Option<f64>,
    /// Unit of `value` and `ci95`.
    pub unit: String,
    /// Observations, of all seeds together.
    pub n: u64,
    /// 95 % interval of the mean over seeds (Student's t); null with a single seed.
    pub ci95: Option<[f64; 2]>,
    /// Why there is no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Estimate {
    /// From the readings of all seeds; `None` if the scenario cannot have the metric.
    pub fn over_seeds(unit: &str, readings: &[Reading]) -> Option<Self> {
        let mut values = Vec::with_capacity(readings.len());
        let (mut total, mut withheld) = (0, None);
        for reading in readings {
            match reading {
                Reading::Value { value, n } => {
                    values.push(*value);
                    total += n;
                }
                Reading::Withheld { n, reason } => {
                    total += n;
                    withheld.get_or_insert_with(|| reason.clone());
                }
                Reading::Absent => {}
            }
        }
        if values.is_empty() && withheld.is_none() {
            return None;
        }
        if withheld.is_none() && values.len() < readings.len() {
            withheld = Some(format!(
                "only {} of {} seeds have it",
                values.len(),
                readings.len()
            ));
        }
        let shown = withheld.is_none();
        Some(Self {
            value: stats::mean(&values).filter(|_| shown),
            unit: unit.to_owned(),
            n: total,
            ci95: stats::ci95(&values).filter(|_| shown),
            reason: withheld,
        })
    }

    /// Half the width of the interval.
    pub fn half_width(&self) -> Option<f64> {
        self.ci95.map(|[low, high]| (high - low) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: f64, n: u64) -> Reading {
        Reading::Value { value, n }
    }

    #[test]
    fn means_over_seeds_counts_pooled() {
        let e = Estimate::over_seeds("ms", &[value(10.0, 100), value(14.0, 300)]).unwrap();
        assert_eq!((e.value, e.n), (Some(12.0), 400));
        // s = 2.828, s / sqrt(2) = 2, t(1) = 12.706.
        assert!((e.half_width().unwrap() - 25.412).abs() < 1e-3);
        let one = Estimate::over_seeds("ms", &[value(10.0, 100)]).unwrap();
        assert_eq!((one.value, one.ci95), (Some(10.0), None));
    }

    #[test]
    fn what_one_seed_cannot_support_is_not_shown() {
        let withheld = Reading::Withheld {
            n: 80,
            reason: "too few".into(),
        };
        let e = Estimate::over_seeds("ms", &[value(10.0, 600), withheld]).unwrap();
        assert_eq!((e.value, e.ci95, e.n), (None, None, 680));
        assert_eq!(e.reason.as_deref(), Some("too few"));
        let e = Estimate::over_seeds("ms", &[value(10.0, 600), Reading::Absent]).unwrap();
        assert_eq!(e.reason.as_deref(), Some("only 1 of 2 seeds have it"));
        assert_eq!(Estimate::over_seeds("ms", &[Reading::Absent]), None);
    }
}
