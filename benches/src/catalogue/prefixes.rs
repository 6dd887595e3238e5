//! Prefix-aware routing and prefix caches, V-P1 to V-P8: the gateway's routing policies and the
//! replicas' caches, on made-up traffic with closed forms and on a public trace.

use super::trace::{Trace, mooncake};
use super::{Case, CaseError, Check, Param, Point, Sampled};
use windtunnel_base::content::{Extent, stream_key};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_engine::config::EvictionKind;
use windtunnel_engine::kv::replay::{Capacity, hits};
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_sim::gateway::replay::{ReplayFleet, ReplayOutcome, ReplayRequest, replay};

const NODES: Param = Param { name: "nodes", default: "8", doc: "replicas" };
const TRACE: Param = Param {
    name: "trace",
    default: "mooncake/conversation_trace.jsonl.gz",
    doc: "a trace in Mooncake's format, in the traces folder",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-P1",
        title: "m requests per prefix, nothing evicted: hit ratio of random routing and of affinity",
        source: "1 - N (1 - (1 - 1/N)^m) / m, and 1 - 1/m",
        params: &[NODES, Param { name: "requests", default: "10", doc: "requests per prefix, m" }],
        points: &[
            &[("nodes", "8"), ("requests", "5")],
            &[("nodes", "8"), ("requests", "10")],
            &[("nodes", "8"), ("requests", "25")],
            &[("nodes", "16"), ("requests", "10")],
        ],
        run: shared_prefixes,
    },
    Case {
        id: "V-P2",
        title: "second request of a prefix under random routing: share of misses",
        source: "1 - 1/N",
        params: &[NODES],
        points: &[&[("nodes", "8")], &[("nodes", "3")]],
        run: second_request,
    },
    Case {
        id: "V-P3",
        title: "conversations of T equal turns, by tokens: hit ratio of affinity and of random routing",
        source: "(T - 1) / (T + 1), and the sum over the distance of the last visit",
        params: &[NODES, Param { name: "turns", default: "5", doc: "turns of a conversation, T" }],
        points: &[&[("turns", "4")], &[("turns", "5")], &[("turns", "10")]],
        run: conversations,
    },
    Case {
        id: "V-P4",
        title: "one LRU prefix cache on the Mooncake conversation trace: share of block references found",
        source: "replay of the specification, blocks of 512 tokens",
        params: &[TRACE, Param { name: "blocks", default: "inf", doc: "capacity in blocks, or inf" }],
        points: &[
            &[("blocks", "inf")],
            &[("blocks", "97656")],
            &[("blocks", "50000")],
            &[("blocks", "30000")],
            &[("blocks", "10000")],
            &[("blocks", "5859")],
            &[("blocks", "3000")],
            &[("blocks", "1000")],
        ],
        run: one_cache,
    },
    Case {
        id: "V-P5",
        title: "the same on the Mooncake synthetic trace",
        source: "replay of the specification",
        params: &[
            Param { name: "trace", default: "mooncake/synthetic_trace.jsonl.gz", doc: "a trace in Mooncake's format" },
            Param { name: "blocks", default: "inf", doc: "capacity in blocks, or inf" },
        ],
        points: &[
            &[("blocks", "inf")],
            &[("blocks", "30000")],
            &[("blocks", "10000")],
            &[("blocks", "5859")],
            &[("blocks", "3000")],
            &[("blocks", "1000")],
        ],
        run: one_cache,
    },
    Case {
        id: "V-P6",
        title: "routing policies over N caches on the Mooncake conversation trace: share of blocks found",
        source: "replay of the specification, 5,859 blocks of 512 tokens per node",
        params: &[
            TRACE,
            NODES,
            Param { name: "blocks", default: "5859", doc: "capacity of each node, blocks" },
            Param { name: "policy", default: "round_robin", doc: "round_robin, least_tokens, hash or longest_match" },
        ],
        points: &[
            &[("nodes", "8"), ("policy", "round_robin")],
            &[("nodes", "8"), ("policy", "least_tokens")],
            &[("nodes", "8"), ("policy", "hash")],
            &[("nodes", "8"), ("policy", "longest_match")],
            &[("nodes", "16"), ("policy", "round_robin")],
            &[("nodes", "16"), ("policy", "least_tokens")],
            &[("nodes", "16"), ("policy", "hash")],
            &[("nodes", "16"), ("policy", "longest_match")],
        ],
        run: routed,
    },
    Case {
        id: "V-P7",
        title: "every request shares its first block: affinity without a minimum match collapses to one node",
        source: "imbalance N and the hit ratio of one node",
        params: &[TRACE, NODES],
        points: &[&[("nodes", "8")], &[("nodes", "16")]],
        run: collapse,
    },
    Case {
        id: "V-P8",
        title: "KV spread over unequal shards: tokens that fit, equal split against proportional",
        source: "mean over largest of the memory per token",
        params: &[Param { name: "shards", default: "1,1,2", doc: "KV bytes per token of each shard, relative, comma separated" }],
        points: &[&[("shards", "1,1,1,1")], &[("shards", "1,1,2")], &[("shards", "1,2,3,4")]],
        run: super::batching::unequal_shards,
    },
];

