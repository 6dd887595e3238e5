//! One turn that is run: its tokens so far, how they came about, and where its past is.

use super::lane::{Reply, Sequence};
use crate::backend::Sampling;
use windtunnel_tasks::tokenizer::EOS;

/// How a token of an answer came about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// By the short path.
    pub(super) short: bool,
    pub(super) risk: f64,
    pub(super) unsure: f64,
}

/// One turn that is run.
#[derive(Debug)]
pub(super) struct Job {
    /// Prompt, and the answer so far.
    pub(super) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Longest answer, in tokens.
    pub(super) most: usize,
    /// How its tokens are drawn.
    pub(super) sampling: Sampling,
    /// Tokens that its pages have room for; drafts beyond are not made.
    pub(super) room: usize,
    /// So many tokens are only to be read in the next round, and none is drawn after them.
    pub(super) reads: Option<usize>,
    pub(super) marks: Vec<Mark>,
    /// Whether the logits of its answer are kept.
    pub(super) keeps_logits: bool,
    /// Of every token of the answer, if they are kept.
    pub(super) logits: Vec<Vec<f32>>,
    pub(super) frontier: Sequence,
    pub(super) light: Option<Sequence>,
    pub(super) risk: f64,
    pub(super) open: bool,
    pub(super) settled: [bool; 2],
}

impl Job {
    /// A turn of which nothing is computed yet, on pages that are still to be given to it.
    pub(super) fn new(tokens: Vec<u32>, most: usize, sampling: Sampling) -> Self {
        Self {
            prompt: tokens.len(),
            tokens,
            most,
            sampling,
            room: usize::MAX,
            reads: None,
            marks: Vec::new(),
            keeps_logits: false,
            logits: Vec::new(),
            frontier: Sequence::default(),
            light: None,
            risk: 0.0,
            open: true,
            settled: [false; 2],
        }
    }

    /// Tokens drawn in the next round, as far as it is known: drafts come on top.
    pub(super) const fn draws(&self) -> usize {
        if self.reads.is_some() { 0 } else { 1 }
    }

    pub(super) fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    pub(super) fn short_tokens(&self) -> usize {
        self.marks.iter().filter(|m| m.short).count()
    }

    /// Takes a token as the next of the answer.
    pub(super) fn push(&mut self, reply: Reply, mark: Mark) {
        let token = reply.sampled.token;
        self.tokens.push(token);
        self.marks.push(mark);
        self.risk = mark.risk;
        if !reply.logits.is_empty() {
            self.logits.push(reply.logits);
        }
        self.open = token != EOS && self.marks.len() < self.most;
    }
}
