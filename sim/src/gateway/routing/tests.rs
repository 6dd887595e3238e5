//! One scene on which all policies differ, and what presets stand for.

use super::*;
use crate::gateway::fixtures::{Shown, decide, replica, request};
use std::collections::BTreeMap;
use windtunnel_base::content::Extent;
use windtunnel_base::quantity::Span;
use windtunnel_base::rng::Rng;
use windtunnel_base::time::SimDuration;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::{
    FilterSpec, HashKey, LoadSignal, PickerKind, PrefixIndexSpec, ScorerKind, TieBreak,
};

pub(super) const FACTS: FleetFacts = FleetFacts {
    replicas: 4,
    block_tokens: 16,
    seed: 1,
};

/// A specification from what a scenario file would say.
pub(super) fn parse(toml: &str) -> RoutingSpec {
    serde_json::from_str(toml).unwrap()
}

pub(super) fn weighted(scorers: &[(ScorerKind, f64)], filters: Vec<FilterSpec>) -> RoutingSpec {
    RoutingSpec::Weighted {
        filters,
        scorers: scorers.iter().copied().collect::<BTreeMap<_, _>>(),
        picker: PickerKind::MaxScore,
        prefix_index: PrefixIndexSpec::default(),
        normalize: false,
        order: Vec::new(),
    }
}

pub(super) fn least(load: LoadSignal) -> RoutingSpec {
    RoutingSpec::LeastLoaded {
        load,
        ties: TieBreak::LowestId,
    }
}

/// The scene. An idle fleet but for replica 3, the only idle one, gets a request of
/// conversation 7 with system prompt 1 (`first`). Then loads are as here, every signal with
/// another least replica, replica 0 reports most of the prompt in its cache, and a second
/// request of the conversation comes: which replica answers, and why?
pub(super) fn scene() -> (Vec<ReplicaView>, Vec<ReplicaView>, Vec<u32>) {
    let busy = Shown {
        in_flight: 9,
        in_flight_tokens: 9000,
        total_tokens: 9000,
        waiting: 9,
        running: 9,
        kv_held: 900,
    };
    let before = vec![
        replica(0, busy),
        replica(1, busy),
        replica(2, busy),
        replica(3, Shown::default()),
    ];
    let shown = |in_flight, in_flight_tokens, total_tokens, waiting, running, kv_held| Shown {
        in_flight,
        in_flight_tokens,
        total_tokens,
        waiting,
        running,
        kv_held,
    };
    let after = vec![
        replica(0, shown(3, 9000, 50_000, 0, 9, 500)),
        replica(1, shown(1, 8000, 40_000, 5, 1, 400)),
        replica(2, shown(2, 1000, 80_000, 3, 0, 900)),
        replica(3, shown(5, 5000, 60_000, 2, 4, 200)),
    ];
    (before, after, vec![640, 0, 320, 0])
}

fn second_choice(spec: &RoutingSpec) -> (u32, Vec<f64>) {
    let (before, after, cached) = scene();
    let prefix = [
        Extent {
            key: 1,
            tokens: 600,
        },
        Extent {
            key: 2,
            tokens: 200,
        },
    ];
    let mut rng = Rng::from_seed(1);
    let mut policy = build(spec, &FACTS);
    let of_7 = |id, tokens, prefix| RequestView {
        session: 7,
        ..request(id, tokens, prefix)
    };
    let first = of_7(0, 700, &prefix[..1]);
    decide(policy.as_mut(), &first, &before, &[0, 0, 0, 0], &mut rng);
    let second = of_7(1, 900, &prefix);
    decide(policy.as_mut(), &second, &after, &cached, &mut rng)
}

