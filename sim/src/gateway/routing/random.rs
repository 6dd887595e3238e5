//! Uniformly at random.

use crate::gateway::routing::note;
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use windtunnel_engine::request::RequestView;

/// Any replica, all alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random;

impl RoutingPolicy for Random {
    fn signals(&self) -> Signals {
        Signals::default()
    }

    fn route(
        &mut self,
        _: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        note(cx, fleet, |_, _| 0.0);
        let place = cx.rng.below(fleet.replicas.len() as u64) as usize;
        Route::To(fleet.replicas[place].id)
    }
}
