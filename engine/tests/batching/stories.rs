//! Stories of a few requests, step by step. A step takes a microsecond whatever it computes, so a
//! step's number is its end in microseconds.

use crate::harness::{Call, Job, Log, built, drive, submit};
use windtunnel_base::quantity::{Bandwidth, Bytes, Span};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::config::{
    ContinuousSpec, CostSpec, EngineSpec, KvSpec, LengthBuckets, LengthKind, LinearSpec,
    PreemptionKind, PrefixVisibility, SchedulerKind, SchedulerSpec,
};
use windtunnel_engine::engine::Outcome;
use windtunnel_engine::replica::Replica;

pub(crate) const STEP: u64 = 1000;

pub(crate) fn engine(scheduler: SchedulerSpec, kv: KvSpec) -> Replica {
    let spec = ContinuousSpec {
        scheduler,
        kv,
        cost: CostSpec::Linear(LinearSpec {
            base: Some(Span(SimDuration::from_nanos(STEP))),
            ..LinearSpec::default()
        }),
        ..ContinuousSpec::default()
    };
    built(&EngineSpec::Continuous(Box::new(spec)))
}

pub(crate) fn scheduler(
    kind: SchedulerKind,
    token_budget: u32,
    max_num_seqs: u32,
) -> SchedulerSpec {
    SchedulerSpec {
        kind,
        token_budget,
        max_num_seqs,
        ..SchedulerSpec::default()
    }
}

pub(crate) fn memory(block_size: u32, blocks: u64) -> KvSpec {
    KvSpec {
        block_size,
        blocks: Some(blocks),
        watermark: 0.0,
        prefix_cache: false,
        ..KvSpec::default()
    }
}

/// Submits the first job at zero, where it starts alone, and the others during its first step.
pub(crate) fn one_then_rest(engine: &mut Replica, jobs: &[Job]) -> Log {
    let rest = (1..jobs.len() as u32).map(|id| (STEP / 2, Call::Submit(id)));
    let calls: Vec<_> = std::iter::once((0, Call::Submit(0))).chain(rest).collect();
    drive(engine, jobs, &calls, true)
}

/// New prompt tokens and decoding requests of each step.
pub(crate) fn work(log: &Log) -> Vec<(u64, u32)> {
    let shapes = log.steps.iter().map(|s| s.2);
    shapes.map(|s| (s.prefill_tokens, s.decode_seqs)).collect()
}

#[test]
fn a_long_prompt_is_chunked_around_decoding_requests() {
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 8, 4), memory(4, 100));
    let log = one_then_rest(&mut engine, &[Job::new(5, 3), Job::new(10, 2)]);
    let expected = [
        (5, 0), // the first prompt alone: the second came during this step
        (7, 1), // it decodes, and 7 of the second prompt's 10 tokens fill the budget
        (3, 1), // the rest of the prompt; both emit, the first is done
        (0, 1), // the second's second and last token
    ];
    assert_eq!(work(&log), expected);
    assert_eq!(
        (log.first_token(0), log.finished(0)),
        (Some(STEP), Some(3 * STEP))
    );
    assert_eq!(
        (log.first_token(1), log.finished(1)),
        (Some(3 * STEP), Some(4 * STEP))
    );
    // Two gaps of the first, one of the second.
    assert_eq!(log.gaps.get(&(0, STEP)), Some(&3));
    let last_chunk = log.steps[2].2;
    assert_eq!(
        last_chunk.prefill_pairs,
        3 * 7 + 6,
        "3 new tokens after 7: 8 + 9 + 10 pairs"
    );
    assert_eq!(
        (
            last_chunk.prefill_context,
            last_chunk.prefill_prompt_products
        ),
        (7, 30)
    );
    assert_eq!((last_chunk.sampled, last_chunk.decode_context), (2, 6));
}

#[test]
fn the_threshold_lets_short_prompts_pass_beside_long_ones() {
    let with_threshold = SchedulerSpec {
        long_prefill_threshold: Some(4),
        ..scheduler(SchedulerKind::Chunked, 8, 4)
    };
    let mut engine = engine(with_threshold, memory(4, 100));
    let log = one_then_rest(&mut engine, &[Job::new(12, 1), Job::new(3, 1)]);
    let expected = [
        (4, 0), // no more than the threshold of the long prompt, though the budget is 8
        (7, 0), // 4 more, and the short prompt whole
        (4, 0),
    ];
    assert_eq!(work(&log), expected);
    assert_eq!(
        (log.finished(0), log.finished(1)),
        (Some(3 * STEP), Some(2 * STEP))
    );
}

