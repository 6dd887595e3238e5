//! A device that fails in the middle of its work: for tests of what a failure leaves behind. Only built
//! with the feature `faults`, which no release has.
//!
//! `WINDTUNNEL_FAULT` says what happens, and at which step: `lost@5` takes the device away at the fifth,
//! `nan@5` lets it compute what are no numbers, `memory@5` gives it too little for it.

use super::{Backend, Sampled, Span, Work};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;

/// What is read.
const VARIABLE: &str = "WINDTUNNEL_FAULT";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Lost,
    NotANumber,
    Memory,
}

/// A device with a fault to come.
struct Faulty {
    inner: Box<dyn Backend + Send>,
    fault: Fault,
    /// Steps until then; none once the device is lost.
    left: Option<u64>,
}

/// The device, with the fault that the environment asks for.
pub(crate) fn with_fault(inner: Box<dyn Backend + Send>) -> Box<dyn Backend + Send> {
    let asked = std::env::var(VARIABLE).ok();
    let Some((fault, left)) = asked.as_deref().and_then(parse) else {
        return inner;
    };
    Box::new(Faulty {
        inner,
        fault,
        left: Some(left),
    })
}

fn parse(text: &str) -> Option<(Fault, u64)> {
    let (what, at) = text.split_once('@')?;
    let fault = match what {
        "lost" => Fault::Lost,
        "nan" => Fault::NotANumber,
        "memory" => Fault::Memory,
        _ => return None,
    };
    Some((fault, at.parse().ok().filter(|&at| at > 0)?))
}

impl Faulty {
    fn lost(&self, doing: &str) -> ReferenceError {
        ReferenceError::Device {
            device: self.inner.device(),
            reason: format!("{doing} failed: the device is lost"),
        }
    }

    fn there(&self, doing: &str) -> Result<(), ReferenceError> {
        match self.left {
            Some(_) => Ok(()),
            None => Err(self.lost(doing)),
        }
    }

    /// Counts a step; the error of the one that fails.
    fn count(&mut self, spans: &[Span<'_>]) -> Result<(), ReferenceError> {
        self.there("a step")?;
        self.left = self.left.map(|n| n.saturating_sub(1));
        if self.left != Some(0) {
            return Ok(());
        }
        Err(match self.fault {
            Fault::Lost => {
                self.left = None;
                self.lost("a step")
            }
            Fault::NotANumber => ReferenceError::NotANumber {
                sequence: 0,
                position: spans.first().map_or(0, |s| s.start + s.tokens.len() - 1),
            },
            Fault::Memory => ReferenceError::Memory {
                what: "a buffer of a step".into(),
                needed: 1 << 20,
                available: 0,
                remedy: "take fewer pages".into(),
            },
        })
    }
}

impl Backend for Faulty {
    fn device(&self) -> String {
        self.inner.device()
    }

    fn config(&self) -> &ModelConfig {
        self.inner.config()
    }

    fn take_page(&mut self) -> Result<Option<u32>, ReferenceError> {
        self.there("taking a page")?;
        self.inner.take_page()
    }

    fn give_back_page(&mut self, page: u32) {
        self.inner.give_back_page(page);
    }

    fn page_tokens(&self) -> usize {
        self.inner.page_tokens()
    }

    fn convert_page(&mut self, page: u32, format: KvFormat) -> Result<(), ReferenceError> {
        self.there("converting a page")?;
        self.inner.convert_page(page, format)
    }

    fn kv_bytes(&self) -> usize {
        self.inner.kv_bytes()
    }

    fn step(
        &mut self,
        spans: &[Span<'_>],
        sampled: &mut Vec<Sampled>,
    ) -> Result<(), ReferenceError> {
        self.count(spans)?;
        self.inner.step(spans, sampled)
    }

    fn logits(&mut self) -> Result<Vec<f32>, ReferenceError> {
        self.there("fetching logits")?;
        self.inner.logits()
    }

    fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        self.there("an embedding")?;
        self.inner.embed(tokens)
    }

    fn work(&self) -> Work {
        self.inner.work()
    }
}
