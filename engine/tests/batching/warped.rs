//! Replicas that stand still, or are slow: fast-forward shows nowhere there either, and nothing differs
//! but the times.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use crate::equivalence::{
    calls, check_ends, costs, jobs, memories, memory_for, schedulers, script, spec,
};
use crate::harness::{Call, Job, Log, built, drive};
use proptest::prelude::*;
use windtunnel_base::refusal::Refusal;
use windtunnel_engine::config::{EngineSpec, StationOrder, StationSpec};
use windtunnel_engine::engine::{Engine, Outcome};
use windtunnel_engine::replica::Replica;

/// Standstills (of some multiple of half a gap) and slow times, when they come.
fn faults() -> impl Strategy<Value = Vec<(u64, Option<u64>, u8)>> {
    prop::collection::vec((0_u64..120, prop::option::of(0_u64..40), 0_u8..4), 1..6)
}

fn with_faults(
    mut script: Vec<(u64, Call)>,
    faults: &[(u64, Option<u64>, u8)],
    gap: u64,
) -> Vec<(u64, Call)> {
    for &(at, span, factor) in faults {
        let call = match (span, factor) {
            (Some(span), _) => Call::Stall(span * gap / 2),
            (None, 0) => Call::Slow(1.0),
            (None, n) => Call::Slow(0.7 + f64::from(n) * 0.9),
        };
        script.push((at * gap / 2, call));
    }
    script.sort_by_key(|c| c.0);
    script
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn fast_forward_shows_nowhere_through_faults(
        scheduler in schedulers(),
        kv in memories(),
        cost in costs(),
        jobs in jobs(),
        calls in calls(),
        faults in faults(),
        gap in prop_oneof![Just(500_u64), Just(1000), Just(7300)],
        calls_first in any::<bool>(),
        record in any::<bool>(),
    ) {
        let kv = memory_for(&scheduler, kv);
        let calls_first = calls_first || scheduler.join_at_boundary;
        let script = with_faults(script(&jobs, &calls, gap, record), &faults, gap);
        let [fast, slow] = [true, false].map(|fast_forward| {
            let spec = spec(scheduler.clone(), kv.clone(), cost.clone(), fast_forward);
            let mut engine = Replica::build(&spec).unwrap();
            engine.record_cache_events(record);
            let log = drive(&mut engine, &jobs, &script, calls_first);
            check_ends(&log, &jobs, &engine);
            log
        });
        prop_assert_eq!(&fast.outcomes, &slow.outcomes);
        prop_assert_eq!(&fast.steps, &slow.steps);
        prop_assert_eq!(&fast.looks, &slow.looks);
        prop_assert_eq!(&fast.cache, &slow.cache);
        prop_assert_eq!(fast, slow);
    }

    /// A standstill when everybody is there already: what comes after it comes later by its length, and
    /// all else is the same.
    #[test]
    fn a_standstill_only_delays(
        scheduler in schedulers(),
        kv in memories(),
        cost in costs(),
        jobs in jobs(),
        at in 1_u64..60_000,
        span in 1_u64..100_000,
    ) {
        let kv = memory_for(&scheduler, kv);
        let spec = spec(scheduler, kv, cost, true);
        let submits: Vec<_> = (0..jobs.len() as u32).map(|id| (0, Call::Submit(id))).collect();
        let plain = drive(&mut built(&spec), &jobs, &submits, true);
        // What happens at the very instant that it begins is another test's matter.
        prop_assume!(plain.outcomes.iter().all(|o| o.0 != at));
        prop_assume!(plain.steps.iter().all(|s| s.0 != at && s.1 != at));
        let script = [&submits[..], &[(at, Call::Stall(span))]].concat();
        let faulty = drive(&mut built(&spec), &jobs, &script, true);
        let later = |t: u64| if t > at { t + span } else { t };
        let outcomes: Vec<_> = plain.outcomes.iter().map(|o| (later(o.0), o.1, o.2)).collect();
        prop_assert_eq!(&faulty.outcomes, &outcomes);
        let steps: Vec<_> = plain.steps.iter().map(|s| (later(s.0), later(s.1), s.2, s.3, s.4)).collect();
        prop_assert_eq!(&faulty.steps, &steps);
        let sum = |log: &Log| log.gaps.iter().map(|(gap, n)| gap.1 * n).sum::<u64>();
        prop_assert!(sum(&plain) <= sum(&faulty));
    }
}

fn station(servers: u32, queue_limit: Option<u32>) -> Replica {
    built(&EngineSpec::Station(StationSpec {
        servers,
        queue_limit,
        order: StationOrder::Fcfs,
        ..StationSpec::default()
    }))
}

#[test]
fn a_station_stands_still_and_goes_on() {
    let jobs = [1000, 1000, 300, 50].map(Job::service);
    let calls = [
        (0, Call::Submit(0)),
        (400, Call::Stall(500)),
        (600, Call::Submit(1)), // a server is free, but nothing begins
        (700, Call::Look),
        (800, Call::Submit(2)),
        (850, Call::Submit(3)), // the queue is as full as ever
        (860, Call::Cancel(2)), // it is gone at once, and said when it goes on
    ];
    let log = drive(&mut station(2, Some(1)), &jobs, &calls, true);
    let started = Outcome::Started { cached_tokens: 0 };
    let expected = [
        (0, 0, started),
        (900, 2, Outcome::Cancelled { generated: 0 }),
        (900, 1, started),
        (1500, 0, Outcome::FirstToken),
        (1500, 0, Outcome::Finished),
        (1900, 1, Outcome::FirstToken),
        (1900, 1, Outcome::Finished),
    ];
    assert_eq!(log.outcomes, expected);
    assert_eq!(log.refused, [(3, Refusal::QueueFull)]);
    assert_eq!((log.looks[0].1.running, log.looks[0].1.waiting), (1, 1));
}

#[test]
fn a_slow_station_takes_as_many_times_as_long() {
    let jobs = [1000, 1000].map(Job::service);
    let calls = [
        (0, Call::Submit(0)),
        (0, Call::Submit(1)),
        (400, Call::Slow(3.0)),       // 600 left take 1800
        (2500, Call::Slow(1.0)),      // 900 of the other are left
        (2600, Call::Slow(f64::NAN)), // is full speed
        (3000, Call::Slow(0.1)),      // so is this
    ];
    let log = drive(&mut station(1, None), &jobs, &calls, true);
    assert_eq!((log.finished(0), log.finished(1)), (Some(2200), Some(3400)));
}

#[test]
fn an_idle_replica_that_stands_still_has_nothing_to_say() {
    let mut engine = station(1, None);
    let (now, until) = (
        windtunnel_base::time::SimTime::from_nanos(10),
        windtunnel_base::time::SimTime::from_nanos(90),
    );
    engine.stall(now, until);
    assert_eq!(engine.next_event(now, &mut Vec::new()), None);
}
