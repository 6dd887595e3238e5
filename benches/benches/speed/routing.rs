//! One routing decision by size of the fleet, with what the policy learns of its outcome: which
//! policies pay for every replica, and how much.

use criterion::{BenchmarkId, Criterion};
use std::collections::VecDeque;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, ReplicaId, RequestId, TenantId};
use windtunnel_base::rng::Rng;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::EngineStats;
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_sim::gateway::routing::{self, FleetFacts};
use windtunnel_sim::view::{
    CacheView, Feedback, FleetView, News, Observed, PolicyCx, ReplicaView, Route, RoutingPolicy,
};

/// Requests in flight at each replica, on average.
const IN_FLIGHT: usize = 8;
/// Prefixes that requests share, and their length.
const PREFIXES: u64 = 64;
const PREFIX_TOKENS: u32 = 512;
const PROMPT_TOKENS: u32 = 640;

const POLICIES: [(&str, &str); 8] = [
    ("round_robin", "kind = 'round_robin'"),
    ("power_of_two", "kind = 'power_of_two'"),
    ("least_loaded", "kind = 'least_loaded'"),
    ("consistent_hashing", "kind = 'consistent_hashing'"),
    ("cache_aware", "kind = 'cache_aware'"),
    (
        "kv_router",
        "kind = 'kv_router'\nuse_kv_events = false\nttl = '120s'",
    ),
    ("gie", "kind = 'gie'"),
    (
        "least_loaded_random",
        "kind = 'least_loaded'\nties = 'random'",
    ),
];

/// Nothing is known of caches beyond what a policy remembers itself.
struct Blind;

impl CacheView for Blind {
    fn cached_tokens(&self, _: &RequestView<'_>, tokens: &mut Vec<u32>) {
        tokens.clear();
    }
}

/// A gateway in miniature: a fleet with a constant number of requests in flight.
struct Gateway {
    policy: Box<dyn RoutingPolicy>,
    replicas: Vec<ReplicaView>,
    rng: Rng,
    now: SimTime,
    sent: u32,
    /// Replicas whose views changed since the last decision.
    changed: Vec<ReplicaId>,
    under_way: VecDeque<(u32, ReplicaId)>,
}

fn prefix_of(id: u32) -> [Extent; 1] {
    [Extent {
        key: u64::from(id).wrapping_mul(0x9e37_79b9) % PREFIXES,
        tokens: PREFIX_TOKENS,
    }]
}

fn request(id: u32, prefix: &[Extent]) -> RequestView<'_> {
    RequestView {
        id: RequestId(id),
        sent_at: SimTime::ZERO,
        deadline: None,
        prompt_tokens: PROMPT_TOKENS,
        max_output_tokens: None,
        predicted_output_tokens: Some(128),
        tenant: TenantId(0),
        class: ClassId(0),
        priority: 0,
        session: u64::from(id % 1024),
        prefix,
    }
}

impl Gateway {
    fn new(spec: &str, replicas: usize) -> Self {
        let spec: RoutingSpec = match toml::from_str(spec) {
            Ok(spec) => spec,
            Err(error) => panic!("{error}"),
        };
        let view = |id: usize| ReplicaView {
            id: ReplicaId::from(id),
            stats: Observed {
                value: EngineStats {
                    running: (id % 7) as u32,
                    waiting: (id % 3) as u32,
                    kv_held: 100 + id as u64 % 500,
                    kv_total: 1000,
                    ..EngineStats::default()
                },
                read_at: SimTime::ZERO,
            },
            in_flight: 0,
            in_flight_tokens: 0,
            total_tokens: 0,
        };
        let facts = FleetFacts {
            replicas,
            block_tokens: 16,
            seed: 1,
        };
        let mut gateway = Self {
            policy: routing::build(&spec, &facts),
            replicas: (0..replicas).map(view).collect(),
            rng: Rng::from_seed(1),
            now: SimTime::ZERO,
            sent: 0,
            changed: Vec::new(),
            under_way: VecDeque::new(),
        };
        for _ in 0..IN_FLIGHT * replicas {
            gateway.send();
        }
        gateway
    }

    /// Routes a request.
    fn send(&mut self) {
        self.now = self.now.saturating_add(SimDuration::from_millis(1));
        let prefix = prefix_of(self.sent);
        let fleet = FleetView {
            now: self.now,
            replicas: &self.replicas,
            cache: &Blind,
            news: if self.sent == 0 {
                News::Everything
            } else {
                News::Only(&self.changed)
            },
        };
        let mut cx = PolicyCx {
            rng: &mut self.rng,
            scores: None,
        };
        let route = self
            .policy
            .route(&request(self.sent, &prefix), &fleet, &mut cx);
        self.changed.clear();
        if let Route::To(replica) = route {
            self.changed.push(replica);
            let view = &mut self.replicas[replica.index()];
            view.in_flight += 1;
            view.in_flight_tokens += u64::from(PROMPT_TOKENS);
            self.under_way.push_back((self.sent, replica));
        }
        self.sent = self.sent.wrapping_add(1);
    }

    /// The oldest request under way is answered.
    fn answer(&mut self) {
        let Some((id, replica)) = self.under_way.pop_front() else {
            return;
        };
        if !self.changed.contains(&replica) {
            self.changed.push(replica);
        }
        let view = &mut self.replicas[replica.index()];
        view.in_flight -= 1;
        view.in_flight_tokens -= u64::from(PROMPT_TOKENS);
        if self.policy.wants_feedback() {
            let prefix = prefix_of(id);
            let request = request(id, &prefix);
            for feedback in [Feedback::FirstToken, Feedback::Finished] {
                self.policy.observe(&request, replica, feedback, self.now);
            }
        }
    }
}

pub(crate) fn benches(c: &mut Criterion) {
    for (name, spec) in POLICIES {
        let mut group = c.benchmark_group(format!("routing/{name}"));
        for replicas in [1, 8, 64, 1024] {
            group.bench_function(BenchmarkId::from_parameter(replicas), |b| {
                let mut gateway = Gateway::new(spec, replicas);
                b.iter(|| {
                    gateway.answer();
                    gateway.send();
                });
            });
        }
        group.finish();
    }
}
