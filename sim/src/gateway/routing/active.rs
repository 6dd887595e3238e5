//! KV blocks of the requests that are active on each replica, each block counted once however
//! many of them share it.

use crate::gateway::prefix_index::walk::{self, Step};
use crate::gateway::recency::{Arena, NONE};
use rustc_hash::FxHashMap;
use windtunnel_base::ids::ReplicaId;
use windtunnel_engine::request::RequestView;

/// Who works on what, by place in the tree of prefixes.
#[derive(Clone, Debug)]
pub(super) struct ActiveBlocks {
    block: u32,
    places: FxHashMap<u64, u32>,
    entries: Arena<Entry>,
    /// Distinct blocks on each replica, by id.
    held: Vec<u64>,
    steps: Vec<Step>,
    /// By replica id, scratch: how far its requests reach into a place; zero for those that do
    /// not, which are all between two calls.
    reach: Vec<u32>,
    reaching: Vec<u32>,
}

/// Blocks that a request would share with active ones, for the replicas where it would share any.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    /// By id; zero for those not listed.
    blocks: Vec<u32>,
    replicas: Vec<u32>,
}

impl Shared {
    pub(super) fn blocks(&self, replica: ReplicaId) -> u32 {
        self.blocks.get(replica.index()).copied().unwrap_or(0)
    }

    /// The replicas where it would share any, in no order.
    pub(super) fn replicas(&self) -> &[u32] {
        &self.replicas
    }

    fn clear(&mut self, replicas: usize) {
        for replica in self.replicas.drain(..) {
            self.blocks[replica as usize] = 0;
        }
        self.blocks.resize(replicas, 0);
    }
}

/// Requests of one replica whose blocks of a place end at the same block.
#[derive(Clone, Copy, Debug)]
struct Entry {
    replica: u32,
    end: u32,
    requests: u32,
    next: u32,
}

impl ActiveBlocks {
    pub(super) fn new(block: u32) -> Self {
        Self {
            block,
            places: FxHashMap::default(),
            entries: Arena::default(),
            held: Vec::new(),
            steps: Vec::new(),
            reach: Vec::new(),
            reaching: Vec::new(),
        }
    }

    /// Distinct blocks that are active on a replica.
    pub(super) fn held(&self, replica: ReplicaId) -> u64 {
        self.held.get(replica.index()).copied().unwrap_or(0)
    }

    /// Writes, for `replicas` replicas by id, how many of its blocks a request would find active.
    pub(super) fn shared(
        &mut self,
        request: &RequestView<'_>,
        replicas: usize,
        shared: &mut Shared,
    ) {
        shared.clear(replicas);
        if self.reach.len() < replicas {
            self.reach.resize(replicas, 0);
        }
        walk::plan(request, self.block, u32::MAX, &mut self.steps);
        for step in &self.steps {
            let mut at = self.places.get(&step.place).copied().unwrap_or(NONE);
            if at == NONE {
                return;
            }
            while at != NONE {
                let entry = self.entries[at];
                if let Some(reach) = self.reach.get_mut(entry.replica as usize) {
                    if *reach == 0 {
                        self.reaching.push(entry.replica);
                    }
                    *reach = (*reach).max(entry.end.min(step.end));
                }
                at = entry.next;
            }
            for replica in self.reaching.drain(..) {
                let reach = std::mem::take(&mut self.reach[replica as usize]);
                let Some(blocks) = shared.blocks.get_mut(replica as usize) else {
                    continue; // not asked about
                };
                if *blocks == 0 {
                    shared.replicas.push(replica);
                }
                *blocks += reach - step.start;
            }
        }
    }

    /// A request becomes active on a replica.
    pub(super) fn add(&mut self, request: &RequestView<'_>, replica: ReplicaId) {
        self.fit(replica.index() + 1);
        walk::plan(request, self.block, u32::MAX, &mut self.steps);
        let mut gained = self.blocks_of_its_own(request);
        for i in 0..self.steps.len() {
            let step = self.steps[i];
            gained += u64::from(step.end.saturating_sub(self.reach_of(step, replica.0)));
            let head = self.places.entry(step.place).or_insert(NONE);
            let mut at = *head;
            while at != NONE && !self.entries[at].is(replica.0, step.end) {
                at = self.entries[at].next;
            }
            if at == NONE {
                *head = self.entries.insert(Entry {
                    replica: replica.0,
                    end: step.end,
                    requests: 1,
                    next: *head,
                });
            } else {
                self.entries[at].requests += 1;
            }
        }
        self.held[replica.index()] += gained;
    }

    /// A request that was added leaves.
    pub(super) fn remove(&mut self, request: &RequestView<'_>, replica: ReplicaId) {
        walk::plan(request, self.block, u32::MAX, &mut self.steps);
        let mut lost = self.blocks_of_its_own(request);
        for i in 0..self.steps.len() {
            let step = self.steps[i];
            let before = self.reach_of(step, replica.0);
            self.drop_one(step, replica.0);
            lost += u64::from(before - self.reach_of(step, replica.0));
        }
        self.held[replica.index()] -= lost;
    }

