//! Prefix-aware routing and prefix caches, V-P1 to V-P8: the gateway's routing policies and the
//! replicas' caches, on made-up traffic with closed forms and on a public trace.

use super::prefix_traces;
use super::{Case, CaseError, Check, Param, Point, Sampled, Setting};
use rayon::prelude::*;
use windtunnel_base::content::{Extent, stream_key};
use windtunnel_base::quantity::Span;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::time::SimDuration;
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_sim::gateway::replay::{ReplayFleet, ReplayOutcome, ReplayRequest, replay};

const NODES: Param = Param {
    name: "nodes",
    default: "8",
    doc: "replicas",
};
const BLOCKS_PER_NODE: Param = Param {
    name: "blocks",
    default: "5859",
    doc: "capacity of each node, blocks",
};
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
        params: &[
            NODES,
            Param {
                name: "requests",
                default: "10",
                doc: "requests per prefix, m",
            },
        ],
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
        points: &[&[("nodes", "8")]],
        run: second_request,
    },
    Case {
        id: "V-P3",
        title: "conversations of T equal turns, by tokens: hit ratio of affinity and of random routing",
        source: "(T - 1) / (T + 1), and the sum over the distance of the last visit",
        params: &[
            NODES,
            Param {
                name: "turns",
                default: "5",
                doc: "turns of a conversation, T",
            },
        ],
        points: &[&[("turns", "4")], &[("turns", "5")], &[("turns", "10")]],
        run: conversations,
    },
    Case {
        id: "V-P4",
        title: "one LRU prefix cache on the Mooncake conversation trace: share of block references found",
        source: "replay of the specification, blocks of 512 tokens",
        params: &[
            TRACE,
            Param {
                name: "blocks",
                default: "inf",
                doc: "capacity in blocks, or inf",
            },
        ],
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
        run: prefix_traces::one_cache,
    },
    Case {
        id: "V-P5",
        title: "the same on the Mooncake synthetic trace",
        source: "replay of the specification",
        params: &[
            Param {
                name: "trace",
                default: "mooncake/synthetic_trace.jsonl.gz",
                doc: "a trace in Mooncake's format",
            },
            Param {
                name: "blocks",
                default: "inf",
                doc: "capacity in blocks, or inf",
            },
        ],
        points: &[
            &[("blocks", "inf")],
            &[("blocks", "30000")],
            &[("blocks", "10000")],
            &[("blocks", "5859")],
            &[("blocks", "3000")],
            &[("blocks", "1000")],
        ],
        run: prefix_traces::one_cache,
    },
    Case {
        id: "V-P6",
        title: "routing policies over N caches on the Mooncake conversation trace: share of blocks found",
        source: "replay of the specification, 5,859 blocks of 512 tokens per node",
        params: &[
            TRACE,
            NODES,
            BLOCKS_PER_NODE,
            Param {
                name: "policy",
                default: "round_robin",
                doc: "round_robin, least_tokens, hash or longest_match",
            },
            Param {
                name: "at_least",
                default: "513",
                doc: "tokens that must match for longest_match to follow them",
            },
        ],
        points: ROUTED_POINTS,
        run: prefix_traces::routed,
    },
    Case {
        id: "V-P7",
        title: "every request shares its first block: affinity without a minimum match collapses to one node",
        source: "imbalance N and the hit ratio of one node",
        params: &[
            TRACE,
            NODES,
            BLOCKS_PER_NODE,
            Param {
                name: "policy",
                default: "longest_match",
                doc: "longest_match, or hash (of one block)",
            },
        ],
        points: &[
            &[("nodes", "8"), ("policy", "longest_match")],
            &[("nodes", "16"), ("policy", "longest_match")],
            &[("nodes", "8"), ("policy", "hash")],
            &[("nodes", "16"), ("policy", "hash")],
        ],
        run: prefix_traces::collapse,
    },
    Case {
        id: "V-P8",
        title: "KV spread over unequal shards: tokens that fit, equal split against proportional",
        source: "mean over largest of the memory per token; .7143 is 59.5 over 83.4 percent of ideal",
        params: &[Param {
            name: "shards",
            default: "1,1,2",
            doc: "KV bytes per token of each shard, relative, comma separated",
        }],
        points: &[
            &[("shards", "1,1,1,1")],
            &[("shards", "1,1,2")],
            &[("shards", "1,2,3,4")],
            &[("shards", "5,5,5,5,7,3")],
        ],
        run: super::batching::unequal_shards,
    },
];

const ROUTED_POINTS: &[Setting] = &[
    &[("nodes", "8"), ("policy", "round_robin")],
    &[("nodes", "8"), ("policy", "least_tokens")],
    &[("nodes", "8"), ("policy", "hash")],
    &[("nodes", "8"), ("policy", "longest_match")],
    &[("nodes", "16"), ("policy", "round_robin")],
    &[("nodes", "16"), ("policy", "least_tokens")],
    &[("nodes", "16"), ("policy", "hash")],
    &[("nodes", "16"), ("policy", "longest_match")],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "8"),
        ("policy", "round_robin"),
    ],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "8"),
        ("policy", "least_tokens"),
    ],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "8"),
        ("policy", "hash"),
    ],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "8"),
        ("policy", "longest_match"),
    ],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "16"),
        ("policy", "round_robin"),
    ],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "16"),
        ("policy", "least_tokens"),
    ],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "16"),
        ("policy", "hash"),
    ],
    &[
        ("trace", "mooncake/synthetic_trace.jsonl.gz"),
        ("nodes", "16"),
        ("policy", "longest_match"),
    ],
];

