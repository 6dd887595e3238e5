//! The memory of a replica: who holds what, and who leaves when it is short.

/// What changed, and whether the books add up.
mod checks;
/// Which blocks a sequence has, where blocks have numbers.
mod tables;

pub use checks::Imbalance;

use super::expiry::Expiry;
use super::numbers::Numbers;
use super::prefix_tree::{NONE, PrefixTree, ROOT};
use windtunnel_base::content::Extent;
use windtunnel_base::eviction::{EvictionKind, EvictionPolicy, Policy};

/// What memory a replica has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvLayout {
    /// Blocks in all.
    pub total_blocks: u64,
    /// Tokens per block; more than zero.
    pub block_size: u32,
    /// Keep and reuse computed prefixes. Without, blocks are only counted.
    pub prefix_cache: bool,
    /// Which reusable content is forgotten first.
    pub eviction: EvictionKind,
}

/// What one sequence holds of the prefix tree: the path to a node. The empty holding (the
/// default) holds nothing. Every holding must go back by [`KvCache::release`], once; it is not
/// `Copy` for that reason.
#[must_use = "what a holding pins stays pinned until it is released"]
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Holding {
    /// Deepest node of the path; the root for the empty holding.
    node: u32,
    /// Tokens of the prompt that the path covers: whole blocks.
    tokens: u32,
}

impl Holding {
    /// Tokens of the prompt that the path covers: whole blocks.
    pub const fn tokens(&self) -> u32 {
        self.tokens
    }
}

/// Not enough blocks can be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{missing} more KV blocks are needed than can be freed")]
pub struct Shortage {
    /// Blocks that are missing.
    pub missing: u64,
}

/// The paged memory of one replica. Its counters come first, in one line of memory: they are all that most
/// steps ask for.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct KvCache {
    private: u64,
    shared: u64,
    cached: u64,
    empty: u64,
    layout: KvLayout,
    evicted: u64,
    /// Chosen by the policy to leave, and leaving: its blocks go one by one as they are needed.
    /// What is left of it can be found until then.
    leaving: Option<u32>,
    tree: PrefixTree,
    policy: Policy,
    /// Numbers of blocks, if somebody stores something in them.
    numbers: Option<Box<Numbers>>,
    /// Since when content is idle, if it is forgotten after a while.
    pub(super) expiry: Option<Box<Expiry>>,
}

impl KvCache {
    /// Empty memory.
    ///
    /// # Panics
    /// If the block size is zero.
    pub fn new(layout: &KvLayout) -> Self {
        assert!(layout.block_size > 0, "blocks hold at least one token");
        Self {
            layout: *layout,
            tree: PrefixTree::new(layout.block_size),
            policy: Policy::new(layout.eviction),
            leaving: None,
            private: 0,
            shared: 0,
            cached: 0,
            empty: layout.total_blocks,
            evicted: 0,
            numbers: None,
            expiry: None,
        }
    }

    // --- reading -------------------------------------------------------------------------

    /// Blocks in all.
    pub const fn total_blocks(&self) -> u64 {
        self.layout.total_blocks
    }

    /// Tokens per block.
    pub const fn block_size(&self) -> u32 {
        self.layout.block_size
    }

    /// Blocks that sequences hold: private ones, and shared ones, each counted once.
    pub const fn held_blocks(&self) -> u64 {
        self.private + self.shared
    }

    /// Blocks with content that nobody holds: reusable, or left over.
    pub const fn cached_blocks(&self) -> u64 {
        self.cached
    }

    /// Blocks that can be taken: all that nobody holds, whether or not there is content in them.
    pub const fn free_blocks(&self) -> u64 {
        self.total_blocks() - self.held_blocks()
    }

    /// Blocks whose content was given up for other content so far.
    pub const fn evicted_blocks(&self) -> u64 {
        self.evicted
    }

    /// Tokens of a prompt that are in memory, in whole blocks and at most `max_tokens`. Callers
    /// with a prompt to run pass one less than its length, so that one token is computed.
    pub fn lookup(&self, prefix: &[Extent], max_tokens: u32) -> u32 {
        if !self.layout.prefix_cache {
            return 0;
        }
        let (_, matched) = self.tree.descend(prefix, max_tokens);
        matched - matched % self.layout.block_size
    }

