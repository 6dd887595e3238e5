//! Cases with a known answer: a closed form, a published table, an exact replay. Each runs
//! through the simulator's own components, so a case that passes says something about what users
//! get. `windtunnel validate` prints them; other parameters than the catalogue's can be tried.

use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Runs scenarios for cases, in independent replications.
mod lab;
/// Queueing theory: V-B1 to V-B7.
mod queueing;
/// Many servers, sample paths and arrivals: V-B8 to V-B10.
mod traffic;
/// Business hours of regions: E13.
mod regions;
/// Batching and KV memory: V-C1 to V-C6.
mod batching;
/// Static batches of similar lengths: F12.
mod buckets;
/// Load balancing: V-L1 and V-L2.
mod balancing;
/// Retries and metastability: V-M1 to V-M4.
mod metastability;
/// Hashing, and balls in bins: V-L3 to V-L6.
mod hashing;
/// Caches: V-H1 to V-H3.
mod caches;
/// Stored answers: V-H4 to V-H10.
mod answers;
/// Many who ask for the same at once.
mod stampedes;
/// Answers kept near to clients: I28.
mod edges;
/// Answers to similar questions: V-K3 and V-K4.
mod similar;
/// Verifiers: V-K2 and V-K6.
mod verifying;
/// Routing by prefix, and prefix caches: V-P1 to V-P8.
mod prefixes;
/// The same over a public trace.
mod prefix_traces;
/// What gateways share: V-R1.
mod sharing;
/// Prompt caches that are paid for by the token: V-Z4.
mod caching_prices;
/// Token-level methods and formats: V-T, V-Q and E-06.
mod tokens;
/// The gateway's stages: V-R2, C-03.
mod stages;
/// Fleets whose size follows their load: V-E1 to V-E3, E01 and others.
mod scaling;
/// What autoscalers see, and when.
mod autoscalers;
/// Kernels that drift: V-D5 to V-D7, C06.
mod drift;
/// Quantised variants of a model: I26.
mod tiers;
/// Kernels that come into use in stages: V-S1, B09, C14.
mod rollout;
/// Traces that are replayed without time.
mod trace;
/// Plain programs for what has no formula.
mod naive;
/// Reference formulas, each from its source, for the other files.
pub mod theory;

/// A parameter of a case.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name in `--set`.
    pub name: &'static str,
    /// Its value if a point does not say otherwise.
    pub default: &'static str,
    /// What it means, with its unit.
    pub doc: &'static str,
}

/// One parameter setting of a case, as name and value.
pub type Setting = &'static [(&'static str, &'static str)];

/// A case of the catalogue.
#[derive(Clone, Copy)]
pub struct Case {
    /// Such as `V-B1`.
    pub id: &'static str,
    /// What system it is, in a few words.
    pub title: &'static str,
    /// Where the expected value comes from.
    pub source: &'static str,
    /// What can be changed.
    pub params: &'static [Param],
    /// The catalogue's points; one is run with each setting.
    pub points: &'static [Setting],
    /// Runs one point.
    pub run: fn(&Point<'_>) -> Result<Vec<Check>, CaseError>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("id", &self.id)
            .field("title", &self.title)
            .finish_non_exhaustive()
    }
}

/// One comparison: what theory says and what the simulator did.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Check {
    /// What is compared.
    pub name: String,
    /// What theory or the published table says.
    pub expected: f64,
    /// What the simulator did.
    pub measured: f64,
    /// Largest allowed distance, in the same unit.
    pub tolerance: f64,
    /// Where the tolerance comes from: `2 %`, `3 standard errors`, `exact`.
    pub basis: String,
}

impl Check {
    /// Equal to the last bit.
    pub fn exact(name: impl Into<String>, expected: f64, measured: f64) -> Self {
        Self {
            name: name.into(),
            expected,
            measured,
            tolerance: 0.0,
            basis: "exact".into(),
        }
    }

    /// Equal to so many printed digits after the point.
    pub fn digits(name: impl Into<String>, expected: f64, measured: f64, digits: u32) -> Self {
        let tolerance = 0.5001 * 10_f64.powi(-(digits as i32));
        Self {
            name: name.into(),
            expected,
            measured,
            tolerance,
            basis: format!("{digits} digits"),
        }
    }

    /// Within a share of the expected value.
    pub fn relative(name: impl Into<String>, expected: f64, measured: f64, share: f64) -> Self {
        let tolerance = share * expected.abs();
        Self {
            name: name.into(),
            expected,
            measured,
            tolerance,
            basis: format!("{:.3} %", share * 100.0),
        }
    }