/// A list of requests by value, so that made-up traffic can be replayed like a trace.
struct Made {
    prefix: Vec<Extent>,
    tokens: u32,
    session: u64,
}

fn replay_made(spec: &RoutingSpec, nodes: u64, seed: u64, requests: &[Made]) -> ReplayOutcome {
    let fleet = ReplayFleet {
        nodes: nodes as u32,
        block_tokens: 1,
        capacity_blocks: u64::MAX >> 8,
    };
    replay(
        spec,
        fleet,
        seed,
        requests.iter().map(|r| ReplayRequest {
            prefix: &r.prefix,
            prompt_tokens: r.tokens,
            session: r.session,
        }),
    )
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.below(i as u64 + 1) as usize);
    }
}

/// `groups` prefixes of one block, each asked for `each` times, in random order.
fn shared(groups: u64, each: u64, seed: u64) -> Vec<Made> {
    let of_group = |g: u64| {
        (0..each).map(move |_| Made {
            prefix: vec![Extent {
                key: stream_key(2, g),
                tokens: 1,
            }],
            tokens: 1,
            session: g,
        })
    };
    let mut all: Vec<Made> = (0..groups).flat_map(of_group).collect();
    shuffle(&mut all, &mut Streams::new(seed).stream("order", 0));
    all
}

const REPLICATIONS: u64 = 8;

fn repeated(point: &Point<'_>, one: impl Fn(u64) -> f64 + Sync) -> Sampled {
    let seeds = point.seed..point.seed + REPLICATIONS;
    Sampled::of(&seeds.into_par_iter().map(&one).collect::<Vec<_>>())
}

/// Every conversation stays on its node.
const AFFINITY: RoutingSpec = RoutingSpec::Session {
    idle: Span(SimDuration::MAX),
};

fn shared_prefixes(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let (nodes, each) = (
        point.count("nodes", 1..=4096)?,
        point.count("requests", 1..=10_000)?,
    );
    // A hit share of so many requests deviates by less than a third of a percent.
    let groups = point.length((100_000.0 / each as f64).max(20.0));
    let hit = |spec: &RoutingSpec| {
        repeated(point, |seed| {
            replay_made(spec, nodes, seed, &shared(groups, each, seed)).hit_rate()
        })
    };
    let (n, m) = (nodes as f64, each as f64);
    let random = 1.0 - n * (1.0 - (1.0 - 1.0 / n).powi(each as i32)) / m;
    Ok(vec![
        Check::sampled_within("random routing", random, &hit(&RoutingSpec::Random), 0.01),
        Check::within("affinity", 1.0 - 1.0 / m, hit(&AFFINITY).mean, 1e-9),
    ])
}

fn second_request(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let nodes = point.count("nodes", 1..=4096)?;
    let groups = point.length(20_000.0);
    // The first of two requests always misses: all hits are the second's, over half the blocks.
    let miss = repeated(point, |seed| {
        1.0 - 2.0
            * replay_made(&RoutingSpec::Random, nodes, seed, &shared(groups, 2, seed)).hit_rate()
    });
    let expected = 1.0 - 1.0 / nodes as f64;
    Ok(vec![Check::sampled_within(
        "share of second requests that miss",
        expected,
        &miss,
        0.01,
    )])
}

fn conversations(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let (nodes, turns) = (
        point.count("nodes", 1..=4096)?,
        point.count("turns", 1..=1_000)?,
    );
    let sessions = point.length((40_000.0 / turns as f64).max(20.0));
    let turn = |s: u64, t: u64| Made {
        prefix: vec![Extent {
            key: stream_key(3, s),
            tokens: t as u32,
        }],
        tokens: t as u32,
        session: s,
    };
    let requests: Vec<Made> = (1..=turns)
        .flat_map(|t| (0..sessions).map(move |s| turn(s, t)))
        .collect();
    let hit = |spec: &RoutingSpec| {
        repeated(point, |seed| {
            replay_made(spec, nodes, seed, &requests).hit_rate()
        })
    };
    let (n, t) = (nodes as f64, turns as f64);
    // In turn `now` the last visit to the same node was `back` turns ago.
    let mut found = 0.0;
    for now in 1..=turns {
        for back in 1..now {
            found += (1.0 / n) * (1.0 - 1.0 / n).powi(back as i32 - 1) * (now - back) as f64;
        }
    }
    let random = found / (t * (t + 1.0) / 2.0);
    Ok(vec![
        Check::within("affinity", (t - 1.0) / (t + 1.0), hit(&AFFINITY).mean, 1e-9),
        Check::sampled_within("random routing", random, &hit(&RoutingSpec::Random), 0.005),
    ])
}
