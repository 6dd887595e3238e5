//! The least loaded of a few replicas drawn at random (Mitzenmacher 2001); two unless told otherwise.

use crate::gateway::routing::load::LoadReader;
use crate::gateway::routing::note;
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::LoadSignal;

/// Draws with replacement, as the theory does: a replica may be drawn twice.
#[derive(Clone, Debug)]
pub(super) struct PowerOfTwo {
    load: LoadReader,
    choices: u32,
    /// Places drawn for the request at hand.
    drawn: Vec<usize>,
}

impl PowerOfTwo {
    pub(super) const fn new(signal: LoadSignal, choices: u32) -> Self {
        Self {
            load: LoadReader::new(signal),
            choices,
            drawn: Vec::new(),
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
        self.drawn.clear();
        for _ in 0..self.choices.max(1) {
            self.drawn.push(cx.rng.below(n) as usize);
        }
        let load = |place: usize| self.load.load(&fleet.replicas[place]);
        // Equal loads: the first drawn, which is as likely to be the one as the other.
        let mut best = self.drawn[0];
        for &place in &self.drawn[1..] {
            if load(place) < load(best) {
                best = place;
            }
        }
        note(cx, fleet, |place, _| {
            if self.drawn.contains(&place) {
                -(load(place) as f64)
            } else {
                f64::NEG_INFINITY
            }
        });
        self.load.sent(&fleet.replicas[best]);
        Route::To(fleet.replicas[best].id)
    }
}
