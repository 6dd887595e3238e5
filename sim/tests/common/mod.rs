//! Workloads and scenarios that tests can compute by hand.
#![allow(dead_code, reason = "every test file uses its own part")]

use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::quantity::{HourlyPrice, Power, Span};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::NanoUsd;
use windtunnel_engine::config::{
    ContinuousSpec, CostSpec, EnergySpec, EngineSpec, KvSpec, LinearSpec, StationSpec,
};
use windtunnel_engine::request::Truth;
use windtunnel_scenarios::schema::fleet::PoolSpec;
use windtunnel_scenarios::schema::paths::{KernelSpec, PathsSpec};
use windtunnel_scenarios::schema::{ClassSpec, Scenario};
use windtunnel_scenarios::workload::{Arrival, Workload};

/// The unit of time of hand-computed tests: 2^-9 s, the finest step that is whole in nanoseconds and
/// exact in binary seconds, so that no rounding hides in a cost model.
pub(crate) const U: u64 = 1_953_125;

/// `n` units.
pub(crate) const fn units(n: u64) -> SimDuration {
    SimDuration::from_nanos(n * U)
}

pub(crate) const fn span(n: u64) -> Span {
    Span(units(n))
}

/// A request of `prompt` and `output` tokens, sent at unit `at`.
pub(crate) fn request(at: u64, prompt: u32, output: u32) -> Arrival {
    Arrival {
        at: SimTime::ZERO + units(at),
        tenant: TenantId(0),
        class: ClassId(0),
        session: at,
        turn: 0,
        prompt_tokens: prompt,
        max_output_tokens: None,
        predicted_output_tokens: None,
        patience: None,
        question: None,
        truth: Truth {
            output_tokens: output,
            service: SimDuration::ZERO,
            good: true,
            attack: false,
            output_continues: false,
            task: None,
        },
    }
}

/// A request for `service` units of a station, sent at unit `at`.
pub(crate) fn job(at: u64, service: u64) -> Arrival {
    let mut job = request(at, 1, 1);
    job.truth.service = units(service);
    job
}

/// A list of requests, by time.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) requests: Vec<(Arrival, Vec<Extent>)>,
    pub(crate) taken: usize,
    /// What was said to have left: who, when, finished.
    pub(crate) departures: Vec<(u32, u64, bool)>,
}

impl Script {
    pub(crate) fn new(requests: impl IntoIterator<Item = Arrival>) -> Self {
        Self {
            requests: requests.into_iter().map(|r| (r, Vec::new())).collect(),
            taken: 0,
            departures: Vec::new(),
        }
    }
}

impl Workload for Script {
    fn next_at(&mut self) -> Option<SimTime> {
        Some(self.requests.get(self.taken)?.0.at)
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let (arrival, extents) = &self.requests[self.taken];
        self.taken += 1;
        prefix.extend(extents);
        *arrival
    }

    fn departed(&mut self, request: RequestId, at: SimTime, finished: bool) {
        self.departures.push((request.0, at.as_nanos(), finished));
    }
}

/// Poisson arrivals with exponential service of mean 1 s, until a number is reached.
#[derive(Debug)]
pub(crate) struct Poisson {
    arrivals: Rng,
    services: Rng,
    mean_gap: f64,
    next: SimTime,
    left: u64,
}

impl Poisson {
    pub(crate) fn new(rate: f64, requests: u64, seed: u64) -> Self {
        let streams = Streams::new(seed);
        let mut new = Self {
            arrivals: streams.stream("test-arrivals", 0),
            services: streams.stream("test-services", 0),
            mean_gap: 1.0 / rate,
            next: SimTime::ZERO,
            left: requests,
        };
        new.next += exponential(&mut new.arrivals, new.mean_gap);
        new
    }
}

fn exponential(rng: &mut Rng, mean: f64) -> SimDuration {
    SimDuration::from_secs_f64_saturating(-libm::log(rng.f64_open()) * mean)
}

