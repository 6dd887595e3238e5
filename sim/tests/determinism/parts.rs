//! Random parts of worlds: pools, stores, caches, and fleets that scale.

use crate::common::{U, span};
use crate::worlds::{delay, time};
use proptest::prelude::*;
use windtunnel_base::quantity::{Bandwidth, Money, Power, Rate, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_base::units::NanoUsd;
use windtunnel_engine::refill::RefillWhen;
use windtunnel_scenarios::schema::ladder::{EvidenceSpec, LadderSpec, LevelSpec};
use windtunnel_scenarios::schema::paths::{
    Checked, EvictionSpec, Instead, KernelSpec, LeakageSpec, OnReject, PathsSpec,
};
use windtunnel_scenarios::schema::probing::{DetectorSpec, ProbingSpec, ReferenceSpec};
use windtunnel_scenarios::schema::rollout::{RolloutSpec, RolloutStage, SequentialTestSpec};
use windtunnel_scenarios::schema::scaling::{
    ScalingPolicySpec, ScalingRuleSpec, ScalingSignalSpec, ScalingSpec, ScheduledReplicas,
};
use windtunnel_scenarios::schema::shared_cache::{Prefetch, SharedCacheSpec};
use windtunnel_scenarios::schema::state_store::{BlackoutRule, StateStoreSpec};
use windtunnel_scenarios::schema::{FaultSpec, VerificationSpec};

/// A kernel for the urgent ones, on the last pool.
pub(crate) fn paths(kind: u8, variety: u32) -> PathsSpec {
    let (jittered, overflow) = match kind % 4 {
        0 => (true, Some(Instead::Queue)),
        1 => (false, Some(Instead::Queue)),
        2 => (true, Some(Instead::StaleAnswer)),
        _ => (true, Some(Instead::StaleKernel)),
    };
    PathsSpec {
        kernels: vec![KernelSpec {
            name: "k".to_owned(),
            class: "urgent".to_owned(),
            pool: "kernels".to_owned(),
        }],
        eviction: match jittered {
            true => EvictionSpec::Jittered {
                over: span(20),
                jitter: span(5),
                meanwhile: match overflow {
                    Some(same @ (Instead::StaleAnswer | Instead::Queue)) => same,
                    _ => Instead::Reject,
                },
            },
            false => EvictionSpec::Step,
        },
        leakage: overflow.map(|overflow| LeakageSpec {
            capacity: Rate(20.0),
            u_max: 0.8,
            burst: span(10),
            window: span(40),
            overflow,
            overflow_by_class: Default::default(),
        }),
        checked: match kind % 3 {
            0 => Checked::Kernels,
            _ => Checked::All,
        },
        on_reject: match kind % 2 {
            0 => OnReject::Frontier,
            _ => OnReject::Deliver,
        },
        // Two kinds of four probe, each in its own way; one difference raises an alarm.
        probing: kind.is_multiple_of(2).then(|| ProbingSpec {
            share: 0.8,
            reference: match kind % 4 {
                0 => ReferenceSpec::Frontier,
                _ => ReferenceSpec::Verifier { latency: span(1) },
            },
            price: Money(NanoUsd(1_000_003)),
            sensitivity: 0.9,
            specificity: 0.9,
            detector: DetectorSpec::LogLikelihood {
                p0: 0.05,
                p1: 0.25,
                h: 1.0,
            },
            rebuild: kind.is_multiple_of(4).then(|| span(10)),
        }),
        // The others come into use step by step; one outcome decides.
        rollouts: (kind % 2 == 1)
            .then(|| ("k".to_owned(), rollout(variety)))
            .into_iter()
            .collect(),
        ..PathsSpec::default()
    }
}

/// All kinds of stages, each soon passed or failed.
fn rollout(kind: u32) -> RolloutSpec {
    let replay = RolloutStage::Replay {
        samples: 2,
        lasts: span(3),
    };
    let assist = RolloutStage::Assist {
        share: 0.9,
        accept_bad: 0.5,
        accept_good: 0.8,
        latency: span(1),
        price: Money(NanoUsd(1_000_007)),
    };
    let canary = RolloutStage::Canary { share: 0.8 };
    let shadow = RolloutStage::Shadow { share: 0.9 };
    let stages = match kind % 4 {
        0 => vec![canary, RolloutStage::Full {}],
        1 => vec![assist, canary],
        2 => vec![replay, shadow, RolloutStage::Full {}],
        _ => vec![shadow, assist, canary],
    };
    RolloutSpec {
        stages,
        test: SequentialTestSpec {
            p0: 0.05,
            p1: 0.6,
            beta: 0.45,
            ..SequentialTestSpec::default()
        },
        reference: match kind % 2 {
            0 => ReferenceSpec::Frontier,
            _ => ReferenceSpec::Verifier { latency: span(0) },
        },
        price: Money(NanoUsd(1_000_003)),
        sensitivity: 0.9,
        propagation: span(2),
        ..RolloutSpec::default()
    }
}

/// One verifier, or a cheap one before a dear one.
pub(crate) fn verifier(kind: u8) -> VerificationSpec {
    let level = |name: &str, evidence, units, price| LevelSpec {
        name: name.to_owned(),
        evidence,
        latency: span(units),
        price: Money(NanoUsd(price)),
        power: Power(3.0),
    };
    let test = EvidenceSpec::Test {
        sensitivity: 0.6,
        specificity: 0.8,
    };
    let ladder = LadderSpec {
        prior: Some(0.5),
        levels: vec![
            level("test", test, 2, 10),
            level("judge", EvidenceSpec::Score { separation: 2.0 }, 7, 1000),
        ],
        ..LadderSpec::default()
    };
    VerificationSpec {
        ladder: (kind % 3 != 1).then_some(ladder),
        ..VerificationSpec::default()
    }
}

/// A store that is slow, shared, and sometimes gone.
pub(crate) fn state_store() -> impl Strategy<Value = (StateStoreSpec, Option<FaultSpec>)> {
    let rules = (1_u32..4, any::<(bool, bool, bool)>());
    let outage = (time(), time());
    let spans = (delay(), delay(), delay(), delay());
    (rules, outage, spans).prop_map(
        |(
            (gateways, (refuse, persistent, fails)),
            (at, lasts),
            (service, trip, batch, refresh),
        )| {
            let span = |ns| Span(SimDuration::from_nanos(ns));
            let store = StateStoreSpec {
                service,
                round_trip: trip,
                gateways,
                write_batch: batch,
                refresh,
                timeout: span(5 * U),
                retry_after: batch,
                on_blackout: if refuse {
                    BlackoutRule::Refuse
                } else {
                    BlackoutRule::LastKnownGood
                },
                persistent,
                failover: None,
            };
            let blackout = FaultSpec::StoreBlackout {
                at: span(at),
                lasts: span(lasts),
            };
            (store, fails.then_some(blackout))
        },
    )
}

/// A shared cache that is small, and as slow as computing.
pub(crate) fn shared_cache() -> impl Strategy<Value = SharedCacheSpec> {
    let refill = prop_oneof![
        3 => Just(RefillWhen::IfFaster),
        3 => Just(RefillWhen::Always),
        1 => Just(RefillWhen::Never),
    ];
    let prefetch = prop_oneof![
        Just(Prefetch::Off),
        Just(Prefetch::OnAffinity),
        Just(Prefetch::Always),
    ];
    (4_u64..400, 1_u64..U / 4, delay(), refill, prefetch).prop_map(
        |(capacity, per_token, latency, refill, prefetch)| SharedCacheSpec {
            capacity,
            // The model's bytes per token.
            bandwidth: Bandwidth(131_072.0 / (per_token as f64 * 1e-9)),
            latency,
            refill,
            prefetch,
            ..SharedCacheSpec::default()
        },
    )
}

/// Who looks at what; all signals, a forecast and a timetable.
fn scaling_policy() -> impl Strategy<Value = ScalingPolicySpec> {
    let signal = prop_oneof![
        (0.3_f64..3.0).prop_map(|target| ScalingSignalSpec::QueueDepth { target }),
        (0.3_f64..3.0).prop_map(|target| ScalingSignalSpec::Running { target }),
        (0.3_f64..3.0).prop_map(|target| ScalingSignalSpec::Concurrency { target }),
        (0.1_f64..1.0).prop_map(|target| ScalingSignalSpec::KvUsage { target }),
        Just(ScalingSignalSpec::Ttft {
            target: span(10),
            quantile: 0.5,
        }),
        Just(ScalingSignalSpec::Cpu {
            target: 0.5,
            correlation: 0.5,
            mean: 0.5,
            deviation: 0.3,
        }),
    ];
    prop_oneof![
        4 => (signal, delay())
            .prop_map(|(signal, window)| ScalingPolicySpec::Reactive { signal, window }),
        1 => (20.0_f64..400.0, any::<bool>()).prop_map(|(rate, season)| {
            ScalingPolicySpec::Predictive {
                per_replica: Rate(rate),
                level: 0.6,
                trend: 0.3,
                season: season.then_some(span(40)),
                seasonal: 0.5,
                work_off: season.then_some(span(20)),
            }
        }),
        1 => (time(), 1_u32..5).prop_map(|(at, replicas)| ScalingPolicySpec::Scheduled {
            at: vec![ScheduledReplicas {
                from: Span(SimDuration::from_nanos(at)),
                replicas,
            }],
            every: Some(span(70)),
        }),
    ]
}

/// Replicas that come and go all the time.
pub(crate) fn scaling() -> impl Strategy<Value = ScalingSpec> {
    let rule = |most| ScalingRuleSpec {
        stabilization: Some(span(3)),
        replicas: Some(most),
        percent: None,
        per: Some(span(4)),
    };
    // Looks as seldom as makes them bearable: each weighs all that are in its windows.
    let times = (U / 64..12 * U, prop_oneof![Just(0), 0_u64..30 * U]);
    (scaling_policy(), times, 1_u32..3).prop_map(move |(policy, (period, boot), most)| {
        ScalingSpec {
            pool: None,
            min_replicas: 1,
            max_replicas: 5,
            provisioning: Span(SimDuration::from_nanos(boot)),
            period: Span(SimDuration::from_nanos(period)),
            tolerance: 0.1,
            policy,
            scale_up: rule(most),
            scale_down: rule(2),
        }
    })
}
