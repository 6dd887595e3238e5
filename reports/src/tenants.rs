//! Figures by tenant: of the largest each, of all others together.

use crate::estimate::Estimate;
use crate::metric::formula::{TOTEN_CACHED, TOTEN_INPUT};
use crate::metric::{Measured, Reading, Scope, find};
use crate::summary::Figures;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use windtunnel_ledger::account::Account;
use windtunnel_ledger::result::{MAX_TENANTS, Population};

/// Most tenants with figures of their own.
pub const SHOWN: usize = 12;

/// What all others together are called.
pub const OTHERS: &str = "(others)";

/// Metrics of requests that tenants have figures for.
const OF_REQUESTS: [&str; 14] = [
    "sent",
    "finished",
    "refused",
    "abandoned",
    "unfinished",
    "goodput",
    "ttft_mean",
    "ttft_p50",
    "ttft_p90",
    "ttft_p99",
    "e2e_p50",
    "e2e_p90",
    "e2e_p99",
    "prefix_hit_rate",
];

/// The requests of one tenant, or of all others, in one run.
struct Tenant<'a> {
    measured: &'a Measured<'a>,
    population: Population,
}

/// The figures of the tenants that sent most, by name; empty if there are not two.
pub fn figures(measured: &[Measured<'_>]) -> BTreeMap<String, Figures> {
    let shown = largest(measured);
    if shown.len() < 2 {
        return BTreeMap::new();
    }
    let Some(names) = measured.first().map(|m| &m.run.tenant_names) else {
        return BTreeMap::new();
    };
    let name = |&tenant: &u32| names.get(tenant as usize).cloned().unwrap_or_default();
    let mut all: BTreeMap<String, Figures> = BTreeMap::new();
    for tenant in &shown {
        let of = |m: &Measured<'_>| sum_of(m, |t| t == Some(*tenant));
        all.insert(name(tenant), figures_of(measured, of));
    }
    let of = |m: &Measured<'_>| sum_of(m, |t| t.is_none_or(|t| !shown.contains(&t)));
    if measured.iter().any(|m| of(m).sent > 0) {
        all.insert(OTHERS.to_owned(), figures_of(measured, of));
    }
    all
}

/// The tenants that sent most in all runs together, the largest first.
fn largest(measured: &[Measured<'_>]) -> Vec<u32> {
    let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
    for m in measured {
        for (&tenant, population) in m.run.tenants.iter().zip(&m.segment.tenants) {
            *sent.entry(tenant).or_default() += population.sent;
        }
    }
    let mut all: Vec<(u32, u64)> = sent.into_iter().filter(|&(_, sent)| sent > 0).collect();
    all.sort_by_key(|&(tenant, sent)| (Reverse(sent), tenant));
    all.into_iter()
        .take(SHOWN)
        .map(|(tenant, _)| tenant)
        .collect()
}

/// The requests of those tenants that are wanted; none stands for those that are not told apart.
fn sum_of(measured: &Measured<'_>, wanted: impl Fn(Option<u32>) -> bool) -> Population {
    let mut sum = Population::default();
    for (place, population) in measured.segment.tenants.iter().enumerate() {
        let tenant = measured.run.tenants.get(place).copied();
        debug_assert!(tenant.is_some() || place == MAX_TENANTS);
        if wanted(tenant) {
            sum.merge(population);
        }
    }
    sum
}

fn figures_of(
    measured: &[Measured<'_>],
    population: impl Fn(&Measured<'_>) -> Population,
) -> Figures {
    let tenants: Vec<Tenant<'_>> = measured
        .iter()
        .map(|measured| Tenant {
            measured,
            population: population(measured),
        })
        .collect();
    let estimate = |unit: &str, read: &dyn Fn(&Tenant<'_>) -> Reading| {
        let readings: Vec<Reading> = tenants.iter().map(read).collect();
        Estimate::over_seeds(unit, &readings)
    };
    let of_requests = OF_REQUESTS.iter().filter_map(|name| find(name));
    let of_requests = of_requests.map(|metric| {
        let read = |t: &Tenant<'_>| (metric.read)(&t.scope());
        (metric.name, estimate(metric.unit, &read))
    });
    let own = [
        (
            "prompt_tokens",
            estimate("tokens", &|t| tokens(t.population.prompt_tokens)),
        ),
        (
            "output_tokens",
            estimate("tokens", &|t| tokens(t.population.delivered_tokens)),
        ),
        ("cost", estimate("USD", &|t| t.cost())),
    ];
    of_requests
        .chain(own)
        .filter_map(|(name, estimate)| Some((name.to_owned(), estimate?)))
        .collect()
}

fn tokens(n: u64) -> Reading {
    Reading::Value { value: n as f64, n }
}

/// Tokens weighted by price relative to output tokens.
fn work(p: &Population) -> f64 {
    let computed = p.prompt_tokens.saturating_sub(p.cached_tokens);
    p.delivered_tokens as f64
        + TOTEN_INPUT * computed as f64
        + TOTEN_CACHED * p.cached_tokens as f64
}

impl Tenant<'_> {
    fn scope(&self) -> Scope<'_> {
        Scope {
            population: &self.population,
            whole: None,
            ..self.measured.whole()
        }
    }

    /// What it was charged for tokens, and of all other spending the share of its tokens, weighted by price.
    fn cost(&self) -> Reading {
        let money = &self.measured.segment.books.money;
        let total = money.total();
        let all: f64 = self.measured.segment.tenants.iter().map(work).sum();
        if total == 0 || all <= 0.0 {
            return Reading::Absent;
        }
        let charged = self.population.token_charges as f64 / 1e6;
        let shared = total.saturating_sub(money.received(Account::Tokens)) as f64;
        let value = (charged + shared * work(&self.population) / all) / 1e9;
        let n = self.population.sent;
        Reading::Value { value, n }
    }
}
