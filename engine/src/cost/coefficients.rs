//! Step time from a roofline whose terms are weighted by fitted coefficients, as in BLIS
//! (`trained-physics`). Floats are multiplied and summed in its order, so that steps agree to the
//! microsecond; sums over requests are whole numbers (or halves) below 2^53 and have no order.

use crate::batch::BatchShape;
use crate::config::{ArchitectureSpec, BetaSpec};

/// Bytes per number in KV.
const KV_BYTES: f64 = 2.0;

/// What a step depends on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CoefficientSettings {
    /// Weights of the terms.
    pub beta: BetaSpec,
    /// The model.
    pub architecture: ArchitectureSpec,
    /// Peak of 16-bit compute, in 10^12 operations per second.
    pub tflops: f64,
    /// Peak of 8-bit compute, if the GPU has it.
    pub tflops_fp8: Option<f64>,
    /// Peak memory bandwidth, in 10^12 bytes per second.
    pub hbm_tbps: f64,
    /// GPUs that share every layer.
    pub tensor_parallel: u32,
}

/// A weighted roofline.
#[derive(Clone, PartialEq, Debug)]
pub struct Coefficients {
    beta: BetaSpec,
    layers: f64,
    expert_layers: f64,
    dense_layers: f64,
    hidden: f64,
    kv_width: f64,
    head_width: f64,
    /// Query heads of one GPU.
    heads: f64,
    expert_ffn: f64,
    shared_ffn: f64,
    dense_ffn: f64,
    experts_per_token: f64,
    gpus: f64,
    /// Bytes per number of activations.
    bytes: f64,
    /// Operations, and bytes, per microsecond.
    flops: f64,
    bandwidth: f64,
    /// `b3` times the microseconds of reading all weights.
    weights: f64,
    /// `b5` times the layers.
    per_layer: f64,
    /// `b8` times the expert layers, where they alternate with dense ones.
    per_expert_layer: f64,
    /// Operations of decode weigh nothing, so they need not be counted.
    decode_is_reading: bool,
}

impl Coefficients {
    /// The roofline of a model on a GPU. Heads must divide `hidden`, GPUs must divide heads.
    pub fn new(s: &CoefficientSettings) -> Self {
        let a = &s.architecture;
        let or = |value: u32, other: u32| f64::from(if value > 0 { value } else { other });
        let has_experts = a.experts >= 2;
        let expert_layers = match (has_experts, a.interleave) {
            (false, _) => 0,
            (true, 0) => a.layers,
            (true, step) => a.layers / (step + 1),
        };
        let alternates = has_experts && a.interleave > 0;
        let weight_bytes = a.weight_bytes.filter(|b| *b > 0.0).unwrap_or(a.bytes);
        let fp8 = s.tflops_fp8.filter(|t| *t > 0.0 && weight_bytes == 1.0);
        let gpus = f64::from(s.tensor_parallel.max(1));
        let head_width = a.hidden / a.heads.max(1);
        let mut it = Self {
            beta: s.beta,
            layers: f64::from(a.layers),
            expert_layers: f64::from(expert_layers),
            dense_layers: f64::from(a.layers - expert_layers),
            hidden: f64::from(a.hidden),
            kv_width: f64::from(a.kv_heads) * f64::from(head_width),
            head_width: f64::from(head_width),
            heads: f64::from(a.heads) / gpus,
            expert_ffn: or(a.expert_ffn, a.ffn),
            shared_ffn: f64::from(a.shared_ffn),
            dense_ffn: or(a.dense_ffn, a.ffn),
            experts_per_token: f64::from(a.experts_per_token.max(1)),
            gpus,
            bytes: a.bytes,
            flops: fp8.unwrap_or(s.tflops) * 1e6,
            bandwidth: s.hbm_tbps * 1e6,
            weights: 0.0,
            per_layer: s.beta.b5 * f64::from(a.layers),
            per_expert_layer: 0.0,
            decode_is_reading: s.beta.b2b.is_some() && s.beta.b2a == 0.0,
        };
        if alternates {
            it.per_expert_layer = s.beta.b8 * it.expert_layers;
        }
        it.weights = s.beta.b3 * it.weight_time(f64::from(a.experts), weight_bytes);
        it
    }

