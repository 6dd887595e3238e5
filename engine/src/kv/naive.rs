//! The same memory, block by block: every whole block is known by the chain of extents up to
//! its last token, and one list holds the order in which idle blocks leave. Slow and plain, to
//! compare with.

use std::collections::{BTreeMap, VecDeque};
use windtunnel_base::content::Extent;

/// A block's content: the chain of extents, cut after its last token.
type Chain = Vec<(u64, u32)>;

/// One idle block.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Idle {
    Block(Chain),
    LeftOver,
}

/// What a sequence holds of the cache.
#[derive(Clone, Debug, Default)]
pub(super) struct NaiveHolding(Vec<Chain>);

#[derive(Clone, Debug)]
pub(super) struct NaiveCache {
    total: u64,
    block_size: u32,
    /// Sequences that hold each cached or shared block.
    holders: BTreeMap<Chain, u32>,
    /// Next to leave at the front.
    order: VecDeque<(Idle, u64)>,
    pub(super) now: u64,
    private: u64,
    pub(super) evicted: u64,
}

fn cut(prefix: &[Extent], tokens: u32) -> Option<Chain> {
    let mut chain = Vec::new();
    let mut left = tokens;
    for extent in prefix {
        if left == 0 {
            break;
        }
        let part = left.min(extent.tokens);
        chain.push((extent.key, part));
        left -= part;
    }
    (left == 0).then_some(chain)
}

impl NaiveCache {
    pub(super) fn new(total: u64, block_size: u32) -> Self {
        Self {
            total,
            block_size,
            holders: BTreeMap::new(),
            order: VecDeque::new(),
            now: 0,
            private: 0,
            evicted: 0,
        }
    }

    pub(super) fn held(&self) -> u64 {
        self.private + self.holders.values().filter(|h| **h > 0).count() as u64
    }

    pub(super) fn cached(&self) -> u64 {
        self.order.len() as u64
    }

    fn found(&self, prefix: &[Extent], max_tokens: u32) -> Vec<Chain> {
        (1..=max_tokens / self.block_size)
            .map_while(|k| cut(prefix, k * self.block_size))
            .take_while(|chain| self.holders.contains_key(chain))
            .collect()
    }

    pub(super) fn lookup(&self, prefix: &[Extent], max_tokens: u32) -> u32 {
        self.found(prefix, max_tokens).len() as u32 * self.block_size
    }

    fn hold(&mut self, chain: &Chain) -> bool {
        let holders = self.holders.get_mut(chain).expect("present");
        *holders += 1;
        let was_idle = *holders == 1;
        if was_idle {
            self.order
                .retain(|(idle, _)| *idle != Idle::Block(chain.clone()));
        }
        was_idle
    }

    pub(super) fn acquire(&mut self, prefix: &[Extent], max_tokens: u32) -> NaiveHolding {
        let found = self.found(prefix, max_tokens);
        for chain in &found {
            self.hold(chain);
        }
        NaiveHolding(found)
    }

    pub(super) fn take(&mut self, blocks: u64) -> bool {
        if self.held() + blocks > self.total {
            return false;
        }
        while self.held() + self.cached() + blocks > self.total {
            self.forget_first();
            self.evicted += 1;
        }
        self.private += blocks;
        true
    }

    fn forget_first(&mut self) {
        if let Some((Idle::Block(chain), _)) = self.order.pop_front() {
            self.holders.remove(&chain);
        }
    }

    /// Forgets what has been idle for so long.
    pub(super) fn expire(&mut self, after: u64) {
        let due = |&(_, since): &(Idle, u64)| since + after <= self.now;
        for _ in 0..self.order.iter().take_while(|idle| due(idle)).count() {
            self.forget_first();
        }
    }

    pub(super) fn give_back(&mut self, blocks: u64) {
        self.private -= blocks;
    }

    pub(super) fn publish(
        &mut self,
        holding: &mut NaiveHolding,
        prefix: &[Extent],
        tokens: u32,
    ) -> u64 {
        let mut became_shared = 0;
        for k in holding.0.len() as u32 + 1..=tokens / self.block_size {
            let Some(chain) = cut(prefix, k * self.block_size) else {
                break;
            };
            // Absent: own block is shared. Idle: own block replaces it. Held: own copy stays.
            if !self.holders.contains_key(&chain) {
                self.holders.insert(chain.clone(), 1);
                became_shared += 1;
            } else if self.hold(&chain) {
                became_shared += 1;
            }
            holding.0.push(chain);
        }
        self.private -= became_shared;
        became_shared
    }

    pub(super) fn release(&mut self, holding: NaiveHolding, private: u64) {
        self.private -= private;
        for _ in 0..private {
            self.order.push_back((Idle::LeftOver, self.now));
        }
        for chain in holding.0.into_iter().rev() {
            let holders = self.holders.get_mut(&chain).expect("held");
            *holders -= 1;
            if *holders == 0 {
                self.order.push_back((Idle::Block(chain), self.now));
            }
        }
    }
}