    fn fit(&mut self, replicas: usize) {
        if self.held.len() < replicas {
            self.held.resize(replicas, 0);
        }
    }

    /// Blocks that no other request can share: those after the planned steps.
    fn blocks_of_its_own(&self, request: &RequestView<'_>) -> u64 {
        let shared = self.steps.last().map_or(0, |step| step.end);
        u64::from(request.prompt_tokens.div_ceil(self.block) - shared)
    }

    /// How far the replica's active requests reach into a place.
    fn reach_of(&self, step: Step, replica: u32) -> u32 {
        let mut at = self.places.get(&step.place).copied().unwrap_or(NONE);
        let mut reach = step.start;
        while at != NONE {
            let entry = self.entries[at];
            if entry.replica == replica {
                reach = reach.max(entry.end);
            }
            at = entry.next;
        }
        reach
    }

    fn drop_one(&mut self, step: Step, replica: u32) {
        let head = self.places.get(&step.place).copied().unwrap_or(NONE);
        let (mut before, mut at) = (NONE, head);
        while at != NONE && !self.entries[at].is(replica, step.end) {
            (before, at) = (at, self.entries[at].next);
        }
        assert!(at != NONE, "a request leaves that was never active");
        self.entries[at].requests -= 1;
        if self.entries[at].requests > 0 {
            return;
        }
        let next = self.entries[at].next;
        if before != NONE {
            self.entries[before].next = next;
        } else if next != NONE {
            self.places.insert(step.place, next);
        } else {
            self.places.remove(&step.place);
        }
        self.entries.release(at);
    }
}

impl Entry {
    const fn is(&self, replica: u32, end: u32) -> bool {
        self.replica == replica && self.end == end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixtures::request;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use windtunnel_base::content::Extent;

    /// The blocks of a prompt by name: stream, place in it, and who alone has it.
    fn blocks(id: u32, prefix: &[Extent], prompt: u32, block: u32) -> Vec<(Vec<u64>, u32, u32)> {
        let name = |depth: u32| {
            let end = (depth + 1) * block;
            let (mut path, mut at) = (Vec::new(), 0);
            for extent in prefix {
                if at >= end {
                    break;
                }
                path.push(extent.key);
                at += extent.tokens;
                if at < end {
                    path.push(u64::from(extent.tokens));
                }
            }
            let alone = if at < end { id + 1 } else { 0 };
            (path, depth, alone)
        };
        (0..prompt.div_ceil(block)).map(name).collect()
    }

    proptest! {
        /// Against a set of named blocks, over requests that come and go.
        #[test]
        fn distinct_blocks_count_once(
            block in 1_u32..6,
            moves in prop::collection::vec(
                (0..3_u32, 0..2_u64, 0..3_u64, 1..12_u32, 0..9_u32, prop::bool::ANY), 1..60),
        ) {
            let mut active = ActiveBlocks::new(block);
            let mut shared = Shared::default();
            let mut inside: Vec<(u32, ReplicaId, Vec<Extent>, u32)> = Vec::new();
            for (id, (replica, system, talk, length, rest, leaves)) in moves.into_iter().enumerate() {
                let prefix = vec![
                    Extent { key: system, tokens: 5 + system as u32 },
                    Extent { key: 10 + talk, tokens: length },
                ];
                let prompt = 5 + system as u32 + length + rest;
                let asked = request(id as u32, prompt, &prefix);
                let distinct = |replica: u32, with: bool| {
                    let mut set = BTreeSet::new();
                    for (id, at, prefix, prompt) in &inside {
                        if at.0 == replica { set.extend(blocks(*id, prefix, *prompt, block)); }
                    }
                    if with { set.extend(blocks(id as u32, &prefix, prompt, block)); }
                    set.len() as u64
                };
                active.shared(&asked, 3, &mut shared);
                for replica in 0..3 {
                    let id = ReplicaId(replica);
                    let blocks = active.held(id) + u64::from(prompt.div_ceil(block));
                    let with = blocks - u64::from(shared.blocks(id));
                    prop_assert_eq!(with, distinct(replica, true));
                    let listed = shared.replicas().contains(&replica);
                    prop_assert_eq!(listed, shared.blocks(id) > 0);
                }
                if leaves && !inside.is_empty() {
                    let (id, at, prefix, prompt) = inside.swap_remove(id % inside.len());
                    active.remove(&request(id, prompt, &prefix), at);
                } else {
                    active.add(&asked, ReplicaId(replica));
                    inside.push((id as u32, ReplicaId(replica), prefix.clone(), prompt));
                }
            }
            for (id, at, prefix, prompt) in inside {
                active.remove(&request(id, prompt, &prefix), at);
            }
            prop_assert_eq!(&active.held, &vec![0; active.held.len()]);
            prop_assert!(active.places.is_empty() && active.entries.len() == 0);
        }
    }
}
