//! Runs small enough to compute by hand: every time, price and count is derived in the comments.

mod common;

use common::{Script, U, job, llm, plain, request, span, stations, units};
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::quantity::Money;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::units::NanoUsd;
use windtunnel_engine::config::{EngineSpec, FrontendSpec, StationSpec};
use windtunnel_ledger::account::{Account, Books};
use windtunnel_ledger::entry::Fact;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::schema::policies::{AdmissionSpec, LoadSignal, RoutingSpec, TieBreak};
use windtunnel_scenarios::schema::{ClassSpec, Scenario, VerificationSpec};
use windtunnel_scenarios::workload::Arrival;
use windtunnel_sim::{RunOptions, TieOrder, run};

fn play(scenario: &Scenario, requests: impl IntoIterator<Item = Arrival>) -> RunResult {
    play_script(scenario, &mut Script::new(requests))
}

fn play_script(scenario: &Scenario, script: &mut Script) -> RunResult {
    run(scenario, script, 1, RunOptions::default()).expect("a lawful run")
}

fn books(result: &RunResult) -> Books {
    let mut all = Books::default();
    result.segments.iter().for_each(|s| all.merge(&s.books));
    all
}

/// First token and end, in units since the start.
fn times(row: &Row) -> (u64, u64) {
    (row.first_token_ns.expect("it began") / U, row.ended_ns / U)
}

#[test]
fn two_requests_share_a_batch() {
    // A (4 prompt, 3 output) is alone: its prefill takes 8 + 4 units and gives the first token at 12.
    // B (2, 2) came at 5 and joins the next step: A's second token, B's prefill, 8 + 2 units: 22.
    // A decode step for both: 8 units, last tokens of both at 30.
    let result = play(&plain(), [request(0, 4, 3), request(5, 2, 2)]);
    assert_eq!(times(&result.rows[0]), (12, 30));
    assert_eq!(times(&result.rows[1]), (22, 30));
    assert_eq!(result.rows[0].started_ns, Some(0));
    assert_eq!(result.rows[1].started_ns, Some(12 * U));
    assert_eq!(result.end_ns, 30 * U);
    // A dollar per unit: 12 of prefill, 10 mixed, 8 of decode, no idle time.
    let books = books(&result);
    let dollars = |a| books.money.received(a) as f64 / 1e9;
    assert_eq!(dollars(Account::Prefill), 12.0);
    assert_eq!(dollars(Account::Mixed), 10.0);
    assert_eq!(dollars(Account::Decode), 8.0);
    assert_eq!(dollars(Account::Idle), 0.0);
    // 2 J per step, 1 J per token: 1, 2 and 2 tokens.
    assert_eq!(books.energy.total(), (3 * 2 + 5) * 1_000_000);
    assert_eq!(books.prompt_tokens_computed, 6);
    assert_eq!(books.output_tokens_generated, 5);
    // Gaps between tokens: A waited 10 and 8 units, B 8.
    let mut gaps = windtunnel_ledger::result::Population::default();
    result.segments.iter().for_each(|s| gaps.merge(&s.all));
    assert_eq!(gaps.itl.count(), 3);
    assert_eq!(gaps.itl.mean(), Some((26 * U) as f64 / 3.0));
}

#[test]
fn messages_take_their_time_both_ways() {
    // As above, but 3 units from client to gateway, 2 units of work there and one for every 2 tokens,
    // and 1 unit to the replica. A reaches the replica at 3 + 2 + 2 + 1 = 8, B (5 later, one unit of
    // work less) at 12, while A's prefill (8..20) runs.
    let mut scenario = plain();
    scenario.fleet.network.client_to_gateway = span(3);
    scenario.fleet.network.gateway_to_replica = span(1);
    scenario.gateway.latency = span(2);
    scenario.gateway.latency_per_kilotoken = span(500);
    let mut script = Script::new([request(0, 4, 3), request(5, 2, 2)]);
    let result = play_script(&scenario, &mut script);
    let a = &result.rows[0];
    assert_eq!(a.dispatched_ns, Some(7 * U));
    assert_eq!(a.accepted_ns, Some(8 * U));
    // The client sees what leaves the replica at 20 and 38 four units later.
    assert_eq!(times(a), (24, 42));
    assert_eq!(a.generated_ns, Some(38 * U));
    assert_eq!(times(&result.rows[1]), (34, 42));
    // The workload hears of departures when clients do.
    assert_eq!(script.departures, [(0, 42 * U, true), (1, 42 * U, true)]);
    // 8 units idle at first and 4 at last: the run ends when the clients have their answers.
    assert_eq!(books(&result).money.received(Account::Idle), 12_000_000_000);
}

