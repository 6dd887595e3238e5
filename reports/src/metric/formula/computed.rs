//! Metrics of engines that compute, and of the layers that leave out some of it.

use super::{Reading, Scope, count, over, ratio};
use windtunnel_ledger::computed::{ComputedTotals, LayerTotals, SignalTotals, StoredTotals};

const MEGA: f64 = 1e6;

fn computed(s: &Scope<'_>, read: fn(&ComputedTotals) -> Reading) -> Reading {
    let totals = s.whole.and_then(|w| w.run.computed.as_ref());
    totals.map_or(Reading::Absent, read)
}

/// A figure of a layer, where that layer acts.
fn layer(s: &Scope<'_>, number: usize, read: fn(&LayerTotals) -> Reading) -> Reading {
    let totals = s.whole.and_then(|w| w.run.computed.as_ref());
    let layers = totals.and_then(|t| t.layers.as_ref());
    layers
        .filter(|l| l.on[number])
        .map_or(Reading::Absent, read)
}

/// Launches per token given out.
pub fn launches_per_token(s: &Scope<'_>) -> Reading {
    computed(s, |t| ratio(t.launches, t.tokens))
}

/// Millions of operations per token given out.
pub fn operations_per_token(s: &Scope<'_>) -> Reading {
    computed(s, |t| {
        over(t.operations as f64 / MEGA / t.tokens as f64, t.tokens)
    })
}

/// Megabytes moved per token given out.
pub fn moved_per_token(s: &Scope<'_>) -> Reading {
    computed(s, |t| {
        over(t.moved_bytes() as f64 / MEGA / t.tokens as f64, t.tokens)
    })
}

/// Megabytes of keys and values in use.
pub fn kv_in_use_mean(s: &Scope<'_>) -> Reading {
    computed(s, |t| over(t.kv_mean_bytes / MEGA, t.model_steps))
}

/// Sequences per step of a model.
pub fn span_mean(s: &Scope<'_>) -> Reading {
    computed(s, |t| ratio(t.model_sequences, t.model_steps))
}

/// Turns answered as before.
pub fn turns_skipped(s: &Scope<'_>) -> Reading {
    layer(s, 0, |l| ratio(l.skipped, l.turns))
}

/// Of those, answered wrongly.
pub fn wrong_skips(s: &Scope<'_>) -> Reading {
    layer(s, 0, |l| ratio(l.skipped_wrong, l.skipped))
}

/// Where the threshold of L0 ended.
pub fn skip_threshold(s: &Scope<'_>) -> Reading {
    layer(s, 0, |l| over(l.skip_threshold, l.turns))
}

/// Tokens of the short path.
pub fn short_path_share(s: &Scope<'_>) -> Reading {
    layer(s, 2, |l| ratio(l.short_tokens, l.computed_tokens))
}

/// Of those, critical ones.
pub fn critical_short(s: &Scope<'_>) -> Reading {
    layer(s, 2, |l| count(l.critical_short))
}

/// Drafts that stood.
pub fn draft_acceptance(s: &Scope<'_>) -> Reading {
    layer(s, 2, |l| ratio(l.drafts_kept, l.drafts))
}

/// Tokens per verifying step.
pub fn tokens_per_draft_step(s: &Scope<'_>) -> Reading {
    layer(s, 2, |l| {
        ratio(l.drafts_kept + l.draft_steps, l.draft_steps)
    })
}

/// Where the threshold of L2 ended.
pub fn route_threshold(s: &Scope<'_>) -> Reading {
    layer(s, 2, |l| over(l.route_threshold, l.computed_tokens))
}

fn blocks(l: &LayerTotals) -> u64 {
    l.f16.blocks + l.int8.blocks + l.fp8.blocks
}

/// Mean bits of a number in full blocks.
pub fn kv_bits_mean(s: &Scope<'_>) -> Reading {
    layer(s, 3, |l| {
        let bits = 16 * l.f16.blocks + 8 * (l.int8.blocks + l.fp8.blocks);
        ratio(bits, blocks(l))
    })
}

