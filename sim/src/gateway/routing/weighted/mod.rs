//! Filters, then a sum of weighted scores, then a picker (gateway API inference extension,
//! llm-d, BLIS).

/// What filters and scorers read.
mod sources;

use crate::gateway::routing::kv_router::pick_among;
use crate::gateway::routing::note;
use crate::view::{FleetView, PolicyCx, ReplicaView, Route, RoutingPolicy, Signals};
use sources::Sources;
use std::collections::BTreeMap;
use windtunnel_engine::engine::EngineStats;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::{FilterSpec, PickerKind, PrefixIndexSpec, ScorerKind};

/// Waiting requests at which the load-aware scorer reaches zero (llm-d).
const LOAD_AWARE_CAP: f64 = 128.0;

/// The policy. Filters apply one after the other; one that would leave nobody is skipped.
/// Scores are scaled among the replicas left. Scorers of weight zero are dropped at construction
/// and cost nothing.
#[derive(Clone, Debug)]
pub(super) struct Weighted {
    filters: Vec<FilterSpec>,
    scorers: Vec<(ScorerKind, f64)>,
    picker: PickerKind,
    sources: Sources,
    /// By place in view: left after the filters, and the sum of scores (minus infinity for
    /// those left out).
    left: Vec<bool>,
    totals: Vec<f64>,
}

impl Weighted {
    pub(super) fn new(
        filters: &[FilterSpec],
        scorers: &BTreeMap<ScorerKind, f64>,
        picker: PickerKind,
        prefix_index: &PrefixIndexSpec,
    ) -> Self {
        let scorers: Vec<_> = scorers
            .iter()
            .map(|(&kind, &weight)| (kind, weight))
            .filter(|&(_, weight)| weight != 0.0)
            .collect();
        Self {
            sources: Sources::new(filters, &scorers, prefix_index),
            filters: filters.to_vec(),
            scorers,
            picker,
            left: Vec::new(),
            totals: Vec::new(),
        }
    }

    fn filter(&mut self, fleet: &FleetView<'_>) {
        self.left.clear();
        self.left.resize(fleet.replicas.len(), true);
        for filter in &self.filters {
            let bound = bound_of(filter, fleet, &self.left, &self.sources);
            let passes = |replica: &ReplicaView| match filter {
                FilterSpec::MaxWaiting { .. } | FilterSpec::LeastWaiting => {
                    replica.stats.value.waiting <= bound
                }
                FilterSpec::MaxKvUtilization { limit } => kv_share(&replica.stats.value) <= *limit,
                FilterSpec::LongestPrefix { .. } => self.sources.cached(replica.id) >= bound,
            };
            let mut pairs = fleet.replicas.iter().zip(&self.left);
            if pairs.any(|(replica, &left)| left && passes(replica)) {
                for (replica, left) in fleet.replicas.iter().zip(&mut self.left) {
                    *left &= passes(replica);
                }
            }
        }
    }

    fn score(&mut self, request: &RequestView<'_>, fleet: &FleetView<'_>) {
        self.totals.clear();
        let start = |&left: &bool| if left { 0.0 } else { f64::NEG_INFINITY };
        self.totals.extend(self.left.iter().map(start));
        for &(kind, weight) in &self.scorers {
            let sources = &self.sources;
            let total = &mut self.totals;
            match kind {
                ScorerKind::QueueDepth => {
                    add_fewest(total, weight, fleet, |r| r.stats.value.waiting);
                }
                ScorerKind::Running => add_fewest(total, weight, fleet, |r| r.stats.value.running),
                ScorerKind::ActiveRequest => add_fewest(total, weight, fleet, |r| r.in_flight),
                ScorerKind::KvUtilization => {
                    add(total, weight, fleet, |r| 1.0 - kv_share(&r.stats.value));
                }
                ScorerKind::PrefixCache => {
                    add(total, weight, fleet, |r| {
                        sources.routed_share(request, r.id)
                    });
                }
                ScorerKind::PrecisePrefixCache => {
                    add(total, weight, fleet, |r| {
                        sources.reported_share(request, r.id)
                    });
                }
                ScorerKind::LoadAware => add(total, weight, fleet, |r| {
                    let waiting = f64::from(r.stats.value.waiting).min(LOAD_AWARE_CAP);
                    0.5 * (1.0 - waiting / LOAD_AWARE_CAP)
                }),
                ScorerKind::SessionAffinity => {
                    let home = sources.home(request.session);
                    add(total, weight, fleet, |r| {
                        f64::from(u8::from(home == Some(r.id)))
                    });
                }
                ScorerKind::NoHitLru => {
                    add(total, weight, fleet, |r| sources.coldness(r.id));
                }
            }
        }
    }