/// A list of requests by value, so that made-up traffic can be replayed like a trace.
struct Made {
    prefix: Vec<Extent>,
    tokens: u32,
    session: u64,
}

fn replay_made(spec: &RoutingSpec, nodes: u64, seed: u64, requests: &[Made]) -> ReplayOutcome {
    let fleet = ReplayFleet { nodes: nodes as u32, block_tokens: 1, capacity_blocks: u64::MAX >> 8 };
    replay(spec, fleet, seed, requests.iter().map(|r| ReplayRequest { prefix: &r.prefix, prompt_tokens: r.tokens, session: r.session }))
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.below(i as u64 + 1) as usize);
    }
}

/// `groups` prefixes of one block, each asked for `each` times, in random order.
fn shared(groups: u64, each: u64, seed: u64) -> Vec<Made> {
    let of_group = |g: u64| (0..each).map(move |_| Made { prefix: vec![Extent { key: stream_key(2, g), tokens: 1 }], tokens: 1, session: g });
    let mut all: Vec<Made> = (0..groups).flat_map(of_group).collect();
    shuffle(&mut all, &mut Streams::new(seed).stream("order", 0));
    all
}

const REPLICATIONS: u64 = 8;

fn repeated(point: &Point<'_>, one: impl Fn(u64) -> f64) -> Sampled {
    Sampled::of(&(0..REPLICATIONS).map(|i| one(point.seed + i)).collect::<Vec<_>>())
}

fn affinity() -> RoutingSpec {
    RoutingSpec::Session { idle: windtunnel_base::quantity::Span(windtunnel_base::time::SimDuration::MAX) }
}

fn shared_prefixes(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let (nodes, each) = (point.count("nodes", 1..=4096)?, point.count("requests", 1..=10_000)?);
    let groups = point.length(4_000.0);
    let hit = |spec: &RoutingSpec| repeated(point, |seed| replay_made(spec, nodes, seed, &shared(groups, each, seed)).hit_rate());
    let (n, m) = (nodes as f64, each as f64);
    let random = 1.0 - n * (1.0 - (1.0 - 1.0 / n).powi(each as i32)) / m;
    Ok(vec![
        Check::within("random routing", random, hit(&RoutingSpec::Random).mean, 0.01),
        Check::within("affinity", 1.0 - 1.0 / m, hit(&affinity()).mean, 0.01),
    ])
}

fn second_request(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let nodes = point.count("nodes", 1..=4096)?;
    let groups = point.length(20_000.0);
    // Of two requests per prefix the first always misses: half the hits of all are the second's.
    let miss = repeated(point, |seed| {
        1.0 - 2.0 * replay_made(&RoutingSpec::Random, nodes, seed, &shared(groups, 2, seed)).hit_rate()
    });
    Ok(vec![Check::within("share of second requests that miss", 1.0 - 1.0 / nodes as f64, miss.mean, 0.01)])
}

