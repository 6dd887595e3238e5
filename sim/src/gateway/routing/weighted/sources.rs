//! What filters and scorers read, looked up once per decision and only if somebody asks.

use crate::gateway::prefix_index::{Found, RoutedIndex, RoutedLimits};
use crate::gateway::routing::session::Affinity;
use crate::gateway::routing::width;
use crate::view::{FleetView, ReplicaView};
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::{FilterSpec, PrefixIndexSpec, ScorerKind};

/// How long a conversation's replica is remembered.
const AFFINITY_IDLE: SimDuration = SimDuration::from_secs(4 * 3600);

/// Caches, conversations, and who last had a cold request. Those who need to know what is cached
/// without saying how (`longest_prefix`, `no_hit_lru`) follow the replicas' reports if the
/// precise scorer is there, else what was routed.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    index: Option<RoutedIndex>,
    precise: bool,
    block_tokens: u32,
    max_blocks: u32,
    affinity: Option<Affinity>,
    cold: Option<ColdOrder>,
    /// Blocks of the prompt routed to each replica.
    routed: Found,
    /// Cached tokens by replica id, as reported.
    reported: Vec<u32>,
}

impl Sources {
    pub(super) fn new(
        filters: &[FilterSpec],
        scorers: &[(ScorerKind, f64)],
        spec: &PrefixIndexSpec,
    ) -> Self {
        let has = |kind| scorers.iter().any(|&(k, _)| k == kind);
        let precise = has(ScorerKind::PrecisePrefixCache) || has(ScorerKind::PrecisePrefixRank);
        let longest = filters
            .iter()
            .any(|f| matches!(f, FilterSpec::LongestPrefix { .. }));
        let either = longest || has(ScorerKind::NoHitLru);
        let block_tokens = spec.block_tokens.max(1);
        let index = (has(ScorerKind::PrefixCache) || (either && !precise)).then(|| {
            RoutedIndex::new(RoutedLimits {
                block_tokens,
                max_blocks: spec.max_blocks,
                capacity_blocks: spec.capacity_blocks,
                max_entries: u32::MAX,
                ttl: None,
            })
            .forgetting(spec.forget)
        });
        Self {
            index,
            precise,
            block_tokens,
            max_blocks: spec.max_blocks,
            affinity: has(ScorerKind::SessionAffinity).then(|| Affinity::new(AFFINITY_IDLE)),
            cold: has(ScorerKind::NoHitLru).then(ColdOrder::default),
            routed: Found::default(),
            reported: Vec::new(),
        }
    }

    /// Whether the replicas' reports are read.
    pub(super) const fn reads_reports(&self) -> bool {
        self.precise
    }

    /// A replica has lost all that it had: what was routed there, and its conversations.
    pub(super) fn forget(&mut self, replica: ReplicaId) {
        if let Some(index) = &mut self.index {
            index.forget(replica);
        }
        if let Some(affinity) = &mut self.affinity {
            affinity.forget(replica);
        }
    }

    /// Reads everything that is asked for.
    pub(super) fn look_up(&mut self, request: &RequestView<'_>, fleet: &FleetView<'_>) {
        let width = width(fleet);
        if let Some(index) = &mut self.index {
            index.find(request, fleet.now, width, &mut self.routed);
        }
        if self.precise {
            self.reported.clear();
            fleet.cache.cached_tokens(request, &mut self.reported);
            self.reported.resize(width.max(self.reported.len()), 0);
        }
        if let Some(affinity) = &mut self.affinity {
            affinity.expire(fleet.now);
        }
        if let Some(cold) = &mut self.cold {
            let cached = |r: &ReplicaView| match self.precise {
                true => self.reported[r.id.index()],
                false => self.routed.at(r.id),
            };
            cold.rank(fleet, fleet.replicas.iter().any(|r| cached(r) > 0));
        }
    }

