//! The file that a calibration of an engine is: what was measured, where, and how well a table made
//! from it says the time of steps that it was not made from.

use super::{DecodePoint, PrefillPoint, TableSpec};
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