fn conversations(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let (nodes, turns) = (point.count("nodes", 1..=4096)?, point.count("turns", 1..=1_000)?);
    let sessions = point.length(4_000.0);
    let turn = |s: u64, t: u64| Made {
        prefix: vec![Extent { key: stream_key(3, s), tokens: t as u32 }],
        tokens: t as u32,
        session: s,
    };
    let requests: Vec<Made> = (1..=turns).flat_map(|t| (0..sessions).map(move |s| turn(s, t))).collect();
    let hit = |spec: &RoutingSpec| repeated(point, |seed| replay_made(spec, nodes, seed, &requests).hit_rate());
    let (n, t) = (nodes as f64, turns as f64);
    let mut found = 0.0;
    for now in 1..=turns {
        for back in 1..now {
            found += (1.0 / n) * (1.0 - 1.0 / n).powi(back as i32 - 1) * (now - back) as f64;
        }
    }
    Ok(vec![
        Check::within("affinity", (t - 1.0) / (t + 1.0), hit(&affinity()).mean, 0.005),
        Check::within("random routing", found / (t * (t + 1.0) / 2.0), hit(&RoutingSpec::Random).mean, 0.005),
    ])
}

/// The specification's hit table: file name, capacity, share.
const ONE_CACHE: &[(&str, &str, f64)] = &[
    ("conversation", "inf", 0.3664),
    ("conversation", "97656", 0.3635),
    ("conversation", "50000", 0.3546),
    ("conversation", "30000", 0.3257),
    ("conversation", "10000", 0.2116),
    ("conversation", "5859", 0.1361),
    ("conversation", "3000", 0.0653),
    ("conversation", "1000", 0.0445),
    ("synthetic", "inf", 0.6396),
    ("synthetic", "30000", 0.6242),
    ("synthetic", "10000", 0.4239),
    ("synthetic", "5859", 0.3094),
    ("synthetic", "3000", 0.1906),
    ("synthetic", "1000", 0.0841),
];

fn one_cache(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let trace = mooncake(point)?;
    let blocks = point.text("blocks");
    let capacity = if blocks == "inf" { Capacity::Endless } else { Capacity::Blocks(point.count("blocks", 1..=1 << 40)?) };
    let found = hits(trace.iter(), capacity, EvictionKind::Lru);
    let measured = found.hits as f64 / found.references as f64;
    let known = ONE_CACHE.iter().find(|k| point.text("trace").contains(k.0) && k.1 == blocks);
    Ok(match known {
        Some(&(_, _, expected)) => vec![Check::digits("share of block references found", expected, measured, 4)],
        // A trace or capacity without a published value: the naive cache must agree exactly.
        None => vec![Check::exact("share found, against a naive list", naive(&trace, capacity), measured)],
    })
}

/// The plainest LRU there is: a list of chained block ids, oldest first.
fn naive(trace: &Trace, capacity: Capacity) -> f64 {
    let limit = if let Capacity::Blocks(n) = capacity { n as usize } else { usize::MAX };
    let mut used = std::collections::BTreeMap::new();
    let mut by_use = std::collections::BTreeMap::new();
    let (mut clock, mut found, mut all) = (0_u64, 0_u64, 0_u64);
    for ids in trace.block_ids() {
        all += ids.len() as u64;
        found += ids.iter().take_while(|id| used.contains_key(*id)).count() as u64;
        for id in ids.iter().rev() {
            clock += 1;
            if let Some(old) = used.insert(*id, clock) {
                by_use.remove(&old);
            }
            by_use.insert(clock, *id);
        }
        while used.len() > limit {
            if let Some((_, id)) = by_use.pop_first() {
                used.remove(&id);
            }
        }
    }
    found as f64 / all as f64
}

