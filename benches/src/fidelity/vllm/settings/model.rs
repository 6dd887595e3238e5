//! The model that was served: its sizes, its weights, and what a token takes in memory.

use super::super::super::files::{self, Unreadable};
use super::word;
use serde_json::Value;
use std::path::Path;
use windtunnel_scenarios::profile::ModelConfig;

/// The model, by its published `config.json`, and what was asked of the engine.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) config: ModelConfig,
    /// Bytes per weight of the layers.
    pub(super) weight_bytes: f64,
    /// Bytes per number in KV.
    pub(super) kv_bytes: f64,
}

impl Model {
    /// Reads the model. The engine's own settings go before the file's: a type of numbers, and
    /// that of keys and values.
    pub(super) fn open(path: &Path, meta: &Value) -> Result<Self, Unreadable> {
        let mut config = ModelConfig::open(path).map_err(|e| Unreadable {
            file: e.file,
            line: e.line,
            reason: e.reason,
            remedy: e.remedy,
        })?;
        // A model's config may say as little as its layers and widths.
        for (value, usual) in [
            (&mut config.vocab, 32_000),
            (&mut config.max_len, 2),
            (&mut config.ffn, config.hidden),
        ] {
            *value = if *value > 0 { *value } else { usual };
        }
        let bytes = |dtype: &str| match dtype {
            d if d.contains("fp8") || d.contains("float8") || d.contains("int8") => 1.0,
            d if d.contains("32") => 4.0,
            _ => 2.0,
        };
        let told = |places: &[&str]| word(meta, places).filter(|d| d != "auto");
        let own = match told(&["/engine_kwargs/dtype"]) {
            Some(asked) => bytes(&asked),
            None if config.bytes > 0.0 => config.bytes,
            None => 2.0,
        };
        let kv = told(&[
            "/engine_kwargs/kv_cache_dtype",
            "/resolved_config/cache_config/cache_dtype",
        ]);
        Ok(Self {
            weight_bytes: config.weight_bytes.unwrap_or(own),
            kv_bytes: kv.map_or(own, |d| bytes(&d)),
            config,
        })
    }

    /// Bytes of keys and values of one token, over all GPUs.
    pub(super) fn kv_per_token(&self) -> f64 {
        let m = &self.config;
        2.0 * f64::from(m.layers) * f64::from(m.kv_heads) * f64::from(m.head_dim) * self.kv_bytes
    }

    /// Bytes of all weights: attention, gated MLPs (or experts and their router), embedding and head.
    pub(super) fn weights(&self) -> f64 {
        let f = f64::from;
        let m = &self.config;
        let attention = f(m.hidden) * f(m.head_dim) * 2.0 * f(m.heads + m.kv_heads);
        let mlp = if m.experts > 1 {
            let ffn = if m.expert_ffn > 0 {
                m.expert_ffn
            } else {
                m.ffn
            };
            f(m.experts) * (3.0 * f(m.hidden) * f(ffn) + f(m.hidden))
        } else {
            3.0 * f(m.hidden) * f(m.ffn)
        };
        let layers = f(m.layers) * (attention + mlp) * self.weight_bytes;
        let matrices = if m.tied { 1.0 } else { 2.0 };
        layers + matrices * f(m.vocab) * f(m.hidden) * self.weight_bytes.max(2.0)
    }
}

/// The model's `config.json`: its name in the folder, and what it says.
pub(super) fn model_config(dir: &Path) -> Result<String, Unreadable> {
    let is_config = |name: &str| {
        (name.starts_with("model_config") || name == "config.json") && name.ends_with(".json")
    };
    for path in files::entries(dir)? {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|name| path.is_file() && is_config(name)) {
            return Ok(name);
        }
    }
    Err(Unreadable::file(
        &dir.join("model_config*.json"),
        "there is no such file",
        "put the model's config.json there",
    ))
}
