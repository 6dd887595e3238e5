//! `config.json` as it is published beside weights: what it leaves out has the value that the format
//! gives it, and what would be computed otherwise here is refused.

use super::{ModelConfig, RopeScaling};
use crate::error::ReferenceError;
use serde::Deserialize;
use std::path::Path;

/// Kinds of models that are this decoder and nothing more.
const COMPUTED: [&str; 2] = ["llama", "mistral"];

/// The keys that say what is computed; others are about training and generation.
#[derive(Deserialize)]
struct Published {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    #[serde(default = "usual_length")]
    max_position_embeddings: usize,
    rope_theta: Option<f64>,
    #[serde(default = "usual_eps")]
    rms_norm_eps: f64,
    #[serde(default)]
    tie_word_embeddings: bool,
    rope_scaling: Option<serde_json::Value>,
    /// Base and scaling under one key, in newer files.
    rope_parameters: Option<serde_json::Value>,
    model_type: Option<String>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    partial_rotary_factor: Option<f64>,
}

const fn usual_length() -> usize {
    2_048
}

const fn usual_eps() -> f64 {
    1e-6
}

impl ModelConfig {
    /// Sizes from the `config.json` of `folder`.
    ///
    /// # Errors
    /// If it cannot be read, describes no decoder, or one that computes something else.
    pub fn read(folder: &Path) -> Result<Self, ReferenceError> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|error| ReferenceError::File {
            path: path.clone(),
            error,
        })?;
        Self::published(&text, &path)
    }

    /// Sizes from the text of a published file, which `path` names in errors.
    ///
    /// # Errors
    /// As [`ModelConfig::read`].
    pub fn published(text: &str, path: &Path) -> Result<Self, ReferenceError> {
        let said: Published =
            serde_json::from_str(text).map_err(|e| ReferenceError::Malformed {
                path: path.to_owned(),
                reason: e.to_string(),
                remedy: "take the config.json that was published with the weights".into(),
            })?;
        said.computed()?;
        let heads = said.num_attention_heads;
        let config = Self {
            hidden_size: said.hidden_size,
            intermediate_size: said.intermediate_size,
            num_hidden_layers: said.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: said.num_key_value_heads.unwrap_or(heads),
            head_dim: said.head_dim.unwrap_or(said.hidden_size / heads.max(1)),
            vocab_size: said.vocab_size,
            max_position_embeddings: said.max_position_embeddings,
            rope_theta: said.theta(),
            rms_norm_eps: said.rms_norm_eps,
            tie_word_embeddings: said.tie_word_embeddings,
            rope_scaling: said.scaling()?,
        };
        config.check()?;
        Ok(config)
    }
}

impl Published {
    /// Refuses what this decoder does not compute, so that no answer is silently another model's.
    fn computed(&self) -> Result<(), ReferenceError> {
        if let Some(kind) = &self.model_type
            && !COMPUTED.contains(&kind.as_str())
        {
            return refused(
                "model_type",
                &format!("a model of type `{kind}` computes something else"),
            );
        }
        match self.hidden_act.as_deref() {
            None | Some("silu" | "swish") => {}
            Some(other) => {
                return refused("hidden_act", &format!("the gate is SiLU, not `{other}`"));
            }
        }
        if self.attention_bias {
            return refused("attention_bias", "there are no biases here");
        }
        if self.mlp_bias {
            return refused("mlp_bias", "there are no biases here");
        }
        if let Some(window) = self
            .sliding_window
            .filter(|w| *w < self.max_position_embeddings)
        {
            return refused(
                "sliding_window",
                &format!("attention reads the whole context, not the last {window} tokens"),
            );
        }
        match self.partial_rotary_factor {
            Some(share) if share != 1.0 => {
                refused("partial_rotary_factor", "all of a head is turned")
            }
            _ => Ok(()),
        }
    }

    fn theta(&self) -> f64 {
        let newer = self
            .rope_parameters
            .as_ref()
            .and_then(|p| p.get("rope_theta"));
        let newer = newer.and_then(serde_json::Value::as_f64);
        self.rope_theta.or(newer).unwrap_or(10_000.0)
    }