#[test]
fn a_client_that_gives_up_frees_its_place() {
    // One server. A's service is 10 units. B (sent at 1, patience 4) waits and leaves at 5; C (sent at
    // 2) is served 10..13.
    let mut impatient = job(1, 7);
    impatient.patience = Some(units(4));
    let mut script = Script::new([job(0, 10), impatient, job(2, 3)]);
    let result = play_script(&stations(1, 1), &mut script);
    let ends: Vec<_> = result
        .rows
        .iter()
        .map(|r| (r.end, r.ended_ns / U))
        .collect();
    assert_eq!(
        ends,
        [
            (End::Finished, 10),
            (End::Abandoned, 5),
            (End::Finished, 13)
        ]
    );
    assert_eq!(script.departures[0], (1, 5 * U, false));
    assert_eq!(result.gateway.cancelled, 1);
    // Dead work is not done: the station serves 13 units, not 20.
    assert_eq!(result.replicas[0].busy_ns, 13 * U);
}

#[test]
fn an_answer_in_time_is_an_answer() {
    // Patience ends at the very instant the answer comes.
    let mut just = job(0, 10);
    just.patience = Some(units(10));
    let result = play(&stations(1, 1), [just]);
    assert_eq!(result.rows[0].end, End::Finished);
}

#[test]
fn cancellations_travel() {
    // 2 units to the gateway and 1 to the replica; patience 5. Work runs 3..13 but for the cancellation,
    // which leaves the client at 5 and reaches the replica at 8.
    let mut scenario = stations(1, 1);
    scenario.fleet.network.client_to_gateway = span(2);
    scenario.fleet.network.gateway_to_replica = span(1);
    let mut impatient = job(0, 10);
    impatient.patience = Some(units(5));
    let result = play(&scenario, [impatient]);
    assert_eq!(result.rows[0].end, End::Abandoned);
    assert_eq!(result.rows[0].ended_ns, 5 * U);
    assert_eq!(result.replicas[0].busy_ns, 5 * U);
    assert_eq!(result.end_ns, 8 * U);
}

#[test]
fn no_patience_at_all_reaches_nobody() {
    // The cancellation overtakes the request at the gateway's door, for both orders of hops.
    for (client, replica) in [(2, 1), (0, 1), (2, 0), (0, 0)] {
        let mut scenario = stations(1, 1);
        scenario.fleet.network.client_to_gateway = span(client);
        scenario.fleet.network.gateway_to_replica = span(replica);
        let mut hopeless = job(1, 10);
        hopeless.patience = Some(units(0));
        let result = play(&scenario, [hopeless, job(30, 1)]);
        assert_eq!(result.rows[0].end, End::Abandoned);
        assert_eq!(result.rows[1].end, End::Finished);
        assert_eq!(result.replicas[0].busy_ns, U, "{client} {replica}");
    }
}

#[test]
fn requests_wait_at_the_gateway_while_replicas_are_full() {
    // Two stations of two servers, but one request in flight each. A 0..10 on 0, B 0..4 on 1; C waits
    // and follows B 4..9; D (room for one) waits no more; E comes at 6, waits, follows C 9..10.
    let mut scenario = stations(2, 2);
    scenario.gateway.queue.max_in_flight = Some(1);
    scenario.gateway.queue.limit = Some(1);
    let result = play(
        &scenario,
        [job(0, 10), job(0, 4), job(1, 5), job(2, 5), job(6, 1)],
    );
    let ends: Vec<_> = result
        .rows
        .iter()
        .map(|r| (r.end, r.ended_ns / U))
        .collect();
    assert_eq!(
        ends,
        [
            (End::Finished, 10),
            (End::Finished, 4),
            (End::Finished, 9),
            (End::Refused(Refusal::QueueFull), 2),
            (End::Finished, 10)
        ]
    );
    assert_eq!(result.rows[2].dispatched_ns, Some(4 * U));
    assert_eq!(result.rows[4].replica, Some(1));
    assert_eq!((result.gateway.queued, result.gateway.queue_peak), (2, 1));
}

