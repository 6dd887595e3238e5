//! Cost models made of files: operator tables and coefficients.

use super::EngineConfigError;
use super::build::error;
use crate::config::{ArchitectureSpec, CoefficientsSpec, OperatorsSpec};
use crate::cost::coefficients::{CoefficientSettings, Coefficients};
use crate::cost::interconnect::AllReduce;
use crate::cost::operators::{Composition, OperatorTables, Operators};
use crate::hardware::{Gpu, Model};

/// Operator tables, composed for the model.
pub(super) fn operators(
    spec: &OperatorsSpec,
    tensor_parallel: u32,
    gpu: &Gpu,
    model: &Model,
) -> Result<Operators, EngineConfigError> {
    let Some(tables) = &spec.tables.0 else {
        let reason = format!("the tables of `{}` have not been read", spec.folder);
        let remedy = "load the scenario from its file";
        return Err(error("cost.folder", reason, remedy));
    };
    let told = match &**tables {
        OperatorTables::Curves(t) => t.layers,
        OperatorTables::Lookups(t) => t.layers,
    };
    let layers = told.unwrap_or(model.layers);
    let (bandwidth, latency) = match spec.link {
        None => (gpu.interconnect, gpu.interconnect_latency),
        Some(link) if link.bandwidth.0 > 0.0 && link.bandwidth.0.is_finite() => {
            let hops = 2.0 * f64::from(tensor_parallel.saturating_sub(1));
            (link.bandwidth.0, hops * link.latency.0.as_secs_f64())
        }
        Some(_) => {
            let remedy = "set it above zero, such as \"16GB/s\"";
            return Err(error(
                "cost.link.bandwidth",
                "a step would never end",
                remedy,
            ));
        }
    };
    let composition = Composition {
        layers,
        tensor_parallel,
        grouped_query: model.heads > model.kv_heads,
        all_reduce: AllReduce::new(
            tensor_parallel,
            layers,
            2.0 * f64::from(model.hidden),
            bandwidth,
            latency,
        ),
        overhead: spec.overhead.0.as_secs_f64(),
        calls: &spec.calls,
    };
    Operators::new(tables, &composition).map_err(|e| {
        let reason = format!("{}: {}: {}", spec.folder, e.table, e.reason);
        error("cost.folder", reason, e.remedy)
    })
}

/// A fitted roofline of the model.
pub(super) fn coefficients(
    spec: &CoefficientsSpec,
    tensor_parallel: u32,
    model: &Model,
) -> Result<Coefficients, EngineConfigError> {
    let absent = |field: &str| {
        let remedy = "give it, or a `file` that has it";
        error(&format!("cost.{field}"), "it is needed and absent", remedy)
    };
    let beta = spec.beta.ok_or_else(|| absent("beta"))?;
    let architecture = spec.architecture.unwrap_or(ArchitectureSpec {
        layers: model.layers,
        hidden: model.hidden,
        heads: model.heads,
        kv_heads: model.kv_heads,
        ffn: model.ffn,
        bytes: 2.0,
        weight_bytes: Some(model.bytes_per_weight),
        ..ArchitectureSpec::default()
    });
    let settings = CoefficientSettings {
        beta,
        architecture,
        tflops: spec.tflops.ok_or_else(|| absent("tflops"))?,
        tflops_fp8: spec.tflops_fp8,
        hbm_tbps: spec.hbm_tbps.ok_or_else(|| absent("hbm_tbps"))?,
        tensor_parallel,
    };
    check(&settings, spec)?;
    Ok(Coefficients::new(&settings))
}

fn check(s: &CoefficientSettings, spec: &CoefficientsSpec) -> Result<(), EngineConfigError> {
    let b = &s.beta;
    let weights = [
        b.b1a,
        b.b2a,
        b.b3,
        b.b4,
        b.b5,
        b.b6,
        b.b7,
        b.b8,
        b.b1b.unwrap_or(0.0),
        b.b2b.unwrap_or(0.0),
    ];
    let alphas = spec.alpha_us.unwrap_or_default();
    let finite = |list: &[f64]| list.iter().all(|x| *x >= 0.0 && x.is_finite());
    if !finite(&weights) {
        let reason = "a weight is negative or no number";
        return Err(error(
            "cost.beta",
            reason,
            "fits have weights of zero or more",
        ));
    }
    if !finite(&alphas) {
        let reason = "a time is negative or no number";
        return Err(error(
            "cost.alpha_us",
            reason,
            "give microseconds of zero or more",
        ));
    }
    for (field, value) in [
        ("tflops", s.tflops),
        ("hbm_tbps", s.hbm_tbps),
        ("architecture.bytes", s.architecture.bytes),
    ] {
        if !(value > 0.0 && value.is_finite()) {
            let reason = format!("{value} is no peak or size");
            return Err(error(&format!("cost.{field}"), reason, "set it above zero"));
        }
    }
    let a = &s.architecture;
    for (field, value, most) in [
        ("layers", a.layers, 1 << 12),
        ("hidden", a.hidden, 1 << 20),
        ("heads", a.heads, 1 << 12),
        ("kv_heads", a.kv_heads, 1 << 12),
        ("ffn", a.ffn, 1 << 22),
    ] {
        if value == 0 || value > most {
            let reason = format!("{value} does not describe a model");
            let remedy = format!("set it from 1 to {most}, as its `config.json` says");
            return Err(error(&format!("cost.architecture.{field}"), reason, remedy));
        }
    }
    if a.experts >= 2 && a.experts_per_token == 0 {
        let reason = "tokens go to no expert";
        let remedy = "give `num_experts_per_tok` of its `config.json`";
        return Err(error("cost.architecture.experts_per_token", reason, remedy));
    }
    let tp = s.tensor_parallel;
    for (field, heads) in [("heads", a.heads), ("kv_heads", a.kv_heads)] {
        if tp == 0 || !heads.is_multiple_of(tp) {
            let reason = format!("{tp} GPUs cannot share {heads} heads");
            let remedy = "use a divisor for `tensor_parallel`";
            return Err(error(&format!("cost.architecture.{field}"), reason, remedy));
        }
    }
    Ok(())
}
