//! Fast-forward and stepping one by one cannot be told apart; nor can their results from those of
//! a plain engine that moves one token at a time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use crate::harness::{Call, Job, Log, drive};
use crate::naive::{Limits, Naive};
use proptest::prelude::*;
use std::sync::Arc;
use windtunnel_base::quantity::{Bandwidth, Bytes, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_engine::config::{
    Allocation, ContinuousSpec, CostSpec, EngineSpec, EvictionKind, KvSpec, LengthBuckets,
    LengthKind, LinearSpec, OperatorsSpec, PreemptionKind, PrefixVisibility, Resident, RestartKind,
    SchedulerKind, SchedulerSpec,
};
use windtunnel_engine::cost::interconnect::AllReduce;
use windtunnel_engine::cost::linear::Linear;
use windtunnel_engine::cost::operators::{
    AttentionGrid, AttentionPoint, Bins, Bucket, Composition, CurveTables, LookupTables, OPERATORS,
    OperatorTables, Operators, Plane, Series, SkewFit,
};
use windtunnel_engine::cost::{CostFn, StepModel};
use windtunnel_engine::engine::{Engine, Outcome};
use windtunnel_engine::replica::Replica;

fn kinds() -> impl Strategy<Value = SchedulerKind> {
    prop_oneof![
        1 => Just(SchedulerKind::Static),
        1 => Just(SchedulerKind::Fcfs),
        3 => Just(SchedulerKind::Chunked),
        2 => Just(SchedulerKind::Priority),
        1 => Just(SchedulerKind::Shortest),
        2 => Just(SchedulerKind::PrefillFirst),
    ]
}

/// They mean nothing to most kinds.
fn buckets() -> impl Strategy<Value = Option<LengthBuckets>> {
    let by = prop_oneof![
        Just(LengthKind::Prompt),
        Just(LengthKind::Output),
        Just(LengthKind::Total),
    ];
    let bounds = prop::collection::btree_set(1_u32..30, 1..4);
    let some = (by, bounds).prop_map(|(by, bounds)| LengthBuckets {
        by,
        bounds: bounds.into_iter().collect(),
    });
    prop::option::of(some)
}

/// The budget may be less than the requests that run where decodes are not bound by it.
pub(crate) fn schedulers() -> impl Strategy<Value = SchedulerSpec> {
    let limits = (0_u32..20, 1_u32..7, prop::option::of(1_u32..9));
    let rules = any::<(bool, bool, bool, bool, bool)>();
    (kinds(), limits, rules, buckets()).prop_map(|(kind, limits, rules, length_buckets)| {
        let (spare, max_num_seqs, long_prefill_threshold) = limits;
        let (padded_prompts, unlimited_decodes, admit_after_preemption, ..) = rules;
        let (.., async_scheduling, join_at_boundary) = rules;
        let least = if unlimited_decodes { 1 } else { max_num_seqs };
        SchedulerSpec {
            kind,
            token_budget: least + spare,
            max_num_seqs,
            long_prefill_threshold,
            padded_prompts,
            length_buckets,
            unlimited_decodes,
            admit_after_preemption,
            async_scheduling,
            join_at_boundary,
        }
    })
}

/// Memory for what a scheduler asks of it.
pub(crate) fn memory_for(scheduler: &SchedulerSpec, kv: KvSpec) -> KvSpec {
    match scheduler.unlimited_decodes {
        true => KvSpec {
            allocation: Allocation::WholePrompt,
            ..kv
        },
        false => kv,
    }
}

pub(crate) fn memories() -> impl Strategy<Value = KvSpec> {
    let visibility = prop_oneof![
        Just(PrefixVisibility::OnSchedule),
        Just(PrefixVisibility::OnComputed),
        Just(PrefixVisibility::OnFinish),
    ];
    let eviction = prop_oneof![
        Just(EvictionKind::Lru),
        Just(EvictionKind::Fifo),
        Just(EvictionKind::Lfu),
        Just(EvictionKind::Sieve),
        Just(EvictionKind::S3fifo),
    ];
    let restart = prop_oneof![
        Just(RestartKind::Everything),
        Just(RestartKind::Computed),
        Just(RestartKind::Scratch),
    ];
    (
        (1_u32..6, 4_u64..40, 0.0..0.3_f64),
        (any::<bool>(), any::<bool>(), any::<bool>(), 0_u64..12),
        (visibility, eviction, restart),
        (
            any::<bool>(),
            any::<bool>(),
            prop::option::of(500_u64..40_000),
        ),
    )
        .prop_map(|(sizes, flags, kinds, more)| KvSpec {
            prefix_ttl: more.2.map(|ns| Span(SimDuration::from_nanos(ns))),
            allocation: if more.0 {
                Allocation::WholePrompt
            } else {
                Allocation::AsComputed
            },
            spare_block: more.1,
            restart: kinds.2,
            block_size: sizes.0,
            blocks: Some(sizes.1),
            watermark: sizes.2,
            reserve_full_prompt: flags.0,
            prefix_cache: flags.1,
            visibility: kinds.0,
            eviction: kinds.1,
            preemption: if flags.2 {
                PreemptionKind::Swap
            } else {
                PreemptionKind::Recompute
            },
            swap_space: Bytes(flags.3 * u64::from(sizes.0) * 131_072),
            swap_bandwidth: Bandwidth(1e12),
            ..KvSpec::default()
        })
}

/// Coarse times, so that calls and step ends often coincide.
fn lines() -> impl Strategy<Value = LinearSpec> {
    let span = |n: u64| Some(Span(SimDuration::from_nanos(n)));
    // With 333 steps end between nanoseconds.
    let kilo = prop_oneof![Just(0_u64), Just(100_000), Just(333)];
    (1_u64..5, 0_u64..3, 0_u64..3, kilo).prop_map(move |(base, seq, token, kilo)| LinearSpec {
        base: span(base * 1000),
        per_seq: span(seq * 500),
        per_prefill_token: span(token * 500),
        per_kilo_context: span(kilo),
        max_seqs: Some(3),
        ..LinearSpec::default()
    })
}

/// Lines, and tables that look at all a step has: unequal lengths, prompts of one token, contexts
/// rounded up.
pub(crate) fn costs() -> impl Strategy<Value = CostSpec> {
    let tables = |tables: fn() -> OperatorTables| {
        CostSpec::Operators(Box::new(OperatorsSpec {
            tables: Resident(Some(Arc::new(tables()))),
            ..OperatorsSpec::default()
        }))
    };
    prop_oneof![
        4 => lines().prop_map(CostSpec::Linear),
        2 => Just(tables(curves)),
        1 => Just(tables(lookups)),
    ]
}

fn series(name: &str, base: f64, per_key: f64) -> Series {
    let points = [1_u32, 5, 16].map(|n| (n, base + per_key * f64::from(n)));
    Series::new(name, points.to_vec()).unwrap()
}

fn curves() -> OperatorTables {
    let dense = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"];
    let mut points = Vec::new();
    for (chunk, decodes) in [(0, 1), (0, 4), (8, 0), (8, 4), (16, 0)] {
        for kv in [0, 8, 64] {
            points.push(AttentionPoint {
                prefill_chunk: chunk,
                kv_prefill: if chunk > 0 { kv } else { 0 },
                n_decode: decodes,
                kv_decode: if chunk > 0 { 16 } else { kv },
                us: 0.5 + f64::from(chunk + decodes * kv) * 0.003,
            });
        }
    }
    let bins = || Bins(vec![0.2, 4.0, 32.0]);
    let mut skew = SkewFit::new(vec![0, 8], [bins(), bins(), bins(), bins()], 0.3);
    let bucket = Bucket {
        chunk: 0,
        decodes: 1,
        rate: 1,
        longest: 2,
        kv_prefill: 0,
    };
    assert!(skew.set(bucket, 1.2));
    OperatorTables::Curves(CurveTables {
        dense: dense.map(|name| series(name, 0.1, 0.02)).to_vec(),
        per_sequence: vec![series("lm_head", 0.4, 0.05)],
        attention: AttentionGrid::new(&points).unwrap(),
        skew: Some(skew),
        moe: Vec::new(),
        experts: None,
        layers: Some(2),
    })
}

fn lookups() -> OperatorTables {
    let by_tokens = OPERATORS.map(|(name, _)| series(name, 1e-4, 2e-5)).to_vec();
    let plane = |x_last: u32, per_pair: f64| {
        let keys = (1..=x_last).flat_map(|x| (0..8).map(move |y| (x, y * 6)));
        let points: Vec<_> = keys
            .map(|(x, y)| (x, y, 1e-4 + per_pair * f64::from(x * (y + 3))))
            .collect();
        Plane::exact("plane", &points).unwrap()
    };
    OperatorTables::Lookups(LookupTables {
        by_tokens,
        prefill: plane(20, 1e-6),
        decode: plane(4, 2e-6),
        layers: Some(2),
    })
}

/// The cost model of the plain engine.
fn model(cost: &CostSpec) -> StepModel {
    let seconds = |s: Option<Span>| s.map_or(0.0, |s| s.0.as_secs_f64());
    match cost {
        CostSpec::Linear(line) => StepModel::Linear(Linear {
            base: seconds(line.base),
            per_seq: seconds(line.per_seq),
            per_context: seconds(line.per_kilo_context) / 1e3,
            per_prefill_token: seconds(line.per_prefill_token),
            per_pair: 0.0,
            max_seqs: 3,
        }),
        CostSpec::Operators(spec) => {
            let composition = Composition {
                layers: 2,
                tensor_parallel: 1,
                grouped_query: true,
                all_reduce: AllReduce::default(),
                overhead: 0.0,
                calls: &spec.calls,
            };
            let tables = spec.tables.0.as_ref().unwrap();
            StepModel::Operators(Operators::new(tables, &composition).unwrap())
        }
        _ => panic!("no such cost model here"),
    }
}

pub(crate) fn jobs() -> impl Strategy<Value = Vec<Job>> {
    let prefix = prop::collection::vec((0_u64..3, 1_u32..10), 0..3);
    let job = (
        (1_u32..30, 1_u32..40, prop::option::of(1_u32..50)),
        (0_u32..3, -1_i32..2, prop::option::of(1_u32..40)),
        (prefix, any::<bool>()),
    )
        .prop_map(
            |((prompt, output, max_output), (class, priority, predicted), (p, continues))| {
                // Streams differ by place, as the contract of extents asks.
                let places = p.iter().enumerate();
                let prefix: Vec<_> = places.map(|(i, &(k, t))| (k + 10 * i as u64, t)).collect();
                let covered: u32 = prefix.iter().map(|e| e.1).sum();
                let prompt = if continues {
                    covered.max(1)
                } else {
                    prompt.max(covered)
                };
                Job {
                    max_output,
                    predicted,
                    class,
                    continues,
                    ..Job::new(prompt, output).sharing(&prefix).priority(priority)
                }
            },
        );
    prop::collection::vec(job, 1..14)
}

/// Each job is submitted once, some are cancelled, and somebody looks now and then.
pub(crate) fn calls() -> impl Strategy<Value = Vec<(u64, u8, u32)>> {
    prop::collection::vec((0_u64..60, 0_u8..10, 0_u32..14), 0..40)
}

pub(crate) fn script(
    jobs: &[Job],
    calls: &[(u64, u8, u32)],
    gap: u64,
    peek: bool,
) -> Vec<(u64, Call)> {
    let mut times: Vec<u64> = calls.iter().map(|c| c.0 * gap).collect();
    times.sort_unstable();
    let mut script = Vec::new();
    let mut submitted = 0;
    for (&at, &(_, what, whom)) in times.iter().zip(calls) {
        match what {
            0..=4 if (submitted as usize) < jobs.len() => {
                script.push((at, Call::Submit(submitted)));
                submitted += 1;
            }
            7 if peek => script.push((at, Call::Peek)),
            5 | 6 => script.push((at, Call::Cancel(whom))),
            _ => script.push((at, Call::Look)),
        }
    }
    let last = times.last().copied().unwrap_or_default();
    for id in submitted..jobs.len() as u32 {
        script.push((last + gap, Call::Submit(id)));
    }
    script
}

pub(crate) fn spec(
    scheduler: SchedulerSpec,
    kv: KvSpec,
    cost: CostSpec,
    fast_forward: bool,
) -> EngineSpec {
    EngineSpec::Continuous(Box::new(ContinuousSpec {
        scheduler,
        kv,
        cost,
        fast_forward,
        ..ContinuousSpec::default()
    }))
}

/// Everybody who was let in leaves, once, and leaves nothing behind.
pub(crate) fn check_ends(log: &Log, jobs: &[Job], engine: &Replica) {
    for id in 0..jobs.len() as u32 {
        let ends = log.times(id, |o| {
            matches!(o, Outcome::Finished | Outcome::Cancelled { .. })
        });
        let refused = log.refused.iter().any(|r| r.0 == id);
        assert_eq!(ends.len(), usize::from(!refused), "request {id} ends once");
    }
    let stats = engine.stats(windtunnel_base::time::SimTime::MAX);
    assert_eq!((stats.running, stats.waiting), (0, 0));
    assert_eq!((stats.pending_prompt_tokens, stats.kv_held), (0, 0));
    assert_eq!(engine.check_memory(true), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn fast_forward_shows_nowhere(
        scheduler in schedulers(),
        kv in memories(),
        cost in costs(),
        jobs in jobs(),
        calls in calls(),
        gap in prop_oneof![Just(500_u64), Just(1000), Just(1500), Just(7300)],
        calls_first in any::<bool>(),
        record in any::<bool>(),
        watch in any::<bool>(),
    ) {
        let kv = memory_for(&scheduler, kv);
        // Who joins as a step ends must have been told of before.
        let calls_first = calls_first || scheduler.join_at_boundary;
        let script = script(&jobs, &calls, gap, record || watch);
        let [fast, slow] = [true, false].map(|fast_forward| {
            let spec = spec(scheduler.clone(), kv.clone(), cost.clone(), fast_forward);
            let mut engine = Replica::build(&spec).unwrap();
            engine.record_cache_events(record);
            engine.watch_cache(watch);
            let log = drive(&mut engine, &jobs, &script, calls_first);
            check_ends(&log, &jobs, &engine);
            log
        });
        prop_assert_eq!(&fast.outcomes, &slow.outcomes);
        prop_assert_eq!(&fast.steps, &slow.steps);
        prop_assert_eq!(&fast.looks, &slow.looks);
        prop_assert_eq!(&fast.peeks, &slow.peeks);
        prop_assert_eq!(&fast.cache, &slow.cache);
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn a_plain_engine_agrees(
        scheduler in schedulers(),
        kv in memories(),
        cost in costs(),
        jobs in jobs(),
        calls in calls(),
        gap in prop_oneof![Just(500_u64), Just(1000), Just(7300)],
    ) {
        let kv = memory_for(&scheduler, kv);
        let kv = KvSpec { prefix_cache: false, preemption: PreemptionKind::Recompute, ..kv };
        let script = script(&jobs, &calls, gap, false);
        let mut engine = Replica::build(&spec(scheduler.clone(), kv.clone(), cost.clone(), true)).unwrap();
        let log = drive(&mut engine, &jobs, &script, true);
        let blocks = kv.blocks.unwrap_or_default();
        let whole = matches!(
            scheduler.kind,
            SchedulerKind::Static | SchedulerKind::Fcfs | SchedulerKind::PrefillFirst
        );
        let limits = Limits {
            kind: scheduler.kind,
            budget: scheduler.token_budget,
            seqs: scheduler.max_num_seqs as usize,
            cap: scheduler.long_prefill_threshold.unwrap_or(u32::MAX),
            blocks: blocks as u32,
            block_size: kv.block_size,
            watermark: (kv.watermark * blocks as f64) as u32,
            reserve: kv.reserve_full_prompt,
            whole_prompt: kv.allocation == Allocation::WholePrompt,
            spare: u32::from(kv.spare_block),
            restart: kv.restart,
            padded: scheduler.padded_prompts,
            buckets: scheduler.length_buckets.clone(),
            decodes_first: scheduler.unlimited_decodes && !whole,
            same_step: scheduler.admit_after_preemption,
            ahead: scheduler.async_scheduling,
            boundary: scheduler.join_at_boundary && !scheduler.async_scheduling,
        };
        let cost = CostFn {
            model: model(&cost),
            swap_bandwidth: 1.0,
        };
        let (times, gaps) = Naive::new(limits, &cost, jobs.len()).run(&jobs, &script);
        for (id, &(first, last)) in times.iter().enumerate() {
            let id = id as u32;
            prop_assert_eq!((log.first_token(id), log.finished(id)), (first, last), "request {}", id);
        }
        prop_assert_eq!(log.gaps, gaps);
    }
}