#[test]
fn a_replica_that_refuses_makes_room_again() {
    // A station without a waiting room. B is refused by the replica at 1 + 2, the gateway knows at 5 and
    // the client too; C, held back until then by `max_in_flight`, is refused in turn.
    let mut scenario = stations(1, 1);
    scenario.fleet.engine = EngineSpec::Station(StationSpec {
        queue_limit: Some(0),
        ..StationSpec::default()
    });
    scenario.fleet.network.gateway_to_replica = span(2);
    scenario.gateway.queue.max_in_flight = Some(2);
    let result = play(&scenario, [job(0, 20), job(1, 1), job(2, 1)]);
    let full = End::Refused(Refusal::QueueFull);
    let ends: Vec<_> = result
        .rows
        .iter()
        .map(|r| (r.end, r.ended_ns / U))
        .collect();
    assert_eq!(ends, [(End::Finished, 24), (full, 5), (full, 9)]);
    assert_eq!(result.rows[2].dispatched_ns, Some(5 * U));
}

#[test]
fn a_long_queue_of_hopeless_requests_ends_at_once() {
    // Each refusal makes room for the next: ten thousand in one instant, without recursion.
    let mut scenario = plain();
    scenario.gateway.queue.max_in_flight = Some(1);
    let long = |i| request(i, 1_000_000, 1);
    let result = play(
        &scenario,
        std::iter::once(request(0, 4, 2)).chain((0..10_000).map(|_| long(1))),
    );
    let refused = result
        .rows
        .iter()
        .filter(|r| r.end == End::Refused(Refusal::TooLong));
    assert_eq!(refused.count(), 10_000);
    assert_eq!(result.end_ns, 20 * U);
}

#[test]
fn admission_counts_who_is_inside() {
    // Two may be inside. The third is shed; when the first has left, the fourth gets in.
    let mut scenario = stations(1, 1);
    scenario.gateway.admission = AdmissionSpec::ConcurrencyLimit { limit: 2 };
    let result = play(&scenario, [job(0, 5), job(1, 5), job(2, 5), job(6, 5)]);
    let ends: Vec<_> = result.rows.iter().map(|r| r.end).collect();
    let shed = End::Refused(Refusal::Shed);
    assert_eq!(ends, [End::Finished, End::Finished, shed, End::Finished]);
}

#[test]
fn checks_take_time_and_money() {
    // A perfect verifier: 4 units and 5 nano-dollars per check. The bad answer is rejected, and still
    // delivered.
    let mut scenario = stations(1, 2);
    scenario.verification = Some(VerificationSpec {
        sensitivity: 1.0,
        specificity: 1.0,
        latency: span(4),
        price: Money(NanoUsd(5)),
        ..VerificationSpec::default()
    });
    let mut bad = job(0, 3);
    bad.truth.good = false;
    let result = play(&scenario, [job(0, 2), bad]);
    let verdicts: Vec<_> = result
        .rows
        .iter()
        .map(|r| (r.accepted_by_verifier, r.ended_ns / U))
        .collect();
    assert_eq!(verdicts, [(Some(true), 6), (Some(false), 7)]);
    assert_eq!(books(&result).money.received(Account::Verification), 10);
    let useful: u64 = result.segments.iter().map(|s| s.all.verified_useful).sum();
    assert_eq!(useful, 1);
}

#[test]
fn objectives_are_judged_without_rounding() {
    // First token at 12, last at 28 with three tokens: 8 units per token after the first.
    let within = |ttft, tpot, e2e| {
        let mut scenario = plain();
        let class = ClassSpec {
            ttft: Some(ttft),
            tpot: Some(tpot),
            e2e: Some(e2e),
            ..ClassSpec::default()
        };
        scenario.classes.insert("default".into(), class);
        play(&scenario, [request(0, 4, 3)]).rows[0].met_objectives
    };
    assert!(within(span(12), span(8), span(28)));
    assert!(!within(span(11), span(8), span(28)));
    assert!(!within(span(12), span(7), span(28)));
    assert!(!within(span(12), span(8), span(27)));
}

