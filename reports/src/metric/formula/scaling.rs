//! Metrics of pools whose size follows their load.

use super::{Reading, Scope, Stat, count, over, ratio, statistic};
use windtunnel_ledger::scaling::ScalingTotals;

/// How many replicas there were, of a whole run that scales.
fn scaling<'a>(s: &Scope<'a>) -> Option<(&'a ScalingTotals, f64)> {
    let run = s.whole?.run;
    Some((run.scaling.as_ref()?, run.end_ns as f64))
}

/// Replicas paid, mean over time.
pub fn replicas_mean(s: &Scope<'_>) -> Reading {
    scaling(s).map_or(Reading::Absent, |(scaling, ns)| {
        over(scaling.provisioned_ns as f64 / ns, scaling.checks.max(1))
    })
}

/// The most replicas paid at once.
pub fn replicas_peak(s: &Scope<'_>) -> Reading {
    scaling(s).map_or(Reading::Absent, |(scaling, _)| count(scaling.peak.into()))
}

/// Time of all replicas from order to release, h.
pub fn replica_hours(s: &Scope<'_>) -> Reading {
    scaling(s).map_or(Reading::Absent, |(scaling, _)| {
        let hours = scaling.provisioned_ns as f64 / 3.6e12;
        over(hours, scaling.checks.max(1))
    })
}

/// Replicas ordered.
pub fn replica_orders(s: &Scope<'_>) -> Reading {
    scaling(s).map_or(Reading::Absent, |(scaling, _)| count(scaling.orders))
}

/// From need to capacity.
pub fn time_to_capacity(s: &Scope<'_>) -> Reading {
    scaling(s).map_or(Reading::Absent, |(scaling, _)| {
        statistic(&scaling.time_to_capacity, Stat::Mean)
    })
}

/// Looks that found requests waiting.
pub fn short_of_capacity(s: &Scope<'_>) -> Reading {
    scaling(s).map_or(Reading::Absent, |(scaling, _)| {
        ratio(scaling.short_checks, scaling.checks)
    })
}

/// How much the signal tells of the load.
pub fn signal_correlation(s: &Scope<'_>) -> Reading {
    let pairs = scaling(s).map(|(scaling, _)| scaling.signal);
    pairs.map_or(Reading::Absent, |pairs| {
        pairs
            .correlation()
            .map_or(Reading::Absent, |r| over(r, pairs.n))
    })
}
