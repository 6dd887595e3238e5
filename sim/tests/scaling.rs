//! Fleets whose size follows their load, in whole runs that can be reckoned by hand.

mod common;

use common::{Script, U, job, span, stations, units};
use windtunnel_base::quantity::{HourlyPrice, Span};
use windtunnel_base::units::NanoUsd;
use windtunnel_engine::config::EngineSpec;
use windtunnel_ledger::account::Account;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::scaling::ScalingStep::{self, Draining, Ordered, Ready, Released};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::faults::{FaultSpec, Target};
use windtunnel_scenarios::schema::scaling::{
    ScalingPolicySpec, ScalingRuleSpec, ScalingSignalSpec, ScalingSpec,
};
use windtunnel_sim::{RunOptions, run};

/// One replica of one server at the start, four at most; a look every 10 units, 25 units to boot, a
/// dollar per unit and replica. One request each is the target.
fn world() -> Scenario {
    let mut scenario = stations(1, 1);
    if let EngineSpec::Station(station) = &mut scenario.fleet.engine {
        // 2^9 units are a second.
        station.price = HourlyPrice(NanoUsd(3600 * 512 * 1_000_000_000));
    }
    let free = ScalingRuleSpec {
        stabilization: Some(Span::default()),
        percent: Some(1e6),
        ..ScalingRuleSpec::default()
    };
    scenario.fleet.scaling = Some(ScalingSpec {
        pool: None,
        min_replicas: 1,
        max_replicas: 4,
        provisioning: span(25),
        period: span(10),
        tolerance: 0.1,
        policy: ScalingPolicySpec::Reactive {
            signal: ScalingSignalSpec::Concurrency { target: 1.0 },
            window: Span::default(),
        },
        scale_up: free.clone(),
        scale_down: free,
    });
    scenario.gateway.queue.max_in_flight = Some(1);
    scenario
}