fn stored(s: &Scope<'_>, of: fn(&LayerTotals) -> StoredTotals) -> Reading {
    let totals = s.whole.and_then(|w| w.run.computed.as_ref());
    let layers = totals.and_then(|t| t.layers.as_ref()).filter(|l| l.on[3]);
    layers.map_or(Reading::Absent, |l| {
        over(of(l).bytes as f64 / MEGA, blocks(l))
    })
}

/// Megabytes stored as 16-bit floats: anchors.
pub fn kv_f16_stored(s: &Scope<'_>) -> Reading {
    stored(s, |l| l.f16)
}

/// Megabytes stored in INT8.
pub fn kv_int8_stored(s: &Scope<'_>) -> Reading {
    stored(s, |l| l.int8)
}

/// Megabytes stored in FP8.
pub fn kv_fp8_stored(s: &Scope<'_>) -> Reading {
    stored(s, |l| l.fp8)
}

/// Answers that were verified.
pub fn shadow_checks(s: &Scope<'_>) -> Reading {
    layer(s, 4, |l| count(l.checks))
}

/// Of those, answers that differed.
pub fn shadow_mismatches(s: &Scope<'_>) -> Reading {
    layer(s, 4, |l| count(l.mismatches))
}

/// What verification makes of all short and skipped answers.
pub fn shadow_false_accepts(s: &Scope<'_>) -> Reading {
    layer(s, 4, |l| {
        over(l.false_accepts / l.accepted as f64, l.accepted)
    })
}

/// Time of verification by counted work.
pub fn shadow_time_share(s: &Scope<'_>) -> Reading {
    computed(s, |t| match &t.layers {
        Some(l) if l.on[4] => over(l.checking_seconds / t.counted_seconds, t.model_steps),
        _ => Reading::Absent,
    })
}

/// A figure of the answers that were held against the frontier in full, if any was.
fn compared(s: &Scope<'_>, read: fn(&LayerTotals) -> Reading) -> Reading {
    let totals = s.whole.and_then(|w| w.run.computed.as_ref());
    let layers = totals.and_then(|t| t.layers.as_ref());
    layers
        .filter(|l| l.compared > 0)
        .map_or(Reading::Absent, read)
}

/// Answers that were compared.
pub fn compared_answers(s: &Scope<'_>) -> Reading {
    compared(s, |l| count(l.compared))
}

/// Tokens that the frontier would have chosen too.
pub fn token_agreement(s: &Scope<'_>) -> Reading {
    compared(s, |l| ratio(l.same_tokens, l.compared_tokens))
}

/// Divergence from the frontier, per token.
pub fn token_divergence(s: &Scope<'_>) -> Reading {
    compared(s, |l| match l.drawn_tokens {
        0 => Reading::Absent,
        drawn => over(l.divergence / drawn as f64, drawn),
    })
}

fn signal(s: &Scope<'_>, of: fn(&SignalTotals) -> f64) -> Reading {
    let totals = s.whole.and_then(|w| w.run.computed.as_ref());
    let layers = totals.and_then(|t| t.layers.as_ref()).filter(|l| l.on[5]);
    layers.map_or(Reading::Absent, |l| over(of(&l.signals), l.publications))
}

/// Mean risk of tokens, as published last.
pub fn risk_signal(s: &Scope<'_>) -> Reading {
    signal(s, |x| x.risk)
}

/// Mean change of states, as published last.
pub fn novelty_signal(s: &Scope<'_>) -> Reading {
    signal(s, |x| x.novelty)
}

/// Drift, as published last.
pub fn drift_signal(s: &Scope<'_>) -> Reading {
    signal(s, |x| x.drift)
}

/// Mean certainty of tokens, as published last.
pub fn confidence_signal(s: &Scope<'_>) -> Reading {
    signal(s, |x| x.confidence)
}
