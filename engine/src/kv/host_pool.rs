//! Host memory, to which sequences are swapped.

use super::Shortage;

/// Host memory for swapped sequences, in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostPool {
    total: u64,
    used: u64,
}

impl HostPool {
    /// Empty host memory.
    pub const fn new(total_blocks: u64) -> Self {
        Self {
            total: total_blocks,
            used: 0,
        }
    }

    /// Blocks in all.
    pub const fn total_blocks(&self) -> u64 {
        self.total
    }

    /// Blocks in use.
    pub const fn used_blocks(&self) -> u64 {
        self.used
    }

    /// Takes blocks.
    ///
    /// # Errors
    /// If so many are not left; then nothing changes.
    pub fn take(&mut self, blocks: u64) -> Result<(), Shortage> {
        let left = self.total - self.used;
        if blocks > left {
            return Err(Shortage {
                missing: blocks - left,
            });
        }
        self.used += blocks;
        Ok(())
    }

    /// Gives blocks back.
    ///
    /// # Panics
    /// If so many are not in use.
    pub fn give_back(&mut self, blocks: u64) {
        assert!(blocks <= self.used, "only what was taken can be given back");
        self.used -= blocks;
    }
}
