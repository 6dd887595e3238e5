//! Stored answers and coalescing in whole runs small enough to follow by hand. Fetches take 5 units at
//! stations; there is no network unless a test says so.

mod common;

use common::{Script, U, job, span, stations, units};
use windtunnel_base::ids::TenantId;
use windtunnel_base::refusal::Refusal;
use windtunnel_engine::config::EngineSpec;
use windtunnel_ledger::entry::AnswerSource::{self, Coalesced, Similar, Stale, Stored};
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::schema::answers::{
    AnswersSpec, CoalescingSpec, OnFailure, SemanticSpec, SimilarityRule, TtlSince,
};
use windtunnel_scenarios::schema::faults::Target;
use windtunnel_scenarios::schema::pipeline::{PipelineSpec, StageSpec};
use windtunnel_scenarios::schema::policies::AdmissionSpec;
use windtunnel_scenarios::schema::{FaultSpec, Scenario, VerificationSpec};
use windtunnel_scenarios::workload::{Arrival, Question};
use windtunnel_sim::{RunOptions, run};

/// Asked at a unit, by a tenant, answered in five.
fn ask(at: u64, question: u64) -> Arrival {
    Arrival {
        question: Some(Question::plain(question)),
        ..job(at, 5)
    }
}

fn with_answers(spec: AnswersSpec) -> Scenario {
    let mut scenario = stations(1, 1_000);
    scenario.gateway.answers = Some(spec);
    scenario
}

fn coalescing(spec: CoalescingSpec) -> Scenario {
    let mut scenario = stations(1, 1_000);
    scenario.gateway.coalescing = Some(spec);
    scenario
}

fn play(scenario: &Scenario, requests: impl IntoIterator<Item = Arrival>) -> RunResult {
    let mut script = Script::new(requests);
    run(scenario, &mut script, 1, RunOptions::default()).expect("a lawful run")
}

fn sources(result: &RunResult) -> Vec<Option<AnswerSource>> {
    result.rows.iter().map(|row| row.answer).collect()
}

fn ends(result: &RunResult) -> Vec<u64> {
    result
        .rows
        .iter()
        .map(|row: &Row| row.ended_ns / U)
        .collect()
}

#[test]
fn the_same_question_is_answered_once() {
    let mut scenario = with_answers(AnswersSpec::default());
    scenario.fleet.network.client_to_gateway = span(1);
    let result = play(&scenario, [ask(0, 1), ask(10, 1), ask(11, 2)]);
    assert_eq!(sources(&result), [None, Some(Stored), None]);
    // There and back without a replica: two units.
    assert_eq!(ends(&result), [7, 12, 18]);
    assert_eq!(result.gateway.dispatched, 2);
    assert_eq!(result.rows[1].output_tokens, 1);
    assert_eq!(result.rows[1].first_token_ns, Some(12 * U));
}

/// C04: what the fast path saves is the share of its hits times what they leave out: the stages after the
/// exact lookup and the answer's own making. Nothing changes for the others.
#[test]
fn the_fast_path_saves_its_share_of_what_it_leaves_out() {
    let stage = |n| {
        Some(StageSpec {
            time: span(n),
            ..StageSpec::default()
        })
    };
    let mut scenario = with_answers(AnswersSpec::default());
    scenario.gateway.pipeline = Some(PipelineSpec {
        parse: stage(1),
        exact_lookup: stage(2),
        semantic_lookup: stage(4),
        kernel_lookup: stage(3),
        routing: stage(6),
        ..PipelineSpec::default()
    });
    // Every seventh asks something new: 51 of 60 find an answer.
    let asks = || (0..60).map(|i| ask(40 * i, i % 7 + 7 * u64::from(i % 20 == 19)));
    let with = play(&scenario, asks());
    scenario.gateway.answers = None;
    let without = play(&scenario, asks());
    let hits = sources(&with)
        .iter()
        .filter(|s| **s == Some(Stored))
        .count() as u64;
    assert!(hits > 40, "{hits}");
    let e2e = |result: &RunResult| -> u64 {
        result
            .rows
            .iter()
            .map(|r| (r.ended_ns - r.sent_ns) / U)
            .sum()
    };
    let (skipped, made) = (4 + 3 + 6, 5);
    assert_eq!(e2e(&without) - e2e(&with), hits * (skipped + made));
    for (a, b) in with.rows.iter().zip(&without.rows) {
        let saved = if a.answer.is_some() {
            skipped + made
        } else {
            0
        };
        assert_eq!((b.ended_ns - a.ended_ns) / U, saved);
    }
}