#[test]
fn orca_computes_prompts_whole_and_lets_one_exceed_the_budget_alone() {
    let mut engine = engine(scheduler(SchedulerKind::Fcfs, 8, 4), memory(4, 100));
    let jobs = [
        Job::new(2, 9),
        Job::new(20, 1),
        Job::new(3, 1),
        Job::new(4, 1),
    ];
    let log = one_then_rest(&mut engine, &jobs);
    let expected = [
        (2, 0),
        (20, 1), // larger than the budget: alone among prompts, beside the decoding request
        (7, 1),  // the next two together fill it
    ];
    assert_eq!(work(&log)[..3], expected);
}

#[test]
fn a_static_batch_runs_until_its_last_request_is_done() {
    let jobs = [
        Job::new(1, 1),
        Job::new(2, 2),
        Job::new(3, 5),
        Job::new(4, 1),
    ];
    let mut fixed = engine(scheduler(SchedulerKind::Static, 8, 2), memory(4, 100));
    let log = one_then_rest(&mut fixed, &jobs);
    // 0 alone; 1 and 2 are a batch of five steps; 3 waits for its end though a slot is free.
    let ends: Vec<_> = (0..4).map(|id| log.finished(id)).collect();
    assert_eq!(ends, [1, 3, 6, 7].map(|step| Some(step * STEP)));
    let mut joining = engine(scheduler(SchedulerKind::Fcfs, 8, 2), memory(4, 100));
    let log = one_then_rest(&mut joining, &jobs);
    let ends: Vec<_> = (0..4).map(|id| log.finished(id)).collect();
    assert_eq!(ends, [1, 3, 6, 4].map(|step| Some(step * STEP)));
}

#[test]
fn similar_lengths_share_a_static_batch() {
    let jobs = [
        Job::new(1, 1),
        Job::new(20, 3),
        Job::new(2, 1),
        Job::new(10, 1),
        Job::new(30, 1),
        Job::new(4, 2),
    ];
    let run = |bounds: Vec<u32>, padded_prompts| {
        let by = LengthKind::Prompt;
        let limits = SchedulerSpec {
            padded_prompts,
            length_buckets: Some(LengthBuckets { by, bounds }),
            ..scheduler(SchedulerKind::Static, 8, 4)
        };
        one_then_rest(&mut engine(limits, memory(4, 100)), &jobs)
    };
    let finished = |log: &Log| [1, 2, 3, 4, 5].map(|id| log.finished(id).map(|at| at / STEP));
    // 0 alone; then the bucket of 1, who waits longest, without 3, which is as long as the bound; then the
    // others.
    let log = run(vec![10], false);
    assert_eq!(finished(&log), [4, 5, 5, 2, 6].map(Some));
    assert_eq!(work(&log)[1..], [(50, 0), (0, 1), (0, 1), (16, 0), (0, 1)]);
    let room = |log: &Log| log.steps.iter().map(|s| s.2.room).collect::<Vec<_>>();
    // One of two is done after the first step, and then two of three.
    assert_eq!(room(&log), [1, 50, 2, 2, 16, 3]);
    // Padded to 30, and to 10.
    assert_eq!(room(&run(vec![10], true)), [1, 60, 2, 2, 30, 3]);
    // A bucket for all: as without any.
    let log = run(vec![100], false);
    assert_eq!(finished(&log), [4, 2, 2, 2, 6].map(Some));
}

#[test]
fn padded_prompts_take_the_time_of_the_longest() {
    let time = |padded_prompts| {
        let spec = ContinuousSpec {
            scheduler: SchedulerSpec {
                padded_prompts,
                ..scheduler(SchedulerKind::Static, 8, 3)
            },
            kv: memory(4, 1000),
            cost: CostSpec::Linear(LinearSpec {
                base: Some(Span(SimDuration::from_nanos(STEP))),
                per_prefill_token: Some(Span(SimDuration::from_nanos(10))),
                ..LinearSpec::default()
            }),
            ..ContinuousSpec::default()
        };
        let jobs = [5, 40, 15, 5].map(|prompt| Job::new(prompt, 1));
        let mut engine = built(&EngineSpec::Continuous(Box::new(spec)));
        one_then_rest(&mut engine, &jobs).finished(1)
    };
    // The first is alone.
    let alone = STEP + 5 * 10;
    assert_eq!(time(false), Some(alone + STEP + 60 * 10));
    assert_eq!(time(true), Some(alone + STEP + 3 * 40 * 10));
}

