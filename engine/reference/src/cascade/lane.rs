//! One model on one device, with the pages of its sequences: steps over spans, formats of full pages,
//! and prefixes kept for later turns.

use super::DeviceModel;
use super::evidence::{EvidenceSettings, Mix, Prefixes};
use super::route::token_severity;
use super::spans::{SpanSettings, coherent};
use crate::backend::{Backend, Sampled, Sampling, Span, Work};
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use windtunnel_engine::execute::Stored;
use windtunnel_tasks::Severity;

/// A device: lent for a study, or owned by whoever computes the steps of a replica.
pub(super) enum Held<'a> {
    Lent(&'a mut dyn Backend),
    Owned(Box<dyn Backend>),
}

impl<'a> Deref for Held<'a> {
    type Target = dyn Backend + 'a;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Lent(backend) => *backend,
            Self::Owned(backend) => backend.as_ref(),
        }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Lent(backend) => *backend,
            Self::Owned(backend) => backend.as_mut(),
        }
    }
}

/// The past of one sequence on one lane.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    pub(super) pages: Vec<u32>,
    /// Nodes of the prefix tree that the first pages are.
    held: Vec<u64>,
    /// Pages that are anchors, of those whose format is settled.
    pub(super) anchors: Vec<bool>,
    /// Tokens whose keys and values are in the pages.
    pub(super) done: usize,
}

/// What is to be computed of a sequence: all tokens that are not done.
#[derive(Debug)]
pub(super) struct Item<'t> {
    pub(super) sequence: &'t mut Sequence,
    pub(super) tokens: &'t [u32],
    /// After how many of the last tokens a token is drawn.
    pub(super) draws: usize,
    /// How.
    pub(super) sampling: Sampling,
    /// Early exit.
    pub(super) layers: Option<usize>,
    /// Whether the logits are asked for that tokens are drawn from.
    pub(super) logits: bool,
}

/// A token drawn, and the logits it was drawn from if they were asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) sampled: Sampled,
    pub(super) logits: Vec<f32>,
}

/// What a lane has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) work: Work,
    /// What the work would take, by the device model.
    pub(super) seconds: f64,
    pub(super) steps: u64,
    /// Sequences in all steps together.
    pub(super) members: u64,
    pub(super) prompt_tokens: u64,
    pub(super) prefix_tokens: u64,
    pub(super) kv_peak: usize,
    /// Sum over steps of the bytes in use.
    pub(super) kv_sum: u64,
}

impl Tally {
    /// Bytes of keys and values in use, mean over steps.
    pub(super) fn kv_mean(&self) -> f64 {
        self.kv_sum as f64 / self.steps.max(1) as f64
    }
}

pub(super) struct Lane<'a> {
    backend: Held<'a>,
    device: DeviceModel,
    spans: Option<SpanSettings>,
    evidence: Option<EvidenceSettings>,
    prefixes: Prefixes,
    pub(super) mix: Mix,
    pub(super) tally: Tally,
    /// Pages that this lane has taken: they go back when it ends, however it ends.
    taken: BTreeSet<u32>,
}

