//! Requests and fleets for the tests of the gateway.

use crate::view::{
    CacheView, FleetView, News, Observed, PolicyCx, ReplicaView, Route, RoutingPolicy,
};
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, ReplicaId, RequestId, TenantId};
use windtunnel_base::rng::Rng;
use windtunnel_base::time::SimTime;
use windtunnel_engine::engine::EngineStats;
use windtunnel_engine::request::RequestView;

/// A request with a conversation of its own.
pub(crate) fn request(id: u32, prompt_tokens: u32, prefix: &[Extent]) -> RequestView<'_> {
    RequestView {
        id: RequestId(id),
        sent_at: SimTime::ZERO,
        deadline: None,
        prompt_tokens,
        max_output_tokens: None,
        predicted_output_tokens: None,
        tenant: TenantId(0),
        class: ClassId(0),
        priority: 0,
        session: u64::from(id),
        prefix,
    }
}

/// Cached tokens by replica id, whatever is asked.
pub(crate) struct Cached(pub(crate) Vec<u32>);

impl CacheView for Cached {
    fn cached_tokens(&self, _: &RequestView<'_>, tokens: &mut Vec<u32>) {
        tokens.clear();
        tokens.extend_from_slice(&self.0);
    }
}

/// What a replica shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) in_flight: u32,
    pub(crate) in_flight_tokens: u64,
    pub(crate) total_tokens: u64,
    pub(crate) waiting: u32,
    pub(crate) running: u32,
    /// Of 1,000 blocks.
    pub(crate) kv_held: u64,
}

/// A replica that shows this, read at time zero.
pub(crate) fn replica(id: u32, shown: Shown) -> ReplicaView {
    ReplicaView {
        id: ReplicaId(id),
        stats: Observed {
            value: EngineStats {
                running: shown.running,
                waiting: shown.waiting,
                kv_held: shown.kv_held,
                kv_total: 1000,
                ..EngineStats::default()
            },
            read_at: SimTime::ZERO,
        },
        in_flight: shown.in_flight,
        in_flight_tokens: shown.in_flight_tokens,
        total_tokens: shown.total_tokens,
    }
}

/// One decision, with the scores behind it.
pub(crate) fn decide(
    policy: &mut dyn RoutingPolicy,
    request: &RequestView<'_>,
    replicas: &[ReplicaView],
    cached: &[u32],
    rng: &mut Rng,
) -> (u32, Vec<f64>) {
    let cache = Cached(cached.to_vec());
    let fleet = FleetView {
        now: SimTime::ZERO,
        replicas,
        cache: &cache,
        news: News::Everything,
    };
    let mut scores = Vec::new();
    let mut cx = PolicyCx {
        rng,
        scores: Some(&mut scores),
    };
    match policy.route(request, &fleet, &mut cx) {
        Route::To(id) => (id.0, scores),
        Route::Refuse(reason) => panic!("refused: {reason:?}"),
    }
}