#[test]
fn a_cut_off_run_accounts_for_what_it_saw() {
    // Cut at 25: A's steps 0..12 and 12..20 are whole, 20..28 is cut after 5 units; B never left the
    // gateway's queue.
    for fast_forward in [true, false] {
        let mut scenario = plain();
        let mut engine = llm();
        engine.fast_forward = fast_forward;
        scenario.fleet.engine = EngineSpec::Continuous(Box::new(engine));
        scenario.gateway.queue.max_in_flight = Some(1);
        scenario.run.cut_off = Some(span(25));
        let result = play(&scenario, [request(0, 4, 9), request(1, 4, 2)]);
        assert_eq!(result.end_ns, 25 * U);
        assert!(
            result
                .rows
                .iter()
                .all(|r| r.end == End::Unfinished && r.ended_ns == 25 * U)
        );
        assert_eq!(result.rows[0].first_token_ns, Some(12 * U));
        assert_eq!(result.rows[1].dispatched_ns, None);
        let books = books(&result);
        assert_eq!(books.money.received(Account::Prefill), 12_000_000_000);
        assert_eq!(books.money.received(Account::Decode), 13_000_000_000);
        assert_eq!(books.money.received(Account::Idle), 0);
        assert_eq!(books.output_tokens_generated, 2);
        // 3 J for each whole step, 5/8 of it for the cut one.
        assert_eq!(books.energy.total(), 6_000_000 + 1_875_000);
    }
}

#[test]
fn a_watched_request_tells_its_story() {
    let mut scenario = stations(2, 1);
    scenario.gateway.routing = RoutingSpec::LeastLoaded {
        load: LoadSignal::default(),
        ties: TieBreak::LowestId,
    };
    let options = RunOptions {
        watch: Some(RequestId(1)),
        ..RunOptions::default()
    };
    let mut script = Script::new([job(0, 9), job(1, 2)]);
    let result = run(&scenario, &mut script, 1, options).expect("a lawful run");
    let story: Vec<_> = result
        .watched
        .iter()
        .map(|e| (e.at.as_nanos() / U, e.fact))
        .collect();
    let cached_tokens = 0;
    assert_eq!(
        story,
        [
            (1, Fact::Sent),
            (1, Fact::Dispatched(ReplicaId(1))),
            (1, Fact::Accepted),
            (1, Fact::Started { cached_tokens }),
            (3, Fact::FirstToken),
            (3, Fact::Generated),
            (3, Fact::Finished),
        ]
    );
    let [decision] = &result.decisions[..] else {
        panic!("one decision, not {:?}", result.decisions)
    };
    assert_eq!((decision.request, decision.replica), (1, Some(1)));
    let in_flight: Vec<_> = decision.candidates.iter().map(|c| c.in_flight).collect();
    assert_eq!(in_flight, [1, 0]);
    assert!(decision.candidates[1].score > decision.candidates[0].score);
}

/// Two stations under least waiting and running, by telemetry.
fn by_load(period: u64, delay: u64) -> Scenario {
    let mut scenario = stations(2, 9);
    scenario.gateway.routing = RoutingSpec::LeastLoaded {
        load: LoadSignal::WaitingAndRunning,
        ties: TieBreak::LowestId,
    };
    scenario.fleet.telemetry.period = span(period);
    scenario.fleet.telemetry.delay = span(delay);
    scenario
}

fn replicas_of(result: &RunResult) -> Vec<Option<u32>> {
    result.rows.iter().map(|r| r.replica).collect()
}

#[test]
fn telemetry_ages() {
    let jobs = || [1, 2, 3, 11, 12, 13, 22].map(|at| job(at, 100));
    // Live: loads alternate, ties go to the lower id.
    let live = play(&by_load(0, 0), jobs());
    assert_eq!(replicas_of(&live), [0, 1, 0, 1, 0, 1, 0].map(Some));
    // Scraped at 0, 10, 20, known 2 later: until 12 both look empty; from 12 on replica 0 has four, as
    // far as the scrape of 10 tells (three); from 22 on replica 1 looks less loaded still (4 against
    // 2, as of 20).
    let scraped = play(&by_load(10, 2), jobs());
    assert_eq!(replicas_of(&scraped), [0, 0, 0, 0, 1, 1, 1].map(Some));
}

