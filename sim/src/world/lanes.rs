//! Lanes: the pools between which the gateway tells requests apart. Each has its own waiting room and
//! its own routing policy over its replicas; most gateways have one lane with all replicas.

use crate::gateway::queue::WaitingRoom;
use crate::gateway::routing::{self, FleetFacts};
use crate::view::{ReplicaView, RoutingPolicy};
use windtunnel_base::ids::ReplicaId;
use windtunnel_ledger::state_store::IndexTotals;
use windtunnel_scenarios::schema::gateway::GatewaySpec;

/// One lane.
pub(super) struct Lane {
    pub(super) policy: Box<dyn RoutingPolicy>,
    pub(super) room: WaitingRoom,
    /// Its replicas.
    size: usize,
    /// Of those, replicas that take no request: they are full or gone.
    closed: usize,
    /// Of those, replicas that are gone.
    gone: usize,
}

impl Lane {
    /// Whether no replica takes a request.
    #[inline]
    pub(super) const fn is_full(&self) -> bool {
        self.closed == self.size
    }

    /// Whether there is no replica at all.
    pub(super) const fn is_gone(&self) -> bool {
        self.gone == self.size
    }
}

/// Why a replica takes no requests although it is not full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Gone {
    /// It is lost, as far as the gateway knows.
    Lost = 1,
    /// It is off, not ready yet, or on its way out.
    Off = 2,
    /// It was ejected, for failing one request after the other.
    Ejected = 4,
}

/// All lanes, and which replica belongs to which.
pub(super) struct Lanes {
    all: Vec<Lane>,
    /// By replica.
    of: Vec<u8>,
    /// By replica: why it is gone, as far as the gateway knows; one bit for each reason.
    gone: Vec<u8>,
}

impl Lanes {
    /// Lanes of these pools, or one of all replicas if there are none.
    pub(super) fn new(
        spec: &GatewaySpec,
        facts: &FleetFacts,
        pools: &[Vec<u32>],
        weights: &[f64],
    ) -> Self {
        let lane = |size| Lane {
            policy: routing::build(&spec.routing, facts),
            room: WaitingRoom::new(&spec.queue, weights),
            size,
            closed: 0,
            gone: 0,
        };
        let mut of = vec![0; facts.replicas];
        for (number, pool) in pools.iter().enumerate() {
            pool.iter().for_each(|&id| of[id as usize] = number as u8);
        }
        let sizes = match pools {
            [] => vec![facts.replicas],
            pools => pools.iter().map(Vec::len).collect(),
        };
        Self {
            all: sizes.into_iter().map(lane).collect(),
            of,
            gone: vec![0; facts.replicas],
        }
    }

    #[inline]
    pub(super) fn get(&self, lane: u8) -> &Lane {
        &self.all[usize::from(lane)]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, lane: u8) -> &mut Lane {
        &mut self.all[usize::from(lane)]
    }

    /// The lane of a replica.
    #[inline]
    pub(super) fn of_mut(&mut self, replica: ReplicaId) -> &mut Lane {
        &mut self.all[usize::from(self.of[replica.index()])]
    }

    /// Which lane a replica belongs to.
    pub(super) fn lane_of(&self, replica: ReplicaId) -> u8 {
        self.of[replica.index()]
    }

    /// Their numbers.
    pub(super) fn numbers(&self) -> std::ops::Range<u8> {
        0..self.all.len() as u8
    }

    /// Whether there is one lane, and all its replicas take requests.
    #[inline]
    pub(super) fn is_one_and_open(&self) -> bool {
        self.all.len() == 1 && self.all[0].closed == 0
    }

