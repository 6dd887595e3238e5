//! Faults of one kind that overlap at one replica: what one of them does lasts until it ends itself.

mod common;

use common::{Script, U, job, span, stations};
use windtunnel_engine::config::EngineSpec;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::End;
use windtunnel_scenarios::schema::faults::Target;
use windtunnel_scenarios::schema::fleet::PoolSpec;
use windtunnel_scenarios::schema::paths::{KernelSpec, PathsSpec};
use windtunnel_scenarios::schema::{FaultSpec, Scenario};
use windtunnel_sim::{RunOptions, run};

fn play(scenario: &Scenario, script: &Script) -> RunResult {
    run(scenario, &mut script.clone(), 7, RunOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn slowdown(at: u64, lasts: u64, speed: f64) -> FaultSpec {
    FaultSpec::Slowdown {
        at: span(at),
        lasts: span(lasts),
        speed,
        on: Target::default(),
    }
}

#[test]
fn two_slowdowns_slow_twice_and_the_longer_one_lasts() {
    let mut scenario = stations(1, 1);
    scenario.faults = vec![slowdown(10, 100, 0.5), slowdown(50, 8, 0.5)];
    let result = play(&scenario, &Script::new([job(0, 100)]));
    // 10 units of work, 20 in the next 40, 2 in the 8 that both last, 26 in the 52 until unit 110, 42 left.
    let ended = result.rows[0].ended_ns;
    assert!(ended.abs_diff(152 * U) <= 4, "{ended} ns");
}

#[test]
fn errors_last_as_long_as_their_own_fault() {
    let errors = |at, lasts, share| FaultSpec::OriginErrors {
        at: span(at),
        lasts: span(lasts),
        share,
        on: Target::default(),
    };
    let mut scenario = stations(1, 8);
    scenario.faults = vec![errors(10, 90, 1.0), errors(20, 10, 0.5)];
    let result = play(
        &scenario,
        &Script::new([5, 15, 25, 35, 95, 105].map(|at| job(at, 1))),
    );
    let served: Vec<bool> = result.rows.iter().map(|r| r.end == End::Finished).collect();
    assert_eq!(served, [true, false, false, false, false, true]);
}

#[test]
fn a_kernel_is_back_when_nobody_keeps_it_away() {
    let mut scenario = stations(1, 8);
    scenario.fleet.pools.push(PoolSpec {
        token_prices: None,
        error_rate: None,
        name: "kernels".to_owned(),
        replicas: 1,
        engine: EngineSpec::Station(Default::default()),
    });
    scenario.gateway.paths = Some(PathsSpec {
        kernels: vec![KernelSpec {
            name: "k".to_owned(),
            class: "default".to_owned(),
            pool: "kernels".to_owned(),
        }],
        ..PathsSpec::default()
    });
    let evicted = |at, lasts| FaultSpec::KernelEvicted {
        at: span(at),
        lasts: span(lasts),
        kernel: "k".to_owned(),
    };
    scenario.faults = vec![evicted(10, 90), evicted(20, 10)];
    let result = play(
        &scenario,
        &Script::new([5, 15, 25, 35, 105].map(|at| job(at, 1))),
    );
    let by: Vec<Option<u32>> = result.rows.iter().map(|r| r.replica).collect();
    assert_eq!(by, [1, 0, 0, 0, 1].map(Some));
}