#[test]
fn steps_begin_where_the_last_one_ended_between_nanoseconds() {
    let spec = ContinuousSpec {
        kv: memory(4, 1000),
        cost: CostSpec::Linear(LinearSpec {
            base: Some(Span(SimDuration::from_nanos(STEP))),
            per_kilo_context: Some(Span(SimDuration::from_nanos(100))),
            ..LinearSpec::default()
        }),
        ..ContinuousSpec::default()
    };
    // A prompt of one token, then steps of 1000.1, 1000.2, 1000.3, ... ns: rounded up one by one
    // they would end three times as far from whole microseconds.
    let jobs = [Job::new(1, 11), Job::new(1, 2), Job::new(1, 1)];
    let calls = [(0, Call::Submit(0)), (20_000, Call::Submit(1))];
    let mut engine = built(&EngineSpec::Continuous(Box::new(spec.clone())));
    let log = drive(&mut engine, &jobs, &calls, true);
    let ends: Vec<_> = log.steps.iter().map(|s| s.1).collect();
    // The sums of 0.1 to 1.0 are 0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8, 3.6, 4.5, 5.5.
    let late = [0, 1, 1, 1, 1, 2, 3, 3, 4, 5, 6];
    let first: Vec<_> = (1..).zip(late).map(|(n, late)| n * STEP + late).collect();
    assert_eq!(ends[..11], first);
    // Who finds the replica idle starts at a whole nanosecond.
    assert_eq!(ends[11..], [21_000, 22_001]);
    // Who waited while others ran begins where they ended: at 2000.1, not at 2001.
    let one_slot = ContinuousSpec {
        scheduler: scheduler(SchedulerKind::Chunked, 64, 1),
        ..spec
    };
    let mut engine = built(&EngineSpec::Continuous(Box::new(one_slot)));
    let calls = [(0, 1), (500, 2), (500, 0)].map(|(at, id)| (at, Call::Submit(id)));
    let log = drive(&mut engine, &jobs, &calls, true);
    let ends: Vec<_> = log.steps.iter().map(|s| s.1).take(5).collect();
    assert_eq!(ends, [1000, 2001, 3001, 4001, 5001]);
}

/// Two requests that grow until the memory of 6 blocks of 2 tokens is short.
const RIVALS: [(u32, u32); 2] = [(4, 6), (4, 6)];

fn rivals() -> Vec<Job> {
    RIVALS.iter().map(|&(p, o)| Job::new(p, o)).collect()
}

#[test]
fn the_last_request_is_preempted_and_computed_again() {
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 8, 4), memory(2, 6));
    let log = one_then_rest(&mut engine, &rivals());
    let expected = [
        (4, 0), // step 1: 2 blocks
        (4, 1), // 2: the first takes its 3rd block, the second its 2
        (0, 2), // 3: the second takes its 3rd: all 6 are held
        (0, 1), // 4: the first needs a 4th: the second goes, with 2 tokens out
        (0, 1), // 5: the second needs 3 blocks for 4 + 2 tokens; 2 are free
        (0, 1), // 6: the first takes its 5th and is done
        (6, 0), // 7: prompt and both tokens of the second are computed; its third comes out
        (0, 1),
        (0, 1),
        (0, 1), // 10: its sixth
    ];
    assert_eq!(work(&log), expected);
    let preempted = Outcome::Preempted { generated: 2 };
    assert_eq!(
        log.times(1, |o| matches!(o, Outcome::Preempted { .. })),
        [3 * STEP]
    );
    assert!(log.outcomes.contains(&(3 * STEP, 1, preempted)));
    assert_eq!(
        log.times(1, |o| matches!(o, Outcome::Started { .. })),
        [STEP, 6 * STEP]
    );
    assert_eq!(
        (log.finished(0), log.finished(1)),
        (Some(6 * STEP), Some(10 * STEP))
    );
    assert_eq!(
        log.gaps.get(&(0, 4 * STEP)),
        Some(&1),
        "the gap spans the preemption"
    );
    assert_eq!(log.gaps.get(&(0, STEP)), Some(&9));
}

