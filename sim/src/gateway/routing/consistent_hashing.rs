//! A hash of the conversation, tenant or prefix, with bounded loads: a replica at its cap is
//! passed over, and the ring is walked on.

use crate::gateway::routing::order::InFlight;
use crate::gateway::routing::ring::{HashRing, bounded_load};
use crate::gateway::routing::{FleetFacts, note, position, width};
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use windtunnel_base::content::stream_key;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::rng::mix64;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::HashKey;

/// The ring holds all replicas; those not routable are passed over, so a replica that leaves
/// and comes back finds its keys again.
#[derive(Clone, Debug)]
pub(super) struct ConsistentHashing {
    key: HashKey,
    epsilon: Option<f64>,
    ring: HashRing,
    in_flight: InFlight,
}

impl ConsistentHashing {
    pub(super) fn new(
        key: HashKey,
        virtual_nodes: u32,
        epsilon: Option<f64>,
        fleet: &FleetFacts,
    ) -> Self {
        Self {
            key,
            epsilon,
            ring: HashRing::new(fleet.replicas as u32, virtual_nodes, RING),
            in_flight: InFlight::default(),
        }
    }

    fn hash(&self, request: &RequestView<'_>) -> u64 {
        // Keys of different kinds must not meet, and small numbers must spread.
        match (self.key, request.prefix.first()) {
            (HashKey::Tenant, _) => stream_key(1, u64::from(request.tenant.0)),
            (HashKey::Prefix, Some(extent)) => mix64(extent.key),
            (HashKey::Session | HashKey::Prefix, _) => stream_key(2, request.session),
        }
    }
}

/// The salt of rings in policies: `windtunl`.
pub(super) const RING: u64 = 0x7769_6e64_7475_6e6c;

impl RoutingPolicy for ConsistentHashing {
    fn signals(&self) -> Signals {
        Signals::default()
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        if width(fleet) > self.ring.nodes() as usize {
            self.ring.grow(width(fleet) as u32);
        }
        let cap = self.epsilon.map_or(u64::MAX, |epsilon| {
            let total = self.in_flight.follow(fleet);
            bounded_load(epsilon, total, fleet.replicas.len() as u64)
        });
        let fits = |node: u32| {
            position(fleet, ReplicaId(node))
                .is_some_and(|place| u64::from(fleet.replicas[place].in_flight) < cap)
        };
        let hash = self.hash(request);
        // Some replica has less than the mean, which is less than the cap: one always fits.
        let node = self.ring.first_fit(hash, fits);
        let id = node.map_or(fleet.replicas[0].id, |(node, _)| ReplicaId(node));
        if cx.scores.is_some() {
            note(cx, fleet, |_, replica| {
                let hops = self.ring.first_fit(hash, |node| node == replica.id.0);
                if fits(replica.id.0) {
                    hops.map_or(f64::NEG_INFINITY, |(_, hops)| -f64::from(hops))
                } else {
                    f64::NEG_INFINITY
                }
            });
        }
        Route::To(id)
    }
}