#[test]
fn the_fewest_waiting_are_found_live_and_the_lowest_id_among_equals() {
    // Vidur's `lor`. Three replicas with one server each; five jobs at once take turns, for each waits
    // until their instant is over. Then all three serve and 0 and 1 have one more waiting.
    let mut scenario = stations(3, 1);
    scenario.gateway.routing = RoutingSpec::LeastLoaded {
        load: LoadSignal::Waiting,
        ties: TieBreak::LowestId,
    };
    let jobs = [0, 0, 0, 0, 0, 5, 6, 7].map(|at| job(at, 100));
    let result = play(&scenario, jobs);
    assert_eq!(replicas_of(&result), [0, 1, 2, 0, 1, 2, 0, 1].map(Some));
}

#[test]
fn a_frontend_takes_time_beside_the_engine() {
    // A (4 prompt, 3 output) gets into the queue at 3. Its prefill takes 8 + 4 units, two decode steps 8
    // each: tokens at 15, 23 and 31. The first comes out one unit later, the whole answer after one
    // unit per token and two more. B (2, 2) comes to an engine at rest at 32 + 3, though A is not
    // out yet: 8 + 2 and 8 units, 45 and 53.
    let mut scenario = plain();
    let EngineSpec::Continuous(engine) = &mut scenario.fleet.engine else {
        panic!("not an engine");
    };
    engine.frontend = FrontendSpec {
        input: span(3),
        per_token: span(1),
        completion: span(2),
    };
    let result = play(&scenario, [request(0, 4, 3), request(32, 2, 2)]);
    let [a, b] = &result.rows[..] else {
        panic!("two requests");
    };
    assert_eq!((a.dispatched_ns, a.accepted_ns), (Some(0), Some(3 * U)));
    assert_eq!(a.generated_ns, Some(31 * U));
    assert_eq!(times(a), (16, 36));
    assert_eq!(times(b), (46, 57));
    // Gaps as the client sees them: 9, 9 and 9 units.
    let mut gaps = windtunnel_ledger::result::Population::default();
    result.segments.iter().for_each(|s| gaps.merge(&s.all));
    assert_eq!(gaps.itl.mean(), Some((9 * U) as f64));
    // The engine worked 28 and 18 units and nothing of a frontend is paid as work.
    let busy = books(&result).money.total() - books(&result).money.received(Account::Idle);
    assert_eq!(busy, 46_000_000_000);
}

#[test]
fn the_order_of_ties_is_the_callers_choice() {
    // A on replica 0 until 9, B on replica 1 until 5; C comes at 5. Settled, replica 1 is empty; by the
    // state before, both have one, and the tie goes to replica 0.
    let routed = |ties| {
        let options = RunOptions {
            ties,
            ..RunOptions::default()
        };
        let mut script = Script::new([job(0, 9), job(1, 4), job(5, 1)]);
        let result = run(&by_load(0, 0), &mut script, 1, options).expect("a lawful run");
        result.rows[2].replica
    };
    assert_eq!(routed(TieOrder::Settled), Some(1));
    assert_eq!(routed(TieOrder::ArrivalsFirst), Some(0));
}

#[test]
fn a_system_as_shipped_brings_its_own_pace_unless_told_otherwise() {
    // vLLM's balancer learns its replicas' loads every 100 ms. At unit 60 (117.1875 ms) the last news is
    // that of 100 ms; with a period of 10 units, that of unit 60 itself.
    let age = |period| {
        let mut scenario = stations(2, 1);
        scenario.gateway.routing = RoutingSpec::VllmDp;
        scenario.fleet.telemetry.period = span(period);
        let options = RunOptions {
            record_decisions: true,
            ..RunOptions::default()
        };
        let mut script = Script::new([job(0, 200), job(60, 1)]);
        let result = run(&scenario, &mut script, 1, options).expect("a lawful run");
        result.decisions[1].candidates[0].telemetry_age_ns
    };
    assert_eq!(age(0), Some(60 * U - 100_000_000));
    assert_eq!(age(10), Some(0));
}
