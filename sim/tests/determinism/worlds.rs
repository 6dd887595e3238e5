//! Random worlds: schedulers, memories, gateways, clients, and what goes wrong.

use crate::common::Script;
use crate::common::{U, plain, request, span};
use crate::parts::{paths, scaling, shared_cache, state_store, verifier};
use crate::stored::{answers, coalescing, question};
use proptest::prelude::*;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::ClassId;
use windtunnel_base::quantity::{Money, Rate, Span};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::NanoUsd;
use windtunnel_engine::config::{
    Allocation, ContinuousSpec, CostSpec, EngineSpec, FrontendSpec, KvSpec, LinearSpec,
    PreemptionKind, PrefixVisibility, RestartKind, SchedulerKind, SchedulerSpec, StationOrder,
    StationSpec,
};
use windtunnel_scenarios::blis;
use windtunnel_scenarios::schema::FaultSpec;
use windtunnel_scenarios::schema::clients::{
    ClientsSpec, CountedPer, Failure, HedgingSpec, Jitter, RetriesSpec, RetryBudgetSpec,
    ThrottlingSpec,
};
use windtunnel_scenarios::schema::faults::Target;
use windtunnel_scenarios::schema::fleet::{Counted, PoolSpec, TelemetryRefresh};
use windtunnel_scenarios::schema::gateway::QueueOrder;
use windtunnel_scenarios::schema::outliers::OutlierDetectionSpec;
use windtunnel_scenarios::schema::pipeline::{Fail, IngressFilterSpec, PipelineSpec, StageSpec};
use windtunnel_scenarios::schema::policies::{
    AdmissionSpec, AffinityKey, LoadSignal, RoutingSpec, TieBreak, TtlFrom,
};
use windtunnel_scenarios::schema::token_prices::TokenPricesSpec;
use windtunnel_scenarios::schema::verification::Unverified;
use windtunnel_scenarios::schema::{ClassSpec, Scenario};
use windtunnel_scenarios::workload::Arrival;

/// Times as odd as nanoseconds get, and as even as units: ties and near misses.
pub(crate) fn time() -> impl Strategy<Value = u64> {
    prop_oneof![(0_u64..60).prop_map(|n| n * U), 0_u64..60 * U]
}

pub(crate) fn delay() -> impl Strategy<Value = Span> {
    prop_oneof![
        3 => Just(Span::default()),
        1 => (0_u64..6).prop_map(|n| Span(SimDuration::from_nanos(n * U / 2))),
        1 => (0_u64..3 * U).prop_map(|n| Span(SimDuration::from_nanos(n))),
    ]
}

fn prefix() -> impl Strategy<Value = Vec<Extent>> {
    let extent = (0_u64..3, 1_u32..40).prop_map(|(key, tokens)| Extent {
        key: key + 1,
        tokens,
    });
    prop::collection::vec(extent, 0..3)
}

fn arrival() -> impl Strategy<Value = (Arrival, Vec<Extent>)> {
    let patience = prop_oneof![3 => Just(None), 1 => time().prop_map(Some)];
    let body = (time(), 1_u32..60, 1_u32..40, 0_u32..2, patience);
    let asked = (0_u64..4, question());
    (body, prefix(), any::<(bool, bool)>(), asked).prop_map(
        |((at, prompt, output, class, patience), prefix, (good, output_continues), asked)| {
            let (session, question) = asked;
            let mut arrival = request(0, prompt, output);
            arrival.at = SimTime::from_nanos(at);
            arrival.session = session;
            arrival.question = question;
            arrival.class = ClassId(class);
            arrival.patience = patience.map(SimDuration::from_nanos);
            arrival.predicted_output_tokens = (output % 3 > 0).then_some(output);
            arrival.truth.good = good;
            arrival.truth.output_continues = output_continues;
            arrival.truth.service = SimDuration::from_nanos(at / 3 + 1);
            let whole: u32 = prefix.iter().map(|e| e.tokens).sum();
            arrival.prompt_tokens = prompt + whole;
            (arrival, prefix)
        },
    )
}

