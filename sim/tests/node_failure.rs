//! Replicas that are lost and come back: which keys move, what their hits do, and how many requests are
//! sent to a replica that is no more.

mod common;

use common::{Script, plain, request, span};
use std::collections::BTreeSet;
use windtunnel_base::content::Extent;
use windtunnel_base::quantity::Span;
use windtunnel_base::refusal::Refusal;
use windtunnel_engine::config::KvSpec;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::schema::clients::{ClientsSpec, Failure, RetriesSpec};
use windtunnel_scenarios::schema::faults::Target;
use windtunnel_scenarios::schema::outliers::OutlierDetectionSpec;
use windtunnel_scenarios::schema::{FaultSpec, Scenario};
use windtunnel_sim::{RunOptions, run};

fn play(scenario: &Scenario, script: &Script) -> RunResult {
    run(scenario, &mut script.clone(), 7, RunOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn loss(replica: u32, at: u64, lasts: u64, detection: u64) -> FaultSpec {
    FaultSpec::ReplicaLoss {
        at: span(at),
        lasts: span(lasts),
        detection: span(detection),
        on: Target {
            pool: None,
            replicas: vec![replica],
        },
    }
}

fn fleet(replicas: u32, routing: &str) -> Scenario {
    let mut scenario = plain();
    scenario.fleet.replicas = replicas;
    scenario.gateway.routing = serde_json::from_str(routing).expect("a routing policy");
    let engine = scenario.fleet.engine.llm_mut().expect("an LLM engine");
    engine.kv = KvSpec {
        blocks: Some(100_000),
        ..KvSpec::default()
    };
    scenario
}

const REPLICAS: u32 = 8;
const KEYS: u64 = 400;
/// Units between two requests, and between two rounds of all keys.
const GAP: u64 = 200;
const ROUND: u64 = GAP * KEYS;
/// Tokens of each key's prompt that can be found.
const SHARED: u32 = 96;

/// Rounds in which every key asks once for the same prompt, one after the other.
fn rounds(rounds: u64) -> Script {
    let mut script = Script::new([]);
    script.requests = (0..rounds * KEYS)
        .map(|i| {
            let key = i % KEYS;
            let mut ask = request(i * GAP, SHARED + 1, 1);
            ask.session = key;
            let prefix = vec![Extent {
                key: key + 1,
                tokens: SHARED,
            }];
            (ask, prefix)
        })
        .collect();
    script
}

/// The replica of each key in a round, and whether it found its prompt.
fn round(result: &RunResult, n: u64) -> Vec<(u32, bool)> {
    let rows = &result.rows[(n * KEYS) as usize..((n + 1) * KEYS) as usize];
    let seen = |row: &Row| {
        assert_eq!(row.end, End::Finished);
        (row.replica.expect("answered"), row.cached_tokens == SHARED)
    };
    rows.iter().map(seen).collect()
}

/// Rounds 0 and 1 before replica 3 is lost, 2 and 3 without it, 4 and 5 when it is back, cold.
fn through_a_loss(routing: &str) -> [Vec<(u32, bool)>; 6] {
    let mut scenario = fleet(REPLICAS, routing);
    scenario.faults = vec![loss(3, 2 * ROUND - 10, 2 * ROUND, 0)];
    let result = play(&scenario, &rounds(6));
    [0, 1, 2, 3, 4, 5].map(|n| round(&result, n))
}

fn hits(round: &[(u32, bool)], of: &BTreeSet<usize>) -> usize {
    of.iter().filter(|&&key| round[key].1).count()
}

/// E09, whatever the policy: keys of the lost replica move, and no others; they find nothing at first and
/// everything from the second time on.
fn only_its_keys_move(routing: &str) -> [Vec<(u32, bool)>; 6] {
    let seen = through_a_loss(routing);
    let [cold, before, first, second, ..] = &seen;
    assert!(cold.iter().all(|&(_, found)| !found), "{routing}");
    assert!(before.iter().all(|&(_, found)| found), "{routing}");
    let moved: BTreeSet<usize> = (0..KEYS as usize)
        .filter(|&key| before[key].0 == 3)
        .collect();
    // An eighth of the keys; rings are even to some tenths with the points that they have.
    let share = moved.len() as f64 * f64::from(REPLICAS) / KEYS as f64;
    assert!(
        (0.6..=1.5).contains(&share),
        "{routing}: {share} of a fair share"
    );
    for key in 0..KEYS as usize {
        if moved.contains(&key) {
            assert_ne!(first[key].0, 3, "{routing}");
        } else {
            assert_eq!(
                first[key], before[key],
                "{routing}: key {key} stays, and finds its prompt"
            );
        }
        assert_eq!(
            second[key].0, first[key].0,
            "{routing}: key {key} moves once"
        );
    }
    let targets: BTreeSet<u32> = moved.iter().map(|&key| first[key].0).collect();
    assert!(
        targets.len() > 3,
        "{routing}: to several others, not to one"
    );
    assert_eq!(hits(first, &moved), 0, "{routing}: the dip");
    assert_eq!(
        hits(second, &moved),
        moved.len(),
        "{routing}: and the recovery"
    );
    seen
}

#[test]
fn keys_of_a_ring_move_while_their_replica_is_gone_and_come_home() {
    for routing in [
        r#"{"kind":"consistent_hashing","key":"session","epsilon":"none"}"#,
        r#"{"kind":"consistent_hashing","key":"prefix","epsilon":0.25}"#,
        r#"{"kind":"prefix_hash","prefix_tokens":64}"#,
    ] {
        let [_, before, _, _, back, later] = only_its_keys_move(routing);
        for key in 0..KEYS as usize {
            let home = before[key].0;
            assert_eq!(
                (back[key].0, later[key].0),
                (home, home),
                "{routing}: home again"
            );
            // It comes back without its cache: they miss there once more.
            assert_eq!(back[key].1, home != 3, "{routing}");
            assert!(later[key].1, "{routing}");
        }
    }
}

#[test]
fn keys_of_a_map_or_a_trie_move_once_and_stay() {
    for routing in [
        r#"{"kind":"affinity","key":"conversation","epsilon":"none","ttl":"10h"}"#,
        r#"{"kind":"affinity","key":"columns","columns":1,"ttl":"10h"}"#,
        r#"{"kind":"session","idle":"10h"}"#,
        r#"{"kind":"cache_aware","load":"total_tokens","balance_abs_threshold":1000000}"#,
    ] {
        let [_, _, _, second, back, later] = only_its_keys_move(routing);
        assert_eq!(second, back, "{routing}: nobody goes back to a cold cache");
        assert_eq!(back, later, "{routing}");
    }
}

/// A trie that had not been told would send the keys back to a replica that has forgotten them.
#[test]
fn what_was_routed_to_a_lost_replica_is_not_taken_to_be_there_when_it_is_back() {
    let mut scenario = fleet(2, r#"{"kind":"cache_aware","load":"total_tokens"}"#);
    // Lost and back before its key asks again: nothing has moved meanwhile.
    scenario.faults = vec![loss(0, 500, 100, 0)];
    let mut script = rounds(1);
    script.requests.truncate(4);
    let again: Vec<_> = script
        .requests
        .iter()
        .cloned()
        .map(|(mut ask, prefix)| {
            ask.at = ask.at.saturating_add(common::units(1000));
            (ask, prefix)
        })
        .collect();
    script.requests.extend(again);
    let result = play(&scenario, &script);
    let found = |row: &Row| (row.replica, row.cached_tokens > 0);
    for key in 0..4 {
        let (was, is) = (found(&result.rows[key]), found(&result.rows[key + 4]));
        assert_eq!(
            is.1,
            was.0 == Some(1),
            "only the other replica's keys find their prompts"
        );
        if was.0 == Some(1) {
            assert_eq!(is.0, Some(1));
        }
    }
}

// --- stale routes ------------------------------------------------------------------------------

/// One request every ten units, on replicas in turn.
fn steady(requests: u64) -> Script {
    Script::new((0..requests).map(|i| request(10 * i, 4, 1)))
}

/// F15: what the gateway goes by lags behind what is so. Requests sent to a replica that is no more, by hand.
#[test]
fn requests_are_sent_to_a_lost_replica_until_that_is_known() {
    for detection in [0, 35, 200, 1000] {
        let mut scenario = fleet(4, r#"{"kind":"round_robin"}"#);
        scenario.faults = vec![loss(2, 1005, 400, detection)];
        let result = play(&scenario, &steady(400));
        // Every fourth request goes to each, while it is lost and not known to be.
        let blind = detection.min(400);
        let stale = (0..400).filter(|i| i % 4 == 2 && (1005..1005 + blind).contains(&(10 * i)));
        let stale: Vec<u64> = stale.collect();
        assert_eq!(result.gateway.stale_routes, Some(stale.len() as u64));
        let unavailable = result.segments.iter().map(|s| &s.all);
        let refused: u64 = unavailable
            .map(|p| p.refused[Refusal::Unavailable as usize])
            .sum();
        assert_eq!(
            refused,
            stale.len() as u64,
            "as configured, nobody tries again"
        );
        for i in stale {
            assert_eq!(
                result.rows[i as usize].end,
                End::Refused(Refusal::Unavailable)
            );
        }
    }
}

/// F15: of all requests, at most `lag x failures of a replica per time` meet a replica that is no more, if
/// each replica gets its share of them. (One that fails at once looks idle: policies that go by load send it
/// more.)
#[test]
fn stale_routes_are_at_most_lag_times_the_rate_of_failures() {
    const REQUESTS: u64 = 20_000;
    for lag in [20, 150, 700] {
        for routing in [r#"{"kind":"round_robin"}"#, r#"{"kind":"random"}"#] {
            let mut scenario = fleet(4, routing);
            // Each replica fails every 16,000 units, for 500.
            let failures: Vec<FaultSpec> = (0..48)
                .map(|i| loss(i % 4, 4000 * u64::from(i) + 2003, 500, lag))
                .collect();
            let length = 10 * REQUESTS;
            let rate = failures.len() as f64 / 4.0 / length as f64;
            scenario.faults = failures;
            let result = play(&scenario, &steady(REQUESTS));
            let stale = result.gateway.stale_routes.expect("replicas are lost") as f64;
            let bound = lag as f64 * rate * REQUESTS as f64;
            // Requests come on a grid: one more may fall into each gap. Drawn ones scatter.
            let slack = if routing.contains("random") {
                4.0 * bound.sqrt()
            } else {
                48.0
            };
            assert!(
                stale <= bound + slack,
                "{routing}, lag {lag}: {stale} of {bound}"
            );
            // The bound is close where the lag is over before the failure is.
            if lag < 500 && routing.contains("robin") {
                assert!(
                    stale >= bound - 48.0,
                    "{routing}, lag {lag}: {stale} of {bound}"
                );
            }
        }
    }
}

/// Each of four replicas fails every 16,000 units, for 500: what F15 says is the most of stale routes.
fn failing(routing: &str, lag: u64, detection: Option<OutlierDetectionSpec>) -> (RunResult, f64) {
    const REQUESTS: u64 = 20_000;
    let mut scenario = fleet(4, routing);
    let failures = (0..48).map(|i| loss(i % 4, 4000 * u64::from(i) + 2003, 500, lag));
    scenario.faults = failures.collect();
    scenario.gateway.outlier_detection = detection;
    let rate = scenario.faults.len() as f64 / 4.0 / (10 * REQUESTS) as f64;
    // Long enough that each replica mostly has one.
    let script = Script::new((0..REQUESTS).map(|i| request(10 * i, 4, 4)));
    let result = play(&scenario, &script);
    (result, lag as f64 * rate * REQUESTS as f64)
}

/// F15 where policies go by load: a replica that fails at once looks idle, and draws far more than its share
/// for as long as nobody says so. If the gateway ejects who fails `k` requests in a row, no failure costs more
/// than these.
#[test]
fn outlier_detection_keeps_stale_routes_within_the_bound_for_policies_that_go_by_load() {
    let detection = |k, enabled| OutlierDetectionSpec {
        enabled,
        consecutive_5xx: k,
        // Past the end of each failure.
        base_ejection_time: span(500),
        ..OutlierDetectionSpec::default()
    };
    for routing in [
        r#"{"kind":"least_loaded"}"#,
        r#"{"kind":"power_of_two"}"#,
        r#"{"kind":"session"}"#,
    ] {
        for (lag, k) in [(450, 5), (700, 5), (450, 1), (200, 3)] {
            let (with, bound) = failing(routing, lag, Some(detection(k, true)));
            let stale = with.gateway.stale_routes.expect("replicas are lost") as f64;
            let ejections = with.gateway.ejections.expect("there is detection");
            assert!(stale <= bound, "{routing}, lag {lag}: {stale} of {bound}");
            // A replica that failed somebody fails its next ones too: each of 48 failures, k requests.
            assert!(
                stale <= (48 * k) as f64 && ejections <= 48,
                "{routing}: {stale}"
            );
        }
    }
    // Without it, least loaded sends more than twice its share to whoever fails.
    for off in [None, Some(detection(5, false))] {
        let (without, bound) = failing(r#"{"kind":"least_loaded"}"#, 450, off.clone());
        let stale = without.gateway.stale_routes.expect("replicas are lost") as f64;
        assert!(stale > 2.0 * bound, "{stale} of {bound}");
        assert_eq!(without.gateway.ejections, off.map(|_| 0));
    }
}

/// By hand: after two failures in a row a replica is left alone for 100 units, then, as it fails two more, for
/// 200, and the one that is left is never ejected.
#[test]
fn an_ejected_replica_comes_back_and_the_last_one_stays() {
    let mut scenario = fleet(2, r#"{"kind":"round_robin"}"#);
    scenario.gateway.outlier_detection = Some(OutlierDetectionSpec {
        consecutive_5xx: 2,
        base_ejection_time: span(100),
        max_ejection_percent: 100.0,
        ..OutlierDetectionSpec::default()
    });
    scenario.faults = vec![loss(1, 35, 205, 10_000)];
    let result = play(&scenario, &steady(60));
    let failed: Vec<u64> = (0..60)
        .filter(|&i| result.rows[i as usize].end == End::Refused(Refusal::Unavailable))
        .map(|i| 10 * i)
        .collect();
    // What it was doing when it was lost, and the next: ejected at 50, until 150. Two more in turn: ejected at
    // 170, until 370, when it has long been back.
    assert_eq!(failed, [30, 50, 150, 170]);
    assert_eq!(result.gateway.ejections, Some(2));
    let to_second = |i: &u64| result.rows[*i as usize].replica == Some(1);
    let served: Vec<u64> = (0..60).filter(to_second).map(|i| 10 * i).collect();
    assert_eq!(served.iter().filter(|&&at| at > 200).min(), Some(&370));
    // All fail: one of them goes on getting requests, or nobody would know when it is back.
    scenario.faults.push(loss(0, 35, 205, 10_000));
    let result = play(&scenario, &steady(60));
    assert!(
        result
            .rows
            .iter()
            .all(|row| row.end != End::Refused(Refusal::NoReplica))
    );
    assert!(result.rows[30..].iter().all(|row| row.end == End::Finished));
}

#[test]
fn clients_that_try_again_get_their_answers_elsewhere() {
    let mut scenario = fleet(4, r#"{"kind":"round_robin"}"#);
    scenario.faults = vec![loss(2, 1005, 400, 200)];
    scenario.clients = Some(ClientsSpec {
        retries: RetriesSpec {
            max: 1,
            backoff: Span(common::units(1)),
            on: vec![Failure::Unavailable],
            ..RetriesSpec::default()
        },
        ..ClientsSpec::default()
    });
    let result = play(&scenario, &steady(400));
    assert!(result.gateway.stale_routes.is_some_and(|n| n >= 4));
    assert!(result.rows.iter().all(|row| row.end == End::Finished));
}
