//! The paged memory of one replica for keys and values, and the prefix cache in it.
//!
//! Blocks are counted, not numbered: a block is *private* to one sequence, *shared* (content of
//! the prefix tree that some sequence works on), *cached* (content that nobody works on, until
//! it is evicted) or *empty*. `held = private + shared`; everything else is free to take.
//!
//! The life of a sequence:
//!
//! 1. `KvCache::acquire` finds and pins the cached beginning of its prompt;
//! 2. `KvCache::take` gets private blocks for what is to be computed, again whenever the
//!    sequence grows into a new block;
//! 3. `KvCache::publish` makes computed blocks visible to others, as often as one likes;
//! 4. `KvCache::release` ends it. What it had published and all else it had computed stays in
//!    memory until evicted, the end of a sequence before its beginning.
//!
//! With LRU all of this is, block for block, what hashing every block and touching a finished
//! sequence's last block first would do (as in vLLM); see the tests.

/// Forgetting what nobody has used for a while.
mod expiry;
/// Host memory, to which sequences are swapped.
mod host_pool;
/// Numbers of blocks, where something is stored in them.
mod numbers;
/// The memory of a replica: who holds what.
mod pool;
/// Which prefixes are in memory: a tree of extents.
mod prefix_tree;
/// Hit rates of a trace in one cache, without an engine.
pub mod replay;

#[cfg(test)]
mod catalogue_tests;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

pub use host_pool::HostPool;
pub use pool::{Holding, Imbalance, KvCache, KvLayout, Shortage};

use windtunnel_base::rng::mix64;

/// The place from which every prompt begins.
pub const ROOT_CHAIN: u64 = 0;

/// Names a stream at its place in the tree of prefixes: it begins after `at` tokens of the
/// stream named `parent` (0 after [`ROOT_CHAIN`]). Two prompts have a name in common exactly
/// if they agree on everything before that stream and on its key.
///
/// Who follows [`crate::engine::CacheEvent`]s finds what is in memory of a prompt so: for each
/// extent in turn, `name = chain(name, at, extent.key)`, look up the resident tokens of `name`,
/// count `min(resident, extent.tokens)`, stop if that is less than `extent.tokens`, and go on
/// with `at = extent.tokens`. Rounded down to whole blocks the sum is what
/// [`KvCache::lookup`] would say.
pub const fn chain(parent: u64, at: u32, key: u64) -> u64 {
    // Each step is a bijection, so names differ where a single argument does.
    mix64(mix64(parent ^ at as u64) ^ key)
}