pub(crate) fn script() -> impl Strategy<Value = Script> {
    prop::collection::vec(arrival(), 1..14).prop_map(|mut requests| {
        requests.sort_by_key(|(arrival, _)| arrival.at);
        let mut script = Script::new([]);
        script.requests = requests;
        script
    })
}

fn scheduler() -> impl Strategy<Value = SchedulerSpec> {
    let kind = prop_oneof![
        Just(SchedulerKind::Static),
        Just(SchedulerKind::Fcfs),
        Just(SchedulerKind::Chunked),
        Just(SchedulerKind::Priority),
        Just(SchedulerKind::Shortest),
        Just(SchedulerKind::PrefillFirst),
    ];
    let cap = prop::option::of(1_u32..40);
    let rules = any::<(bool, bool, bool, bool, bool)>();
    (kind, 200_u32..400, 1_u32..6, cap, rules).prop_map(|(kind, wide, seqs, cap, rules)| {
        let (tight, join_at_boundary, padded_prompts, admit_after_preemption, ahead) = rules;
        // Rules that cut prompts into chunks may have a budget below the longest prompt.
        let chunks = !matches!(
            kind,
            SchedulerKind::Static | SchedulerKind::Fcfs | SchedulerKind::PrefillFirst
        );
        SchedulerSpec {
            kind,
            token_budget: if chunks && tight { wide / 8 } else { wide },
            max_num_seqs: seqs,
            long_prefill_threshold: cap.filter(|_| chunks),
            join_at_boundary,
            padded_prompts,
            length_buckets: None,
            unlimited_decodes: false,
            admit_after_preemption,
            async_scheduling: ahead,
        }
    })
}

fn llm() -> impl Strategy<Value = ContinuousSpec> {
    let restart = prop_oneof![
        Just(RestartKind::Everything),
        Just(RestartKind::Computed),
        Just(RestartKind::Scratch),
    ];
    let sarathi = any::<(bool, bool)>();
    let kv = (
        8_u64..60,
        any::<(bool, bool, bool)>(),
        (0_u8..3, restart, sarathi),
    );
    let cost = (1_u64..3, 0_u64..2000, 0_u64..500);
    (scheduler(), kv, cost, 1_u32..40).prop_map(
        |(scheduler, (blocks, (cache, swap, reserve), more), (base, seq, context), waiting)| {
            let (visible, restart, (unlimited_decodes, spare_block)) = more;
            ContinuousSpec {
                scheduler: SchedulerSpec {
                    unlimited_decodes,
                    ..scheduler
                },
                queue_limit: (waiting < 10).then_some(waiting),
                kv: KvSpec {
                    block_size: 4,
                    blocks: Some(blocks),
                    prefix_cache: cache,
                    reserve_full_prompt: reserve,
                    allocation: if unlimited_decodes {
                        Allocation::WholePrompt
                    } else {
                        Allocation::AsComputed
                    },
                    spare_block,
                    restart,
                    preemption: if swap {
                        PreemptionKind::Swap
                    } else {
                        PreemptionKind::Recompute
                    },
                    visibility: match visible {
                        0 => PrefixVisibility::OnSchedule,
                        1 => PrefixVisibility::OnComputed,
                        _ => PrefixVisibility::OnFinish,
                    },
                    ..KvSpec::default()
                },
                cost: CostSpec::Linear(LinearSpec {
                    base: Some(Span(SimDuration::from_nanos(base * U / 2))),
                    per_seq: Some(Span(SimDuration::from_nanos(seq))),
                    per_kilo_context: Some(Span(SimDuration::from_nanos(context * 1000))),
                    per_prefill_token: Some(Span(SimDuration::from_nanos(U / 16))),
                    ..LinearSpec::default()
                }),
                ..ContinuousSpec::default()
            }
        },
    )
}

