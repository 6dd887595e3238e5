//! The state store in the world: what waiting for it costs, what its loss does, what several gateways
//! know of each other.

mod common;

use common::{U, plain, request, span, units};
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;
use windtunnel_ledger::result::{Population, RunResult};
use windtunnel_ledger::rows::End;
use windtunnel_scenarios::load::{LoadEnv, Source, load};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::faults::FaultSpec;
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_scenarios::schema::state_store::{BlackoutRule, StateStoreSpec};
use windtunnel_scenarios::{Override, workload};
use windtunnel_sim::{RunOptions, run};

fn scenario(name: &str, overrides: &[&str]) -> Scenario {
    let overrides: Vec<_> = overrides.iter().map(|o| Override::new(*o)).collect();
    match load(
        &Source::Library(name.to_owned()),
        &overrides,
        &LoadEnv::default(),
    ) {
        Ok(loaded) => loaded.scenario,
        Err(report) => panic!("{name}: {report:?}"),
    }
}

fn play(scenario: &Scenario) -> RunResult {
    let traffic = workload::prepare(scenario, None, None, false).expect("synthetic traffic");
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    run(scenario, &mut *traffic.workload(1), 1, options).unwrap_or_else(|e| panic!("{e}"))
}

fn whole(result: &RunResult) -> Population {
    let mut all = Population::default();
    for segment in &result.segments {
        all.merge(&segment.all);
    }
    all
}

