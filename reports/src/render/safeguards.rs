//! What the gateway, its clients, who scales the fleet and engines that compute did, a line for each part that a
//! scenario has.

use super::number::{count, digits, figure};
use crate::summary::Figures;

/// Labels, and what stands behind them.
pub(super) fn lines(figures: &Figures) -> Vec<(&'static str, Vec<String>)> {
    let lines = vec![
        ("answers", answers(figures)),
        ("clients", clients(figures)),
        ("kernels", kernels(figures)),
        ("ladder", ladder(figures)),
        ("drift", drift(figures)),
        ("rollout", rollout(figures)),
        ("health", health(figures)),
        ("scaling", scaling(figures)),
        ("stages", stages(figures)),
        ("store", store(figures)),
        ("shared", shared(figures)),
        ("computed", computed(figures)),
        ("layers", layers(figures)),
        ("signals", signals(figures)),
    ];
    lines.into_iter().filter(|(_, p)| !p.is_empty()).collect()
}

/// The value of a figure and its unit, in words; `None` if it is absent, or zero and `zero` says
/// nothing.
fn said(figures: &Figures, name: &str, words: &str, zero: bool) -> Option<String> {
    let estimate = figures.get(name)?;
    let value = estimate.value?;
    if value == 0.0 && !zero {
        return None;
    }
    let value = match estimate.unit.as_str() {
        "ratio" | "1/s" => digits(value),
        "requests" | "times" | "orders" | "tokens" => count(value.round() as u64),
        "replicas" if value.fract() == 0.0 => count(value as u64),
        "replicas" => digits(value),
        unit => figure(value, unit),
    };
    Some(format!("{value} {words}"))
}

fn all(figures: &Figures, parts: &[(&str, &str, bool)]) -> Vec<String> {
    let part = |&(name, words, zero): &(&str, &str, bool)| said(figures, name, words, zero);
    parts.iter().filter_map(part).collect()
}

fn answers(figures: &Figures) -> Vec<String> {
    let parts = [
        ("stored_answer_hit_rate", "stored", false),
        ("stale_answer_rate", "stale", false),
        ("coalesced_rate", "coalesced", false),
        ("wrong_answer_rate", "of the stored wrong", false),
        ("origin_calls", "origin calls", true),
        ("origin_calls_per_flight", "per flight", false),
    ];
    all(figures, &parts)
}

fn clients(figures: &Figures) -> Vec<String> {
    let parts = [
        ("amplification", "attempts per request", true),
        ("retries", "retries", false),
        ("hedges", "hedges", false),
        ("throttled", "throttled", false),
        ("wasted_share", "of tokens for nobody", false),
    ];
    all(figures, &parts)
}

fn kernels(figures: &Figures) -> Vec<String> {
    let parts = [
        ("kernel_hit_rate", "by their kernel", true),
        ("leakage_rate", "leaked to the frontier", false),
        ("fallback_rate", "of their answers replaced", false),
    ];
    all(figures, &parts)
}

/// Verifiers that are asked one after the other.
fn ladder(figures: &Figures) -> Vec<String> {
    let checks = figures.get("checks_per_answer").and_then(|e| e.value);
    if checks.is_none_or(|checks| checks <= 1.0) {
        return Vec::new();
    }
    let parts = [
        ("checks_per_answer", "checks per answer", true),
        ("bad_accepted", "bad accepted", true),
        ("good_rejected", "good rejected", true),
        ("verifier_spend", "for checks", true),
        ("net_verifier_value", "net value", true),
    ];
    all(figures, &parts)
}

/// What became of kernels that drift, and of who probes them.
fn drift(figures: &Figures) -> Vec<String> {
    let parts = [
        ("probes", "probes", true),
        ("drift_alarms", "alarms", true),
        ("drift_false_alarms", "of them false", false),
        ("drift_delay", "until the alarm", false),
        ("drifts_unnoticed", "drifts unnoticed", false),
        ("drift_bad_outputs", "bad answers for it", true),
    ];
    all(figures, &parts)
}

