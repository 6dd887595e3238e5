//! The gateway and its policies.

use super::Rules;
use crate::diagnostic::Code;
use crate::schema::gateway::QueueOrder;
use crate::schema::policies::{
    AdmissionSpec, FilterSpec, PrefixIndexSpec, RoutingSpec, ScorerKind,
};
use crate::tree::Path;
use std::collections::BTreeMap;

pub(super) fn admission(rules: &mut Rules<'_>) {
    let path = Path::of("gateway.admission");
    match &rules.scenario.gateway.admission {
        AdmissionSpec::Open => {}
        AdmissionSpec::ConcurrencyLimit { limit } => {
            rules.at_least_one(&path.key("limit"), (*limit).into());
        }
        AdmissionSpec::ShedByPriority { limits } => {
            let path = path.key("limits");
            rules.require(&path, !limits.is_empty(), "hold a limit");
            if limits.contains(&0) {
                rules.require(&path, false, "hold limits of 1 or more");
            }
            if limits.windows(2).any(|w| w[0] < w[1]) {
                let message = "a less urgent class would get in where a more urgent one does not";
                rules.error(Code::Contradiction, &path, message);
            }
        }
        AdmissionSpec::TokenBucket { rate, burst } => {
            rules.positive(&path.key("rate"), rate.0);
            rules.at_least_one(&path.key("burst"), (*burst).into());
        }
    }
}

pub(super) fn outliers(rules: &mut Rules<'_>) {
    let Some(spec) = &rules.scenario.gateway.outlier_detection else {
        return;
    };
    let path = Path::of("gateway.outlier_detection");
    rules.at_least_one(&path.key("consecutive_5xx"), spec.consecutive_5xx.into());
    let base = spec.base_ejection_time.0.as_secs_f64();
    rules.positive(&path.key("base_ejection_time"), base);
    let percent = spec.max_ejection_percent;
    let holds = (0.0..=100.0).contains(&percent);
    let path = path.key("max_ejection_percent");
    rules.require(&path, holds, "lie between 0 and 100");
}

pub(super) fn routing(rules: &mut Rules<'_>) {
    let path = Path::of("gateway.routing");
    let key = |name: &str| path.key(name);
    match &rules.scenario.gateway.routing {
        RoutingSpec::PowerOfTwo { choices, .. } => {
            let holds = (1..=1_000).contains(choices);
            rules.require(&key("choices"), holds, "lie between 1 and 1000");
        }
        RoutingSpec::ConsistentHashing {
            virtual_nodes,
            epsilon,
            ..
        } => {
            let holds = (1..=100_000).contains(virtual_nodes);
            rules.require(&key("virtual_nodes"), holds, "lie between 1 and 100000");
            if let Some(epsilon) = epsilon {
                rules.positive(&key("epsilon"), *epsilon);
            }
        }
        RoutingSpec::PrefixHash {
            prefix_tokens,
            load_factor,
        } => {
            rules.at_least_one(&key("prefix_tokens"), (*prefix_tokens).into());
            rules.require(&key("load_factor"), *load_factor >= 1.0, "be 1 or more");
        }
        RoutingSpec::Affinity {
            columns,
            ttl,
            max_entries,
            epsilon,
            ..
        } => {
            rules.at_least_one(&key("columns"), (*columns).into());
            rules.positive(&key("ttl"), ttl.0.as_secs_f64());
            rules.at_least_one(&key("max_entries"), *max_entries);
            if let Some(epsilon) = epsilon {
                rules.positive(&key("epsilon"), *epsilon);
            }
        }
        RoutingSpec::CacheAware {
            cache_threshold,
            balance_rel_threshold,
            max_tree_tokens,
            max_tree_nodes,
            ..
        } => {
            rules.share(&key("cache_threshold"), *cache_threshold);
            let holds = *balance_rel_threshold >= 1.0;
            rules.require(&key("balance_rel_threshold"), holds, "be 1 or more");
            rules.at_least_one(&key("max_tree_tokens"), *max_tree_tokens);
            rules.at_least_one(&key("max_tree_nodes"), (*max_tree_nodes).into());
        }
        RoutingSpec::KvRouter {
            overlap_score_credit,
            prefill_load_scale,
            decode_active_request_weight,
            temperature,
            ..
        } => {
            for (name, value) in [
                ("overlap_score_credit", overlap_score_credit),
                ("prefill_load_scale", prefill_load_scale),
                ("decode_active_request_weight", decode_active_request_weight),
                ("temperature", temperature),
            ] {
                rules.not_negative(&key(name), *value);
            }
        }
        RoutingSpec::Weighted {
            filters,
            scorers,
            prefix_index,
            ..
        } => weighted(rules, &path, filters, scorers, prefix_index),
        _ => {}
    }
    cache_is_there(rules, &path);
}

