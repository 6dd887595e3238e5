//! Filters, then a sum of weighted scores, then a picker (gateway API inference extension,
//! llm-d, BLIS).

/// What filters and scorers read.
mod sources;
/// Totals that are kept between decisions.
mod kept;

use crate::gateway::routing::note;
use crate::gateway::routing::ties::{self, GoTies};
use crate::view::{FleetView, PolicyCx, ReplicaView, Route, RoutingPolicy, Signals};
use kept::Kept;
use sources::Sources;
use std::collections::BTreeMap;
use windtunnel_base::ids::ReplicaId;
use windtunnel_engine::engine::EngineStats;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::{FilterSpec, PickerKind, PrefixIndexSpec, ScorerKind};

/// Waiting requests at which the load-aware scorer reaches zero (llm-d).
const LOAD_AWARE_CAP: f64 = 128.0;

/// What the policy is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) filters: &'a [FilterSpec],
    pub(super) scorers: &'a BTreeMap<ScorerKind, f64>,
    pub(super) picker: PickerKind,
    pub(super) prefix_index: &'a PrefixIndexSpec,
    pub(super) normalize: bool,
    pub(super) order: &'a [ScorerKind],
}

/// The policy. Filters apply one after the other; one that would leave nobody is skipped.
/// Scores are scaled among the replicas left. Scorers of weight zero are dropped at construction
/// and cost nothing.
#[derive(Clone, Debug)]
pub(super) struct Weighted {
    filters: Vec<FilterSpec>,
    scorers: Vec<(ScorerKind, f64)>,
    picker: PickerKind,
    go_ties: Option<GoTies>,
    sources: Sources,
    /// By place in view: left after the filters, and the sum of scores (minus infinity for
    /// those left out).
    left: Vec<bool>,
    totals: Vec<f64>,
    /// Totals that do not depend on the request, where such an order can be kept.
    kept: Option<Kept>,
}

