//! What conditions may be about.

/// Families of times, in ms, of which any statistic may be asked for.
pub const FAMILIES: &[&str] = &["ttft", "tpot", "itl", "e2e", "queue"];

/// Metrics that are one figure, with their units. Families add `ttft_mean`, `ttft_p50`,
/// `ttft_p90`, `ttft_p99` and so on in ms.
pub const METRICS: &[(&str, &str)] = &[
    ("goodput", "share"),
    ("goodput_rate", "req/s"),
    ("offered_rate", "req/s"),
    ("request_throughput", "req/s"),
    ("output_token_throughput", "tokens/s"),
    ("availability", "share"),
    ("sent", "requests"),
    ("finished", "requests"),
    ("refused", "requests"),
    ("abandoned", "requests"),
    ("unfinished", "requests"),
    ("amplification", "ratio"),
    ("retries", "times"),
    ("hedges", "times"),
    ("throttled", "times"),
    ("wasted_share", "share"),
    ("preemptions", "times"),
    ("store_read_rate", "1/s"),
    ("store_write_rate", "1/s"),
    ("store_read_p99", "ms"),
    ("store_blind_share", "share"),
    ("affinity_share", "share"),
    ("affinity_entries_peak", "entries"),
    ("false_affinity", "share"),
    ("stale_route_rate", "share"),
    ("local_cache_hit_rate", "share"),
    ("shared_cache_hit_rate", "share"),
    ("refills", "requests"),
    ("refill_mean", "ms"),
    ("refill_hidden_share", "share"),
    ("refill_wasted_share", "share"),
    ("prefix_hit_rate", "share"),
    ("stored_answer_hit_rate", "share"),
    ("stale_answer_rate", "share"),
    ("coalesced_rate", "share"),
    ("wrong_answer_rate", "share"),
    ("origin_calls", "requests"),
    ("origin_calls_per_flight", "ratio"),
    ("origin_call_peak", "requests"),
    ("verification_pass_rate", "share"),
    ("accepted_outputs", "requests"),
    ("verified_useful_outputs", "requests"),
    ("cost_total", "USD"),
    ("cost_per_verified_output", "USD"),
    ("cost_per_accepted_output", "USD"),
    ("energy_total", "Wh"),
    ("energy_per_verified_output", "Wh"),
    ("toten_per_verified_output", "tokens"),
    ("toten_raw_per_verified_output", "tokens"),
    ("verifier_tax", "share"),
    ("bad_release_rate", "share"),
    ("gateway_latency_mean", "ms"),
    ("gateway_latency_p50", "ms"),
    ("gateway_latency_p99", "ms"),
    ("gateway_p99_sum", "ms"),
    ("gateway_over_budget", "share"),
    ("gateway_left_out", "requests"),
    ("attacks_blocked", "share"),
    ("honest_blocked", "share"),
    ("kernel_hit_rate", "share"),
    ("leakage_rate", "share"),
    ("frontier_escalation_rate", "share"),
    ("replicas_mean", "replicas"),
    ("replicas_peak", "replicas"),
    ("replica_hours", "h"),
    ("replica_orders", "orders"),
    ("time_to_capacity", "ms"),
    ("short_of_capacity", "share"),
    ("signal_correlation", "ratio"),
    ("gateway_queue_peak", "requests"),
    ("load_imbalance", "ratio"),
    ("batch_mean", "requests"),
    ("in_system_mean", "requests"),
    ("kv_usage_mean", "share"),
    ("extrapolated_share", "share"),
];

/// Statistics of families that have a name of their own among the metrics.
const NAMED_STATISTICS: &[&str] = &["mean", "p50", "p90", "p99"];

/// Unit of a metric that is one figure; none if there is no such metric.
pub fn unit_of(metric: &str) -> Option<&'static str> {
    let found = METRICS.iter().find(|(name, _)| *name == metric);
    found.map(|&(_, unit)| unit).or_else(|| {
        let (family, statistic) = metric.rsplit_once('_')?;
        (FAMILIES.contains(&family) && NAMED_STATISTICS.contains(&statistic)).then_some("ms")
    })
}
