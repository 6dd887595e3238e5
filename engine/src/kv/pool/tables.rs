//! Which blocks a sequence has, where blocks have numbers.

use super::{Holding, KvCache, Numbers, ROOT};

impl KvCache {
    /// Gives every block a number from now on, for somebody who stores something in it. Nothing
    /// may be in memory yet.
    pub(crate) fn number_blocks(&mut self) {
        debug_assert_eq!(self.empty, self.total_blocks());
        let blocks = u32::try_from(self.total_blocks()).unwrap_or(u32::MAX);
        self.numbers = Some(Box::new(Numbers::new(blocks)));
    }

    /// Lengthens the list of a sequence's blocks to room for `tokens` tokens, which it has taken.
    pub(crate) fn cover(&mut self, table: &mut Vec<u32>, tokens: u32) {
        if let Some(numbers) = &mut self.numbers {
            numbers.cover(table, tokens.div_ceil(self.layout.block_size) as usize);
        }
    }

    /// Lists the blocks of a path that was just acquired.
    pub(crate) fn list_path(&mut self, holding: &Holding, table: &mut Vec<u32>) {
        let Some(numbers) = &mut self.numbers else {
            return;
        };
        let mut path = Vec::new();
        let mut slot = holding.node;
        while slot != ROOT {
            path.push(slot);
            slot = self.tree[slot].parent;
        }
        for slot in path.into_iter().rev() {
            numbers.share(slot, table);
        }
    }

    /// Forgets which blocks a sequence had; to be called with its release.
    pub(crate) fn forget_table(&mut self, table: &mut Vec<u32>) {
        if let Some(numbers) = &mut self.numbers {
            numbers.release(table);
        }
    }

    /// Moves the numbers given out since the last call to `issued`.
    pub(crate) fn take_issued(&mut self, issued: &mut Vec<u32>) {
        if let Some(numbers) = &mut self.numbers {
            numbers.take_issued(issued);
        }
    }

    /// The blocks of a node after its first `keep` are those of a sequence.
    pub(super) fn number(&mut self, slot: u32, keep: u64, table: &[u32]) {
        let Some(numbers) = &mut self.numbers else {
            return;
        };
        let node = &self.tree[slot];
        let first = u64::from(node.start / self.layout.block_size);
        let (from, to) = ((first + keep) as usize, (first + node.blocks) as usize);
        numbers.shorten(slot, keep as usize);
        numbers.extend(slot, &table[from..to]);
    }
}
