//! What changed in the memory of a replica, and whether its books add up.

use super::{KvCache, NONE};
use crate::engine::CacheEvent;
use rustc_hash::FxHashMap;
use windtunnel_base::eviction::EvictionPolicy as _;
use windtunnel_base::time::SimTime;

/// The books of a cache do not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("KV books: {what} should be {expected}, found {found}")]
pub struct Imbalance {
    /// Which figure.
    pub what: &'static str,
    /// What it should be.
    pub expected: u64,
    /// What it is.
    pub found: u64,
}

impl KvCache {
    /// Records changes of what can be found from now on, or no longer. What was recorded and
    /// not taken is dropped.
    pub fn record_events(&mut self, on: bool) {
        self.tree.record_changes(on);
    }

    /// Appends the changes since the last call, in order, as of `now`.
    pub fn take_events(&mut self, now: SimTime, events: &mut Vec<CacheEvent>) {
        events.extend(self.tree.changes().map(|(chain, tokens)| CacheEvent {
            at: now,
            chain,
            tokens,
        }));
    }

    /// Checks that every block is accounted for once. Cheap.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<(), Imbalance> {
        let found = self.private + self.shared + self.cached + self.empty;
        expect("all blocks together", self.total_blocks(), found)
    }

    /// Counts everything again and compares it with the books. Slow; for tests and audits.
    ///
    /// # Errors
    /// If they differ.
    pub fn audit(&self) -> Result<(), Imbalance> {
        self.check()?;
        let (mut shared, mut cached, mut candidates, mut streams) = (0, 0, 0, 0);
        let mut holders_below: FxHashMap<u32, u64> = FxHashMap::default();
        for slot in self.tree.slots() {
            let node = &self.tree[slot];
            if node.parent != NONE {
                streams += u64::from(node.offset == 0);
                *holders_below.entry(node.parent).or_default() += u64::from(node.refs);
                let above = &self.tree[node.parent];
                expect(
                    "a node's begin",
                    u64::from(above.end()),
                    u64::from(node.start),
                )?;
            }
            if node.refs > 0 {
                shared += node.blocks;
            } else {
                cached += node.blocks;
                candidates += u64::from(node.blocks > 0 && self.leaving != Some(slot));
                let useless = node.blocks == 0 && node.is_leaf();
                expect("idle leaves without a block", 0, u64::from(useless))?;
            }
        }
        for slot in self.tree.slots() {
            // Whoever holds a node holds all above it.
            let below = holders_below.get(&slot).copied().unwrap_or(0);
            let here = u64::from(self.tree[slot].refs);
            expect("holders of a node and below", here.max(below), here)?;
        }
        self.audit_numbers()?;
        expect("shared blocks", shared, self.shared)?;
        expect("cached blocks", cached, self.cached)?;
        expect("streams", streams, self.tree.streams() as u64)?;
        expect(
            "candidates for eviction",
            candidates,
            self.policy.len() as u64,
        )
    }

    /// Every block of the tree has a number, and no more are in use than the books say.
    fn audit_numbers(&self) -> Result<(), Imbalance> {
        let Some(numbers) = &self.numbers else {
            return Ok(());
        };
        for slot in self.tree.slots() {
            let node = &self.tree[slot];
            let blocks = if node.parent == NONE { 0 } else { node.blocks };
            expect("numbers of a node", blocks, numbers.of(slot) as u64)?;
        }
        let booked = self.total_blocks() - self.empty;
        expect(
            "numbers in use",
            numbers.in_use().min(booked),
            numbers.in_use(),
        )
    }

    pub(super) fn debug_check(&self) {
        debug_assert_eq!(self.check(), Ok(()));
    }
}

fn expect(what: &'static str, expected: u64, found: u64) -> Result<(), Imbalance> {
    if expected == found {
        return Ok(());
    }
    Err(Imbalance {
        what,
        expected,
        found,
    })
}
