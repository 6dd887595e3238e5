//! What the gateways' store did over a run.

use crate::distribution::Distribution;
use serde::{Deserialize, Serialize};

/// Operations of a store, and what became of them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreTotals {
    /// Reads sent.
    pub reads: u64,
    /// Of those, without an answer in time.
    pub failed_reads: u64,
    /// Decisions for which the store was not asked, because it had not answered shortly before.
    pub unasked: u64,
    /// Decisions taken without what the store would have said: failed, unasked, or answered by a
    /// store that had lost its contents.
    pub blind: u64,
    /// Writes sent.
    pub writes: u64,
    /// Of those, lost.
    pub lost_writes: u64,
    /// Operations served.
    pub served: u64,
    /// Time that those waited at the store, together, ns.
    pub waited_ns: u64,
    /// Times that it came back without its contents.
    pub wiped: u64,
    /// From asking to knowing, of reads that were answered.
    pub read: Distribution,
}

/// What a routing policy's own index did over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexTotals {
    /// Most entries at once.
    pub peak_entries: u64,
    /// Decisions that followed an entry.
    pub followed: u64,
    /// Decisions for keys without an entry.
    pub placed: u64,
    /// Decisions that an entry would have settled, but its replica had too much to do.
    pub over_bound: u64,
    /// Decisions for keys that a gateway without its store did not know.
    pub unknown: u64,
    /// Entries forgotten because of their age.
    pub expired: u64,
    /// Entries forgotten for want of room.
    pub evicted: u64,
    /// Followed entries whose replica had forgotten all of the prompt.
    pub false_affinity: u64,
}

impl IndexTotals {
    /// Those of two indexes; their most entries may not have been at the same time.
    #[must_use]
    pub const fn plus(self, o: Self) -> Self {
        Self {
            peak_entries: self.peak_entries + o.peak_entries,
            followed: self.followed + o.followed,
            placed: self.placed + o.placed,
            over_bound: self.over_bound + o.over_bound,
            unknown: self.unknown + o.unknown,
            expired: self.expired + o.expired,
            evicted: self.evicted + o.evicted,
            false_affinity: self.false_affinity + o.false_affinity,
        }
    }
}
