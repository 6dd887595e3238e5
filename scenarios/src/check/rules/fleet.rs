//! Replicas.

use super::Rules;
use crate::check::suggest::did_you_mean;
use crate::diagnostic::Code;
use crate::tree::Path;
use windtunnel_engine::config::{
    CascadeSpec, ContinuousSpec, CostSpec, EnergySpec, EngineSpec, EvictionKind, KvSpec,
    SchedulerKind, SchedulerSpec,
};
use windtunnel_engine::hardware;
use windtunnel_engine::replica::Replica;

/// More replicas than any fleet behind one gateway has; a slip of the keyboard.
const MAX_REPLICAS: u64 = 10_000;

/// Every engine of the fleet with its path; `fleet.engine` only if it has replicas.
pub(super) fn all_engines<'a>(rules: &Rules<'a>) -> Vec<(Path, &'a EngineSpec)> {
    let fleet = &rules.scenario.fleet;
    let first = (fleet.replicas > 0 || fleet.pools.is_empty())
        .then(|| (Path::of("fleet.engine"), &fleet.engine));
    let pools = fleet
        .pools
        .iter()
        .enumerate()
        .map(|(i, pool)| (Path::of(&format!("fleet.pools.{i}.engine")), &pool.engine));
    first.into_iter().chain(pools).collect()
}

/// Whether the fleet is one of stations.
pub(super) fn is_stations(rules: &Rules<'_>) -> bool {
    all_engines(rules)
        .iter()
        .all(|(_, engine)| matches!(engine, EngineSpec::Station(_)))
}

/// Whether all of them compute times of service themselves.
pub(super) fn is_cascades(rules: &Rules<'_>) -> bool {
    all_engines(rules)
        .iter()
        .all(|(_, engine)| matches!(engine, EngineSpec::Station(s) if s.cascade.is_some()))
}

/// How long a request travels at least: to the replica and back.
pub(super) fn round_trip_ns(rules: &Rules<'_>) -> u64 {
    let network = &rules.scenario.fleet.network;
    let one_way = network.client_to_gateway.0 + network.gateway_to_replica.0;
    (one_way + one_way + rules.scenario.gateway.latency.0).as_nanos()
}

pub(super) fn sizes(rules: &mut Rules<'_>) {
    let fleet = &rules.scenario.fleet;
    let path = Path::of("fleet.replicas");
    if fleet.pools.is_empty() {
        rules.at_least_one(&path, fleet.replicas.into());
    }
    let total: u64 = fleet.sizes().map(|(_, _, most)| u64::from(most)).sum();
    for (i, pool) in fleet.pools.iter().enumerate() {
        let path = Path::of(&format!("fleet.pools.{i}.replicas"));
        rules.at_least_one(&path, pool.replicas.into());
    }
    if total > MAX_REPLICAS {
        let message =
            format!("{total} replicas are more than the {MAX_REPLICAS} that one gateway may have");
        rules.error(Code::OutOfRange, &path, message);
    }
}

pub(super) fn one_kind(rules: &mut Rules<'_>) {
    let engines = all_engines(rules);
    let is_station = |e: &EngineSpec| matches!(e, EngineSpec::Station(_));
    let Some((_, first)) = engines.first() else {
        return;
    };
    if let Some((path, _)) = engines
        .iter()
        .find(|(_, e)| is_station(e) != is_station(first))
    {
        rules
            .error(
                Code::Contradiction,
                path,
                "stations and LLM engines cannot serve the same traffic",
            )
            .label = "give all pools the same `kind`".to_owned();
    }
}

/// Shares of bad answers.
pub(super) fn error_rates(rules: &mut Rules<'_>) {
    let fleet = &rules.scenario.fleet;
    if let Some(rate) = fleet.error_rate {
        rules.share(&Path::of("fleet.error_rate"), rate);
    }
    for (i, pool) in fleet.pools.iter().enumerate() {
        if let Some(rate) = pool.error_rate {
            rules.share(&Path::of(&format!("fleet.pools.{i}.error_rate")), rate);
        }
    }
}

pub(super) fn engines(rules: &mut Rules<'_>) {
    for (path, engine) in all_engines(rules) {
        match engine {
            EngineSpec::Station(station) => {
                rules.at_least_one(&path.key("servers"), station.servers.into());
                if let Some(spec) = &station.cascade {
                    cascade(rules, &path.key("cascade"), spec);
                }
            }
            EngineSpec::Continuous(spec) | EngineSpec::Reference(spec) => {
                continuous(rules, &path, spec);
                computed_cascade(rules, &path, engine);
            }
        }
        can_be_built(rules, &path, engine);
    }
}

