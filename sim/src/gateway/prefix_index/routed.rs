//! The approximate index: what was routed to a replica is taken to be in its cache, least
//! recently used blocks first out.
//!
//! Kept in extents. Of one stream at one place a replica holds blocks from its beginning up to
//! some end; later requests touch it from the beginning too, so how recently its blocks were
//! used can only fall with depth. A stream is therefore a stack of *segments*, each the blocks
//! last touched by one request, and forgetting the least recently used block, deepest first,
//! is trimming the oldest segment's end: exactly what one entry per block would do, with as
//! many segments as requests that ended inside a stream.

use crate::gateway::prefix_index::walk::{self, Step};
use crate::gateway::recency::{Arena, Links, NONE, Recency};
use crate::view::Found;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::ForgetOrder;

/// What an index keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoutedLimits {
    /// Tokens per block; matches and capacity count whole blocks. More than zero.
    pub block_tokens: u32,
    /// Blocks of a prompt that are looked at.
    pub max_blocks: u32,
    /// Blocks kept per replica, content that nobody can ask for again included.
    pub capacity_blocks: u64,
    /// Entries kept per replica: stretches of blocks that were last used together.
    pub max_entries: u32,
    /// Blocks not touched for so long are forgotten.
    pub ttl: Option<SimDuration>,
}

/// What was routed where.
#[derive(Clone, Debug)]
pub struct RoutedIndex {
    limits: RoutedLimits,
    forget: ForgetOrder,
    /// When what was routed to whom, as long as that may still expire.
    routed: VecDeque<(SimTime, u32)>,
    /// A buffer.
    found: Found,
    /// Place in the tree of prefixes → the first of its holdings.
    places: FxHashMap<u64, u32>,
    holdings: Arena<Holding>,
    segments: Arena<Segment>,
    order: Vec<Links>,
    replicas: Vec<Kept>,
    walk: Vec<Step>,
    /// Places and holdings that lookups have looked at.
    #[cfg(test)]
    looked_at: std::cell::Cell<u64>,
}

/// Blocks of one stream at one place, held by one replica.
#[derive(Clone, Copy, Debug)]
struct Holding {
    place: u64,
    replica: u32,
    /// One past its last block, counted from the beginning of the prompt.
    end: u32,
    /// The next replica that holds blocks of this place.
    next: u32,
    /// The stack of segments: its most recent, at the beginning of the stream, and its oldest.
    first: u32,
    last: u32,
}

/// Adjacent blocks last touched by the same request.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// `NONE` for content that nobody can ask for again.
    holding: u32,
    start: u32,
    end: u32,
    shallower: u32,
    deeper: u32,
    touched: SimTime,
}

/// What is kept of one replica.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// Its segments by use. Those touched by one request stand deepest first.
    recency: Recency,
    blocks: u64,
    entries: u32,
}

impl RoutedIndex {
    /// An empty index.
    ///
    /// # Panics
    /// If a block has no tokens, which a checked scenario excludes.
    pub fn new(limits: RoutedLimits) -> Self {
        assert!(limits.block_tokens > 0, "a block holds tokens");
        Self {
            limits,
            forget: ForgetOrder::DeepestFirst,
            routed: VecDeque::new(),
            found: Found::default(),
            places: FxHashMap::default(),
            holdings: Arena::default(),
            segments: Arena::default(),
            order: Vec::new(),
            replicas: Vec::new(),
            walk: Vec::new(),
            #[cfg(test)]
            looked_at: std::cell::Cell::default(),
        }
    }

    /// The same, with another order of forgetting.
    #[must_use]
    pub fn forgetting(mut self, order: ForgetOrder) -> Self {
        self.forget = order;
        self
    }

    /// Tokens per block.
    pub const fn block_tokens(&self) -> u32 {
        self.limits.block_tokens
    }

    /// Blocks of a request that the index looks at.
    pub fn blocks_of(&self, request: &RequestView<'_>) -> u32 {
        (request.prompt_tokens / self.limits.block_tokens).min(self.limits.max_blocks)
    }

    /// Blocks kept for a replica.
    pub fn blocks_kept(&self, replica: ReplicaId) -> u64 {
        self.replicas.get(replica.index()).map_or(0, |k| k.blocks)
    }

    /// Entries in memory, for measurements: segments over all replicas.
    pub fn entries(&self) -> usize {
        self.segments.len()
    }

    /// Writes, for each of `replicas` replicas by id, how many blocks from the beginning of the
    /// prompt were routed to it and are not forgotten at `now`.
    pub fn matches(
        &mut self,
        request: &RequestView<'_>,
        now: SimTime,
        replicas: usize,
        blocks: &mut Vec<u32>,
    ) {
        let mut found = std::mem::take(&mut self.found);
        self.find(request, now, replicas, &mut found);
        blocks.clear();
        blocks.extend_from_slice(found.by_replica());
        self.found = found;
    }

