//! The precise index: what replicas report of their prefix caches, and how late the gateway
//! hears of it.

use crate::gateway::recency::{Arena, NONE};
use crate::view::{CacheView, Found};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::CacheEvent;
use windtunnel_engine::kv::{ROOT_CHAIN, chain};
use windtunnel_engine::request::RequestView;

/// What replicas said they hold.
#[derive(Clone, Debug, Default)]
pub struct ReportedIndex {
    /// Tokens per KV block of each replica.
    block_tokens: Vec<u32>,
    /// Place in the tree of prefixes → the first of its holdings.
    places: FxHashMap<u64, u32>,
    holdings: Arena<Holding>,
}

#[derive(Clone, Copy, Debug)]
struct Holding {
    replica: u32,
    /// Tokens of the stream, from its beginning; more than zero.
    tokens: u32,
    next: u32,
}

impl ReportedIndex {
    /// An empty index of replicas with these tokens per KV block, by id.
    pub fn new(block_tokens: Vec<u32>) -> Self {
        Self {
            block_tokens,
            ..Self::default()
        }
    }

    /// Takes in one report.
    pub fn apply(&mut self, replica: ReplicaId, event: &CacheEvent) {
        let head = self.places.get(&event.chain).copied().unwrap_or(NONE);
        let (mut before, mut at) = (NONE, head);
        while at != NONE && self.holdings[at].replica != replica.0 {
            (before, at) = (at, self.holdings[at].next);
        }
        if at != NONE && event.tokens > 0 {
            self.holdings[at].tokens = event.tokens;
        } else if at != NONE {
            let next = self.holdings[at].next;
            if before != NONE {
                self.holdings[before].next = next;
            } else if next != NONE {
                self.places.insert(event.chain, next);
            } else {
                self.places.remove(&event.chain);
            }
            self.holdings.release(at);
        } else if event.tokens > 0 {
            let first = self.holdings.insert(Holding {
                replica: replica.0,
                tokens: event.tokens,
                next: head,
            });
            self.places.insert(event.chain, first);
        }
    }

    /// Writes, for each replica by id, the prompt tokens that it would find in its cache: from the
    /// beginning, in whole blocks, and never the last token, which it has to compute.
    pub fn matches(&self, request: &RequestView<'_>, tokens: &mut Vec<u32>) {
        let mut found = Found::default();
        self.find(request, self.block_tokens.len(), &mut found);
        tokens.clear();
        tokens.extend_from_slice(found.by_replica());
    }

    /// As [`Self::matches`], in time proportional to the replicas that match.
    pub fn find(&self, request: &RequestView<'_>, replicas: usize, found: &mut Found) {
        found.clear_for(replicas.max(self.block_tokens.len()));
        let (mut place, mut above, mut start) = (ROOT_CHAIN, 0, 0_u32);
        for extent in request.prefix {
            place = chain(place, above, extent.key);
            above = extent.tokens;
            let mut onward = false;
            let mut at = self.places.get(&place).copied().unwrap_or(NONE);
            while at != NONE {
                let holding = &self.holdings[at];
                at = holding.next;
                let end = start + holding.tokens.min(extent.tokens);
                if found.reach(holding.replica, start, end) {
                    onward |= holding.tokens >= extent.tokens;
                }
            }
            if !onward {
                break;
            }
            start += extent.tokens;
        }
        let most = request.prompt_tokens.saturating_sub(1);
        found.change(|replica, tokens| {
            let block = self.block_tokens[replica.index()];
            tokens.min(most) / block * block
        });
    }

    /// Entries in memory, for measurements: (place, replica) pairs.
    pub fn entries(&self) -> usize {
        self.holdings.len()
    }
}

/// A [`CacheView`] as the gateway has it: reports take a while to arrive.
#[derive(Clone, Debug)]
pub struct DelayedCacheView {
    index: ReportedIndex,
    delay: SimDuration,
    /// Reports under way, by the time of their change.
    log: VecDeque<(ReplicaId, CacheEvent)>,
}

impl DelayedCacheView {
    /// A view that hears of every change `delay` after it, of replicas with these tokens per
    /// KV block, by id.
    pub fn new(block_tokens: Vec<u32>, delay: SimDuration) -> Self {
        Self {
            index: ReportedIndex::new(block_tokens),
            delay,
            log: VecDeque::new(),
        }
    }

    /// Puts a replica's changes under way. They may come in any order of replicas; those of one
    /// replica in order.
    pub fn record(&mut self, replica: ReplicaId, events: &[CacheEvent]) {
        for event in events {
            // A replica that ran ahead reports later than others: keep the log in order of time.
            let mut place = self.log.len();
            while place > 0 && self.log[place - 1].1.at > event.at {
                place -= 1;
            }
            if place == self.log.len() {
                self.log.push_back((replica, *event));
            } else {
                self.log.insert(place, (replica, *event));
            }
        }
    }

    /// Takes in what has arrived by `now`.
    pub fn advance(&mut self, now: SimTime) {
        while let Some((replica, event)) = self.log.front() {
            if event.at.saturating_add(self.delay) > now {
                return;
            }
            self.index.apply(*replica, event);
            self.log.pop_front();
        }
    }
}

impl CacheView for DelayedCacheView {
    fn cached_tokens(&self, request: &RequestView<'_>, tokens: &mut Vec<u32>) {
        self.index.matches(request, tokens);
    }

    fn find(&self, request: &RequestView<'_>, replicas: usize, found: &mut Found) {
        self.index.find(request, replicas, found);
    }
}

#[cfg(test)]
#[path = "reported_tests.rs"]
mod tests;
