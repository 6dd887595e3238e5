//! One request inside the engine, and the arena that holds all of them.

use crate::config::LengthBuckets;
use crate::continuous::memory::Pages;
use crate::request::Submission;
use windtunnel_base::content::{Extent, stream_key};
use windtunnel_base::directory::Directory;
use windtunnel_base::ids::{ClassId, RequestId};
use windtunnel_base::time::SimTime;

/// Namespace of the streams that one request alone knows, within one replica.
const OWN_STREAMS: u64 = 0x6f77_6e20_7374_7265;

/// Where a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// In the waiting room; holds no blocks.
    Waiting,
    /// In the waiting room with its blocks in host memory.
    Swapped,
    /// Running, with prompt (or recomputed) tokens left to compute.
    Prefilling,
    /// Running, one token per step, as a member of the decode set.
    Decoding,
    /// Running and decoding, but left out of the step in progress by its token budget.
    Paused,
    /// All its tokens are out and its end is told; it keeps slot and blocks until the next step,
    /// which was planned before that, is formed.
    Leaving,
    /// As [`Self::Leaving`], and computes a token too many in that step.
    Overrunning,
}

/// A request's own state. What all decoding requests do alike is kept in
/// [`super::decode_set::DecodeSet`]; the fields marked so are as of when it joined that set.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) request: RequestId,
    pub(crate) class: ClassId,
    pub(crate) priority: i32,
    /// Rank of its submission, which is its age.
    pub(crate) age: u64,
    pub(crate) submitted_at: SimTime,
    pub(crate) phase: Phase,
    /// Rank of its latest admission: its place in the batch.
    pub(crate) admission: u64,
    pub(crate) prompt: u32,
    /// Tokens it will emit: the truth, cut at what fits here.
    pub(crate) output: u32,
    /// Work as its scheduler predicts it: prompt plus expected output.
    pub(crate) predicted_work: u64,
    /// Of similar lengths, where those share batches.
    pub(crate) bucket: usize,
    /// Tokens to have in KV before the next token comes out of a prefill: the prompt, and after a
    /// recompute the generated tokens too.
    pub(crate) target: u32,
    /// Tokens in KV; while decoding: when it joined the decode set.
    pub(crate) computed: u32,
    /// Tokens emitted; while decoding: when it joined the decode set.
    pub(crate) generated: u32,
    /// Decode step at which it joined the decode set.
    pub(crate) joined: u64,
    /// Decode step count at which its last token is out; while decoding.
    pub(crate) finish_at: u64,
    /// When its last token came out, unless it is in the decode set.
    pub(crate) last_token: SimTime,
    /// Its place in the waiting room, to tell live entries of that heap from stale ones.
    pub(crate) ticket: u64,
    /// Its last token is its last because it may emit no more, which its scheduler knows.
    pub(crate) foreseen: bool,
    /// Its first token was reported.
    pub(crate) talking: bool,
    /// Its prompt got no tokens in the last step, because decodes used them all.
    pub(crate) passed_over: bool,
    /// The caller has asked to drop it.
    pub(crate) cancelled: bool,
    /// Its output continues the last extent of its prompt.
    pub(crate) output_continues: bool,
    pub(crate) prefix: Vec<Extent>,
    /// Tokens its extents cover: at most its prompt, and after a preemption all that was in KV.
    pub(crate) shareable: u32,
    pub(crate) pages: Pages,
    live: bool,
}

impl Sequence {
    /// Tokens in KV at decode step `step`.
    pub(crate) fn computed_at(&self, step: u64) -> u32 {
        match self.phase {
            Phase::Decoding => self.computed + (step - self.joined) as u32,
            _ => self.computed,
        }
    }

