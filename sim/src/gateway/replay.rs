//! A trace through a routing policy and plain prefix caches, without time: requests come in
//! order, each is routed, looks its prefix up in its node's cache and leaves it there. What is
//! left of serving is which policy keeps how much of the prefixes together, in closed form
//! comparable with published cache studies.

use crate::gateway::experiments::idle_replica;
use crate::gateway::routing::{FleetFacts, build};
use crate::view::{CacheView, FleetView, News, PolicyCx, Route};
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, ReplicaId, RequestId, TenantId};
use windtunnel_base::rng::Streams;
use windtunnel_base::time::SimTime;
use windtunnel_engine::config::EvictionKind;
use windtunnel_engine::kv::{KvCache, KvLayout};
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::RoutingSpec;

/// The nodes of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayFleet {
    /// How many.
    pub nodes: u32,
    /// Tokens per block; more than zero.
    pub block_tokens: u32,
    /// Blocks that each node's cache holds.
    pub capacity_blocks: u64,
}

/// One request of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayRequest<'a> {
    /// What its prompt begins with.
    pub prefix: &'a [Extent],
    /// Prompt length in tokens; its last block may be begun only, and is cached all the same.
    pub prompt_tokens: u32,
    /// Its conversation, for policies that follow conversations.
    pub session: u64,
}

/// What came of a replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplayOutcome {
    /// Requests.
    pub requests: u64,
    /// Blocks of all prompts.
    pub blocks: u64,
    /// Those found in the cache of the node that the request was routed to.
    pub hit_blocks: u64,
    /// Prompt tokens sent to each node.
    pub node_tokens: Vec<u64>,
    /// Requests sent to each node.
    pub node_requests: Vec<u64>,
}

impl ReplayOutcome {
    /// Share of blocks found in cache; zero without blocks.
    pub fn hit_rate(&self) -> f64 {
        self.hit_blocks as f64 / self.blocks.max(1) as f64
    }

    /// Prompt tokens of the busiest node over their mean; 1 is even.
    pub fn imbalance(&self) -> f64 {
        let most = self.node_tokens.iter().copied().max().unwrap_or(0);
        let total: u64 = self.node_tokens.iter().sum();
        (most * self.node_tokens.len() as u64) as f64 / total.max(1) as f64
    }
}

/// The caches as they are: what a policy that follows cache events sees without delay.
struct Live<'a>(&'a [u32]);

impl CacheView for Live<'_> {
    fn cached_tokens(&self, _: &RequestView<'_>, tokens: &mut Vec<u32>) {
        tokens.clear();
        tokens.extend_from_slice(self.0);
    }
}

/// Replays requests in order through the policy of `spec` over nodes that each hold an LRU
/// cache of whole blocks, deepest blocks of a prompt first out. Nothing is ever in flight and
/// there is no telemetry, so policies that go by those see a fleet of equals; `total_tokens` is
/// kept. The policy draws from the stream of `seed`.
///
/// # Panics
/// If there are no nodes, blocks hold no tokens, or the policy breaks its contract.
pub fn replay<'a>(
    spec: &RoutingSpec,
    fleet: ReplayFleet,
    seed: u64,
    requests: impl IntoIterator<Item = ReplayRequest<'a>>,
) -> ReplayOutcome {
    assert!(fleet.nodes > 0, "a replay needs nodes");
    let nodes = fleet.nodes as usize;
    let facts = FleetFacts {
        replicas: nodes,
        block_tokens: fleet.block_tokens,
        seed,
    };
    let mut policy = build(spec, &facts);
    let mut rng = Streams::new(seed).stream("routing", 0);
    let wants_caches = policy.signals().cache;
    let layout = KvLayout {
        total_blocks: fleet.capacity_blocks,
        block_size: fleet.block_tokens,
        prefix_cache: true,
        eviction: EvictionKind::Lru,
    };
    let mut caches = vec![KvCache::new(&layout); nodes];
    let mut replicas: Vec<_> = (0..fleet.nodes)
        .map(|node| idle_replica(ReplicaId(node)))
        .collect();
    let mut outcome = ReplayOutcome {
        requests: 0,
        blocks: 0,
        hit_blocks: 0,
        node_tokens: vec![0; nodes],
        node_requests: vec![0; nodes],
    };
    let (mut whole, mut cached) = (Vec::new(), Vec::new());
    for (rank, request) in requests.into_iter().enumerate() {
        let tokens = in_whole_blocks(&request, fleet.block_tokens, &mut whole);
        let view = RequestView {
            id: RequestId::from(rank),
            sent_at: SimTime::ZERO,
            deadline: None,
            prompt_tokens: tokens,
            max_output_tokens: None,
            predicted_output_tokens: None,
            tenant: TenantId(0),
            class: ClassId(0),
            priority: 0,
            session: request.session,
            prefix: &whole,
        };
        if wants_caches {
            cached.clear();
            cached.extend(caches.iter().map(|cache| cache.lookup(&whole, tokens)));
        }
        let seen = FleetView {
            now: SimTime::ZERO,
            replicas: &replicas,
            cache: &Live(&cached),
            news: News::Everything,
        };
        let mut cx = PolicyCx {
            rng: &mut rng,
            scores: None,
        };
        let Route::To(id) = policy.route(&view, &seen, &mut cx) else {
            panic!("{spec:?} refused a request of a replay");
        };
        outcome.requests += 1;
        outcome.blocks += u64::from(tokens / fleet.block_tokens);
        outcome.hit_blocks += serve(&mut caches[id.index()], &whole, tokens);
        outcome.node_requests[id.index()] += 1;
        outcome.node_tokens[id.index()] += u64::from(request.prompt_tokens);
        replicas[id.index()].total_tokens += u64::from(request.prompt_tokens);
    }
    outcome
}

/// Runs a prompt of whole blocks through a cache; gives the blocks it found. A prompt that the
/// cache cannot hold leaves nothing behind.
fn serve(cache: &mut KvCache, prefix: &[Extent], tokens: u32) -> u64 {
    let (mut holding, found) = cache.acquire(prefix, tokens);
    let missing = u64::from((tokens - found) / cache.block_size());
    let private = if cache.take(missing).is_ok() {
        missing - cache.publish(&mut holding, prefix, tokens)
    } else {
        0
    };
    cache.release(holding, private);
    u64::from(found / cache.block_size())
}

/// Fills up the last block of a prompt, so that begun blocks are cached too; gives its tokens.
fn in_whole_blocks(request: &ReplayRequest<'_>, block: u32, prefix: &mut Vec<Extent>) -> u32 {
    let tokens = request.prompt_tokens.next_multiple_of(block);
    prefix.clear();
    prefix.extend_from_slice(request.prefix);
    let shared: u32 = prefix.iter().map(|extent| extent.tokens).sum();
    if let Some(last) = prefix
        .last_mut()
        .filter(|_| shared == request.prompt_tokens)
    {
        last.tokens += tokens - request.prompt_tokens;
    }
    tokens
}
