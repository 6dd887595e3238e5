//! Which steps are measured: a grid, steps with several prompts, mixed ones, and random ones that are
//! held out.

use crate::config::ModelConfig;
use crate::error::ReferenceError;
use std::time::Duration;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::calibration::Ranges;

/// Held-out steps of each kind.
const HELD_OUT: usize = 16;

/// The ranges that are measured, and for how long.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Most decoding sequences in a step; the engine's `max_num_seqs`.
    pub max_seqs: usize,
    /// Most new prompt tokens in a step; the engine's `max_num_batched_tokens`.
    pub max_tokens: usize,
    /// Longest sequence, prompt and answer together; at most the model's.
    pub max_context: usize,
    /// How long to measure.
    pub budget: Duration,
    /// Seed of random steps and orders.
    pub seed: u64,
}

/// What a step is measured for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A point of the decode grid: sequences, context.
    Decode(u32, u32),
    /// A point of the prefill grid: tokens, context.
    Prefill(u32, u32),
    /// Several prompts in a step.
    Prompts,
    /// Decoding and prefilling.
    Mixed,
    /// Kept from the table.
    HeldOut,
}

/// One step, sequence by sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Step {
    /// Tokens in KV of each decoding sequence.
    pub(super) decode: Vec<usize>,
    /// New tokens of each prompt, and what it has in KV.
    pub(super) prefill: Vec<(usize, usize)>,
}

impl Step {
    /// What the simulator would know of it.
    pub(super) fn shape(&self) -> BatchShape {
        let sum = |pick: fn(&(usize, usize)) -> usize| -> u64 {
            self.prefill.iter().map(|p| pick(p) as u64).sum()
        };
        BatchShape {
            prefill_seqs: self.prefill.len() as u32,
            prefill_tokens: sum(|p| p.0),
            prefill_context: sum(|p| p.1),
            prefill_pairs: sum(|p| p.0 * p.1 + p.0 * (p.0 + 1) / 2),
            prefill_squares: sum(|p| p.0 * p.0),
            decode_seqs: self.decode.len() as u32,
            decode_context: self.decode.iter().map(|&c| c as u64).sum(),
            sampled: (self.decode.len() + self.prefill.len()) as u32,
            ..BatchShape::default()
        }
    }
}

impl Plan {
    /// What a scheduler with these limits can ask of a model, measured for a minute.
    pub fn new(config: &ModelConfig, max_seqs: usize, max_tokens: usize) -> Self {
        Self {
            max_seqs,
            max_tokens,
            max_context: config.max_position_embeddings.min(2048),
            budget: Duration::from_secs(60),
            seed: 1,
        }
    }

    /// Sequences that are kept: those of the largest step.
    pub(super) const fn sequences(&self) -> usize {
        // Mixed steps have half of the decoding sequences and a few prompts.
        self.max_seqs + 8
    }

    /// Pages that the measurement needs.
    pub const fn pages(&self, page_tokens: usize) -> usize {
        self.sequences() * self.max_context.div_ceil(page_tokens)
    }

    /// Checks that there is something to measure, and that the model can do it.
    ///
    /// # Errors
    /// Which limit is too small or too large.
    pub fn check(&self, config: &ModelConfig) -> Result<(), ReferenceError> {
        let limits = [
            ("max_seqs", self.max_seqs, 1, 4096),
            ("max_tokens", self.max_tokens, 2, 1 << 20),
            (
                "max_context",
                self.max_context,
                16,
                config.max_position_embeddings,
            ),
        ];
        for (field, value, low, high) in limits {
            if !(low..=high).contains(&value) {
                return Err(ReferenceError::Config {
                    field: field.into(),
                    reason: format!("{value} is not from {low} to {high}"),
                    remedy: "calibrate within what the model and the scheduler take".into(),
                });
            }
        }
        Ok(())
    }

    /// Counts of decoding sequences: every power of two and the halves between.
    fn seqs_axis(&self) -> Vec<usize> {
        axis(1, self.max_seqs, &[1.0, 1.5])
    }

    /// Tokens in KV. Attention is linear in them, so that few points do.
    fn context_axis(&self, longest: usize) -> Vec<usize> {
        let mut axis = vec![0, 64];
        while let Some(next) = axis.last().map(|l| l * 4)
            && next < longest
        {
            axis.push(next);
        }
        axis.push(longest);
        axis.retain(|&c| c <= longest);
        axis.dedup();
        axis
    }

    /// Contexts of the decode grid: at least one token, since a request decodes after its first.
    fn decode_contexts(&self) -> Vec<usize> {
        let mut axis = self.context_axis(self.max_context - 1);
        axis[0] = 1;
        axis.dedup();
        axis
    }

    /// Contexts of the prefill grid, which leave room for some new tokens.
    fn prefill_contexts(&self) -> Vec<usize> {
        self.context_axis(self.max_context * 3 / 4)
    }

    /// Counts of new prompt tokens.
    fn tokens_axis(&self) -> Vec<usize> {
        axis(1, self.largest_prefill(), &[1.0, 1.25, 1.5, 1.75])
    }

