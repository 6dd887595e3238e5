//! Verifiers that are asked one after the other, and kernels whose rejected answers the frontier replaces.

mod common;

use common::{Script, U, add_kernel, job, span, stations, units};
use windtunnel_base::ids::ClassId;
use windtunnel_base::quantity::{Money, Power};
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::account::{Account, Books};
use windtunnel_ledger::result::{Population, RunResult};
use windtunnel_ledger::rows::End;
use windtunnel_scenarios::schema::ladder::{
    BudgetSpec, Climb, EvidenceSpec, LadderSpec, LevelSpec,
};
use windtunnel_scenarios::schema::paths::{Checked, OnReject, PathsSpec};
use windtunnel_scenarios::schema::{ClientsSpec, FaultSpec, Scenario, VerificationSpec};
use windtunnel_scenarios::workload::Arrival;
use windtunnel_sim::{RunOptions, run};

fn play(scenario: &Scenario, requests: impl IntoIterator<Item = Arrival>) -> RunResult {
    let options = RunOptions {
        keep_rows: true,
        ..RunOptions::default()
    };
    run(scenario, &mut Script::new(requests), 1, options).expect("a lawful run")
}

fn books(result: &RunResult) -> Books {
    let mut all = Books::default();
    result.segments.iter().for_each(|s| all.merge(&s.books));
    all
}

fn population(result: &RunResult) -> Population {
    let mut all = Population::default();
    result.segments.iter().for_each(|s| all.merge(&s.all));
    all
}

fn level(name: &str, evidence: EvidenceSpec, price: u64) -> LevelSpec {
    LevelSpec {
        name: name.to_owned(),
        evidence,
        latency: span(2),
        price: Money(NanoUsd(price)),
        power: Power(512.0),
    }
}

/// A linter for 20 micro-dollars, a small judge for 200 and a large one for 2000.
fn levels() -> Vec<LevelSpec> {
    let linter = EvidenceSpec::Test {
        sensitivity: 0.5,
        specificity: 0.98,
    };
    vec![
        level("linter", linter, 20_000),
        level("small", EvidenceSpec::Score { separation: 1.8 }, 200_000),
        level("large", EvidenceSpec::Score { separation: 3.2 }, 2_000_000),
    ]
}

fn verified(ladder: LadderSpec) -> VerificationSpec {
    VerificationSpec {
        error_rate: 0.05,
        ladder: Some(ladder),
        ..VerificationSpec::default()
    }
}

fn ladder(levels: Vec<LevelSpec>) -> LadderSpec {
    LadderSpec {
        levels,
        ..LadderSpec::default()
    }
}

/// One answer in twenty is bad.
fn jobs(n: u64) -> impl Iterator<Item = Arrival> {
    (0..n).map(|i| {
        let mut job = job(i, 1);
        job.truth.good = i % 20 != 7;
        job
    })
}

/// Money for checks and lost by wrong verdicts, in nano-dollars.
fn spent_and_lost(result: &RunResult) -> (u64, u64) {
    let p = population(result);
    let spent = books(result).money.received(Account::Verification);
    (
        spent,
        p.bad_accepted * 1_000_000_000 + p.good_rejected * 10_000_000,
    )
}

#[test]
fn a_ladder_spends_less_than_its_last_level_and_loses_no_more() {
    const N: u64 = 40_000;
    let of = |levels: Vec<LevelSpec>, climb| {
        let mut scenario = stations(1, 8);
        scenario.verification = Some(verified(LadderSpec {
            climb,
            ..ladder(levels)
        }));
        play(&scenario, jobs(N))
    };
    let climbing = of(levels(), Climb::WorthIt);
    let last = of(levels().split_off(2), Climb::WorthIt);
    let always = of(levels(), Climb::Always);
    let (spent, lost) = spent_and_lost(&climbing);
    let (spent_last, lost_last) = spent_and_lost(&last);
    assert!(spent * 10 < spent_last * 9, "{spent} of {spent_last}");
    assert!(lost <= lost_last, "{lost} and {lost_last}");
    // All levels for everybody: a little better, and not worth it.
    let (spent_all, lost_all) = spent_and_lost(&always);
    assert_eq!(spent_all, N * 2_220_000);
    assert!(spent + lost < spent_all + lost_all);
    // The levels' own books say the same.
    let checks: Vec<u64> = climbing.verifiers.iter().map(|v| v.checks).collect();
    assert_eq!(checks[0], N);
    assert!(checks[1] <= checks[0] && checks[2] < checks[1] && checks[2] > 0);
    let by_level: u64 = climbing.verifiers.iter().map(|v| v.price_nano_usd).sum();
    assert_eq!(by_level, spent);
    let escapes: u64 = climbing.verifiers.iter().map(|v| v.bad_accepted).sum();
    assert_eq!(escapes, population(&climbing).bad_accepted);
    let judged: u64 = climbing
        .verifiers
        .iter()
        .map(|v| v.accepted + v.rejected)
        .sum();
    assert_eq!(judged, N);
}