    /// A place among those left.
    fn pick(&self, cx: &mut PolicyCx<'_>) -> usize {
        let best = self
            .totals
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        match self.picker {
            PickerKind::MaxScore => self.totals.iter().position(|&t| t >= best).unwrap_or(0),
            PickerKind::MaxScoreRandomTie => pick_among(cx, &self.totals, |t| t >= best),
            PickerKind::WeightedRandom => {
                let total: f64 = self.totals.iter().map(|t| t.max(0.0)).sum();
                if total <= 0.0 {
                    // Nobody scores: all that are left are alike.
                    return pick_among(cx, &self.totals, |t| t > f64::NEG_INFINITY);
                }
                let mut rest = cx.rng.f64() * total;
                let mut last = 0;
                for (place, score) in self.totals.iter().enumerate() {
                    if *score > 0.0 {
                        last = place;
                        rest -= score;
                        if rest < 0.0 {
                            break;
                        }
                    }
                }
                last
            }
        }
    }
}

/// Share of KV blocks held; zero where there is no KV.
fn kv_share(stats: &EngineStats) -> f64 {
    stats.kv_held as f64 / stats.kv_total.max(1) as f64
}

/// What a filter compares with: the most that may wait, or the fewest tokens cached.
fn bound_of(filter: &FilterSpec, fleet: &FleetView<'_>, left: &[bool], sources: &Sources) -> u32 {
    let among = fleet.replicas.iter().zip(left).filter(|&(_, &left)| left);
    match filter {
        FilterSpec::MaxWaiting { limit } => *limit,
        FilterSpec::MaxKvUtilization { .. } => 0,
        FilterSpec::LeastWaiting => among
            .map(|(r, _)| r.stats.value.waiting)
            .min()
            .unwrap_or(u32::MAX),
        FilterSpec::LongestPrefix { within_tokens } => among
            .map(|(r, _)| sources.cached(r.id))
            .max()
            .map_or(0, |longest| longest.saturating_sub(*within_tokens)),
    }
}

fn add(
    totals: &mut [f64],
    weight: f64,
    fleet: &FleetView<'_>,
    score: impl Fn(&ReplicaView) -> f64,
) {
    for (total, replica) in totals.iter_mut().zip(fleet.replicas) {
        if *total > f64::NEG_INFINITY {
            *total += weight * score(replica);
        }
    }
}

/// `(max - n) / (max - min)` among those left, 1 for all if equal.
fn add_fewest(
    totals: &mut [f64],
    weight: f64,
    fleet: &FleetView<'_>,
    count: impl Fn(&ReplicaView) -> u32,
) {
    let (mut least, mut most) = (u32::MAX, 0);
    for (total, replica) in totals.iter().zip(fleet.replicas) {
        if *total > f64::NEG_INFINITY {
            least = least.min(count(replica));
            most = most.max(count(replica));
        }
    }
    add(totals, weight, fleet, |replica| {
        if most == least {
            1.0
        } else {
            f64::from(most - count(replica)) / f64::from(most - least)
        }
    });
}

impl RoutingPolicy for Weighted {
    fn signals(&self) -> Signals {
        let by_filter = self
            .filters
            .iter()
            .any(|f| !matches!(f, FilterSpec::LongestPrefix { .. }));
        let by_scorer = self.scorers.iter().any(|&(kind, _)| {
            matches!(
                kind,
                ScorerKind::QueueDepth
                    | ScorerKind::KvUtilization
                    | ScorerKind::LoadAware
                    | ScorerKind::Running
            )
        });
        Signals {
            stats: by_filter || by_scorer,
            cache: self.sources.reads_reports(),
        }
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        self.sources.look_up(request, fleet);
        self.filter(fleet);
        self.score(request, fleet);
        note(cx, fleet, |place, _| self.totals[place]);
        let id = fleet.replicas[self.pick(cx)].id;
        self.sources.sent(request, id, fleet.now);
        Route::To(id)
    }
}
