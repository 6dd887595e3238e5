//! Forgetting what nobody has used for a while.
//!
//! Content becomes idle in the order in which it leaves, and all blocks of a node at once. So what is due
//! is always next to leave, and one time per node is enough.

use super::pool::KvCache;
use windtunnel_base::time::{SimDuration, SimTime};

/// Since when everything is idle, and for how long it may be.
#[derive(Clone, Debug)]
pub(super) struct Expiry {
    after: SimDuration,
    now: SimTime,
    /// By slot of the tree.
    since: Vec<SimTime>,
}

impl Expiry {
    fn new(after: SimDuration) -> Self {
        Self {
            after,
            now: SimTime::ZERO,
            since: Vec::new(),
        }
    }

    /// A slot becomes idle.
    pub(super) fn idles(&mut self, slot: u32) {
        let slot = slot as usize;
        if slot >= self.since.len() {
            self.since.resize(slot + 1, SimTime::ZERO);
        }
        self.since[slot] = self.now;
    }

    /// Whether a slot became idle just now.
    pub(super) fn idles_since_now(&self, slot: u32) -> bool {
        self.since[slot as usize] == self.now
    }

    /// When a slot that is idle is forgotten.
    fn due(&self, slot: u32) -> SimTime {
        self.since[slot as usize].saturating_add(self.after)
    }
}

impl KvCache {
    /// From now on forgets what nobody has held for so long; only where the least recently used leaves
    /// first.
    #[must_use]
    pub fn expiring(mut self, after: Option<SimDuration>) -> Self {
        let lru = self.leaves_by_recency();
        let expiry = after.filter(|_| lru).map(Expiry::new);
        self.expiry = expiry.map(Box::new);
        self
    }

    /// It is `now`: what becomes idle next is idle since now. Time never goes back.
    pub fn tell_time(&mut self, now: SimTime) {
        if let Some(expiry) = &mut self.expiry {
            expiry.now = expiry.now.max(now);
        }
    }

    /// When the next content is due to be forgotten, as things stand.
    pub fn next_expiry(&self) -> Option<SimTime> {
        let expiry = self.expiry.as_ref()?;
        self.next_to_leave().map(|slot| expiry.due(slot))
    }

    /// It is `now`: forgets what is due.
    pub fn expire(&mut self, now: SimTime) {
        self.tell_time(now);
        while self.next_expiry().is_some_and(|due| due <= now) {
            self.forget_next();
        }
    }
}