#[test]
fn no_tenant_gets_anothers_answer_and_nothing_else_is_mixed_up() {
    let other_tenant = Arrival {
        tenant: TenantId(1),
        ..ask(10, 1)
    };
    let mut other_sampling = ask(11, 1);
    other_sampling.question.as_mut().unwrap().sampling = 9;
    let silent = Arrival {
        question: None,
        ..ask(12, 1)
    };
    let scenario = with_answers(AnswersSpec {
        semantic: Some(SemanticSpec {
            rule: SimilarityRule::Threshold { at_least: -10.0 },
            ..SemanticSpec::default()
        }),
        ..AnswersSpec::default()
    });
    let result = play(&scenario, [ask(0, 1), other_tenant, other_sampling, silent]);
    assert_eq!(sources(&result), [None; 4]);
    assert_eq!(result.gateway.answers.asked, 3);
}

#[test]
fn time_counts_since_the_write_or_the_use() {
    let asked = [0, 8, 14, 20].map(|at| ask(at, 1));
    let of = |ttl_since| {
        let spec = AnswersSpec {
            ttl: Some(span(10)),
            ttl_since,
            ..AnswersSpec::default()
        };
        sources(&play(&with_answers(spec), asked))
    };
    // Written at 5: fresh until 15. Made anew at 20.
    assert_eq!(
        of(TtlSince::Write),
        [None, Some(Stored), Some(Stored), None]
    );
    // Used at 14: fresh until 24.
    let stored = Some(Stored);
    assert_eq!(of(TtlSince::Use), [None, stored, stored, stored]);
}

#[test]
fn a_stale_answer_is_given_while_one_fetch_makes_it_anew() {
    let scenario = with_answers(AnswersSpec {
        ttl: Some(span(10)),
        stale_while_revalidate: span(10),
        ..AnswersSpec::default()
    });
    // Written at 5, stale from 15 to 25; asked at 16, made anew by 21, fresh until 31, dead at 41.
    let result = play(&scenario, [0, 16, 18, 22, 41].map(|at| ask(at, 1)));
    let expected = [None, Some(Stale), Some(Stale), Some(Stored), None];
    assert_eq!(sources(&result), expected);
    assert_eq!(ends(&result), [5, 16, 18, 22, 46]);
    let totals = &result.gateway.answers;
    assert_eq!((totals.refreshes, totals.fetches), (1, 3));
    assert_eq!(result.gateway.dispatched, 3);
}

/// A station that serves one and lets nobody wait, which others keep busy.
fn busy(scenario: &mut Scenario) {
    if let EngineSpec::Station(station) = &mut scenario.fleet.engine {
        (station.servers, station.queue_limit) = (1, Some(0));
    }
}

#[test]
fn an_expired_answer_is_given_where_its_fetch_fails() {
    let mut scenario = with_answers(AnswersSpec {
        ttl: Some(span(10)),
        stale_if_error: span(20),
        ..AnswersSpec::default()
    });
    busy(&mut scenario);
    // Written at 5, expired at 15, dead at 35. Somebody else keeps the station busy from 10 to 50.
    let other = Arrival {
        question: None,
        ..job(10, 40)
    };
    let result = play(
        &scenario,
        [ask(0, 1), other, ask(20, 1), ask(34, 1), ask(36, 1)],
    );
    let expected = [None, None, Some(Stale), Some(Stale), None];
    assert_eq!(sources(&result), expected);
    assert_eq!(result.rows[4].end, End::Refused(Refusal::QueueFull));
    assert_eq!(result.gateway.answers.stale_on_error, 2);
}

#[test]
fn those_who_ask_the_same_wait_for_the_first() {
    let scenario = coalescing(CoalescingSpec::default());
    let result = play(
        &scenario,
        [ask(0, 1), ask(1, 1), ask(2, 2), ask(4, 1), ask(6, 1)],
    );
    let joined = Some(Coalesced);
    assert_eq!(sources(&result), [None, joined, None, joined, None]);
    assert_eq!(ends(&result), [5, 5, 7, 5, 11]);
    assert_eq!(result.gateway.dispatched, 3);
}