/// One request at a time for as many replicas as there are, twenty units apart.
fn apart(scenario: &Scenario, requests: u64) -> RunResult {
    let list = (0..requests).map(|i| request(i * 20, 4, 1));
    let mut script = common::Script::new(list);
    run(scenario, &mut script, 1, RunOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_decision_waits_for_the_store_and_nothing_else_does() {
    let bare = plain();
    let mut asked = plain();
    asked.gateway.state_store = Some(StateStoreSpec {
        service: span(1),
        round_trip: span(2),
        timeout: span(9),
        ..StateStoreSpec::default()
    });
    let (bare, asked) = (apart(&bare, 5), apart(&asked, 5));
    for (bare, asked) in bare.rows.iter().zip(&asked.rows) {
        let dispatched = |row: &windtunnel_ledger::rows::Row| row.dispatched_ns.unwrap();
        assert_eq!(dispatched(asked) - dispatched(bare), units(3).as_nanos());
        // Writes hold nobody up.
        assert_eq!(
            asked.ended_ns - dispatched(asked),
            bare.ended_ns - dispatched(bare)
        );
    }
    let store = asked.state_store.unwrap();
    assert_eq!((store.reads, store.writes, store.blind), (5, 10, 0));
    assert_eq!(store.read.max(), Some(3 * U));
    assert!(bare.state_store.is_none());
}

#[test]
fn a_store_that_takes_no_time_changes_nothing() {
    for routing in ["least_loaded", "affinity", "session", "sglang-gateway"] {
        let bare = scenario(
            "chat-burst",
            &[
                "traffic.num_prompts=400",
                &format!("gateway.routing={{ kind = \"{routing}\" }}"),
            ],
        );
        let mut asked = bare.clone();
        asked.gateway.state_store = Some(StateStoreSpec {
            service: Span::default(),
            round_trip: Span::default(),
            ..StateStoreSpec::default()
        });
        assert_eq!(play(&bare).digest, play(&asked).digest, "{routing}");
        // Several gateways that are told of everything at once know what one knows.
        if let Some(store) = &mut asked.gateway.state_store {
            store.gateways = 7;
        }
        assert_eq!(
            play(&bare).digest,
            play(&asked).digest,
            "{routing}, seven gateways"
        );
    }
}

#[test]
fn a_blackout_is_waited_for_then_ignored_or_passed_on() {
    let rule = |on_blackout| {
        let mut scenario = plain();
        scenario.gateway.routing = RoutingSpec::RoundRobin;
        scenario.gateway.state_store = Some(StateStoreSpec {
            service: Span::default(),
            round_trip: Span::default(),
            timeout: span(1),
            retry_after: span(30),
            on_blackout,
            persistent: true,
            ..StateStoreSpec::default()
        });
        // The requests at 20, 40, 60 and 80.
        scenario.faults = vec![FaultSpec::StoreBlackout {
            at: span(19),
            lasts: span(62),
        }];
        apart(&scenario, 6)
    };
    let goes_on = rule(BlackoutRule::LastKnownGood);
    let waits: Vec<u64> = goes_on
        .rows
        .iter()
        .map(|r| (r.dispatched_ns.unwrap() - r.sent_ns) / U)
        .collect();
    assert_eq!(waits, [0, 1, 0, 1, 0, 0], "it asks again after 30 units");
    let store = goes_on.state_store.unwrap();
    assert_eq!((store.failed_reads, store.unasked, store.blind), (2, 2, 4));
    let refuses = rule(BlackoutRule::Refuse);
    let ends: Vec<bool> = refuses
        .rows
        .iter()
        .map(|r| r.end == End::Finished)
        .collect();
    assert_eq!(ends, [true, false, false, false, false, true]);
}

/// Share of prompt tokens found in cache, of requests sent in these seconds.
fn hit_rate(result: &RunResult, from: u64, to: u64) -> f64 {
    let sent = result
        .rows
        .iter()
        .filter(|row| (from * 1_000_000_000..to * 1_000_000_000).contains(&row.sent_ns));
    let (found, all) = sent.fold((0, 0), |(found, all), row| {
        (
            found + u64::from(row.cached_tokens),
            all + u64::from(row.prompt_tokens),
        )
    });
    found as f64 / all as f64
}

#[test]
fn a_failover_costs_hits_and_no_answers() {
    // S10: 1, 5 and 30 s. A gateway knows one in four of the conversations it is asked about, and more
    // of those with many turns; nobody is turned away, and hits are back once the store is.
    for seconds in [1, 5, 30] {
        let mut failing = scenario("store-failover", &[]);
        failing.faults = vec![FaultSpec::StoreBlackout {
            at: Span(SimDuration::from_secs(120)),
            lasts: Span(SimDuration::from_secs(seconds)),
        }];
        let result = play(&failing);
        let all = whole(&result);
        assert_eq!(all.finished, all.sent, "{seconds} s");
        let (before, during) = (
            hit_rate(&result, 60, 120),
            hit_rate(&result, 120, 120 + seconds),
        );
        let after = hit_rate(&result, 180, 240);
        assert!(
            during > before / 2.0,
            "{seconds} s: {before:.3}, then {during:.3}"
        );
        assert!(
            (after - before).abs() < 0.05,
            "{seconds} s: {before:.3}, {after:.3} after"
        );
        let store = result.state_store.expect("a store");
        // Four gateways, each of which waits 50 ms and tries again after 100 ms.
        let silent = store.failed_reads as f64 / (4.0 * seconds as f64 / 0.150);
        assert!(silent < 2.0, "{} reads in vain", store.failed_reads);
        let index = result.index.expect("a map");
        assert!(index.unknown <= store.blind);
    }
    let refuses = "gateway.state_store.on_blackout=refuse";
    let refused = whole(&play(&scenario("store-failover", &[refuses])));
    let success = refused.finished as f64 / refused.sent as f64;
    assert!(success < 0.99, "5 of 240 s: {success}");
}

#[test]
fn a_store_that_forgot_is_told_anew_within_its_period() {
    // F29: failed from 120 to 125 s, told anew at 150 s; until then gateways go by what they knew.
    let result = play(&scenario(
        "store-failover",
        &["gateway.state_store.persistent=false"],
    ));
    let store = result.state_store.as_ref().expect("a store");
    assert_eq!(store.wiped, 1);
    assert!(
        hit_rate(&result, 126, 150) < 0.6,
        "nothing is known of any conversation"
    );
    assert!(hit_rate(&result, 170, 240) > 0.8, "all is known again");
    let all = whole(&result);
    assert_eq!(all.finished, all.sent);
}

/// Tokens of the busiest replica over their mean.
fn imbalance(result: &RunResult) -> f64 {
    let tokens = result
        .replicas
        .iter()
        .map(|r| r.prompt_tokens + r.output_tokens);
    let most = tokens.clone().max().expect("replicas") as f64;
    most * result.replicas.len() as f64 / tokens.sum::<u64>() as f64
}

#[test]
fn a_bound_on_load_spreads_a_hot_prefix() {
    // S13 and V-P7.
    let bounded = play(&scenario("prefix-hot-spot", &[]));
    assert!(imbalance(&bounded) <= 1.25);
    let unbounded = play(&scenario(
        "prefix-hot-spot",
        &["gateway.routing.epsilon=none"],
    ));
    assert!((imbalance(&unbounded) - 8.0).abs() < 1e-9);
    let hit = |result: &RunResult| hit_rate(result, 0, 90);
    assert!(
        hit(&bounded) > hit(&unbounded) - 0.005,
        "eight copies cost seven prompts"
    );
}

/// A store under so many requests per second, at 100 replicas that are never full.
fn loaded(rate: u32, prompts: u32, write_batch: &str) -> RunResult {
    let store =
        format!("gateway.state_store={{ refresh = \"0s\", write_batch = \"{write_batch}\" }}");
    let rate = format!("traffic.request_rate={rate} req/s");
    let prompts = format!("traffic.num_prompts={prompts}");
    play(&scenario(
        "mm1",
        &[
            "fleet.replicas=100",
            "fleet.engine.servers=1000",
            "gateway.routing={ kind = \"random\" }",
            "traffic.service={ kind = \"exponential\", mean = \"5ms\" }",
            "thresholds=[]",
            &store,
            &rate,
            &prompts,
        ],
    ))
}

#[test]
fn its_queue_is_that_of_a_single_server_with_equal_services() {
    // V-R1: M/D/1, Wq = rho S / (2 (1 - rho)), of reads, which come when requests do; 3 %. The mean of
    // 200,000 waits deviates by under 1 %. What follows on an answer is spaced by services and meets
    // less of its kind: with two writes each, waits are a little shorter, never longer.
    for (rate, batch, operations) in [
        (11_000, "1h", 1.0),
        (31_000, "1h", 1.0),
        (10_333, "0s", 3.0),
    ] {
        let result = loaded(rate, 200_000, batch);
        let store = result.state_store.expect("a store");
        let rho = f64::from(rate) * operations * 10e-6;
        let expected = rho * 10e-6 / (2.0 * (1.0 - rho));
        let wait = store.waited_ns as f64 / store.served as f64 / 1e9;
        let least = if operations > 1.0 { 0.85 } else { 0.97 };
        let ratio = wait / expected;
        assert!(
            (least..1.03).contains(&ratio),
            "{rate}, {batch}: {wait:e} for {expected:e}"
        );
        // F21: the round trip of 0.3 ms makes nearly all of it.
        let p99 = store.read.quantile(0.99).expect("reads");
        assert!(p99 < 1e6, "{p99} ns");
    }
}

#[test]
fn counting_every_request_takes_twenty_times_the_writes_that_were_claimed() {
    // F27 and F28: 100 replicas at 100 requests per second read 10,000 times, and write 20,000 times one
    // by one, 1,000 times in batches of 100 ms. The run's first and last tenth of a second make 2 %.
    for (batch, writes) in [("0s", 20_000.0), ("100ms", 1_000.0)] {
        let result = loaded(10_000, 100_000, batch);
        let store = result.state_store.expect("a store");
        let seconds = result.end_ns as f64 / 1e9;
        let (reads, written) = (store.reads as f64 / seconds, store.writes as f64 / seconds);
        assert!((reads / 1e4 - 1.0).abs() < 0.02, "{reads} reads per second");
        assert!(
            (written / writes - 1.0).abs() < 0.02,
            "{written} writes per second, {batch}"
        );
    }
}

#[test]
fn throughput_grows_with_the_fleet_up_to_the_store_and_no_further() {
    // F25: a store of 1 ms answers 1,000 questions per second, for replicas of 100 requests each.
    for (replicas, expected) in [
        (3, 270.0),
        (6, 540.0),
        (11, 990.0),
        (16, 1000.0),
        (32, 1000.0),
    ] {
        let result = play(&scenario(
            "mm1",
            &[
                &format!("fleet.replicas={replicas}"),
                "gateway.routing={ kind = \"random\" }",
                "gateway.state_store={ service = \"1ms\", refresh = \"0s\", write_batch = \"1000h\", timeout = \"1000h\" }",
                "traffic.service={ kind = \"exponential\", mean = \"10ms\" }",
                &format!("traffic.request_rate={} req/s", replicas * 90),
                "traffic.num_prompts=20000",
                "thresholds=[]",
            ],
        ));
        let throughput = 20_000.0 / (result.end_ns as f64 / 1e9);
        // 20,000 arrivals deviate by 0.7 %.
        assert!(
            (throughput / expected - 1.0).abs() < 0.03,
            "{replicas}: {throughput}"
        );
    }
}

#[test]
fn the_map_holds_what_came_within_its_time() {
    // F35: keys that come once each, 20 per second, kept for 30 s: 600 entries, a Poisson number; the
    // greatest of some hundred independent ones is three to four deviations above.
    let result = play(&scenario(
        "mm1",
        &[
            "fleet.replicas=4",
            "fleet.engine.servers=100",
            "gateway.routing={ kind = \"affinity\", key = \"conversation\", ttl = \"30s\" }",
            "traffic.request_rate=20 req/s",
            "traffic.num_prompts=20000",
            "traffic.service={ kind = \"exponential\", mean = \"50ms\" }",
            "thresholds=[]",
        ],
    ));
    let index = result.index.expect("a map");
    let peak = index.peak_entries as f64;
    assert!(
        (600.0..600.0 + 5.0 * 600_f64.sqrt()).contains(&peak),
        "{peak}"
    );
    assert_eq!(index.placed, 20_000);
}

#[test]
fn affinity_is_false_when_the_map_remembers_longer_than_the_cache() {
    // F36: a map that forgets before the caches do is never wrong; one that outlives them is.
    let with = |ttl: &str, blocks: u32| {
        let result = play(&scenario(
            "store-failover",
            &[
                "traffic.duration=100s",
                "traffic.session.max_context=8000",
                "traffic.session.think_time={ kind = \"lognormal\", mean = \"20s\", sigma = 0.8 }",
                &format!("gateway.routing.ttl={ttl}"),
                &format!("fleet.engine.kv.blocks={blocks}"),
                "traffic.prefix.tokens={ kind = \"fixed\", tokens = 0 }",
            ],
        ));
        result.index.expect("a map")
    };
    let aligned = with("5min", 60_000);
    assert!(aligned.followed > 300, "{aligned:?}");
    assert_eq!(aligned.false_affinity, 0);
    let outlived = with("5min", 1_000);
    assert!(outlived.false_affinity > 0, "{outlived:?}");
}

#[test]
fn affinity_is_never_false_where_map_and_cache_expire_together() {
    // F36 by time, with room for everything: both count from the last use, the cache's a little later. Nobody
    // is passed over and the store never fails: an entry used for a turn that went elsewhere would outlive
    // what its replica has.
    let with = |map: &str, cache: &str| {
        let result = play(&scenario(
            "store-failover",
            &[
                "traffic.duration=200s",
                "traffic.session.max_context=8000",
                "traffic.session.think_time={ kind = \"exponential\", mean = \"20s\" }",
                "traffic.prefix.tokens={ kind = \"fixed\", tokens = 0 }",
                "gateway.routing.epsilon=none",
                "faults=[]",
                "thresholds=[]",
                &format!("gateway.routing.ttl={map}"),
                &format!("fleet.engine.kv.prefix_ttl={cache}"),
            ],
        ));
        result.index.expect("a map")
    };
    let aligned = with("10s", "10s");
    assert!(aligned.followed > 300, "{aligned:?}");
    assert_eq!(aligned.false_affinity, 0, "{aligned:?}");
    // exp(-10 / 20) of all come back after the cache has forgotten them, and fewer than that the later
    // the map does.
    let shares = ["15s", "30s", "5min"].map(|map| {
        let outlives = with(map, "10s");
        outlives.false_affinity as f64 / outlives.followed as f64
    });
    assert!(shares.windows(2).all(|two| two[0] < two[1]), "{shares:?}");
    assert!(shares[0] > 0.05 && shares[2] > 0.5, "{shares:?}");
}