impl Weighted {
    pub(super) fn new(parts: &Parts<'_>, seed: u64) -> Self {
        let all = || parts.scorers.iter().map(|(&kind, &weight)| (kind, weight));
        let rank = |kind| parts.order.iter().position(|&k| k == kind);
        // As they stand in the list, after those whose order is said.
        let mut scorers: Vec<_> = all().filter(|&(_, weight)| weight != 0.0).collect();
        scorers.sort_by_key(|&(kind, _)| rank(kind).unwrap_or(usize::MAX));
        if parts.normalize {
            let sum = scorers.iter().fold(0.0, |sum, (_, weight)| sum + weight);
            scorers.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        let go_ties = parts.picker == PickerKind::MaxScoreGoRandomTie;
        Self {
            sources: Sources::new(parts.filters, &scorers, parts.prefix_index),
            kept: Kept::for_parts(parts.filters, &scorers, parts.picker),
            filters: parts.filters.to_vec(),
            scorers,
            picker: parts.picker,
            go_ties: go_ties.then(|| GoTies::new(seed)),
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
            if let Some(count) = count_of(kind) {
                add_scaled(total, weight, fleet, true, count);
                continue;
            }
            match kind {
                ScorerKind::IdleFirst => add_idle_first(total, weight, fleet),
                ScorerKind::PrecisePrefixRank => {
                    let blocks = |r: &ReplicaView| sources.reported_blocks(r.id);
                    add_scaled(total, weight, fleet, false, blocks);
                }
                ScorerKind::SessionAffinity => {
                    let home = sources.home(request.session);
                    add(total, weight, fleet, |r| {
                        f64::from(u8::from(home == Some(r.id)))
                    });
                }
                ScorerKind::NoHitLru => {
                    add(total, weight, fleet, |r| sources.coldness(r.id));
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
                _ => add(total, weight, fleet, |r| own_score(kind, r)),
            }
        }
    }

    /// A place among those left.
    fn pick(&mut self, cx: &mut PolicyCx<'_>) -> usize {
        let best = self
            .totals
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        match self.picker {
            PickerKind::MaxScore => self.totals.iter().position(|&t| t >= best).unwrap_or(0),
            PickerKind::MaxScoreRandomTie => pick_among(cx, &self.totals, |t| t >= best),
            PickerKind::MaxScoreGoRandomTie => {
                let ties = self.totals.iter().filter(|&&t| t >= best).count();
                let rank = self.go_ties.as_mut().map_or(0, |go| go.nth(ties));
                nth_where(&self.totals, rank, |t| t >= best)
            }
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

/// One of the places whose value is among the best, all alike; draws only if there are several.
pub(super) fn pick_among(
    cx: &mut PolicyCx<'_>,
    values: &[f64],
    best: impl Fn(f64) -> bool,
) -> usize {
    let ties = values.iter().filter(|&&v| best(v)).count();
    nth_where(values, ties::nth(cx, ties), best)
}

fn nth_where(values: &[f64], rank: usize, holds: impl Fn(f64) -> bool) -> usize {
    let mut tied = values.iter().enumerate().filter(|&(_, &v)| holds(v));
    tied.nth(rank).map_or(0, |(place, _)| place)
}

/// What a scorer counts, of those that score the fewest best.
fn count_of(kind: ScorerKind) -> Option<fn(&ReplicaView) -> u32> {
    match kind {
        ScorerKind::QueueDepth => Some(|r| r.stats.value.waiting),
        ScorerKind::Running => Some(|r| r.stats.value.running),
        ScorerKind::ActiveRequest => Some(|r| r.in_flight),
        ScorerKind::VllmDp => Some(|r| {
            let stats = &r.stats.value;
            stats
                .waiting
                .saturating_mul(4)
                .saturating_add(stats.running)
        }),
        _ => None,
    }
}

/// The score that a replica has by its own state alone; zero for the scorers that need more.
fn own_score(kind: ScorerKind, replica: &ReplicaView) -> f64 {
    let stats = &replica.stats.value;
    match kind {
        ScorerKind::KvUtilization => 1.0 - kv_share(stats),
        ScorerKind::LoadAware => {
            let waiting = f64::from(stats.waiting).min(LOAD_AWARE_CAP);
            0.5 * (1.0 - waiting / LOAD_AWARE_CAP)
        }
        ScorerKind::LoadBalance => {
            let load =
                u64::from(stats.waiting) + u64::from(stats.running) + u64::from(replica.in_flight);
            1.0 / (1.0 + load as f64)
        }
        _ => 0.0,
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

/// The place of a count between the least and the most among those left, 1 for all if equal: 1 for
/// the least if `fewest`, else 1 for the most.
fn add_scaled(
    totals: &mut [f64],
    weight: f64,
    fleet: &FleetView<'_>,
    fewest: bool,
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
        let n = count(replica);
        if most == least {
            1.0
        } else {
            let from_worst = if fewest { most - n } else { n - least };
            f64::from(from_worst) / f64::from(most - least)
        }
    });
}

/// 1 where nothing is in flight, else `(max - n) / max` among those left.
fn add_idle_first(totals: &mut [f64], weight: f64, fleet: &FleetView<'_>) {
    let among = totals.iter().zip(fleet.replicas);
    let left = among.filter(|(total, _)| **total > f64::NEG_INFINITY);
    let most = left.map(|(_, r)| r.in_flight).max().unwrap_or(0);
    add(totals, weight, fleet, |replica| {
        if replica.in_flight == 0 {
            1.0
        } else {
            f64::from(most - replica.in_flight) / f64::from(most)
        }
    });
}

impl RoutingPolicy for Weighted {
    fn signals(&self) -> Signals {
        let by_filter = self
            .filters
            .iter()
            .any(|f| !matches!(f, FilterSpec::LongestPrefix { .. }));
        let memory_by_filter = self
            .filters
            .iter()
            .any(|f| matches!(f, FilterSpec::MaxKvUtilization { .. }));
        let scores =
            |kinds: &[ScorerKind]| self.scorers.iter().any(|(kind, _)| kinds.contains(kind));
        let by_scorer = scores(&[
            ScorerKind::QueueDepth,
            ScorerKind::KvUtilization,
            ScorerKind::LoadAware,
            ScorerKind::Running,
            ScorerKind::LoadBalance,
            ScorerKind::VllmDp,
        ]);
        Signals {
            stats: by_filter || by_scorer,
            passing: memory_by_filter || scores(&[ScorerKind::KvUtilization]),
            cache: self.sources.reads_reports(),
        }
    }

    fn forget(&mut self, replica: ReplicaId) {
        self.sources.forget(replica);
    }

    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route {
        self.sources.look_up(request, fleet);
        let place = match self.by_order(request, fleet, cx) {
            Some(place) => place,
            None => {
                self.filter(fleet);
                self.score(request, fleet);
                note(cx, fleet, |place, _| self.totals[place]);
                self.pick(cx)
            }
        };
        let id = fleet.replicas[place].id;
        self.sources.sent(request, id, fleet.now);
        Route::To(id)
    }
}
