//! The standard shapes: what each is, and how many requests it has.

pub(super) const MM1: &str = include_str!("../../benches/scenarios/mm1.toml");
pub(super) const ONE_REPLICA: &str = include_str!("../../benches/scenarios/one-replica.toml");
pub(super) const SHARED_PREFIXES: &str =
    include_str!("../../benches/scenarios/shared-prefixes.toml");
pub(super) const LONG_PREFIXES: &str = include_str!("../../benches/scenarios/long-prefixes.toml");
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

/// All shapes, in the order of the table.
pub const SHAPES: [Shape; 16] = [
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
        "open-sessions",
        [2_200_000, 220_000],
        Work::Own(OPEN_SESSIONS, &[]),
        "a million conversations open at once",
    ),
];