impl std::fmt::Debug for Lane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("device", &self.backend.device())
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        for page in std::mem::take(&mut self.taken) {
            self.backend.give_back_page(page);
        }
    }
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        backend: Held<'a>,
        device: DeviceModel,
        spans: Option<SpanSettings>,
        evidence: Option<EvidenceSettings>,
    ) -> Self {
        Self {
            backend,
            device,
            spans,
            evidence,
            prefixes: Prefixes::default(),
            mix: Mix::default(),
            tally: Tally::default(),
            taken: BTreeSet::new(),
        }
    }

    pub(super) fn device(&self) -> String {
        self.backend.device()
    }

    pub(super) fn page_tokens(&self) -> usize {
        self.backend.page_tokens()
    }

    pub(super) fn vocab(&self) -> usize {
        self.backend.config().vocab_size
    }

    /// Counts what the device does in `work`, and how long it would take as one step.
    fn counted<T>(
        &mut self,
        act: impl FnOnce(&mut dyn Backend) -> Result<T, ReferenceError>,
    ) -> Result<T, ReferenceError> {
        let before = self.backend.work();
        let done = act(&mut *self.backend)?;
        let work = self.backend.work().since(before);
        self.tally.work += work;
        self.tally.seconds += self.device.seconds(work);
        Ok(done)
    }

    pub(super) fn embed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        self.counted(|b| b.embed(tokens))
    }

    /// Begins a sequence, with what is known of its tokens.
    pub(super) fn begin(&mut self, tokens: &[u32]) -> Sequence {
        let mut sequence = Sequence::default();
        let size = self.backend.page_tokens();
        if self.evidence.is_some_and(|e| e.prefix) {
            (sequence.pages, sequence.held) = self.prefixes.hold(tokens, size);
            sequence.anchors = vec![false; sequence.pages.len()];
            sequence.done = sequence.pages.len() * size;
        }
        self.tally.prompt_tokens += tokens.len() as u64;
        self.tally.prefix_tokens += sequence.done as u64;
        sequence
    }

    /// Computes all items: those of one path in spans together if spans are on, else one by one.
    /// Replies are in the order of the items, one per token drawn.
    pub(super) fn run(
        &mut self,
        items: &mut [Item<'_>],
    ) -> Result<Vec<Vec<Reply>>, ReferenceError> {
        for item in items.iter_mut() {
            self.make_room(item.sequence, item.tokens.len())?;
        }
        let all = self.backend.config().num_hidden_layers;
        let paths: Vec<usize> = items.iter().map(|i| i.layers.unwrap_or(all)).collect();
        let mut replies = vec![Vec::new(); items.len()];
        for group in coherent(&paths, self.spans.map_or(1, |s| s.max)) {
            self.step(items, &group, &mut replies)?;
        }
        Ok(replies)
    }

    fn step(
        &mut self,
        items: &mut [Item<'_>],
        group: &[usize],
        replies: &mut [Vec<Reply>],
    ) -> Result<(), ReferenceError> {
        let mut spans = Vec::new();
        let mut owners = Vec::new();
        for &i in group {
            let item = &items[i];
            let (first, end) = (item.sequence.done, item.tokens.len());
            let mut from = first;
            for draw in 0..item.draws.max(1) {
                let to = end - item.draws.max(1) + 1 + draw;
                spans.push(Span {
                    tokens: &item.tokens[from..to],
                    start: from,
                    pages: &item.sequence.pages,
                    sample: (item.draws > 0).then_some(item.sampling),
                    layers: item.layers,
                });
                owners.push(i);
                from = to;
            }
        }
        let mut sampled = Vec::new();
        self.counted(|b| b.step(&spans, &mut sampled))?;
        let logits = if group.iter().any(|&i| items[i].logits) {
            self.backend.logits()?
        } else {
            Vec::new()
        };
        let mut rows = logits.chunks_exact(self.vocab());
        for ((span, &owner), &sampled) in spans.iter().zip(&owners).zip(&sampled) {
            if span.sample.is_some() {
                let row = rows.next().filter(|_| items[owner].logits);
                replies[owner].push(Reply {
                    sampled,
                    logits: row.map(<[f32]>::to_vec).unwrap_or_default(),
                });
            }
        }
        self.tally.steps += 1;
        self.tally.members += group.len() as u64;
        let kv = self.backend.kv_bytes();
        self.tally.kv_peak = self.tally.kv_peak.max(kv);
        self.tally.kv_sum += kv as u64;
        for &i in group {
            items[i].sequence.done = items[i].tokens.len();
        }
        Ok(())
    }

    fn make_room(&mut self, sequence: &mut Sequence, tokens: usize) -> Result<(), ReferenceError> {
        let size = self.backend.page_tokens();
        while sequence.pages.len() * size < tokens {
            let page = self.take_page()?;
            sequence.pages.push(page);
        }
        Ok(())
    }

    /// A page that nobody has.
    pub(super) fn take_page(&mut self) -> Result<u32, ReferenceError> {
        let page = match self.backend.take_page()? {
            Some(page) => page,
            None => self.take_kept_page()?,
        };
        self.taken.insert(page);
        Ok(page)
    }

    /// A page that was kept for a prefix, given up for new tokens.
    fn take_kept_page(&mut self) -> Result<u32, ReferenceError> {
        if let Some(page) = self.prefixes.evict() {
            self.give_back(page);
            if let Some(page) = self.backend.take_page()? {
                return Ok(page);
            }
        }
        let config = self.backend.config();
        let numbers = 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers;
        let (_, anchors) = self.prefixes.kept();
        Err(ReferenceError::Memory {
            what: format!(
                "a page of keys and values (of {} in use, {anchors} are anchors and stay)",
                self.taken.len()
            ),
            needed: (numbers * self.backend.page_tokens() * KvFormat::F16.bytes()) as u64,
            available: 0,
            remedy: "give the device more pages, or run fewer sessions at once".into(),
        })
    }

    pub(super) fn give_back(&mut self, page: u32) {
        if self.taken.remove(&page) {
            self.backend.give_back_page(page);
        }
    }

    /// Stores the pages that the first `tokens` tokens have filled in their formats.
    pub(super) fn settle(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
    ) -> Result<(), ReferenceError> {
        let Some(evidence) = self.evidence.filter(|e| e.quantise) else {
            return Ok(());
        };
        let size = self.backend.page_tokens();
        let full = tokens.len().min(sequence.done) / size;
        let first = sequence.anchors.len();
        if full <= first {
            return Ok(());
        }
        let critical: Vec<usize> = (first..full)
            .map(|i| {
                let page = &tokens[i * size..(i + 1) * size];
                let is = |t: &&u32| token_severity(**t) == Severity::Critical;
                page.iter().filter(is).count()
            })
            .collect();
        for (i, format) in (first..full).zip(self.mix.assign(&critical, &evidence)) {
            let page = sequence.pages[i];
            self.counted(|b| b.convert_page(page, format))?;
            sequence.anchors.push(format == KvFormat::F16);
        }
        Ok(())
    }

    /// Full pages that were stored in a format, anchors as 16-bit floats, and the bytes of their numbers.
    pub(super) fn stored(&self, format: KvFormat) -> Stored {
        let config = self.backend.config();
        let numbers = 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers;
        let page = numbers * self.backend.page_tokens() * format.bytes();
        let blocks = match format {
            KvFormat::F16 => self.mix.anchors,
            KvFormat::Int8 => self.mix.int8,
            KvFormat::Fp8 => self.mix.fp8,
            KvFormat::F32 => 0,
        };
        Stored {
            blocks,
            bytes: blocks * page as u64,
        }
    }

    /// Ends a sequence: full pages are kept as prefixes, the rest goes back.
    pub(super) fn finish(
        &mut self,
        mut sequence: Sequence,
        tokens: &[u32],
    ) -> Result<(), ReferenceError> {
        let done = sequence.done.min(tokens.len());
        self.settle(&mut sequence, &tokens[..done])?;
        let size = self.backend.page_tokens();
        let keep = self.evidence.is_some_and(|e| e.prefix);
        let mut parent = sequence.held.last().copied();
        for i in sequence.held.len()..sequence.pages.len() {
            let page = sequence.pages[i];
            if !keep || (i + 1) * size > done {
                self.give_back(page);
                continue;
            }
            let anchor = sequence.anchors.get(i).copied().unwrap_or(false);
            let chunk = &tokens[i * size..(i + 1) * size];
            let (node, used) = self.prefixes.keep(parent, chunk, page, anchor);
            if !used {
                self.give_back(page);
            }
            parent = Some(node);
        }
        self.prefixes.release(&sequence.held);
        Ok(())
    }
}
