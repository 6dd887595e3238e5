//! Clients that time out, try again, hold back and ask twice: runs small enough to compute by hand.

mod common;

use common::{Script, U, job, span, stations, units};
use windtunnel_base::ids::RequestId;
use windtunnel_base::refusal::Refusal;
use windtunnel_ledger::entry::{AnswerSource, Entry, Fact, Purpose};
use windtunnel_ledger::result::{Population, RunResult};
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::schema::clients::{
    ClientsSpec, Failure, HedgingSpec, RetriesSpec, RetryBudgetSpec,
};
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_scenarios::schema::{Scenario, VerificationSpec};
use windtunnel_scenarios::workload::Arrival;
use windtunnel_sim::{RunOptions, run};

fn play(scenario: &Scenario, requests: impl IntoIterator<Item = Arrival>) -> RunResult {
    let script = &mut Script::new(requests);
    let result = run(scenario, script, 1, RunOptions::default()).expect("a lawful run");
    assert_eq!(
        script.departures.len(),
        result.rows.len(),
        "each leaves once"
    );
    result
}

fn all(result: &RunResult) -> Population {
    let mut all = Population::default();
    result.segments.iter().for_each(|s| all.merge(&s.all));
    all
}

fn one_server(clients: ClientsSpec) -> Scenario {
    Scenario {
        clients: Some(clients),
        ..stations(1, 1)
    }
}

fn end(row: &Row) -> (End, u64, Option<u32>) {
    (row.end, row.ended_ns / U, row.attempts)
}

fn retries(max: u32, timeout: u64, cancel_dead_work: bool) -> ClientsSpec {
    ClientsSpec {
        attempt_timeout: Some(span(timeout)),
        cancel_dead_work,
        retries: RetriesSpec {
            max,
            ..RetriesSpec::default()
        },
        ..ClientsSpec::default()
    }
}

#[test]
fn dead_work_is_done_unless_it_is_cancelled() {
    // A service of 10 units, three attempts of 4 units each. Its client has given up at 12.
    let timed_out = End::Refused(Refusal::TimedOut);
    let result = play(&one_server(retries(2, 4, false)), [job(0, 10)]);
    assert_eq!(end(&result.rows[0]), (timed_out, 12, Some(3)));
    // All three are served, one after the other, and nobody takes the answers.
    assert_eq!(
        (result.replicas[0].busy_ns, result.end_ns),
        (30 * U, 30 * U)
    );
    let counts = all(&result);
    assert_eq!(
        (counts.attempts, counts.retries, counts.wasted_tokens),
        (3, 2, 3)
    );
    assert_eq!(
        result.in_system_ns,
        u128::from(12 * U),
        "works are no calls"
    );
    // Cancelled ones leave the server when their clients do.
    let result = play(&one_server(retries(2, 4, true)), [job(0, 10)]);
    assert_eq!(end(&result.rows[0]), (timed_out, 12, Some(3)));
    assert_eq!(
        (result.replicas[0].busy_ns, result.end_ns),
        (12 * U, 12 * U)
    );
    assert_eq!(all(&result).wasted_tokens, 0);
}

/// Two callers above one another, each with one retry a unit later: four attempts of 4 units, three waits.
/// Budgets are each caller's own.
#[test]
fn attempts_of_callers_above_one_another_multiply() {
    let mut clients = retries(1, 4, true);
    clients.retries.layers = 2;
    (clients.retries.backoff, clients.retries.factor) = (span(1), 4.0);
    let result = play(&one_server(clients.clone()), [job(0, 10)]);
    let timed_out = End::Refused(Refusal::TimedOut);
    assert_eq!(end(&result.rows[0]), (timed_out, 19, Some(4)));
    // One retry each: the lower one spends its own on the first try, and the upper one's brings it nothing
    // back, as a tenth of a request is not a retry.
    clients.retry_budget = Some(RetryBudgetSpec {
        share: 0.1,
        burst: 1,
        ..RetryBudgetSpec::default()
    });
    let result = play(&one_server(clients.clone()), [job(0, 10)]);
    assert_eq!(end(&result.rows[0]), (timed_out, 14, Some(3)));
    // A whole one does.
    clients.retry_budget = Some(RetryBudgetSpec {
        share: 1.0,
        burst: 1,
        ..RetryBudgetSpec::default()
    });
    let result = play(&one_server(clients), [job(0, 10)]);
    assert_eq!(end(&result.rows[0]), (timed_out, 19, Some(4)));
}

