//! Metrics of stored answers, and of requests that wait for the answer to another.

use super::{Reading, Scope, count, ratio};
use windtunnel_ledger::decision::AnswerTotals;
use windtunnel_ledger::entry::AnswerSource;

fn answers<'a>(s: &Scope<'a>) -> Option<&'a AnswerTotals> {
    let totals = &s.whole?.run.gateway.answers;
    (!totals.is_nothing()).then_some(totals)
}

fn from_elsewhere(s: &Scope<'_>, sources: &[AnswerSource]) -> Reading {
    if answers(s).is_none() {
        return Reading::Absent;
    }
    let counts = &s.population.elsewhere;
    let given = sources.iter().map(|&source| counts[source as usize]).sum();
    ratio(given, s.population.sent)
}

/// Answered from what is stored, of all sent.
pub fn stored_answer_hit_rate(s: &Scope<'_>) -> Reading {
    use AnswerSource::{Similar, Stale, Stored};
    from_elsewhere(s, &[Stored, Stale, Similar])
}

/// Answered by what had expired, of all sent.
pub fn stale_answer_rate(s: &Scope<'_>) -> Reading {
    from_elsewhere(s, &[AnswerSource::Stale])
}

/// Answered together with another, of all sent.
pub fn coalesced_rate(s: &Scope<'_>) -> Reading {
    from_elsewhere(s, &[AnswerSource::Coalesced])
}

/// Answers to another question, of stored answers given.
pub fn wrong_answer_rate(s: &Scope<'_>) -> Reading {
    answers(s).map_or(Reading::Absent, |a| {
        ratio(a.wrong, a.exact + a.stale + a.similar)
    })
}

/// Went on for an answer that may be kept or shared.
pub fn origin_calls(s: &Scope<'_>) -> Reading {
    answers(s).map_or(Reading::Absent, |a| count(a.fetches))
}

/// Of those, for each that found nobody fetching the same.
pub fn origin_calls_per_flight(s: &Scope<'_>) -> Reading {
    answers(s).map_or(Reading::Absent, |a| ratio(a.fetches, a.flights))
}

/// Of those, the most in a second.
pub fn origin_call_peak(s: &Scope<'_>) -> Reading {
    answers(s).map_or(Reading::Absent, |a| count(a.fetch_peak))
}