    /// As [`Self::lookup`], with the number of those blocks that nobody holds: acquiring them
    /// makes so many fewer [`Self::free_blocks`]. Changes nothing, recency included.
    pub fn probe(&self, prefix: &[Extent], max_tokens: u32) -> (u32, u64) {
        if !self.layout.prefix_cache {
            return (0, 0);
        }
        let (mut node, matched) = self.tree.descend(prefix, max_tokens);
        let size = self.layout.block_size;
        let tokens = matched - matched % size;
        let mut idle = 0;
        while node != ROOT && self.tree[node].refs == 0 {
            let first = self.tree[node].start / size;
            let end = tokens.min(self.tree[node].end()) / size;
            idle += u64::from(end.saturating_sub(first));
            node = self.tree[node].parent;
        }
        (tokens, idle)
    }

    /// Shared blocks that would no longer be held if these holdings were released.
    pub(crate) fn shared_by_only<'a>(&self, holdings: impl Iterator<Item = &'a Holding>) -> u64 {
        let mut met: Vec<(u32, u32)> = Vec::new();
        for holding in holdings {
            let mut slot = holding.node;
            while slot != ROOT {
                match met.iter_mut().find(|(node, _)| *node == slot) {
                    Some((_, times)) => *times += 1,
                    None => met.push((slot, 1)),
                }
                slot = self.tree[slot].parent;
            }
        }
        let alone = met.iter().filter(|&&(slot, n)| self.tree[slot].refs == n);
        alone.map(|&(slot, _)| self.tree[slot].blocks).sum()
    }

    // --- the life of a sequence ----------------------------------------------------------

    /// Pins what [`Self::lookup`] would find, and says how many tokens that is.
    pub fn acquire(&mut self, prefix: &[Extent], max_tokens: u32) -> (Holding, u32) {
        if !self.layout.prefix_cache {
            return (Holding::default(), 0);
        }
        let (mut node, matched) = self.tree.descend(prefix, max_tokens);
        let tokens = matched - matched % self.layout.block_size;
        while node != ROOT && self.tree[node].start >= tokens {
            node = self.tree[node].parent;
        }
        if node != ROOT && self.tree[node].end() > tokens {
            node = self.split(node, tokens - self.tree[node].start);
        }
        let mut pinned = node;
        while pinned != ROOT {
            self.pin(pinned);
            pinned = self.tree[pinned].parent;
        }
        self.debug_check();
        (Holding { node, tokens }, tokens)
    }

    /// Takes private blocks, at the cost of cached content if there are not enough empty ones.
    ///
    /// # Errors
    /// If so many are not free; then nothing changes.
    pub fn take(&mut self, blocks: u64) -> Result<(), Shortage> {
        let free = self.free_blocks();
        if blocks > free {
            return Err(Shortage {
                missing: blocks - free,
            });
        }
        if blocks > self.empty {
            self.evict(blocks - self.empty);
        }
        self.empty -= blocks;
        self.private += blocks;
        self.debug_check();
        Ok(())
    }

    /// Gives back private blocks in which nothing was computed.
    ///
    /// # Panics
    /// If there are not so many private blocks.
    pub fn give_back(&mut self, blocks: u64) {
        self.spend_private(blocks);
        self.empty += blocks;
        self.debug_check();
    }

    /// The first `tokens` tokens of the prompt are computed: from now on others can find its
    /// whole blocks, as far as `prefix` goes. `prefix` is the chain that was acquired, perhaps
    /// longer at its end (as when output continues the last extent). Returns how many of the
    /// sequence's private blocks became shared, which its own count of private blocks must lose.
    ///
    /// Block by block:
    /// - nobody has it: the private block becomes a shared block, which the sequence holds;
    /// - it is cached: likewise, and the stale copy's block becomes empty;
    /// - it is shared by sequences that hold it: the sequence holds it too and keeps its own
    ///   copy as a private block (as vLLM does, which never merges copies).
    ///
    /// So publishing changes neither held nor free blocks.
    ///
    /// # Panics
    /// If blocks are published that were never taken.
    pub fn publish(&mut self, holding: &mut Holding, prefix: &[Extent], tokens: u32) -> u64 {
        self.publish_numbered(holding, prefix, tokens, &mut Vec::new())
    }

    /// As [`Self::publish`], by a sequence whose blocks have these numbers.
    pub(crate) fn publish_numbered(
        &mut self,
        holding: &mut Holding,
        prefix: &[Extent],
        tokens: u32,
        table: &mut Vec<u32>,
    ) -> u64 {
        if !self.layout.prefix_cache {
            return 0;
        }
        let named: u64 = prefix.iter().map(|e| u64::from(e.tokens)).sum();
        let tokens = named.min(u64::from(tokens)) as u32;
        let target = tokens - tokens % self.layout.block_size;
        if target <= holding.tokens {
            return 0;
        }
        self.cover(table, target);
        let mut became_shared = 0;
        let mut extent_start = 0_u32;
        for extent in prefix {
            let extent_end = target.min(extent_start.saturating_add(extent.tokens));
            while holding.tokens < extent_end {
                let offset = holding.tokens - extent_start;
                let want = extent_end - holding.tokens;
                became_shared += self.publish_next(holding, extent.key, offset, want, table);
            }
            if extent_end == target {
                break;
            }
            extent_start = extent_end;
        }
        self.debug_check();
        became_shared
    }

    /// One step along the stream `key`, of which `offset` tokens are behind and at most `want`
    /// ahead.
    fn publish_next(
        &mut self,
        holding: &mut Holding,
        key: u64,
        offset: u32,
        want: u32,
        table: &[u32],
    ) -> u64 {
        let at = holding.node;
        let next = match offset {
            0 => self.tree.stream(at, key),
            _ => self.tree[at].continuation,
        };
        if next != NONE {
            let node = if self.tree[next].tokens > want {
                self.split(next, want)
            } else {
                next
            };
            *holding = Holding {
                node,
                tokens: self.tree[node].end(),
            };
            let stale = self.pin(node);
            if stale > 0 {
                self.number(node, 0, table);
            }
            self.spend_private(stale);
            self.empty += stale;
            return stale;
        }
        let above = &self.tree[at];
        let own = above.refs == 1 && above.is_leaf();
        let gained = if offset > 0 && own && (above.fresh || self.policy.forgets_on_reuse()) {
            let before = self.tree[at].blocks;
            let gained = self.tree.grow(at, want);
            self.number(at, before, table);
            gained
        } else {
            holding.node = self.tree.add(at, key, offset, want);
            self.number(holding.node, 0, table);
            self.tree[holding.node].blocks
        };
        holding.tokens += want;
        self.spend_private(gained);
        self.shared += gained;
        gained
    }

    /// Ends a sequence that has so many private blocks with content. Left over first comes what
    /// is private, then its path from the end to the beginning, as far as nobody else holds it:
    /// in this order it will leave.
    ///
    /// # Panics
    /// If there are not so many private blocks.
    pub fn release(&mut self, holding: Holding, private_blocks: u64) {
        if !self.layout.prefix_cache {
            self.give_back(private_blocks);
            return;
        }
        self.spend_private(private_blocks);
        if private_blocks > 0 {
            self.cached += private_blocks;
            // What leaves one after the other may as well be one, as long as nobody can ask for it.
            let as_old = |last| match &self.expiry {
                Some(expiry) => expiry.idles_since_now(last),
                None => true,
            };
            match self.policy.before_next() {
                Some(last) if self.tree[last].parent == NONE && as_old(last) => {
                    self.tree[last].blocks += private_blocks;
                }
                _ => {
                    let stretch = self.tree.add_stretch(private_blocks);
                    self.make_idle(stretch);
                }
            }
        }
        let mut slot = holding.node;
        while slot != ROOT {
            let node = &mut self.tree[slot];
            let parent = node.parent;
            node.refs -= 1;
            if node.refs == 0 {
                let blocks = node.blocks;
                if blocks > 0 {
                    self.shared -= blocks;
                    self.cached += blocks;
                    self.make_idle(slot);
                } else if node.is_leaf() {
                    self.remove(slot);
                }
            }
            slot = parent;
        }
        self.debug_check();
    }

    // --- inner moves ---------------------------------------------------------------------

    fn spend_private(&mut self, blocks: u64) {
        assert!(
            blocks <= self.private,
            "only blocks that were taken can be given on"
        );
        self.private -= blocks;
    }

    /// One more sequence holds a node. Returns its blocks if nobody did before.
    fn pin(&mut self, slot: u32) -> u64 {
        let node = &mut self.tree[slot];
        node.refs += 1;
        if node.blocks == 0 {
            return 0;
        }
        let (first, blocks) = (node.refs == 1, node.blocks);
        self.policy.reuse(slot);
        if !first {
            return 0;
        }
        if self.leaving == Some(slot) {
            self.leaving = None;
        }
        self.cached -= blocks;
        self.shared += blocks;
        blocks
    }

    fn make_idle(&mut self, slot: u32) {
        let node = &mut self.tree[slot];
        node.fresh = false;
        self.policy.insert(slot, node.name());
        if let Some(expiry) = &mut self.expiry {
            expiry.idles(slot);
        }
    }

    /// Whether what has been idle longest leaves first.
    pub(super) fn leaves_by_recency(&self) -> bool {
        matches!(self.policy, Policy::Lru(_))
    }

    /// What leaves next, where that is what has been idle longest.
    pub(super) fn next_to_leave(&self) -> Option<u32> {
        self.leaving.or_else(|| self.policy.longest_idle())
    }

    /// Forgets what leaves next, although nobody needs its blocks.
    pub(super) fn forget_next(&mut self) {
        let Some(next) = self.next_to_leave() else {
            return;
        };
        let evicted = self.evicted;
        self.evict(self.tree[self.tree.leaf_below(next)].blocks);
        self.evicted = evicted;
    }

    /// Cuts a node in two, because a sequence holds only its first part; see
    /// [`PrefixTree::split`]. The caller pins that part.
    fn split(&mut self, slot: u32, keep: u32) -> u32 {
        let upper = self.tree.split(slot, keep);
        self.policy.split(slot, upper);
        if let Some(numbers) = &mut self.numbers {
            numbers.split(slot, upper, self.tree[upper].blocks as usize);
        }
        let rest = &self.tree[slot];
        if rest.blocks == 0 && rest.refs == 0 {
            self.policy.forget(slot);
            if self.leaving == Some(slot) {
                self.leaving = None;
            }
            if rest.is_leaf() {
                self.tree.remove(slot);
            }
        }
        upper
    }

    /// Removes an idle leaf whose blocks are gone, and what was only kept as the way to it.
    fn remove(&mut self, slot: u32) {
        self.policy.forget(slot);
        if self.leaving == Some(slot) {
            self.leaving = None;
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.shorten(slot, 0);
        }
        let mut above = self.tree.remove(slot);
        while above != NONE && above != ROOT {
            let node = &self.tree[above];
            if node.refs > 0 || node.blocks > 0 || !node.is_leaf() {
                break;
            }
            self.policy.forget(above);
            above = self.tree.remove(above);
        }
    }

    /// Gives up cached content: the policy's choice, from its end; what follows it first.
    fn evict(&mut self, mut blocks: u64) {
        debug_assert!(blocks <= self.cached);
        self.evicted += blocks;
        self.cached -= blocks;
        self.empty += blocks;
        while blocks > 0 {
            let victim = match self.leaving {
                Some(victim) => victim,
                None => self
                    .policy
                    .evict()
                    .expect("cached blocks are candidates for eviction"),
            };
            self.leaving = Some(victim);
            let leaf = self.tree.leaf_below(victim);
            let there = self.tree[leaf].blocks;
            if there > blocks {
                self.tree.shorten(leaf, blocks);
                if let Some(numbers) = &mut self.numbers {
                    numbers.shorten(leaf, (there - blocks) as usize);
                }
                return;
            }
            blocks -= there;
            self.remove(leaf);
        }
    }
}
