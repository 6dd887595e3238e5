//! How each metric is computed. Costs, energy and tokens of the measured window are *all* postings
//! of its segments, whoever they were made for; answers are those to requests sent in it. In a
//! run that has settled, what spills over at the begin and at the end cancels.

/// Stored answers.
mod answers;
/// Engines that compute, and their layers.
mod computed;
/// What goes wrong.
mod faults;
/// Of kernels that drift, and who probes them.
mod drift;
/// Of kernels that come into use in stages.
mod rollout;
/// Stages and paths.
mod gateway;
/// Pools that follow their load.
mod scaling;
/// A cache of prompts that replicas share.
mod shared_cache;
/// The state store.
mod store;
/// Verifiers.
mod verification;

pub use answers::*;
pub use computed::*;
pub use drift::*;
pub use faults::*;
pub use gateway::*;
pub use rollout::*;
pub use scaling::*;
pub use shared_cache::*;
pub use store::*;
pub use verification::*;

use super::{Reading, Scope, Stat, distribution, statistic};
use windtunnel_ledger::account::Account;
use windtunnel_ledger::result::Population;

/// Price of a prompt token relative to an output token.
pub const TOTEN_INPUT: f64 = 0.2;
/// Price of a prompt token found in cache relative to an output token.
pub const TOTEN_CACHED: f64 = 0.02;

/// A value that rests on `n` observations; absent without any.
fn over(value: f64, n: u64) -> Reading {
    if n == 0 || !value.is_finite() {
        Reading::Absent
    } else {
        Reading::Value { value, n }
    }
}

/// A count, which exists even at zero.
fn count(n: u64) -> Reading {
    Reading::Value { value: n as f64, n }
}

fn ratio(part: u64, of: u64) -> Reading {
    over(part as f64 / of as f64, of)
}

fn rate(amount: u64, n: u64, seconds: f64) -> Reading {
    if seconds > 0.0 {
        Reading::Value {
            value: amount as f64 / seconds,
            n,
        }
    } else {
        Reading::Absent
    }
}

fn times(scope: &Scope<'_>, family: &str, stat: Stat) -> Reading {
    distribution(family, scope.population).map_or(Reading::Absent, |d| statistic(d, stat))
}

macro_rules! times {
    ($($name:ident $family:literal $stat:expr;)*) => { $(
        #[doc = concat!("A statistic of `", $family, "`, ms.")]
        pub fn $name(scope: &Scope<'_>) -> Reading {
            times(scope, $family, $stat)
        }
    )* };
}

times! {
    ttft_mean "ttft" Stat::Mean;
    ttft_p50 "ttft" Stat::Quantile(0.5);
    ttft_p90 "ttft" Stat::Quantile(0.9);
    ttft_p99 "ttft" Stat::Quantile(0.99);
    tpot_mean "tpot" Stat::Mean;
    tpot_p50 "tpot" Stat::Quantile(0.5);
    tpot_p90 "tpot" Stat::Quantile(0.9);
    tpot_p99 "tpot" Stat::Quantile(0.99);
    itl_mean "itl" Stat::Mean;
    itl_p50 "itl" Stat::Quantile(0.5);
    itl_p90 "itl" Stat::Quantile(0.9);
    itl_p99 "itl" Stat::Quantile(0.99);
    e2e_mean "e2e" Stat::Mean;
    e2e_p50 "e2e" Stat::Quantile(0.5);
    e2e_p90 "e2e" Stat::Quantile(0.9);
    e2e_p99 "e2e" Stat::Quantile(0.99);
    queue_mean "queue" Stat::Mean;
    queue_p50 "queue" Stat::Quantile(0.5);
    queue_p90 "queue" Stat::Quantile(0.9);
    queue_p99 "queue" Stat::Quantile(0.99);
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident = $of:expr;)*) => { $(
        $(#[$doc])*
        pub fn $name(scope: &Scope<'_>) -> Reading {
            let of: fn(&Population) -> u64 = $of;
            count(of(scope.population))
        }
    )* };
}

counts! {
    /// Requests sent.
    sent = |p| p.sent;
    /// Whole answer at the client.
    finished = |p| p.finished;
    /// Turned away.
    refused = |p| p.refused.iter().sum();
    /// Given up by their clients.
    abandoned = |p| p.abandoned;
    /// Cut off by the end of the run.
    unfinished = |p| p.unfinished;
    /// Times that requests were thrown out of memory.
    preemptions = |p| p.preemptions;
}

/// A count of attempts, where clients make any.
fn of_attempts(s: &Scope<'_>, n: u64) -> Reading {
    match s.population.attempts + s.population.throttled {
        0 => Reading::Absent,
        _ => count(n),
    }
}

