//! The least loaded of all; also vLLM's data-parallel balancer, by the signal it reads.

use crate::gateway::routing::load::LoadReader;
use crate::gateway::routing::note;
use crate::gateway::routing::order::Order;
use crate::gateway::routing::ties::GoTies;
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use windtunnel_base::rng::Rng;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::{LoadSignal, TieBreak};

/// Least load; who among equals is the specification's to say. Where the news allows, the order
/// of loads is kept from one decision to the next; else every replica is looked at. Both choose
/// the same.
#[derive(Clone, Debug)]
pub(super) struct LeastLoaded {
    load: LoadReader,
    ties: Ties,
    order: Order,
}

#[derive(Clone, Debug)]
enum Ties {
    LowestId,
    Random,
    Go(GoTies),
}

impl Ties {
    /// The rank of the one chosen. A draw of our own is made however many there are, so that
    /// the stream does not depend on loads.
    fn rank(&mut self, ties: usize, rng: &mut Rng) -> usize {
        match self {
            Self::LowestId => 0,
            Self::Random => rng.below(ties as u64) as usize,
            Self::Go(go) => go.nth(ties),
        }
    }
}

impl LeastLoaded {
    pub(super) fn new(signal: LoadSignal, ties: TieBreak, seed: u64) -> Self {
        Self {
            load: LoadReader::new(signal),
            ties: match ties {
                TieBreak::LowestId => Ties::LowestId,
                TieBreak::Random => Ties::Random,
                TieBreak::GoRandom => Ties::Go(GoTies::new(seed)),
            },
            order: Order::default(),
        }
    }
}

impl RoutingPolicy for LeastLoaded {
    fn signals(&self) -> Signals {
        self.load.signals()
    }

    fn route(
        &mut self,
        _: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        let load = &self.load;
        let best = if self.order.follow(fleet, true, |r| load.load(r)) {
            let (_, ties) = self.order.least();
            self.order.place_of(self.ties.rank(ties, cx.rng))
        } else {
            let (first, ties) = self.load.least(fleet);
            match self.ties.rank(ties, cx.rng) {
                0 => first,
                rank => self.load.equal(fleet, first, rank),
            }
        };
        note(cx, fleet, |_, replica| -(self.load.load(replica) as f64));
        let chosen = &fleet.replicas[best];
        self.load.sent(chosen);
        self.order.set(best, self.load.load(chosen));
        Route::To(chosen.id)
    }
}
