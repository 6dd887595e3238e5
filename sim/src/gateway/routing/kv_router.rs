//! Least prefill left to do plus decode blocks (Dynamo's KV router).

use crate::gateway::prefix_index::{Found, RoutedIndex, RoutedLimits};
use crate::gateway::routing::active::{ActiveBlocks, Shared};
use crate::gateway::routing::order::Order;
use crate::gateway::routing::ties;
use crate::gateway::routing::weighted::pick_among;
use crate::gateway::routing::{FleetFacts, note, width};
use crate::view::{Feedback, FleetView, PolicyCx, Route, RoutingPolicy, Signals};
use rustc_hash::FxHashMap;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::time::SimTime;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::RoutingSpec;

/// Costs each replica, in blocks, at
///
/// ```text
/// prefill_load_scale * max(0, (active prefill tokens + prompt tokens) / block
///                             - overlap_score_credit * cached blocks)
///   + blocks of active requests and of this prompt
///   + decode_active_request_weight * active requests
/// ```
///
/// What is active the router counts itself: a request's uncached prompt tokens until its first
/// token comes back, its prompt blocks until it has ended. Blocks that active requests share
/// count once; output blocks do not count, as in Dynamo's default.
#[derive(Clone, Debug)]
pub(super) struct KvRouter {
    credit: f64,
    prefill_scale: f64,
    request_weight: f64,
    temperature: f64,
    block: u32,
    /// What is assumed to be cached; none when cache events tell.
    assumed: Option<RoutedIndex>,
    active: Vec<Active>,
    blocks: ActiveBlocks,
    requests: FxHashMap<RequestId, Sent>,
    /// What is cached of the request: blocks by the index, tokens as events tell.
    found: Found,
    /// Blocks that the request would share with active ones.
    shared: Shared,
    costs: Vec<f64>,
    /// The replicas by what they cost any request, where that is the same for all requests.
    order: Order,
    /// Replicas as cheap as the cheapest of the order, though not by it.
    others: Vec<u32>,
}

/// What is active on a replica.
#[derive(Clone, Copy, Debug, Default)]
struct Active {
    requests: u64,
    prefill_tokens: u64,
}

/// What a request added to its replica.
#[derive(Clone, Copy, Debug)]
struct Sent {
    replica: ReplicaId,
    /// Zero once its first token has come.
    prefill_tokens: u64,
}

impl KvRouter {
    /// # Panics
    /// If `spec` is another policy's, or a block has no tokens.
    pub(super) fn new(spec: &RoutingSpec, fleet: &FleetFacts) -> Self {
        let RoutingSpec::KvRouter {
            overlap_score_credit,
            prefill_load_scale,
            decode_active_request_weight,
            temperature,
            use_kv_events,
            ttl,
        } = *spec
        else {
            panic!("not the specification of kv_router");
        };
        let assumed = (!use_kv_events).then(|| {
            RoutedIndex::new(RoutedLimits {
                block_tokens: fleet.block_tokens,
                max_blocks: u32::MAX,
                capacity_blocks: u64::MAX,
                max_entries: u32::MAX,
                ttl: Some(ttl.0),
            })
        });
        Self {
            credit: overlap_score_credit,
            prefill_scale: prefill_load_scale,
            request_weight: decode_active_request_weight,
            temperature,
            block: fleet.block_tokens,
            assumed,
            active: Vec::new(),
            blocks: ActiveBlocks::new(fleet.block_tokens),
            requests: FxHashMap::default(),
            found: Found::default(),
            shared: Shared::default(),
            costs: Vec::new(),
            order: Order::default(),
            others: Vec::new(),
        }
    }

    fn look_up(&mut self, request: &RequestView<'_>, fleet: &FleetView<'_>) {
        let width = width(fleet);
        if let Some(index) = &mut self.assumed {
            index.find(request, fleet.now, width, &mut self.found);
        } else {
            fleet.cache.find(request, width, &mut self.found);
        }
        self.blocks.shared(request, width, &mut self.shared);
        if self.active.len() < width {
            self.active.resize(width, Active::default());
        }
    }

    /// Prompt tokens cached at a replica: whole blocks by the index, as told by events.
    fn cached(&self, id: ReplicaId) -> u32 {
        match self.assumed {
            Some(_) => self.found.at(id) * self.block,
            None => self.found.at(id),
        }
    }

    fn cost(&self, request: &RequestView<'_>, id: ReplicaId) -> f64 {
        let active = self.active[id.index()];
        let block = f64::from(self.block);
        let tokens = active.prefill_tokens + u64::from(request.prompt_tokens);
        let overlap = f64::from(self.cached(id) / self.block);
        let prefill = (tokens as f64 / block - self.credit * overlap).max(0.0);
        let own = u64::from(request.prompt_tokens.div_ceil(self.block));
        let potential = self.blocks.held(id) + own - u64::from(self.shared.blocks(id));
        self.prefill_scale * prefill
            + potential as f64
            + self.request_weight * active.requests as f64
    }

