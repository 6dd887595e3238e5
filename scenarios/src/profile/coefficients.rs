//! `coefficients.json`: weights of an analytic step, and the GPUs and model they are for.

use super::files::Files;
use super::{ProfileError, model_config, same_digest, within};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use windtunnel_engine::config::{ArchitectureSpec, BetaSpec, CoefficientsSpec};

/// The file, as far as a step needs it.
#[derive(Debug, Deserialize)]
struct File {
    alpha_us: Option<Alpha>,
    beta: Beta,
    #[serde(default)]
    hardware: BTreeMap<String, Hardware>,
    model: Option<Model>,
}

#[derive(Debug, Deserialize)]
struct Alpha {
    alpha0_arrival_to_queue: f64,
    alpha1_post_decode_per_request: f64,
    alpha2_per_output_token: f64,
}

#[derive(Debug, Deserialize)]
struct Beta {
    b1a_prefill_compute: f64,
    b1b_prefill_kv: Option<f64>,
    b2a_decode_compute: f64,
    b2b_decode_kv: Option<f64>,
    b3_weight: f64,
    b4_tp_allreduce: f64,
    b5_per_layer_us: f64,
    b6_per_request_us: f64,
    b7_per_step_us: f64,
    #[serde(default)]
    b8_per_moe_layer_us: f64,
}

#[derive(Debug, Deserialize)]
struct Hardware {
    tflops_peak_bf16: f64,
    tflops_fp8: Option<f64>,
    #[serde(rename = "hbm_TBps")]
    hbm_tbps: f64,
}

#[derive(Debug, Deserialize)]
struct Model {
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    ffn: u32,
    bytes_per_param: f64,
}

/// Fills what a specification leaves to its files.
pub(super) fn resolve(spec: &mut CoefficientsSpec, dir: Option<&Path>) -> Result<(), ProfileError> {
    let mut files = Files::default();
    let mut first = None;
    if let Some(name) = spec.file.clone() {
        let path = within(dir, &name);
        let file = read(&mut files, &path)?;
        fill(spec, file, &path)?;
        first = Some(path);
    }
    if let Some(name) = &spec.model_config {
        let path = within(dir, name);
        let model = model_config::read(&mut files, &path)?;
        let needed = [
            ("torch_dtype", model.bytes > 0.0),
            ("intermediate_size", model.ffn > 0),
        ];
        if let Some((name, _)) = needed.iter().find(|n| !n.1) {
            let reason = format!("`{name}` is absent or unknown");
            let remedy = "take the model's `config.json`";
            return Err(ProfileError::new(&path, 0, reason, remedy));
        }
        spec.architecture = Some(model.architecture());
        first = first.or(Some(path));
    }
    match first {
        Some(path) => same_digest(&mut spec.digest, files.digest(), &path),
        None => Ok(()),
    }
}

fn read(files: &mut Files, path: &Path) -> Result<File, ProfileError> {
    let text = files.text(path)?;
    serde_json::from_str(&text).map_err(|e| {
        let reason = e.to_string();
        let reason = reason
            .split(" at line ")
            .next()
            .unwrap_or_default()
            .to_owned();
        let remedy = "take a `coefficients.json` with `alpha_us`, `beta`, `hardware` and `model`";
        ProfileError::new(path, e.line() as u64, reason, remedy)
    })
}

fn fill(spec: &mut CoefficientsSpec, file: File, path: &Path) -> Result<(), ProfileError> {
    let error = |reason: String, remedy: &str| ProfileError::new(path, 0, reason, remedy);
    spec.alpha_us = file.alpha_us.map(|a| {
        [
            a.alpha0_arrival_to_queue,
            a.alpha1_post_decode_per_request,
            a.alpha2_per_output_token,
        ]
    });
    let b = file.beta;
    spec.beta = Some(BetaSpec {
        b1a: b.b1a_prefill_compute,
        b1b: b.b1b_prefill_kv,
        b2a: b.b2a_decode_compute,
        b2b: b.b2b_decode_kv,
        b3: b.b3_weight,
        b4: b.b4_tp_allreduce,
        b5: b.b5_per_layer_us,
        b6: b.b6_per_request_us,
        b7: b.b7_per_step_us,
        b8: b.b8_per_moe_layer_us,
    });
    let names: Vec<_> = file.hardware.keys().map(String::as_str).collect();
    let hardware = match (&spec.hardware, names.as_slice()) {
        (Some(name), _) => file.hardware.get(name).ok_or_else(|| {
            let reason = format!("`hardware` has no entry `{name}`");
            error(reason, &format!("it has {}", names.join(", ")))
        })?,
        (None, [only]) => &file.hardware[*only],
        (None, []) => return Err(error("`hardware` is empty".into(), "give its peaks")),
        (None, _) => {
            let reason = format!("`hardware` has several entries: {}", names.join(", "));
            return Err(error(reason, "say which: `hardware = \"…\"`"));
        }
    };
    spec.tflops = Some(hardware.tflops_peak_bf16);
    spec.tflops_fp8 = hardware.tflops_fp8;
    spec.hbm_tbps = Some(hardware.hbm_tbps);
    if let Some(m) = file.model {
        spec.architecture = Some(ArchitectureSpec {
            layers: m.layers,
            hidden: m.hidden,
            heads: m.heads,
            kv_heads: m.kv_heads,
            ffn: m.ffn,
            bytes: m.bytes_per_param,
            ..ArchitectureSpec::default()
        });
    }
    Ok(())
}
