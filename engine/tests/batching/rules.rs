//! The rules that engine presets are made of, each in a story counted by hand, as in
//! `stories`: a step takes a microsecond whatever it computes.

use crate::harness::{Call, Job, Log, drive};
use crate::stories::{STEP, engine, memory, one_then_rest, scheduler, work};
use windtunnel_engine::config::{Allocation, KvSpec, RestartKind, SchedulerKind, SchedulerSpec};
use windtunnel_engine::engine::Outcome;

fn preemptions(log: &Log, request: u32) -> Vec<u64> {
    log.times(request, |o| matches!(o, Outcome::Preempted { .. }))
}

/// A request whose limit is the length of its output, so that its end is foreseen.
fn limited(prompt: u32, output: u32) -> Job {
    Job {
        max_output: Some(output),
        ..Job::new(prompt, output)
    }
}

#[test]
fn decodes_go_first_and_prompts_get_what_they_leave() {
    let sarathi = SchedulerSpec {
        unlimited_decodes: true,
        ..scheduler(SchedulerKind::Chunked, 4, 128)
    };
    let kv = KvSpec {
        allocation: Allocation::WholePrompt,
        ..memory(4, 100)
    };
    let jobs = [Job::new(2, 5), Job::new(6, 2)];
    let log = one_then_rest(&mut engine(sarathi, kv), &jobs);
    let expected = [
        (2, 0), // the first prompt
        (3, 1), // three of four tokens are left beside the decode
        (3, 1), // the second prompt is complete
        (0, 2), // the second is done
        (0, 1),
    ];
    assert_eq!(work(&log), expected);
}

#[test]
fn a_whole_prompt_takes_its_blocks_when_it_is_admitted() {
    let jobs = [Job::new(4, 3), Job::new(16, 1)];
    let run = |allocation| {
        let kv = KvSpec {
            allocation,
            ..memory(4, 5)
        };
        let mut engine = engine(scheduler(SchedulerKind::Chunked, 8, 4), kv);
        let calls = [
            (0, Call::Submit(0)),
            (500, Call::Submit(1)),
            (3500, Call::Look),
        ];
        drive(&mut engine, &jobs, &calls, true)
    };
    let log = run(Allocation::WholePrompt);
    // The first holds 2 of 5 blocks while it decodes, and the second needs 4. Then it has all four
    // in its first step of 8 tokens.
    assert_eq!(work(&log), [(4, 0), (0, 1), (0, 1), (8, 0), (8, 0)]);
    assert_eq!(log.looks[0].1.kv_held, 4);
    let log = run(Allocation::AsComputed);
    assert_eq!(work(&log)[1], (7, 1), "two blocks will do for 7 tokens");
}

/// Two requests of which one fills the last block when the other needs one to be free.
fn tight() -> [Job; 2] {
    [Job::new(4, 4), Job::new(4, 4)]
}

#[test]
fn a_decode_may_need_a_free_block_that_it_does_not_take() {
    let kv = |spare_block| KvSpec {
        spare_block,
        ..memory(4, 4)
    };
    let limits = || scheduler(SchedulerKind::Chunked, 8, 4);
    let log = one_then_rest(&mut engine(limits(), kv(true)), &tight());
    let expected = [
        (4, 0), // one block
        (4, 1), // the first takes its second, the second its first
        (0, 2), // the second takes the last one
        (0, 1), // the first has room, but no block is free: the second goes. The first is done
        (6, 0), // prompt and two tokens
        (0, 1),
    ];
    assert_eq!(work(&log), expected);
    assert_eq!(preemptions(&log, 1), [3 * STEP]);
    let log = one_then_rest(&mut engine(limits(), kv(false)), &tight());
    assert_eq!(work(&log), [(4, 0), (4, 1), (0, 2), (0, 2), (0, 1)]);
}

#[test]
fn who_was_thrown_out_may_come_back_at_once() {
    let kv = KvSpec {
        spare_block: true,
        ..memory(4, 4)
    };
    let limits = SchedulerSpec {
        admit_after_preemption: true,
        ..scheduler(SchedulerKind::Chunked, 8, 4)
    };
    let log = one_then_rest(&mut engine(limits, kv), &tight());
    // As before up to step 4. Then the blocks of the second are free, and it needs no more.
    assert_eq!(work(&log), [(4, 0), (4, 1), (0, 2), (6, 1), (0, 1)]);
    assert_eq!(preemptions(&log, 1), [3 * STEP]);
    assert_eq!(log.finished(1), Some(5 * STEP));
}

#[test]
fn prompts_have_steps_of_their_own() {
    let jobs = [
        Job::new(4, 4),
        Job::new(2, 3),
        Job::new(4, 3),
        Job::new(3, 2),
    ];
    let run = |token_budget, padded_prompts| {
        let limits = SchedulerSpec {
            padded_prompts,
            ..scheduler(SchedulerKind::PrefillFirst, token_budget, 8)
        };
        one_then_rest(&mut engine(limits, memory(4, 100)), &jobs)
    };
    let log = run(9, true);
    let expected = [
        (4, 0),
        (6, 0), // two prompts padded to 4 tokens; with the third they would be 12
        (3, 0), // who runs still rests
        (0, 4), // the last is done
        (0, 3),
        (0, 1),
    ];
    assert_eq!(work(&log), expected);
    // The first waited for two steps of prompts, two others for one.
    let gaps = [(1, 5), (2, 2), (3, 1)];
    assert_eq!(
        log.gaps,
        gaps.map(|(steps, n)| ((0, steps * STEP), n)).into()
    );
    let log = run(9, false);
    assert_eq!(work(&log), [(4, 0), (9, 0), (0, 4), (0, 3), (0, 1)]);
    let log = run(3, false);
    assert_eq!(
        work(&log)[..4],
        [(4, 0), (2, 0), (4, 0), (3, 0)],
        "one may be larger"
    );
}

