//! The cache of prompts that replicas share.

use super::Rules;
use super::fleet::all_engines;
use crate::diagnostic::Code;
use crate::tree::Path;
use windtunnel_engine::config::{ContinuousSpec, EngineSpec};

pub(super) fn shared_cache(rules: &mut Rules<'_>) {
    let Some(cache) = rules.scenario.fleet.shared_cache.clone() else {
        return;
    };
    let path = Path::of("fleet.shared_cache");
    rules.positive(&path.key("bandwidth"), cache.bandwidth.0);
    let engines = all_engines(rules);
    let mut first: Option<&ContinuousSpec> = None;
    for (at, engine) in engines {
        let problem = match engine {
            EngineSpec::Continuous(spec) => {
                let others = first.replace(spec);
                let differ = others.is_some_and(|other| !same_blocks(spec, other));
                differ.then_some("keeps other keys and values than the pools before it; give all the same model, `kv.block_size` and `kv.bytes_per_element`")
            }
            EngineSpec::Reference(_) => {
                Some("computes its prompts for real and cannot read them back")
            }
            EngineSpec::Station(_) => Some("has no prompts"),
        };
        if let Some(problem) = problem {
            let message = format!("a shared cache is for all replicas, and `{at}` {problem}");
            rules.error(Code::Contradiction, &path, message).label =
                "leave the shared cache out".to_owned();
            return;
        }
    }
    if let Some(spec) = first {
        let least = u64::from(spec.kv.block_size);
        let must = format!("hold a block of {least} tokens at least");
        rules.require(&path.key("capacity"), cache.capacity >= least, &must);
    }
}

/// Whether replicas of both kinds could use each other's blocks.
fn same_blocks(a: &ContinuousSpec, b: &ContinuousSpec) -> bool {
    let model = |s: &ContinuousSpec| match &s.custom_model {
        Some(own) => (None, Some(*own)),
        None => (Some(s.model.clone()), None),
    };
    model(a) == model(b)
        && a.kv.block_size == b.kv.block_size
        && a.kv.bytes_per_element == b.kv.bytes_per_element
}