/// A cascade's shares, and limits that would divide by zero.
fn cascade(rules: &mut Rules<'_>, path: &Path, spec: &CascadeSpec) {
    let shares = [
        ("world", "no_change", spec.world.no_change),
        ("world", "critical", spec.world.critical),
        ("world", "error", spec.world.error),
        ("skip", "tpr", spec.skip.tpr),
        ("skip", "fpr", spec.skip.fpr),
        ("route", "threshold", spec.route.threshold),
        ("evidence", "anchors", spec.evidence.anchors),
        ("evidence", "int8", spec.evidence.int8),
        ("shadow", "q_min", spec.shadow.q_min),
        ("shadow", "sensitivity", spec.shadow.sensitivity),
        ("shadow", "specificity", spec.shadow.specificity),
        ("control", "loss", spec.control.loss),
        ("control", "gain", spec.control.gain),
    ];
    for (table, key, value) in shares {
        rules.share(&path.key(table).key(key), value);
    }
    if spec.evidence.anchors + spec.evidence.int8 > 1.0 {
        let message = "anchors and INT8 blocks are more than all blocks";
        let at = path.key("evidence").key("int8");
        rules.error(Code::OutOfRange, &at, message).label = "let them sum to 1 at most".into();
    }
    if spec.shadow.sensitivity <= 1.0 - spec.shadow.specificity {
        let message = "a verifier that flags good answers as often as bad ones says nothing";
        let at = path.key("shadow").key("sensitivity");
        rules.error(Code::Contradiction, &at, message).label =
            "more than 1 - specificity".to_owned();
    }
    let device = &spec.device;
    let positive = [
        ("device", "compute", device.compute.0),
        ("device", "bandwidth", device.bandwidth.0),
        ("device", "batch", f64::from(device.batch)),
        ("spans", "max", f64::from(spec.spans.max)),
        ("shadow", "target", spec.shadow.target),
        ("shadow", "eta", spec.shadow.eta),
        ("world", "drift_factor", spec.world.drift_factor),
        ("control", "period", spec.control.period.0.as_secs_f64()),
    ];
    let models = [("frontier", &device.frontier), ("light", &device.light)];
    let sizes = models.map(|(name, m)| {
        let at = path.key("device").key(name).key("parameters");
        (at, m.parameters)
    });
    let all = positive.map(|(table, key, value)| (path.key(table).key(key), value));
    for (at, value) in all.into_iter().chain(sizes) {
        if !(value > 0.0 && value.is_finite()) {
            rules.error(Code::OutOfRange, &at, "it must be above zero");
        }
    }
    if !(spec.shadow.k >= 0.0 && spec.shadow.k.is_finite()) {
        let at = path.key("shadow").key("k");
        rules.error(Code::OutOfRange, &at, "more risk is not verified less");
    }
}

/// Layers of a cascade act where models compute, on answers that have an end.
fn computed_cascade(rules: &mut Rules<'_>, path: &Path, engine: &EngineSpec) {
    let layers = engine.llm().and_then(|spec| spec.cascade.as_deref());
    if !layers.is_some_and(|cascade| cascade.layers.any()) {
        return;
    }
    let here = path.key("cascade").key("layers");
    if matches!(engine, EngineSpec::Continuous(_)) {
        let message = "these layers leave out work of models that compute, and here nothing does";
        rules.error(Code::Contradiction, &here, message).label =
            "take kind `reference`, or switch the layers off (as the policy `cascade-none` does); simulated cascades are of kind `station`".to_owned();
        return;
    }
    let traffic = &rules.scenario.traffic;
    let asks = |tasks: bool| tasks && traffic.trace.is_none();
    let all = match traffic.clients.as_slice() {
        [] => asks(traffic.tasks.is_some()),
        some => some
            .iter()
            .all(|c| asks(c.tasks.is_some() || traffic.tasks.is_some())),
    };
    if !all {
        let message = "layers need answers that have an end and can be verified";
        let finding = rules.error(Code::Incomplete, &here, message);
        finding.label = "not every client asks `traffic.tasks`".to_owned();
    }
}

