//! What policies see. The types are the boundary: nothing here holds hidden truth, and telemetry
//! carries its age.

use windtunnel_base::ids::ReplicaId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::rng::Rng;
use windtunnel_base::time::SimTime;
use windtunnel_engine::engine::EngineStats;
use windtunnel_engine::request::RequestView;
use windtunnel_ledger::state_store::IndexTotals;

/// A reading, and when it was taken: telemetry is scraped, so it can be stale.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed<T> {
    /// What was read.
    pub value: T,
    /// When it was true.
    pub read_at: SimTime,
}

/// One routable replica, as the gateway sees it.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaView {
    /// Which one.
    pub id: ReplicaId,
    /// The last scrape; all zero if the policy did not ask for [`Signals::stats`].
    pub stats: Observed<EngineStats>,
    /// Requests sent by the gateway and not yet answered. Exact: the gateway counts it itself.
    pub in_flight: u32,
    /// Prompt tokens of those. Exact likewise.
    pub in_flight_tokens: u64,
    /// All tokens ever sent: prompts, and outputs as predicted. Exact likewise.
    pub total_tokens: u64,
}

/// How much of a prompt is found at each replica, in blocks or tokens, for the replicas that have
/// any of it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By id; zero for those not listed.
    amounts: Vec<u32>,
    replicas: Vec<u32>,
}

impl Found {
    /// How much is found at a replica, from the beginning of the prompt.
    #[inline]
    pub fn at(&self, replica: ReplicaId) -> u32 {
        self.amounts.get(replica.index()).copied().unwrap_or(0)
    }

    /// The replicas at which anything is found, in no order.
    pub fn replicas(&self) -> &[u32] {
        &self.replicas
    }

    /// How much is found, by replica id.
    pub fn by_replica(&self) -> &[u32] {
        &self.amounts
    }

    /// Forgets everything, for a fleet of so many replicas.
    pub fn clear_for(&mut self, replicas: usize) {
        for replica in self.replicas.drain(..) {
            self.amounts[replica as usize] = 0;
        }
        self.amounts.resize(replicas, 0);
    }

    /// Goes on from `from` to `to`, which is more, at a replica of the fleet where the prompt
    /// was found up to `from`; false elsewhere.
    #[inline]
    pub fn reach(&mut self, replica: u32, from: u32, to: u32) -> bool {
        let Some(amount) = self.amounts.get_mut(replica as usize) else {
            return false;
        };
        if *amount != from {
            return false;
        }
        if from == 0 {
            self.replicas.push(replica);
        }
        *amount = to;
        true
    }

    /// Changes what was found at every replica that is listed.
    pub fn change(&mut self, mut change: impl FnMut(ReplicaId, u32) -> u32) {
        for &replica in &self.replicas {
            let amount = &mut self.amounts[replica as usize];
            *amount = change(ReplicaId(replica), *amount);
        }
    }
}

/// How much of a prompt replicas have cached, as the gateway knows it: live, or by cache events
/// that took a while to arrive.
pub trait CacheView {
    /// Writes, for each replica by id, the prompt tokens found in its cache.
    fn cached_tokens(&self, request: &RequestView<'_>, tokens: &mut Vec<u32>);

    /// Writes the same for a fleet of so many replicas; replicas listed may have none all the same.
    fn find(&self, request: &RequestView<'_>, replicas: usize, found: &mut Found) {
        let mut tokens = Vec::new();
        self.cached_tokens(request, &mut tokens);
        found.clear_for(replicas);
        for (replica, tokens) in tokens.into_iter().enumerate().filter(|&(_, t)| t > 0) {
            found.reach(replica as u32, 0, tokens);
        }
    }
}

/// The routable replicas, by ascending id; never empty.
#[derive(Clone, Copy)]
pub struct FleetView<'a> {
    /// The time of the decision.
    pub now: SimTime,
    /// The replicas.
    pub replicas: &'a [ReplicaView],
    /// What is cached where; empty unless the policy asked for [`Signals::cache`].
    pub cache: &'a dyn CacheView,
    /// What changed since this policy was asked last.
    pub news: News<'a>,
}