fn play(scenario: &Scenario, script: &Script) -> RunResult {
    run(scenario, &mut script.clone(), 1, RunOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// What happened to which replica at which unit.
fn changes(result: &RunResult) -> Vec<(u64, u32, ScalingStep)> {
    let totals = result.scaling.as_ref().expect("the fleet scales");
    let change = |c: &windtunnel_ledger::scaling::ScalingChange| (c.at_ns / U, c.replica, c.step);
    totals.changes.iter().map(change).collect()
}

fn dollars(result: &RunResult) -> f64 {
    let money = |account| -> u64 {
        let segments = result.segments.iter();
        segments.map(|s| s.books.money.received(account)).sum()
    };
    (money(Account::Service) + money(Account::Idle)) as f64 / 1e9
}

#[test]
fn replicas_are_ordered_serve_later_are_drained_and_paid_only_meanwhile() {
    // Three of 40 units at unit 2, and one that keeps the run going until unit 130.
    let script = Script::new([job(2, 40), job(2, 40), job(2, 40), job(120, 10)]);
    let result = play(&world(), &script);
    assert_eq!(
        changes(&result),
        [
            (10, 1, Ordered),
            (10, 2, Ordered),
            (35, 1, Ready),
            (35, 2, Ready),
            // At 50 two requests are still there, and at 60 those on their way out do not count: who
            // came last goes, of equals the highest id, when it has ended what it has.
            (50, 2, Draining),
            (60, 1, Draining),
            (75, 1, Released),
            (75, 2, Released),
        ]
    );
    let ended: Vec<u64> = result.rows.iter().map(|r| r.ended_ns / U).collect();
    assert_eq!(ended, [42, 75, 75, 130]);
    let totals = result.scaling.as_ref().expect("the fleet scales");
    // 130 units of the first, 65 of each of the others.
    assert_eq!(totals.provisioned_ns, u128::from((130 + 65 + 65) * U));
    assert_eq!(totals.ready_ns, u128::from((130 + 25 + 15) * U));
    assert!(
        (dollars(&result) - 260.0).abs() < 1e-6,
        "{}",
        dollars(&result)
    );
    assert_eq!((totals.orders, totals.drains, totals.peak), (2, 2, 3));
    // Somebody waits from the look at 10 on, until replicas are ready at 35.
    assert_eq!(totals.time_to_capacity.max(), Some(25 * U));
    assert_eq!((totals.checks, totals.short_checks), (13, 3));
}

#[test]
fn orders_are_taken_back_first_and_an_order_alone_keeps_no_run_going() {
    // At 10 there are four, at 20 one: the three orders of 10 go, and nobody is drained.
    let script = Script::new([job(2, 16), job(2, 9), job(2, 9), job(2, 9)]);
    let mut fast = world();
    fast.gateway.queue.max_in_flight = None;
    if let EngineSpec::Station(station) = &mut fast.fleet.engine {
        station.servers = 4;
    }
    let script_of_four = Script::new([job(2, 50), job(2, 10), job(2, 10), job(2, 10)]);
    let result = play(&fast, &script_of_four);
    let orders = [(10, 1, Ordered), (10, 2, Ordered), (10, 3, Ordered)];
    let back = [(20, 3, Released), (20, 2, Released), (20, 1, Released)];
    assert_eq!(changes(&result), [orders, back].concat());
    assert_eq!(result.end_ns, 52 * U);
    assert!((dollars(&result) - (52.0 + 30.0)).abs() < 1e-6);
    // All are gone before the order is ready: the run ends with them.
    let result = play(&fast, &script);
    assert_eq!(result.end_ns, 18 * U);
    assert_eq!(changes(&result), orders);
    assert!((dollars(&result) - (18.0 + 3.0 * 8.0)).abs() < 1e-6);
}

#[test]
fn an_order_is_waited_for_while_somebody_needs_it() {
    // The only replica stands still for long, with one request; the other waits for the new one.
    let mut scenario = world();
    scenario.faults.push(FaultSpec::Stall {
        at: span(12),
        lasts: span(1000),
        on: Target {
            pool: None,
            replicas: vec![0],
        },
    });
    let result = play(&scenario, &Script::new([job(2, 40), job(2, 40)]));
    let ended: Vec<u64> = result.rows.iter().map(|r| r.ended_ns / U).collect();
    assert_eq!(changes(&result)[..2], [(10, 1, Ordered), (35, 1, Ready)]);
    assert_eq!(ended, [1042, 75]);
}

#[test]
fn cancelled_requests_on_their_way_do_not_reach_a_replica_that_is_off() {
    let mut scenario = world();
    scenario.gateway.queue.max_in_flight = None;
    scenario.fleet.network.gateway_to_replica = span(7);
    let mut requests = vec![job(2, 60), job(2, 60), job(2, 60)];
    // To the second replica at 38, given up at 39: it arrives at 45, its cancellation at 46.
    let mut hasty = job(38, 60);
    hasty.patience = Some(units(1));
    requests.push(hasty);
    let result = play(&scenario, &Script::new(requests));
    // At 40 three are left for three replicas: the third goes, and would have been off at once.
    let log = changes(&result);
    assert!(log.contains(&(35, 2, Ready)), "{log:?}");
    let drained = log.iter().find(|c| c.2 == Draining).expect("one goes");
    let released = log.iter().find(|c| c.2 == Released && c.1 == drained.1);
    assert!(released.is_some_and(|r| r.0 >= drained.0 + 7), "{log:?}");
}

#[test]
fn routing_never_meets_a_replica_that_does_not_serve() {
    let script = Script::new((0..60).map(|i| job(2 + 3 * i, 9)));
    let options = RunOptions {
        record_decisions: true,
        ..RunOptions::default()
    };
    let mut scenario = world();
    scenario.gateway.queue.max_in_flight = None;
    let result = run(&scenario, &mut script.clone(), 1, options).unwrap_or_else(|e| panic!("{e}"));
    let log = changes(&result);
    let mut chosen = [0; 4];
    for decision in &result.decisions {
        let at = decision.at_ns / U;
        let replica = decision.replica.expect("there is always one");
        chosen[replica as usize] += 1;
        let last = log.iter().rfind(|c| c.1 == replica && c.0 < at);
        let serves = last.map_or(replica == 0, |c| c.2 == Ready);
        let changes_now = log.iter().any(|c| c.1 == replica && c.0 == at);
        assert!(serves || changes_now, "{replica} at {at}: {log:?}");
    }
    assert!(chosen[0] > 0 && chosen[1] > 0, "{chosen:?}");
}

#[test]
fn a_pool_of_its_own_scales_and_others_do_not() {
    let mut scenario = world();
    let engine = scenario.fleet.engine.clone();
    scenario.fleet.name = "small".to_owned();
    scenario.fleet.replicas = 2;
    scenario.fleet.pools = vec![windtunnel_scenarios::schema::fleet::PoolSpec {
        token_prices: None,
        error_rate: None,
        name: "big".to_owned(),
        replicas: 1,
        engine,
    }];
    if let Some(scaling) = &mut scenario.fleet.scaling {
        scaling.pool = Some("big".to_owned());
    }
    let result = play(&scenario, &Script::new((0..8).map(|_| job(2, 40))));
    assert_eq!(result.replicas.len(), 2 + 4);
    let touched: Vec<u32> = changes(&result).iter().map(|c| c.1).collect();
    assert!(!touched.is_empty() && touched.iter().all(|&r| r >= 2));
}

/// Replicas that are off or on order have no memory that could be empty: means over the fleet are of those that
/// serve, until they are released.
#[test]
fn replicas_out_of_service_count_in_no_sample() {
    let mut scenario = world();
    scenario.fleet.engine = common::plain().fleet.engine;
    let script = Script::new([
        common::request(2, 4, 9),
        common::request(2, 4, 9),
        common::request(2, 4, 9),
        common::request(160, 4, 1),
    ]);
    let options = RunOptions {
        samples: 1000,
        ..RunOptions::default()
    };
    let result = run(&scenario, &mut script.clone(), 1, options).expect("a lawful run");
    let blocks = result.samples[0].replicas[0].kv_total;
    assert!(blocks > 0);
    let mut serving = vec![true, false, false, false];
    let mut seen = std::collections::BTreeSet::new();
    let mut changes = changes(&result).into_iter().peekable();
    for sample in &result.samples {
        while let Some((_, replica, step)) = changes.next_if(|c| c.0 * U <= sample.at_ns) {
            match step {
                Ready => serving[replica as usize] = true,
                Released => serving[replica as usize] = false,
                Ordered | Draining => {}
            }
        }
        let there: Vec<bool> = sample
            .replicas
            .iter()
            .map(|r| r.kv_total == blocks)
            .collect();
        assert_eq!(there, serving, "at {} ns", sample.at_ns);
        seen.insert(there.iter().filter(|&&there| there).count());
    }
    assert_eq!(Vec::from_iter(seen), [1, 3]);
}
