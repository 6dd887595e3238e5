//! Explanations as text: where a request's time went, why it went where it went, what makes up a
//! quantile.

use super::number::{digits, figure};
use crate::explain::{Attempt, Life, Quantile};
use crate::metric;
use std::fmt::Write as _;
use windtunnel_ledger::decision::Decision;

/// Width of the longest bar.
const BAR: f64 = 40.0;

/// A request's life.
pub fn life(life: &Life) -> String {
    let row = &life.row;
    let mut text = format!(
        "request {} · {} after {} · {} prompt tokens, {} from cache · {} output tokens\n",
        row.request,
        row.end.name().replace('_', " "),
        figure(life.total_ns as f64 / 1e6, "ms"),
        row.prompt_tokens,
        row.cached_tokens,
        row.output_tokens
    );
    if row.preemptions > 0 {
        let _ = writeln!(text, "preempted {} times", row.preemptions);
    }
    text.push('\n');
    for &(part, ns) in &life.parts {
        let share = life.share(part);
        let bar = "█".repeat((share * BAR).round() as usize);
        let _ = writeln!(
            text,
            "{:12}{:>13}{:>9}  {bar}",
            part.name(),
            figure(ns as f64 / 1e6, "ms"),
            figure(share, "share")
        );
    }
    if !life.attempts.is_empty() {
        text.push('\n');
        text.push_str(&attempts(life));
    }
    for decision in &life.decisions {
        text.push('\n');
        text.push_str(&self::decision(decision, &life.attempts));
    }
    text
}

/// The attempts of a request's client; times since the request was sent.
fn attempts(life: &Life) -> String {
    let mut text = format!(
        "{:>7}{:>9}{:>12}{:>9}{:>13}{:>12}{:>12}{:>12}\n",
        "attempt", "why", "sent", "replica", "dispatched", "started", "generated", "over"
    );
    for (i, attempt) in life.attempts.iter().enumerate() {
        let since = |ns: Option<u64>| {
            ns.map_or(String::new(), |ns| {
                figure(ns.saturating_sub(life.row.sent_ns) as f64 / 1e6, "ms")
            })
        };
        let _ = writeln!(
            text,
            "{:>7}{:>9}{:>12}{:>9}{:>13}{:>12}{:>12}{:>12}{}",
            i + 1,
            attempt.purpose.name(),
            since(Some(attempt.sent_ns)),
            attempt.replica.map_or(String::new(), |r| r.to_string()),
            since(attempt.dispatched_ns),
            since(attempt.started_ns),
            since(attempt.generated_ns),
            since(attempt.closed_ns),
            if attempt.answered {
                "  ← the answer"
            } else {
                ""
            },
        );
    }
    text
}

/// Why a request went where it went: what the policy saw of each replica, and how it scored.
fn decision(decision: &Decision, attempts: &[Attempt]) -> String {
    let at = figure(decision.at_ns as f64 / 1e6, "ms");
    let attempt = attempts.iter().position(|a| a.work == decision.request);
    let whose = attempt.map_or(String::new(), |i| format!("attempt {} ", i + 1));
    let mut text = whose
        + &match (decision.replica, decision.refused) {
            (Some(replica), _) => format!("at {at} sent to replica {replica}\n"),
            (None, Some(reason)) => {
                format!("at {at} refused: {}\n", reason.name().replace('_', " "))
            }
            (None, None) => format!("at {at} not sent anywhere\n"),
        };
    if decision.candidates.is_empty() {
        return text;
    }
    let _ = writeln!(
        text,
        "  {:>7}{:>13}{:>11}{:>9}{:>9}{:>15}",
        "replica", "score", "in flight", "running", "waiting", "telemetry age"
    );
    for c in &decision.candidates {
        // What a policy does not read is not kept.
        let shown = |n: u32| c.telemetry_age_ns.map_or(String::new(), |_| n.to_string());
        let chosen = if Some(c.replica) == decision.replica {
            "→"
        } else {
            " "
        };
        let _ = writeln!(
            text,
            "{chosen} {:>7}{:>13}{:>11}{:>9}{:>9}{:>15}",
            c.replica,
            c.score.map_or(String::new(), digits),
            c.in_flight,
            shown(c.running),
            shown(c.waiting),
            c.telemetry_age_ns
                .map_or(String::new(), |ns| figure(ns as f64 / 1e6, "ms"))
        );
    }
    text
}

/// What makes up a quantile, beside the median.
pub fn quantile(found: &Quantile) -> String {
    let name = metric::quantile_name(found.q);
    let mut text = format!(
        "{name} of {} is {}, the median {}; means over the {} requests around each\n\n{:12}{:>13}{:>13}\n",
        found.metric,
        figure(found.value_ms, "ms"),
        figure(found.median_ms, "ms"),
        found.n,
        "",
        name,
        "median"
    );
    for p in &found.parts {
        let _ = writeln!(
            text,
            "{:12}{:>13}{:>13}",
            p.part.name(),
            figure(p.at_quantile_ms, "ms"),
            figure(p.at_median_ms, "ms")
        );
    }
    let _ = writeln!(
        text,
        "\n{} explains {} of the distance from the median.",
        found.dominant.name(),
        figure(found.dominant_share, "share")
    );
    text
}
