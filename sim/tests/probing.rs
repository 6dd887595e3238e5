//! Kernels that drift and are probed: who finds out when, by hand.

mod common;

use common::{Script, U, add_kernel, job, span, stations};
use windtunnel_base::ids::ClassId;
use windtunnel_base::quantity::Money;
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::account::Account;
use windtunnel_ledger::gateway::{DriftTotals, PathTotals, ProbeTotals};
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::schema::paths::PathsSpec;
use windtunnel_scenarios::schema::probing::{DetectorSpec, ProbingSpec, ReferenceSpec};
use windtunnel_scenarios::schema::{FaultSpec, Scenario};
use windtunnel_sim::{RunOptions, run};

/// A frontier that never errs, and a kernel for the class `routine` that does so always from unit 50 on. All it
/// answers is probed, one difference raises an alarm, and a new kernel takes a hundred units.
fn world(reference: ReferenceSpec) -> Scenario {
    let mut scenario = stations(1, 8);
    scenario.fleet.error_rate = Some(0.0);
    let paths = PathsSpec {
        probing: Some(ProbingSpec {
            share: 1.0,
            reference,
            price: Money(NanoUsd(7)),
            sensitivity: 1.0,
            specificity: 1.0,
            detector: DetectorSpec::LogLikelihood {
                p0: 0.05,
                p1: 0.25,
                h: 1.0,
            },
            rebuild: Some(span(100)),
        }),
        ..PathsSpec::default()
    };
    add_kernel(&mut scenario, paths);
    scenario.faults = vec![FaultSpec::KernelDrift {
        at: span(50),
        lasts: None,
        kernel: "k".to_owned(),
        excess: 1.0,
        over: span(0),
        every: None,
    }];
    scenario
}

/// Requests of a unit each, of the kernel's class, sent at these units.
fn play(scenario: &Scenario, sent: &[u64]) -> RunResult {
    let mut script = Script::new(sent.iter().map(|&at| {
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

fn totals(result: &RunResult) -> (PathTotals, ProbeTotals, DriftTotals) {
    let paths = result.paths.expect("there are paths");
    let probing = paths.probing.expect("somebody probes");
    (paths, probing, paths.drift.expect("the kernel drifts"))
}

fn served(result: &RunResult) -> Vec<(Option<u32>, bool)> {
    let rows = result.rows.iter();
    rows.map(|row| (row.replica, row.good)).collect()
}

#[test]
fn the_frontier_finds_out_at_its_own_cost() {
    // The one sent at 60 is answered at 61 and by the frontier at 62, when its neighbour is answered too.
    let result = play(&world(ReferenceSpec::Frontier), &[10, 60, 61, 80, 200]);
    let (paths, probing, drift) = totals(&result);
    let (good, bad) = ((Some(1), true), (Some(1), false));
    assert_eq!(served(&result), [good, bad, bad, (Some(0), true), good]);
    assert_eq!(
        (probing.probes, probing.compared, probing.differed),
        (3, 3, 1)
    );
    assert_eq!((probing.alarms, probing.false_alarms), (1, 0));
    assert_eq!((paths.eligible, paths.quarantined), (5, 1));
    let expected = DriftTotals {
        drifts: 1,
        detected: 1,
        delay_ns: 12 * U,
        bad_outputs: 2,
    };
    assert_eq!(drift, expected);
    // Three probes and the one that had no kernel.
    let requests: Vec<u64> = result.replicas.iter().map(|r| r.requests).collect();
    assert_eq!(requests, [4, 4]);
    let sent: u64 = result.segments.iter().map(|s| s.all.sent).sum();
    assert_eq!(sent, 5, "probes are no calls");
}

#[test]
fn a_verifier_finds_out_for_money_and_outcomes_may_come_too_late() {
    let verifier = ReferenceSpec::Verifier { latency: span(5) };
    let result = play(&world(verifier), &[60, 63]);
    let (_, probing, drift) = totals(&result);
    assert_eq!(
        (probing.probes, probing.compared, probing.alarms),
        (2, 1, 1)
    );
    assert_eq!((drift.delay_ns, drift.bad_outputs), (16 * U, 2));
    assert_eq!(result.replicas[0].requests, 0);
    let paid: u64 = result
        .segments
        .iter()
        .map(|s| s.books.money.received(Account::Verification))
        .sum();
    assert_eq!((paid, probing.price_nano_usd), (14, 14));
}

#[test]
fn nobody_finds_out_without_probes() {
    let mut scenario = world(ReferenceSpec::Frontier);
    if let Some(paths) = &mut scenario.gateway.paths {
        paths.probing = None;
    }
    let result = play(&scenario, &[10, 60, 61, 80, 200]);
    let paths = result.paths.expect("there are paths");
    assert_eq!(paths.probing, None);
    let drift = paths.drift.expect("the kernel drifts");
    assert_eq!((drift.detected, drift.bad_outputs), (0, 4));
}
