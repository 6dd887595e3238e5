//! The less loaded of two replicas drawn at random (Mitzenmacher 2001).

use crate::gateway::routing::load::LoadReader;
use crate::gateway::routing::note;
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::LoadSignal;

/// Draws with replacement, as the theory does: the two may be one.
#[derive(Clone, Debug)]
pub(super) struct PowerOfTwo {
    load: LoadReader,
}

impl PowerOfTwo {
    pub(super) const fn new(signal: LoadSignal) -> Self {
        Self {
            load: LoadReader::new(signal),
        }
    }
}

impl RoutingPolicy for PowerOfTwo {
    fn signals(&self) -> Signals {
        self.load.signals()
    }

    fn route(
        &mut self,
        _: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        let n = fleet.replicas.len() as u64;
        let first = cx.rng.below(n) as usize;
        let second = cx.rng.below(n) as usize;
        let load = |place: usize| self.load.load(&fleet.replicas[place]);
        // Equal loads: the first drawn, which is as likely to be the one as the other.
        let best = if load(second) < load(first) {
            second
        } else {
            first
        };
        note(cx, fleet, |place, _| {
            if place == first || place == second {
                -(load(place) as f64)
            } else {
                f64::NEG_INFINITY
            }
        });
        self.load.sent(&fleet.replicas[best]);
        Route::To(fleet.replicas[best].id)
    }
}
