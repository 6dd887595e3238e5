//! The world against queueing theory: closed forms with tolerances that follow from the length of the
//! run.

mod common;

use common::{ClosedLoop, Poisson, stations, units};
use windtunnel_base::time::SimTime;
use windtunnel_ledger::result::{Population, RunResult};
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_sim::{RunOptions, run};

fn options<'a>() -> RunOptions<'a> {
    RunOptions {
        keep_rows: false,
        samples: 0,
        ..RunOptions::default()
    }
}

fn all(result: &RunResult) -> Population {
    let mut all = Population::default();
    result.segments.iter().for_each(|s| all.merge(&s.all));
    all
}

/// Mean time in the system over `runs` seeds of `n` requests each, and its standard error.
fn mean_sojourn(replicas: u32, servers: u32, rate: f64, n: u64, runs: u64) -> (f64, f64) {
    let means: Vec<f64> = (0..runs)
        .map(|seed| {
            let mut workload = Poisson::new(rate, n, 100 + seed);
            let mut scenario = stations(replicas, servers);
            scenario.gateway.routing = RoutingSpec::Random;
            let result = run(&scenario, &mut workload, seed, options()).expect("a lawful run");
            all(&result).e2e.mean().expect("requests finished") / 1e9
        })
        .collect();
    let mean = means.iter().sum::<f64>() / runs as f64;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (runs as f64 - 1.0);
    (mean, (variance / runs as f64).sqrt())
}

/// Within four standard errors, which must themselves be small enough to mean something.
fn agrees((mean, error): (f64, f64), expected: f64) {
    assert!(error < 0.02 * expected, "too noisy: {mean} +- {error}");
    assert!(
        (mean - expected).abs() < 4.0 * error + 0.002 * expected,
        "{mean} +- {error}, expected {expected}"
    );
}

#[test]
fn one_server() {
    // M/M/1 at load 0.5: T = 1 / (1 - 0.5) = 2.
    agrees(mean_sojourn(1, 1, 0.5, 20_000, 10), 2.0);
}

#[test]
fn many_servers() {
    // M/M/4 at load 0.8: Wq = 0.7455 (Erlang C), T = Wq + 1.
    agrees(mean_sojourn(1, 4, 3.2, 20_000, 10), 1.7455);
}

#[test]
fn a_random_split_of_a_poisson_stream_is_poisson() {
    // Two M/M/1 at load 0.5 each.
    agrees(mean_sojourn(2, 1, 1.0, 20_000, 10), 2.0);
}

#[test]
fn a_closed_loop_settles_at_the_rate_of_its_clients() {
    // Three clients on three servers: no waiting, one request per 2 + 3 units each. Each client sends
    // its next request a think time after its answer.
    let mut workload = ClosedLoop {
        due: vec![SimTime::ZERO; 3],
        think: units(3),
        service: units(2),
        left: 300,
    };
    let result = run(&stations(1, 3), &mut workload, 1, RunOptions::default()).expect("lawful");
    assert_eq!(result.rows.len(), 300);
    // A hundred rounds: 99 of 5 units, and the last answer 2 units after its request.
    assert_eq!(result.end_ns, (99 * 5 + 2) * common::U);
    // On one server they queue: three per 6 units, as service (3 * 2) exceeds think time.
    let mut workload = ClosedLoop {
        due: vec![SimTime::ZERO; 3],
        think: units(3),
        service: units(2),
        left: 300,
    };
    let result = run(&stations(1, 1), &mut workload, 1, RunOptions::default()).expect("lawful");
    assert_eq!(result.end_ns, 600 * common::U);
    assert_eq!(result.replicas[0].busy_ns, 600 * common::U);
}

#[test]
fn littles_law_holds_on_the_sample_path() {
    // With the state sampled at every unit (times are whole units, so the samples are the path), the
    // area under it equals the sum of times in the system, exactly. The law of conservation checks
    // the same identity inside every run; this is the view from outside.
    let jobs = (0..40_u64).map(|i| common::job(i * i % 37 + i, 1 + i * 7 % 5));
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort_by_key(|j| j.at);
    let mut script = common::Script::new(jobs);
    let result = run(&stations(2, 1), &mut script, 3, RunOptions::default()).expect("lawful");
    let sojourns: u64 = result.rows.iter().map(|r| r.ended_ns - r.sent_ns).sum();
    let in_system = |at: u64| {
        let inside = |r: &&windtunnel_ledger::rows::Row| r.sent_ns <= at && at < r.ended_ns;
        result.rows.iter().filter(inside).count()
    };
    // A sample shows the state after the events of its instant.
    for sample in &result.samples {
        assert_eq!(
            sample.in_system as usize,
            in_system(sample.at_ns),
            "{sample:?}"
        );
    }
    let area: u64 = (0..result.end_ns / common::U)
        .map(|u| in_system(u * common::U) as u64 * common::U)
        .sum();
    assert_eq!(area, sojourns);
}

/// E08: in turn, requests of one size are divided evenly to the last one; at random they are not.
#[test]
fn round_robin_divides_equal_requests_evenly() {
    let busy = |routing| {
        let mut scenario = stations(5, 1);
        scenario.gateway.routing = routing;
        let mut script = common::Script::new((0..1000).map(|i| common::job(3 * i, 7)));
        let result = run(&scenario, &mut script, 3, options()).expect("lawful");
        let busy: Vec<u64> = result.replicas.iter().map(|r| r.busy_ns).collect();
        busy
    };
    assert_eq!(busy(RoutingSpec::RoundRobin), [200 * 7 * common::U; 5]);
    let at_random = busy(RoutingSpec::Random);
    assert!(at_random.iter().max() > at_random.iter().min());
}