fn routing() -> impl Strategy<Value = RoutingSpec> {
    let load = prop_oneof![
        Just(LoadSignal::InFlight),
        Just(LoadSignal::WaitingAndRunning),
        Just(LoadSignal::KvUtilization),
        Just(LoadSignal::WaitingRunningInFlight),
    ];
    let ties = prop_oneof![
        Just(TieBreak::LowestId),
        Just(TieBreak::Random),
        Just(TieBreak::GoRandom)
    ];
    let of_blis = ["least-loaded", "weighted"].map(|policy| {
        let cluster = blis::cluster(["--routing-policy", policy, "--block-size-in-tokens", "4"]);
        Just(cluster.expect("flags").routing)
    });
    let [least_loaded, weighted] = of_blis;
    prop_oneof![
        least_loaded,
        weighted,
        Just(RoutingSpec::RoundRobin),
        Just(RoutingSpec::Random),
        (load, ties).prop_map(|(load, ties)| RoutingSpec::LeastLoaded { load, ties }),
        (0_u64..200 * U, any::<bool>()).prop_map(|(ttl, bounded)| RoutingSpec::Affinity {
            key: AffinityKey::Conversation,
            columns: 1,
            ttl: Span(SimDuration::from_nanos(ttl + 1)),
            ttl_from: TtlFrom::LastUse,
            max_entries: 3,
            epsilon: bounded.then_some(0.5),
            load: LoadSignal::InFlight,
        }),
        Just(RoutingSpec::SglangGateway),
        Just(RoutingSpec::Gie),
        Just(RoutingSpec::LlmD),
        Just(RoutingSpec::Dynamo),
        Just(RoutingSpec::VllmDp),
    ]
}

/// Clients that time out, try again, hold back and ask twice, or do nothing of it.
fn clients() -> impl Strategy<Value = Option<ClientsSpec>> {
    let jitter = prop_oneof![
        Just(Jitter::None),
        Just(Jitter::Full),
        Just(Jitter::Equal),
        Just(Jitter::Decorrelated)
    ];
    let on = prop::sample::subsequence(
        vec![
            Failure::TimedOut,
            Failure::QueueFull,
            Failure::Shed,
            Failure::RateLimited,
            Failure::NoReplica,
            Failure::Throttled,
        ],
        3..6,
    );
    let rules = (0_u32..4, 1_u32..3, time(), jitter, on);
    let retries = rules.prop_map(|(max, layers, backoff, jitter, on)| {
        let backoff = Span(SimDuration::from_nanos(backoff / 4));
        RetriesSpec {
            max,
            layers,
            backoff,
            factor: 1.5,
            jitter,
            on,
            ..RetriesSpec::default()
        }
    });
    let per = any::<bool>().prop_map(|t| {
        if t {
            CountedPer::Tenant
        } else {
            CountedPer::All
        }
    });
    let rules = (prop::option::of(time()), any::<bool>(), 0_u8..8, per);
    let spec = (retries, rules).prop_map(|(retries, (timeout, cancel_dead_work, which, per))| {
        let hedging = HedgingSpec {
            after: Span(SimDuration::from_nanos(5 * U)),
            max: 2,
        };
        ClientsSpec {
            attempt_timeout: timeout.map(|ns| Span(SimDuration::from_nanos(ns + 1))),
            cancel_dead_work,
            retries,
            retry_budget: (which & 1 > 0).then_some(RetryBudgetSpec {
                share: 0.3,
                burst: 1,
                per,
            }),
            throttling: (which & 2 > 0).then_some(ThrottlingSpec {
                k: 1.2,
                window: Span(SimDuration::from_nanos(20 * U)),
                per,
            }),
            hedging: (which & 4 > 0).then_some(hedging),
        }
    });
    prop::option::of(spec)
}