#[test]
fn a_swapped_request_comes_back_as_it_was() {
    let kv = KvSpec {
        preemption: PreemptionKind::Swap,
        swap_space: Bytes(3 * 2 * 131_072),
        swap_bandwidth: Bandwidth(1e15),
        ..memory(2, 6)
    };
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 8, 4), kv);
    let log = one_then_rest(&mut engine, &rivals());
    // As above up to step 6; then nothing is computed again, and the last token comes a step later
    // than its fourth, fifth and sixth follow its third.
    assert_eq!(work(&log)[6..], [(0, 1); 4]);
    let swaps: Vec<_> = log.steps.iter().map(|s| s.2.swap_bytes).collect();
    let three_blocks = 3 * 2 * 131_072;
    assert_eq!(swaps, [0, 0, 0, three_blocks, 0, 0, three_blocks, 0, 0, 0]);
    // Its bytes cost time: 786,432 bytes at 1 PB/s are rounded up to a nanosecond.
    assert_eq!(log.steps[3].1 - log.steps[3].0, STEP + 1);
    assert_eq!(
        log.times(1, |o| matches!(o, Outcome::Started { .. })).len(),
        1
    );
    assert!(log.finished(1).is_some());
}

#[test]
fn priorities_choose_who_waits_and_who_goes() {
    let mut engine = engine(scheduler(SchedulerKind::Priority, 8, 4), memory(2, 6));
    // The first has the worse priority: it is the one to go, though it came first.
    let jobs = [Job::new(4, 6).priority(1), Job::new(4, 6).priority(0)];
    let log = one_then_rest(&mut engine, &jobs);
    assert_eq!(
        log.times(0, |o| matches!(o, Outcome::Preempted { .. }))
            .len(),
        1
    );
    assert_eq!(
        log.times(1, |o| matches!(o, Outcome::Preempted { .. }))
            .len(),
        0
    );
    let mut one_slot = self::engine(scheduler(SchedulerKind::Priority, 8, 1), memory(2, 50));
    let jobs = [0, 2, 1, 1].map(|priority| Job::new(4, 1).priority(priority));
    let log = one_then_rest(&mut one_slot, &jobs);
    let ends: Vec<_> = (0..4).map(|id| log.finished(id)).collect();
    assert_eq!(ends, [1, 4, 2, 3].map(|step| Some(step * STEP)));
}

#[test]
fn the_shortest_predicted_work_goes_first() {
    let mut engine = engine(scheduler(SchedulerKind::Shortest, 8, 1), memory(2, 50));
    let job = |prompt, predicted| Job {
        predicted,
        ..Job::new(prompt, 1)
    };
    let jobs = [job(4, None), job(4, Some(9)), job(6, Some(2)), job(8, None)];
    let log = one_then_rest(&mut engine, &jobs);
    let ends: Vec<_> = (0..4).map(|id| log.finished(id)).collect();
    assert_eq!(ends, [1, 4, 2, 3].map(|step| Some(step * STEP)));
}

#[test]
fn the_watermark_keeps_blocks_for_those_who_run() {
    let kv = KvSpec {
        watermark: 0.2, // 2 of 10 blocks
        ..memory(4, 10)
    };
    let jobs = [Job::new(16, 3), Job::new(16, 1), Job::new(36, 1)];
    let mut strict = engine(scheduler(SchedulerKind::Chunked, 64, 4), kv);
    let log = one_then_rest(&mut strict, &jobs);
    // While the first holds 5, taking 4 would leave 1. The last needs 9 of 10 blocks: alone, it may.
    let ends: Vec<_> = (0..3).map(|id| log.finished(id)).collect();
    assert_eq!(ends, [3, 4, 5].map(|step| Some(step * STEP)));
    let mut loose = engine(scheduler(SchedulerKind::Chunked, 64, 4), memory(4, 10));
    let log = one_then_rest(&mut loose, &jobs);
    assert_eq!(log.finished(1), Some(2 * STEP));
}

