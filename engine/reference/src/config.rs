//! Sizes of a decoder of the Llama family, as a published `config.json` names them.

use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// Files as they are published.
mod published;

/// Sizes of a decoder.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key-value heads, a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
    /// Rows of embedding and head.
    pub vocab_size: usize,
    /// Longest prompt plus output.
    pub max_position_embeddings: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Added to the mean square before its root is taken.
    pub rms_norm_eps: f64,
    /// Embedding and head are one matrix.
    pub tie_word_embeddings: bool,
    /// How rotary positions are stretched beyond the length that was trained first; none if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
}

/// How rotary positions are stretched.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case")]
pub enum RopeScaling {
    /// All angles are smaller by a factor.
    Linear {
        /// Which.
        factor: f64,
    },
    /// As Llama 3.1: slow angles are smaller by a factor, fast ones stay, and those between are between.
    Llama3 {
        /// Which.
        factor: f64,
        /// Angles that turn fewer times than this within the first length are slow.
        low_freq_factor: f64,
        /// Those that turn more often than this are fast.
        high_freq_factor: f64,
        /// The first length, in tokens.
        original_max_position_embeddings: f64,
    },
}

impl ModelConfig {
    /// The pocket model that answers.
    pub fn pocket_frontier() -> Self {
        Self {
            hidden_size: 192,
            intermediate_size: 512,
            num_hidden_layers: 4,
            num_attention_heads: 6,
            num_key_value_heads: 2,
            head_dim: 64,
            vocab_size: windtunnel_tasks::tokenizer::VOCAB as usize,
            max_position_embeddings: 512,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            rope_scaling: None,
        }
    }

    /// The pocket model that is distilled from it.
    pub fn pocket_light() -> Self {
        Self {
            hidden_size: 128,
            intermediate_size: 256,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            ..Self::pocket_frontier()
        }
    }

    /// The sizes of published models of the Llama family with 8 billion weights.
    pub const fn eight_billion() -> Self {
        Self {
            hidden_size: 4_096,
            intermediate_size: 14_336,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            head_dim: 128,
            vocab_size: 128_256,
            max_position_embeddings: 8_192,
            rope_theta: 500_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            rope_scaling: None,
        }
    }

    /// Checks that the sizes describe a decoder.
    ///
    /// # Errors
    /// Which field does not, why, and what would.
    pub fn check(&self) -> Result<(), ReferenceError> {
        let fields = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let wrong = |field: &str, reason: String, remedy: &str| {
            Err(ReferenceError::Config {
                field: field.to_owned(),
                reason,
                remedy: remedy.to_owned(),
            })
        };
        for (field, value) in fields {
            if !(1..=1 << 24).contains(&value) {
                return wrong(
                    field,
                    format!("{value} describes no decoder"),
                    "give a size from 1 to 16777216",
                );
            }
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return wrong(
                "num_key_value_heads",
                format!(
                    "{} does not divide {} query heads",
                    self.num_key_value_heads, self.num_attention_heads
                ),
                "give a divisor of num_attention_heads",
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong(
                "head_dim",
                format!("{} is odd, and rotary positions turn pairs", self.head_dim),
                "give an even number",
            );
        }
        if !(self.rope_theta > 0.0 && self.rope_theta.is_finite()) {
            return wrong(
                "rope_theta",
                format!("{} is no base of angles", self.rope_theta),
                "give a positive number",
            );
        }
        if !(self.rms_norm_eps >= 0.0 && self.rms_norm_eps.is_finite()) {
            return wrong(
                "rms_norm_eps",
                format!("{} cannot be added to a mean square", self.rms_norm_eps),
                "give zero or a small positive number",
            );
        }
        match self.rope_scaling {
            Some(scaling) if !scaling.has_meaning() => wrong(
                "rope_scaling",
                format!("{scaling:?} stretches nothing"),
                "give a factor of 1 or more, and a high_freq_factor above the low one",
            ),
            _ => Ok(()),
        }
    }

    /// Radians by which the `i`th pair of a head turns per position.
    pub fn rope_frequency(&self, i: usize) -> f64 {
        let plain = self
            .rope_theta
            .powf(-(i as f64) / (self.head_dim / 2) as f64);
        match self.rope_scaling {
            None => plain,
            Some(RopeScaling::Linear { factor }) => plain / factor,
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: first,
            }) => {
                let turns = first * plain / (2.0 * PI);
                let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                plain * (fast + (1.0 - fast) / factor)
            }
        }
    }

    /// Numbers of all weights; the largest there is if they are more.
    pub fn parameters(&self) -> usize {
        let times = usize::saturating_mul;
        let h = self.hidden_size;
        let heads = self.num_attention_heads + self.num_key_value_heads;
        let turned = times(times(2, heads), self.head_dim);
        let per_channel = turned.saturating_add(3 * self.intermediate_size + 2);
        let layers = times(self.num_hidden_layers, times(h, per_channel));
        let ends = self.vocab_size * (2 - usize::from(self.tie_word_embeddings)) + 1;
        layers.saturating_add(times(ends, h))
    }

    /// Bytes of all weights as 32-bit floats, which is how they are kept on the host.
    pub fn host_bytes(&self) -> u64 {
        (self.parameters() as u64).saturating_mul(4)
    }

    /// Numbers that are kept for each token: a key and a value per layer and key-value head.
    pub fn kv_numbers(&self) -> u64 {
        let per_layer = 2 * self.num_key_value_heads as u64 * self.head_dim as u64;
        per_layer.saturating_mul(self.num_hidden_layers as u64)
    }
}

impl RopeScaling {
    fn has_meaning(self) -> bool {
        let stretches = |factor: f64| factor >= 1.0 && factor.is_finite();
        match self {
            Self::Linear { factor } => stretches(factor),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: first,
            } => stretches(factor) && 0.0 < low && low < high && high.is_finite() && first >= 1.0,
        }
    }
}
