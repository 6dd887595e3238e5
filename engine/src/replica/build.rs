//! Building an LLM engine: the checks of its specification, and what follows from the catalogue.

use super::runs_on::hardware_of;
use super::tables::{coefficients, operators};
use super::{EngineConfigError, ReplicaFacts};
use crate::config::{
    Allocation, ContinuousSpec, CostSpec, EnergySpec, FrontendSpec, LinearSpec, PreemptionKind,
    SchedulerKind, ShardSpec, ShardSplit,
};
use crate::continuous::{Common, ContinuousBatching, Memory, Rules};
use crate::cost::linear::{Linear, STEP_FITS};
use crate::cost::roofline::{Roofline, RooflineSettings};
use crate::cost::table::Table;
use crate::cost::{CostFn, StepModel};
use crate::energy::{ENERGY_FITS, EnergyFn, Intensity};
use crate::hardware::{self, Gpu, Model};
use crate::kv::KvLayout;
use std::sync::Arc;
use windtunnel_base::quantity::{HourlyPrice, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_base::units::NanoUsd;

pub(super) fn error(
    field: &str,
    reason: impl Into<String>,
    remedy: impl Into<String>,
) -> EngineConfigError {
    EngineConfigError {
        field: field.into(),
        reason: reason.into(),
        remedy: remedy.into(),
    }
}

/// `count` LLM engines as specified. What they cannot change, such as composed tables, is made once.
pub(super) fn continuous(
    spec: &ContinuousSpec,
    count: u32,
) -> Result<Vec<ContinuousBatching>, EngineConfigError> {
    let (gpu, model) = hardware_of(spec)?;
    let (gpu, model) = (&gpu, &model);
    check_scheduler(spec)?;
    check_kv(spec)?;
    let layout = KvLayout {
        total_blocks: kv_blocks(spec, gpu, model)?,
        block_size: spec.kv.block_size,
        prefix_cache: spec.kv.prefix_cache,
        eviction: spec.kv.eviction,
    };
    let rules = rules(spec, model, &layout)?;
    let energy = energy(spec, gpu, model)?;
    let gpus = spec.tensor_parallel;
    let price = spec
        .gpu_price
        .map_or(NanoUsd::from_f64(gpu.price * 1e9), |p| p.0);
    let facts = ReplicaFacts {
        price: HourlyPrice(NanoUsd(price.0 * u64::from(gpus))),
        idle_watts: energy.idle_watts(),
        gpus,
        kv: Some(layout),
        max_tokens_per_request: Some(rules.max_tokens),
        frontend: frontend(spec),
    };
    let host_blocks = spec.kv.swap_space.0 / rules.block_bytes.max(1);
    let cost = cost(spec, gpu, model)?;
    let common = Arc::new(Common::new(rules, cost, energy, facts));
    let expires = spec.kv.prefix_ttl.map(|ttl| ttl.0);
    let engine = || {
        ContinuousBatching::new(
            Arc::clone(&common),
            Memory::new(&layout, host_blocks, expires),
        )
    };
    Ok(std::iter::repeat_with(engine)
        .take(count as usize)
        .collect())
}

/// What an engine that computes cannot do.
pub(super) fn check_reference(spec: &ContinuousSpec) -> Result<(), EngineConfigError> {
    if spec.kv.preemption == PreemptionKind::Swap {
        return Err(error(
            "kv.preemption",
            "the reference engine swaps nothing to host memory",
            "set it to \"recompute\"",
        ));
    }
    if spec.tensor_parallel != 1 {
        return Err(error(
            "tensor_parallel",
            "the reference engine computes on one device",
            "set it to 1",
        ));
    }
    let reference = spec.reference.clone().unwrap_or_default();
    if !(0.0..=100.0).contains(&reference.temperature) {
        return Err(error(
            "reference.temperature",
            format!("{} is no temperature", reference.temperature),
            "set it from 0 (greedy) to 100",
        ));
    }
    if !(reference.top_p > 0.0 && reference.top_p <= 1.0) {
        return Err(error(
            "reference.top_p",
            format!("{} is not a share", reference.top_p),
            "set it over 0, up to 1",
        ));
    }
    Ok(())
}

/// Time on the way in and out: as said, else that of fitted coefficients, which count it in whole
/// microseconds.
fn frontend(spec: &ContinuousSpec) -> FrontendSpec {
    let fitted = match &spec.cost {
        CostSpec::Coefficients(fit) if spec.frontend == FrontendSpec::default() => fit.alpha_us,
        _ => None,
    };
    let micros = |us: f64| Span(SimDuration::from_micros(us as u64));
    fitted.map_or(spec.frontend, |[input, completion, per_token]| {
        FrontendSpec {
            input: micros(input),
            per_token: micros(per_token),
            completion: micros(completion),
        }
    })
}

/// How batches are formed: the scheduler's settings, and limits that follow from memory.
fn rules(
    spec: &ContinuousSpec,
    model: &Model,
    layout: &KvLayout,
) -> Result<Rules, EngineConfigError> {
    let max_len = spec.max_model_len.unwrap_or(model.max_len);
    if max_len < 2 || max_len > model.max_len {
        return Err(error(
            "max_model_len",
            format!(
                "{} takes 2 to {} tokens, not {max_len}",
                model.name, model.max_len
            ),
            "leave it out for the longest",
        ));
    }
    let (blocks, size) = (layout.total_blocks, layout.block_size);
    let spare = u64::from(spec.kv.spare_block);
    if blocks <= spare {
        return Err(error(
            "kv.spare_block",
            "the only block must stay free",
            "raise `kv.blocks` to 2 at least",
        ));
    }
    // Whoever runs alone must be able to go on to its last token.
    let pool = (blocks - spare).saturating_mul(u64::from(size));
    let block_bytes = model.kv_bytes_per_token(spec.kv.bytes_per_element) * f64::from(size);
    Ok(Rules {
        kind: spec.scheduler.kind,
        token_budget: spec.scheduler.token_budget,
        max_num_seqs: spec.scheduler.max_num_seqs,
        prefill_cap: spec.scheduler.long_prefill_threshold.unwrap_or(u32::MAX),
        queue_limit: spec.queue_limit.unwrap_or(u32::MAX),
        max_tokens: u64::from(max_len).min(pool) as u32,
        watermark: (spec.kv.watermark * blocks as f64) as u64,
        reserve_full_prompt: spec.kv.reserve_full_prompt,
        visibility: spec.kv.visibility,
        preemption: spec.kv.preemption,
        restart: spec.kv.restart,
        whole_prompt: spec.kv.allocation == Allocation::WholePrompt,
        spare,
        padded_prompts: spec.scheduler.padded_prompts && !chunks(spec.scheduler.kind),
        buckets: match spec.scheduler.kind {
            SchedulerKind::Static => spec.scheduler.length_buckets.clone(),
            _ => None,
        },
        decodes_first: spec.scheduler.unlimited_decodes && chunks(spec.scheduler.kind),
        admit_after_preemption: spec.scheduler.admit_after_preemption,
        plans_ahead: spec.scheduler.async_scheduling,
        block_bytes: block_bytes.ceil() as u64,
        joins_at_boundary: spec.scheduler.join_at_boundary && !spec.scheduler.async_scheduling,
        fast_forward: spec.fast_forward,
    })
}

pub(super) fn unknown(
    field: &str,
    name: &str,
    known: impl Iterator<Item = &'static str>,
) -> EngineConfigError {
    let known: Vec<_> = known.collect();
    error(
        field,
        format!("`{name}` is not in the catalogue"),
        format!("known are {}", known.join(", ")),
    )
}

/// Whether prompts are cut into chunks that share a budget with decoding requests.
fn chunks(kind: SchedulerKind) -> bool {
    use SchedulerKind::{Chunked, Priority, Shortest};
    matches!(kind, Chunked | Priority | Shortest)
}

fn check_scheduler(spec: &ContinuousSpec) -> Result<(), EngineConfigError> {
    let s = &spec.scheduler;
    let positive = [
        ("scheduler.token_budget", s.token_budget),
        ("scheduler.max_num_seqs", s.max_num_seqs),
        (
            "scheduler.long_prefill_threshold",
            s.long_prefill_threshold.unwrap_or(1),
        ),
    ];
    for (field, value) in positive {
        if value == 0 {
            return Err(error(
                field,
                "nothing could ever run",
                "set it to 1 or more",
            ));
        }
    }
    if s.unlimited_decodes && spec.kv.allocation != Allocation::WholePrompt {
        return Err(error(
            "scheduler.unlimited_decodes",
            "prompts that wait for decodes in the middle could hold all memory and never go on",
            "set `kv.allocation` to \"whole_prompt\" as well",
        ));
    }
    if chunks(s.kind) && !s.unlimited_decodes && s.token_budget < s.max_num_seqs {
        return Err(error(
            "scheduler.token_budget",
            format!(
                "{} tokens per step do not reach for {} decoding requests",
                s.token_budget, s.max_num_seqs
            ),
            "raise it to `max_num_seqs` at least, or set `scheduler.unlimited_decodes`",
        ));
    }
    Ok(())
}

fn check_kv(spec: &ContinuousSpec) -> Result<(), EngineConfigError> {
    let kv = &spec.kv;
    let share = |field: &str, value: f64, open: bool| {
        let fine = (0.0..=1.0).contains(&value) && (!open || value > 0.0);
        let range = if open {
            "over 0, up to 1"
        } else {
            "from 0 to 1"
        };
        fine.then_some(()).ok_or_else(|| {
            error(
                field,
                format!("{value} is not a share"),
                format!("set it {range}"),
            )
        })
    };
    share("kv.memory_utilization", kv.memory_utilization, true)?;
    share("kv.watermark", kv.watermark, false)?;
    if kv.block_size == 0 {
        return Err(error(
            "kv.block_size",
            "a block holds a token at least",
            "vLLM's is 16",
        ));
    }
    if !(kv.bytes_per_element > 0.0 && kv.bytes_per_element <= 8.0) {
        return Err(error(
            "kv.bytes_per_element",
            format!("{} bytes cannot hold a number", kv.bytes_per_element),
            "2 is FP16, 1 is FP8",
        ));
    }
    if let Some(shards) = &kv.shards {
        check_shards(shards, kv.blocks)?;
    }
    if kv.swap_bandwidth.0.is_nan() || kv.swap_bandwidth.0 <= 0.0 {
        return Err(error(
            "kv.swap_bandwidth",
            "nothing could be swapped",
            "such as \"25GB/s\"",
        ));
    }
    Ok(())
}

fn check_shards(shards: &ShardSpec, blocks: Option<u64>) -> Result<(), EngineConfigError> {
    let positive = |w: &f64| *w > 0.0 && w.is_finite();
    if shards.weights.is_empty() || !shards.weights.iter().all(positive) {
        return Err(error(
            "kv.shards.weights",
            "every shard keeps something of every token",
            "give a number above zero for each shard",
        ));
    }
    if blocks.is_some() {
        return Err(error(
            "kv.shards",
            "`kv.blocks` says already how much fits",
            "leave one of them out",
        ));
    }
    Ok(())
}

/// Share of the memory for keys and values that can be used: all of it, unless shards of unequal
/// need got equal parts. Then the shard with the largest weight is full first, when the others
/// together hold the sum of the weights over `shards * largest weight`.
fn usable(shards: Option<&ShardSpec>) -> f64 {
    match shards {
        Some(ShardSpec {
            weights,
            split: ShardSplit::Equal,
        }) => {
            let largest = weights.iter().copied().fold(0.0, f64::max);
            weights.iter().map(|w| w / largest).sum::<f64>() / weights.len() as f64
        }
        _ => 1.0,
    }
}

/// Blocks as given, or as many as memory leaves.
fn kv_blocks(spec: &ContinuousSpec, gpu: &Gpu, model: &Model) -> Result<u64, EngineConfigError> {
    let kv = &spec.kv;
    if let Some(blocks) = kv.blocks {
        let tokens = blocks.saturating_mul(u64::from(kv.block_size));
        return if tokens < 2 {
            let reason = format!("{tokens} tokens hold no prompt with an answer");
            Err(error(
                "kv.blocks",
                reason,
                "set it to 1 or more, or leave it out",
            ))
        } else {
            Ok(blocks)
        };
    }
    let tp = spec.tensor_parallel;
    let (utilization, reserve) = (kv.memory_utilization, kv.activation_reserve.0);
    let left = hardware::kv_bytes_per_gpu(gpu, model, tp, utilization, reserve);
    let per_block = model.kv_bytes_per_token(kv.bytes_per_element) * f64::from(kv.block_size);
    let used = left * f64::from(tp) * usable(kv.shards.as_ref());
    let blocks = (used / per_block).floor();
    if blocks >= 1.0 {
        return Ok(blocks as u64);
    }
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    Err(error(
        "model",
        format!(
            "{} needs {:.1} GiB per GPU for weights and activations, and may use {:.1} GiB of {tp} x {}",
            model.name,
            gib(model.weight_bytes() as f64 / f64::from(tp) + reserve as f64),
            gib(utilization * gpu.memory as f64),
            gpu.name
        ),
        "raise `tensor_parallel` or take a larger GPU",
    ))
}

fn cost(spec: &ContinuousSpec, gpu: &Gpu, model: &Model) -> Result<CostFn, EngineConfigError> {
    let model = match &spec.cost {
        CostSpec::Roofline {
            compute_efficiency,
            bandwidth_efficiency,
            overhead,
        } => {
            let shares = [
                ("cost.compute_efficiency", *compute_efficiency),
                ("cost.bandwidth_efficiency", *bandwidth_efficiency),
            ];
            for (field, value) in shares {
                if !(value > 0.0 && value <= 1.0) {
                    let reason = format!("{value} is not a share of the peak");
                    return Err(error(field, reason, "set it over 0, up to 1"));
                }
            }
            let settings = RooflineSettings {
                tensor_parallel: spec.tensor_parallel,
                compute_efficiency: *compute_efficiency,
                bandwidth_efficiency: *bandwidth_efficiency,
                overhead: overhead.0.as_secs_f64(),
                kv_bytes_per_element: spec.kv.bytes_per_element,
            };
            StepModel::Roofline(Roofline::new(gpu, model, &settings))
        }
        CostSpec::Linear(linear) => StepModel::Linear(linear_fit(linear)?),
        CostSpec::Table(table) => StepModel::Table(Table::new(table).map_err(|(grid, e)| {
            error(
                &format!("cost.{grid}"),
                e.to_string(),
                "give a full grid of points",
            )
        })?),
        CostSpec::Operators(tables) => {
            StepModel::Operators(operators(tables, spec.tensor_parallel, gpu, model)?)
        }
        CostSpec::Coefficients(fit) => {
            StepModel::Coefficients(Box::new(coefficients(fit, spec.tensor_parallel, model)?))
        }
    };
    Ok(CostFn {
        model,
        swap_bandwidth: spec.kv.swap_bandwidth.0,
    })
}

fn linear_fit(spec: &LinearSpec) -> Result<Linear, EngineConfigError> {
    let preset = match &spec.preset {
        None => None,
        Some(name) => Some(
            STEP_FITS
                .iter()
                .find(|fit| fit.name == name)
                .ok_or_else(|| unknown("cost.preset", name, STEP_FITS.iter().map(|f| f.name)))?,
        ),
    };
    let seconds = |given: Option<Span>, preset: Option<f64>| {
        given.map_or(preset.unwrap_or(0.0) / 1e3, |s| s.0.as_secs_f64())
    };
    let linear = Linear {
        base: seconds(spec.base, preset.map(|p| p.base_ms)),
        per_seq: seconds(spec.per_seq, preset.map(|p| p.per_seq_ms)),
        per_context: seconds(spec.per_kilo_context, None) / 1e3,
        per_prefill_token: seconds(spec.per_prefill_token, None),
        per_pair: seconds(spec.per_mega_pair, None) / 1e6,
        max_seqs: spec
            .max_seqs
            .or(preset.map(|p| p.max_seqs))
            .unwrap_or(u32::MAX),
    };
    if linear.base + linear.per_seq <= 0.0 {
        return Err(error(
            "cost",
            "a step would take no time",
            "give `preset`, `base` or `per_seq`",
        ));
    }
    Ok(linear)
}

fn energy(spec: &ContinuousSpec, gpu: &Gpu, model: &Model) -> Result<EnergyFn, EngineConfigError> {
    let gpus = f64::from(spec.tensor_parallel);
    let power = |idle: f64, peak: f64| EnergyFn::Power {
        idle: idle * gpus,
        peak: peak * gpus,
        intensity: Intensity::new(gpu, model, spec.tensor_parallel, spec.kv.bytes_per_element),
    };
    match &spec.energy {
        None => Ok(power(gpu.idle_watts, gpu.peak_watts)),
        Some(EnergySpec::Power { idle, peak }) if idle.0 > peak.0 => Err(error(
            "energy.idle",
            format!("{idle} idle is more than {peak} at full load"),
            "swap them",
        )),
        Some(EnergySpec::Power { idle, peak }) => Ok(power(idle.0, peak.0)),
        Some(EnergySpec::PerToken {
            preset,
            at_infinity,
            per_batch,
            idle,
        }) => {
            let fit = match preset {
                None => None,
                Some(name) => {
                    Some(ENERGY_FITS.iter().find(|f| f.name == name).ok_or_else(|| {
                        unknown("energy.preset", name, ENERGY_FITS.iter().map(|f| f.name))
                    })?)
                }
            };
            let value = |given: &Option<f64>, preset: Option<f64>, field: &str| {
                given
                    .or(preset)
                    .filter(|v| *v >= 0.0 && v.is_finite())
                    .ok_or_else(|| {
                        let remedy = "give `preset`, or joules of zero or more";
                        error(field, "there is no usable value", remedy)
                    })
            };
            Ok(EnergyFn::PerToken {
                per_token: value(
                    at_infinity,
                    fit.map(|f| f.at_infinity),
                    "energy.at_infinity",
                )?,
                per_step: value(per_batch, fit.map(|f| f.per_batch), "energy.per_batch")?,
                idle: idle.map_or(gpu.idle_watts, |p| p.0) * gpus,
            })
        }
    }
}
