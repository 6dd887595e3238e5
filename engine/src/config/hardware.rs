//! Machines and models that the catalogue does not know, and what steps draw.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Bandwidth, Bytes, Compute, HourlyPrice, Power, Span};

/// What a step draws.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EnergySpec {
    /// `idle + (peak - idle) * utilization` watts per GPU while a step runs, `idle` otherwise.
    Power {
        /// Per GPU, always.
        idle: Power,
        /// Per GPU, at full utilization.
        peak: Power,
    },
    /// Joules per output token `at_infinity + per_batch / B` (fits of measured servers), plus idle
    /// power while no step runs.
    PerToken {
        /// A fit of the catalogue that gives what is absent here.
        preset: Option<String>,
        /// Joules per token at an endless batch.
        at_infinity: Option<f64>,
        /// Joules per step, shared by the batch.
        per_batch: Option<f64>,
        /// Per GPU, while idle.
        idle: Option<Power>,
    },
}

/// A GPU that the catalogue does not know, or knows otherwise.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuSpec {
    /// Dense 16-bit operations per second.
    pub compute: Compute,
    /// Dense 8-bit operations per second; weights of one byte are computed in 16 bits if absent.
    pub compute_fp8: Option<Compute>,
    /// Memory, as the driver reports it.
    pub memory: Bytes,
    /// Memory bandwidth.
    pub bandwidth: Bandwidth,
    /// Bandwidth to the other GPUs of the replica, in one direction.
    pub interconnect: Bandwidth,
    /// Per collective call.
    pub interconnect_latency: Span,
    /// Power while idle.
    pub idle_power: Power,
    /// Power at full utilization.
    pub peak_power: Power,
    /// Price of an hour.
    pub price: HourlyPrice,
}

/// A dense decoder-only transformer with gated MLP that the catalogue does not know. The names in
/// brackets are those of a published `config.json`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Layers (`num_hidden_layers`).
    pub layers: u32,
    /// Width of the residual stream (`hidden_size`).
    pub hidden: u32,
    /// Width of the gated MLP (`intermediate_size`).
    pub ffn: u32,
    /// Query heads (`num_attention_heads`).
    pub heads: u32,
    /// Key-value heads, a divisor of `heads` (`num_key_value_heads`).
    pub kv_heads: u32,
    /// Numbers per head (`head_dim`).
    pub head_dim: u32,
    /// Rows of embedding and head, taken as two matrices (`vocab_size`).
    pub vocab: u32,
    /// Bytes per weight of the layers, up to 2; embedding and head have two. One: products too are in eight
    /// bits, where the GPU can. Less, as in int4: weights are stored so, and products are in sixteen bits.
    pub bytes_per_weight: f64,
    /// Longest prompt plus output (`max_position_embeddings`).
    pub max_len: u32,
}