    /// Within a fixed distance.
    pub fn within(name: impl Into<String>, expected: f64, measured: f64, tolerance: f64) -> Self {
        Self {
            name: name.into(),
            expected,
            measured,
            tolerance,
            basis: "absolute".into(),
        }
    }

    /// Within a share of the expected value, or three standard errors if the run was too short for
    /// that; the standard error comes from independent replications.
    pub fn sampled(name: impl Into<String>, expected: f64, sample: &Sampled, share: f64) -> Self {
        let (by_share, by_noise) = (share * expected.abs(), 3.0 * sample.standard_error);
        let (tolerance, basis) = if by_noise > by_share {
            (
                by_noise,
                format!("3 standard errors (wider than {:.1} %)", share * 100.0),
            )
        } else {
            (by_share, format!("{:.1} %", share * 100.0))
        };
        Self {
            name: name.into(),
            expected,
            measured: sample.mean,
            tolerance,
            basis,
        }
    }

    /// Two sampled figures that should be the same: within a share of the expected one, or three
    /// standard errors of their difference if the runs were too short for that.
    pub fn both_sampled(
        name: impl Into<String>,
        expected: &Sampled,
        measured: &Sampled,
        share: f64,
    ) -> Self {
        let difference = Sampled {
            mean: measured.mean,
            standard_error: expected.standard_error.hypot(measured.standard_error),
        };
        Self::sampled(name, expected.mean, &difference, share)
    }

    /// Within a fixed distance, or three standard errors if the run was too short for that.
    pub fn sampled_within(
        name: impl Into<String>,
        expected: f64,
        sample: &Sampled,
        distance: f64,
    ) -> Self {
        let by_noise = 3.0 * sample.standard_error;
        let (tolerance, basis) = if by_noise > distance {
            (
                by_noise,
                format!("3 standard errors (wider than {distance})"),
            )
        } else {
            (distance, "absolute".into())
        };
        Self {
            name: name.into(),
            expected,
            measured: sample.mean,
            tolerance,
            basis,
        }
    }

    /// At most `limit`.
    pub fn at_most(name: impl Into<String>, limit: f64, measured: f64) -> Self {
        let tolerance = (limit - measured.min(limit)).abs();
        Self {
            name: name.into(),
            expected: limit,
            measured,
            tolerance,
            basis: "at most".into(),
        }
    }

    /// At least `limit`.
    pub fn at_least(name: impl Into<String>, limit: f64, measured: f64) -> Self {
        let tolerance = (measured.max(limit) - limit).abs();
        Self {
            name: name.into(),
            expected: limit,
            measured,
            tolerance,
            basis: "at least".into(),
        }
    }

    /// Whether it holds. What is not finite never does.
    pub fn holds(&self) -> bool {
        self.expected.is_finite()
            && self.tolerance.is_finite()
            && (self.measured - self.expected).abs() <= self.tolerance
    }
}

/// A mean over independent replications, and its standard error.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampled {
    /// Mean over replications.
    pub mean: f64,
    /// Standard error of that mean.
    pub standard_error: f64,
}

impl Sampled {
    /// From the values of the replications; at least one.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance =
            values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0).max(1.0);
        Self {
            mean,
            standard_error: (variance / n).sqrt(),
        }
    }
}

/// Why a case did not run.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// It needs files that are not here.
    #[error("needs {0}; give --traces DIR or set WINDTUNNEL_TRACES")]
    NeedsFiles(String),
    /// A parameter is wrong.
    #[error("{name} = `{value}`: {reason}")]
    Parameter {
        /// Which.
        name: String,
        /// What was given.
        value: String,
        /// Why that cannot be.
        reason: String,
    },
    /// The simulator refused or broke.
    #[error("{0}")]
    Run(String),
}

/// One point of a case, about to run.
#[derive(Debug)]
pub struct Point<'a> {
    case: &'a Case,
    values: BTreeMap<&'a str, &'a str>,
    /// First seed.
    pub seed: u64,
    /// How many times longer than the catalogue's run length.
    pub effort: f64,
    /// Folder with trace files.
    pub traces: Option<&'a Path>,
}