    /// Tokens of the largest prefill that eight prompts can make at the longest context.
    fn largest_prefill(&self) -> usize {
        let room = self.max_context - self.max_context * 3 / 4;
        self.max_tokens.min(self.sequences() * room)
    }

    /// What the table spans.
    pub fn ranges(&self) -> Ranges {
        let ends = |axis: Vec<usize>| {
            let last = axis.last().copied().unwrap_or(0);
            (axis[0] as u32, last as u32)
        };
        Ranges {
            decode_seqs: ends(self.seqs_axis()),
            decode_context: ends(self.decode_contexts()),
            prefill_tokens: ends(self.tokens_axis()),
            prefill_context: ends(self.prefill_contexts()),
        }
    }

    /// `tokens` in as few prompts as they fit after `context`, of about the same length.
    fn prompts(&self, tokens: usize, context: usize) -> Vec<(usize, usize)> {
        let count = tokens.div_ceil(self.max_context - context);
        split(tokens, count)
            .into_iter()
            .map(|t| (t, context))
            .collect()
    }

    /// All steps, with what they are for.
    pub(super) fn steps(&self) -> Vec<(Kind, Step)> {
        let mut all = Vec::new();
        for &seqs in &self.seqs_axis() {
            for &context in &self.decode_contexts() {
                let decode = vec![context; seqs];
                let kind = Kind::Decode(seqs as u32, context as u32);
                all.push((kind, step(decode, Vec::new())));
            }
        }
        for &tokens in &self.tokens_axis() {
            for &context in &self.prefill_contexts() {
                let kind = Kind::Prefill(tokens as u32, context as u32);
                all.push((kind, step(Vec::new(), self.prompts(tokens, context))));
            }
        }
        let short = self.max_context / 8;
        for prompts in [2, 4, 8] {
            for length in [short / 2, short] {
                if length > 0 && prompts * length <= self.largest_prefill() {
                    let prefill = vec![(length, 0); prompts];
                    all.push((Kind::Prompts, step(Vec::new(), prefill)));
                }
            }
        }
        let context = self.max_context / 4;
        for seqs in [1, self.max_seqs / 4, self.max_seqs / 2] {
            for tokens in [short / 2, short, 2 * short] {
                if seqs > 0 && tokens > 0 && tokens <= self.largest_prefill() {
                    let step = step(vec![context; seqs], vec![(tokens, 0)]);
                    all.push((Kind::Mixed, step));
                }
            }
        }
        let mut rng = Streams::new(self.seed).stream("held-out steps", 0);
        for i in 0..3 * HELD_OUT {
            all.push((Kind::HeldOut, self.held_out(&mut rng, i % 3)));
        }
        all
    }

    /// A random step: decoding (0), prefilling (1) or both (2).
    fn held_out(&self, rng: &mut Rng, kind: usize) -> Step {
        let longest = self.max_context;
        let (mut decode, mut prefill) = (Vec::new(), Vec::new());
        if kind != 1 {
            let most = if kind == 2 {
                (self.max_seqs / 2).max(1)
            } else {
                self.max_seqs
            };
            let seqs = log_uniform(rng, 1, most);
            // Lengths of one step are about those of one workload.
            let about = log_uniform(rng, 16.min(longest / 2), longest - 1);
            decode = (0..seqs)
                .map(|_| log_uniform(rng, (about / 2).max(1), (2 * about).min(longest - 1)))
                .collect();
        }
        if kind != 0 {
            let count = log_uniform(rng, 1, 4);
            let mut left = self.largest_prefill();
            for _ in 0..count {
                let most = left.min(longest / 2);
                if most == 0 {
                    break;
                }
                let tokens = log_uniform(rng, 4.min(most), most);
                let context = if rng.chance(0.5) {
                    0
                } else {
                    rng.below((longest * 3 / 4).min(longest - tokens) as u64 + 1) as usize
                };
                left -= tokens;
                prefill.push((tokens, context));
            }
        }
        step(decode, prefill)
    }
}

const fn step(decode: Vec<usize>, prefill: Vec<(usize, usize)>) -> Step {
    Step { decode, prefill }
}

/// `total` in `count` parts that differ by one at most.
fn split(total: usize, count: usize) -> Vec<usize> {
    (0..count)
        .map(|i| total * (i + 1) / count - total * i / count)
        .collect()
}

/// From `low` to `high`, by powers of two and given multiples of them.
fn axis(low: usize, high: usize, parts: &[f64]) -> Vec<usize> {
    let mut axis = Vec::new();
    let mut power = low;
    while power <= high {
        for part in parts {
            let value = (power as f64 * part) as usize;
            if value <= high && axis.last() != Some(&value) {
                axis.push(value);
            }
        }
        power *= 2;
    }
    if axis.last() != Some(&high) {
        axis.push(high);
    }
    axis
}

/// As likely between 4 and 8 as between 8 and 16.
fn log_uniform(rng: &mut Rng, low: usize, high: usize) -> usize {
    let (a, b) = ((low as f64).ln(), (high as f64 + 1.0).ln());
    ((a + (b - a) * rng.f64()).exp() as usize).clamp(low, high)
}
