//! What a cache of prompts that replicas share did over a run.

use serde::{Deserialize, Serialize};

/// Prompt tokens by where they were found, and what fetching them took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedCacheTotals {
    /// Prompt tokens of requests that started.
    pub prompt_tokens: u64,
    /// Of those, found in the replica's own cache.
    pub local_tokens: u64,
    /// Of those, fetched from the shared cache beyond that.
    pub shared_tokens: u64,
    /// Tokens found by requests that started again after having been thrown out of memory.
    pub again_tokens: u64,
    /// Requests for which something was fetched.
    pub refills: u64,
    /// From asking for it to having it, over those, ns.
    pub refill_ns: u64,
    /// The part of that in which they could not have been admitted anyway, ns.
    pub hidden_ns: u64,
    /// Tokens fetched, for nothing or not.
    pub fetched_tokens: u64,
    /// Blocks that the shared cache gave up for others.
    pub evicted_blocks: u64,
}

impl SharedCacheTotals {
    /// Prompt tokens found in any cache, each time a request started.
    pub const fn found(&self) -> u64 {
        self.local_tokens + self.shared_tokens + self.again_tokens
    }
}
