//! In turn.

use crate::gateway::routing::{note, position};
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use windtunnel_base::ids::ReplicaId;
use windtunnel_engine::request::RequestView;

/// The routable replica with the next higher id than the last one chosen, around.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundRobin {
    last: Option<ReplicaId>,
}

impl RoutingPolicy for RoundRobin {
    fn signals(&self) -> Signals {
        Signals::default()
    }

    fn route(
        &mut self,
        _: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        let n = fleet.replicas.len();
        let next = self.last.map_or(0, |last| match position(fleet, last) {
            Some(place) => place + 1,
            // The last one has gone: go on where it stood.
            None => fleet.replicas.partition_point(|r| r.id < last),
        });
        let next = if next < n { next } else { 0 };
        // The sooner its turn, the better.
        note(cx, fleet, |place, _| -(((place + n - next) % n) as f64));
        let id = fleet.replicas[next].id;
        self.last = Some(id);
        Route::To(id)
    }
}
