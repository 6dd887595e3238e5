//! Metrics of the gateway's stages and paths.

use super::{Reading, Scope, Stat, count, over, ratio, statistic};
use windtunnel_ledger::gateway::PathTotals;
use windtunnel_ledger::gateway::PipelineTotals;
use windtunnel_ledger::gateway::StageKind;

/// What the gateway's stages did, of a whole run that has some.
fn stages<'a>(s: &Scope<'a>) -> Option<&'a PipelineTotals> {
    s.whole?.run.pipeline.as_ref()
}

fn gateway_latency(s: &Scope<'_>, stat: Stat) -> Reading {
    stages(s).map_or(Reading::Absent, |p| statistic(&p.time, stat))
}

/// Mean time in all stages.
pub fn gateway_latency_mean(s: &Scope<'_>) -> Reading {
    gateway_latency(s, Stat::Mean)
}

/// Median time in all stages.
pub fn gateway_latency_p50(s: &Scope<'_>) -> Reading {
    gateway_latency(s, Stat::Quantile(0.5))
}

/// 99 % quantile of the time in all stages.
pub fn gateway_latency_p99(s: &Scope<'_>) -> Reading {
    gateway_latency(s, Stat::Quantile(0.99))
}

/// Sum of the stages' own 99 % quantiles.
pub fn gateway_p99_sum(s: &Scope<'_>) -> Reading {
    let Some(p) = stages(s) else {
        return Reading::Absent;
    };
    let present = p.stages.iter().filter(|stage| stage.present);
    let mut sum = 0.0;
    for stage in present {
        match statistic(&stage.time, Stat::Quantile(0.99)) {
            Reading::Value { value, .. } => sum += value,
            other => return other,
        }
    }
    over(sum, p.time.count())
}

/// Requests over the budget of the stages.
pub fn gateway_over_budget(s: &Scope<'_>) -> Reading {
    match stages(s) {
        Some(p) if p.budgeted => ratio(p.over_budget, p.time.count()),
        _ => Reading::Absent,
    }
}

/// Stages left out because the budget was over.
pub fn gateway_left_out(s: &Scope<'_>) -> Reading {
    match stages(s) {
        Some(p) if p.budgeted => count(p.stages.iter().map(|stage| stage.left_out).sum()),
        _ => Reading::Absent,
    }
}

/// Attacks that the filter blocked.
pub fn attacks_blocked(s: &Scope<'_>) -> Reading {
    stages(s).map_or(Reading::Absent, |p| ratio(p.attacks_blocked, p.attacks))
}

/// Honest requests that the filter blocked.
pub fn honest_blocked(s: &Scope<'_>) -> Reading {
    let filter = |p: &PipelineTotals| {
        let stage = &p.stages[StageKind::IngressFilter as usize];
        let honest = (stage.time.count() - stage.left_out).saturating_sub(p.attacks);
        match stage.present {
            true => ratio(p.honest_blocked, honest),
            false => Reading::Absent,
        }
    };
    stages(s).map_or(Reading::Absent, filter)
}

fn paths(s: &Scope<'_>, part: fn(&PathTotals) -> (u64, u64)) -> Reading {
    let totals = s.whole.and_then(|m| m.run.paths.as_ref());
    totals.map_or(Reading::Absent, |p| {
        let (part, of) = part(p);
        ratio(part, of)
    })
}

/// Requests that a kernel served, of those that one is for.
pub fn kernel_hit_rate(s: &Scope<'_>) -> Reading {
    paths(s, |p| (p.kernel, p.eligible))
}

/// Requests that reached the frontier, of those that a kernel is for.
pub fn leakage_rate(s: &Scope<'_>) -> Reading {
    paths(s, |p| (p.leaked, p.eligible))
}

/// Requests that reached the frontier although a kernel is for them, of all.
pub fn frontier_escalation_rate(s: &Scope<'_>) -> Reading {
    paths(s, |p| (p.leaked, p.eligible + p.reserved))
}

/// Rejected answers that the frontier replaced, of those that others gave.
pub fn fallback_rate(s: &Scope<'_>) -> Reading {
    let totals = s.whole.and_then(|m| m.run.paths.as_ref());
    let fallbacks = totals.and_then(|p| Some((p.fallbacks?, p.kernel + p.small)));
    fallbacks.map_or(Reading::Absent, |(part, of)| ratio(part, of))
}
