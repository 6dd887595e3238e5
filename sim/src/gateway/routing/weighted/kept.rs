//! Totals kept between decisions. What a replica scores without regard to the request changes
//! with its statistics only, so the replicas are kept in the order of that total; those of which
//! a request's prefix or conversation is known can only score more, and are looked at one by one.
//! Sums are made in the same order as for a decision from scratch, so they are the same to the
//! last bit.

use super::{Weighted, count_of, own_score};
use crate::gateway::routing::order::Order;
use crate::gateway::routing::ties;
use crate::view::{FleetView, News, PolicyCx, ReplicaView};
use windtunnel_engine::engine::EngineStats;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::{FilterSpec, PickerKind, ScorerKind};

/// Replicas by their total without regard to the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// By complement of the total's bits: totals are not negative, so the greatest comes first.
    order: Order,
    /// Statistics that the order was made from, by place.
    seen: Vec<EngineStats>,
    /// Least and most of what each scorer counts.
    ranges: Vec<(u32, u32)>,
    /// Replicas as good as the best of the order, though not by it.
    others: Vec<u32>,
}

impl Kept {
    /// Empty, if an order can be kept for such a policy.
    pub(super) fn for_parts(
        filters: &[FilterSpec],
        scorers: &[(ScorerKind, f64)],
        picker: PickerKind,
    ) -> Option<Self> {
        let all_known = scorers.iter().all(|&(kind, weight)| {
            let known = matches!(
                kind,
                ScorerKind::QueueDepth
                    | ScorerKind::Running
                    | ScorerKind::VllmDp
                    | ScorerKind::KvUtilization
                    | ScorerKind::LoadAware
                    | ScorerKind::LoadBalance
                    | ScorerKind::PrefixCache
                    | ScorerKind::SessionAffinity
            );
            known && weight > 0.0
        });
        let fits = filters.is_empty() && picker != PickerKind::WeightedRandom && all_known;
        fits.then(Self::default)
    }

    /// Whether the order was made from these statistics.
    fn still_holds(&self, fleet: &FleetView<'_>) -> bool {
        let News::Only(changed) = fleet.news else {
            return false;
        };
        let same = |place: usize| {
            let seen = self.seen.get(place);
            seen.is_some_and(|seen| *seen == fleet.replicas[place].stats.value)
        };
        self.seen.len() == fleet.replicas.len() && changed.iter().all(|id| same(id.index()))
    }

    fn look_again(&mut self, scorers: &[(ScorerKind, f64)], fleet: &FleetView<'_>) {
        let stats = fleet.replicas.iter().map(|r| r.stats.value);
        self.seen.clear();
        self.seen.extend(stats);
        self.ranges.clear();
        for &(kind, _) in scorers {
            let mut range = (u32::MAX, 0);
            if let Some(count) = count_of(kind) {
                for n in fleet.replicas.iter().map(count) {
                    range = (range.0.min(n), range.1.max(n));
                }
            }
            self.ranges.push(range);
        }
    }
}

/// A replica's total, where `of_request` says what prefixes and conversations score.
fn total(
    scorers: &[(ScorerKind, f64)],
    ranges: &[(u32, u32)],
    replica: &ReplicaView,
    of_request: impl Fn(ScorerKind) -> f64,
) -> f64 {
    let mut total = 0.0;
    for (&(kind, weight), &(least, most)) in scorers.iter().zip(ranges) {
        let score = match (kind, count_of(kind)) {
            (_, Some(_)) if most == least => 1.0,
            (_, Some(count)) => f64::from(most - count(replica)) / f64::from(most - least),
            (ScorerKind::PrefixCache | ScorerKind::SessionAffinity, None) => of_request(kind),
            _ => own_score(kind, replica),
        };
        total += weight * score;
    }
    total
}

impl Weighted {
    /// The place to choose, by the order that is kept; none if every replica has to be looked at.
    pub(super) fn by_order(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Option<usize> {
        let kept = self.kept.as_mut()?;
        let scorers = &self.scorers;
        let holds = kept.still_holds(fleet);
        if fleet.news == News::Everything {
            kept.seen.clear();
        } else if !holds {
            kept.look_again(scorers, fleet);
        }
        let ranges = &kept.ranges;
        let base = |r: &ReplicaView| !total(scorers, ranges, r, |_| 0.0).to_bits();
        if !kept.order.follow(fleet, holds, base) || cx.scores.is_some() {
            return None;
        }
        let (least, ties) = kept.order.least();
        let mut best = f64::from_bits(!least);
        kept.others.clear();
        let mut by_order = true;
        self.sources.known(request, |id| {
            let replica = &fleet.replicas[id.index()];
            let total = total(scorers, ranges, replica, |kind| match kind {
                ScorerKind::PrefixCache => self.sources.routed_share(request, id),
                _ => f64::from(u8::from(self.sources.home(request.session) == Some(id))),
            });
            if total > best {
                best = total;
                by_order = false;
                kept.others.clear();
            }
            // Who stands first in the order too is counted there.
            if total == best && !(by_order && kept.order.key(id.index()) == least) {
                kept.others.push(id.0);
            }
        });
        kept.others.sort_unstable();
        kept.others.dedup();
        let ties = kept.others.len() + if by_order { ties } else { 0 };
        let rank = match self.picker {
            PickerKind::MaxScoreGoRandomTie => self.go_ties.as_mut().map_or(0, |go| go.nth(ties)),
            PickerKind::MaxScoreRandomTie => ties::nth(cx, ties),
            PickerKind::MaxScore | PickerKind::WeightedRandom => 0,
        };
        Some(if by_order {
            kept.order.place_among(rank, &kept.others)
        } else {
            kept.others[rank] as usize
        })
    }
}
