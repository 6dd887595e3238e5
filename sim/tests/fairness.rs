//! Fairness between the 27 tenants of a measured log (the one behind the virtual token counter: Sheng et
//! al., OSDI 2024), replayed faster than one replica can serve. Skips with a message where the log is
//! not at hand.

#![allow(
    clippy::print_stdout,
    reason = "a skipped test says so, the others what they measured"
)]

use std::path::PathBuf;
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::load::{LoadEnv, Source, load};
use windtunnel_scenarios::{Override, workload};
use windtunnel_sim::{RunOptions, run};

/// Those of the log, and the one of requests that name none.
const TENANTS: usize = 28;
/// What may be in flight at the replica; the rest waits at the gateway, where the order is.
const IN_FLIGHT: u64 = 24;

/// The log under an order of the queue, by request; none where there is no log.
fn play(order: &str) -> Option<Vec<Row>> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let shared = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(beside, PathBuf::from);
    let traces = shared.join("traces");
    if !traces.join("multi_tenant").is_dir() {
        println!("skipped: no log of tenants in {}", traces.display());
        return None;
    }
    let overrides = [
        format!("gateway.queue.max_in_flight={IN_FLIGHT}"),
        format!("gateway.queue.order=\"{order}\""),
    ];
    let overrides: Vec<_> = overrides.iter().map(Override::new).collect();
    let source = Source::Library("vtc-tenants".into());
    let scenario = match load(&source, &overrides, &LoadEnv::default()) {
        Ok(loaded) => loaded.scenario,
        Err(report) => panic!("{report:?}"),
    };
    let traffic = workload::prepare(&scenario, None, Some(&traces), false).expect("a log");
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    let mut rows = run(&scenario, &mut *traffic.workload(1), 1, options)
        .expect("a run")
        .rows;
    rows.sort_by_key(|row| row.request);
    assert_eq!(rows.len(), 1_500);
    assert!(rows.iter().all(|row| row.end == End::Finished));
    Some(rows)
}