#[test]
fn in_steps_of_decodes_the_latest_to_arrive_goes_first() {
    let limits = scheduler(SchedulerKind::PrefillFirst, 8, 4);
    let kv = memory(2, 6);
    let jobs = [Job::new(4, 6), Job::new(4, 4)];
    let log = one_then_rest(&mut engine(limits, kv), &jobs);
    let expected = [
        (4, 0), // 2 blocks
        (4, 0), // 2 blocks
        (0, 2), // one more each
        (0, 2), // both have room
        (0, 1), // the first needs a fourth: the second goes, with three tokens out
        (0, 1), // two are free, and the second needs 4 for its 7 tokens
        (0, 1), // the first is done
        (7, 0), // its fourth token
    ];
    assert_eq!(work(&log), expected);
    assert_eq!(preemptions(&log, 1), [4 * STEP]);
}

#[test]
fn a_prompt_may_restart_with_what_was_computed_of_it() {
    let limits = SchedulerSpec {
        unlimited_decodes: true,
        ..scheduler(SchedulerKind::Chunked, 4, 4)
    };
    let kv = KvSpec {
        allocation: Allocation::WholePrompt,
        spare_block: true,
        restart: RestartKind::Computed,
        ..memory(4, 4)
    };
    let jobs = [Job::new(4, 6), Job::new(8, 2)];
    let log = one_then_rest(&mut engine(limits, kv), &jobs);
    let expected = [
        (4, 0), // one block
        (3, 1), // a second one; two for the second prompt, of which three tokens are computed
        (0, 1), // no block is free: the second goes
        (3, 1), // the three tokens are its prompt now; its first token comes out
        (0, 2), // the other five count as output, seven in all
        (0, 1), // the first takes the last block and is done; the second goes again
        (4, 0), // three tokens and two that came out, in two steps: the third comes out
        (1, 0),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 1), // the seventh
    ];
    assert_eq!(work(&log), expected);
    assert_eq!(preemptions(&log, 1), [2 * STEP, 5 * STEP]);
    assert_eq!(log.first_token(1), Some(4 * STEP));
    assert_eq!(log.finished(1), Some(12 * STEP));
}

#[test]
fn a_request_may_lose_what_came_out() {
    let kv = KvSpec {
        restart: RestartKind::Scratch,
        ..memory(2, 6)
    };
    let jobs = [Job::new(4, 6), Job::new(4, 6)];
    let mut engine = engine(scheduler(SchedulerKind::Chunked, 8, 4), kv);
    let log = one_then_rest(&mut engine, &jobs);
    // At step 4 the second goes with two tokens out, as in the story of the same two who keep
    // their tokens. Its prompt alone fits again at once; at step 6 it goes with one token out.
    assert_eq!(work(&log)[3..6], [(0, 1), (4, 1), (0, 1)]);
    assert_eq!(preemptions(&log, 1), [3 * STEP, 5 * STEP]);
    // Its prompt, and all six tokens from the first.
    assert_eq!(
        work(&log)[6..],
        [(4, 0), (0, 1), (0, 1), (0, 1), (0, 1), (0, 1)]
    );
    assert_eq!(log.first_token(1), Some(2 * STEP), "told once");
    assert_eq!(log.finished(1), Some(12 * STEP));
}

#[test]
fn steps_planned_ahead_know_less() {
    let run = |async_scheduling, second: Job| {
        let limits = SchedulerSpec {
            async_scheduling,
            ..scheduler(SchedulerKind::Chunked, 8, 2)
        };
        let jobs = [limited(2, 9), second, limited(2, 1)];
        one_then_rest(&mut engine(limits, memory(4, 100)), &jobs)
    };
    let log = run(true, limited(2, 2));
    let expected = [
        (2, 0), // the others come during this step
        (0, 1), // planned when the first step began
        (2, 1), // planned when the second began: the second joins
        (0, 2), // its last token
        (0, 1), // planned when its last token was not out: the third finds no slot
        (2, 1), // the third joins and is done
        (0, 1),
        (0, 1),
        (0, 1),
    ];
    assert_eq!(work(&log), expected);
    assert_eq!(log.finished(1), Some(4 * STEP), "that is when it leaves");
    // Nobody knew that it would stop: it computes a token that nobody gets.
    let log = run(true, Job::new(2, 2));
    assert_eq!(work(&log)[3..6], [(0, 2), (0, 2), (2, 1)]);
    assert_eq!(log.finished(1), Some(4 * STEP));
    // Planned at its start, a step knows all that is so.
    let log = run(false, limited(2, 2));
    assert_eq!(work(&log)[..5], [(2, 0), (2, 1), (0, 2), (2, 1), (0, 1)]);
}

#[test]
fn a_plan_that_would_run_nobody_waits_for_the_end_of_the_step() {
    let limits = SchedulerSpec {
        async_scheduling: true,
        ..scheduler(SchedulerKind::Chunked, 8, 1)
    };
    let jobs = [limited(2, 2), limited(2, 1), limited(2, 1)];
    let log = one_then_rest(&mut engine(limits, memory(4, 100)), &jobs);
    // There is one slot, and each finds it free at once.
    assert_eq!(work(&log), [(2, 0), (0, 1), (2, 0), (2, 0)]);
    assert_eq!(log.finished(2), Some(4 * STEP));
}
