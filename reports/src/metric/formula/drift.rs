//! Metrics of kernels that drift, and of who probes them.

use super::{Reading, Scope, count, over, ratio};
use windtunnel_ledger::gateway::{DriftTotals, PathTotals, ProbeTotals};

/// Nano-dollars in a dollar.
const NANO: f64 = 1e9;

fn paths<'a>(s: &Scope<'a>) -> Option<&'a PathTotals> {
    s.whole?.run.paths.as_ref()
}

fn probing(s: &Scope<'_>, read: impl Fn(&ProbeTotals) -> Reading) -> Reading {
    let totals = paths(s).and_then(|p| p.probing.as_ref());
    totals.map_or(Reading::Absent, read)
}

fn drift(s: &Scope<'_>, read: impl Fn(&DriftTotals) -> Reading) -> Reading {
    let totals = paths(s).and_then(|p| p.drift.as_ref());
    totals.map_or(Reading::Absent, read)
}

/// Answers of kernels that were probed.
pub fn probes(s: &Scope<'_>) -> Reading {
    probing(s, |t| count(t.probes))
}

/// What probes cost beside the frontier's work.
pub fn probe_cost(s: &Scope<'_>) -> Reading {
    probing(s, |t| over(t.price_nano_usd as f64 / NANO, t.probes))
}

/// Probes whose answers differed.
pub fn probe_disagreement(s: &Scope<'_>) -> Reading {
    probing(s, |t| ratio(t.differed, t.compared))
}

/// Alarms of the detectors.
pub fn drift_alarms(s: &Scope<'_>) -> Reading {
    probing(s, |t| count(t.alarms))
}

/// Alarms about kernels that had not drifted.
pub fn drift_false_alarms(s: &Scope<'_>) -> Reading {
    probing(s, |t| count(t.false_alarms))
}

/// Requests whose kernel was suspect.
pub fn drift_quarantine(s: &Scope<'_>) -> Reading {
    paths(s).map_or(Reading::Absent, |p| match p.probing {
        Some(_) => ratio(p.quarantined, p.eligible),
        None => Reading::Absent,
    })
}

/// From the beginning of drift to the alarm.
pub fn drift_delay(s: &Scope<'_>) -> Reading {
    drift(s, |t| {
        over(t.delay_ns as f64 / 1e6 / t.detected as f64, t.detected)
    })
}

/// Drift that raised no alarm.
pub fn drifts_unnoticed(s: &Scope<'_>) -> Reading {
    drift(s, |t| count(t.drifts - t.detected))
}

/// Bad answers that drift alone is to blame for.
pub fn drift_bad_outputs(s: &Scope<'_>) -> Reading {
    drift(s, |t| count(t.bad_outputs))
}
