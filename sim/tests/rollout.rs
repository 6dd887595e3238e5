//! Kernels that come into use in stages: who is served by them, and who is harmed, by hand.

mod common;

use common::{Script, U, add_kernel, job, span, stations};
use windtunnel_base::ids::ClassId;
use windtunnel_base::quantity::Money;
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::account::Account;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rollout::{RolloutOutcome, RolloutTotals};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::paths::PathsSpec;
use windtunnel_scenarios::schema::probing::ReferenceSpec;
use windtunnel_scenarios::schema::rollout::{RolloutSpec, RolloutStage};
use windtunnel_sim::{RunOptions, run};

/// A frontier that never errs, and a new kernel for the class `routine` that errs so often. Two differences
/// withdraw it at once, thirteen equal answers in a row let it pass; comparisons take no time and 7 n$.
fn world(error: f64, stages: &[RolloutStage]) -> Scenario {
    let mut scenario = stations(1, 8);
    scenario.fleet.error_rate = Some(0.0);
    let rollout = RolloutSpec {
        at: span(5),
        stages: stages.to_vec(),
        reference: ReferenceSpec::Verifier { latency: span(0) },
        price: Money(NanoUsd(7)),
        severity: 3.0,
        propagation: span(0),
        ..RolloutSpec::default()
    };
    let paths = PathsSpec {
        rollouts: [("k".to_owned(), rollout)].into(),
        ..PathsSpec::default()
    };
    add_kernel(&mut scenario, paths);
    scenario.fleet.pools[0].error_rate = Some(error);
    scenario
}

/// Requests of the kernel's class, of a unit each, one at 3 and then one every 10 units.
fn play(scenario: &Scenario, requests: u64) -> RunResult {
    let sent = std::iter::once(3).chain((1..requests).map(|i| 10 * i));
    let mut script = Script::new(sent.map(|at| {
        let mut arrival = job(at, 1);
        arrival.class = ClassId(1);
        arrival
    }));
    let options = RunOptions {
        laws: true,
        keep_rows: true,
        ..RunOptions::default()
    };
    run(scenario, &mut script, 7, options).unwrap_or_else(|e| panic!("{e}"))
}

fn served(result: &RunResult) -> Vec<(Option<u32>, bool)> {
    let rows = result.rows.iter();
    rows.map(|row| (row.replica, row.good)).collect()
}

fn rollout(result: &RunResult) -> &RolloutTotals {
    &result.rollouts[0]
}

fn paid_for_checks(result: &RunResult) -> u64 {
    let books = result.segments.iter().map(|s| &s.books);
    books.map(|b| b.money.received(Account::Verification)).sum()
}

const FRONTIER: (Option<u32>, bool) = (Some(0), true);
const SHADOW: RolloutStage = RolloutStage::Shadow { share: 1.0 };
const ALL: RolloutStage = RolloutStage::Canary { share: 1.0 };

#[test]
fn in_shadow_a_bad_kernel_harms_nobody() {
    let result = play(&world(1.0, &[SHADOW, ALL, RolloutStage::Full {}]), 6);
    assert_eq!(served(&result), [FRONTIER; 6]);
    let totals = rollout(&result);
    assert_eq!(totals.outcome, RolloutOutcome::RolledBack);
    let [shadow] = &totals.stages[..] else {
        panic!("{totals:?}");
    };
    assert_eq!((shadow.compared, shadow.differed), (2, 2));
    assert_eq!(
        (shadow.exposed, shadow.harm, shadow.risk),
        (0, 0.0, Some(0.0))
    );
    // From 5 until the copy of the one sent at 20 is answered, two units later.
    assert_eq!(totals.decided_ns(), Some(17 * U));
    let requests: Vec<u64> = result.replicas.iter().map(|r| r.requests).collect();
    assert_eq!(requests, [6, 2]);
    assert_eq!(paid_for_checks(&result), 14);
}

