//! Sizes of a decoder of the Llama family, as a published `config.json` names them.

use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};

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
        Ok(())
    }

    /// Numbers of all weights.
    pub fn parameters(&self) -> usize {
        let h = self.hidden_size;
        let (q, kv) = (
            self.num_attention_heads * self.head_dim,
            self.num_key_value_heads * self.head_dim,
        );
        let layer = h * (2 * q + 2 * kv) + 3 * h * self.intermediate_size + 2 * h;
        let ends = self.vocab_size * h * (2 - usize::from(self.tie_word_embeddings));
        self.num_hidden_layers * layer + ends + h
    }
}
