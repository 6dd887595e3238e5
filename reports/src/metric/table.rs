//! The table of all metrics, in the order of reports.

use super::Direction::{Higher, Lower, Neutral};
use super::{Metric, formula as f};

macro_rules! metrics {
    ($($name:ident, $unit:literal, $direction:ident, $population:literal, $formula:literal, $vllm:expr;)*) => {
        /// All metrics, in the order of reports.
        pub const METRICS: &[Metric] = &[ $( Metric {
            name: stringify!($name),
            unit: $unit,
            direction: $direction,
            population: $population,
            formula: $formula,
            vllm: $vllm,
            read: f::$name,
        } ),* ];
    };
}

metrics! {
    ttft_mean, "ms", Lower, "finished requests", "mean of: first output token at the client − sent by the client", Some("mean_ttft_ms");
    ttft_p50, "ms", Lower, "finished requests", "median of the same", Some("median_ttft_ms");
    ttft_p90, "ms", Lower, "finished requests", "90 % quantile of the same", Some("p90_ttft_ms");
    ttft_p99, "ms", Lower, "finished requests", "99 % quantile of the same", Some("p99_ttft_ms");
    tpot_mean, "ms", Lower, "finished requests of two or more output tokens", "mean of: (E2E − TTFT) ÷ (output tokens − 1)", Some("mean_tpot_ms");
    tpot_p50, "ms", Lower, "finished requests of two or more output tokens", "median of the same", Some("median_tpot_ms");
    tpot_p90, "ms", Lower, "finished requests of two or more output tokens", "90 % quantile of the same", Some("p90_tpot_ms");
    tpot_p99, "ms", Lower, "finished requests of two or more output tokens", "99 % quantile of the same", Some("p99_tpot_ms");
    itl_mean, "ms", Lower, "gaps between tokens that end in the window, pooled over requests", "mean of: token − token before it; the first token ends no gap", Some("mean_itl_ms");
    itl_p50, "ms", Lower, "gaps between tokens that end in the window, pooled over requests", "median of the same", Some("median_itl_ms");
    itl_p90, "ms", Lower, "gaps between tokens that end in the window, pooled over requests", "90 % quantile of the same", Some("p90_itl_ms");
    itl_p99, "ms", Lower, "gaps between tokens that end in the window, pooled over requests", "99 % quantile of the same", Some("p99_itl_ms");
    e2e_mean, "ms", Lower, "finished requests", "mean of: last token at the client − sent by the client", Some("mean_e2el_ms");
    e2e_p50, "ms", Lower, "finished requests", "median of the same", Some("median_e2el_ms");
    e2e_p90, "ms", Lower, "finished requests", "90 % quantile of the same", Some("p90_e2el_ms");
    e2e_p99, "ms", Lower, "finished requests", "99 % quantile of the same", Some("p99_e2el_ms");
    queue_mean, "ms", Lower, "started requests", "mean of: first joined a batch − sent by the client", None;
    queue_p50, "ms", Lower, "started requests", "median of the same", None;
    queue_p90, "ms", Lower, "started requests", "90 % quantile of the same", None;
    queue_p99, "ms", Lower, "started requests", "99 % quantile of the same", None;
    goodput, "share", Higher, "all sent; refused, abandoned and unfinished ones are misses", "finished within all objectives of their class ÷ sent", None;
    goodput_rate, "req/s", Higher, "all sent", "finished within all objectives of their class ÷ length of the window", Some("request_goodput");
    offered_rate, "req/s", Neutral, "all sent", "sent ÷ time from the begin of the window to the last request; absent if all came at once", None;
    request_throughput, "req/s", Higher, "answers that came within the window", "their number ÷ length of the window", Some("request_throughput");
    output_token_throughput, "tokens/s", Higher, "answers that came within the window", "their output tokens ÷ length of the window", Some("output_throughput");
    availability, "share", Higher, "all sent", "finished with a good answer ÷ sent", None;
    sent, "requests", Neutral, "all sent", "count", None;
    finished, "requests", Higher, "all sent", "count of whole answers at the client", Some("completed");
    refused, "requests", Lower, "all sent", "count of requests turned away", None;
    abandoned, "requests", Lower, "all sent", "count of requests whose client gave up", None;
    unfinished, "requests", Neutral, "all sent", "count of requests under way when the run was cut off", None;
    amplification, "ratio", Lower, "all sent; only where clients make attempts", "attempts that clients sent ÷ sent", None;
    retries, "times", Lower, "attempts sent within the window; only where clients make attempts", "count of those made again after a failure", None;
    hedges, "times", Neutral, "attempts sent within the window; only where clients make attempts", "count of those made beside another under way", None;
    throttled, "times", Lower, "attempts due within the window; only where clients make attempts", "count of those that clients held back themselves", None;
    wasted_share, "share", Lower, "output tokens of the window; only where clients make attempts", "tokens for attempts that nobody waited for any more ÷ (those + tokens of answers that came)", None;
    preemptions, "times", Lower, "all sent", "count of requests thrown out of memory, each time", None;
    prefix_hit_rate, "share", Higher, "started requests", "prompt tokens found in cache ÷ prompt tokens", None;
    padding_share, "share", Lower, "steps within the window, where batches are static", "tokens of padding (prompts up to the longest of their batch where those are padded, and one per step for each request that is done before its batch) ÷ (those + prompt tokens computed + tokens decoded)", None;
    stored_answer_hit_rate, "share", Higher, "all sent", "finished with a stored answer (fresh, stale or to a similar question) ÷ sent", None;
    stale_answer_rate, "share", Neutral, "all sent", "finished with a stored answer past its time ÷ sent", None;
    coalesced_rate, "share", Neutral, "all sent", "finished with the answer to another request that asked the same ÷ sent", None;
    wrong_answer_rate, "share", Lower, "stored answers given in the whole run", "answers to another question than the one asked ÷ stored answers given", None;
    origin_calls, "requests", Lower, "the whole run", "count of requests and refreshes that went on to a replica although their answer may be kept or shared", None;
    origin_calls_per_flight, "ratio", Lower, "the whole run", "origin_calls ÷ those of them that found nobody fetching the same answer", None;
    origin_call_peak, "requests", Lower, "seconds of the clock after a fixed warm-up", "most of origin_calls that began in one second", None;
    verification_pass_rate, "share", Higher, "answers whose verdict came within the window", "accepted ÷ judged", None;
    accepted_outputs, "requests", Higher, "answers whose verdict came within the window", "count of answers that the verifier accepted, or that were trusted without a look (`gateway.paths.checked`)", None;
    verified_useful_outputs, "requests", Higher, "answers whose verdict came within the window", "count of accepted_outputs in time and good in truth", None;
    cost_total, "USD", Lower, "all postings of the window", "money that left the source", None;
    cost_per_verified_output, "USD", Lower, "all postings of the window", "cost_total ÷ verified_useful_outputs", None;
    cost_per_accepted_output, "USD", Lower, "all postings of the window", "cost_total ÷ accepted_outputs", None;
    energy_total, "Wh", Lower, "all postings of the window", "energy that left the source", None;
    energy_per_verified_output, "Wh", Lower, "all postings of the window", "energy_total ÷ verified_useful_outputs", None;
    toten_per_verified_output, "tokens", Lower, "all postings of the window", "(output tokens + 0.2 × prompt tokens computed + 0.02 × prompt tokens from cache) ÷ verified_useful_outputs", None;
    toten_raw_per_verified_output, "tokens", Lower, "all postings of the window", "(output tokens + prompt tokens computed + prompt tokens from cache) ÷ verified_useful_outputs", None;
    verifier_tax, "share", Lower, "all postings of the window", "money spent on checks ÷ cost_total", None;
    verifier_tax_latency, "ms", Lower, "finished requests, where there is a verifier", "median of: answer whole and checked − sent, less the median of: first answer whole − sent, as if nobody had checked it", None;
    verifier_tax_energy, "share", Lower, "all postings of the window", "energy of checks ÷ energy_total", None;
    verifier_spend, "USD", Lower, "all postings of the window", "money spent on checks", None;
    verifier_energy, "Wh", Lower, "all postings of the window, where verifiers draw power", "energy of checks", None;
    checks_per_answer, "ratio", Lower, "checks and verdicts within the window", "checks, each level of a ladder one ÷ verdicts", None;
    bad_caught, "requests", Neutral, "verdicts within the window", "count of bad answers that were rejected", None;
    bad_accepted, "requests", Lower, "verdicts within the window", "count of bad answers that were accepted: escapes", None;
    good_rejected, "requests", Lower, "verdicts within the window", "count of good answers that were rejected", None;
    error_cost, "USD", Lower, "verdicts within the window", "false_accept_cost × bad_accepted + false_reject_cost × good_rejected", None;
    net_verifier_value, "USD", Higher, "verdicts and postings of the window", "false_accept_cost × bad_caught − verifier_spend − false_reject_cost × good_rejected", None;
    bad_release_rate, "share", Lower, "answers that came within the window and were not rejected", "bad ones in truth ÷ all; unchecked ones included", None;
    gateway_latency_mean, "ms", Lower, "requests that passed the gateway's stages, the whole run", "mean of their time in all stages together", None;
    gateway_latency_p50, "ms", Lower, "requests that passed the gateway's stages, the whole run", "median of the same", None;
    gateway_latency_p99, "ms", Lower, "requests that passed the gateway's stages, the whole run", "99 % quantile of the same", None;
    gateway_p99_sum, "ms", Neutral, "the gateway's stages, the whole run", "sum over the stages of the 99 % quantile of each; what budgets by stage add up to", None;
    gateway_over_budget, "share", Lower, "requests that passed the gateway's stages, the whole run", "those whose time in all stages was over the budget ÷ all", None;
    gateway_left_out, "requests", Lower, "requests that passed the gateway's stages, the whole run", "count of stages left out or broken off because the budget was over", None;
    attacks_blocked, "share", Higher, "attacks that reached the ingress filter, the whole run", "blocked ÷ all", None;
    honest_blocked, "share", Lower, "honest requests that reached the ingress filter, the whole run", "blocked ÷ all", None;
    kernel_hit_rate, "share", Higher, "requests whose class has a kernel, the whole run", "served by a kernel ÷ all", None;
    leakage_rate, "share", Lower, "requests whose class has a kernel, the whole run", "sent to the frontier ÷ all", None;
    frontier_escalation_rate, "share", Lower, "all requests whose pool was chosen, the whole run", "sent to the frontier although a kernel is for them ÷ all", None;
    fallback_rate, "share", Lower, "requests that a kernel or the small model served, the whole run", "rejected answers in whose place the frontier was asked ÷ requests", None;
    probes, "requests", Neutral, "answers of kernels, the whole run, scenarios that probe kernels", "count of those that a reference was asked for too", None;
    probe_cost, "USD", Lower, "those probes", "price of probes × their number; the frontier's work for them is in its own costs", None;
    probe_disagreement, "share", Neutral, "probes that were compared and told to the detectors", "those found to differ ÷ all", None;
    drift_alarms, "times", Neutral, "the whole run, scenarios that probe kernels", "count of alarms of the kernels' detectors", None;
    drift_false_alarms, "times", Lower, "the whole run, scenarios that probe kernels", "count of alarms about kernels that had not drifted, as only the world knows", None;
    drift_quarantine, "share", Lower, "requests whose class has a kernel, the whole run, scenarios that probe kernels", "those whose kernel was suspect ÷ all", None;
    drift_delay, "ms", Lower, "drifts that raised an alarm before they were over, the whole run", "mean of: alarm − beginning of the drift", None;
    drifts_unnoticed, "times", Lower, "drifts that began in the whole run", "count of those that raised no alarm before they or the run were over", None;
    drift_bad_outputs, "requests", Lower, "answers that came to clients and were not rejected, the whole run, scenarios in which kernels drift", "count of bad ones that would have been good without the drift", None;
    rollout_exposure, "requests", Neutral, "answers of kernels that are rolled out, the whole run", "count of those that reached users", None;
    rollout_harm, "outputs", Lower, "those answers", "those that were bad where the frontier's would have been good, as only the world knows × severity", None;
    rollout_risk, "outputs", Lower, "stages that rollouts came to and that have a test, the whole run", "sum of pilot risk magnitudes: (outcomes until the test of a kernel of error p1 ends ÷ share checked + share exposed × requests per second × (time from request to outcome + propagation ÷ 2)) × (p1 − p0) × share that humans pass on × severity", None;
    rollout_time, "ms", Lower, "rollouts that came to an end, the whole run", "mean of: kernel serves all, or its withdrawal is decided − first stage", None;
    rollouts_withdrawn, "times", Neutral, "kernels that are rolled out, the whole run", "count of those withdrawn", None;
    replicas_mean, "replicas", Lower, "the whole run, fleets that scale", "time from order to release of all replicas of the pool (those at the start: from the begin) ÷ length of the run", None;
    replicas_peak, "replicas", Lower, "the whole run, fleets that scale", "most replicas of the pool that were paid at once", None;
    replica_hours, "h", Lower, "the whole run, fleets that scale", "time from order to release, all replicas of the pool together", None;
    replica_orders, "orders", Lower, "the whole run, fleets that scale", "count of replicas ordered", None;
    time_to_capacity, "ms", Lower, "the whole run, fleets that scale", "mean of: a replica became ready − first look of the autoscaler that found requests waiting since the last one did", None;
    short_of_capacity, "share", Lower, "looks of the autoscaler, the whole run", "looks that found requests waiting, at the gateway or at replicas ÷ looks", None;
    signal_correlation, "ratio", Neutral, "looks of an autoscaler at processors, each replica", "correlation of the load of the processors with the requests at the replica", None;
    gateway_queue_peak, "requests", Lower, "the whole run; only where requests waited at the gateway", "most requests that waited there at once", None;
    load_imbalance, "ratio", Lower, "the whole run, two or more replicas that are there from begin to end", "tokens (prompt and output) of the busiest replica ÷ mean over replicas", None;
    store_read_rate, "1/s", Neutral, "the whole run, scenarios with a state store", "reads sent to the store ÷ length of the run", None;
    store_write_rate, "1/s", Lower, "the whole run, scenarios with a state store", "writes sent to the store ÷ length of the run", None;
    store_read_p99, "ms", Lower, "reads that were answered", "99 % quantile of: the gateway knows − it asked", None;
    store_blind_share, "share", Lower, "the whole run, scenarios with a state store", "decisions without what the store would have said ÷ decisions", None;
    affinity_share, "share", Higher, "the whole run, routing by affinity", "decisions that followed the map ÷ decisions", None;
    affinity_entries_peak, "entries", Lower, "the whole run, routing by affinity", "most entries of the map at once", None;
    false_affinity, "share", Lower, "the whole run, routing by affinity", "requests whose replica had forgotten all of a prompt it had computed ÷ decisions that followed the map", None;
    stale_route_rate, "share", Lower, "the whole run, scenarios in which replicas are lost", "requests that reached a replica after it was lost ÷ requests sent to replicas; at most the lag of detection × the failures of a replica per time, if each gets its share", None;
    ejections, "times", Neutral, "the whole run, scenarios with outlier detection", "times that a replica was left alone because it had failed one request after the other", None;
    local_cache_hit_rate, "share", Higher, "started requests, the whole run, fleets with a shared cache", "prompt tokens found in the replica's own cache ÷ prompt tokens", None;
    shared_cache_hit_rate, "share", Higher, "started requests, the whole run, fleets with a shared cache", "prompt tokens fetched from the shared cache beyond those ÷ prompt tokens", None;
    refills, "requests", Neutral, "the whole run, fleets with a shared cache", "count of requests for which something was fetched from the shared cache and used", None;
    refill_mean, "ms", Lower, "those requests", "mean of: all fetched is there − the first was asked for", None;
    refill_hidden_share, "share", Higher, "those requests", "the part of that in which they could not have been admitted anyway ÷ all of it", None;
    refill_wasted_share, "share", Lower, "the whole run, fleets with a shared cache", "tokens fetched that no request had use for ÷ tokens fetched", None;
    launches_per_token, "launches", Lower, "the whole run, engines that compute", "launches of kernels and products ÷ tokens given out; a replayed graph is one launch", None;
    operations_per_token, "MFLOP", Lower, "the whole run, engines that compute", "floating-point operations of products and attention, verification included ÷ tokens given out", None;
    moved_per_token, "MB", Lower, "the whole run, engines that compute", "bytes of weights, keys and values read and written ÷ tokens given out", None;
    kv_in_use_mean, "MB", Lower, "steps of each model, the whole run, engines that compute", "mean of: bytes of keys and values in use; models and replicas together", None;
    span_mean, "sequences", Neutral, "the whole run, engines that compute", "sequences in the steps of all models ÷ those steps", None;
    turns_skipped, "share", Neutral, "turns that L0 looked at, the whole run", "answered as the turn before ÷ turns", None;
    wrong_skips, "share", Lower, "skipped turns, the whole run", "those whose answer the task's rule rejects ÷ skipped turns", None;
    skip_threshold, "ratio", Neutral, "replicas on which L0 acts", "mean of: threshold of change below which a turn is skipped, at the end", None;
    short_path_share, "share", Neutral, "computed tokens of answers, the whole run, where L2 acts", "tokens from the short path ÷ tokens", None;
    critical_short, "tokens", Lower, "computed tokens of answers, the whole run, where L2 acts", "count of tokens of critical severity from the short path", None;
    draft_acceptance, "share", Higher, "drafts, the whole run, where L2 drafts", "drafts that stood ÷ drafts verified", None;
    tokens_per_draft_step, "tokens", Higher, "steps that verify drafts, the whole run, where L2 drafts", "(drafts that stood + steps) ÷ steps", None;
    route_threshold, "ratio", Neutral, "replicas on which L2 acts", "mean of: threshold of risk below which a token takes the short path, at the end", None;
    kv_bits_mean, "bits", Lower, "full blocks, the whole run, where L3 acts", "mean bits of a stored number; scales are not counted", None;
    kv_f16_stored, "MB", Lower, "full blocks, the whole run, where L3 acts", "bytes of those that stayed 16-bit floats (anchors), each when it was full", None;
    kv_int8_stored, "MB", Neutral, "full blocks, the whole run, where L3 acts", "bytes of those in INT8, likewise", None;
    kv_fp8_stored, "MB", Neutral, "full blocks, the whole run, where L3 acts", "bytes of those in FP8, likewise", None;
    shadow_checks, "times", Neutral, "short and skipped answers, the whole run, where L4 acts", "count of those computed again to verify them", None;
    shadow_mismatches, "times", Lower, "verified answers, the whole run, where L4 acts", "count of those that differed", None;
    shadow_false_accepts, "share", Lower, "short and skipped answers, the whole run, where L4 acts", "share that differs, estimated: each verified one counts one over the probability with which it was", None;
    shadow_time_share, "share", Lower, "the whole run, where L4 acts", "time of computing short answers again ÷ time of all work, both by counted work", None;
    compared_answers, "answers", Neutral, "answers of all kinds, the whole run, engines that compute with layers", "count of those held against the frontier in full, drawn evenly, after the run", None;
    token_agreement, "share", Higher, "tokens of those answers", "tokens that the frontier would have chosen too, given the same tokens before ÷ tokens", None;
    token_divergence, "nats", Lower, "tokens of those answers that a model drew", "mean of: KL(frontier ‖ given) of the distributions that the token was drawn from", None;
    risk_signal, "ratio", Neutral, "replicas on which L5 acts", "mean of: risk of tokens as published last", None;
    novelty_signal, "ratio", Neutral, "replicas on which L5 acts", "mean of: change of states as published last", None;
    drift_signal, "ratio", Neutral, "replicas on which L5 acts", "mean of: what verification found lately above what it found before, as published last", None;
    confidence_signal, "ratio", Neutral, "replicas on which L5 acts", "mean of: certainty of tokens as published last", None;
    batch_mean, "requests", Neutral, "steps that end in the window", "requests decoding ÷ steps", None;
    in_system_mean, "requests", Neutral, "samples in the window", "mean of requests anywhere between client and client", None;
    kv_usage_mean, "share", Neutral, "samples in the window", "mean of: KV blocks held by running requests ÷ KV blocks, all replicas together that serve at the time", None;
    extrapolated_share, "share", Lower, "steps that end in the window", "steps outside the cost model's range ÷ steps", None;
}