#[test]
fn as_a_canary_it_harms_until_it_is_found_out_and_unwatched_it_harms_all() {
    let bad = (Some(1), false);
    let canary = play(&world(1.0, &[ALL, RolloutStage::Full {}]), 5);
    assert_eq!(served(&canary), [FRONTIER, bad, bad, FRONTIER, FRONTIER]);
    let stage = &rollout(&canary).stages[0];
    assert_eq!((stage.exposed, stage.harm), (2, 6.0));
    assert!(stage.risk > Some(0.0));
    let paths = canary.paths.expect("there are paths");
    assert_eq!((paths.eligible, paths.kernel, paths.kept), (5, 2, 3));

    let bang = play(&world(1.0, &[RolloutStage::Full {}]), 5);
    assert_eq!(served(&bang), [FRONTIER, bad, bad, bad, bad]);
    let totals = rollout(&bang);
    assert_eq!(totals.outcome, RolloutOutcome::Full);
    assert_eq!((totals.stages[0].harm, totals.stages[0].risk), (12.0, None));
}

#[test]
fn a_good_kernel_comes_to_serve_all() {
    let result = play(&world(0.0, &[SHADOW, ALL, RolloutStage::Full {}]), 30);
    let totals = rollout(&result);
    assert_eq!(totals.outcome, RolloutOutcome::Full);
    let kinds: Vec<&str> = totals.stages.iter().map(|s| s.kind.as_str()).collect();
    assert_eq!(kinds, ["shadow", "canary", "full"]);
    let compared: Vec<u64> = totals.stages.iter().map(|s| s.compared).collect();
    assert_eq!(compared, [13, 13, 0]);
    let of = |replica| {
        result
            .rows
            .iter()
            .filter(|r| r.replica == Some(replica))
            .count()
    };
    assert_eq!(
        (of(0), of(1)),
        (14, 16),
        "the one before it began, and shadow"
    );
    let exposed: u64 = totals.stages.iter().map(|s| s.exposed).sum();
    assert_eq!(exposed, 16);
}

#[test]
fn humans_stand_between_suggestions_and_users() {
    let assist = |accept_bad| RolloutStage::Assist {
        share: 1.0,
        accept_bad,
        accept_good: 1.0,
        latency: span(3),
        price: Money(NanoUsd(100)),
    };
    // Nobody accepts what is bad: the frontier answers 1 + 3 + 1 units after it was asked.
    let careful = play(&world(1.0, &[assist(0.0), ALL]), 5);
    assert_eq!(served(&careful), [FRONTIER; 5]);
    let took = |i: usize| careful.rows[i].ended_ns - careful.rows[i].sent_ns;
    assert_eq!((took(1), took(2), took(3)), (5 * U, 5 * U, U));
    assert_eq!(rollout(&careful).stages[0].exposed, 0);
    assert_eq!(paid_for_checks(&careful), 2 * (7 + 100));
    // Everybody accepts everything.
    let careless = play(&world(1.0, &[assist(1.0), ALL]), 5);
    let bad = (Some(1), false);
    assert_eq!(served(&careless), [FRONTIER, bad, bad, FRONTIER, FRONTIER]);
    let stage = &rollout(&careless).stages[0];
    assert_eq!((stage.exposed, stage.harm), (2, 6.0));
}

#[test]
fn replay_needs_no_replica_and_no_user() {
    let replay = RolloutStage::Replay {
        samples: 300,
        lasts: span(10),
    };
    // At 15 one answer is there, at 25 the next; it is the second that withdraws the kernel.
    let result = play(&world(1.0, &[replay, ALL]), 5);
    assert_eq!(served(&result), [FRONTIER; 5]);
    let totals = rollout(&result);
    assert_eq!(totals.outcome, RolloutOutcome::RolledBack);
    assert_eq!(totals.decided_ns(), Some(20 * U));
    assert_eq!(result.replicas[1].requests, 0);
}

#[test]
fn a_stage_that_is_too_great_a_risk_does_not_begin() {
    let mut scenario = world(0.0, &[SHADOW, ALL, RolloutStage::Full {}]);
    if let Some(paths) = &mut scenario.gateway.paths
        && let Some(rollout) = paths.rollouts.get_mut("k")
    {
        rollout.max_risk = Some(1.0);
    }
    let result = play(&scenario, 30);
    assert_eq!(rollout(&result).outcome, RolloutOutcome::TooRisky);
    assert_eq!(rollout(&result).stages.len(), 1);
    assert_eq!(served(&result), [FRONTIER; 30]);
}