/// What goes wrong, at times as odd as requests'.
fn fault() -> impl Strategy<Value = FaultSpec> {
    let span = |ns: u64| Span(SimDuration::from_nanos(ns));
    let on = prop::collection::vec(Just(0_u32), 0..2).prop_map(|replicas| Target {
        pool: None,
        replicas,
    });
    let spans = (time(), 1_u64..30 * U, delay());
    (0_u8..8, spans, 0.1_f64..1.0, on).prop_map(move |(kind, (at, lasts, detection), part, on)| {
        let (at, lasts) = (span(at), span(lasts));
        match kind {
            0 => FaultSpec::Stall { at, lasts, on },
            1 => FaultSpec::Slowdown {
                at,
                lasts,
                speed: part,
                on,
            },
            2 | 3 => FaultSpec::ReplicaLoss {
                at,
                lasts,
                detection,
                on,
            },
            4 => FaultSpec::OriginErrors {
                at,
                lasts,
                share: part,
                on,
            },
            5 => FaultSpec::VerifierOutage { at, lasts },
            6 => FaultSpec::KernelDrift {
                at,
                lasts: (part < 0.5).then_some(lasts),
                kernel: "k".to_owned(),
                excess: part,
                over: detection,
                every: (part > 0.7).then(|| span(lasts.0.as_nanos() + U)),
            },
            _ => FaultSpec::KernelEvicted {
                at,
                lasts,
                kernel: "k".to_owned(),
            },
        }
    })
}

/// Stages, or none.
fn pipeline() -> impl Strategy<Value = Option<PipelineSpec>> {
    let stage = |time: Span| {
        Some(StageSpec {
            time,
            sigma: 0.5,
            price: Money(NanoUsd(3)),
            ..StageSpec::default()
        })
    };
    let spec = (delay(), delay(), any::<bool>()).prop_map(move |(a, b, limited)| PipelineSpec {
        budget: limited.then_some(Span(SimDuration::from_nanos(U))),
        parse: stage(a),
        ingress_filter: limited.then(IngressFilterSpec::default),
        kernel_lookup: stage(b),
        routing: stage(b),
        ..PipelineSpec::default()
    });
    prop::option::weighted(0.3, spec)
}

pub(crate) fn world() -> impl Strategy<Value = Scenario> {
    let scaling = prop::option::weighted(0.4, scaling());
    (world_of_one_size(), scaling).prop_map(|(mut scenario, scaling)| {
        scenario.fleet.scaling = scaling;
        scenario
    })
}

fn world_of_one_size() -> impl Strategy<Value = Scenario> {
    let store = prop::option::weighted(0.3, state_store());
    let shared = prop::option::weighted(0.4, shared_cache());
    let answers = prop::option::weighted(0.6, answers());
    let kept = (answers, prop::option::weighted(0.5, coalescing()));
    (world_without_store(), store, shared, kept).prop_map(|(mut scenario, store, shared, kept)| {
        (scenario.gateway.answers, scenario.gateway.coalescing) = kept;
        // Odd prices, so that what is over has to wait.
        scenario.fleet.token_prices = shared.as_ref().map(|cache| TokenPricesSpec {
            input: Money(NanoUsd(3_000_001)),
            cached_input: Some(Money(NanoUsd(cache.capacity))),
            output: Money(NanoUsd(15_000_007)),
            ..TokenPricesSpec::default()
        });
        scenario.fleet.shared_cache = shared.filter(|_| scenario.fleet.pools.is_empty());
        let Some((mut store, blackout)) = store else {
            return scenario;
        };
        if scenario.fleet.telemetry.counted == Counted::UntilLastStep {
            store.gateways = 1;
        }
        scenario.gateway.state_store = Some(store);
        scenario.faults.extend(blackout);
        scenario
    })
}

