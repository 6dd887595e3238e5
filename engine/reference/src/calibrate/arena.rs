//! Sequences whose keys and values are there already, so that a step at any context can be measured
//! without computing what comes before it.

use super::plan::{Plan, Step};
use crate::backend::{Backend, Sampled, Sampling, Span};
use crate::error::ReferenceError;
use std::time::{Duration, Instant};
use windtunnel_base::rng::Rng;

/// Tokens of one step while sequences are filled.
const FILL: usize = 256;

/// A backend with sequences of the greatest length.
pub(super) struct Arena<'a> {
    backend: &'a mut dyn Backend,
    /// Pages of each sequence.
    pages: Vec<Vec<u32>>,
    /// Tokens of a sequence; all have the same.
    tokens: Vec<u32>,
    sampled: Vec<Sampled>,
}

impl<'a> Arena<'a> {
    /// Takes the pages of all sequences and computes their keys and values.
    pub(super) fn fill(backend: &'a mut dyn Backend, plan: &Plan) -> Result<Self, ReferenceError> {
        let mut rng = Rng::from_seed(plan.seed);
        let vocabulary = backend.config().vocab_size as u64;
        let tokens = (0..plan.max_context)
            .map(|_| rng.below(vocabulary) as u32)
            .collect();
        let mut arena = Self {
            backend,
            pages: Vec::new(),
            tokens,
            sampled: Vec::new(),
        };
        let filled = arena.take(plan).and_then(|()| arena.compute(plan));
        if let Err(error) = filled {
            arena.give_back();
            return Err(error);
        }
        Ok(arena)
    }

    fn take(&mut self, plan: &Plan) -> Result<(), ReferenceError> {
        let each = plan.max_context.div_ceil(self.backend.page_tokens());
        for i in 0..plan.sequences() {
            let mut pages = Vec::with_capacity(each);
            for _ in 0..each {
                let Some(page) = self.backend.take_page()? else {
                    self.pages.push(pages);
                    return Err(ReferenceError::Memory {
                        what: format!("a calibration of {} sequences", plan.sequences()),
                        needed: (plan.sequences() * each) as u64,
                        available: (i * each) as u64,
                        remedy: "these are pages: give the engine more, or measure fewer or \
                                 shorter sequences"
                            .into(),
                    });
                };
                pages.push(page);
            }
            self.pages.push(pages);
        }
        Ok(())
    }

    fn compute(&mut self, plan: &Plan) -> Result<(), ReferenceError> {
        for pages in &self.pages {
            for start in (0..plan.max_context).step_by(FILL) {
                let end = (start + FILL).min(plan.max_context);
                let span = Span {
                    tokens: &self.tokens[start..end],
                    start,
                    pages,
                    sample: None,
                    layers: None,
                };
                self.backend.step(&[span], &mut self.sampled)?;
            }
        }
        Ok(())
    }

    /// Computes a step and says how long it took.
    pub(super) fn run(&mut self, step: &Step) -> Result<Duration, ReferenceError> {
        let decoding = step.decode.iter().map(|&context| (1, context));
        let parts = decoding.chain(step.prefill.iter().copied());
        let spans: Vec<Span<'_>> = parts
            .zip(&self.pages)
            .map(|((tokens, start), pages)| Span {
                tokens: &self.tokens[start..start + tokens],
                start,
                pages,
                sample: Some(Sampling::GREEDY),
                layers: None,
            })
            .collect();
        let begin = Instant::now();
        self.backend.step(&spans, &mut self.sampled)?;
        Ok(begin.elapsed())
    }

    /// Gives all pages back.
    pub(super) fn give_back(&mut self) {
        for page in self.pages.drain(..).flatten() {
            self.backend.give_back_page(page);
        }
    }
}