impl Point<'_> {
    /// A parameter as text.
    ///
    /// # Panics
    /// If the case does not declare it.
    pub fn text(&self, name: &str) -> &str {
        let declared = self.case.params.iter().find(|p| p.name == name);
        let default = declared
            .unwrap_or_else(|| panic!("{} does not declare `{name}`", self.case.id))
            .default;
        self.values.get(name).copied().unwrap_or(default)
    }

    /// A parameter as a number within a range.
    ///
    /// # Errors
    /// If it is no number, or outside the range.
    pub fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<f64, CaseError> {
        let text = self.text(name);
        let fail = |reason: String| CaseError::Parameter {
            name: name.into(),
            value: text.into(),
            reason,
        };
        let value: f64 = text.parse().map_err(|_| fail("not a number".into()))?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(fail(format!(
            "must lie between {} and {}",
            range.start(),
            range.end()
        )))
    }

    /// A parameter as a whole number within a range.
    ///
    /// # Errors
    /// If it is no whole number, or outside the range.
    pub fn count(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, CaseError> {
        let value = self.number(name, *range.start() as f64..=*range.end() as f64)?;
        if value.fract() == 0.0 {
            return Ok(value as u64);
        }
        Err(self.refuse(name, "must be a whole number"))
    }

    /// An error about a parameter.
    pub fn refuse(&self, name: &str, reason: impl Into<String>) -> CaseError {
        CaseError::Parameter {
            name: name.into(),
            value: self.text(name).into(),
            reason: reason.into(),
        }
    }

    /// The setting as `name=value` words, declared order.
    pub fn label(&self) -> String {
        let words = self
            .case
            .params
            .iter()
            .filter(|p| self.values.contains_key(p.name));
        words
            .map(|p| format!("{}={}", p.name, self.text(p.name)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A run length: the catalogue's, times the effort asked for.
    pub fn length(&self, catalogue: f64) -> u64 {
        (catalogue * self.effort).max(1.0) as u64
    }
}

/// What came of one point.
#[derive(Debug)]
pub struct Outcome {
    /// The case's id.
    pub id: &'static str,
    /// The case's title.
    pub title: &'static str,
    /// The point's setting.
    pub setting: String,
    /// Its checks, or why there are none.
    pub checks: Result<Vec<Check>, CaseError>,
}

/// All cases, in the order of the catalogue.
pub fn cases() -> Vec<Case> {
    [
        queueing::CASES,
        traffic::CASES,
        regions::CASES,
        batching::CASES,
        buckets::CASES,
        caches::CASES,
        answers::CASES,
        edges::CASES,
        similar::CASES,
        verifying::CASES,
        prefixes::CASES,
        balancing::CASES,
        hashing::CASES,
        sharing::CASES,
        tokens::CASES,
        metastability::CASES,
        stages::CASES,
        drift::CASES,
        rollout::CASES,
        tiers::CASES,
        scaling::CASES,
        caching_prices::CASES,
    ]
    .concat()
}

/// What to run, and how.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Parameters that replace those of every point; then each case runs one point only.
    pub set: Vec<(String, String)>,
    /// First seed.
    pub seed: u64,
    /// How many times longer than the catalogue's run length.
    pub effort: f64,
}

/// Runs the points of cases, all in parallel on the current rayon pool; results in the order of cases
/// and points. `done` is told of each point that ended.
///
/// # Errors
/// If a parameter is set that a case does not have.
pub fn run(
    cases: &[Case],
    selection: &Selection,
    traces: Option<&Path>,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Outcome>, CaseError> {
    for case in cases {
        check_names(case, &selection.set)?;
    }
    let custom: BTreeMap<&str, &str> = selection
        .set
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let of_case = |case| {
        let settings: Vec<BTreeMap<&str, &str>> = if custom.is_empty() {
            let points = |case: &Case| case.points.iter().map(|p| p.iter().copied().collect());
            points(case).collect()
        } else {
            vec![custom.clone()]
        };
        settings.into_iter().map(move |values| (case, values))
    };
    let points: Vec<(&Case, BTreeMap<&str, &str>)> = cases.iter().flat_map(of_case).collect();
    let outcomes = points
        .into_par_iter()
        .with_max_len(1)
        .map(|(case, values)| {
            let point = Point {
                case,
                values,
                seed: selection.seed,
                effort: selection.effort,
                traces,
            };
            let checks = (case.run)(&point);
            done();
            Outcome {
                id: case.id,
                title: case.title,
                setting: point.label(),
                checks,
            }
        });
    Ok(outcomes.collect())
}

fn check_names(case: &Case, set: &[(String, String)]) -> Result<(), CaseError> {
    let unknown = |name: &str| !case.params.iter().any(|p| p.name == name);
    let Some((name, value)) = set.iter().find(|(name, _)| unknown(name)) else {
        return Ok(());
    };
    let known: Vec<_> = case.params.iter().map(|p| p.name).collect();
    Err(CaseError::Parameter {
        name: name.clone(),
        value: value.clone(),
        reason: format!(
            "{} has no such parameter (known: {})",
            case.id,
            known.join(", ")
        ),
    })
}

/// Points that a selection of cases will run, for progress.
pub fn points(cases: &[Case], selection: &Selection) -> usize {
    if selection.set.is_empty() {
        cases.iter().map(|c| c.points.len()).sum()
    } else {
        cases.len()
    }
}