#[test]
fn latencies_prices_and_energy_of_levels_add_up() {
    let mut scenario = stations(1, 8);
    scenario.verification = Some(verified(LadderSpec {
        climb: Climb::Always,
        ..ladder(levels())
    }));
    let result = play(&scenario, [job(0, 3)]);
    // Three units of service, two for each of three levels.
    assert_eq!(result.rows[0].last_token_ns, Some(3 * U));
    assert_eq!(result.rows[0].ended_ns, 9 * U);
    let books = books(&result);
    assert_eq!(books.money.received(Account::Verification), 2_220_000);
    // 512 W for 2 / 512 s: 2 J each.
    assert_eq!(books.energy.received(Account::Verification), 6_000_000);
    let p = population(&result);
    assert_eq!(p.with_verifier.max(), Some(9 * U));
    assert_eq!(p.without_verifier.max(), Some(3 * U));
}

#[test]
fn a_budget_holds_to_the_last_nano_dollar() {
    let mut scenario = stations(1, 8);
    let budget = BudgetSpec {
        share: 0.2,
        frontier_price: Money(NanoUsd(2_500_000)),
        kernel_price: Money(NanoUsd(500_000)),
    };
    scenario.verification = Some(verified(LadderSpec {
        budget: Some(budget),
        ..ladder(levels())
    }));
    let result = play(&scenario, jobs(4000));
    let (spent, _) = spent_and_lost(&result);
    assert!(spent <= 4000 * 400_000, "{spent}");
    assert!(result.verifiers[2].checks > 0, "some may climb to the end");
    scenario.verification = Some(verified(ladder(levels())));
    let (free, _) = spent_and_lost(&play(&scenario, jobs(4000)));
    assert!(free > 4000 * 400_000, "it does bind: {free}");
}

#[test]
fn attempts_of_a_call_get_one_verdict_from_a_ladder_too() {
    let verdicts = |clients: Option<ClientsSpec>| {
        let mut scenario = stations(1, 8);
        scenario.clients = clients;
        scenario.verification = Some(verified(ladder(levels())));
        let result = play(&scenario, jobs(400));
        let rows = result.rows.iter();
        rows.map(|r| r.accepted_by_verifier).collect::<Vec<_>>()
    };
    let bare = verdicts(None);
    assert!(bare.contains(&Some(true)) && bare.contains(&Some(false)));
    assert_eq!(verdicts(Some(ClientsSpec::default())), bare);
}

#[test]
fn while_the_verifier_is_out_what_is_known_has_to_do() {
    let mut scenario = stations(1, 8);
    scenario.verification = Some(verified(LadderSpec {
        climb: Climb::Always,
        ..ladder(levels())
    }));
    scenario.faults = vec![FaultSpec::VerifierOutage {
        at: span(4),
        lasts: span(100),
    }];
    let result = play(&scenario, [job(0, 3)]);
    // The first level began at 3; at 5 nobody else is there.
    assert_eq!(result.rows[0].ended_ns, 5 * U);
    assert!(result.rows[0].accepted_by_verifier.is_some());
    let checks: Vec<u64> = result.verifiers.iter().map(|v| v.checks).collect();
    assert_eq!(checks, [1, 0, 0]);
}

