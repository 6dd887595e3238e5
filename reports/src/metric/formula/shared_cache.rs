//! Metrics of a cache of prompts that replicas share.

use super::{Reading, Scope, count, over, ratio};
use windtunnel_ledger::shared_cache::SharedCacheTotals;

fn shared_cache<'a>(s: &Scope<'a>) -> Option<&'a SharedCacheTotals> {
    s.whole?.run.shared_cache.as_ref()
}

fn of(s: &Scope<'_>, read: fn(&SharedCacheTotals) -> Reading) -> Reading {
    shared_cache(s).map_or(Reading::Absent, read)
}

/// Prompt tokens found in the replicas' own caches.
pub fn local_cache_hit_rate(s: &Scope<'_>) -> Reading {
    of(s, |t| ratio(t.local_tokens, t.prompt_tokens))
}

/// Prompt tokens fetched from the shared cache beyond those.
pub fn shared_cache_hit_rate(s: &Scope<'_>) -> Reading {
    of(s, |t| ratio(t.shared_tokens, t.prompt_tokens))
}

/// Requests for which something was fetched.
pub fn refills(s: &Scope<'_>) -> Reading {
    of(s, |t| count(t.refills))
}

/// How long a fetch takes.
pub fn refill_mean(s: &Scope<'_>) -> Reading {
    of(s, |t| {
        over(t.refill_ns as f64 / 1e6 / t.refills as f64, t.refills)
    })
}

/// The part of that which delays nobody.
pub fn refill_hidden_share(s: &Scope<'_>) -> Reading {
    of(s, |t| {
        over(t.hidden_ns as f64 / t.refill_ns as f64, t.refills)
    })
}

/// Tokens fetched that nobody had use for.
pub fn refill_wasted_share(s: &Scope<'_>) -> Reading {
    of(s, |t| {
        let wasted = t.fetched_tokens.saturating_sub(t.shared_tokens);
        ratio(wasted, t.fetched_tokens)
    })
}