/// Attempts per request.
pub fn amplification(s: &Scope<'_>) -> Reading {
    match of_attempts(s, 0) {
        Reading::Absent => Reading::Absent,
        _ => ratio(s.population.attempts, s.population.sent),
    }
}

/// Attempts made again after a failure.
pub fn retries(s: &Scope<'_>) -> Reading {
    of_attempts(s, s.population.retries)
}

/// Attempts made beside another.
pub fn hedges(s: &Scope<'_>) -> Reading {
    of_attempts(s, s.population.hedges)
}

/// Attempts that clients held back.
pub fn throttled(s: &Scope<'_>) -> Reading {
    of_attempts(s, s.population.throttled)
}

/// What was generated for nobody, of all output tokens.
pub fn wasted_share(s: &Scope<'_>) -> Reading {
    let p = s.population;
    match of_attempts(s, 0) {
        Reading::Absent => Reading::Absent,
        _ => ratio(p.wasted_tokens, p.wasted_tokens + p.delivered_tokens),
    }
}

/// Within all objectives, of all sent.
pub fn goodput(s: &Scope<'_>) -> Reading {
    if !s.objectives {
        return Reading::Absent;
    }
    ratio(s.population.met_objectives, s.population.sent)
}

/// Within all objectives, per second.
pub fn goodput_rate(s: &Scope<'_>) -> Reading {
    if !s.objectives {
        return Reading::Absent;
    }
    rate(
        s.population.met_objectives,
        s.population.met_objectives,
        s.seconds,
    )
}

/// Sent per second while any were sent.
pub fn offered_rate(s: &Scope<'_>) -> Reading {
    rate(s.population.sent, s.population.sent, s.sending_seconds)
}

/// Answers delivered per second.
pub fn request_throughput(s: &Scope<'_>) -> Reading {
    rate(s.population.delivered, s.population.delivered, s.seconds)
}

/// Output tokens of delivered answers per second.
pub fn output_token_throughput(s: &Scope<'_>) -> Reading {
    let p = s.population;
    rate(p.delivered_tokens, p.delivered, s.seconds)
}

/// Good answers of all sent.
pub fn availability(s: &Scope<'_>) -> Reading {
    ratio(s.population.good, s.population.sent)
}

/// Prompt tokens found in cache, of all of started requests.
pub fn prefix_hit_rate(s: &Scope<'_>) -> Reading {
    match ratio(s.population.cached_tokens, s.population.prompt_tokens) {
        Reading::Value { value, .. } => over(value, s.population.started),
        other => other,
    }
}

/// Padding, of what static batches had room for.
pub fn padding_share(s: &Scope<'_>) -> Reading {
    s.whole.as_ref().map_or(Reading::Absent, |whole| {
        let books = &whole.segment.books;
        ratio(books.batch_padding, books.batch_room)
    })
}

/// Accepted of judged.
pub fn verification_pass_rate(s: &Scope<'_>) -> Reading {
    ratio(s.population.accepted, s.population.verified)
}

/// Accepted or trusted, in time and good.
pub fn verified_useful_outputs(s: &Scope<'_>) -> Reading {
    if !s.verification {
        return Reading::Absent;
    }
    count(s.population.verified_useful)
}

/// Accepted, or trusted without a look.
pub fn accepted_outputs(s: &Scope<'_>) -> Reading {
    if !s.verification {
        return Reading::Absent;
    }
    count(delivered_as_fit(s))
}

const fn delivered_as_fit(s: &Scope<'_>) -> u64 {
    s.population.accepted + s.population.trusted
}

fn usd(s: &Scope<'_>) -> Option<f64> {
    let nano = s.whole?.segment.books.money.total();
    (nano > 0).then(|| nano as f64 / 1e9)
}

fn watt_hours(s: &Scope<'_>) -> Option<f64> {
    let micro = s.whole?.segment.books.energy.total();
    (micro > 0).then(|| micro as f64 / 3.6e9)
}

fn tokens(s: &Scope<'_>, input: f64, cached: f64) -> Option<f64> {
    let books = &s.whole?.segment.books;
    let weighted = books.prompt_tokens_computed as f64 * input
        + books.prompt_tokens_cached as f64 * cached
        + books.output_tokens_generated as f64;
    (weighted > 0.0).then_some(weighted)
}

/// `amount` per verified useful answer.
fn per_verified(s: &Scope<'_>, amount: Option<f64>) -> Reading {
    per(
        s,
        amount,
        s.population.verified_useful,
        "no answer was accepted in time and good",
    )
}

