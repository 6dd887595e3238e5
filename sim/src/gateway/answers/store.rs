//! Entries by key, their time and their room.
//!
//! An entry is fresh for its lifetime, counted from its last write (or use). After that it may be given
//! while it is made anew, or where that fails, each for its window (RFC 5861); beyond both it is
//! nothing any more. Entries that are nothing leave when they are asked for, or when the sweep
//! comes by: two places are looked at per write, so memory follows what is alive.

use super::{Answer, Evidence, Key};
use rustc_hash::FxHashMap;
use windtunnel_base::eviction::{EvictionPolicy, Policy};
use windtunnel_base::rng::Rng;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::schema::answers::{AnswersSpec, TtlSince};

/// Places that a write sweeps.
const SWEPT_PER_WRITE: usize = 2;
/// No entry.
const NONE: u32 = u32::MAX;

/// One stored answer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// The key of its meaning.
    pub meaning: Key,
    /// The key of all that its tenant may be given.
    pub all: u64,
    /// The answer.
    pub answer: Answer,
    /// Since when its time counts.
    pub since: SimTime,
    /// When it was written.
    pub written: SimTime,
    /// How long it is fresh.
    pub lifetime: SimDuration,
    /// How long it took to make.
    pub made_in: SimDuration,
    /// What is known of when it is right for similar questions.
    pub evidence: Evidence,
    /// Changes whenever another entry takes the place.
    pub generation: u32,
    /// Others of the same meaning.
    before: u32,
    after: u32,
    /// Its place in the list of all of its tenant.
    rank: u32,
}

/// How a stored answer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// To be given.
    Fresh,
    /// To be given, and to be made anew before it expires.
    Early,
    /// Expired, to be given while it is made anew.
    Stale,
    /// Expired, to be given only where making it anew failed.
    Spare,
}

/// A stored answer and how it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Where it is.
    pub slot: u32,
    /// How it stands.
    pub state: State,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    lifetime: Option<SimDuration>,
    jitter: f64,
    since_use: bool,
    early: Option<f64>,
    while_revalidate: SimDuration,
    if_error: SimDuration,
    capacity: usize,
    /// Lists by meaning and by tenant are kept.
    semantic: bool,
    places: FxHashMap<u128, u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    policy: Policy,
    /// First entry of each meaning.
    meanings: FxHashMap<u128, u32>,
    /// Slots by tenant, in no order that means anything.
    lists: FxHashMap<u64, Vec<u32>>,
    generation: u32,
    hand: usize,
    rng: Rng,
    /// Answers that left for want of room.
    pub evictions: u64,
}

impl Store {
    /// An empty store; jitter and early refresh draw from `rng`.
    pub fn new(spec: &AnswersSpec, rng: Rng) -> Self {
        Self {
            lifetime: spec.ttl.map(|ttl| ttl.0),
            jitter: spec.ttl_jitter,
            since_use: spec.ttl_since == TtlSince::Use,
            early: spec.early_refresh,
            while_revalidate: spec.stale_while_revalidate.0,
            if_error: spec.stale_if_error.0,
            capacity: spec.capacity.map_or(usize::MAX, |n| n as usize),
            semantic: spec.semantic.as_ref().is_some_and(|s| s.enabled),
            places: FxHashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            policy: Policy::new(spec.eviction),
            meanings: FxHashMap::default(),
            lists: FxHashMap::default(),
            generation: 0,
            hand: 0,
            rng,
            evictions: 0,
        }
    }

