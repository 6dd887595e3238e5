//! The standard shapes: what each is, and how many requests it has.

pub(super) const MM1: &str = include_str!("../../benches/scenarios/mm1.toml");
pub(super) const ONE_REPLICA: &str = include_str!("../../benches/scenarios/one-replica.toml");
pub(super) const SHARED_PREFIXES: &str =
    include_str!("../../benches/scenarios/shared-prefixes.toml");
pub(super) const LONG_PREFIXES: &str = include_str!("../../benches/scenarios/long-prefixes.toml");
pub(super) const GATEWAY: &str = include_str!("../../benches/scenarios/gateway.toml");
pub(super) const OPEN_SESSIONS: &str = include_str!("../../benches/scenarios/open-sessions.toml");

/// A standard shape of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    /// Requests, and with `--quick`.
    pub requests: [u64; 2],
    pub(super) work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    /// A scenario of the benchmarks' own, and what is changed in it.
    Own(&'static str, &'static [&'static str]),
    /// A library scenario as it is.
    Library(&'static str),
    /// Constant gaps and normal lengths on one replica.
    OneReplica,
    /// 16 shared prefixes, with this routing.
    SharedPrefixes(&'static str),
    /// Chat requests on tables of operators; both are in files only.
    Operators,
    /// Long prompts with shared beginnings: the trace, if there are traces.
    LongPrefixes,
    /// So many replicas, each with the load of `one-replica`.
    Fleet(&'static str, &'static str),
}

impl Shape {
    /// Whether it runs only with [`super::Effort::fidelity`].
    pub const fn needs_files(&self) -> bool {
        matches!(self.work, Work::Operators)
    }
}

const fn shape(name: &'static str, requests: [u64; 2], work: Work, title: &'static str) -> Shape {
    Shape {
        name,
        title,
        requests,
        work,
    }
}

/// Everything that a gateway can do, switched on. Nothing is refused, and nothing is found.
const ALL_STAGES: &[&str] = &[
    r#"gateway.pipeline.budget="50ms""#,
    r#"gateway.pipeline.parse={ time = "200us", sigma = 0.2, share = "1ms", price = "$0.0000001" }"#,
    r#"gateway.pipeline.ingress_filter={ false_positive_rate = 0.0, sigma = 0.2, share = "6ms" }"#,
    r#"gateway.pipeline.authenticate={ time = "300us", sigma = 0.2, share = "1ms" }"#,
    r#"gateway.pipeline.tokenize={ per_token = "800ns", share = "8ms" }"#,
    r#"gateway.pipeline.rate_limit={ time = "100us", requests = { rate = "1000 req/s", burst = 1000 }, tokens = { per_second = 1e7, burst = 10_000_000 }, spend = { rate = "$100000/h", burst = "$1000", input_per_million = "$0.1", output_per_million = "$0.4" } }"#,
    r#"gateway.pipeline.exact_lookup={ time = "100us", sigma = 0.2 }"#,
    r#"gateway.pipeline.semantic_lookup={ time = "3ms", sigma = 0.2, share = "9ms" }"#,
    r#"gateway.pipeline.kernel_lookup={ time = "100us" }"#,
    r#"gateway.pipeline.path_choice={ time = "100us" }"#,
    r#"gateway.pipeline.admission={ time = "100us" }"#,
    r#"gateway.pipeline.routing={ time = "200us" }"#,
    r#"gateway.paths={ frontier = "frontier", kernels = [{ name = "k", class = "routine", pool = "kernels" }], leakage = { capacity = "200 req/s" } }"#,
    r#"gateway.answers={ ttl = "1h", capacity = 10_000, ttl_jitter = 0.1, early_refresh = 1.0, semantic = { rule = { kind = "threshold", at_least = 1.0 } } }"#,
    "gateway.coalescing.enabled=true",
    r#"gateway.state_store={ gateways = 2, write_batch = "5ms" }"#,
    "gateway.queue.max_in_flight=1000",
    r#"gateway.queue.order="vtc""#,
];

/// All shapes, in the order of the table.
pub const SHAPES: [Shape; 18] = [
    shape(
        "smoke",
        [1_200, 1_200],
        Work::Library("smoke"),
        "the smoke scenario, start of the program included",
    ),
    shape(
        "mm1",
        [2_000_000, 200_000],
        Work::Own(MM1, &[]),
        "M/M/1 at load 0.8: the cheapest request there is",
    ),
    shape(
        "one-replica",
        [100_000, 10_000],
        Work::OneReplica,
        "one replica, 10 req/s, 512 + 512 tokens (W1)",
    ),
    shape(
        "round-robin",
        [10_000, 10_000],
        Work::SharedPrefixes("round_robin"),
        "8 replicas, 16 shared prefixes (W2), round robin",
    ),
    shape(
        "cache-aware",
        [10_000, 10_000],
        Work::SharedPrefixes("cache_aware"),
        "the same, cache-aware routing",
    ),
    shape(
        "kv-aware",
        [12_031, 3_000],
        Work::LongPrefixes,
        "8 workers, prompts of 12,000 tokens, KV-aware routing",
    ),
    shape(
        "operators",
        [8_000, 2_000],
        Work::Operators,
        "Llama-2-7B by operator tables, chat requests; needs --fidelity",
    ),
    shape(
        "flat-1k",
        [1_000, 1_000],
        Work::Own(ONE_REPLICA, &[]),
        "one replica, a short run",
    ),
    shape(
        "flat-10k",
        [10_000, 10_000],
        Work::Own(ONE_REPLICA, &[]),
        "the same, ten times as long",
    ),
    shape(
        "flat-1m",
        [1_000_000, 100_000],
        Work::Own(ONE_REPLICA, &[]),
        "the same, a thousand times as long",
    ),
    shape(
        "flat-10m",
        [10_000_000, 200_000],
        Work::Own(ONE_REPLICA, &[]),
        "the same, ten thousand times as long",
    ),
    shape(
        "fleet-1",
        [100_000, 10_000],
        Work::Fleet("fleet.replicas=1", "traffic.request_rate=\"10 req/s\""),
        "1 replica, least loaded",
    ),
    shape(
        "fleet-8",
        [100_000, 10_000],
        Work::Fleet("fleet.replicas=8", "traffic.request_rate=\"80 req/s\""),
        "8 replicas, least loaded",
    ),
    shape(
        "fleet-64",
        [100_000, 10_000],
        Work::Fleet("fleet.replicas=64", "traffic.request_rate=\"640 req/s\""),
        "64 replicas, least loaded",
    ),
    shape(
        "fleet-1024",
        [100_000, 20_000],
        Work::Fleet(
            "fleet.replicas=1024",
            "traffic.request_rate=\"10240 req/s\"",
        ),
        "1,024 replicas, least loaded",
    ),
    shape(
        "gateway-bare",
        [200_000, 10_000],
        Work::Own(GATEWAY, &[]),
        "8 replicas in two pools behind a gateway that only routes",
    ),
    shape(
        "gateway-all",
        [200_000, 10_000],
        Work::Own(GATEWAY, ALL_STAGES),
        "the same with every stage, both stores, budget and fair queue on",
    ),
    shape(
        "open-sessions",
        [2_200_000, 220_000],
        Work::Own(OPEN_SESSIONS, &[]),
        "a million conversations open at once",
    ),
];