    /// Microseconds of reading all weights of one GPU once.
    fn weight_time(&self, experts: f64, bytes: f64) -> f64 {
        let (layers, d, dkv) = (self.layers, self.hidden, self.kv_width);
        let attention = layers * d * (2.0 * d + 2.0 * dkv) * bytes / self.gpus;
        let mut ffn = 0.0;
        if self.expert_layers > 0.0 {
            let owned = experts / self.gpus;
            ffn += self.expert_layers * owned * 3.0 * d * self.expert_ffn * bytes;
            if self.shared_ffn > 0.0 {
                ffn += self.expert_layers * 3.0 * d * self.shared_ffn * bytes / self.gpus;
            }
        }
        if self.dense_layers > 0.0 {
            ffn += self.dense_layers * 1.0 * 3.0 * d * self.dense_ffn * bytes / self.gpus;
        }
        (attention + ffn) / self.bandwidth
    }

    /// Operations of projections and MLP for so many tokens.
    #[inline]
    fn linear_flops(&self, tokens: f64) -> (f64, f64) {
        let (d, dkv) = (self.hidden, self.kv_width);
        let projections = self.layers * 2.0 * tokens * d * (2.0 * d + 2.0 * dkv) / self.gpus;
        let mut ffn = 0.0;
        if self.expert_layers > 0.0 {
            let routed = tokens * self.experts_per_token / self.gpus;
            ffn += self.expert_layers * routed * 6.0 * d * self.expert_ffn;
            if self.shared_ffn > 0.0 {
                ffn += self.expert_layers * tokens * 6.0 * d * self.shared_ffn / self.gpus;
            }
        }
        if self.dense_layers > 0.0 {
            ffn += self.dense_layers * tokens * 1.0 * 6.0 * d * self.dense_ffn / self.gpus;
        }
        (projections, ffn)
    }

    /// Microseconds of an all-reduce in so many layers.
    #[inline]
    fn reduce(&self, units: f64, tokens: f64) -> f64 {
        let share = (self.gpus - 1.0) / self.gpus;
        units * tokens * self.hidden * self.bytes * 2.0 * share / self.bandwidth
    }

    /// The weighted terms of prefill.
    #[inline]
    fn prefill(&self, shape: &BatchShape) -> f64 {
        let tokens = shape.prefill_tokens as f64;
        let (mut compute, mut kv) = (0.0, 0.0);
        if shape.prefill_tokens > 0 {
            let (projections, ffn) = self.linear_flops(tokens);
            // Sum of `4 * heads * t * (prompt + t/2) * width` over requests.
            let pairs = shape.prefill_prompt_products as f64 + shape.prefill_squares as f64 / 2.0;
            let attention = self.layers * (4.0 * self.heads * pairs * self.head_width);
            compute = (projections + attention + ffn) / self.flops;
            let bytes = self.layers * 2.0 * (self.kv_width / self.gpus) * tokens * KV_BYTES;
            kv = bytes / self.bandwidth;
        }
        match self.beta.b1b {
            Some(b1b) => self.beta.b1a * compute + b1b * kv,
            None => self.beta.b1a * compute.max(kv),
        }
    }

    /// The weighted terms of decode.
    #[inline]
    fn decode(&self, shape: &BatchShape) -> f64 {
        let tokens = f64::from(shape.decode_seqs);
        let (mut compute, mut kv) = (0.0, 0.0);
        if shape.decode_seqs > 0 {
            let context = shape.decode_context as f64;
            if !self.decode_is_reading {
                let (projections, ffn) = self.linear_flops(tokens);
                let attention = self.layers * 4.0 * self.heads * context * self.head_width;
                compute = (projections + attention + ffn) / self.flops;
            }
            let per_token = self.layers * 2.0 * (self.kv_width / self.gpus) * KV_BYTES;
            kv = per_token * (context + tokens) / self.bandwidth;
        }
        match self.beta.b2b {
            Some(b2b) => self.beta.b2a * compute + b2b * kv,
            None => self.beta.b2a * compute.max(kv),
        }
    }

    /// Microseconds of a step, truncated, at least 1.
    pub fn micros(&self, shape: &BatchShape) -> u64 {
        let b = &self.beta;
        let mut reduce = 0.0;
        if self.gpus > 1.0 {
            let tokens = shape.tokens() as f64;
            reduce = self.reduce(self.layers, tokens) + self.reduce(self.dense_layers, tokens);
            if self.expert_layers > 0.0 {
                reduce += self.reduce(self.expert_layers, tokens);
            }
        }
        let micros = self.prefill(shape)
            + self.decode(shape)
            + self.weights
            + b.b4 * reduce
            + self.per_layer
            + b.b6 * f64::from(shape.seqs())
            + b.b7
            + self.per_expert_layer;
        // Truncates, and holds what is out of range at the ends.
        (micros as u64).max(1)
    }
}
