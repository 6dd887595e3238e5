//! How long a step takes, as scenario files say it.

use crate::cost::operators::OperatorTables;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use windtunnel_base::quantity::{Bandwidth, Span};

/// How long a step takes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CostSpec {
    /// From operations and bytes of the catalogue's GPU and model.
    Roofline {
        /// Share of peak compute reached by dense layers.
        #[serde(default = "default_compute_efficiency")]
        compute_efficiency: f64,
        /// Share of peak memory bandwidth reached.
        #[serde(default = "default_bandwidth_efficiency")]
        bandwidth_efficiency: f64,
        /// Fixed time per step: scheduler, launches, sampling.
        #[serde(default = "default_overhead")]
        overhead: Span,
    },
    /// A fit: `base + per_seq * decoding requests + per_context_token * their tokens in KV` and
    /// `per_prefill_token` for new prompt tokens.
    Linear(LinearSpec),
    /// Measured points, interpolated; outside their range the nearest cell is extended, and the
    /// result says so.
    Table(TableSpec),
    /// Operator tables measured on the GPU, composed into a step.
    ///
    /// A folder in one of three layouts, told apart by its files:
    ///
    /// - *curves* (`dense.csv`, `per_sequence.csv`, `attention.csv`, `meta.yaml`, optionally
    ///   `skew_fit.csv`, `moe.csv`; per degree of parallelism in `tp1/`, `tp2/`, … or beside
    ///   `meta.yaml`), microseconds per call. A step is what runs once (`embedding`,
    ///   `final_layernorm`, and everything of `per_sequence.csv`) plus, per layer, attention and
    ///   every other layer of `dense.csv`: `layernorm` twice, the rest once. Dense layers go by the
    ///   tokens of the step, `per_sequence.csv` by its requests, attention by four axes: tokens of
    ///   requests with more than one, what those have in KV, requests with one token, and the
    ///   floor of the mean of what those have in KV. All is linear between measured points and
    ///   above them, constant below. Where lengths differ and the folder's skew fit is enabled,
    ///   attention moves from the time at the mean length towards that at the largest by the share
    ///   measured for such batches (the mean of all where such chunks were not measured).
    /// - *lookup tables* (`attn_prefill.csv`, `attn_decode.csv` and one file per linear operator),
    ///   milliseconds per layer, composed as Vidur does: tokens rounded up to a multiple of 8,
    ///   lengths in KV to the tables' own step, several prompts as one of the root of the summed
    ///   squares, sums in the same order. Embedding, head and sampling are left out.
    /// - *raw profile* (`mlp*.csv`, `attention*.csv` with `time_stats.<op>.median`): the same, from
    ///   tables interpolated linearly between the medians. Vidur itself fits random forests to
    ///   them; on its runs the two differ by half a per cent per step and 0.2 % in sum.
    ///
    /// Steps outside what was measured are extended and counted as extrapolated. With
    /// `tensor_parallel` above 1, all-reduces after attention and after the MLP take their table
    /// (`all_reduce`) or, without one, the interconnect of the GPU.
    Operators(Box<OperatorsSpec>),
    /// The analytic step of BLIS: roofline terms weighted by fitted coefficients, in whole
    /// microseconds (truncated, at least 1).
    ///
    /// ```text
    /// b1a*prefill compute + b1b*prefill KV + b2a*decode compute + b2b*decode KV
    ///   + b3*weights + b4*all-reduces + b5*layers + b6*requests + b7 + b8*expert layers
    /// ```
    ///
    /// each term from operations over peak compute or bytes over peak bandwidth. Attention of a
    /// chunk of `t` tokens counts `t * (prompt + t/2)` pairs, keys and values two bytes per number.
    /// Without `b1b` (or `b2b`) prefill (decode) is `b1a` (`b2a`) times the larger of its terms;
    /// `b8` counts where dense and expert layers alternate. Experts are loaded evenly.
    Coefficients(Box<CoefficientsSpec>),
}

fn default_compute_efficiency() -> f64 {
    0.6
}
fn default_bandwidth_efficiency() -> f64 {
    0.8
}
fn default_overhead() -> Span {
    Span(windtunnel_base::time::SimDuration::from_micros(500))
}

impl Default for CostSpec {
    fn default() -> Self {
        Self::Roofline {
            compute_efficiency: default_compute_efficiency(),
            bandwidth_efficiency: default_bandwidth_efficiency(),
            overhead: default_overhead(),
        }
    }
}

/// A linear fit of the step time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LinearSpec {
    /// A fit of the catalogue (`h100-llama-3.1-8b`, …) that gives what is absent here.
    pub preset: Option<String>,
    /// Fixed time of a step.
    pub base: Option<Span>,
    /// Added per decoding request.
    pub per_seq: Option<Span>,
    /// Added per thousand tokens in KV of decoding requests.
    pub per_kilo_context: Option<Span>,
    /// Added per new prompt token.
    pub per_prefill_token: Option<Span>,
    /// Added per million query-key pairs of prefill attention.
    pub per_mega_pair: Option<Span>,
    /// Batch sizes the fit was made on; beyond them results are marked as extrapolated.
    pub max_seqs: Option<u32>,
}

/// Measured step times: in place, or from a file that `windtunnel calibrate` wrote.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// A calibration that gives everything else; a relative path starts at the scenario file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Digest of that file. Written when a scenario is loaded; where it is given, other contents
    /// are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Decode steps: requests, mean tokens in KV per request, time in ms.
    #[serde(default)]
    pub decode: Vec<DecodePoint>,
    /// Prefill: new tokens, mean tokens in KV before them, time in ms.
    #[serde(default)]
    pub prefill: Vec<PrefillPoint>,
    /// Milliseconds added for every prefilling request of a step beyond the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extra_prompt_ms: f64,
    /// Milliseconds by which a step that decodes and prefills is shorter than two steps, one of
    /// each: what is paid once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mixed_saving_ms: f64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

