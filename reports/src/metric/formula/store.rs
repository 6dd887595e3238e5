//! Metrics of the gateways' state store, and of maps of affinity.

use super::{Reading, Scope, Stat, count, rate, ratio, statistic};
use windtunnel_ledger::state_store::IndexTotals;
use windtunnel_ledger::state_store::StoreTotals;

fn state_store<'a>(s: &Scope<'a>) -> Option<(&'a StoreTotals, f64)> {
    let run = s.whole?.run;
    Some((run.state_store.as_ref()?, run.end_ns as f64 / 1e9))
}

/// Reads of the state store per second.
pub fn store_read_rate(s: &Scope<'_>) -> Reading {
    state_store(s).map_or(Reading::Absent, |(store, seconds)| {
        rate(store.reads, store.reads, seconds)
    })
}

/// Writes to the state store per second.
pub fn store_write_rate(s: &Scope<'_>) -> Reading {
    state_store(s).map_or(Reading::Absent, |(store, seconds)| {
        rate(store.writes, store.writes, seconds)
    })
}

/// Latency of reads of the state store.
pub fn store_read_p99(s: &Scope<'_>) -> Reading {
    state_store(s).map_or(Reading::Absent, |(store, _)| {
        statistic(&store.read, Stat::Quantile(0.99))
    })
}

/// Decisions without the state store.
pub fn store_blind_share(s: &Scope<'_>) -> Reading {
    state_store(s).map_or(Reading::Absent, |(store, _)| {
        ratio(store.blind, store.reads + store.unasked)
    })
}

fn index<'a>(s: &Scope<'a>) -> Option<&'a IndexTotals> {
    s.whole?.run.index.as_ref()
}

/// Decisions that followed the affinity map.
pub fn affinity_share(s: &Scope<'_>) -> Reading {
    index(s).map_or(Reading::Absent, |index| {
        let all = index.followed + index.placed + index.over_bound + index.unknown;
        ratio(index.followed, all)
    })
}

/// Most entries of the affinity map.
pub fn affinity_entries_peak(s: &Scope<'_>) -> Reading {
    index(s).map_or(Reading::Absent, |index| count(index.peak_entries))
}

/// Requests sent where their prompt had been, and was no more.
pub fn false_affinity(s: &Scope<'_>) -> Reading {
    index(s).map_or(Reading::Absent, |index| {
        ratio(index.false_affinity, index.followed)
    })
}