impl Workload for Poisson {
    fn next_at(&mut self) -> Option<SimTime> {
        (self.left > 0).then_some(self.next)
    }

    fn take(&mut self, _: &mut Vec<Extent>) -> Arrival {
        self.left -= 1;
        let mut arrival = request(0, 1, 1);
        arrival.at = self.next;
        arrival.truth.service = exponential(&mut self.services, 1.0);
        self.next += exponential(&mut self.arrivals, self.mean_gap);
        arrival
    }

    fn departed(&mut self, _: RequestId, _: SimTime, _: bool) {}
}

/// A fixed number of clients; each sends, waits for the answer, thinks, and sends again.
#[derive(Debug)]
pub(crate) struct ClosedLoop {
    pub(crate) due: Vec<SimTime>,
    pub(crate) think: SimDuration,
    pub(crate) service: SimDuration,
    pub(crate) left: u64,
}

impl Workload for ClosedLoop {
    fn next_at(&mut self) -> Option<SimTime> {
        if self.left == 0 {
            return None;
        }
        self.due.iter().min().copied()
    }

    fn take(&mut self, _: &mut Vec<Extent>) -> Arrival {
        let at = self.next_at().expect("taken when due");
        let client = self.due.iter().position(|&d| d == at).expect("somebody is");
        self.due.swap_remove(client);
        self.left -= 1;
        let mut arrival = request(0, 1, 1);
        arrival.at = at;
        arrival.truth.service = self.service;
        arrival
    }

    fn departed(&mut self, _: RequestId, at: SimTime, _: bool) {
        self.due.push(at + self.think);
    }
}

/// An LLM engine whose step takes 8 units, and 1 more per new prompt token; a dollar per unit and
/// replica; 1000 W at rest, and 2 J per step plus 1 J per token while at work.
pub(crate) fn llm() -> ContinuousSpec {
    ContinuousSpec {
        cost: CostSpec::Linear(LinearSpec {
            base: Some(span(8)),
            per_prefill_token: Some(span(1)),
            ..LinearSpec::default()
        }),
        kv: KvSpec {
            blocks: Some(1000),
            ..KvSpec::default()
        },
        energy: Some(EnergySpec::PerToken {
            preset: None,
            at_infinity: Some(1.0),
            per_batch: Some(2.0),
            idle: Some(Power(1000.0)),
        }),
        // 2^9 units are a second.
        gpu_price: Some(HourlyPrice(NanoUsd(3600 * 512 * 1_000_000_000))),
        ..ContinuousSpec::default()
    }
}

/// One replica of [`llm`], nothing else.
pub(crate) fn plain() -> Scenario {
    let mut scenario = Scenario::default();
    scenario.fleet.engine = EngineSpec::Continuous(Box::new(llm()));
    scenario
}

/// Replicas that are stations of so many servers.
pub(crate) fn stations(replicas: u32, servers: u32) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.fleet.replicas = replicas;
    scenario.fleet.engine = EngineSpec::Station(StationSpec {
        servers,
        ..StationSpec::default()
    });
    scenario
}

/// Adds a kernel `k` of eight servers for the class `routine`, beside the class `reserved` that has none; the
/// choice of pools is otherwise as given.
pub(crate) fn add_kernel(scenario: &mut Scenario, paths: PathsSpec) {
    scenario.fleet.pools.push(PoolSpec {
        token_prices: None,
        error_rate: None,
        name: "kernels".to_owned(),
        replicas: 1,
        engine: EngineSpec::Station(StationSpec {
            servers: 8,
            ..StationSpec::default()
        }),
    });
    for class in ["reserved", "routine"] {
        let class = class.to_owned();
        scenario.classes.insert(class, ClassSpec::default());
    }
    scenario.gateway.paths = Some(PathsSpec {
        kernels: vec![KernelSpec {
            name: "k".to_owned(),
            class: "routine".to_owned(),
            pool: "kernels".to_owned(),
        }],
        ..paths
    });
}