/// The specification's table for the conversation trace with 5,859 blocks per node.
const ROUTED: &[(u64, &str, f64)] = &[
    (8, "round_robin", 0.1133),
    (8, "least_tokens", 0.1111),
    (8, "hash", 0.3544),
    (8, "longest_match", 0.3537),
    (16, "round_robin", 0.0936),
    (16, "least_tokens", 0.0874),
    (16, "hash", 0.3633),
    (16, "longest_match", 0.3631),
];

fn policy(point: &Point<'_>, name: &str) -> Result<RoutingSpec, CaseError> {
    let text = match name {
        "round_robin" => r#"kind = "round_robin""#,
        "least_tokens" => "kind = \"least_loaded\"\nload = \"total_prompt_tokens\"",
        "hash" => "kind = \"consistent_hashing\"\nkey = { prefix_tokens = 1024 }\nvirtual_nodes = 1000\nepsilon = \"none\"",
        "longest_match" => {
            "kind = \"cache_aware\"\ncache_threshold = 0.0\nmin_match_tokens = 1024\nbalance_abs_threshold = 4294967295\nload = \"total_prompt_tokens\"\nmax_tree_tokens = 2999808"
        }
        "longest_match_without_minimum" => {
            "kind = \"cache_aware\"\ncache_threshold = 0.0\nmin_match_tokens = 1\nbalance_abs_threshold = 4294967295\nload = \"total_prompt_tokens\"\nmax_tree_tokens = 2999808"
        }
        _ => return Err(point.refuse("policy", "known: round_robin, least_tokens, hash, longest_match")),
    };
    toml::from_str(text).map_err(|e| CaseError::Run(e.to_string()))
}

fn routed(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let trace = mooncake(point)?;
    let (nodes, blocks) = (point.count("nodes", 1..=4096)?, point.count("blocks", 1..=1 << 40)?);
    let name = point.text("policy");
    let fleet = ReplayFleet { nodes: nodes as u32, block_tokens: 512, capacity_blocks: blocks };
    let outcome = replay(&policy(point, name)?, fleet, point.seed, trace.requests());
    let known = ROUTED.iter().find(|k| k.0 == nodes && k.1 == name && blocks == 5_859);
    let Some(&(_, _, expected)) = known.filter(|_| point.text("trace").contains("conversation")) else {
        let endless = hits(trace.iter(), Capacity::Endless, EvictionKind::Lru);
        let limit = endless.hits as f64 / endless.references as f64;
        return Ok(vec![Check::at_most("share found, at most that of one endless cache", limit, outcome.hit_rate())]);
    };
    if name == "hash" {
        return Ok(vec![
            Check::within("share found (depends on the hash function)", expected, outcome.hit_rate(), 0.01),
            Check::within("busiest node over mean, tokens", 1.36, outcome.imbalance(), 0.21),
        ]);
    }
    let mut checks = vec![Check::digits("share found", expected, outcome.hit_rate(), 4)];
    if name == "longest_match" && nodes == 8 {
        checks.push(Check::digits("busiest node over mean, tokens", 1.002, outcome.imbalance(), 3));
    }
    Ok(checks)
}

fn collapse(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let trace = mooncake(point)?;
    let nodes = point.count("nodes", 2..=4096)?;
    let fleet = ReplayFleet { nodes: nodes as u32, block_tokens: 512, capacity_blocks: 5_859 };
    let outcome = replay(&policy(point, "longest_match_without_minimum")?, fleet, point.seed, trace.requests());
    let one = hits(trace.iter(), Capacity::Blocks(5_859), EvictionKind::Lru);
    Ok(vec![
        Check::digits("busiest node over mean, tokens", nodes as f64, outcome.imbalance(), 1),
        Check::digits("share found, as on one node", one.hits as f64 / one.references as f64, outcome.hit_rate(), 4),
    ])
}
