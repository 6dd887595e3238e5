//! What shipped systems are made of. A preset is data: one of the general policies with the
//! parameters that the system ships, and how often it reads its replicas' statistics.

use crate::schema::policies::{
    LoadSignal, PickerKind, PrefixIndexSpec, RoutingSpec, ScorerKind, TieBreak,
};
use std::collections::BTreeMap;
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;

/// The general policy behind a preset, and the period at which the system reads telemetry
/// (none if it reads none, or if `spec` is no preset). A specification that is no preset comes
/// back unchanged.
pub fn expand(spec: &RoutingSpec) -> (RoutingSpec, Option<Span>) {
    let period = |millis| Some(Span(SimDuration::from_millis(millis)));
    match spec {
        // Command line of the SGLang gateway; it counts loads itself.
        RoutingSpec::SglangGateway => (
            RoutingSpec::CacheAware {
                cache_threshold: 0.3,
                balance_abs_threshold: 64,
                balance_rel_threshold: 1.5,
                max_tree_tokens: 67_108_864,
                // It bounds tokens alone.
                max_tree_nodes: u32::MAX,
                min_match_tokens: 0,
                load: LoadSignal::InFlight,
            },
            None,
        ),
        // Default scheduling profile of the endpoint picker, which scrapes every 50 ms.
        RoutingSpec::Gie => (
            weighted(&[
                (ScorerKind::QueueDepth, 2.0),
                (ScorerKind::KvUtilization, 2.0),
                (ScorerKind::PrefixCache, 3.0),
            ]),
            period(50),
        ),
        // The endpoint picker with the precise prefix scorer and load by llm-d's own scorer.
        RoutingSpec::LlmD => (
            weighted(&[
                (ScorerKind::LoadAware, 2.0),
                (ScorerKind::KvUtilization, 2.0),
                (ScorerKind::PrecisePrefixCache, 3.0),
            ]),
            period(50),
        ),
        // Defaults of its KV router; it counts loads itself and follows cache events.
        RoutingSpec::Dynamo => (
            RoutingSpec::KvRouter {
                overlap_score_credit: 1.0,
                prefill_load_scale: 1.0,
                decode_active_request_weight: 0.0,
                temperature: 0.0,
                use_kv_events: true,
                ttl: Span(SimDuration::from_secs(120)),
            },
            None,
        ),
        RoutingSpec::VllmDp => (
            RoutingSpec::LeastLoaded {
                load: LoadSignal::VllmDp,
                ties: TieBreak::LowestId,
            },
            period(100),
        ),
        _ => (spec.clone(), None),
    }
}

fn weighted(scorers: &[(ScorerKind, f64)]) -> RoutingSpec {
    RoutingSpec::Weighted {
        filters: Vec::new(),
        scorers: scorers.iter().copied().collect::<BTreeMap<_, _>>(),
        picker: PickerKind::MaxScoreRandomTie,
        prefix_index: PrefixIndexSpec::default(),
        normalize: false,
        order: Vec::new(),
    }
}