#[test]
fn a_late_answer_is_nobodys() {
    // A is served until 10. B, sent at 1, times out at 7, and its second attempt is served after its first,
    // from 13 to 16, before it times out at 13 itself: so it finishes only if it waits for 9.
    let jobs = || [job(0, 10), job(1, 3)];
    let result = play(&one_server(retries(1, 6, false)), jobs());
    let timed_out = End::Refused(Refusal::TimedOut);
    assert_eq!(end(&result.rows[1]), (timed_out, 13, Some(2)));
    assert_eq!(end(&result.rows[0]), (timed_out, 12, Some(2)));
    let result = play(&one_server(retries(1, 11, false)), jobs());
    // B times out at 12, just before its first answer at 13; the second attempt is served to 16.
    assert_eq!(end(&result.rows[0]), (End::Finished, 10, Some(1)));
    assert_eq!(end(&result.rows[1]), (End::Finished, 16, Some(2)));
    assert_eq!(
        result.rows[1].started_ns,
        Some(13 * U),
        "that of the attempt that won"
    );
    assert_eq!(result.rows[1].answer, Some(AnswerSource::Attempt));
    assert_eq!(all(&result).wasted_tokens, 1);
    assert_eq!(
        result.rows[1].e2e_ns(),
        Some(15 * U),
        "from the first attempt on"
    );
}

#[test]
fn refused_attempts_wait_longer_each_time() {
    let mut scenario = one_server(ClientsSpec {
        retries: RetriesSpec {
            max: 2,
            backoff: span(5),
            ..RetriesSpec::default()
        },
        ..ClientsSpec::default()
    });
    scenario.gateway.queue.max_in_flight = Some(1);
    scenario.gateway.queue.limit = Some(0);
    // B is refused at 1, at 6, and served when it comes again at 16.
    let result = play(&scenario, [job(0, 10), job(1, 3)]);
    assert_eq!(end(&result.rows[1]), (End::Finished, 19, Some(3)));
    assert_eq!(result.rows[1].dispatched_ns, Some(16 * U));
    // Where nobody tries again after that, the first refusal is the last.
    if let Some(clients) = &mut scenario.clients {
        clients.retries.on = vec![Failure::TimedOut];
    }
    let result = play(&scenario, [job(0, 10), job(1, 3)]);
    let full = End::Refused(Refusal::QueueFull);
    assert_eq!(end(&result.rows[1]), (full, 1, Some(1)));
}

fn hedged(stations_in_turn: u32, after: u64, cancel_dead_work: bool) -> Scenario {
    let mut scenario = stations(stations_in_turn, 1);
    scenario.gateway.routing = RoutingSpec::RoundRobin;
    scenario.clients = Some(ClientsSpec {
        cancel_dead_work,
        hedging: Some(HedgingSpec {
            after: span(after),
            max: 1,
        }),
        ..ClientsSpec::default()
    });
    scenario
}

#[test]
fn the_first_whole_answer_counts() {
    // Z holds the first of three stations; the others are free from 1 on; A waits behind Z. At 9 both are
    // asked for again: Z by the second station, A by the third, which answers at 12.
    let jobs = [job(0, 20), job(0, 1), job(0, 1), job(0, 3)];
    let result = play(&hedged(3, 9, true), jobs);
    assert_eq!(all(&result).hedges, 2);
    assert_eq!(end(&result.rows[0]), (End::Finished, 20, Some(2)));
    assert_eq!(end(&result.rows[3]), (End::Finished, 12, Some(2)));
    assert_eq!(result.rows[3].replica, Some(2));
    // A has left the first station's queue, and Z the second station when the first was done.
    let busy = result.replicas.iter().map(|r| r.busy_ns / U);
    assert_eq!(busy.collect::<Vec<_>>(), [20, 12, 4]);
    // Who waits longer than anything takes asks for nothing again.
    let result = play(&hedged(3, 25, true), jobs);
    assert_eq!(all(&result).hedges, 0);
    assert_eq!(end(&result.rows[3]), (End::Finished, 23, Some(1)));
}