    /// Answers kept, those included that are nothing any more and have not left.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none are kept.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// An entry.
    pub fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref()
    }

    /// An entry, to be changed.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    /// Where the entry of a key is.
    pub fn slot(&self, key: Key) -> Option<u32> {
        self.places.get(&key.0).copied()
    }

    /// Somebody asks for a key. What is found counts as used, and if it is given its time may begin anew.
    pub fn look_up(&mut self, key: Key, now: SimTime) -> Option<Found> {
        let slot = self.slot(key)?;
        let found = self.use_at(slot, now);
        if found.is_none() {
            self.remove(slot);
        }
        found
    }

    /// An entry is asked for: how it stands, or that it is nothing any more.
    pub fn use_at(&mut self, slot: u32, now: SimTime) -> Option<Found> {
        let state = self.state(slot, now)?;
        self.policy.reuse(slot);
        let (since_use, early) = (self.since_use, self.early);
        let entry = self.entries[slot as usize].as_mut()?;
        self.policy.insert(slot, entry.key.0 as u64);
        let mut state = state;
        if state == State::Fresh {
            let age = now.since(entry.since).as_nanos();
            let left = SimDuration::from_nanos(entry.lifetime.as_nanos() - age);
            if let Some(beta) = early
                && entry.lifetime != SimDuration::MAX
            {
                let lead = -beta * entry.made_in.as_secs_f64() * libm::log(self.rng.f64_open());
                if lead >= left.as_secs_f64() {
                    state = State::Early;
                }
            }
            if since_use {
                entry.since = now;
            }
        }
        Some(Found { slot, state })
    }

    /// How an entry stands at `now`, nothing drawn or counted; `None` if it is nothing any more.
    pub fn state(&self, slot: u32, now: SimTime) -> Option<State> {
        let entry = self.get(slot)?;
        let age = now.since(entry.since);
        if age < entry.lifetime {
            Some(State::Fresh)
        } else if age < longer(entry.lifetime, self.while_revalidate) {
            Some(State::Stale)
        } else if age < longer(entry.lifetime, self.if_error) {
            Some(State::Spare)
        } else {
            None
        }
    }

    /// The entry of a key that may be given where making it anew failed.
    pub fn on_error(&self, key: Key, now: SimTime) -> Option<u32> {
        let slot = self.slot(key)?;
        let entry = self.get(slot)?;
        let age = now.since(entry.since);
        // One that another made anew meanwhile is fresh, and better still.
        (age < longer(entry.lifetime, self.if_error)).then_some(slot)
    }

    /// Stores an answer that was begun then and took so long, in place of the one that was there; says
    /// where. One whose making began before
    /// the one that is there was written is not newer than that, and is left out: so a stampede does
    /// not write once for each of its fetches.
    pub fn write(
        &mut self,
        (key, meaning, all): (Key, Key, u64),
        answer: Answer,
        (begun, made_in): (SimTime, SimDuration),
        now: SimTime,
    ) -> u32 {
        if let Some(slot) = self.slot(key)
            && let Some(entry) = self.get(slot)
        {
            if begun >= entry.written {
                self.rewrite(slot, answer, made_in, now);
            }
            return slot;
        }
        let lifetime = self.draw_lifetime();
        (0..SWEPT_PER_WRITE).for_each(|_| self.sweep(now));
        while self.places.len() >= self.capacity {
            let Some(slot) = self.policy.evict() else {
                break;
            };
            self.evictions += 1;
            self.remove(slot);
        }
        self.generation = self.generation.wrapping_add(1);
        let entry = Entry {
            key,
            meaning,
            all,
            answer,
            since: now,
            written: now,
            lifetime,
            made_in,
            evidence: Evidence::default(),
            generation: self.generation,
            before: NONE,
            after: NONE,
            rank: NONE,
        };
        let slot = self.free.pop().unwrap_or(self.entries.len() as u32);
        if slot as usize == self.entries.len() {
            self.entries.push(None);
        }
        self.entries[slot as usize] = Some(entry);
        self.places.insert(key.0, slot);
        self.policy.insert(slot, key.0 as u64);
        if self.semantic {
            self.link(slot, meaning, all);
        }
        slot
    }

    fn rewrite(&mut self, slot: u32, answer: Answer, made_in: SimDuration, now: SimTime) {
        let lifetime = self.draw_lifetime();
        if let Some(entry) = self.get_mut(slot) {
            (entry.answer, entry.since, entry.written) = (answer, now, now);
            (entry.lifetime, entry.made_in) = (lifetime, made_in);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for slot in 0..self.entries.len() as u32 {
            self.remove(slot);
        }
    }

    /// Entries that mean the same, the latest first.
    pub fn of_meaning(&self, meaning: Key) -> impl Iterator<Item = u32> + '_ {
        let first = self.meanings.get(&meaning.0).copied();
        std::iter::successors(first, |&slot| {
            self.get(slot)
                .map(|entry| entry.after)
                .filter(|&after| after != NONE)
        })
    }

    /// All entries that a tenant may be given.
    pub fn of_all(&self, all: u64) -> &[u32] {
        self.lists.get(&all).map_or(&[], Vec::as_slice)
    }

    fn draw_lifetime(&mut self) -> SimDuration {
        let Some(lifetime) = self.lifetime else {
            return SimDuration::MAX;
        };
        if self.jitter <= 0.0 {
            return lifetime;
        }
        let factor = 1.0 + self.jitter * (2.0 * self.rng.f64() - 1.0);
        SimDuration::from_secs_f64_saturating(lifetime.as_secs_f64() * factor)
    }

    fn sweep(&mut self, now: SimTime) {
        if self.entries.is_empty() || self.lifetime.is_none() {
            return;
        }
        self.hand = (self.hand + 1) % self.entries.len();
        let slot = self.hand as u32;
        if self.get(slot).is_some() && self.state(slot, now).is_none() {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entries[slot as usize].take() else {
            return;
        };
        self.places.remove(&entry.key.0);
        self.policy.forget(slot);
        self.free.push(slot);
        if self.semantic {
            self.unlink(&entry);
        }
    }

    fn link(&mut self, slot: u32, meaning: Key, all: u64) {
        let head = self.meanings.insert(meaning.0, slot);
        let list = self.lists.entry(all).or_default();
        let rank = list.len() as u32;
        list.push(slot);
        if let Some(entry) = self.get_mut(slot) {
            (entry.rank, entry.after) = (rank, head.unwrap_or(NONE));
        }
        if let Some(old) = head.and_then(|head| self.get_mut(head)) {
            old.before = slot;
        }
    }

    /// Takes an entry that is gone already out of both lists.
    fn unlink(&mut self, entry: &Entry) {
        let (before, after) = (entry.before, entry.after);
        if let Some(after) = self.get_mut(after) {
            after.before = before;
        }
        match (self.get_mut(before), after) {
            (Some(before), _) => before.after = after,
            (None, NONE) => {
                self.meanings.remove(&entry.meaning.0);
            }
            (None, _) => {
                self.meanings.insert(entry.meaning.0, after);
            }
        }
        let Some(list) = self.lists.get_mut(&entry.all) else {
            return;
        };
        list.swap_remove(entry.rank as usize);
        if let Some(&moved) = list.get(entry.rank as usize)
            && let Some(moved) = self.get_mut(moved)
        {
            moved.rank = entry.rank;
        }
    }
}

/// One time after the other; no end stays no end.
const fn longer(lifetime: SimDuration, window: SimDuration) -> SimDuration {
    SimDuration::from_nanos(lifetime.as_nanos().saturating_add(window.as_nanos()))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