    /// As [`Self::matches`], in time proportional to the replicas that match.
    pub fn find(
        &mut self,
        request: &RequestView<'_>,
        now: SimTime,
        replicas: usize,
        found: &mut Found,
    ) {
        self.expire(now);
        self.plan_walk(request);
        found.clear_for(replicas);
        for step in &self.walk {
            let mut onward = false;
            let mut at = self.places.get(&step.place).copied().unwrap_or(NONE);
            self.look();
            while at != NONE {
                self.look();
                let holding = &self.holdings[at];
                let end = self.contiguous(holding, step);
                // What is deeper was never routed without what is above it; but that may have
                // been forgotten.
                if end > step.start && found.reach(holding.replica, step.start, end) {
                    onward |= end == step.end;
                }
                at = holding.next;
            }
            if !onward {
                return;
            }
        }
    }

    /// Counts the work of lookups, for the test that bounds it.
    #[inline]
    fn look(&self) {
        #[cfg(test)]
        self.looked_at.set(self.looked_at.get() + 1);
    }

    /// How far a holding goes without a gap from the beginning of a step, at most to its end.
    fn contiguous(&self, holding: &Holding, step: &Step) -> u32 {
        if self.forget == ForgetOrder::DeepestFirst {
            return holding.end.min(step.end);
        }
        let (mut at, mut end) = (holding.first, step.start);
        while at != NONE && self.segments[at].start <= end && end < step.end {
            self.look();
            end = end.max(self.segments[at].end);
            at = self.segments[at].deeper;
        }
        end.min(step.end)
    }

    /// Notes that a request was routed to a replica: all its blocks are now the replica's most
    /// recently used, and what exceeds the capacity is forgotten.
    pub fn insert(&mut self, request: &RequestView<'_>, replica: ReplicaId, now: SimTime) {
        self.plan_walk(request);
        let replica = replica.0;
        if replica as usize >= self.replicas.len() {
            let empty = Kept {
                recency: Recency::EMPTY,
                blocks: 0,
                entries: 0,
            };
            self.replicas.resize(replica as usize + 1, empty);
        }
        if self.limits.ttl.is_some() {
            self.routed.push_back((now, replica));
        }
        let total = self.blocks_of(request);
        let shared = self.walk.last().map_or(0, |step| step.end);
        // The last to be touched is the last to be forgotten.
        match self.forget {
            ForgetOrder::DeepestFirst => {
                self.push_unshared(replica, shared, total, now);
                for i in (0..self.walk.len()).rev() {
                    self.touch(replica, self.walk[i], now);
                }
            }
            ForgetOrder::ShallowestFirst => {
                for i in 0..self.walk.len() {
                    self.touch(replica, self.walk[i], now);
                }
                self.push_unshared(replica, shared, total, now);
            }
        }
        self.make_room(replica);
    }

    /// Forgets the oldest of a replica until it is within its limits.
    fn make_room(&mut self, replica: u32) {
        loop {
            let kept = &self.replicas[replica as usize];
            let over = kept.blocks.saturating_sub(self.limits.capacity_blocks);
            if over > 0 {
                self.forget_oldest(replica, over);
            } else if kept.entries > self.limits.max_entries {
                self.forget_oldest(replica, u64::MAX);
            } else {
                return;
            }
        }
    }

    /// Forgets all that was routed to a replica, which has lost it.
    pub fn forget(&mut self, replica: ReplicaId) {
        let kept = |index: &Self| index.replicas.get(replica.index()).copied();
        while kept(self).is_some_and(|kept| kept.recency.oldest().is_some()) {
            self.forget_oldest(replica.0, u64::MAX);
        }
    }

    /// Blocks that nobody can ask for again, which take up room all the same.
    fn push_unshared(&mut self, replica: u32, start: u32, end: u32, now: SimTime) {
        if end > start {
            self.push_segment(replica, NONE, start, end, now);
            self.replicas[replica as usize].blocks += u64::from(end - start);
        }
    }

    fn plan_walk(&mut self, request: &RequestView<'_>) {
        let RoutedLimits {
            block_tokens,
            max_blocks,
            ..
        } = self.limits;
        walk::plan(request, block_tokens, max_blocks, &mut self.walk);
    }

    fn touch(&mut self, replica: u32, step: Step, now: SimTime) {
        let at = self.holding_of(replica, step);
        let mut there = 0;
        // Segments that end inside the touched blocks are all newer than those that do not.
        while self.holdings[at].first != NONE {
            let top = self.holdings[at].first;
            let segment = &mut self.segments[top];
            if segment.end > step.end {
                there += step.end.saturating_sub(segment.start);
                segment.start = segment.start.max(step.end);
                break;
            }
            there += segment.end - segment.start;
            self.pop_first(replica, at);
        }
        let pushed = self.push_segment(replica, at, step.start, step.end, now);
        let below = self.holdings[at].first;
        self.segments[pushed].deeper = below;
        if below == NONE {
            self.holdings[at].last = pushed;
        } else {
            self.segments[below].shallower = pushed;
        }
        self.holdings[at].first = pushed;
        self.holdings[at].end = self.holdings[at].end.max(step.end);
        let grown = step.end - step.start - there;
        self.replicas[replica as usize].blocks += u64::from(grown);
    }

