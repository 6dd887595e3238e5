//! The cache of prompts that replicas share: what is in it, and what came of it. Links and decisions
//! are the replicas' own (`windtunnel_engine::refill`).

use windtunnel_base::content::Extent;
use windtunnel_engine::kv::KvLayout;
use windtunnel_engine::kv::replay::Replay;
use windtunnel_engine::refill::{Refill, RefillRules};
use windtunnel_ledger::shared_cache::SharedCacheTotals;
use windtunnel_scenarios::schema::shared_cache::{Prefetch, SharedCacheSpec};

/// The shared cache of a fleet.
#[derive(Debug)]
pub(crate) struct SharedCache {
    /// Writing a prompt is what a request without an engine does: what is there becomes recent, what
    /// is not is added.
    prompts: Replay,
    prefetch: Prefetch,
    totals: SharedCacheTotals,
    /// Buffers, kept for their capacity.
    chain: Vec<Extent>,
    pub(crate) refills: Vec<Refill>,
}

impl SharedCache {
    /// An empty one, of blocks of so many tokens.
    pub(crate) fn new(spec: &SharedCacheSpec, block_tokens: u32) -> Self {
        let layout = KvLayout {
            total_blocks: spec.capacity / u64::from(block_tokens),
            block_size: block_tokens,
            prefix_cache: true,
            eviction: spec.eviction,
        };
        Self {
            prompts: Replay::new(&layout),
            prefetch: spec.prefetch,
            totals: SharedCacheTotals::default(),
            chain: Vec::new(),
            refills: Vec::new(),
        }
    }

    /// How replicas read it.
    pub(crate) fn rules(spec: &SharedCacheSpec) -> RefillRules {
        RefillRules {
            bandwidth: spec.bandwidth.0,
            latency: spec.latency.0,
            when: spec.refill,
        }
    }

    /// Tokens of a prompt that are there, in whole blocks, and all but the last at most.
    pub(crate) fn lookup(&self, prefix: &[Extent], prompt_tokens: u32) -> u32 {
        let most = prompt_tokens.saturating_sub(1);
        self.prompts.cache().lookup(prefix, most)
    }

    /// Whether a prompt is read ahead, of a request that was sent where its prompt was computed before or
    /// not.
    pub(crate) fn reads_ahead(&self, followed_affinity: bool) -> bool {
        match self.prefetch {
            Prefetch::Off => false,
            Prefetch::OnAffinity => followed_affinity,
            Prefetch::Always => true,
        }
    }

    /// A prompt is computed, and `more` tokens that continue its last extent.
    pub(crate) fn write(&mut self, prefix: &[Extent], more: u32) {
        if prefix.is_empty() {
            return;
        }
        if more == 0 {
            self.prompts.request(prefix);
            return;
        }
        self.chain.clear();
        self.chain.extend_from_slice(prefix);
        if let Some(last) = self.chain.last_mut() {
            last.tokens = last.tokens.saturating_add(more);
        }
        self.prompts.request(&self.chain);
    }

    /// Something was fetched for a request.
    pub(crate) fn refilled(&mut self, refill: &Refill) {
        self.totals.refills += 1;
        self.totals.refill_ns += refill.took.as_nanos();
        self.totals.hidden_ns += refill.hidden.as_nanos();
    }

    /// A request of so many prompt tokens starts, for the first time or again: `found` of them need not be
    /// computed, `fetched` of those because they were fetched.
    pub(crate) fn started(&mut self, first: bool, prompt: u32, found: u32, fetched: u32) {
        let totals = &mut self.totals;
        if first {
            totals.prompt_tokens += u64::from(prompt);
            totals.local_tokens += u64::from(found - fetched);
            totals.shared_tokens += u64::from(fetched);
        } else {
            totals.again_tokens += u64::from(found);
        }
    }

    /// What came of it, with so many tokens fetched by all replicas together.
    pub(crate) fn totals(&self, fetched_tokens: u64) -> SharedCacheTotals {
        SharedCacheTotals {
            fetched_tokens,
            evicted_blocks: self.prompts.cache().evicted_blocks(),
            ..self.totals
        }
    }
}
