//! Prefix caches and routers over a public trace: V-P4 to V-P7.

use super::naive;
use super::trace::{BLOCK, Trace, mooncake};
use super::{CaseError, Check, Point};
use windtunnel_engine::config::EvictionKind;
use windtunnel_engine::kv::KvLayout;
use windtunnel_engine::kv::replay::Replay;
use windtunnel_scenarios::schema::policies::{LoadSignal, RoutingSpec, TieBreak};
use windtunnel_sim::gateway::replay::{ReplayFleet, replay};
/// Which of the catalogue's traces a file is, by its name.
fn known_trace(point: &Point<'_>) -> Option<&'static str> {
    let file = point.text("trace");
    let named = |name: &&str| file.contains(&format!("{name}_trace"));
    ["conversation", "synthetic"].into_iter().find(named)
}

/// The specification's hit table: trace, capacity, share of blocks.
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

/// The same by tokens, for an endless cache.
const ONE_CACHE_TOKENS: &[(&str, f64)] = &[("conversation", 0.3736), ("synthetic", 0.6512)];

/// Shares of blocks and of tokens that one LRU cache finds.
fn found(trace: &Trace, blocks: Option<u64>) -> (f64, f64) {
    let mut cache = Replay::new(&KvLayout {
        total_blocks: blocks.unwrap_or(u64::MAX >> 16),
        block_size: BLOCK,
        prefix_cache: true,
        eviction: EvictionKind::Lru,
    });
    let (mut tokens, mut all) = (0, 0);
    trace.each_in_whole_blocks(|chain, prompt| {
        tokens += (cache.request(chain) * u64::from(BLOCK)).min(prompt.into());
        all += u64::from(prompt);
    });
    (cache.hit_ratio(), tokens as f64 / all.max(1) as f64)
}

pub(super) fn one_cache(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let blocks = match point.text("blocks") {
        "inf" => None,
        _ => Some(point.count("blocks", 1..=1 << 40)?),
    };
    let trace = mooncake(point)?;
    let (share, of_tokens) = found(&trace, blocks);
    let limit = blocks.map_or(usize::MAX, |b| b as usize);
    let plain = naive::lru(&trace.block_ids(), limit);
    let mut checks = vec![Check::within(
        "share of blocks found, against a plain list",
        plain,
        share,
        1e-12,
    )];
    let text = point.text("blocks");
    let known = known_trace(point);
    if let Some(&(_, _, table)) = ONE_CACHE.iter().find(|k| known == Some(k.0) && k.1 == text) {
        checks.push(Check::digits("share of blocks found", table, share, 4));
    }
    let of_table = ONE_CACHE_TOKENS
        .iter()
        .find(|k| known == Some(k.0) && blocks.is_none());
    if let Some(&(_, table)) = of_table {
        checks.push(Check::digits("share of tokens found", table, of_tokens, 4));
    }
    Ok(checks)
}

/// The specification's tables with 5,859 blocks per node: trace, nodes, policy, share.
const ROUTED: &[(&str, u64, &str, f64)] = &[
    ("conversation", 8, "round_robin", 0.1133),
    ("conversation", 8, "least_tokens", 0.1111),
    ("conversation", 8, "hash", 0.3544),
    ("conversation", 8, "longest_match", 0.3537),
    ("conversation", 16, "round_robin", 0.0936),
    ("conversation", 16, "least_tokens", 0.0874),
    ("conversation", 16, "hash", 0.3633),
    ("conversation", 16, "longest_match", 0.3631),
    ("synthetic", 8, "round_robin", 0.1943),
    ("synthetic", 8, "least_tokens", 0.2134),
    ("synthetic", 8, "hash", 0.6395),
    ("synthetic", 8, "longest_match", 0.6394),
    ("synthetic", 16, "round_robin", 0.1349),
    ("synthetic", 16, "least_tokens", 0.1277),
    ("synthetic", 16, "hash", 0.6395),
    ("synthetic", 16, "longest_match", 0.6394),
];

/// Most tokens matched, if at least so many; ties and misses go to the node that was sent the fewest
/// prompt tokens. The index is as large as a node's cache.
fn longest_match(at_least: u32, blocks: u64) -> RoutingSpec {
    RoutingSpec::CacheAware {
        cache_threshold: 0.0,
        balance_abs_threshold: u32::MAX,
        balance_rel_threshold: 1.0,
        max_tree_tokens: blocks.saturating_mul(u64::from(BLOCK)),
        max_tree_nodes: u32::MAX,
        min_match_tokens: at_least,
        load: LoadSignal::TotalTokens,
    }
}

/// A hash of the first so many blocks. Nothing is in flight in a replay, so its load bound is idle.
fn hash_of(blocks: u32) -> RoutingSpec {
    RoutingSpec::PrefixHash {
        prefix_tokens: blocks * BLOCK,
        load_factor: 1.25,
    }
}

fn fleet(point: &Point<'_>) -> Result<ReplayFleet, CaseError> {
    Ok(ReplayFleet {
        nodes: point.count("nodes", 1..=4096)? as u32,
        block_tokens: BLOCK,
        capacity_blocks: point.count("blocks", 1..=1 << 40)?,
    })
}

pub(super) fn routed(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let fleet = fleet(point)?;
    let at_least = point.count("at_least", 0..=1 << 30)? as u32;
    let name = point.text("policy");
    let policy = match name {
        "round_robin" => RoutingSpec::RoundRobin,
        "least_tokens" => RoutingSpec::LeastLoaded {
            load: LoadSignal::TotalTokens,
            ties: TieBreak::LowestId,
        },
        "hash" => hash_of(2),
        "longest_match" => longest_match(at_least, fleet.capacity_blocks),
        _ => {
            return Err(point.refuse(
                "policy",
                "known: round_robin, least_tokens, hash, longest_match",
            ));
        }
    };
    let trace = mooncake(point)?;
    let outcome = replay(&policy, fleet, point.seed, trace.requests());
    let share = outcome.hit_rate();
    // No policy can find more than one endless cache does.
    let mut checks = vec![Check::at_most(
        "share found, at most that of one endless cache",
        found(&trace, None).0,
        share,
    )];
    let trace_name = known_trace(point).filter(|_| fleet.capacity_blocks == 5_859);
    let nodes = u64::from(fleet.nodes);
    let known = ROUTED
        .iter()
        .find(|k| trace_name == Some(k.0) && (k.1, k.2) == (nodes, name));
    let Some(&(trace_name, _, _, table)) = known else {
        return Ok(checks);
    };
    if name == "hash" {
        checks.push(Check::within(
            "share found (depends on the hash function)",
            table,
            share,
            0.01,
        ));
        if trace_name == "conversation" {
            // The catalogue saw 1.15 to 1.57 under several hash functions.
            checks.push(Check::within(
                "busiest node over mean, tokens",
                1.36,
                outcome.imbalance(),
                0.21,
            ));
        }
        return Ok(checks);
    }
    checks.push(Check::digits("share found", table, share, 4));
    if (trace_name, name, nodes) == ("conversation", "longest_match", 8) {
        checks.push(Check::digits(
            "busiest node over mean, tokens",
            1.002,
            outcome.imbalance(),
            3,
        ));
    }
    Ok(checks)
}

pub(super) fn collapse(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let fleet = fleet(point)?;
    let policy = match point.text("policy") {
        "longest_match" => longest_match(0, fleet.capacity_blocks),
        "hash" => hash_of(1),
        _ => return Err(point.refuse("policy", "known: longest_match, hash")),
    };
    let trace = mooncake(point)?;
    if !trace.shares_first_block() {
        return Err(point.refuse("trace", "its prompts do not all begin with the same block"));
    }
    let outcome = replay(&policy, fleet, point.seed, trace.requests());
    let (one, _) = found(&trace, Some(fleet.capacity_blocks));
    let mut checks = vec![
        Check::within(
            "busiest node over mean, tokens",
            fleet.nodes.into(),
            outcome.imbalance(),
            1e-9,
        ),
        Check::within(
            "share found, as on one node",
            one,
            outcome.hit_rate(),
            1e-12,
        ),
    ];
    if known_trace(point) == Some("conversation") && fleet.capacity_blocks == 5_859 {
        checks.push(Check::digits("share found", 0.1361, outcome.hit_rate(), 4));
    }
    Ok(checks)
}
