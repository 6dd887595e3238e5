//! An affinity map: the replica of each key, in the store that gateways share if there is one.
//! Affinity decides first and load among the rest, with a bound on load if wanted: without one, a
//! single hot key sends everything to a single replica.

use crate::gateway::recency::{Arena, Links, Recency};
use crate::gateway::routing::load::LoadReader;
use crate::gateway::routing::order::InFlight;
use crate::gateway::routing::prefix_hash::hash_of_first;
use crate::gateway::routing::ring::bounded_load;
use crate::gateway::routing::{note, position};
use crate::view::{Asking, Feedback, FleetView, IndexUse, PolicyCx, Route, RoutingPolicy, Signals};
use rustc_hash::FxHashMap;
use windtunnel_base::content::stream_key;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::request::RequestView;
use windtunnel_ledger::state_store::IndexTotals;
use windtunnel_scenarios::schema::policies::{AffinityKey, RoutingSpec, TtlFrom};

/// Tokens per column.
const COLUMN: u32 = 64;

/// Tenant and hash. The tenant is part of the key as it is, not of the hash: no two tenants ever
/// share an entry, whatever hashes do.
type Key = (u32, u64);

/// The map. Memory follows the keys of the last `ttl`, and never exceeds `max_entries`.
#[derive(Clone, Debug)]
pub(super) struct Affinity {
    key: AffinityKey,
    columns: u32,
    ttl: SimDuration,
    ttl_from: TtlFrom,
    max_entries: u64,
    epsilon: Option<f64>,
    load: LoadReader,
    by_key: FxHashMap<Key, u32>,
    entries: Arena<Entry>,
    links: Vec<Links>,
    /// By last use, or by first use where age counts from there.
    recency: Recency,
    /// Keys on each replica, by id.
    held: Vec<u32>,
    in_flight: InFlight,
    asking: Asking,
    last: IndexUse,
    totals: IndexTotals,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    replica: ReplicaId,
    /// Last or first use.
    since: SimTime,
    /// Gateways that have seen it, a bit each.
    known_to: u64,
    /// The replica has computed a prompt of this key.
    computed: bool,
}

impl Affinity {
    /// # Panics
    /// If `spec` is another policy's.
    pub(super) fn new(spec: &RoutingSpec) -> Self {
        let RoutingSpec::Affinity {
            key,
            columns,
            ttl,
            ttl_from,
            max_entries,
            epsilon,
            load,
        } = *spec
        else {
            panic!("not the specification of affinity");
        };
        Self {
            key,
            columns,
            ttl: ttl.0,
            ttl_from,
            max_entries,
            epsilon,
            load: LoadReader::new(load),
            by_key: FxHashMap::default(),
            entries: Arena::default(),
            links: Vec::new(),
            recency: Recency::EMPTY,
            held: Vec::new(),
            in_flight: InFlight::default(),
            asking: Asking::default(),
            last: IndexUse::default(),
            totals: IndexTotals::default(),
        }
    }

    /// The key of a prompt; none if it has no whole column before its last token.
    fn key(&self, request: &RequestView<'_>) -> Option<Key> {
        let hash = match self.key {
            AffinityKey::Conversation => stream_key(2, request.session),
            AffinityKey::Prompt => hash_of_first(request, request.prompt_tokens),
            AffinityKey::Columns => {
                // One token at least must be computed.
                let whole = request.prompt_tokens.saturating_sub(1) / COLUMN;
                match whole.min(self.columns) {
                    0 => return None,
                    columns => hash_of_first(request, columns * COLUMN),
                }
            }
        };
        Some((request.tenant.0, hash))
    }

    fn remove(&mut self, slot: u32) {
        let entry = self.entries[slot];
        self.recency.remove(&mut self.links, slot);
        self.entries.release(slot);
        self.by_key.remove(&entry.key);
        self.held[entry.replica.index()] -= 1;
    }

    fn expire(&mut self, now: SimTime) {
        while let Some(slot) = self.recency.oldest() {
            if self.entries[slot].since.saturating_add(self.ttl) > now {
                return;
            }
            self.remove(slot);
            self.totals.expired += 1;
        }
    }

    fn insert(&mut self, key: Key, replica: ReplicaId, now: SimTime) {
        if self.entries.len() as u64 >= self.max_entries
            && let Some(oldest) = self.recency.oldest()
        {
            self.remove(oldest);
            self.totals.evicted += 1;
        }
        if replica.index() >= self.held.len() {
            self.held.resize(replica.index() + 1, 0);
        }
        self.held[replica.index()] += 1;
        let slot = self.entries.insert(Entry {
            key,
            replica,
            since: now,
            known_to: self.asking.bit(),
            computed: false,
        });
        self.by_key.insert(key, slot);
        self.links.resize(self.entries.extent(), Links::LOOSE);
        self.recency.push(&mut self.links, slot);
        let entries = self.entries.len() as u64;
        self.totals.peak_entries = self.totals.peak_entries.max(entries);
    }