    /// Requests that wait in all rooms.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        // Asked at every event, and mostly there is one.
        match &self.all[..] {
            [only] => only.room.len(),
            all => all.iter().map(|lane| lane.room.len()).sum(),
        }
    }

    /// Whether nobody waits for a replica that takes requests.
    pub(super) fn are_drained(&self) -> bool {
        self.all
            .iter()
            .all(|lane| lane.room.is_empty() || lane.is_full())
    }

    /// Whether a replica belongs to a lane and is not gone.
    #[inline]
    pub(super) fn offers(&self, lane: u8, replica: ReplicaId) -> bool {
        let r = replica.index();
        self.of[r] == lane && self.gone[r] == 0
    }

    /// A replica has become full, or is so no more.
    #[inline]
    pub(super) fn filled(&mut self, replica: ReplicaId, full: bool) {
        if self.gone[replica.index()] != 0 {
            return; // it is closed already
        }
        let lane = self.of_mut(replica);
        match full {
            true => lane.closed += 1,
            false => lane.closed -= 1,
        }
    }

    /// How many replicas the lane of this one has, and how many of those are not gone.
    pub(super) fn sizes_around(&self, replica: ReplicaId) -> (usize, usize) {
        let lane = &self.all[usize::from(self.of[replica.index()])];
        (lane.size, lane.size - lane.gone)
    }

    /// How many replicas of the lane of this one are gone for a reason.
    pub(super) fn gone_around(&self, replica: ReplicaId, why: Gone) -> usize {
        let lane = self.of[replica.index()];
        let own = self
            .of
            .iter()
            .zip(&self.gone)
            .filter(|(of, _)| **of == lane);
        own.filter(|(_, gone)| **gone & why as u8 != 0).count()
    }

    /// The gateway learns that a replica is gone for a reason, or is so no more; `full`: it takes no
    /// request anyway.
    pub(super) fn set_gone(&mut self, replica: ReplicaId, why: Gone, gone: bool, full: bool) {
        let reasons = &mut self.gone[replica.index()];
        let before = *reasons != 0;
        match gone {
            true => *reasons |= why as u8,
            false => *reasons &= !(why as u8),
        }
        let gone = *reasons != 0;
        if before == gone {
            return;
        }
        let lane = self.of_mut(replica);
        match gone {
            true => lane.gone += 1,
            false => lane.gone -= 1,
        }
        match (gone, full) {
            (_, true) => {}
            (true, false) => lane.closed += 1,
            (false, false) => lane.closed -= 1,
        }
    }

    /// Tells the policies to forget what a replica had cached.
    pub(super) fn forget(&mut self, replica: ReplicaId) {
        self.of_mut(replica).policy.forget(replica);
    }

    /// Tells the policies that the state store has lost its contents.
    pub(super) fn forget_all(&mut self) {
        for lane in &mut self.all {
            lane.policy.forget_all();
        }
    }

    /// What the policies' indexes did, together, if they count.
    pub(super) fn index(&self) -> Option<IndexTotals> {
        let all = self.all.iter().filter_map(|lane| lane.policy.index());
        all.reduce(IndexTotals::plus)
    }

    /// Writes down the replicas of a lane that take requests.
    pub(super) fn open(
        &self,
        lane: u8,
        views: &[ReplicaView],
        max_in_flight: u32,
        offered: &mut Vec<ReplicaView>,
    ) {
        let open = |v: &&ReplicaView| self.offers(lane, v.id) && v.in_flight < max_in_flight;
        offered.clear();
        offered.extend(views.iter().filter(open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixtures::{Cached, Shown, replica, request};
    use crate::view::{FleetView, News, PolicyCx, Route};
    use windtunnel_base::content::Extent;
    use windtunnel_base::rng::Rng;
    use windtunnel_base::time::SimTime;

    /// F31: pools that serve different models keep maps of their own, so the model is part of every key.
    #[test]
    fn a_lane_remembers_nothing_of_another() {
        let spec = r#"{ "routing": { "kind": "affinity" } }"#;
        let spec: GatewaySpec = serde_json::from_str(spec).unwrap();
        let facts = FleetFacts {
            replicas: 4,
            block_tokens: 16,
            seed: 1,
        };
        let mut lanes = Lanes::new(&spec, &facts, &[vec![0, 1], vec![2, 3]], &[]);
        let prefix = [Extent { key: 1, tokens: 99 }];
        let cached = Cached(Vec::new());
        let mut rng = Rng::from_seed(1);
        for (id, lane, first) in [(0, 0, 0), (1, 1, 2), (2, 0, 0), (3, 1, 2)] {
            let views = [first, first + 1].map(|id| replica(id, Shown::default()));
            let fleet = FleetView {
                now: SimTime::ZERO,
                replicas: &views,
                cache: &cached,
                news: News::Everything,
            };
            let mut cx = PolicyCx {
                rng: &mut rng,
                scores: None,
            };
            let policy = &mut lanes.get_mut(lane).policy;
            let route = policy.route(&request(id, 99, &prefix), &fleet, &mut cx);
            assert!(matches!(route, Route::To(to) if views.iter().any(|v| v.id == to)));
        }
        let index = lanes.index().unwrap();
        // Placed once in each lane, and found there again.
        assert_eq!((index.placed, index.followed), (2, 2));
    }
}