fn per(s: &Scope<'_>, amount: Option<f64>, n: u64, none: &str) -> Reading {
    match amount {
        Some(_) if s.verification && n == 0 => Reading::Withheld {
            n,
            reason: none.to_owned(),
        },
        Some(amount) if s.verification => over(amount / n as f64, n),
        _ => Reading::Absent,
    }
}

/// All spending.
pub fn cost_total(s: &Scope<'_>) -> Reading {
    usd(s).map_or(Reading::Absent, |usd| over(usd, s.population.sent.max(1)))
}

/// All spending per verified useful answer.
pub fn cost_per_verified_output(s: &Scope<'_>) -> Reading {
    per_verified(s, usd(s))
}

/// All spending per answer that was accepted, or trusted.
pub fn cost_per_accepted_output(s: &Scope<'_>) -> Reading {
    per(s, usd(s), delivered_as_fit(s), "no answer was accepted")
}

/// All energy.
pub fn energy_total(s: &Scope<'_>) -> Reading {
    watt_hours(s).map_or(Reading::Absent, |wh| over(wh, s.population.sent.max(1)))
}

/// All energy per verified useful answer.
pub fn energy_per_verified_output(s: &Scope<'_>) -> Reading {
    per_verified(s, watt_hours(s))
}

/// Tokens weighted by price, per verified useful answer.
pub fn toten_per_verified_output(s: &Scope<'_>) -> Reading {
    per_verified(s, tokens(s, TOTEN_INPUT, TOTEN_CACHED))
}

/// Tokens, each counting one, per verified useful answer.
pub fn toten_raw_per_verified_output(s: &Scope<'_>) -> Reading {
    per_verified(s, tokens(s, 1.0, 1.0))
}

/// The most requests that waited at the gateway.
pub fn gateway_queue_peak(s: &Scope<'_>) -> Reading {
    let totals = s.whole.map(|measured| measured.run.gateway);
    match totals {
        Some(totals) if totals.queued > 0 => count(totals.queue_peak),
        _ => Reading::Absent,
    }
}

/// Tokens of the busiest replica over the mean of all.
pub fn load_imbalance(s: &Scope<'_>) -> Reading {
    let Some(measured) = s.whole.filter(|m| m.run.scaling.is_none()) else {
        return Reading::Absent;
    };
    let loads: Vec<u64> = measured
        .run
        .replicas
        .iter()
        .map(|r| r.prompt_tokens + r.output_tokens)
        .collect();
    let total: u64 = loads.iter().sum();
    if loads.len() < 2 || total == 0 {
        return Reading::Absent;
    }
    let most = loads.iter().max().copied().unwrap_or(0) as f64;
    over(
        most * loads.len() as f64 / total as f64,
        measured.run.replicas.iter().map(|r| r.requests).sum(),
    )
}

/// Bad answers among those that nobody rejected.
pub fn bad_release_rate(s: &Scope<'_>) -> Reading {
    if !s.verification {
        return Reading::Absent;
    }
    ratio(s.population.released_bad, s.population.released)
}

/// Requests decoding per step.
pub fn batch_mean(s: &Scope<'_>) -> Reading {
    s.whole.map_or(Reading::Absent, |m| {
        ratio(m.segment.decode_seqs, m.segment.steps)
    })
}

/// Steps outside the cost model's range.
pub fn extrapolated_share(s: &Scope<'_>) -> Reading {
    s.whole.map_or(Reading::Absent, |m| {
        ratio(m.segment.extrapolated_steps, m.segment.steps)
    })
}

/// Mean over samples of `of`, where it gives a value.
fn sampled(s: &Scope<'_>, of: fn(&windtunnel_ledger::result::Sample) -> Option<f64>) -> Reading {
    let Some(measured) = s.whole else {
        return Reading::Absent;
    };
    let values: Vec<f64> = measured
        .run
        .samples
        .iter()
        .filter(|sample| sample.at_ns >= measured.window.from_ns)
        .filter_map(of)
        .collect();
    over(
        values.iter().sum::<f64>() / values.len() as f64,
        values.len() as u64,
    )
}

/// Requests in the system.
pub fn in_system_mean(s: &Scope<'_>) -> Reading {
    sampled(s, |sample| Some(f64::from(sample.in_system)))
}

/// Share of KV blocks that running requests hold.
pub fn kv_usage_mean(s: &Scope<'_>) -> Reading {
    sampled(s, |sample| {
        let total: u64 = sample.replicas.iter().map(|r| r.kv_total).sum();
        let held: u64 = sample.replicas.iter().map(|r| r.kv_held).sum();
        (total > 0).then(|| held as f64 / total as f64)
    })
}