    /// Extends the chain over all tokens in KV: over generated ones, and over the rest of a prompt
    /// that nobody shares. What continues no stream that others know gets one of its own.
    pub(crate) fn name_computed(&mut self) {
        let more = self.computed.saturating_sub(self.shareable);
        if more == 0 {
            return;
        }
        let own = stream_key(OWN_STREAMS, u64::from(self.request.0));
        match self.prefix.last_mut() {
            Some(last) if self.output_continues || last.key == own => last.tokens += more,
            _ => self.prefix.push(Extent {
                key: own,
                tokens: more,
            }),
        }
        self.shareable = self.computed;
    }

    /// Tokens emitted at decode step `step`.
    pub(crate) fn generated_at(&self, step: u64) -> u32 {
        match self.phase {
            Phase::Decoding => self.generated + (step - self.joined) as u32,
            _ => self.generated,
        }
    }

    /// Prompt tokens (and tokens to recompute) still to be computed.
    pub(crate) fn prefill_left(&self) -> u32 {
        self.target.saturating_sub(self.computed)
    }
}

/// All requests inside the engine, by slot and by name. Slots and their buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    slots: Vec<Sequence>,
    free: Vec<u32>,
    by_request: Directory,
    submitted: u64,
}

impl Sequences {
    /// Takes a request in. `output` is what it will emit here; `buckets` tell whom it shares batches with.
    pub(crate) fn insert(
        &mut self,
        now: SimTime,
        s: &Submission<'_>,
        output: u32,
        buckets: Option<&LengthBuckets>,
    ) -> u32 {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        let mut prefix = match self.slots.get_mut(slot as usize) {
            Some(old) => std::mem::take(&mut old.prefix),
            None => Vec::new(),
        };
        prefix.clear();
        prefix.extend_from_slice(s.request.prefix);
        let covered: u64 = prefix.iter().map(|e| u64::from(e.tokens)).sum();
        let expected = s
            .request
            .predicted_output_tokens
            .or(s.request.max_output_tokens)
            .unwrap_or(0);
        let prompt = s.request.prompt_tokens;
        let sequence = Sequence {
            request: s.request.id,
            class: s.request.class,
            priority: s.request.priority,
            age: self.submitted,
            submitted_at: now,
            phase: Phase::Waiting,
            admission: 0,
            prompt,
            output,
            predicted_work: u64::from(prompt) + u64::from(expected),
            bucket: buckets.map_or(0, |buckets| buckets.of(prompt, expected)),
            target: prompt,
            computed: 0,
            generated: 0,
            joined: 0,
            finish_at: 0,
            last_token: SimTime::ZERO,
            ticket: 0,
            foreseen: false,
            talking: false,
            passed_over: false,
            cancelled: false,
            output_continues: s.truth.output_continues && covered == u64::from(prompt),
            prefix,
            shareable: covered.min(u64::from(prompt)) as u32,
            pages: Pages::default(),
            live: true,
        };
        self.submitted += 1;
        if slot as usize == self.slots.len() {
            self.slots.push(sequence);
        } else {
            self.slots[slot as usize] = sequence;
        }
        let before = self.by_request.insert(s.request.id.0, slot);
        assert!(before.is_none(), "{:?} submitted twice", s.request.id);
        slot
    }

    /// Forgets a request, which must hold nothing any more.
    pub(crate) fn remove(&mut self, slot: u32) {
        let sequence = &mut self.slots[slot as usize];
        debug_assert!(sequence.live);
        sequence.live = false;
        self.by_request.remove(sequence.request.0);
        self.free.push(slot);
    }

    /// Where a request is kept, if it is here.
    pub(crate) fn find(&self, request: RequestId) -> Option<u32> {
        self.by_request.get(request.0)
    }

    /// The request in a slot, unless that slot is free.
    pub(crate) fn live(&self, slot: u32) -> Option<&Sequence> {
        let sequence = &self.slots[slot as usize];
        sequence.live.then_some(sequence)
    }
}

impl std::ops::Index<u32> for Sequences {
    type Output = Sequence;
    fn index(&self, slot: u32) -> &Sequence {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Sequences {
    fn index_mut(&mut self, slot: u32) -> &mut Sequence {
        &mut self.slots[slot as usize]
    }
}