/// When some request of a tenant waited at the gateway: spans of time, ns, apart and in order.
fn waits(rows: &[Row], tenant: usize) -> Vec<(u64, u64)> {
    let of = rows.iter().filter(|r| r.tenant as usize == tenant);
    let mut spans: Vec<(u64, u64)> = of
        .filter_map(|r| Some((r.sent_ns, r.dispatched_ns?)))
        .collect();
    spans.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some(last) if from < last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// Spans in which both waited.
fn both(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let pair = |&(from, to): &(u64, u64)| {
        b.iter().filter_map(move |&(f, t)| {
            let span = (from.max(f), to.min(t));
            (span.0 < span.1).then_some(span)
        })
    };
    a.iter().flat_map(pair).collect()
}

/// The largest difference of what two tenants were given in any stretch in which both waited: `given`
/// lists moments and amounts of a tenant.
fn gap(rows: &[Row], given: impl Fn(&Row) -> Vec<(u64, u64)>) -> u64 {
    let of = |tenant: usize| {
        let rows = rows.iter().filter(move |r| r.tenant as usize == tenant);
        let mut all: Vec<(u64, u64)> = rows.flat_map(&given).collect();
        all.sort_unstable();
        all
    };
    let gifts: Vec<Vec<(u64, u64)>> = (0..TENANTS).map(of).collect();
    let spans: Vec<Vec<(u64, u64)>> = (0..TENANTS).map(|t| waits(rows, t)).collect();
    let mut widest = 0;
    for a in 0..TENANTS {
        for b in 0..a {
            for (from, to) in both(&spans[a], &spans[b]) {
                widest = widest.max(spread(&gifts[a], &gifts[b], from, to));
            }
        }
    }
    widest
}

/// How far the difference of two tenants' amounts moves within a span: no stretch within it can have
/// a larger one.
fn spread(a: &[(u64, u64)], b: &[(u64, u64)], from: u64, to: u64) -> u64 {
    let within = |&&(at, _): &&(u64, u64)| (from..to).contains(&at);
    let plus = a.iter().filter(within).map(|&(at, n)| (at, n as i64));
    let minus = b.iter().filter(within).map(|&(at, n)| (at, -(n as i64)));
    let mut moves: Vec<(u64, i64)> = plus.chain(minus).collect();
    moves.sort_unstable();
    let (mut now, mut least, mut most) = (0, 0, 0);
    for (i, (at, by)) in moves.iter().enumerate() {
        now += by;
        // What happens at one moment happens at once.
        if moves.get(i + 1).is_none_or(|next| next.0 != *at) {
            least = least.min(now);
            most = most.max(now);
        }
    }
    (most - least) as u64
}

/// Service as the counter sees it: prompts when they are sent, outputs twice when they are there.
fn service(row: &Row) -> Vec<(u64, u64)> {
    let prompt = row
        .dispatched_ns
        .map(|at| (at, u64::from(row.prompt_tokens)));
    let output = row
        .generated_ns
        .map(|at| (at, 2 * u64::from(row.output_tokens)));
    prompt.into_iter().chain(output).collect()
}

fn dispatches(row: &Row) -> Vec<(u64, u64)> {
    row.dispatched_ns.map(|at| (at, 1)).into_iter().collect()
}

/// Mean time to first token, seconds, of the tenants for which `pick` says yes to their number of requests.
fn ttft(rows: &[Row], pick: impl Fn(usize) -> bool) -> f64 {
    let mut sent = [0; TENANTS];
    for row in rows {
        sent[row.tenant as usize] += 1;
    }
    let picked = |row: &&Row| pick(sent[row.tenant as usize]);
    let times: Vec<f64> = rows
        .iter()
        .filter(picked)
        .filter_map(|r| Some(r.ttft_ns()? as f64 / 1e9))
        .collect();
    times.iter().sum::<f64>() / times.len() as f64
}

#[test]
fn the_virtual_token_counter_keeps_its_bound_where_first_come_does_not() {
    let Some(fcfs) = play("fcfs") else { return };
    let Some(vtc) = play("vtc") else { return };
    // Twice what one tenant may have in flight, as the rule promises.
    let most = |row: &Row| u64::from(row.prompt_tokens) + 2 * u64::from(row.output_tokens);
    let mut sizes: Vec<u64> = vtc.iter().map(most).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let bound = 2 * sizes.iter().take(IN_FLIGHT as usize).sum::<u64>();
    let [first_come, fair] = [&fcfs, &vtc].map(|rows| gap(rows, service));
    println!("tokens: {first_come} of fcfs, {fair} of vtc; bound {bound}");
    assert!(fair <= bound, "{fair} > {bound}");
    assert!(
        first_come > bound,
        "{first_come} keeps the bound of {bound}"
    );
}

#[test]
fn round_robin_gives_a_request_each() {
    let (Some(fcfs), Some(turns)) = (play("fcfs"), play("round_robin")) else {
        return;
    };
    let gaps = [&fcfs, &turns].map(|rows| gap(rows, dispatches));
    println!("requests: {gaps:?} of fcfs and round robin");
    // Both wait all the time, so between two requests of one there is one of the other.
    assert!(gaps[1] <= 2, "{gaps:?}");
    assert!(gaps[0] > 10, "{gaps:?}");
}

#[test]
fn small_tenants_wait_less_and_nothing_is_lost() {
    let Some(fcfs) = play("fcfs") else { return };
    for order in ["round_robin", "vtc"] {
        let Some(fair) = play(order) else { return };
        let small = |n: usize| n <= 40;
        let [before, after] = [&fcfs, &fair].map(|rows| ttft(rows, small));
        let [large_before, large_after] = [&fcfs, &fair].map(|rows| ttft(rows, |n| n > 150));
        println!(
            "{order}: small {before:.2} -> {after:.2} s, large {large_before:.2} -> {large_after:.2} s"
        );
        assert!(after < before / 3.0, "{order}: {before} -> {after}");
        assert!(large_after > large_before, "{order}: nobody pays");
        // An order gives nobody's work away: the replica is through at the same time.
        let end = |rows: &[Row]| {
            rows.iter()
                .filter_map(|r| r.last_token_ns)
                .max()
                .unwrap_or(0) as f64
        };
        assert!((end(&fair) / end(&fcfs) - 1.0).abs() < 0.05, "{order}");
    }
}