    /// The replica's holding at a place, made if there is none.
    fn holding_of(&mut self, replica: u32, step: Step) -> u32 {
        let head = self.places.entry(step.place).or_insert(NONE);
        let mut at = *head;
        while at != NONE {
            if self.holdings[at].replica == replica {
                return at;
            }
            at = self.holdings[at].next;
        }
        *head = self.holdings.insert(Holding {
            place: step.place,
            replica,
            end: step.start,
            next: *head,
            first: NONE,
            last: NONE,
        });
        *head
    }

    fn push_segment(
        &mut self,
        replica: u32,
        holding: u32,
        start: u32,
        end: u32,
        now: SimTime,
    ) -> u32 {
        let slot = self.segments.insert(Segment {
            holding,
            start,
            end,
            shallower: NONE,
            deeper: NONE,
            touched: now,
        });
        if self.order.len() < self.segments.extent() {
            self.order.resize(self.segments.extent(), Links::LOOSE);
        }
        let kept = &mut self.replicas[replica as usize];
        kept.recency.push(&mut self.order, slot);
        kept.entries += 1;
        slot
    }

    fn pop_first(&mut self, replica: u32, at: u32) {
        let top = self.holdings[at].first;
        let deeper = self.segments[top].deeper;
        self.holdings[at].first = deeper;
        if deeper == NONE {
            self.holdings[at].last = NONE;
        } else {
            self.segments[deeper].shallower = NONE;
        }
        self.drop_segment(replica, top);
    }

    fn drop_segment(&mut self, replica: u32, slot: u32) {
        let kept = &mut self.replicas[replica as usize];
        kept.recency.remove(&mut self.order, slot);
        kept.entries -= 1;
        self.segments.release(slot);
    }

    /// Forgets up to `most` blocks of the replica's oldest segment, from the end that leaves first.
    fn forget_oldest(&mut self, replica: u32, most: u64) {
        let kept = &mut self.replicas[replica as usize];
        let Some(slot) = kept.recency.oldest() else {
            debug_assert_eq!(kept.blocks, 0, "blocks without a segment");
            kept.blocks = 0;
            return;
        };
        let segment = &mut self.segments[slot];
        let gone = u64::from(segment.end - segment.start).min(most) as u32;
        kept.blocks -= u64::from(gone);
        match self.forget {
            ForgetOrder::DeepestFirst => segment.end -= gone,
            ForgetOrder::ShallowestFirst => segment.start += gone,
        }
        let Segment {
            holding,
            start,
            end,
            shallower,
            ..
        } = *segment;
        if holding != NONE {
            debug_assert_eq!(
                self.holdings[holding].last, slot,
                "the oldest is the deepest"
            );
            if self.forget == ForgetOrder::DeepestFirst {
                self.holdings[holding].end = end;
            }
        }
        if end > start {
            return;
        }
        self.drop_segment(replica, slot);
        if holding == NONE {
            return;
        }
        self.holdings[holding].last = shallower;
        if shallower == NONE {
            self.drop_holding(holding);
        } else {
            self.holdings[holding].end = self.segments[shallower].end;
            self.segments[shallower].deeper = NONE;
        }
    }

    fn drop_holding(&mut self, gone: u32) {
        let Holding { place, next, .. } = self.holdings[gone];
        let head = self.places.get(&place).copied().unwrap_or(NONE);
        if head == gone && next == NONE {
            self.places.remove(&place);
        } else if head == gone {
            self.places.insert(place, next);
        } else {
            let mut at = head;
            while self.holdings[at].next != gone {
                at = self.holdings[at].next;
            }
            self.holdings[at].next = next;
        }
        self.holdings.release(gone);
    }

    /// Forgets what has not been touched for too long. A segment that is due was touched by a
    /// request, so only the replicas of requests that are due are looked at.
    fn expire(&mut self, now: SimTime) {
        let Some(ttl) = self.limits.ttl else { return };
        let due = |touched: SimTime| touched.saturating_add(ttl) <= now;
        while let Some(&(at, replica)) = self.routed.front() {
            if !due(at) {
                return;
            }
            self.routed.pop_front();
            while let Some(slot) = self.replicas[replica as usize].recency.oldest() {
                if !due(self.segments[slot].touched) {
                    break;
                }
                self.forget_oldest(replica, u64::MAX);
            }
        }
    }
}

#[cfg(test)]
#[path = "routed_tests.rs"]
mod tests;
