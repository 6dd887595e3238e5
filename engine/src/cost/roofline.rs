//! Step time from operations and bytes. With `T` tokens in the step, of which `S` requests emit:
//!
//! ```text
//! layers   max(2 * weights * T / compute,               weight bytes / bandwidth)
//! head     max(2 * hidden * vocab * S / compute,        head bytes / bandwidth)
//! prefill  max(4 * layers * heads * head_dim * pairs / compute, KV bytes read / bandwidth)
//! decode   max(4 * layers * heads * head_dim * context / compute, KV bytes read / bandwidth)
//! ```
//!
//! plus all-reduces and a fixed overhead. Compute and bandwidth are those of all GPUs times an
//! efficiency. Weights are read once per step; activations are left out.

use super::interconnect::AllReduce;
use crate::batch::BatchShape;
use crate::hardware::{Gpu, Model};

/// The roofline of one model on one kind of GPU: seconds per unit of work.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Roofline {
    layers_per_token: f64,
    layers_per_step: f64,
    head_per_sample: f64,
    head_per_step: f64,
    attention_per_pair: f64,
    kv_per_token: f64,
    all_reduce: AllReduce,
    overhead: f64,
}

/// What a roofline depends on beside the hardware.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RooflineSettings {
    /// GPUs that share every layer.
    pub tensor_parallel: u32,
    /// Share of peak compute reached.
    pub compute_efficiency: f64,
    /// Share of peak memory bandwidth reached.
    pub bandwidth_efficiency: f64,
    /// Seconds per step.
    pub overhead: f64,
    /// Bytes per number in KV.
    pub kv_bytes_per_element: f64,
}

impl Roofline {
    /// The roofline of `model` on `gpu`.
    pub fn new(gpu: &Gpu, model: &Model, settings: &RooflineSettings) -> Self {
        let gpus = f64::from(settings.tensor_parallel);
        let efficient = gpus * settings.compute_efficiency;
        let dense = match gpu.compute_fp8 {
            Some(fp8) if model.bytes_per_weight == 1.0 => fp8,
            _ => gpu.compute,
        } * efficient;
        let half = gpu.compute * efficient;
        let bandwidth = gpu.bandwidth * gpus * settings.bandwidth_efficiency;
        let layers = model.layer_parameters() as f64;
        let head = model.head_parameters() as f64;
        let query_width = f64::from(model.heads) * f64::from(model.head_dim);
        Self {
            layers_per_token: 2.0 * layers / dense,
            layers_per_step: layers * model.bytes_per_weight / bandwidth,
            head_per_sample: 2.0 * head / half,
            head_per_step: 2.0 * head / bandwidth,
            attention_per_pair: 4.0 * f64::from(model.layers) * query_width / half,
            kv_per_token: model.kv_bytes_per_token(settings.kv_bytes_per_element) / bandwidth,
            all_reduce: AllReduce::new(
                settings.tensor_parallel,
                model.layers,
                2.0 * f64::from(model.hidden),
                gpu.interconnect,
                gpu.interconnect_latency,
            ),
            overhead: settings.overhead,
        }
    }

    /// Seconds of a step.
    pub fn seconds(&self, shape: &BatchShape) -> f64 {
        self.beside_decode(shape).seconds(shape)
    }

    /// All that does not depend on the contexts of decoding requests.
    pub(super) fn beside_decode(&self, shape: &BatchShape) -> BesideDecode {
        let tokens = shape.tokens();
        let layers = (self.layers_per_token * tokens as f64).max(self.layers_per_step);
        let head = match shape.sampled {
            0 => 0.0,
            n => (self.head_per_sample * f64::from(n)).max(self.head_per_step),
        };
        let prefill = (self.attention_per_pair * shape.prefill_pairs as f64)
            .max(self.kv_per_token * (shape.prefill_context + shape.prefill_tokens) as f64);
        BesideDecode {
            before: layers + head + prefill,
            per_context: self.attention_per_pair.max(self.kv_per_token),
            all_reduce: self.all_reduce.seconds(tokens),
            overhead: self.overhead,
        }
    }
}

/// A step's seconds but for the contexts of decoding requests, in the order in which they are summed.
#[derive(Clone, Copy, Debug)]
pub(super) struct BesideDecode {
    before: f64,
    per_context: f64,
    all_reduce: f64,
    overhead: f64,
}

impl BesideDecode {
    /// Seconds of the step.
    #[inline]
    pub(super) fn seconds(&self, shape: &BatchShape) -> f64 {
        // A decoding request attends to what is in KV and to its own token.
        let context = (shape.decode_context + u64::from(shape.decode_seqs)) as f64;
        self.before + context * self.per_context + self.all_reduce + self.overhead
    }
}