#[test]
fn a_whole_prompt_must_fit_where_that_is_asked() {
    let kv = |reserve_full_prompt| KvSpec {
        reserve_full_prompt,
        ..memory(4, 10)
    };
    let jobs = [Job::new(16, 3), Job::new(24, 1)];
    let limits = scheduler(SchedulerKind::Chunked, 16, 4);
    // 15 tokens of budget are left beside the first: 4 blocks of the second's 6, where 5 are free.
    let log = one_then_rest(&mut engine(limits.clone(), kv(false)), &jobs);
    assert_eq!(work(&log)[1], (15, 1));
    let log = one_then_rest(&mut engine(limits, kv(true)), &jobs);
    assert_eq!(work(&log)[1], (0, 1));
}

#[test]
fn prefixes_are_found_when_they_become_visible() {
    let shared = [(7, 8)];
    // 1 and 2 join together in step 2, 3 in step 3. Prompts of 9 tokens, 8 of them shared.
    let jobs = [
        Job::new(1, 9),
        Job::new(9, 2).sharing(&shared),
        Job::new(9, 2).sharing(&shared),
        Job::new(9, 2).sharing(&shared),
        Job::new(9, 2).sharing(&shared),
    ];
    let calls = [(0, 0), (500, 1), (500, 2), (1500, 3), (4500, 4)];
    let calls = calls.map(|(at, id)| (at, Call::Submit(id)));
    let hits = |visibility| {
        let kv = KvSpec {
            visibility,
            prefix_cache: true,
            ..memory(4, 100)
        };
        let mut engine = engine(scheduler(SchedulerKind::Chunked, 64, 8), kv);
        let log = drive(&mut engine, &jobs, &calls, true);
        let started = |id| {
            log.outcomes.iter().find_map(|o| match o.2 {
                Outcome::Started { cached_tokens } if o.1 == id => Some(cached_tokens),
                _ => None,
            })
        };
        [1, 2, 3, 4].map(|id| started(id).unwrap())
    };
    assert_eq!(hits(PrefixVisibility::OnSchedule), [0, 8, 8, 8]);
    assert_eq!(hits(PrefixVisibility::OnComputed), [0, 0, 8, 8]);
    assert_eq!(hits(PrefixVisibility::OnFinish), [0, 0, 0, 8]);
}

#[test]
fn a_prompt_in_cache_computes_its_last_token_still() {
    let kv = KvSpec {
        prefix_cache: true,
        ..memory(4, 100)
    };
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 64, 8), kv);
    let jobs = [
        Job::new(8, 1).sharing(&[(1, 8)]),
        Job::new(8, 1).sharing(&[(1, 8)]),
    ];
    let calls = [
        (0, Call::Submit(0)),
        (5000, Call::Peek),
        (5000, Call::Submit(1)),
    ];
    let log = drive(&mut engine, &jobs, &calls, true);
    // Both blocks are there, but 7 of 8 tokens may come from them: one whole block.
    assert_eq!(log.peeks[0], (5000, 4));
    assert_eq!(work(&log), [(8, 0), (4, 0)]);
}

#[test]
fn the_next_turn_finds_the_answer_in_cache() {
    let kv = KvSpec {
        prefix_cache: true,
        ..memory(4, 100)
    };
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 64, 8), kv);
    let jobs = [
        Job {
            continues: true,
            ..Job::new(8, 6).sharing(&[(1, 8)])
        },
        Job::new(20, 1).sharing(&[(1, 14), (2, 6)]),
    ];
    let calls = [(0, Call::Submit(0)), (20_000, Call::Submit(1))];
    let log = drive(&mut engine, &jobs, &calls, true);
    // 8 tokens of prompt and 5 of 6 of the answer are in KV (the last never is): 3 whole blocks.
    let started = Outcome::Started { cached_tokens: 12 };
    assert!(
        log.outcomes.contains(&(20_000, 1, started)),
        "{:?}",
        log.outcomes
    );
}

