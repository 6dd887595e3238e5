//! Devices that compute steps. One trait: what a step is does not depend on where it runs.

/// On the CPU, through candle.
pub mod cpu;
/// On a GPU, through libraries found at run time.
pub mod cuda;
/// On a device that fails when a test tells it to.
#[cfg(feature = "faults")]
pub(crate) mod faulty;

use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// New tokens of one sequence in a step.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// Position of the first of them: so many are in the pages already.
    pub start: usize,
    /// Pages of the sequence, in order, with room for the new tokens too.
    pub pages: &'a [u32],
    /// How the next token is drawn; none if the last of these is not to be answered.
    pub sample: Option<Sampling>,
    /// Layers to run; the rest is left out (early exit). None runs all.
    pub layers: Option<usize>,
}

/// How a token is drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Zero takes the most likely token.
    pub temperature: f32,
    /// Only the most likely tokens that together have this probability; 1 takes all.
    pub top_p: f32,
    /// Seed of the sequence; the position is mixed in, so that batching changes nothing.
    pub seed: u64,
}

impl Sampling {
    /// The most likely token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        seed: 0,
    };
}

/// A token and how sure the model was.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// Entropy of the distribution, in nats.
    pub entropy: f32,
    /// Probability of the most likely token less that of the next.
    pub margin: f32,
    /// Natural logarithm of the probability of the token drawn.
    pub log_probability: f32,
}

/// A span after which the most likely token is taken.
#[cfg(test)]
pub(crate) const fn greedy<'a>(tokens: &'a [u32], start: usize, pages: &'a [u32]) -> Span<'a> {
    Span {
        tokens,
        start,
        pages,
        sample: Some(Sampling::GREEDY),
        layers: None,
    }
}

/// What a device has done since it was made. Counted, not measured: the same steps give the same
/// figures on every machine, so that what a layer saves can be tested exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Work {
    /// Kernels launched: on the CPU one per matrix product or loop over all rows; a replayed graph
    /// of launches counts as one.
    pub launches: u64,
    /// Floating-point operations of matrix products and attention, two per multiply and add.
    pub flops: u64,
    /// Bytes of weights read: a matrix once per product that uses it.
    pub weight_bytes: u64,
    /// Bytes of keys and values read by attention, scales included.
    pub kv_read_bytes: u64,
    /// Bytes of keys and values of new tokens written.
    pub kv_written_bytes: u64,
}

impl Work {
    /// What was done since `earlier`.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            launches: self.launches - earlier.launches,
            flops: self.flops - earlier.flops,
            weight_bytes: self.weight_bytes - earlier.weight_bytes,
            kv_read_bytes: self.kv_read_bytes - earlier.kv_read_bytes,
            kv_written_bytes: self.kv_written_bytes - earlier.kv_written_bytes,
        }
    }

    /// Bytes moved in all.
    pub const fn bytes(self) -> u64 {
        self.weight_bytes + self.kv_read_bytes + self.kv_written_bytes
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, more: Self) {
        self.launches += more.launches;
        self.flops += more.flops;
        self.weight_bytes += more.weight_bytes;
        self.kv_read_bytes += more.kv_read_bytes;
        self.kv_written_bytes += more.kv_written_bytes;
    }
}

/// A device with a model in its memory.
pub trait Backend {
    /// What it is, for people.
    fn device(&self) -> String;

    /// Its make and its driver, if it is not the host's CPU.
    fn hardware(&self) -> Option<(String, String)> {
        None
    }

    /// The model's sizes.
    fn config(&self) -> &ModelConfig;

    /// Takes a page; none if all are in use.
    ///
    /// # Errors
    /// If the device fails.
    fn take_page(&mut self) -> Result<Option<u32>, ReferenceError>;

    /// Takes so many pages, or none at all if there are fewer.
    ///
    /// # Errors
    /// If the device fails.
    fn take_pages(&mut self, count: usize) -> Result<Option<Vec<u32>>, ReferenceError> {
        let mut pages = Vec::with_capacity(count);
        while pages.len() < count {
            if let Some(page) = self.take_page()? {
                pages.push(page);
            } else {
                pages.drain(..).for_each(|page| self.give_back_page(page));
                return Ok(None);
            }
        }
        Ok(Some(pages))
    }

    /// Gives a page back.
    fn give_back_page(&mut self, page: u32);

    /// Tokens of a page.
    fn page_tokens(&self) -> usize;

    /// Stores a full page again in another format.
    ///
    /// # Errors
    /// If the device fails.
    fn convert_page(&mut self, page: u32, format: KvFormat) -> Result<(), ReferenceError>;

    /// Bytes of keys and values in use.
    fn kv_bytes(&self) -> usize;

    /// Computes a step: keys and values of all new tokens go to the pages, and `sampled` gets one
    /// entry per span (the default where none was asked for).
    ///
    /// Spans of one step may continue each other over the same pages (`start` of one is where the
    /// other ends): in every layer the keys and values of all spans are written before any of
    /// them attends. Drafts are verified so, one span of one token per draft, and each position
    /// gets logits of its own.
    ///
    /// # Errors
    /// If the device fails, or logits are not numbers.
    fn step(
        &mut self,
        spans: &[Span<'_>],
        sampled: &mut Vec<Sampled>,
    ) -> Result<(), ReferenceError>;

    /// Logits of the last token of every span of the latest step that asked for a sample, in
    /// order, `[spans, vocab]`. For checks: copies them from the device.
    ///
    /// # Errors
    /// If the device fails.
    fn logits(&mut self) -> Result<Vec<f32>, ReferenceError>;

    /// The mean of the embeddings of `tokens`, `[hidden]`; zeros for none. What a change of state
    /// is measured by (layer L0).
    ///
    /// # Errors
    /// If the device fails.
    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ReferenceError>;

    /// What was done by `step`, `embed` and `convert_page` so far.
    fn work(&self) -> Work;
}