/// One measured decode step.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecodePoint {
    /// Decoding requests.
    pub seqs: u32,
    /// Mean tokens in KV per request.
    pub context: u32,
    /// Step time in milliseconds.
    pub ms: f64,
}

/// One measured prefill step.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrefillPoint {
    /// New prompt tokens in the step.
    pub tokens: u32,
    /// Tokens in KV before them.
    pub context: u32,
    /// Step time in milliseconds.
    pub ms: f64,
}

/// Operator tables of a folder.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorsSpec {
    /// The folder; a relative path starts at the scenario file.
    pub folder: String,
    /// Fixed time added to every step, such as that of a scheduler on the CPU.
    #[serde(default)]
    pub overhead: Span,
    /// The link over which collectives run that have no table; that of the GPU if absent.
    #[serde(default)]
    pub link: Option<LinkSpec>,
    /// Calls per transformer layer of layers in `dense.csv` whose names are not known.
    #[serde(default)]
    pub calls: BTreeMap<String, u32>,
    /// Hugging Face `config.json` of the model, for the number of layers and of experts; that of
    /// the engine's `model` if absent. A relative path starts at the scenario file.
    #[serde(default)]
    pub model_config: Option<String>,
    /// Digest of the files that were read. Written when a scenario is loaded; where it is given,
    /// other contents are refused.
    #[serde(default)]
    pub digest: Option<String>,
    /// The tables, once read.
    #[serde(skip)]
    #[schemars(skip)]
    pub tables: Resident<OperatorTables>,
}

/// The link between the GPUs of a replica.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// In one direction.
    pub bandwidth: Bandwidth,
    /// Of one hop; a ring all-reduce over `p` GPUs takes `2 (p - 1)` of them.
    pub latency: Span,
}

/// Something read from files that are named beside it, shared by all who hold it. It is no part of
/// the text of a scenario and does not count in comparisons: its digest stands beside it.
#[derive(Debug)]
pub struct Resident<T>(pub Option<Arc<T>>);

impl<T> Default for Resident<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Clone for Resident<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> PartialEq for Resident<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Coefficients of an analytic step. What is absent here is read from `file` and `model_config`,
/// and written into the resolved scenario.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CoefficientsSpec {
    /// A `coefficients.json` with `alpha_us`, `beta`, `hardware` and `model`; a relative path
    /// starts at the scenario file.
    pub file: Option<String>,
    /// Entry of `hardware` in that file, such as `H100`; not needed if it has one only.
    pub hardware: Option<String>,
    /// Hugging Face `config.json` of the model. Without it the model is that of `file`, and
    /// without that, the engine's own.
    pub model_config: Option<String>,
    /// Digest of the files that were read. Written when a scenario is loaded; where it is given,
    /// other contents are refused.
    pub digest: Option<String>,
    /// Microseconds outside of steps: from arrival to the queue, after the last token, and per
    /// output token.
    pub alpha_us: Option<[f64; 3]>,
    /// Weights of the terms of a step.
    pub beta: Option<BetaSpec>,
    /// Peak of 16-bit compute, in 10^12 operations per second.
    pub tflops: Option<f64>,
    /// Peak of 8-bit compute, taken for weights of one byte; `tflops` if absent.
    pub tflops_fp8: Option<f64>,
    /// Peak memory bandwidth, in 10^12 bytes per second.
    pub hbm_tbps: Option<f64>,
    /// The model, as far as the step depends on it.
    pub architecture: Option<ArchitectureSpec>,
}

/// Weights of the terms of a step: factors, and microseconds where it says so.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BetaSpec {
    /// Prefill compute.
    pub b1a: f64,
    /// Keys and values written by prefill.
    pub b1b: Option<f64>,
    /// Decode compute.
    pub b2a: f64,
    /// Keys and values read by decode.
    pub b2b: Option<f64>,
    /// Weights.
    pub b3: f64,
    /// All-reduces of tensor parallelism.
    pub b4: f64,
    /// Microseconds per layer.
    pub b5: f64,
    /// Microseconds per request of the step.
    pub b6: f64,
    /// Microseconds per step.
    pub b7: f64,
    /// Microseconds per expert layer, where dense and expert layers alternate.
    pub b8: f64,
}

/// A model as the analytic step sees it. Names in brackets are those of a published `config.json`.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ArchitectureSpec {
    /// Layers (`num_hidden_layers`).
    pub layers: u32,
    /// Width of the residual stream (`hidden_size`).
    pub hidden: u32,
    /// Query heads (`num_attention_heads`); a head is `hidden / heads` wide.
    pub heads: u32,
    /// Key-value heads (`num_key_value_heads`).
    pub kv_heads: u32,
    /// Width of the MLP (`intermediate_size`).
    pub ffn: u32,
    /// Bytes per number of activations (`torch_dtype`).
    pub bytes: f64,
    /// Bytes per weight (`quantization_config`); `bytes` if absent.
    pub weight_bytes: Option<f64>,
    /// Experts of an expert layer (`num_experts`, …); dense if below 2.
    pub experts: u32,
    /// Experts that a token is routed to (`num_experts_per_tok`).
    pub experts_per_token: u32,
    /// Width of an expert (`moe_intermediate_size`); `ffn` if 0.
    pub expert_ffn: u32,
    /// Width of the shared expert of an expert layer; none if 0.
    pub shared_ffn: u32,
    /// Width of the MLP of dense layers among expert layers (`intermediate_size_mlp`); `ffn` if 0.
    pub dense_ffn: u32,
    /// Dense layers before each expert layer (`interleave_moe_layer_step`).
    pub interleave: u32,
}
