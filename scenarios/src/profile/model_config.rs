//! Hugging Face `config.json`: what engines and cost models need of a model.

use super::ProfileError;
use super::files::Files;
use serde_json::Value as Json;
use std::path::Path;
use windtunnel_engine::config::{ArchitectureSpec, ModelSpec};

/// What a `config.json` says of a model. Zero where it says nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ModelConfig {
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the MLP.
    pub ffn: u32,
    /// Query heads.
    pub heads: u32,
    /// Key-value heads; as many as query heads if the file says nothing.
    pub kv_heads: u32,
    /// Numbers per head; `hidden / heads` if the file says nothing.
    pub head_dim: u32,
    /// Rows of the embedding.
    pub vocab: u32,
    /// Longest prompt plus output.
    pub max_len: u32,
    /// Bytes per number of activations; 0 if the type is not known.
    pub bytes: f64,
    /// Bytes per weight, if weights are quantized.
    pub weight_bytes: Option<f64>,
    /// Experts of an expert layer; 0 if dense.
    pub experts: u32,
    /// Experts per token.
    pub experts_per_token: u32,
    /// Width of an expert.
    pub expert_ffn: u32,
    /// Width of the shared expert.
    pub shared_ffn: u32,
    /// Width of the MLP of dense layers among expert layers.
    pub dense_ffn: u32,
    /// Dense layers before each expert layer.
    pub interleave: u32,
    /// Embedding and head are one matrix.
    pub tied: bool,
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it cannot be read, is no JSON, or lacks what every model has.
    pub fn open(path: &Path) -> Result<Self, ProfileError> {
        read(&mut Files::default(), path)
    }

    /// The model as engines describe it. Expert layers are no part of such a description: their
    /// width is that of one expert, so give memory for keys and values as blocks.
    pub fn model_spec(&self) -> ModelSpec {
        ModelSpec {
            layers: self.layers,
            hidden: self.hidden,
            ffn: if self.ffn > 0 {
                self.ffn
            } else {
                self.expert_ffn
            },
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            vocab: self.vocab,
            bytes_per_weight: match self.weight_bytes.unwrap_or(self.bytes) {
                quantized if quantized > 0.0 && quantized < 2.0 => quantized,
                _ => 2.0,
            },
            max_len: self.max_len,
        }
    }

    /// The model as the analytic step sees it.
    pub fn architecture(&self) -> ArchitectureSpec {
        ArchitectureSpec {
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            kv_heads: self.kv_heads,
            ffn: self.ffn,
            bytes: self.bytes,
            weight_bytes: self.weight_bytes,
            experts: self.experts,
            experts_per_token: self.experts_per_token,
            expert_ffn: self.expert_ffn,
            shared_ffn: self.shared_ffn,
            dense_ffn: self.dense_ffn,
            interleave: self.interleave,
        }
    }
}

pub(super) fn read(files: &mut Files, path: &Path) -> Result<ModelConfig, ProfileError> {
    let text = files.text(path)?;
    let json: Json = serde_json::from_str(&text).map_err(|e| {
        let reason = format!("it is no JSON: {e}");
        ProfileError::new(
            path,
            e.line() as u64,
            reason,
            "take the model's `config.json`",
        )
    })?;
    let config = of_json(&json);
    let needed = [
        ("num_hidden_layers", config.layers),
        ("hidden_size", config.hidden),
        ("num_attention_heads", config.heads),
    ];
    for (name, value) in needed {
        if value == 0 {
            let reason = format!("`{name}` is absent or no whole number above zero");
            let remedy = "take the model's `config.json`";
            return Err(ProfileError::new(path, 0, reason, remedy));
        }
    }
    Ok(config)
}

fn of_json(json: &Json) -> ModelConfig {
    // Models of several kinds of input keep the part for text in a table of its own.
    let inner = json.get("text_config");
    let value = |name: &str| inner.and_then(|t| t.get(name)).or_else(|| json.get(name));
    let whole = |names: &[&str], least: u64| {
        let found = names
            .iter()
            .filter_map(|name| value(name)?.as_u64())
            .find(|n| *n >= least);
        found.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    };
    let heads = whole(&["num_attention_heads"], 1);
    let hidden = whole(&["hidden_size"], 1);
    let or = |value: u32, other: u32| if value > 0 { value } else { other };
    let ffn = whole(&["intermediate_size", "ffn_hidden_size"], 1);
    let expert_ffn = whole(&["moe_intermediate_size"], 1);
    let shared = whole(&["n_shared_experts"], 1);
    let shared_ffn = or(
        whole(&["shared_expert_intermediate_size"], 1),
        shared.saturating_mul(or(expert_ffn, ffn)),
    );
    let dtype = ["torch_dtype", "dtype"]
        .iter()
        .find_map(|n| value(n)?.as_str());
    ModelConfig {
        layers: whole(&["num_hidden_layers"], 1),
        hidden,
        ffn,
        heads,
        kv_heads: or(
            whole(
                &[
                    "num_key_value_heads",
                    "num_kv_heads",
                    "multi_query_group_num",
                ],
                1,
            ),
            heads,
        ),
        head_dim: or(whole(&["head_dim"], 1), hidden / heads.max(1)),
        vocab: whole(&["vocab_size"], 1),
        max_len: whole(&["max_position_embeddings"], 1),
        bytes: match dtype {
            Some("float32") => 4.0,
            Some("float16" | "bfloat16") => 2.0,
            Some("int8" | "uint8" | "fp8" | "int4" | "nf4") => 1.0,
            _ => 0.0,
        },
        weight_bytes: value("quantization_config").and_then(quantized),
        experts: whole(
            &[
                "num_experts",
                "moe_num_experts",
                "n_routed_experts",
                "num_local_experts",
                "num_routed_experts",
            ],
            2,
        ),
        experts_per_token: whole(&["num_experts_per_tok"], 1),
        expert_ffn,
        shared_ffn,
        dense_ffn: whole(&["intermediate_size_mlp"], 1),
        interleave: whole(&["interleave_moe_layer_step"], 1),
        tied: value("tie_word_embeddings").and_then(Json::as_bool) == Some(true),
    }
}

/// Bytes per quantized weight.
fn quantized(config: &Json) -> Option<f64> {
    let bits = config.get("bits");
    let text = |b: &Json| b.as_str()?.parse::<f64>().ok();
    if let Some(bits) = bits.and_then(|b| b.as_f64().or_else(|| text(b)))
        && bits > 0.0
    {
        return Some(bits / 8.0);
    }
    let method = config.get("quant_method")?.as_str()?;
    if method.eq_ignore_ascii_case("fp8") {
        return Some(1.0);
    }
    if !method.eq_ignore_ascii_case("compressed-tensors") {
        return None;
    }
    let groups = config.get("config_groups")?.as_object()?;
    let mut names: Vec<_> = groups.keys().collect();
    names.sort();
    names
        .into_iter()
        .filter_map(|name| groups[name].pointer("/weights/num_bits")?.as_f64())
        .find(|bits| *bits > 0.0)
        .map(|bits| bits / 8.0)
}
