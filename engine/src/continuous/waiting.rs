//! The waiting room: who is admitted next.
//!
//! One heap serves every order, because each is a rank and an age. Entries of requests that left
//! otherwise stay behind and are dropped when they come up. Where requests of similar lengths share
//! batches, each bucket of lengths has a heap, and the head is the first of all heads.
//!
//! Newcomers first stand in a lobby. A step that begins at the very instant the step before it
//! ended does not see those who came at that instant: so it makes no difference whether the
//! caller tells of an arrival before or after it ends a step at the same time, nor whether it
//! was told that a step of a longer run ended then at all.

use crate::config::SchedulerKind;
use crate::continuous::sequence::{Phase, Sequences};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use windtunnel_base::time::SimTime;

/// Rank, then age; smallest first.
type Key = (i64, i64);

#[derive(Clone, Debug)]
pub(crate) struct WaitingRoom {
    kind: SchedulerKind,
    /// By bucket.
    heaps: Vec<BinaryHeap<Reverse<(Key, u32, u64)>>>,
    /// The bucket that a batch is being formed of.
    open: Option<usize>,
    /// The bucket of the head that was found last.
    at: usize,
    lobby: VecDeque<u32>,
    /// Live entries of heap and lobby.
    len: u32,
    tickets: u64,
    /// Preempted requests go to the front, the latest of them first of all.
    front: i64,
}

impl WaitingRoom {
    /// An empty room for so many buckets.
    pub(crate) fn new(kind: SchedulerKind, buckets: usize) -> Self {
        Self {
            kind,
            heaps: vec![BinaryHeap::new(); buckets],
            open: None,
            at: 0,
            lobby: VecDeque::new(),
            len: 0,
            tickets: 0,
            front: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Whether newcomers go behind all that wait.
    pub(crate) fn is_fifo(&self) -> bool {
        let ranked = matches!(self.kind, SchedulerKind::Priority | SchedulerKind::Shortest);
        !ranked && self.heaps.len() == 1
    }

    /// Whether somebody stands in the lobby.
    pub(crate) fn has_newcomers(&self) -> bool {
        !self.lobby.is_empty()
    }

    /// Whether somebody waits who came before `now`.
    pub(crate) fn waited_before(&mut self, now: SimTime, seqs: &Sequences) -> bool {
        // Who stands first in the lobby came first; who is past it came before an earlier step.
        let earlier = |&slot: &u32| seqs[slot].submitted_at < now;
        self.lobby.front().is_some_and(earlier) || self.head(seqs).is_some()
    }

    /// A newcomer enters the lobby.
    pub(crate) fn arrive(&mut self, slot: u32) {
        self.lobby.push_back(slot);
        self.len += 1;
    }

    /// Lets in those who came before `now`, or everybody.
    pub(crate) fn let_in(&mut self, now: SimTime, everybody: bool, seqs: &mut Sequences) {
        while let Some(&slot) = self.lobby.front() {
            if !everybody && seqs[slot].submitted_at >= now {
                break;
            }
            self.lobby.pop_front();
            self.come_back(slot, seqs);
        }
    }

    /// One that no longer stands in the lobby, or aside, queues where rank and age put it.
    pub(crate) fn come_back(&mut self, slot: u32, seqs: &mut Sequences) {
        let s = &seqs[slot];
        let rank = match self.kind {
            SchedulerKind::Priority => i64::from(s.priority),
            SchedulerKind::Shortest => s.predicted_work as i64,
            _ => 0,
        };
        self.push(slot, (rank, s.age as i64), seqs);
    }

    /// The head stands aside: it still waits, but others go before it.
    pub(crate) fn set_aside(&mut self) {
        let popped = self.heaps[self.at].pop();
        debug_assert!(popped.is_some(), "nobody waits");
    }

    /// A preempted request comes back: to the front, or to its place by priority.
    pub(crate) fn give_back(&mut self, slot: u32, seqs: &mut Sequences) {
        self.front -= 1;
        let s = &seqs[slot];
        let key = match self.kind {
            SchedulerKind::Priority => (i64::from(s.priority), s.age as i64),
            _ => (i64::MIN, self.front),
        };
        self.len += 1;
        self.push(slot, key, seqs);
    }

    fn push(&mut self, slot: u32, key: Key, seqs: &mut Sequences) {
        self.tickets += 1;
        seqs[slot].ticket = self.tickets;
        self.heaps[seqs[slot].bucket].push(Reverse((key, slot, self.tickets)));
    }

    /// Who is next, lobby apart: of the open bucket, if one is.
    pub(crate) fn head(&mut self, seqs: &Sequences) -> Option<u32> {
        let buckets = match self.open {
            Some(open) => open..open + 1,
            None => 0..self.heaps.len(),
        };
        let mut first: Option<(Key, u32)> = None;
        for bucket in buckets {
            let Some(head) = self.head_of(bucket, seqs) else {
                continue;
            };
            if first.is_none_or(|first| head.0 < first.0) {
                (first, self.at) = (Some(head), bucket);
            }
        }
        first.map(|(_, slot)| slot)
    }

    /// Who is next of one bucket.
    fn head_of(&mut self, bucket: usize, seqs: &Sequences) -> Option<(Key, u32)> {
        let heap = &mut self.heaps[bucket];
        while let Some(&Reverse((key, slot, ticket))) = heap.peek() {
            let waits = seqs.live(slot).is_some_and(|s| {
                s.ticket == ticket && matches!(s.phase, Phase::Waiting | Phase::Swapped)
            });
            if waits {
                return Some((key, slot));
            }
            heap.pop();
        }
        None
    }

    /// A batch is formed: only those in the bucket of the head are next, until [`Self::close_bucket`].
    pub(crate) fn open_bucket(&mut self, seqs: &Sequences) {
        self.open = self.head(seqs).map(|_| self.at);
    }

    /// The batch is formed: anybody may be next.
    pub(crate) fn close_bucket(&mut self) {
        self.open = None;
    }

    /// Takes out the head, which is being admitted.
    pub(crate) fn pop(&mut self) {
        let popped = self.heaps[self.at].pop();
        debug_assert!(popped.is_some(), "nobody waits");
        self.len -= 1;
    }

    /// Forgets one who is leaving; the caller removes the request itself.
    pub(crate) fn leave(&mut self, slot: u32, seqs: &mut Sequences) {
        self.len -= 1;
        seqs[slot].ticket = 0;
        if let Some(place) = self.lobby.iter().position(|&s| s == slot) {
            self.lobby.remove(place);
        }
    }
}