fn weighted(
    rules: &mut Rules<'_>,
    path: &Path,
    filters: &[FilterSpec],
    scorers: &BTreeMap<ScorerKind, f64>,
    index: &PrefixIndexSpec,
) {
    for (i, filter) in filters.iter().enumerate() {
        if let FilterSpec::MaxKvUtilization { limit } = filter {
            let mut path = path.key("filters");
            path.push_index(i);
            rules.share(&path.key("limit"), *limit);
        }
    }
    let path_of_scorers = path.key("scorers");
    for (kind, weight) in scorers {
        // Kinds print as the words of the file.
        let name = serde_json::to_value(kind).unwrap_or_default();
        let name = name.as_str().unwrap_or_default();
        rules.not_negative(&path_of_scorers.key(name), *weight);
    }
    if !scorers.values().any(|w| *w > 0.0) {
        let message = "`weighted` needs a scorer with a weight above zero";
        let finding = rules.error(Code::Incomplete, &path_of_scorers, message);
        finding.notes = vec!["example: scorers = { queue_depth = 2.0, prefix_cache = 3.0 }".into()];
    }
    let path = path.key("prefix_index");
    for (name, value) in [
        ("block_tokens", index.block_tokens.into()),
        ("max_blocks", index.max_blocks.into()),
        ("capacity_blocks", index.capacity_blocks),
    ] {
        rules.at_least_one(&path.key(name), value);
    }
}

/// Following caches that keep nothing is a mistake more often than a control experiment.
fn cache_is_there(rules: &mut Rules<'_>, path: &Path) {
    let follows_caches = match &rules.scenario.gateway.routing {
        RoutingSpec::CacheAware { .. }
        | RoutingSpec::KvRouter { .. }
        | RoutingSpec::SglangGateway
        | RoutingSpec::Dynamo => true,
        RoutingSpec::Weighted { scorers, .. } => {
            [ScorerKind::PrefixCache, ScorerKind::PrecisePrefixCache]
                .iter()
                .any(|s| scorers.contains_key(s))
        }
        _ => false,
    };
    let fleet = &rules.scenario.fleet;
    let mut engines = std::iter::once(&fleet.engine).chain(fleet.pools.iter().map(|p| &p.engine));
    let any_cache = engines.any(|engine| engine.llm().is_some_and(|spec| spec.kv.prefix_cache));
    if follows_caches && !any_cache {
        let message = "this routing policy follows prefix caches, but no replica keeps one";
        rules.warn(Code::Pointless, &path.key("kind"), message);
    }
}

pub(super) fn queue(rules: &mut Rules<'_>) {
    let queue = rules.scenario.gateway.queue.clone();
    let path = Path::of("gateway.queue");
    match queue.max_in_flight {
        Some(n) => rules.at_least_one(&path.key("max_in_flight"), n.into()),
        None => {
            let message = "without `max_in_flight` nobody ever waits at the gateway";
            if queue.limit.is_some() {
                rules.warn(Code::Pointless, &path.key("limit"), message);
            }
            if queue.order != QueueOrder::Fcfs {
                rules.warn(Code::Pointless, &path.key("order"), message);
            }
        }
    }
}