/// What became of kernels that came into use in stages.
fn rollout(figures: &Figures) -> Vec<String> {
    let parts = [
        ("rollouts_withdrawn", "withdrawn", true),
        ("rollout_time", "until decided", false),
        ("rollout_exposure", "of their answers reached users", true),
        ("rollout_harm", "bad for it", true),
        ("rollout_risk", "at risk", false),
    ];
    all(figures, &parts)
}

/// How many replicas there were, and how long it took to get more.
fn scaling(figures: &Figures) -> Vec<String> {
    if !figures.contains_key("replicas_mean") {
        return Vec::new();
    }
    let parts = [
        ("replicas_mean", "replicas on average", true),
        ("replicas_peak", "at most", true),
        ("replica_hours", "paid", true),
        ("replica_orders", "ordered", true),
        ("time_to_capacity", "from need to capacity", true),
        ("gateway_queue_peak", "waited at once", false),
    ];
    all(figures, &parts)
}

/// Replicas that are lost, and those that are left alone for failing.
fn health(figures: &Figures) -> Vec<String> {
    let parts = [
        ("stale_route_rate", "sent to lost replicas", true),
        ("ejections", "ejected", false),
    ];
    all(figures, &parts)
}

fn stages(figures: &Figures) -> Vec<String> {
    let parts = [
        ("gateway_latency_p50", "p50", true),
        ("gateway_latency_p99", "p99", true),
        ("gateway_over_budget", "over budget", false),
        ("gateway_left_out", "left out", false),
        ("attacks_blocked", "of attacks blocked", true),
        ("honest_blocked", "of honest requests blocked", false),
    ];
    all(figures, &parts)
}

/// The cache that replicas share.
fn shared(figures: &Figures) -> Vec<String> {
    let parts = [
        ("shared_cache_hit_rate", "of prompt tokens read back", true),
        ("refills", "refills", false),
        ("refill_mean", "each", false),
        ("refill_hidden_share", "hidden", false),
        ("refill_wasted_share", "read in vain", false),
    ];
    all(figures, &parts)
}

/// What replicas computed.
fn computed(figures: &Figures) -> Vec<String> {
    let parts = [
        ("launches_per_token", "per token", true),
        ("operations_per_token", "per token", true),
        ("moved_per_token", "moved per token", true),
        ("kv_in_use_mean", "of KV in use", true),
        ("span_mean", "a step", true),
    ];
    all(figures, &parts)
}

/// What the layers of a cascade left out, and what checks found of it.
fn layers(figures: &Figures) -> Vec<String> {
    let parts = [
        ("turns_skipped", "of turns skipped", true),
        ("wrong_skips", "of them wrong", false),
        ("short_path_share", "of tokens short", true),
        ("critical_short", "critical among them", false),
        ("draft_acceptance", "of drafts stand", true),
        ("kv_bits_mean", "a number in full blocks", true),
        ("shadow_checks", "checked", true),
        ("shadow_mismatches", "differed", true),
        ("shadow_time_share", "of work for checks", false),
        ("token_agreement", "of tokens as in full", true),
        ("token_divergence", "apart", false),
    ];
    all(figures, &parts)
}

/// What the control plane of a cascade published last.
fn signals(figures: &Figures) -> Vec<String> {
    let parts = [
        ("risk_signal", "risk", true),
        ("novelty_signal", "novelty", true),
        ("drift_signal", "drift", true),
        ("confidence_signal", "confidence", true),
    ];
    all(figures, &parts)
}

fn store(figures: &Figures) -> Vec<String> {
    let parts = [
        ("store_read_rate", "reads/s", true),
        ("store_write_rate", "writes/s", true),
        ("store_read_p99", "read p99", true),
        ("store_blind_share", "decided blind", false),
    ];
    all(figures, &parts)
}