    /// What a replica costs any request alike, in tokens.
    fn key(&self, id: ReplicaId) -> u64 {
        let active = self.active.get(id.index()).copied().unwrap_or_default();
        let blocks = self.blocks.held(id) + self.request_weight as u64 * active.requests;
        self.prefill_scale as u64 * active.prefill_tokens + u64::from(self.block) * blocks
    }

    /// Whether costs are exact in binary, so that the order of keys is the order of costs, ties
    /// included: blocks of a power of two, and whole weights.
    fn is_exact(&self) -> bool {
        let whole = |weight: f64| weight == weight.trunc() && (0.0..65_536.0).contains(&weight);
        self.block.is_power_of_two()
            && whole(self.prefill_scale)
            && whole(self.request_weight)
            && self.credit >= 0.0
            && self.temperature <= 0.0
    }

    /// The place of the least cost by the order that is kept; none if every replica has to be
    /// looked at. A cached or active prefix only ever makes a replica cheaper, so those with one
    /// are looked at one by one, and for the others the order stands.
    fn by_order(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Option<usize> {
        if cx.scores.is_some() || !self.is_exact() {
            return None;
        }
        let mut order = std::mem::take(&mut self.order);
        let mut others = std::mem::take(&mut self.others);
        let follows = order.follow(fleet, true, |r| self.key(r.id));
        let place = follows.then(|| {
            let (least_key, ties) = order.least();
            let first = fleet.replicas[order.place_of(0)].id;
            // The first of the order may itself be one with a prefix: any bound will do then.
            let mut least = self.plain_cost(request, first);
            let mut by_order = true;
            others.clear();
            for &id in self.found.replicas().iter().chain(self.shared.replicas()) {
                let cost = self.cost(request, ReplicaId(id));
                if cost < least {
                    (least, by_order) = (cost, false);
                    others.clear();
                }
                // Who stands first in the order too is counted there.
                if cost == least && !(by_order && order.key(id as usize) == least_key) {
                    others.push(id);
                }
            }
            others.sort_unstable();
            others.dedup();
            if by_order {
                let rank = ties::nth(cx, ties + others.len());
                order.place_among(rank, &others)
            } else {
                others[ties::nth(cx, others.len())] as usize
            }
        });
        (self.order, self.others) = (order, others);
        place
    }

    /// What a replica would cost a request of which nothing is cached or active.
    fn plain_cost(&self, request: &RequestView<'_>, id: ReplicaId) -> f64 {
        let active = self.active[id.index()];
        let tokens = active.prefill_tokens + u64::from(request.prompt_tokens);
        let own = u64::from(request.prompt_tokens.div_ceil(self.block));
        self.prefill_scale * (tokens as f64 / f64::from(self.block))
            + (self.blocks.held(id) + own) as f64
            + self.request_weight * active.requests as f64
    }

    /// Looks at every replica.
    fn by_looking(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> usize {
        self.costs.clear();
        for replica in fleet.replicas {
            let cost = self.cost(request, replica.id);
            self.costs.push(cost);
        }
        note(cx, fleet, |place, _| -self.costs[place]);
        self.pick(cx)
    }

    /// The place of the least cost, ties at random; with a temperature, a draw from a softmax
    /// over the costs, scaled by their spread as Dynamo does.
    fn pick(&self, cx: &mut PolicyCx<'_>) -> usize {
        let least = self.costs.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.temperature <= 0.0 || most <= least {
            return pick_among(cx, &self.costs, |cost| cost <= least);
        }
        let scale = 1.0 / ((most - least) * self.temperature);
        let weight = |cost: f64| libm::exp(-(cost - least) * scale);
        let total: f64 = self.costs.iter().map(|&c| weight(c)).sum();
        let mut left = cx.rng.f64() * total;
        for (place, &cost) in self.costs.iter().enumerate() {
            left -= weight(cost);
            if left < 0.0 {
                return place;
            }
        }
        // Rounding can leave a sliver past the last: the last then.
        self.costs.len() - 1
    }
}

impl RoutingPolicy for KvRouter {
    fn signals(&self) -> Signals {
        Signals {
            stats: false,
            passing: false,
            cache: self.assumed.is_none(),
        }
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        self.look_up(request, fleet);
        let place = self.by_order(request, fleet, cx);
        let place = place.unwrap_or_else(|| self.by_looking(request, fleet, cx));
        let id = fleet.replicas[place].id;
        if let Some(index) = &mut self.assumed {
            index.insert(request, id, fleet.now);
        }
        let sent = Sent {
            replica: id,
            prefill_tokens: u64::from(request.prompt_tokens.saturating_sub(self.cached(id))),
        };
        let active = &mut self.active[id.index()];
        active.requests += 1;
        active.prefill_tokens += sent.prefill_tokens;
        self.blocks.add(request, id);
        self.requests.insert(request.id, sent);
        self.order.set(id.index(), self.key(id));
        Route::To(id)
    }

    fn observe(
        &mut self,
        request: &RequestView<'_>,
        _replica: ReplicaId,
        feedback: Feedback,
        _now: SimTime,
    ) {
        let Some(sent) = self.requests.get_mut(&request.id) else {
            return; // its end was seen already
        };
        let active = &mut self.active[sent.replica.index()];
        active.prefill_tokens -= sent.prefill_tokens;
        sent.prefill_tokens = 0;
        if feedback != Feedback::FirstToken {
            active.requests -= 1;
            let replica = sent.replica;
            self.blocks.remove(request, replica);
            self.requests.remove(&request.id);
            self.order.set(replica.index(), self.key(replica));
        } else {
            let replica = sent.replica;
            self.order.set(replica.index(), self.key(replica));
        }
    }

    fn forget(&mut self, replica: ReplicaId) {
        if let Some(index) = &mut self.assumed {
            index.forget(replica);
        }
    }

    fn wants_feedback(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixtures::{Shown, decide, replica, request};
    use windtunnel_base::rng::Rng;

    fn router(temperature: f64) -> KvRouter {
        let spec = RoutingSpec::KvRouter {
            overlap_score_credit: 0.5,
            prefill_load_scale: 2.0,
            decode_active_request_weight: 3.0,
            temperature,
            use_kv_events: true,
            ttl: windtunnel_base::quantity::Span::default(),
        };
        let facts = FleetFacts {
            replicas: 2,
            block_tokens: 10,
            seed: 1,
        };
        KvRouter::new(&spec, &facts)
    }

    #[test]
    fn costs_follow_what_is_active() {
        let fleet = [replica(0, Shown::default()), replica(1, Shown::default())];
        let mut rng = Rng::from_seed(1);
        let mut router = router(0.0);
        // 100 tokens, 40 of them cached on 0: 2 * (10 - 0.5 * 4) + 10 there, 2 * 10 + 10 on 1.
        let first = request(0, 100, &[]);
        let (to, scores) = decide(&mut router, &first, &fleet, &[40, 0], &mut rng);
        assert_eq!((to, scores), (0, vec![-26.0, -30.0]));
        // Replica 0 now computes 60 tokens and holds 10 blocks of 1 request; 95 more tokens
        // begin 10 blocks: 2 * (60 + 95) / 10 + 10 + 10 + 3 against 2 * 9.5 + 10.
        let second = request(1, 95, &[]);
        let (to, scores) = decide(&mut router, &second, &fleet, &[0, 0], &mut rng);
        assert_eq!((to, scores), (1, vec![-54.0, -29.0]));
        let mut costs = |router: &mut KvRouter, feedback| {
            router.observe(&first, ReplicaId(0), feedback, SimTime::ZERO);
            let probe = request(2, 10, &[]);
            let (to, scores) = decide(router, &probe, &fleet, &[0, 0], &mut rng);
            // The probe leaves at once, so that only the first request's state counts.
            router.observe(&probe, ReplicaId(to), Feedback::Failed, SimTime::ZERO);
            scores[0]
        };
        // Its prompt is computed: its blocks and itself remain. Then it is gone, and hearing
        // of it again changes nothing.
        assert_eq!(
            costs(&mut router, Feedback::FirstToken),
            -(2.0 + 11.0 + 3.0)
        );
        assert_eq!(costs(&mut router, Feedback::Finished), -3.0);
        assert_eq!(costs(&mut router, Feedback::Finished), -3.0);
        assert_eq!(
            router.requests.len(),
            1,
            "the second request is still active"
        );
    }

    #[test]
    fn a_temperature_draws_by_the_scaled_costs() {
        // Scaled by their spread, the two costs differ by 1: the cheaper one is drawn with
        // probability 1 / (1 + exp(-1 / T)). 20,000 draws have a standard error below 0.0036.
        let fleet = [replica(0, Shown::default()), replica(1, Shown::default())];
        for temperature in [0.5, 1.0, 4.0] {
            let mut rng = Rng::from_seed(5);
            let mut cheaper = 0;
            let mut router = router(temperature);
            for id in 0..20_000 {
                let asked = request(id, 100, &[]);
                let (to, _) = decide(&mut router, &asked, &fleet, &[0, 50], &mut rng);
                router.observe(&asked, ReplicaId(to), Feedback::Finished, SimTime::ZERO);
                cheaper += to;
            }
            let expected = 1.0 / (1.0 + libm::exp(-1.0 / temperature));
            let share = f64::from(cheaper) / 20_000.0;
            assert!((share - expected).abs() < 0.0144, "{share} for {expected}");
        }
    }

    #[test]
    fn ties_are_drawn() {
        let fleet = [replica(0, Shown::default()), replica(1, Shown::default())];
        let mut rng = Rng::from_seed(5);
        let mut seen = [0_u32; 2];
        for id in 0..1000 {
            let mut router = router(0.0);
            let (to, _) = decide(&mut router, &request(id, 9, &[]), &fleet, &[], &mut rng);
            seen[to as usize] += 1;
        }
        assert!(
            seen.iter().all(|&n| n > 420),
            "five standard errors: {seen:?}"
        );
    }
}