#[test]
fn a_leader_whose_client_leaves_goes_on_for_the_others() {
    let leaver = |patience| Arrival {
        patience: Some(units(patience)),
        ..ask(0, 1)
    };
    let scenario = coalescing(CoalescingSpec::default());
    let result = play(&scenario, [leaver(3), ask(1, 1)]);
    assert_eq!(result.rows[0].end, End::Abandoned);
    assert_eq!(sources(&result), [None, Some(Coalesced)]);
    assert_eq!(ends(&result), [3, 5]);
    assert_eq!(result.gateway.answers.kept_on, 1);
    // Nobody waits: it is cancelled. One who waits may leave as well.
    let result = play(&scenario, [leaver(3)]);
    assert_eq!(result.gateway.cancelled, 1);
    let follower = Arrival {
        patience: Some(units(2)),
        ..ask(1, 1)
    };
    let result = play(&scenario, [ask(0, 1), follower, ask(2, 1)]);
    assert_eq!(result.rows[1].end, End::Abandoned);
    assert_eq!(ends(&result), [5, 3, 5]);
}

#[test]
fn an_error_fans_out_or_one_of_the_waiting_is_promoted() {
    let of = |on_failure| {
        let mut scenario = coalescing(CoalescingSpec {
            on_failure,
            ..CoalescingSpec::default()
        });
        busy(&mut scenario);
        scenario.fleet.network.gateway_to_replica = span(10);
        // The leader reaches the station at 10, while it is busy until 12, and its refusal is seen at 20.
        let other = Arrival {
            question: None,
            ..job(0, 2)
        };
        play(&scenario, [other, ask(1, 1), ask(3, 1), ask(4, 1)])
    };
    let refused = End::Refused(Refusal::QueueFull);
    let failed = of(OnFailure::FanOut);
    assert!(failed.rows[1..].iter().all(|row| row.end == refused));
    assert_eq!(failed.gateway.answers.failed_with_leader, 2);
    let saved = of(OnFailure::Promote);
    assert_eq!(saved.rows[1].end, refused);
    // The second goes on at 21 and is answered 10 + 5 + 10 units later, the third with it.
    assert_eq!(ends(&saved)[2..], [46, 46]);
    assert_eq!(sources(&saved)[2..], [None, Some(Coalesced)]);
    let totals = &saved.gateway.answers;
    assert_eq!((totals.promoted, totals.fetches), (1, 2));
}

#[test]
fn when_all_are_refused_each_is_promoted_in_its_turn() {
    let mut scenario = coalescing(CoalescingSpec::default());
    scenario.gateway.admission = AdmissionSpec::ConcurrencyLimit { limit: 1 };
    busy(&mut scenario);
    scenario.fleet.network.gateway_to_replica = span(1);
    let other = Arrival {
        question: None,
        ..job(0, 1_000)
    };
    let requests = std::iter::once(other).chain((1..500).map(|_| ask(1, 1)));
    let result = play(&scenario, requests);
    let refused = |row: &&Row| matches!(row.end, End::Refused(_));
    assert_eq!(result.rows.iter().filter(refused).count(), 499);
}

#[test]
fn who_waits_too_long_goes_on_alone() {
    let scenario = coalescing(CoalescingSpec {
        follower_timeout: Some(span(2)),
        ..CoalescingSpec::default()
    });
    let result = play(&scenario, [ask(0, 1), ask(1, 1), ask(4, 1)]);
    // The second loses patience at 3 and is done at 8; the third is served with the first.
    assert_eq!(ends(&result), [5, 8, 5]);
    assert_eq!(result.gateway.answers.follower_timeouts, 1);
    assert_eq!(result.gateway.dispatched, 2);
}

#[test]
fn a_bad_answer_that_is_kept_is_given_again_and_again() {
    let mut scenario = with_answers(AnswersSpec::default());
    scenario.verification = Some(VerificationSpec {
        sensitivity: 0.0,
        specificity: 1.0,
        latency: span(2),
        ..VerificationSpec::default()
    });
    let mut bad = ask(0, 1);
    bad.truth.good = false;
    // Seen at 5, judged at 7, kept then.
    let result = play(&scenario, [bad, ask(6, 1), ask(8, 1), ask(9, 1)]);
    assert_eq!(sources(&result), [None, None, Some(Stored), Some(Stored)]);
    // The one at 6 fetched a good one and kept it at 13.
    let good: Vec<bool> = result.rows.iter().map(|row| row.good).collect();
    assert_eq!(good, [false, true, false, false]);
    assert!(
        result
            .rows
            .iter()
            .all(|row| row.accepted_by_verifier == Some(true))
    );
    let useful: u64 = result.segments.iter().map(|s| s.all.verified_useful).sum();
    assert_eq!(useful, 1);
    // A verifier that sees it keeps it out.
    scenario.verification.as_mut().unwrap().sensitivity = 1.0;
    let result = play(&scenario, [bad, ask(8, 1)]);
    assert_eq!(sources(&result), [None, None]);
}

