//! Hit rates of a trace in one cache, without an engine: requests come one after the other,
//! each is gone before the next.
//!
//! A request finds the cached beginning of its prompt, in whole blocks; the rest of its whole
//! blocks is added, which evicts what the policy says; then all of it becomes idle, the last
//! block first. A request longer than the memory leaves only the blocks that fit, from its
//! beginning. Under LRU that is the same as adding everything first and evicting down to the
//! capacity afterwards, because the blocks of the request are the most recent ones, its
//! beginning above all.

use super::{KvCache, KvLayout};
use windtunnel_base::content::{Extent, stream_key};

/// A cache and what was asked of it so far.
#[derive(Clone, Debug)]
pub struct Replay {
    cache: KvCache,
    hits: u64,
    references: u64,
}

impl Replay {
    /// An empty cache. For endless memory give more blocks than the trace has.
    pub fn new(layout: &KvLayout) -> Self {
        Self {
            cache: KvCache::new(layout),
            hits: 0,
            references: 0,
        }
    }

    /// Runs one request, given its whole prompt as a chain; returns the blocks found in cache.
    pub fn request(&mut self, prompt: &[Extent]) -> u64 {
        let block_size = self.cache.block_size();
        let blocks =
            prompt.iter().map(|e| u64::from(e.tokens)).sum::<u64>() / u64::from(block_size);
        let kept = blocks.min(self.cache.total_blocks());
        let (mut holding, tokens) = self.cache.acquire(prompt, u32::MAX);
        let found = u64::from(tokens / block_size);
        // A cache holds no more than its capacity, so what is found is part of what is kept.
        let taken = self.cache.take(kept - found);
        assert!(taken.is_ok(), "nobody else holds anything");
        let publish = kept.saturating_mul(u64::from(block_size));
        let private = (kept - found)
            - self.cache.publish(
                &mut holding,
                prompt,
                publish.min(u64::from(u32::MAX)) as u32,
            );
        self.cache.release(holding, private);
        self.hits += found;
        self.references += blocks;
        found
    }

    /// Blocks found in cache so far.
    pub const fn hits(&self) -> u64 {
        self.hits
    }

    /// Whole blocks asked for so far.
    pub const fn references(&self) -> u64 {
        self.references
    }

    /// Share of blocks found; zero if none was asked for.
    pub fn hit_ratio(&self) -> f64 {
        if self.references == 0 {
            return 0.0;
        }
        self.hits as f64 / self.references as f64
    }

    /// The cache.
    pub const fn cache(&self) -> &KvCache {
        &self.cache
    }
}

/// Turns the chained block ids of a trace (each names a block and all before it) into a chain of
/// extents, by maximal runs of consecutive ids. Every id counts as a full block.
pub fn chain_of_blocks(namespace: u64, ids: &[u64], block_size: u32, chain: &mut Vec<Extent>) {
    chain.clear();
    for (i, id) in ids.iter().enumerate() {
        match chain.last_mut() {
            Some(run) if ids[i - 1].wrapping_add(1) == *id => run.tokens += block_size,
            _ => chain.push(Extent {
                key: stream_key(namespace, *id),
                tokens: block_size,
            }),
        }
    }
}