    /// Tokens of the prompt cached at a replica, from the better of the sources there are.
    pub(super) fn cached(&self, replica: ReplicaId) -> u32 {
        if self.precise {
            self.reported[replica.index()]
        } else {
            self.routed.at(replica) * self.block_tokens
        }
    }

    /// Share of the prompt's whole blocks that was routed to a replica.
    pub(super) fn routed_share(&self, request: &RequestView<'_>, replica: ReplicaId) -> f64 {
        self.share(request, self.routed.at(replica))
    }

    /// Calls `look` for each replica that may score more than others by the request's prefix or
    /// conversation, perhaps twice for one.
    pub(super) fn known(&self, request: &RequestView<'_>, mut look: impl FnMut(ReplicaId)) {
        for &replica in self.routed.replicas() {
            look(ReplicaId(replica));
        }
        if let Some(home) = self.home(request.session) {
            look(home);
        }
    }

    /// Share of the prompt's whole blocks that a replica reported.
    pub(super) fn reported_share(&self, request: &RequestView<'_>, replica: ReplicaId) -> f64 {
        let blocks = self.reported[replica.index()] / self.block_tokens;
        self.share(request, blocks)
    }

    /// Whole blocks that a replica reported of the prompt.
    pub(super) fn reported_blocks(&self, replica: ReplicaId) -> u32 {
        self.reported[replica.index()] / self.block_tokens
    }

    fn share(&self, request: &RequestView<'_>, found: u32) -> f64 {
        let blocks = (request.prompt_tokens / self.block_tokens).min(self.max_blocks);
        if blocks == 0 {
            return 0.0;
        }
        (f64::from(found) / f64::from(blocks)).min(1.0)
    }

    /// The replica of the conversation's last request.
    pub(super) fn home(&self, session: u64) -> Option<ReplicaId> {
        self.affinity.as_ref()?.get(session)
    }

    /// 1 for the replica that had a cold request longest ago, down to 0 for the last one; one
    /// half for all if this request is not cold.
    pub(super) fn coldness(&self, replica: ReplicaId) -> f64 {
        self.cold
            .as_ref()
            .map_or(0.5, |c| c.scores[replica.index()])
    }

    /// Learns where a request went.
    pub(super) fn sent(&mut self, request: &RequestView<'_>, replica: ReplicaId, now: SimTime) {
        if let Some(index) = &mut self.index {
            index.insert(request, replica, now);
        }
        if let Some(affinity) = &mut self.affinity {
            affinity.put(request.session, replica, now);
        }
        if let Some(cold) = &mut self.cold {
            cold.sent(replica);
        }
    }
}

/// Who had a request without any cached prefix, in order (llm-d `no-hit-lru-scorer`).
#[derive(Clone, Debug, Default)]
struct ColdOrder {
    /// The number of each replica's last cold request, by id; zero if it never had one.
    last: Vec<u64>,
    given: u64,
    warm: bool,
    scores: Vec<f64>,
    ranks: Vec<(u64, u32)>,
}

impl ColdOrder {
    fn rank(&mut self, fleet: &FleetView<'_>, warm: bool) {
        let width = width(fleet);
        if self.last.len() < width {
            self.last.resize(width, 0);
        }
        self.warm = warm;
        self.scores.clear();
        self.scores.resize(width, 0.5);
        if warm {
            return;
        }
        self.ranks.clear();
        let ranks = fleet
            .replicas
            .iter()
            .map(|r| (self.last[r.id.index()], r.id.0));
        self.ranks.extend(ranks);
        self.ranks.sort_unstable();
        let steps = (self.ranks.len().max(2) - 1) as f64;
        let mut first_alike = 0;
        for (rank, &(last, id)) in self.ranks.iter().enumerate() {
            // Those that never had one are alike.
            if last > 0 {
                first_alike = rank;
            }
            self.scores[id as usize] = 1.0 - first_alike as f64 / steps;
        }
    }

    fn sent(&mut self, replica: ReplicaId) {
        if !self.warm {
            self.given += 1;
            self.last[replica.index()] = self.given;
        }
    }
}
