//! Where the state store joins the world: admitted requests wait for its answer before they are
//! routed, and what gateways count is written to it. Writes hold nobody up.

use super::World;
use super::gateway::Gateway;
use super::requests::Place;
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::gateway::state_store::{StateStore, StoreAnswer};
use crate::view::Asking;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;
use windtunnel_ledger::state_store::{IndexTotals, StoreTotals};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::state_store::BlackoutRule;

/// The store of a run.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: StateStore,
    refuses: bool,
}

impl Shared {
    /// The store of a scenario, if it has one.
    pub(super) fn new(scenario: &Scenario, replicas: usize) -> Option<Box<Self>> {
        let spec = scenario.gateway.state_store.as_ref()?;
        Some(Box::new(Self {
            store: StateStore::new(spec, replicas),
            refuses: spec.on_blackout == BlackoutRule::Refuse,
        }))
    }

    /// Requests come to the gateways in turn.
    fn gateway_of(&self, request: RequestId) -> usize {
        request.index() % self.store.gateways()
    }
}

impl<M: Machine> World<'_, M> {
    /// An admitted request waits for what the store says.
    pub(super) fn ask_store(&mut self, slot: u32) {
        let flight = self.requests.get_mut(slot);
        flight.place = Place::Asking;
        let id = flight.id;
        let Some(shared) = &mut self.gateway.shared else {
            return self.admitted(slot);
        };
        let gateway = shared.gateway_of(id);
        let (takes, answer) = shared.store.read(gateway, self.now);
        self.hop(slot, takes, Hop::StoreSeen(answer));
    }

    /// A gateway has the store's answer, or has waited for it long enough.
    pub(super) fn store_seen(&mut self, slot: u32, answer: StoreAnswer) {
        let flight = self.requests.get_mut(slot);
        flight.answered = answer == StoreAnswer::Known;
        let (id, place) = (flight.id, flight.place);
        let Some(shared) = &mut self.gateway.shared else {
            return;
        };
        let gateway = shared.gateway_of(id);
        let lost = shared.store.learn(gateway, self.now, answer);
        let refuses = shared.refuses && answer != StoreAnswer::Known;
        if lost {
            self.gateway.lanes.forget_all();
        }
        if place == Place::Gone {
            return; // cancelled meanwhile
        }
        if refuses {
            return self.turn_away(slot, Refusal::Unavailable);
        }
        self.admitted(slot);
    }
}

impl Gateway {
    /// Before a decision: who takes it, and what it knows. Several gateways know of each other only what
    /// the store has told them.
    pub(super) fn know(&mut self, request: RequestId, lane: u8, answered: bool) {
        let Some(shared) = &self.shared else {
            return;
        };
        let gateway = shared.gateway_of(request);
        self.lanes.get_mut(lane).policy.asks(Asking {
            gateway: gateway as u32,
            answered,
        });
        if !self.several {
            return;
        }
        // The replicas that take requests are written down; here their counts.
        for view in &mut self.offered {
            view.in_flight = shared.store.in_flight(gateway, view.id.index());
        }
    }

    /// After a decision: what it wrote, and whether it counts on finding the prompt in cache.
    pub(super) fn decided(&mut self, lane: u8, now: SimTime) -> bool {
        if !self.has_index {
            return false;
        }
        let used = self.lanes.get(lane).policy.last_use();
        if used.wrote
            && let Some(shared) = &mut self.shared
        {
            shared.store.write(now);
        }
        used.expects_cached
    }

    /// One more request of a gateway in flight at a replica, or one less.
    #[inline]
    pub(super) fn count_shared(
        &mut self,
        request: RequestId,
        replica: ReplicaId,
        more: bool,
        now: SimTime,
    ) {
        if let Some(shared) = &mut self.shared {
            let gateway = shared.gateway_of(request);
            shared.store.count(gateway, replica.index(), more, now);
        }
    }

    /// What store and index did, at the end of a run.
    pub(super) fn shared_totals(
        &mut self,
        end: SimTime,
    ) -> (Option<StoreTotals>, Option<IndexTotals>) {
        let store = self.shared.as_mut().map(|shared| {
            shared.store.catch_up(end);
            shared.store.totals().clone()
        });
        let false_affinity = self.false_affinity;
        let index = self.lanes.index().map(|totals| IndexTotals {
            false_affinity,
            ..totals
        });
        (store, index)
    }
}