fn world_without_store() -> impl Strategy<Value = Scenario> {
    let network = (delay(), delay(), delay());
    let telemetry = (delay(), delay(), any::<(bool, bool)>());
    let frontend = (delay(), delay(), delay());
    let gateway = (
        routing(),
        prop::option::of(1_u32..4),
        prop::option::of(0_u32..4),
        0_u8..6,
    );
    let end = prop_oneof![2 => Just(None), 1 => (1_u64..80 * U).prop_map(Some)];
    let faults = prop_oneof![Just(Vec::new()), prop::collection::vec(fault(), 1..4),];
    let trouble = (faults, pipeline());
    let rest = (
        end,
        any::<bool>(),
        prop::option::of(time()),
        any::<bool>(),
        trouble,
    );
    let clients = (clients(), gateway);
    (llm(), frontend, 1_u32..4, network, telemetry, clients, rest).prop_map(
        |(mut engine, frontend, replicas, network, telemetry, clients, rest)| {
            let (clients, gateway) = clients;
            let (end, check, deadline, station, (faults, pipeline)) = rest;
            let mut scenario = plain();
            scenario.clients = clients;
            engine.frontend = FrontendSpec {
                input: frontend.0,
                per_token: frontend.1,
                completion: frontend.2,
            };
            let fleet = &mut scenario.fleet;
            fleet.replicas = replicas;
            fleet.engine = EngineSpec::Continuous(Box::new(engine));
            if station {
                fleet.pools.push(PoolSpec {
                    token_prices: None,
                    error_rate: check.then_some(0.2),
                    name: "kernels".to_owned(),
                    replicas: 1,
                    engine: EngineSpec::Station(StationSpec {
                        servers: 2,
                        queue_limit: Some(3),
                        order: StationOrder::Sharing,
                        ..StationSpec::default()
                    }),
                });
            }
            (
                fleet.network.client_to_gateway,
                fleet.network.gateway_to_replica,
            ) = (network.0, network.1);
            let (period, lag, (on_decision, last_step)) = telemetry;
            (fleet.telemetry.period, fleet.telemetry.delay) = (period, lag);
            if on_decision {
                fleet.telemetry.refresh = TelemetryRefresh::OnDecision;
                fleet.telemetry.cache_period = lag;
            }
            if last_step {
                fleet.telemetry.counted = Counted::UntilLastStep;
            }
            let (routing, max_in_flight, limit, kind) = gateway;
            scenario.gateway.latency = network.2;
            scenario.gateway.routing = routing;
            scenario.gateway.queue.max_in_flight = max_in_flight;
            scenario.gateway.queue.limit = limit;
            scenario.gateway.queue.order = match kind % 5 {
                0 => QueueOrder::Fcfs,
                1 => QueueOrder::Priority,
                2 => QueueOrder::RoundRobin,
                3 => QueueOrder::Vtc,
                _ => QueueOrder::Lifo,
            };
            scenario.gateway.admission = match kind {
                0 => AdmissionSpec::ConcurrencyLimit { limit: 5 },
                1 => AdmissionSpec::TokenBucket {
                    rate: Rate(100.0),
                    burst: 3,
                },
                _ => AdmissionSpec::Open,
            };
            // With a station there are two pools, and sometimes they are told apart.
            if station && kind < 4 {
                scenario.gateway.paths = Some(paths(kind, max_in_flight.unwrap_or(0)));
            }
            scenario.gateway.pipeline = pipeline;
            // Who fails is left alone for a while, or not.
            let k = kind % 3;
            scenario.gateway.outlier_detection = (k > 0).then(|| OutlierDetectionSpec {
                consecutive_5xx: k.into(),
                base_ejection_time: Span(SimDuration::from_nanos(3 * U / 2)),
                max_ejection_percent: 60.0,
                ..OutlierDetectionSpec::default()
            });
            scenario.faults = faults;
            if let Some(paths) = &scenario.gateway.paths {
                // Nobody probes a kernel that is not there.
                let at = if paths.probing.is_some() { 30 } else { 5 };
                scenario.faults.push(FaultSpec::KernelDrift {
                    at: span(10),
                    lasts: None,
                    kernel: "k".to_owned(),
                    excess: 0.7,
                    over: Span::default(),
                    every: None,
                });
                scenario.faults.push(FaultSpec::KernelEvicted {
                    at: span(at),
                    lasts: span(60),
                    kernel: "k".to_owned(),
                });
            }
            scenario.run.cut_off = end.map(|ns| Span(SimDuration::from_nanos(ns)));
            scenario.verification = check.then(|| verifier(kind));
            let class = |priority, deadline: Option<u64>| ClassSpec {
                priority,
                deadline: deadline.map(|ns| Span(SimDuration::from_nanos(ns))),
                ttft: Some(Span(SimDuration::from_nanos(20 * U))),
                unverified: match priority {
                    0 => Unverified::Hold,
                    _ => Unverified::Refuse,
                },
                fail: Fail::Closed,
                ..ClassSpec::default()
            };
            scenario.classes.insert("default".into(), class(1, None));
            scenario.classes.insert("urgent".into(), class(0, deadline));
            scenario
        },
    )
}