    fn scaling(&self) -> Result<Option<RopeScaling>, ReferenceError> {
        let given = self.rope_scaling.as_ref().or(self.rope_parameters.as_ref());
        let Some(given) = given.filter(|g| !g.is_null()) else {
            return Ok(None);
        };
        // Older files say `type`.
        let kind = given.get("rope_type").or_else(|| given.get("type"));
        let kind = kind
            .and_then(serde_json::Value::as_str)
            .unwrap_or("default");
        if kind == "default" {
            return Ok(None);
        }
        let mut named = given.clone();
        if let Some(fields) = named.as_object_mut() {
            fields.insert("rope_type".into(), kind.into());
        }
        match serde_json::from_value(named) {
            Ok(scaling) => Ok(Some(scaling)),
            Err(error) => refused("rope_scaling", &format!("`{kind}`: {error}")),
        }
    }
}

fn refused<T>(field: &str, reason: &str) -> Result<T, ReferenceError> {
    Err(ReferenceError::Config {
        field: field.into(),
        reason: reason.into(),
        remedy: "take a model of the Llama family".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Only what a file must say.
    fn least() -> Value {
        json!({
            "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "vocab_size": 32000
        })
    }

    fn with(more: Value) -> Result<ModelConfig, String> {
        let mut all = least();
        let fields = more.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(fields);
        ModelConfig::published(&all.to_string(), Path::new("config.json"))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn what_a_file_leaves_out_is_as_the_format_says() {
        let config = with(json!({"model_type": "llama", "rope_scaling": null})).unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim), (32, 128));
        assert_eq!((config.rope_theta, config.rms_norm_eps), (10_000.0, 1e-6));
        assert_eq!(config.max_position_embeddings, 2_048);
        assert!(!config.tie_word_embeddings && config.rope_scaling.is_none());
        let newer = with(json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}));
        assert_eq!(newer.unwrap().rope_theta, 5e5);
        let own = ModelConfig::pocket_light();
        let text = serde_json::to_string(&own).unwrap();
        let read = ModelConfig::published(&text, Path::new("config.json"));
        assert_eq!(read.unwrap(), own);
    }

    #[test]
    fn what_would_be_computed_otherwise_is_refused_by_name() {
        for (more, field) in [
            (json!({"model_type": "qwen2"}), "model_type"),
            (json!({"hidden_act": "gelu"}), "hidden_act"),
            (json!({"attention_bias": true}), "attention_bias"),
            (json!({"mlp_bias": true}), "mlp_bias"),
            (json!({"sliding_window": 1024}), "sliding_window"),
            (
                json!({"partial_rotary_factor": 0.5}),
                "partial_rotary_factor",
            ),
            (
                json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}),
                "rope_scaling",
            ),
            (
                json!({"rope_scaling": {"type": "linear", "factor": 0.0}}),
                "rope_scaling",
            ),
            (json!({"num_attention_heads": 0}), "num_attention_heads"),
            (json!({"num_attention_heads": 3}), "head_dim"),
        ] {
            let error = with(more).unwrap_err();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
        // A window as long as the longest context changes nothing.
        assert!(with(json!({"model_type": "mistral", "sliding_window": 2048})).is_ok());
    }

    /// Llama 3.1, whose 64 angles have base 500000: 0 turns 1303.8 times within 8192 tokens, 29 does 3.41 times, 40
    /// 0.36 times. By hand, 29 is `(3.406 - 1) / 3 = 0.802` fast, so `0.802 + 0.198 / 8` of what it was.
    #[test]
    fn angles_are_stretched_as_published() {
        let scaled = json!({
            "head_dim": 128, "rope_theta": 500000.0, "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192
            }
        });
        let config = with(scaled).unwrap();
        let plain = ModelConfig {
            rope_scaling: None,
            ..config.clone()
        };
        let share = |i| config.rope_frequency(i) / plain.rope_frequency(i);
        assert!((share(0) - 1.0).abs() < 1e-12);
        assert!((share(29) - 0.827).abs() < 0.002, "{}", share(29));
        assert!((share(40) - 0.125).abs() < 1e-12);
        let linear = with(json!({"rope_scaling": {"type": "linear", "factor": 4.0}})).unwrap();
        assert!((linear.rope_frequency(0) - 0.25).abs() < 1e-12);
    }
}