/// What changed in a fleet between two questions to the same policy, for policies that keep an
/// order of the replicas instead of looking at each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News<'a> {
    /// Anything may have: views, and which replicas are routable.
    Everything,
    /// At most the views of these replicas, each named once. All replicas are routable, now as the
    /// last time, and each stands in the place of its id.
    Only(&'a [ReplicaId]),
}

impl std::fmt::Debug for FleetView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetView")
            .field("now", &self.now)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

/// Which signals a routing policy reads. Only those are kept up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Signals {
    /// [`ReplicaView::stats`].
    pub stats: bool,
    /// Of those, what changes while nothing happens: memory, and the time of the reading.
    pub passing: bool,
    /// [`FleetView::cache`].
    pub cache: bool,
}

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To this replica.
    To(ReplicaId),
    /// Nowhere.
    Refuse(Refusal),
}

/// What came of a routing decision, as the gateway sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feedback {
    /// A replica's answer began to arrive (its prompt is computed).
    FirstToken,
    /// The whole answer arrived.
    Finished,
    /// It was cancelled or refused by the replica.
    Failed,
}

/// What a policy is given besides its subject: its own random stream, and a notebook for
/// `explain`.
#[derive(Debug)]
pub struct PolicyCx<'a> {
    /// The policy's own stream; drawing from it moves no other.
    pub rng: &'a mut Rng,
    /// Score of each replica by id, higher is better; written only when somebody wants to know.
    pub scores: Option<&'a mut Vec<f64>>,
}

/// Chooses a replica for a request.
///
/// Sees telemetry as old as the scenario makes it. Equal scores go to the lower id, or by
/// `cx.rng`; never by the order of a hash map.
pub trait RoutingPolicy: Send {
    /// The signals it reads.
    fn signals(&self) -> Signals;

    /// Routes one request. `Route::To` must name a replica of `fleet`; if it does not, the run stops
    /// as a broken law.
    fn route(
        &mut self,
        request: &RequestView<'_>,
        fleet: &FleetView<'_>,
        cx: &mut PolicyCx<'_>,
    ) -> Route;

    /// Learns what came of a decision. Called only for policies that return true from
    /// [`Self::wants_feedback`].
    fn observe(
        &mut self,
        _request: &RequestView<'_>,
        _replica: ReplicaId,
        _feedback: Feedback,
        _now: SimTime,
    ) {
    }

    /// Learns that a replica has lost all it had cached.
    fn forget(&mut self, _replica: ReplicaId) {}

    /// Whether [`Self::observe`] should be called.
    fn wants_feedback(&self) -> bool {
        false
    }

    /// Told before each decision by gateways that share a state store: which of them decides, and
    /// whether the store answered. Without a store, one gateway decides, and knows.
    fn asks(&mut self, _asking: Asking) {}

    /// How the last decision used an index of who has what, if the policy keeps one.
    fn last_use(&self) -> IndexUse {
        IndexUse::default()
    }

    /// What its index did so far; `None` if it counts nothing.
    fn index(&self) -> Option<IndexTotals> {
        None
    }

    /// The state store has lost its contents, and with them what this policy keeps there.
    fn forget_all(&mut self) {}
}

/// Who decides, and with what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asking {
    /// Rank of the gateway, below 64 (of more, some share what they know).
    pub gateway: u32,
    /// The state store answered; otherwise only what this gateway has seen before is known.
    pub answered: bool,
}

impl Asking {
    /// The gateway's bit in a set of gateways.
    pub const fn bit(self) -> u64 {
        1 << (self.gateway % 64)
    }
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            gateway: 0,
            answered: true,
        }
    }
}

/// How a decision used an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IndexUse {
    /// It went to a replica that has computed a prompt of the same key, which should still be cached.
    pub expects_cached: bool,
    /// It wrote an entry.
    pub wrote: bool,
}