/// The engine itself has the last word, once nothing else is wrong with it.
fn can_be_built(rules: &mut Rules<'_>, path: &Path, engine: &EngineSpec) {
    let prefix = path.to_string();
    if lacks_files(engine) {
        return;
    }
    if rules.findings.iter().any(|f| f.path.starts_with(&prefix)) {
        return;
    }
    if let Err(error) = Replica::build(engine) {
        let mut here = path.clone();
        here.steps.extend(Path::of(&error.field).steps);
        let message = format!("this replica cannot be built: {}", error.reason);
        let near = match (error.field.as_str(), engine) {
            ("gpu", EngineSpec::Continuous(spec) | EngineSpec::Reference(spec)) => {
                did_you_mean(&spec.gpu, hardware::GPUS.iter().map(|g| g.name))
            }
            ("model", EngineSpec::Continuous(spec) | EngineSpec::Reference(spec)) => {
                did_you_mean(&spec.model, hardware::MODELS.iter().map(|m| m.name))
            }
            _ => String::new(),
        };
        let finding = rules.error(Code::Engine, &here, message);
        finding.label = near;
        finding.notes = vec![error.remedy];
    }
}

/// Whether the files of its cost model could not be read, which was said already.
fn lacks_files(engine: &EngineSpec) -> bool {
    let Some(spec) = engine.llm() else {
        return false;
    };
    match &spec.cost {
        CostSpec::Operators(operators) => operators.tables.0.is_none(),
        CostSpec::Coefficients(fit) => fit.file.is_some() && fit.digest.is_none(),
        CostSpec::Roofline { .. } | CostSpec::Linear(_) | CostSpec::Table(_) => false,
    }
}

fn continuous(rules: &mut Rules<'_>, path: &Path, spec: &ContinuousSpec) {
    let width = u64::from(spec.tensor_parallel);
    let holds = (1..=64).contains(&width);
    rules.require(&path.key("tensor_parallel"), holds, "lie between 1 and 64");
    if let Some(len) = spec.max_model_len {
        rules.at_least_one(&path.key("max_model_len"), len.into());
    }
    scheduler(rules, &path.key("scheduler"), &spec.scheduler);
    kv(rules, &path.key("kv"), &spec.kv);
    cost(rules, &path.key("cost"), &spec.cost);
    if let Some(energy) = &spec.energy {
        self::energy(rules, &path.key("energy"), energy);
    }
}

fn scheduler(rules: &mut Rules<'_>, path: &Path, spec: &SchedulerSpec) {
    rules.at_least_one(&path.key("token_budget"), spec.token_budget.into());
    rules.at_least_one(&path.key("max_num_seqs"), spec.max_num_seqs.into());
    let budgeted = matches!(
        spec.kind,
        SchedulerKind::Chunked | SchedulerKind::Priority | SchedulerKind::Shortest
    );
    if budgeted && spec.token_budget < spec.max_num_seqs {
        let message = format!(
            "a budget of {} tokens cannot give each of {} running requests its token",
            spec.token_budget, spec.max_num_seqs
        );
        rules
            .error(Code::Contradiction, &path.key("token_budget"), message)
            .label = format!("at least {}, or fewer `max_num_seqs`", spec.max_num_seqs);
    }
    if let Some(buckets) = &spec.length_buckets {
        let here = path.key("length_buckets");
        if spec.kind != SchedulerKind::Static {
            let message = "only batches of kind `static` stay together";
            rules.warn(Code::Pointless, &here, message);
        }
        let bounds = &buckets.bounds;
        let ascend = bounds.windows(2).all(|two| two[0] < two[1]);
        let holds = ascend && bounds.first().is_some_and(|&first| first > 0);
        let message = "be lengths above zero, one or more, each larger than the one before";
        rules.require(&here.key("bounds"), holds, message);
    }
    if let Some(threshold) = spec.long_prefill_threshold {
        let here = path.key("long_prefill_threshold");
        rules.at_least_one(&here, threshold.into());
        if !budgeted {
            let message = "prompts are cut into chunks by kind `chunked` and its relatives only";
            rules.warn(Code::Pointless, &here, message);
        } else if threshold > spec.token_budget {
            let message = "no chunk is longer than the budget anyway";
            rules.warn(Code::Pointless, &here, message);
        }
    }
}

