//! Device and host memory as the scheduler sees it. A running request with `n` tokens in KV holds
//! `ceil(n / block_size)` blocks: the shared ones of its prefix, and private ones.

use crate::engine::CacheEvent;
use crate::kv::{Holding, HostPool, Imbalance, KvCache, KvLayout};
use windtunnel_base::content::Extent;
use windtunnel_base::time::{SimDuration, SimTime};

/// What one request holds beside its private blocks, which are what is left of
/// `ceil(n / block_size)`.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    holding: Holding,
    shared: u64,
    /// Numbers of its blocks in the order of its tokens, where blocks have numbers: as far as
    /// something was planned to be in them.
    table: Vec<u32>,
}

impl Pages {
    /// Numbers of its blocks in the order of its tokens.
    pub(crate) fn table(&self) -> &[u32] {
        &self.table
    }
}

/// What is in memory of a prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// Tokens, in whole blocks.
    pub(crate) tokens: u32,
    /// Blocks of it that nobody holds: acquiring them takes them from what is available.
    pub(crate) idle: u64,
}

/// Memory of one replica.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Memory {
    device: KvCache,
    host: HostPool,
    events: Option<Vec<CacheEvent>>,
}

impl Memory {
    /// What is cached is forgotten when nobody has used it for `expires`.
    pub(crate) fn new(layout: &KvLayout, host_blocks: u64, expires: Option<SimDuration>) -> Self {
        Self {
            device: KvCache::new(layout).expiring(expires),
            host: HostPool::new(host_blocks),
            events: None,
        }
    }

    /// Checks that every block is accounted for once; `thorough` counts everything again.
    pub(crate) fn check(&self, thorough: bool) -> Result<(), Imbalance> {
        if thorough {
            self.device.audit()
        } else {
            self.device.check()
        }
    }

    // --- device ------------------------------------------------------------------------------

    /// Blocks for so many tokens.
    #[inline]
    pub(crate) fn blocks(&self, tokens: u32) -> u64 {
        u64::from(tokens.div_ceil(self.block_size()))
    }

    pub(crate) fn block_size(&self) -> u32 {
        self.device.block_size()
    }

    pub(crate) fn total(&self) -> u64 {
        self.device.total_blocks()
    }

    pub(crate) fn held(&self) -> u64 {
        self.device.held_blocks()
    }

    pub(crate) fn cached(&self) -> u64 {
        self.device.cached_blocks()
    }

    /// Blocks that running requests could take: empty ones, and reusable ones.
    pub(crate) fn available(&self) -> u64 {
        self.device.free_blocks()
    }

    /// Blocks that can be taken without forgetting anything.
    pub(crate) fn empty(&self) -> u64 {
        self.device.free_blocks() - self.device.cached_blocks()
    }

    /// Takes blocks that the scheduler has seen to be available.
    pub(crate) fn take(&mut self, blocks: u64) {
        let taken = self.device.take(blocks);
        assert!(
            taken.is_ok(),
            "the scheduler looks before it takes: {taken:?}"
        );
    }

    /// Forgets all that is cached and nobody holds.
    pub(crate) fn forget(&mut self) {
        let free = self.available();
        self.take(free);
        self.device.give_back(free);
    }

    /// It is `now`: what requests release next is idle since now.
    #[inline]
    pub(crate) fn tell_time(&mut self, now: SimTime) {
        self.device.tell_time(now);
    }

    /// It is `now`: what nobody has used for too long is forgotten.
    #[inline]
    pub(crate) fn expire(&mut self, now: SimTime) {
        self.device.expire(now);
    }

    /// When something is to be forgotten next.
    pub(crate) fn next_expiry(&self) -> Option<SimTime> {
        self.device.next_expiry()
    }

    pub(crate) fn probe(&self, prefix: &[Extent], max_tokens: u32) -> Probe {
        let (tokens, idle) = self.device.probe(prefix, max_tokens);
        Probe { tokens, idle }
    }

    pub(crate) fn lookup(&self, prefix: &[Extent], max_tokens: u32) -> u32 {
        self.device.lookup(prefix, max_tokens)
    }

    /// Holds the first `tokens` tokens of a prompt, which [`Self::probe`] has found.
    pub(crate) fn acquire(&mut self, pages: &mut Pages, prefix: &[Extent], tokens: u32) {
        let (holding, found) = self.device.acquire(prefix, tokens);
        debug_assert_eq!(found, tokens);
        pages.holding = holding;
        pages.shared = self.blocks(found);
        self.device.list_path(&pages.holding, &mut pages.table);
    }

    /// Shows others the whole blocks of the first `tokens` tokens of a prompt.
    pub(crate) fn publish(&mut self, pages: &mut Pages, prefix: &[Extent], tokens: u32) {
        let Pages {
            holding,
            shared,
            table,
        } = pages;
        *shared += self.device.publish_numbered(holding, prefix, tokens, table);
    }

    /// Blocks that these requests hold, with so many tokens, and nobody else does.
    pub(crate) fn held_alone(&self, requests: &[(&Pages, u32)]) -> u64 {
        let private = requests
            .iter()
            .map(|&(pages, tokens)| self.blocks(tokens) - pages.shared);
        let holdings = requests.iter().map(|(pages, _)| &pages.holding);
        private.sum::<u64>() + self.device.shared_by_only(holdings)
    }

    /// Ends a request's stay: it has blocks for `tokens` tokens, the last `unused` of which were
    /// never computed.
    pub(crate) fn release(&mut self, pages: &mut Pages, tokens: u32, unused: u32) {
        let holds = self.blocks(tokens);
        let blank = holds - self.blocks(tokens - unused);
        let holding = std::mem::take(&mut pages.holding);
        let shared = std::mem::take(&mut pages.shared);
        self.device.forget_table(&mut pages.table);
        self.device.give_back(blank);
        self.device.release(holding, holds - blank - shared);
    }

    // --- numbers -----------------------------------------------------------------------------

    /// Gives every block a number from now on.
    pub(crate) fn number_blocks(&mut self) {
        self.device.number_blocks();
    }

    /// Gives numbers to all blocks that a request with so many tokens has taken.
    pub(crate) fn cover(&mut self, pages: &mut Pages, tokens: u32) {
        self.device.cover(&mut pages.table, tokens);
    }

    /// Moves the numbers given out since the last call to `issued`.
    pub(crate) fn take_issued(&mut self, issued: &mut Vec<u32>) {
        self.device.take_issued(issued);
    }

    // --- host --------------------------------------------------------------------------------

    /// Whether host memory had room for so many blocks, which are then in use.
    pub(crate) fn swap_out(&mut self, blocks: u64) -> bool {
        self.host.take(blocks).is_ok()
    }

    pub(crate) fn swap_in(&mut self, blocks: u64) {
        self.host.give_back(blocks);
    }

    // --- events ------------------------------------------------------------------------------

    pub(crate) fn record_events(&mut self, on: bool) {
        self.device.record_events(on);
        self.events = on.then(Vec::new);
    }

    pub(crate) fn records_events(&self) -> bool {
        self.events.is_some()
    }

    /// What changed since the last call changed at `now`.
    pub(crate) fn date_events(&mut self, now: SimTime) {
        if let Some(events) = &mut self.events {
            self.device.take_events(now, events);
        }
    }

    pub(crate) fn take_events(&mut self, events: &mut Vec<CacheEvent>) {
        if let Some(mine) = &mut self.events {
            events.append(mine);
        }
    }
}
