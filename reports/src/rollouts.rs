//! Kernels that come into use in stages: what each stage came to, over all seeds.

use crate::metric::Measured;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_ledger::rollout::RolloutStageTotals;

/// A stage of a kernel's rollout. Figures are means over the runs that came to it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutStage {
    /// The kernel.
    pub kernel: String,
    /// What kind of stage, as in the scenario.
    pub kind: String,
    /// Share of the class's requests that the kernel answers for users.
    pub exposure: f64,
    /// Runs that came to it.
    pub runs: u64,
    /// How long it lasted, of those in which it ended, in seconds.
    pub seconds: Option<f64>,
    /// Comparisons that its test was told.
    pub compared: f64,
    /// Of those, found to differ.
    pub differed: f64,
    /// Answers of the kernel that reached users.
    pub exposed: f64,
    /// Of those, bad where the frontier's would have been good, by severity.
    pub harm: f64,
    /// Pilot risk magnitude; absent where nothing is tested.
    pub risk: Option<f64>,
}

/// The stages of all kernels, in order.
pub fn stages(measured: &[Measured<'_>]) -> Vec<RolloutStage> {
    let kernels = measured.first().map_or(&[][..], |m| &m.run.rollouts[..]);
    let mut all = Vec::new();
    for (k, kernel) in kernels.iter().enumerate() {
        for i in 0.. {
            let of = |m: &Measured<'_>| m.run.rollouts.get(k)?.stages.get(i).cloned();
            let came: Vec<RolloutStageTotals> = measured.iter().filter_map(of).collect();
            let Some(first) = came.first() else {
                break;
            };
            all.push(stage(&kernel.kernel, first, &came));
        }
    }
    all
}

/// One stage of the runs that came to it, which begins in the first as in all.
fn stage(kernel: &str, first: &RolloutStageTotals, came: &[RolloutStageTotals]) -> RolloutStage {
    let of = |figure: &dyn Fn(&RolloutStageTotals) -> Option<f64>| {
        let values: Vec<f64> = came.iter().filter_map(figure).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let mean = |figure: &dyn Fn(&RolloutStageTotals) -> f64| {
        of(&|stage| Some(figure(stage))).unwrap_or_default()
    };
    RolloutStage {
        kernel: kernel.to_owned(),
        kind: first.kind.clone(),
        exposure: first.exposure,
        runs: came.len() as u64,
        seconds: of(&|s| Some(s.to_ns?.checked_sub(s.from_ns)? as f64 / 1e9)),
        compared: mean(&|s| s.compared as f64),
        differed: mean(&|s| s.differed as f64),
        exposed: mean(&|s| s.exposed as f64),
        harm: mean(&|s| s.harm),
        risk: of(&|s| s.risk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_means_over_the_runs_that_came_so_far() {
        let came = [
            (None, 4, 1.0, None),
            (Some(3_000_000_000), 6, 2.0, Some(5.0)),
        ];
        let came = came.map(|(to_ns, exposed, harm, risk)| RolloutStageTotals {
            kind: "canary".to_owned(),
            exposure: 0.05,
            from_ns: 1_000_000_000,
            to_ns,
            exposed,
            harm,
            risk,
            ..RolloutStageTotals::default()
        });
        let stage = stage("k", &came[0], &came);
        assert_eq!((stage.runs, stage.exposed, stage.harm), (2, 5.0, 1.5));
        assert_eq!((stage.seconds, stage.risk), (Some(2.0), Some(5.0)));
    }
}
