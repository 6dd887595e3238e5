//! What verifiers cost, and what they are worth.

use super::{Account, Reading, Scope, Stat, count, over, ratio, statistic};

/// Spending on checks, of all spending.
pub fn verifier_tax(s: &Scope<'_>) -> Reading {
    let Some(measured) = s.whole.filter(|_| s.verification) else {
        return Reading::Absent;
    };
    let money = &measured.segment.books.money;
    match ratio(money.received(Account::Verification), money.total()) {
        Reading::Value { value, .. } => over(value, s.population.verified),
        other => other,
    }
}

/// Median latency with the verifier, less that without.
pub fn verifier_tax_latency(s: &Scope<'_>) -> Reading {
    let median = |of| statistic(of, Stat::Quantile(0.5));
    let with = median(&s.population.with_verifier);
    let without = median(&s.population.without_verifier);
    match (with, without.value()) {
        (Reading::Value { value, n }, Some(without)) => Reading::Value {
            value: value - without,
            n,
        },
        (reading, _) => reading,
    }
}

/// Energy of checks, of all energy.
pub fn verifier_tax_energy(s: &Scope<'_>) -> Reading {
    let Some(measured) = s.whole.filter(|_| s.verification) else {
        return Reading::Absent;
    };
    let energy = &measured.segment.books.energy;
    match ratio(energy.received(Account::Verification), energy.total()) {
        Reading::Value { value, .. } => over(value, s.population.checks),
        other => other,
    }
}

fn spent(s: &Scope<'_>) -> Option<f64> {
    let measured = s.whole.filter(|_| s.verification)?;
    let nano = measured.segment.books.money.received(Account::Verification);
    Some(nano as f64 / 1e9)
}

/// Spending on checks.
pub fn verifier_spend(s: &Scope<'_>) -> Reading {
    spent(s).map_or(Reading::Absent, |usd| over(usd, s.population.checks.max(1)))
}

/// Energy of checks.
pub fn verifier_energy(s: &Scope<'_>) -> Reading {
    let Some(measured) = s.whole.filter(|_| s.verification) else {
        return Reading::Absent;
    };
    match measured
        .segment
        .books
        .energy
        .received(Account::Verification)
    {
        0 => Reading::Absent,
        micro => over(micro as f64 / 3.6e9, s.population.checks.max(1)),
    }
}

/// Verdicts of all kinds.
const fn verdicts(s: &Scope<'_>) -> u64 {
    let p = s.population;
    p.good_accepted + p.good_rejected + p.bad_accepted + p.bad_caught
}

/// Checks per verdict.
pub fn checks_per_answer(s: &Scope<'_>) -> Reading {
    match s.verification {
        true => ratio(s.population.checks, verdicts(s)),
        false => Reading::Absent,
    }
}

fn counted(s: &Scope<'_>, n: u64) -> Reading {
    match s.verification {
        true => count(n),
        false => Reading::Absent,
    }
}

/// Bad answers rejected.
pub fn bad_caught(s: &Scope<'_>) -> Reading {
    counted(s, s.population.bad_caught)
}

/// Bad answers accepted.
pub fn bad_accepted(s: &Scope<'_>) -> Reading {
    counted(s, s.population.bad_accepted)
}

/// Good answers rejected.
pub fn good_rejected(s: &Scope<'_>) -> Reading {
    counted(s, s.population.good_rejected)
}

/// What wrong verdicts cost.
pub fn error_cost(s: &Scope<'_>) -> Reading {
    let Some(measured) = s.whole.filter(|_| s.verification) else {
        return Reading::Absent;
    };
    let (accepted, rejected) = measured.error_costs;
    let p = s.population;
    let usd = accepted * p.bad_accepted as f64 + rejected * p.good_rejected as f64;
    over(usd, verdicts(s).max(1))
}

/// What the verifier saved, less what it cost.
pub fn net_verifier_value(s: &Scope<'_>) -> Reading {
    let (Some(measured), Some(spent)) = (s.whole, spent(s)) else {
        return Reading::Absent;
    };
    let (accepted, rejected) = measured.error_costs;
    let p = s.population;
    let usd = accepted * p.bad_caught as f64 - spent - rejected * p.good_rejected as f64;
    over(usd, verdicts(s).max(1))
}