/// A kernel for class 1 and a frontier, and a verifier that is never wrong and takes four units.
fn with_kernel(checked: Checked, on_reject: OnReject) -> Scenario {
    let mut scenario = stations(1, 8);
    let paths = PathsSpec {
        checked,
        on_reject,
        ..PathsSpec::default()
    };
    add_kernel(&mut scenario, paths);
    scenario.verification = Some(VerificationSpec {
        error_rate: 0.0,
        sensitivity: 1.0,
        specificity: 1.0,
        latency: span(4),
        price: Money(NanoUsd(5)),
        ..VerificationSpec::default()
    });
    scenario
}

fn routine(at: u64, good: bool) -> Arrival {
    let mut job = job(at, 3);
    job.class = ClassId(1);
    job.truth.good = good;
    job
}

#[test]
fn the_frontier_replaces_a_rejected_answer() {
    let scenario = with_kernel(Checked::Kernels, OnReject::Frontier);
    let mut other = job(2, 3);
    other.truth.good = false;
    let result = play(&scenario, [routine(0, true), routine(1, false), other]);
    let rows: Vec<_> = result
        .rows
        .iter()
        .map(|r| {
            (
                r.replica,
                r.accepted_by_verifier,
                r.good,
                r.last_token_ns,
                r.ended_ns / U,
            )
        })
        .collect();
    // The kernel's answers are whole at 3 and 4 and checked at 7 and 8. The bad one is replaced: the frontier
    // takes three units more, and nobody checks it, nor the other request, which is bad.
    assert_eq!(rows[0], (Some(1), Some(true), true, Some(3 * U), 7));
    assert_eq!(rows[1], (Some(0), None, true, Some(11 * U), 11));
    assert_eq!(rows[2], (Some(0), None, false, Some(5 * U), 5));
    assert_eq!(books(&result).money.received(Account::Verification), 10);
    assert_eq!(result.paths.and_then(|p| p.fallbacks), Some(1));
    let p = population(&result);
    assert_eq!((p.bad_caught, p.good_accepted, p.checks), (1, 1, 2));
    // With the verifier 7, 10 and 3 units; without it 3 each.
    assert_eq!(p.with_verifier.max(), Some(10 * U));
    assert_eq!(p.without_verifier.max(), Some(3 * U));
}

#[test]
fn a_rejected_answer_is_delivered_unless_somebody_says_otherwise() {
    let scenario = with_kernel(Checked::All, OnReject::Deliver);
    let result = play(&scenario, [routine(1, false)]);
    let row = result.rows[0];
    assert_eq!((row.accepted_by_verifier, row.good), (Some(false), false));
    assert_eq!((row.end, row.ended_ns), (End::Finished, 8 * U));
    assert_eq!(result.paths.and_then(|p| p.fallbacks), None);
}

#[test]
fn who_is_replaced_is_checked_once_and_waits_for_no_longer_than_it_would() {
    // All answers are checked, the frontier's too.
    let scenario = with_kernel(Checked::All, OnReject::Frontier);
    let result = play(&scenario, [routine(1, false)]);
    let row = result.rows[0];
    assert_eq!(
        (row.accepted_by_verifier, row.ended_ns),
        (Some(true), 15 * U)
    );
    // Patience of six units: over when the verdict comes, at 8, and the tokens are withdrawn.
    let mut hasty = routine(1, false);
    hasty.patience = Some(units(6));
    let row = play(&scenario, [hasty]).rows[0];
    assert_eq!((row.end, row.ended_ns), (End::Abandoned, 8 * U));
    // Of nine: while the frontier is at it.
    hasty.patience = Some(units(9));
    let row = play(&scenario, [hasty]).rows[0];
    assert_eq!((row.end, row.ended_ns), (End::Abandoned, 10 * U));
}

#[test]
fn an_attempt_is_replaced_like_any_other() {
    let mut scenario = with_kernel(Checked::Kernels, OnReject::Frontier);
    let bare = play(&scenario, [routine(0, true), routine(1, false)]);
    scenario.clients = Some(ClientsSpec::default());
    let attempts = play(&scenario, [routine(0, true), routine(1, false)]);
    for (bare, row) in bare.rows.iter().zip(&attempts.rows) {
        assert_eq!(
            (bare.ended_ns, bare.replica, bare.good),
            (row.ended_ns, row.replica, row.good)
        );
    }
    let p = population(&attempts);
    assert_eq!(p.with_verifier.max(), Some(10 * U));
    assert_eq!(p.without_verifier.max(), Some(3 * U));
}