#[test]
fn followers_have_the_tokens_before_the_verdict() {
    let mut scenario = coalescing(CoalescingSpec::default());
    scenario.verification = Some(VerificationSpec {
        latency: span(2),
        ..VerificationSpec::default()
    });
    // Who joins between answer and verdict has the tokens at once.
    let result = play(&scenario, [ask(0, 1), ask(1, 1), ask(6, 1)]);
    let last: Vec<u64> = result
        .rows
        .iter()
        .map(|r| r.last_token_ns.unwrap() / U)
        .collect();
    assert_eq!(last, [5, 5, 6]);
    assert_eq!(ends(&result), [7, 7, 7]);
}

#[test]
fn a_similar_question_may_get_a_wrong_answer() {
    let lax = with_answers(AnswersSpec {
        semantic: Some(SemanticSpec {
            rule: SimilarityRule::Threshold { at_least: 0.0 },
            ..SemanticSpec::default()
        }),
        ..AnswersSpec::default()
    });
    let mut reworded = ask(10, 1);
    reworded.question.as_mut().unwrap().words = 77;
    let result = play(&lax, [ask(0, 1), reworded, ask(11, 2)]);
    assert_eq!(sources(&result), [None, Some(Similar), Some(Similar)]);
    let good: Vec<bool> = result.rows.iter().map(|row| row.good).collect();
    assert_eq!(good, [true, true, false]);
    assert_eq!(result.gateway.answers.wrong, 1);
}

/// Whom a lost replica was serving gets an expired answer, and what its last step still brings is nobody's.
#[test]
fn what_a_lost_replica_still_brings_is_nobodys() {
    for lost_at in 21..25 {
        let mut scenario = with_answers(AnswersSpec {
            ttl: Some(span(1)),
            stale_if_error: span(100),
            ..AnswersSpec::default()
        });
        scenario.faults.push(FaultSpec::ReplicaLoss {
            at: span(lost_at),
            lasts: span(1),
            detection: span(0),
            on: Target::default(),
        });
        let result = play(&scenario, [ask(0, 1), ask(20, 1)]);
        assert_eq!(sources(&result), [None, Some(Stale)]);
        assert_eq!(ends(&result), [5, lost_at]);
        assert_eq!(result.gateway.answers.stale_on_error, 1);
    }
}

/// Client and follower of a fetch have both given up: it is not made for nobody.
#[test]
fn a_fetch_that_nobody_waits_for_any_more_is_cancelled() {
    let asked = |at, patience| Arrival {
        patience: Some(units(patience)),
        ..ask(at, 1)
    };
    let scenario = coalescing(CoalescingSpec::default());
    let result = play(&scenario, [asked(0, 2), asked(1, 3)]);
    assert_eq!(result.gateway.answers.kept_on, 1);
    let ended: Vec<End> = result.rows.iter().map(|row| row.end).collect();
    assert_eq!(ended, [End::Abandoned; 2]);
    // Left at 4, when the follower did; its service would have taken until 5.
    assert_eq!(result.replicas[0].busy_ns, 4 * U);
}

/// Who leaves the gateway's room and fails at once is followed by whom it is promoted for, in the same moment.
#[test]
fn a_promoted_request_goes_on_in_the_moment_of_the_failure() {
    let mut scenario = coalescing(CoalescingSpec::default());
    scenario.gateway.queue.max_in_flight = Some(1);
    scenario.faults.push(FaultSpec::OriginErrors {
        at: span(5),
        lasts: span(100),
        share: 1.0,
        on: Target::default(),
    });
    // Another is served until 10; the leader waits for its place, fails, and its follower fails after it.
    let other = Arrival {
        question: None,
        ..job(0, 10)
    };
    let result = play(&scenario, [other, ask(1, 1), ask(2, 1), job(30, 1)]);
    assert_eq!(ends(&result)[..3], [10, 10, 10]);
    assert_eq!(result.gateway.answers.promoted, 1);
}
