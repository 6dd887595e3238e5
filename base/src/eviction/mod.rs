//! Which idle content is forgotten first: one contract, five policies.
//!
//! A policy orders *slots*: dense small numbers that its owner maps to objects of its own, so
//! that nothing is hashed on the way. A slot is *idle* (a candidate for eviction), *in use*
//! (somebody works with it; it must not leave), or unknown. What a policy remembers of a slot,
//! such as its age or how often it was used, outlives use and ends with `EvictionPolicy::forget`
//! or eviction; so an object that is used and released at once is treated exactly as a hit in
//! the policy's paper.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Least recently used.
mod lru;
/// First in, first out.
mod fifo;
/// Least frequently used.
mod lfu;
/// SIEVE: a moving hand clears marks of use.
mod sieve;
/// S3-FIFO: a small, a main and a ghost queue.
mod s3fifo;
/// Doubly linked lists over slots.
mod list;
/// A binary heap over slots that can remove any entry.
mod heap;

#[cfg(test)]
mod tests;

pub use fifo::Fifo;
pub use lfu::Lfu;
pub use lru::Lru;
pub use s3fifo::S3Fifo;
pub use sieve::Sieve;

/// Which content is forgotten first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvictionKind {
    /// Least recently used.
    #[default]
    Lru,
    /// First in, first out.
    Fifo,
    /// Least frequently used.
    Lfu,
    /// SIEVE: a moving hand clears marks of use.
    Sieve,
    /// S3-FIFO: a small, a main and a ghost queue.
    S3fifo,
}

/// The order in which idle slots leave.
pub trait EvictionPolicy {
    /// The slot becomes idle: for the first time, or again after [`Self::reuse`]. Its `name`
    /// identifies the content for good, across evictions; only policies that remember what they
    /// evicted look at it.
    fn insert(&mut self, slot: u32, name: u64);

    /// The content of the slot was asked for: counts as one hit. An idle slot is in use from
    /// now on. May come before the first [`Self::insert`].
    fn reuse(&mut self, slot: u32);

    /// The object of `slot` is cut in two; `upper`, a slot unknown so far, is its first part.
    /// Both have the history of the whole from now on, and `upper` is in use.
    fn split(&mut self, slot: u32, upper: u32);

    /// Chooses the next slot to leave, and forgets it; `None` if no slot is idle.
    fn evict(&mut self) -> Option<u32>;

    /// The slot's object is gone: whatever is known of it is forgotten. Harmless if unknown.
    fn forget(&mut self, slot: u32);

    /// Idle slots.
    fn len(&self) -> usize;

    /// Whether no slot is idle.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Any of the policies, without a virtual call per object.
#[derive(Clone, Debug)]
pub enum Policy {
    /// See [`Lru`].
    Lru(Lru),
    /// See [`Fifo`].
    Fifo(Fifo),
    /// See [`Lfu`].
    Lfu(Lfu),
    /// See [`Sieve`].
    Sieve(Sieve),
    /// See [`S3Fifo`].
    S3Fifo(S3Fifo),
}

macro_rules! each {
    ($policy:expr, $p:ident => $call:expr) => {
        match $policy {
            Policy::Lru($p) => $call,
            Policy::Fifo($p) => $call,
            Policy::Lfu($p) => $call,
            Policy::Sieve($p) => $call,
            Policy::S3Fifo($p) => $call,
        }
    };
}

impl Policy {
    /// An empty policy of a kind.
    pub fn new(kind: EvictionKind) -> Self {
        match kind {
            EvictionKind::Lru => Self::Lru(Lru::default()),
            EvictionKind::Fifo => Self::Fifo(Fifo::default()),
            EvictionKind::Lfu => Self::Lfu(Lfu::default()),
            EvictionKind::Sieve => Self::Sieve(Sieve::default()),
            EvictionKind::S3fifo => Self::S3Fifo(S3Fifo::default()),
        }
    }

    /// Whether all content of a slot in use is alike to the policy, however long it has been
    /// there: then an object may grow in place without being split by age.
    pub const fn forgets_on_reuse(&self) -> bool {
        matches!(self, Self::Lru(_))
    }

    /// The slot that has been idle longest, if that is the order in which slots leave.
    pub fn longest_idle(&self) -> Option<u32> {
        match self {
            Self::Lru(lru) => lru.oldest(),
            _ => None,
        }
    }

    /// The idle slot that leaves right before a slot that becomes idle now, whatever happens to others
    /// until then: what becomes idle may as well be part of it. None if there is no such slot.
    #[inline]
    pub fn before_next(&self) -> Option<u32> {
        match self {
            Self::Lru(lru) => lru.newest(),
            _ => None,
        }
    }
}

impl EvictionPolicy for Policy {
    #[inline]
    fn insert(&mut self, slot: u32, name: u64) {
        each!(self, p => p.insert(slot, name));
    }

    #[inline]
    fn reuse(&mut self, slot: u32) {
        each!(self, p => p.reuse(slot));
    }

    #[inline]
    fn split(&mut self, slot: u32, upper: u32) {
        each!(self, p => p.split(slot, upper));
    }

    #[inline]
    fn evict(&mut self) -> Option<u32> {
        each!(self, p => p.evict())
    }

    #[inline]
    fn forget(&mut self, slot: u32) {
        each!(self, p => p.forget(slot));
    }

    #[inline]
    fn len(&self) -> usize {
        each!(self, p => p.len())
    }
}
