//! Conversations stay where they are.

use crate::gateway::recency::{Arena, Links, Recency};
use crate::gateway::routing::{note, position};
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use rustc_hash::FxHashMap;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::request::RequestView;

/// Which replica each live conversation is on. Idle ones are forgotten, so memory follows the
/// conversations of the last `idle`, not of the run.
#[derive(Clone, Debug)]
pub(super) struct Affinity {
    idle: SimDuration,
    by_session: FxHashMap<u64, u32>,
    sessions: Arena<Placed>,
    links: Vec<Links>,
    recency: Recency,
    /// Conversations on each replica, by id.
    held: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Placed {
    session: u64,
    replica: ReplicaId,
    used: SimTime,
}

impl Affinity {
    pub(super) fn new(idle: SimDuration) -> Self {
        Self {
            idle,
            by_session: FxHashMap::default(),
            sessions: Arena::default(),
            links: Vec::new(),
            recency: Recency::EMPTY,
            held: Vec::new(),
        }
    }

    /// Forgets conversations that were idle for too long.
    pub(super) fn expire(&mut self, now: SimTime) {
        while let Some(slot) = self.recency.oldest() {
            let placed = self.sessions[slot];
            if placed.used.saturating_add(self.idle) > now {
                return;
            }
            self.recency.remove(&mut self.links, slot);
            self.sessions.release(slot);
            self.by_session.remove(&placed.session);
            self.held[placed.replica.index()] -= 1;
        }
    }

    /// The conversation's replica.
    pub(super) fn get(&self, session: u64) -> Option<ReplicaId> {
        let slot = self.by_session.get(&session)?;
        Some(self.sessions[*slot].replica)
    }

    /// Conversations on a replica.
    pub(super) fn held(&self, replica: ReplicaId) -> u32 {
        self.held.get(replica.index()).copied().unwrap_or(0)
    }

    /// Notes that a request of the conversation goes to `replica`.
    pub(super) fn put(&mut self, session: u64, replica: ReplicaId, now: SimTime) {
        if replica.index() >= self.held.len() {
            self.held.resize(replica.index() + 1, 0);
        }
        self.held[replica.index()] += 1;
        let placed = Placed {
            session,
            replica,
            used: now,
        };
        let slot = if let Some(&slot) = self.by_session.get(&session) {
            self.held[self.sessions[slot].replica.index()] -= 1;
            self.recency.remove(&mut self.links, slot);
            self.sessions[slot] = placed;
            slot
        } else {
            let slot = self.sessions.insert(placed);
            self.by_session.insert(session, slot);
            if self.links.len() < self.sessions.extent() {
                self.links.resize(self.sessions.extent(), Links::LOOSE);
            }
            slot
        };
        self.recency.push(&mut self.links, slot);
    }

    /// Forgets the conversations of a replica that has lost them.
    pub(super) fn forget(&mut self, replica: ReplicaId) {
        let mut slots: Vec<u32> = self.by_session.values().copied().collect();
        slots.retain(|&slot| self.sessions[slot].replica == replica);
        // What is iterated has an order of its own, whatever the map's.
        slots.sort_unstable();
        for slot in slots {
            let placed = self.sessions[slot];
            self.recency.remove(&mut self.links, slot);
            self.sessions.release(slot);
            self.by_session.remove(&placed.session);
            self.held[replica.index()] -= 1;
        }
    }

    /// Conversations remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

/// Sticky by conversation. A new one goes where the fewest requests are in flight, then where
/// the fewest conversations are (an idle fleet must not put them all on one replica), then to
/// the lowest id; so does one whose replica is no longer routable.
#[derive(Clone, Debug)]
pub(super) struct Session {
    affinity: Affinity,
}

impl Session {
    pub(super) fn new(idle: SimDuration) -> Self {
        Self {
            affinity: Affinity::new(idle),
        }
    }
}

impl RoutingPolicy for Session {
    fn signals(&self) -> Signals {
        Signals::default()
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        self.affinity.expire(fleet.now);
        let home = self.affinity.get(request.session);
        let home = home.filter(|&id| position(fleet, id).is_some());
        let id = home.unwrap_or_else(|| {
            let new = fleet
                .replicas
                .iter()
                .min_by_key(|r| (r.in_flight, self.affinity.held(r.id), r.id));
            new.map_or(ReplicaId(0), |r| r.id)
        });
        note(cx, fleet, |_, replica| {
            if home.is_some() {
                f64::from(u8::from(replica.id == id))
            } else {
                -f64::from(replica.in_flight)
            }
        });
        self.affinity.put(request.session, id, fleet.now);
        Route::To(id)
    }

    fn forget(&mut self, replica: ReplicaId) {
        self.affinity.forget(replica);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_conversations_are_forgotten_and_counted_out() {
        let mut affinity = Affinity::new(SimDuration::from_secs(10));
        let at = |secs| SimTime::ZERO + SimDuration::from_secs(secs);
        affinity.put(1, ReplicaId(3), at(0));
        affinity.put(2, ReplicaId(3), at(1));
        affinity.put(1, ReplicaId(0), at(5)); // moved, and used again
        assert_eq!(
            (affinity.held(ReplicaId(3)), affinity.held(ReplicaId(0))),
            (1, 1)
        );
        affinity.expire(at(11)); // 2 has been idle for exactly ten seconds
        assert_eq!(affinity.get(2), None);
        assert_eq!(affinity.get(1), Some(ReplicaId(0)));
        assert_eq!((affinity.held(ReplicaId(3)), affinity.len()), (0, 1));
    }
}
