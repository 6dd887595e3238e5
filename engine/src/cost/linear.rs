//! Step time as a linear fit, and the fits we know.

use crate::batch::BatchShape;

/// A linear fit, in seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Linear {
    /// Of every step.
    pub base: f64,
    /// Per decoding request.
    pub per_seq: f64,
    /// Per token in KV of decoding requests.
    pub per_context: f64,
    /// Per new prompt token.
    pub per_prefill_token: f64,
    /// Per query-key pair of prefill attention.
    pub per_pair: f64,
    /// Batch size up to which the fit was made.
    pub max_seqs: u32,
}

impl Linear {
    /// Seconds of a step, and whether its batch is larger than any the fit was made on.
    pub fn seconds(&self, shape: &BatchShape) -> (f64, bool) {
        let seconds = self.base
            + self.per_seq * f64::from(shape.decode_seqs)
            + self.per_context * shape.decode_context as f64
            + self.per_prefill_token * shape.prefill_tokens as f64
            + self.per_pair * shape.prefill_pairs as f64;
        (seconds, shape.decode_seqs > self.max_seqs)
    }
}

/// A measured fit of decode steps: `base + per_seq * B` for a mean batch of `B`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepFit {
    /// Name in scenario files.
    pub name: &'static str,
    /// Milliseconds of every step.
    pub base_ms: f64,
    /// Milliseconds per decoding request.
    pub per_seq_ms: f64,
    /// Largest batch of the fit.
    pub max_seqs: u32,
    /// Largest relative error of the fit.
    pub max_error: f64,
}

/// Fits to the measurements of the ML.ENERGY leaderboard (bf16 unless named otherwise) for batches
/// of up to 256. They include the chat prefill of that benchmark in the effective step: a scenario
/// with long prompts must add `per_prefill_token`. A single B200 is left out: its steps are not
/// affine in the batch (26 % error).
pub const STEP_FITS: [StepFit; 5] = [
    fit("h100-llama-3.1-8b", 6.781, 0.0866, 0.020),
    fit("h100-qwen3-8b", 7.566, 0.1057, 0.044),
    fit("2xh100-qwen3-32b", 14.294, 0.1429, 0.027),
    fit("4xh100-llama-3.1-70b", 16.289, 0.1383, 0.035),
    fit("8xh100-llama-3.1-405b-fp8", 30.966, 0.2903, 0.047),
];

const fn fit(name: &'static str, base_ms: f64, per_seq_ms: f64, max_error: f64) -> StepFit {
    StepFit {
        name,
        base_ms,
        per_seq_ms,
        max_seqs: 256,
        max_error,
    }
}