fn kv(rules: &mut Rules<'_>, path: &Path, spec: &KvSpec) {
    let block = spec.block_size;
    let holds = (1..=8192).contains(&block);
    rules.require(
        &path.key("block_size"),
        holds,
        "lie between 1 and 8192 tokens",
    );
    if let Some(blocks) = spec.blocks {
        rules.at_least_one(&path.key("blocks"), blocks);
    }
    if let Some(shards) = &spec.shards {
        let holds = !shards.weights.is_empty() && shards.weights.iter().all(|w| *w > 0.0);
        let message = "hold a number above zero for each shard";
        rules.require(&path.key("shards").key("weights"), holds, message);
        if spec.blocks.is_some() {
            let message = "`kv.blocks` says already how much fits; leave one of them out";
            rules.error(Code::Contradiction, &path.key("shards"), message);
        }
    }
    if let Some(ttl) = spec.prefix_ttl {
        let here = path.key("prefix_ttl");
        rules.positive(&here, ttl.0.as_secs_f64());
        if spec.eviction != EvictionKind::Lru {
            let message = "only `eviction = \"lru\"` knows since when content is idle";
            rules.error(Code::Contradiction, &here, message);
        }
        if !spec.prefix_cache {
            rules.warn(Code::Pointless, &here, "nothing is cached");
        }
    }
    let share = spec.memory_utilization;
    let holds = share > 0.0 && share <= 1.0;
    rules.require(
        &path.key("memory_utilization"),
        holds,
        "be more than 0 and at most 1",
    );
    let holds = (0.0..1.0).contains(&spec.watermark);
    rules.require(
        &path.key("watermark"),
        holds,
        "be 0 or more and less than 1",
    );
    let bytes = spec.bytes_per_element;
    let holds = bytes > 0.0 && bytes <= 8.0;
    rules.require(
        &path.key("bytes_per_element"),
        holds,
        "be more than 0 and at most 8",
    );
    rules.positive(&path.key("swap_bandwidth"), spec.swap_bandwidth.0);
}

fn cost(rules: &mut Rules<'_>, path: &Path, spec: &CostSpec) {
    match spec {
        CostSpec::Roofline {
            compute_efficiency,
            bandwidth_efficiency,
            ..
        } => {
            for (key, share) in [
                ("compute_efficiency", *compute_efficiency),
                ("bandwidth_efficiency", *bandwidth_efficiency),
            ] {
                let holds = share > 0.0 && share <= 1.0;
                rules.require(&path.key(key), holds, "be more than 0 and at most 1");
            }
        }
        CostSpec::Linear(linear) => {
            let missing: Vec<_> = [
                ("base", linear.base),
                ("per_seq", linear.per_seq),
                ("per_prefill_token", linear.per_prefill_token),
            ]
            .into_iter()
            .filter(|(_, given)| given.is_none())
            .map(|(key, _)| format!("`{key}`"))
            .collect();
            if linear.preset.is_none() && !missing.is_empty() {
                let message = format!(
                    "a linear cost without `preset` needs {}",
                    missing.join(", ")
                );
                rules.error(Code::Incomplete, path, message);
            }
        }
        // What they hold is checked where they are read, and by the engine itself.
        CostSpec::Operators(_) | CostSpec::Coefficients(_) => {}
        CostSpec::Table(table) if table.file.is_some() => {
            let path = path.key("decode");
            let alone = table.digest.is_some() || table.decode.is_empty();
            rules.require(&path, alone, "be absent where `file` gives the points");
        }
        CostSpec::Table(table) => {
            let path_of = |key| path.key(key);
            rules.not_negative(&path_of("extra_prompt_ms"), table.extra_prompt_ms);
            rules.not_negative(&path_of("mixed_saving_ms"), table.mixed_saving_ms);
            let lists = [
                (
                    "decode",
                    table.decode.iter().map(|p| p.ms).collect::<Vec<_>>(),
                ),
                ("prefill", table.prefill.iter().map(|p| p.ms).collect()),
            ];
            for (key, times) in lists {
                let path = path.key(key);
                rules.require(&path, !times.is_empty(), "list at least one measured point");
                for (i, ms) in times.into_iter().enumerate() {
                    let mut path = path.clone();
                    path.push_index(i);
                    rules.positive(&path.key("ms"), ms);
                }
            }
        }
    }
}

fn energy(rules: &mut Rules<'_>, path: &Path, spec: &EnergySpec) {
    match spec {
        EnergySpec::Power { idle, peak } => {
            rules.require(&path.key("peak"), peak >= idle, "be at least `idle`");
        }
        EnergySpec::PerToken {
            preset,
            at_infinity,
            per_batch,
            ..
        } => {
            for (key, joules) in [("at_infinity", at_infinity), ("per_batch", per_batch)] {
                match joules {
                    Some(joules) => rules.not_negative(&path.key(key), *joules),
                    None if preset.is_none() => {
                        let message = format!("energy per token without `preset` needs `{key}`");
                        rules.error(Code::Incomplete, path, message);
                    }
                    None => {}
                }
            }
        }
    }
}