#[test]
fn the_loser_is_cancelled_or_wasted() {
    // Alone: the hedge at 5 is served by the other station until 15; the first answer comes at 10.
    let result = play(&hedged(2, 5, true), [job(0, 10)]);
    assert_eq!(end(&result.rows[0]), (End::Finished, 10, Some(2)));
    assert_eq!(result.replicas[1].busy_ns, 5 * U);
    let result = play(&hedged(2, 5, false), [job(0, 10)]);
    assert_eq!(end(&result.rows[0]), (End::Finished, 10, Some(2)));
    assert_eq!(
        (result.replicas[1].busy_ns, all(&result).wasted_tokens),
        (10 * U, 1)
    );
}

#[test]
fn a_budget_bounds_what_a_storm_may_do() {
    let budget = RetryBudgetSpec {
        share: 0.0,
        burst: 3,
        ..RetryBudgetSpec::default()
    };
    let clients = ClientsSpec {
        retry_budget: Some(budget),
        ..retries(5, 4, true)
    };
    // Two requests that no attempt will ever answer, and three retries for both together.
    let result = play(&one_server(clients), [job(0, 10), job(100, 10)]);
    assert_eq!(result.rows[0].attempts, Some(4));
    assert_eq!(result.rows[1].attempts, Some(1));
    assert_eq!(all(&result).retries, 3);
}

#[test]
fn whoever_loses_patience_drops_all_attempts() {
    let mut impatient = job(0, 30);
    impatient.patience = Some(units(9));
    let result = play(&one_server(retries(9, 4, true)), [impatient]);
    assert_eq!(end(&result.rows[0]), (End::Abandoned, 9, Some(3)));
    assert_eq!(result.end_ns, 9 * U);
}

#[test]
fn a_run_that_is_cut_off_closes_everything() {
    let mut scenario = one_server(retries(9, 4, false));
    scenario.run.cut_off = Some(span(10));
    let result = play_cut(&scenario, [job(0, 30)]);
    assert_eq!(end(&result.rows[0]), (End::Unfinished, 10, Some(3)));
    assert_eq!(result.end_ns, 10 * U);
}

fn play_cut(scenario: &Scenario, requests: impl IntoIterator<Item = Arrival>) -> RunResult {
    run(
        scenario,
        &mut Script::new(requests),
        1,
        RunOptions::default(),
    )
    .expect("a lawful run")
}

#[test]
fn attempts_get_the_verdict_of_their_call() {
    // The same verdicts, request by request, as without attempts, and each answer is checked.
    let spec = VerificationSpec {
        sensitivity: 0.5,
        specificity: 0.5,
        ..VerificationSpec::default()
    };
    let jobs = || (0..40).map(|i| job(20 * i, 10));
    let verdicts = |clients: Option<ClientsSpec>| {
        let scenario = Scenario {
            clients,
            verification: Some(spec.clone()),
            ..stations(1, 1)
        };
        let result = play(&scenario, jobs());
        let rows = result.rows.iter();
        rows.map(|r| r.accepted_by_verifier).collect::<Vec<_>>()
    };
    let bare = verdicts(None);
    assert!(bare.contains(&Some(true)) && bare.contains(&Some(false)));
    assert_eq!(verdicts(Some(ClientsSpec::default())), bare);
}

#[test]
fn clients_without_rules_change_nothing_but_who_does_the_work() {
    let jobs = || [job(0, 10), job(1, 3), job(2, 5)];
    let bare = play(&stations(1, 1), jobs());
    let attempts = play(&one_server(ClientsSpec::default()), jobs());
    for (bare, row) in bare.rows.iter().zip(&attempts.rows) {
        let same = Row {
            attempts: Some(1),
            answer: Some(AnswerSource::Attempt),
            ..*bare
        };
        assert_eq!(*row, same);
    }
    let watch = Some(RequestId(1));
    let options = RunOptions {
        watch,
        ..RunOptions::default()
    };
    let scenario = one_server(ClientsSpec::default());
    let watched = run(&scenario, &mut Script::new(jobs()), 1, options).expect("a lawful run");
    assert_eq!(watched.digest, attempts.digest);
    // Sent, answered and finished; and what its attempt did.
    let own = watched.watched.iter().filter(|e| Some(e.request) == watch);
    assert_eq!(own.count(), 3);
    let begun = |e: &&Entry| e.fact == Fact::Begun(Purpose::Attempt);
    assert_eq!(watched.watched.iter().filter(begun).count(), 1);
    assert_eq!(watched.watched.len(), 10);
}
