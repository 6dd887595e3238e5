//! The file that a calibration of an engine is: what was measured, where, and how well a table made
//! from it says the time of steps that it was not made from.

use super::{
    CascadeDevice, CascadeModel, CascadeSkip, CascadeSpec, DecodePoint, PrefillPoint, TableSpec,
};
use serde::{Deserialize, Serialize};

/// The format of files that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Step times of one model on one device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// [`FORMAT`].
    pub format: u32,
    /// What was measured, where and when.
    pub provenance: Provenance,
    /// Milliseconds from files to a model that can compute.
    pub load_ms: f64,
    /// Times each step was measured; the table has medians.
    pub rounds: usize,
    /// Median over all steps of the distance of a single measurement from the step's median, as
    /// a share of it.
    pub noise: f64,
    /// What the table spans; steps outside are extrapolated.
    pub ranges: Ranges,
    /// Errors on steps that the table was not made from.
    pub held_out: HeldOut,
    /// Milliseconds added for every prefilling request of a step beyond the first.
    pub extra_prompt_ms: f64,
    /// Milliseconds by which a mixed step is shorter than two steps, one of each kind.
    pub mixed_saving_ms: f64,
    /// Decode steps.
    pub decode: Vec<DecodePoint>,
    /// Prefill steps.
    pub prefill: Vec<PrefillPoint>,
    /// Layers of a cascade with this model as the frontier, if they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<MeasuredLayers>,
}

/// Layers of a cascade, each alone and together, on sessions of tasks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredLayers {
    /// Name or folder of the light model.
    pub light: String,
    /// Digest of its weights.
    pub light_weights: String,
    /// Sessions at once.
    pub sessions: usize,
    /// Turns of each.
    pub turns: usize,
    /// Share of turns that changed nothing.
    pub no_change: f64,
    /// The device, and the models on it.
    pub device: CascadeDevice,
    /// L0, as it decided here.
    pub skip: CascadeSkip,
    /// L1: sequences that shared a step, on average.
    pub coherent: u32,
    /// L3: share of pages that were anchors.
    pub anchors: f64,
    /// L3: share of pages in INT8.
    pub int8: f64,
    /// No layer, each alone, all but the last, and all.
    pub cells: Vec<MeasuredCell>,
}

/// One switch of the layers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredCell {
    /// Which layers acted: `none`, or such as `l0+l2`.
    pub layers: String,
    /// Milliseconds, as measured.
    pub ms: f64,
    /// How many times less that is than without layers.
    pub times_less: f64,
    /// Kernels launched.
    pub launches: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
    /// Share of tokens as without layers.
    pub agreement: f64,
    /// Mean divergence per token from the frontier in full, in nats.
    pub divergence: f64,
    /// Share of answers that are right.
    pub exact_match: f64,
}

impl MeasuredLayers {
    /// Gives a simulated cascade the costs that were measured: the device and its models, what L0 costs
    /// and decides, and how many sequences share a step. Which layers act, and what they are told, stay
    /// as they are.
    ///
    /// # Errors
    /// If a figure is none, with its name.
    pub fn give(&self, spec: &mut CascadeSpec) -> Result<(), &'static str> {
        let device = &self.device;
        let models = [&device.frontier, &device.light];
        let counts = models
            .iter()
            .all(|m: &&CascadeModel| m.parameters > 0.0 && m.kernels > 0);
        let rates = device.compute.0 > 0.0 && device.bandwidth.0 > 0.0;
        if !(counts && rates && device.batch > 0) {
            return Err("layers.device");
        }
        let shares = [self.skip.tpr, self.skip.fpr];
        if !shares.iter().all(|s| (0.0..=1.0).contains(s)) {
            return Err("layers.skip");
        }
        if self.coherent == 0 {
            return Err("layers.coherent");
        }
        spec.device = CascadeDevice {
            batch: spec.device.batch,
            context_memory: spec.device.context_memory,
            ..device.clone()
        };
        spec.skip = self.skip.clone();
        spec.spans.coherent = Some(self.coherent);
        Ok(())
    }
}

/// What was measured, where and when.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Name or folder of the model.
    pub model: String,
    /// Numbers of all its weights.
    pub parameters: usize,
    /// Digest of its weights.
    pub weights: String,
    /// The device, as its backend names it.
    pub device: String,
    /// Its make: the CPU's model name, or the GPU's.
    pub hardware: String,
    /// Its driver; for a CPU the operating system.
    pub driver: String,
    /// Version of Windtunnel.
    pub version: String,
    /// The day, UTC, as `YYYY-MM-DD`.
    pub date: String,
    /// Processes that ran or wanted to, on average over the minute before: above the number of
    /// cores, figures suffer.
    pub load: Option<f64>,
}

/// From and to, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ranges {
    /// Decoding requests.
    pub decode_seqs: (u32, u32),
    /// Mean tokens in KV of decoding requests.
    pub decode_context: (u32, u32),
    /// New prompt tokens.
    pub prefill_tokens: (u32, u32),
    /// Mean tokens in KV before them.
    pub prefill_context: (u32, u32),
}

/// Errors on held-out steps.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// Steps that decode.
    pub decode: Errors,
    /// Steps that prefill.
    pub prefill: Errors,
    /// Steps that do both.
    pub mixed: Errors,
}

/// Relative errors of what the table says against the median of what was measured.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Errors {
    /// Steps.
    pub steps: usize,
    /// Median of the sizes.
    pub median: f64,
    /// 90th percentile of the sizes.
    pub p90: f64,
    /// Mean, with sign: above zero the table says too much.
    pub bias: f64,
}

impl Calibration {
    /// The cost model that these step times are, without a file.
    pub fn table(&self) -> TableSpec {
        TableSpec {
            file: None,
            digest: None,
            decode: self.decode.clone(),
            prefill: self.prefill.clone(),
            extra_prompt_ms: self.extra_prompt_ms,
            mixed_saving_ms: self.mixed_saving_ms,
        }
    }
}
