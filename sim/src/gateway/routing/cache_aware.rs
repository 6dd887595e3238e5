//! Where the longest prefix was routed, unless loads are uneven (SGLang `cache_aware`).

use crate::gateway::prefix_index::{Found, RoutedIndex, RoutedLimits};
use crate::gateway::routing::load::LoadReader;
use crate::gateway::routing::order::Order;
use crate::gateway::routing::{note, position, width};
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use std::cmp::Reverse;
use windtunnel_base::ids::ReplicaId;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::RoutingSpec;

/// Three rules in order. Loads uneven (`max - min > abs` and `max > rel * min`): the least
/// loaded replica. Else, if the longest match is more than `cache_threshold` of the prompt and
/// at least `min_match_tokens`: the least loaded of the replicas that have it. Else the least
/// loaded replica. Ties go to the lowest id. Whatever decided, the choice enters the index.
#[derive(Clone, Debug)]
pub(super) struct CacheAware {
    cache_threshold: f64,
    balance_abs: u64,
    balance_rel: f64,
    min_match_tokens: u32,
    load: LoadReader,
    index: RoutedIndex,
    matched: Found,
    /// The replicas by load, from the least and from the most.
    idle_first: Order,
    busy_first: Order,
}

impl CacheAware {
    /// # Panics
    /// If `spec` is another policy's.
    pub(super) fn new(spec: &RoutingSpec) -> Self {
        let RoutingSpec::CacheAware {
            cache_threshold,
            balance_abs_threshold,
            balance_rel_threshold,
            max_tree_tokens,
            max_tree_nodes,
            min_match_tokens,
            load,
        } = *spec
        else {
            panic!("not the specification of cache_aware");
        };
        Self {
            cache_threshold,
            balance_abs: u64::from(balance_abs_threshold),
            balance_rel: balance_rel_threshold,
            min_match_tokens,
            load: LoadReader::new(load),
            // A radix tree matches to the token.
            index: RoutedIndex::new(RoutedLimits {
                block_tokens: 1,
                max_blocks: u32::MAX,
                capacity_blocks: max_tree_tokens,
                max_entries: max_tree_nodes,
                ttl: None,
            }),
            matched: Found::default(),
            idle_first: Order::default(),
            busy_first: Order::default(),
        }
    }

    /// Least and most load, and the place of the first with the least.
    fn loads(&mut self, fleet: &FleetView<'_>) -> (u64, u64, usize) {
        let load = &self.load;
        // Both hear all news, or the one that did not would be behind.
        let idle_first = self.idle_first.follow(fleet, true, |r| load.load(r));
        let busy_first = self.busy_first.follow(fleet, true, |r| !load.load(r));
        if idle_first && busy_first {
            let (least, _) = self.idle_first.least();
            let (most, _) = self.busy_first.least();
            return (least, !most, self.idle_first.place_of(0));
        }
        let (mut least, mut most, mut idlest) = (u64::MAX, 0, 0);
        for (place, replica) in fleet.replicas.iter().enumerate() {
            let load = load.load(replica);
            most = most.max(load);
            if load < least {
                (least, idlest) = (load, place);
            }
        }
        (least, most, idlest)
    }

    /// The place in view that the rules name, and whether a match decided.
    fn choose(&mut self, request: &RequestView<'_>, fleet: &FleetView<'_>) -> (usize, bool) {
        let (least, most, idlest) = self.loads(fleet);
        if most - least > self.balance_abs && most as f64 > self.balance_rel * least as f64 {
            return (idlest, false);
        }
        self.index
            .find(request, fleet.now, width(fleet), &mut self.matched);
        // The longest match, then the least load, then the lowest id.
        let mut best = None;
        for &id in self.matched.replicas() {
            let id = ReplicaId(id);
            if let Some(place) = position(fleet, id) {
                let rank = (
                    Reverse(self.matched.at(id)),
                    self.load.load(&fleet.replicas[place]),
                    place,
                );
                if best.is_none_or(|best| rank < best) {
                    best = Some(rank);
                }
            }
        }
        let Some((Reverse(longest), _, best)) = best else {
            return (idlest, false);
        };
        let share = f64::from(longest) / f64::from(request.prompt_tokens);
        if share > self.cache_threshold && longest >= self.min_match_tokens {
            (best, true)
        } else {
            (idlest, false)
        }
    }
}

impl RoutingPolicy for CacheAware {
    fn signals(&self) -> Signals {
        self.load.signals()
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        let (place, by_match) = self.choose(request, fleet);
        note(cx, fleet, |_, replica| {
            if by_match {
                let matched = self.matched.at(replica.id);
                f64::from(matched) / f64::from(request.prompt_tokens)
            } else {
                -(self.load.load(replica) as f64)
            }
        });
        let chosen = &fleet.replicas[place];
        self.index.insert(request, chosen.id, fleet.now);
        self.load.sent(chosen);
        let load = self.load.load(chosen);
        self.idle_first.set(place, load);
        self.busy_first.set(place, !load);
        Route::To(chosen.id)
    }

    fn forget(&mut self, replica: ReplicaId) {
        self.index.forget(replica);
    }
}
