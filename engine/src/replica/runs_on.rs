//! What a replica runs on: GPU and model, of the catalogue or as the scenario describes them.

use super::EngineConfigError;
use super::build::{error, unknown};
use crate::config::{ContinuousSpec, GpuSpec, ModelSpec};
use crate::hardware::{self, Gpu, Model};

/// GPU and model, if the one can be shared by as many of the other as asked for.
pub(super) fn hardware_of(spec: &ContinuousSpec) -> Result<(Gpu, Model), EngineConfigError> {
    let gpu = match &spec.custom_gpu {
        Some(custom) => custom_gpu(custom)?,
        None => {
            let known = || hardware::GPUS.iter().map(|g| g.name);
            *hardware::find_gpu(&spec.gpu).ok_or_else(|| unknown("gpu", &spec.gpu, known()))?
        }
    };
    let model = match &spec.custom_model {
        Some(custom) => custom_model(custom)?,
        None => {
            let known = || hardware::MODELS.iter().map(|m| m.name);
            *hardware::find_model(&spec.model)
                .ok_or_else(|| unknown("model", &spec.model, known()))?
        }
    };
    let tp = spec.tensor_parallel;
    if tp == 0 || !model.heads.is_multiple_of(tp) {
        let (heads, name) = (model.heads, model.name);
        return Err(error(
            "tensor_parallel",
            format!("{tp} GPUs cannot share the {heads} heads of {name}"),
            "use a divisor of that number",
        ));
    }
    Ok((gpu, model))
}

fn custom_gpu(spec: &GpuSpec) -> Result<Gpu, EngineConfigError> {
    let positive = [
        ("compute", spec.compute.0),
        ("compute_fp8", spec.compute_fp8.map_or(1.0, |c| c.0)),
        ("memory", spec.memory.0 as f64),
        ("bandwidth", spec.bandwidth.0),
        ("interconnect", spec.interconnect.0),
    ];
    for (field, value) in positive {
        if !(value > 0.0 && value.is_finite()) {
            return Err(error(
                &format!("custom_gpu.{field}"),
                "a step would never end",
                "set it above zero, as the data sheet says",
            ));
        }
    }
    let (idle, peak) = (spec.idle_power, spec.peak_power);
    if idle.0 > peak.0 {
        return Err(error(
            "custom_gpu.idle_power",
            format!("{idle} idle is more than {peak} at full load"),
            "swap them",
        ));
    }
    Ok(Gpu {
        name: "custom_gpu",
        compute: spec.compute.0,
        compute_fp8: spec.compute_fp8.map(|c| c.0),
        memory: spec.memory.0,
        bandwidth: spec.bandwidth.0,
        interconnect: spec.interconnect.0,
        interconnect_latency: spec.interconnect_latency.0.as_secs_f64(),
        idle_watts: idle.0,
        peak_watts: peak.0,
        price: spec.price.0.0 as f64 / 1e9,
    })
}

/// Sizes far beyond any model, below which no product of them leaves 64 bits.
fn custom_model(spec: &ModelSpec) -> Result<Model, EngineConfigError> {
    let sizes = [
        ("layers", spec.layers, 1 << 12),
        ("hidden", spec.hidden, 1 << 20),
        ("ffn", spec.ffn, 1 << 22),
        ("heads", spec.heads, 1 << 12),
        ("kv_heads", spec.kv_heads, 1 << 12),
        ("head_dim", spec.head_dim, 1 << 12),
        ("vocab", spec.vocab, 1 << 24),
        ("max_len", spec.max_len, u32::MAX),
    ];
    for (field, value, most) in sizes {
        if value == 0 || value > most {
            return Err(error(
                &format!("custom_model.{field}"),
                format!("{value} does not describe a model"),
                format!("set it from 1 to {most}, as its `config.json` says"),
            ));
        }
    }
    let bytes = spec.bytes_per_weight;
    if !(0.125..=2.0).contains(&bytes) {
        return Err(error(
            "custom_model.bytes_per_weight",
            format!("{bytes} does not describe a model"),
            "set it from 0.125 to 2: 2 for bf16, 1 for fp8, 0.5 for int4".to_owned(),
        ));
    }
    if !spec.heads.is_multiple_of(spec.kv_heads) {
        let (heads, kv_heads) = (spec.heads, spec.kv_heads);
        return Err(error(
            "custom_model.kv_heads",
            format!("{kv_heads} key-value heads cannot serve {heads} heads equally"),
            "use a divisor of `heads`",
        ));
    }
    Ok(Model {
        name: "custom_model",
        layers: spec.layers,
        hidden: spec.hidden,
        ffn: spec.ffn,
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        vocab: spec.vocab,
        bytes_per_weight: spec.bytes_per_weight,
        max_len: spec.max_len,
    })
}
