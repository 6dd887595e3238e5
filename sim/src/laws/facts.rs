//! A block of facts, column by column: what laws and digest look at is read in a row, and a fact whose
//! kind is known where it is told is written without a branch.

use windtunnel_base::ids::RequestId;
use windtunnel_base::time::SimTime;
use windtunnel_ledger::entry::{Entry, Fact};

/// Facts of a block. Part of the digest's definition.
const AT_ONCE: usize = 64;
const _: () = assert!(
    AT_ONCE <= u8::MAX as usize,
    "facts of a kind are counted in bytes"
);

/// Facts in order, at most a block of them.
#[derive(Debug)]
pub(crate) struct Facts {
    times: [u64; AT_ONCE],
    requests: [u32; AT_ONCE],
    details: [u32; AT_ONCE],
    kinds: [u8; AT_ONCE],
    slots: [u32; AT_ONCE],
    /// So many slots cover those named in this block and before.
    slots_needed: u32,
    len: usize,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            times: [0; AT_ONCE],
            requests: [0; AT_ONCE],
            details: [0; AT_ONCE],
            kinds: [0; AT_ONCE],
            slots: [0; AT_ONCE],
            slots_needed: 0,
            len: 0,
        }
    }
}

impl Facts {
    /// Adds one; `slot` is where the world keeps its request. Says whether the block is full: then it must
    /// be cleared before the next.
    #[inline(always)]
    pub(crate) fn push(&mut self, slot: u32, at: SimTime, request: RequestId, fact: Fact) -> bool {
        let i = self.len % AT_ONCE;
        self.times[i] = at.as_nanos();
        self.requests[i] = request.0;
        self.details[i] = fact.detail();
        self.kinds[i] = fact.kind();
        self.slots[i] = slot;
        self.slots_needed = self.slots_needed.max(slot + 1);
        self.len = i + 1;
        self.len == AT_ONCE
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Times, in ns.
    pub(crate) fn times(&self) -> &[u64] {
        &self.times[..self.len]
    }

    pub(crate) fn requests(&self) -> &[u32] {
        &self.requests[..self.len]
    }

    /// [`Fact::kind`] of each.
    pub(crate) fn kinds(&self) -> &[u8] {
        &self.kinds[..self.len]
    }

    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots[..self.len]
    }

    /// So many slots cover those named here and before.
    pub(crate) const fn slots_needed(&self) -> usize {
        self.slots_needed as usize
    }

    /// One of them, whole.
    pub(crate) fn entry(&self, i: usize) -> Entry {
        Entry {
            at: SimTime::from_nanos(self.times[i]),
            request: RequestId(self.requests[i]),
            fact: Fact::of(self.kinds[i], self.details[i]),
        }
    }

    /// Hands out the bytes of all of them for the digest, slots apart: they are the world's own affair.
    pub(crate) fn bytes(&self, mut take: impl FnMut(&[u8])) {
        let mut bytes = [0; AT_ONCE * (8 + 4 + 4 + 1)];
        let (times, rest) = bytes.split_at_mut(self.len * 8);
        let (requests, rest) = rest.split_at_mut(self.len * 4);
        let (details, rest) = rest.split_at_mut(self.len * 4);
        for (bytes, time) in times.chunks_exact_mut(8).zip(&self.times) {
            bytes.copy_from_slice(&time.to_le_bytes());
        }
        for (bytes, request) in requests.chunks_exact_mut(4).zip(&self.requests) {
            bytes.copy_from_slice(&request.to_le_bytes());
        }
        for (bytes, detail) in details.chunks_exact_mut(4).zip(&self.details) {
            bytes.copy_from_slice(&detail.to_le_bytes());
        }
        rest[..self.len].copy_from_slice(self.kinds());
        take(&bytes[..self.len * (8 + 4 + 4 + 1)]);
    }

    /// A block of one.
    #[cfg(test)]
    pub(crate) fn one(slot: u32, entry: &Entry) -> Self {
        let mut facts = Self::default();
        facts.push(slot, entry.at, entry.request, entry.fact);
        facts
    }
}