#[test]
fn one_scene_every_policy() {
    use ScorerKind as S;
    let one = |kind| weighted(&[(kind, 1.0)], Vec::new());
    let rows = [
        (parse(r#"{"kind":"round_robin"}"#), 1, "the first went to 0"),
        (least(LoadSignal::InFlight), 1, "1 in flight"),
        (
            least(LoadSignal::InFlightTokens),
            2,
            "1,000 tokens in flight",
        ),
        (least(LoadSignal::TotalTokens), 1, "40,000 tokens ever"),
        (least(LoadSignal::Waiting), 0, "nobody waits"),
        (
            least(LoadSignal::WaitingAndRunning),
            2,
            "3 + 0; 1 has 5 + 1",
        ),
        (least(LoadSignal::KvUtilization), 3, "a fifth held"),
        // 9, 21, 12, and 12 + 4 for the first request, sent since the reading.
        (least(LoadSignal::VllmDp), 0, "4 * 0 + 9"),
        (
            parse(r#"{"kind":"session","idle":"1h"}"#),
            3,
            "7 lives on 3",
        ),
        (
            parse(r#"{"kind":"affinity"}"#),
            1,
            "3 has the first 256 tokens, but 5 in flight of a bound of 4: least in flight",
        ),
        (
            parse(r#"{"kind":"affinity","epsilon":"none"}"#),
            3,
            "the first 256 tokens are those of the first",
        ),
        (
            parse(r#"{"kind":"affinity","epsilon":"none","columns":10}"#),
            1,
            "640 tokens of the second are no key of the first",
        ),
        (
            parse(r#"{"kind":"affinity","epsilon":"none","key":"conversation","columns":10}"#),
            3,
            "7 lives on 3",
        ),
        (
            parse(r#"{"kind":"cache_aware"}"#),
            3,
            "600 of 900 were routed to 3",
        ),
        (
            parse(r#"{"kind":"cache_aware","cache_threshold":0.7}"#),
            1,
            "600 of 900 is too little: least in flight",
        ),
        (
            parse(r#"{"kind":"cache_aware","balance_abs_threshold":3}"#),
            1,
            "5 - 1 > 3 and 5 > 1.1 * 1: uneven, so least in flight",
        ),
        (
            parse(r#"{"kind":"cache_aware","min_match_tokens":601}"#),
            1,
            "600 tokens match, one too few",
        ),
        // Active: the first request's 700 tokens, on 0 by a draw or wherever it went.
        (
            parse(r#"{"kind":"kv_router"}"#),
            0,
            "640 of 900 tokens reported by 0",
        ),
        (one(S::QueueDepth), 0, "nobody waits"),
        (one(S::KvUtilization), 3, "a fifth held"),
        (
            weighted(
                &[(S::PrefixCache, 1.0), (S::ActiveRequest, 0.1)],
                Vec::new(),
            ),
            3,
            "592 of 900 were routed to 3 …",
        ),
        (one(S::PrecisePrefixCache), 0, "… but 0 reports 640"),
        (one(S::LoadAware), 0, "an empty queue"),
        (one(S::ActiveRequest), 1, "1 in flight"),
        (one(S::Running), 2, "none runs"),
        (one(S::NoHitLru), 0, "all alike: the request is warm"),
        (
            weighted(
                &[(S::ActiveRequest, 1.0)],
                vec![FilterSpec::MaxWaiting { limit: 4 }],
            ),
            2,
            "1 has five waiting; of the rest 2 has the fewest in flight",
        ),
        (
            weighted(
                &[(S::PrecisePrefixCache, 0.0), (S::ActiveRequest, 1.0)],
                vec![FilterSpec::LongestPrefix { within_tokens: 0 }],
            ),
            3,
            "a scorer of weight zero reads nothing: by what was routed, only 3 has a prefix",
        ),
        (
            weighted(
                &[(S::PrecisePrefixCache, 1.0), (S::Running, 9.0)],
                vec![FilterSpec::LongestPrefix { within_tokens: 320 }],
            ),
            2,
            "0 and 2 are within 320 tokens of the longest; 2 runs nothing",
        ),
        (
            weighted(
                &[(S::ActiveRequest, 1.0)],
                vec![
                    FilterSpec::MaxKvUtilization { limit: 0.1 },
                    FilterSpec::LeastWaiting,
                ],
            ),
            0,
            "nobody passes the first filter: skipped; 0 has the fewest waiting",
        ),
        // Queue 1, .4, .. and KV .5, .6, .1, .8: 0 has 2 + 1 + 0, 3 has 1.2 + 1.6 + 3 * 37/56.
        (RoutingSpec::Gie, 3, "its prefix outweighs two in its queue"),
        (RoutingSpec::LlmD, 0, "1 + 1 + 3 * 640/896"),
        (RoutingSpec::SglangGateway, 3, "as cache_aware"),
        (RoutingSpec::Dynamo, 0, "as kv_router"),
        (RoutingSpec::VllmDp, 0, "as least_loaded by vllm_dp"),
    ];
    for (spec, expected, reason) in rows {
        let (chosen, scores) = second_choice(&spec);
        assert_eq!(chosen, expected, "{spec:?}: {reason}; scores {scores:?}");
    }
}

/// How often each of four replicas was chosen in 6,000 decisions; loads are 1, 5, 1, 1.
fn chosen(spec: &RoutingSpec) -> [u32; 4] {
    let fleet: Vec<_> = [1, 5, 1, 1]
        .into_iter()
        .enumerate()
        .map(|(id, in_flight)| {
            let shown = Shown {
                in_flight,
                ..Shown::default()
            };
            replica(id as u32, shown)
        })
        .collect();
    let mut policy = build(spec, &FACTS);
    let mut rng = Rng::from_seed(1);
    let mut times = [0; 4];
    for id in 0..6_000 {
        let to = decide(policy.as_mut(), &request(id, 1, &[]), &fleet, &[], &mut rng).0;
        times[to as usize] += 1;
    }
    times
}

#[test]
fn ties_go_where_the_specification_says() {
    let lowest = parse(r#"{"kind":"least_loaded"}"#);
    assert_eq!(chosen(&lowest), [6_000, 0, 0, 0]);
    let random = parse(r#"{"kind":"least_loaded","ties":"random"}"#);
    let times = chosen(&random);
    assert_eq!(times[1], 0, "the loaded one is no equal");
    // A third each; four deviations of 6,000 draws are 146.
    assert!(
        [0, 2, 3].iter().all(|&i| times[i].abs_diff(2_000) < 146),
        "{times:?}"
    );
}

#[test]
fn more_choices_find_the_least_loaded_more_often() {
    // The loaded one is taken only if every draw hits it: (1/4)^d of 6,000 decisions. Four
    // deviations are 134, 75 and 38.
    for (choices, expected, tolerance) in [(1, 1_500, 134), (2, 375, 75), (3, 94, 38)] {
        let spec = format!(r#"{{"kind":"power_of_two","choices":{choices}}}"#);
        let times = chosen(&parse(&spec));
        assert!(
            times[1].abs_diff(expected) < tolerance,
            "{choices}: {times:?}"
        );
    }
    assert_eq!(
        chosen(&parse(r#"{"kind":"power_of_two"}"#)),
        chosen(&parse(r#"{"kind":"power_of_two","choices":2}"#)),
    );
}

#[test]
fn hashes_place_keys_and_loads_move_them_on() {
    let hash = |key, epsilon| RoutingSpec::ConsistentHashing {
        key,
        virtual_nodes: 100,
        epsilon,
    };
    let (_, after, _) = scene();
    let home = second_choice(&hash(HashKey::Session, None)).0;
    assert_eq!(home, second_choice(&hash(HashKey::Session, None)).0);
    // 11 in flight: with epsilon 0 the cap is ceil(12 / 4) = 3, which 0 and 3 have reached.
    let (bounded, scores) = second_choice(&hash(HashKey::Session, Some(0.0)));
    assert!(after[bounded as usize].in_flight < 3);
    assert_eq!(
        scores[0].max(scores[3]),
        f64::NEG_INFINITY,
        "full replicas are out"
    );
    // All keys of one tenant meet, whatever the conversation.
    let mut policy = build(&hash(HashKey::Tenant, None), &FACTS);
    let mut rng = Rng::from_seed(1);
    let mut to = |id| decide(policy.as_mut(), &request(id, 1, &[]), &after, &[], &mut rng).0;
    let first = to(0);
    assert!((1..50).all(|id| to(id) == first));
    // A prefix names its replica; without one, the conversation does.
    let mut policy = build(&hash(HashKey::Prefix, None), &FACTS);
    let mut to = |id, prefix: &[Extent]| {
        decide(
            policy.as_mut(),
            &request(id, 9, prefix),
            &after,
            &[],
            &mut rng,
        )
        .0
    };
    let shared = [Extent { key: 5, tokens: 3 }];
    let home = to(0, &shared);
    assert!((1..50).all(|id| to(id, &shared) == home));
    let spread: std::collections::BTreeSet<_> = (0..50).map(|id| to(id, &[])).collect();
    assert_eq!(spread.len(), 4);
    // prefix_hash: the home keeps the key until it has more than 1.25 times the mean of 12/4.
    let spec = parse(r#"{"kind":"prefix_hash"}"#);
    let mut policy = build(&spec, &FACTS);
    let shared = [Extent {
        key: 5,
        tokens: 256,
    }];
    let mut fleet: Vec<_> = (0..4).map(|id| replica(id, Shown::default())).collect();
    let home = decide(
        policy.as_mut(),
        &request(0, 300, &shared),
        &fleet,
        &[],
        &mut rng,
    )
    .0;
    for (in_flight, stays) in [(1, true), (2, false)] {
        // Total 4 and 5 with one each elsewhere: thresholds 1.25 * 5/4 and 1.25 * 6/4.
        for r in &mut fleet {
            r.in_flight = if r.id.0 == home { in_flight } else { 1 };
        }
        let to = decide(
            policy.as_mut(),
            &request(1, 300, &shared),
            &fleet,
            &[],
            &mut rng,
        )
        .0;
        assert_eq!(to == home, stays, "with {in_flight} in flight at home");
    }
}

#[test]
fn new_conversations_spread_over_an_idle_fleet_and_move_when_their_replica_goes() {
    let mut policy = build(&parse(r#"{"kind":"session"}"#), &FACTS);
    let mut rng = Rng::from_seed(1);
    let idle: Vec<_> = (0..4).map(|id| replica(id, Shown::default())).collect();
    let mut to = |id, fleet: &[ReplicaView]| {
        decide(policy.as_mut(), &request(id, 1, &[]), fleet, &[], &mut rng).0
    };
    let homes: Vec<_> = (0..8).map(|id| to(id, &idle)).collect();
    assert_eq!(homes, [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(to(2, &idle), 2, "it stays");
    let without_2: Vec<_> = idle.iter().filter(|r| r.id.0 != 2).copied().collect();
    let moved = to(2, &without_2);
    assert_ne!(moved, 2);
    assert_eq!(to(2, &idle), moved, "and stays where it went");
}

#[test]
fn round_robin_goes_on_where_a_replica_left() {
    let mut policy = build(&RoutingSpec::RoundRobin, &FACTS);
    let mut rng = Rng::from_seed(1);
    let all: Vec<_> = (0..4).map(|id| replica(id, Shown::default())).collect();
    let mut to = |fleet: &[ReplicaView]| {
        decide(policy.as_mut(), &request(0, 1, &[]), fleet, &[], &mut rng).0
    };
    assert_eq!((to(&all), to(&all)), (0, 1));
    let without_1: Vec<_> = all.iter().filter(|r| r.id.0 != 1).copied().collect();
    assert_eq!((to(&without_1), to(&without_1), to(&without_1)), (2, 3, 0));
}

#[test]
fn no_hit_lru_gives_cold_requests_to_whoever_had_one_longest_ago() {
    let spec = weighted(
        &[
            (ScorerKind::NoHitLru, 1.0),
            (ScorerKind::PrecisePrefixCache, 0.1),
        ],
        Vec::new(),
    );
    let mut policy = build(&spec, &FACTS);
    let mut rng = Rng::from_seed(1);
    let idle: Vec<_> = (0..3).map(|id| replica(id, Shown::default())).collect();
    let mut to = |id, cached: &[u32]| {
        decide(
            policy.as_mut(),
            &request(id, 64, &[]),
            &idle,
            cached,
            &mut rng,
        )
    };
    assert_eq!(
        to(0, &[0, 0, 0]),
        (0, vec![1.0, 1.0, 1.0]),
        "all never had one"
    );
    assert_eq!(to(1, &[0, 0, 0]).0, 1);
    assert_eq!(
        to(2, &[0, 0, 64]).0,
        2,
        "warm: the cache decides, and the order stays"
    );
    assert_eq!(to(3, &[0, 0, 0]), (2, vec![0.5, 0.0, 1.0]));
    assert_eq!(to(4, &[0, 0, 0]), (0, vec![1.0, 0.5, 0.0]));
}

#[test]
fn presets_are_what_systems_ship() {
    let millis = |n| Some(Span(SimDuration::from_millis(n)));
    let (spec, period) = expand(&RoutingSpec::SglangGateway);
    let shipped = parse(
        r#"{"kind":"cache_aware","cache_threshold":0.3,"balance_abs_threshold":64,
            "balance_rel_threshold":1.5,"max_tree_tokens":67108864,
            "max_tree_nodes":4294967295}"#,
    );
    assert_eq!((spec, period), (shipped, None));
    let (spec, period) = expand(&RoutingSpec::Gie);
    let shipped = parse(
        r#"{"kind":"weighted","scorers":{"queue_depth":2,"kv_utilization":2,"prefix_cache":3},
            "picker":"max_score_random_tie",
            "prefix_index":{"block_tokens":16,"max_blocks":256,"capacity_blocks":31250}}"#,
    );
    assert_eq!((spec, period), (shipped, millis(50)));
    let (spec, period) = expand(&RoutingSpec::LlmD);
    let shipped = parse(
        r#"{"kind":"weighted","picker":"max_score_random_tie",
            "scorers":{"load_aware":2,"kv_utilization":2,"precise_prefix_cache":3}}"#,
    );
    assert_eq!((spec, period), (shipped, millis(50)));
    let (spec, period) = expand(&RoutingSpec::Dynamo);
    let shipped = parse(r#"{"kind":"kv_router","use_kv_events":true,"overlap_score_credit":1}"#);
    assert_eq!((spec, period), (shipped, None));
    assert_eq!(
        expand(&RoutingSpec::VllmDp),
        (least(LoadSignal::VllmDp), millis(100))
    );
    let plain = least(LoadSignal::Waiting);
    assert_eq!(
        expand(&plain),
        (plain.clone(), None),
        "what is no preset stays"
    );
}

#[test]
fn signals_are_declared_exactly() {
    let reads = |spec: &RoutingSpec| {
        let signals = build(spec, &FACTS).signals();
        (signals.stats, signals.cache)
    };
    let one = |kind| weighted(&[(kind, 1.0)], Vec::new());
    for (spec, expected) in [
        (RoutingSpec::RoundRobin, (false, false)),
        (least(LoadSignal::InFlight), (false, false)),
        (least(LoadSignal::Waiting), (true, false)),
        (RoutingSpec::SglangGateway, (false, false)),
        (RoutingSpec::Dynamo, (false, true)),
        (
            parse(r#"{"kind":"kv_router","use_kv_events":false}"#),
            (false, false),
        ),
        (RoutingSpec::Gie, (true, false)),
        (RoutingSpec::LlmD, (true, true)),
        (RoutingSpec::VllmDp, (true, false)),
        (one(ScorerKind::ActiveRequest), (false, false)),
        (one(ScorerKind::PrecisePrefixCache), (false, true)),
        (one(ScorerKind::Running), (true, false)),
        (
            weighted(
                &[
                    (ScorerKind::QueueDepth, 0.0),
                    (ScorerKind::ActiveRequest, 1.0),
                ],
                Vec::new(),
            ),
            (false, false),
        ),
    ] {
        assert_eq!(reads(&spec), expected, "{spec:?}");
    }
}