#[test]
fn a_preempted_request_finds_what_it_had_computed() {
    let found = |visibility, second: Job| {
        let kv = KvSpec {
            visibility,
            prefix_cache: true,
            ..memory(1, 12)
        };
        let mut engine = engine(scheduler(SchedulerKind::Chunked, 8, 4), kv);
        let log = one_then_rest(&mut engine, &[Job::new(4, 4), second]);
        // Step 1: the first has 4 blocks. 2: it takes its 5th, the second its 4. 3: one more each,
        // 11 of 12 are held. 4: the first takes its 7th, and the second finds none: it goes, with
        // 5 tokens in KV, the last of them generated, and 2 tokens out. The first is done.
        assert_eq!(log.finished(0), Some(4 * STEP));
        let preempted = (3 * STEP, 1, Outcome::Preempted { generated: 2 });
        assert!(log.outcomes.contains(&preempted), "{:?}", log.outcomes);
        // 5: the second needs 6 tokens in KV before its third comes out.
        let restarted = log.outcomes.iter().find_map(|o| match o.2 {
            Outcome::Started { cached_tokens } if o.0 == 4 * STEP => Some(cached_tokens),
            _ => None,
        });
        (restarted, work(&log)[4])
    };
    let plain = || Job::new(4, 6);
    let partly_shared = || plain().sharing(&[(1, 3)]);
    let chat = || Job {
        continues: true,
        ..plain().sharing(&[(1, 4)])
    };
    for job in [plain(), partly_shared(), chat()] {
        let schedule = found(PrefixVisibility::OnSchedule, job.clone());
        assert_eq!(schedule, (Some(5), (1, 0)), "{job:?}");
        // Nothing shows before the end of a request if that is the rule.
        let finish = found(PrefixVisibility::OnFinish, job);
        assert_eq!(finish, (Some(0), (6, 0)));
    }
}

#[test]
fn what_can_never_fit_is_refused_and_what_grows_too_long_is_cut() {
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 64, 8), memory(4, 10));
    let job = |prompt, max_output| Job {
        max_output,
        ..Job::new(prompt, 100)
    };
    // 10 blocks of 4 hold 40 tokens, prompt and output together.
    let jobs = [
        job(40, None),
        job(30, Some(11)),
        job(30, Some(10)),
        job(30, None),
    ];
    let mut log = Log::default();
    let mut submit = |id| submit(&mut engine, &jobs, id, SimTime::ZERO, &mut log);
    assert_eq!(submit(0), Err(Refusal::TooLong));
    assert_eq!(submit(1), Err(Refusal::TooLong));
    assert_eq!(submit(2), Ok(()));
    let mut engine = self::engine(scheduler(SchedulerKind::Chunked, 64, 8), memory(4, 10));
    let log = drive(&mut engine, &jobs, &[(0, Call::Submit(3))], true);
    assert_eq!(log.finished(3), Some(10 * STEP), "cut after 10 tokens");
    assert_eq!(engine.max_tokens_per_request(), Some(40));
}

#[test]
fn a_full_waiting_room_refuses() {
    let spec = ContinuousSpec {
        queue_limit: Some(1),
        ..ContinuousSpec::default()
    };
    let mut engine = Replica::build(&EngineSpec::Continuous(Box::new(spec))).unwrap();
    let jobs = [Job::new(4, 4), Job::new(4, 4), Job::new(4, 4)];
    let calls = [0, 1, 2].map(|id| (0, Call::Submit(id)));
    // The first starts at once; the second waits for the end of its step; there is no third place.
    let log = drive(&mut engine, &jobs, &calls, true);
    assert_eq!(log.refused, [(2, Refusal::QueueFull)]);
}

#[test]
fn a_cancelled_request_leaves_at_the_end_of_the_step() {
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 64, 1), memory(4, 100));
    let jobs = [Job::new(4, 50), Job::new(4, 2), Job::new(4, 2)];
    let calls = [
        (0, Call::Submit(0)),
        (100, Call::Submit(1)),
        (200, Call::Submit(2)),
        (2300, Call::Cancel(1)), // waits: gone at once
        (4500, Call::Cancel(0)), // runs: gone when the fifth step ends
        (4600, Call::Look),
        (9000, Call::Cancel(0)), // gone long since
    ];
    let log = drive(&mut engine, &jobs, &calls, true);
    assert!(
        log.outcomes
            .contains(&(2300, 1, Outcome::Cancelled { generated: 0 }))
    );
    assert!(
        log.outcomes
            .contains(&(5000, 0, Outcome::Cancelled { generated: 5 }))
    );
    assert_eq!((log.looks[0].1.running, log.looks[0].1.waiting), (1, 1));
    assert_eq!(log.finished(2), Some(7000));
    assert_eq!(log.cancelled, [(1, true), (0, true), (0, false)]);
}
