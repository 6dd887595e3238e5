//! Metrics of kernels that come into use in stages.

use super::{Reading, Scope, count, over};
use windtunnel_ledger::rollout::{RolloutOutcome, RolloutStageTotals, RolloutTotals};

fn rollouts<'a>(s: &Scope<'a>) -> &'a [RolloutTotals] {
    s.whole.map_or(&[], |whole| &whole.run.rollouts)
}

/// The sum of a figure over all stages that rollouts came to.
fn sum(s: &Scope<'_>, figure: impl Fn(&RolloutStageTotals) -> f64) -> Reading {
    let rollouts = rollouts(s);
    let stages = || rollouts.iter().flat_map(|r| &r.stages);
    over(stages().map(figure).sum(), stages().count() as u64)
}

/// Answers of kernels under rollout that reached users.
pub fn rollout_exposure(s: &Scope<'_>) -> Reading {
    let exposed = |r: &RolloutTotals| r.stages.iter().map(|s| s.exposed).sum::<u64>();
    match rollouts(s) {
        [] => Reading::Absent,
        all => count(all.iter().map(exposed).sum()),
    }
}

/// Bad ones that the frontier's would not have been, by severity.
pub fn rollout_harm(s: &Scope<'_>) -> Reading {
    sum(s, |stage| stage.harm)
}

/// The harm to expect, by severity.
pub fn rollout_risk(s: &Scope<'_>) -> Reading {
    sum(s, |stage| stage.risk.unwrap_or(0.0))
}

/// From the first stage to the end.
pub fn rollout_time(s: &Scope<'_>) -> Reading {
    let decided = || rollouts(s).iter().filter_map(RolloutTotals::decided_ns);
    let (n, ns) = (decided().count() as u64, decided().sum::<u64>());
    over(ns as f64 / 1e6 / n as f64, n)
}

/// Kernels that were withdrawn.
pub fn rollouts_withdrawn(s: &Scope<'_>) -> Reading {
    let withdrawn = |r: &&RolloutTotals| {
        matches!(
            r.outcome,
            RolloutOutcome::RolledBack | RolloutOutcome::TooRisky
        )
    };
    match rollouts(s) {
        [] => Reading::Absent,
        all => count(all.iter().filter(withdrawn).count() as u64),
    }
}
