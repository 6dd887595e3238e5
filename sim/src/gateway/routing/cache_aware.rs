//! Where the longest prefix was routed, unless loads are uneven (SGLang `cache_aware`).

use crate::gateway::prefix_index::{RoutedIndex, RoutedLimits};
use crate::gateway::routing::load::LoadReader;
use crate::gateway::routing::{note, width};
use crate::view::{FleetView, PolicyCx, Route, RoutingPolicy, Signals};
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
    matched: Vec<u32>,
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
                ttl: None,
            }),
            matched: Vec::new(),
        }
    }

    /// The place in view that the rules name, and whether a match decided.
    fn choose(&mut self, request: &RequestView<'_>, fleet: &FleetView<'_>) -> (usize, bool) {
        let (mut least, mut most, mut idlest) = (u64::MAX, 0, 0);
        for (place, replica) in fleet.replicas.iter().enumerate() {
            let load = self.load.load(replica);
            most = most.max(load);
            if load < least {
                (least, idlest) = (load, place);
            }
        }
        if most - least > self.balance_abs && most as f64 > self.balance_rel * least as f64 {
            return (idlest, false);
        }
        self.index
            .matches(request, fleet.now, width(fleet), &mut self.matched);
        let (mut longest, mut load, mut best) = (0, u64::MAX, idlest);
        for (place, replica) in fleet.replicas.iter().enumerate() {
            let matched = self.matched[replica.id.index()];
            if matched >= longest && matched > 0 {
                let its_load = self.load.load(replica);
                if matched > longest || its_load < load {
                    (longest, load, best) = (matched, its_load, place);
                }
            }
        }
        let share = f64::from(longest) / f64::from(request.prompt_tokens);
        if longest > 0 && share > self.cache_threshold && longest >= self.min_match_tokens {
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
                let matched = self.matched[replica.id.index()];
                f64::from(matched) / f64::from(request.prompt_tokens)
            } else {
                -(self.load.load(replica) as f64)
            }
        });
        let chosen = &fleet.replicas[place];
        self.index.insert(request, chosen.id, fleet.now);
        self.load.sent(chosen);
        Route::To(chosen.id)
    }
}