    /// The least loaded, then that with the fewest keys (an idle fleet must not put them all on one
    /// replica), then that of the lowest id.
    fn least(&self, fleet: &FleetView<'_>) -> ReplicaId {
        let held = |id: ReplicaId| self.held.get(id.index()).copied().unwrap_or(0);
        let replicas = fleet.replicas.iter();
        let least = replicas.min_by_key(|r| (self.load.load(r), held(r.id), r.id));
        least.map_or(ReplicaId(0), |r| r.id)
    }

    /// Whether a replica is there and may take one more, given the fleet's requests in flight.
    fn fits(&self, fleet: &FleetView<'_>, id: ReplicaId, total: u64) -> bool {
        let Some(place) = position(fleet, id) else {
            return false;
        };
        self.epsilon.is_none_or(|epsilon| {
            let cap = bounded_load(epsilon, total, fleet.replicas.len() as u64);
            u64::from(fleet.replicas[place].in_flight) < cap
        })
    }

    /// Where a request goes, and whether the map said so.
    fn choose(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        total: u64,
    ) -> Option<(ReplicaId, bool)> {
        let key = self.key(request);
        let slot = key.and_then(|key| self.by_key.get(&key).copied());
        if !self.asking.answered {
            // By its own copy of what it has seen; the map is not there to be changed.
            let known = slot.map(|slot| self.entries[slot]);
            let known = known.filter(|entry| entry.known_to & self.asking.bit() != 0);
            let known = known.filter(|entry| self.fits(fleet, entry.replica, total));
            let entry = known?;
            self.last.expects_cached = entry.computed;
            self.totals.followed += 1;
            return Some((entry.replica, true));
        }
        let Some(slot) = slot else {
            let to = self.least(fleet);
            if let Some(key) = key {
                self.insert(key, to, fleet.now);
                self.totals.placed += 1;
                self.last.wrote = true;
            }
            return Some((to, false));
        };
        let entry = &mut self.entries[slot];
        entry.known_to |= self.asking.bit();
        let Entry {
            replica, computed, ..
        } = *entry;
        if self.ttl_from == TtlFrom::LastUse {
            entry.since = fleet.now;
            self.recency.remove(&mut self.links, slot);
            self.recency.push(&mut self.links, slot);
        }
        if self.fits(fleet, replica, total) {
            self.last.expects_cached = computed;
            self.totals.followed += 1;
            return Some((replica, true));
        }
        self.totals.over_bound += 1;
        Some((self.least(fleet), false))
    }
}

impl RoutingPolicy for Affinity {
    fn signals(&self) -> Signals {
        self.load.signals()
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        self.last = IndexUse::default();
        self.expire(fleet.now);
        let total = match self.epsilon {
            Some(_) => self.in_flight.follow(fleet),
            None => 0,
        };
        let (id, by_map, drawn) = match self.choose(request, fleet, total) {
            Some((id, by_map)) => (id, by_map, false),
            None => {
                self.totals.unknown += 1;
                let place = cx.rng.below(fleet.replicas.len() as u64) as usize;
                (fleet.replicas[place].id, false, true)
            }
        };
        note(cx, fleet, |_, replica| {
            if by_map || drawn {
                f64::from(u8::from(replica.id == id))
            } else {
                -(self.load.load(replica) as f64)
            }
        });
        if let Some(place) = position(fleet, id) {
            self.load.sent(&fleet.replicas[place]);
        }
        Route::To(id)
    }

    fn observe(
        &mut self,
        request: &RequestView<'_>,
        replica: ReplicaId,
        feedback: Feedback,
        _: SimTime,
    ) {
        if feedback == Feedback::FirstToken
            && let Some(slot) = self.key(request).and_then(|key| self.by_key.get(&key))
        {
            let entry = &mut self.entries[*slot];
            entry.computed |= entry.replica == replica;
        }
    }

    fn wants_feedback(&self) -> bool {
        true
    }

    fn asks(&mut self, asking: Asking) {
        self.asking = asking;
    }

    fn last_use(&self) -> IndexUse {
        self.last
    }

    fn index(&self) -> Option<IndexTotals> {
        Some(self.totals)
    }

    fn forget(&mut self, replica: ReplicaId) {
        let mut slots: Vec<u32> = self.by_key.values().copied().collect();
        slots.retain(|&slot| self.entries[slot].replica == replica);
        // What is iterated has an order of its own, whatever the map's.
        slots.sort_unstable();
        slots.into_iter().for_each(|slot| self.remove(slot));
    }

    fn forget_all(&mut self) {
        while let Some(slot) = self.recency.oldest() {
            self.remove(slot);
        }
    }
}

#[cfg(test)]
mod tests;
