//! The store against plain programs: its queue, what gateways know, its failures.

use super::*;
use proptest::prelude::*;
use windtunnel_base::quantity::Span;

fn us(n: u64) -> SimTime {
    SimTime::from_nanos(n * 1000)
}

fn span(micros: u64) -> Span {
    Span(SimDuration::from_micros(micros))
}

fn spec() -> StateStoreSpec {
    StateStoreSpec {
        refresh: span(0),
        ..StateStoreSpec::default()
    }
}

#[test]
fn one_operation_after_the_other() {
    let mut store = StateStore::new(&spec(), 2);
    // 150 us there, 10 us of service, 150 us back.
    let (first, answer) = store.read(0, us(0));
    assert_eq!((first.as_nanos(), answer), (310_000, StoreAnswer::Known));
    store.write(us(4));
    // Comes 8 us after the first, finds it and the write before it.
    let (third, _) = store.read(0, us(8));
    assert_eq!(third.as_nanos(), 310_000 + 12_000);
    assert_eq!(store.totals().waited_ns, 6_000 + 12_000);
    assert_eq!((store.totals().reads, store.totals().writes), (2, 1));
}

#[test]
fn counts_are_known_when_an_answer_could_tell_of_them() {
    let two = StateStoreSpec {
        gateways: 2,
        ..spec()
    };
    let mut store = StateStore::new(&two, 3);
    store.count(0, 2, true, us(0));
    assert_eq!(store.in_flight(0, 2), 1, "its own at once");
    let (takes, answer) = store.read(1, us(0));
    assert_eq!(store.in_flight(1, 2), 0, "nothing of others before asking");
    store.learn(1, us(0) + takes, answer);
    assert_eq!(
        store.in_flight(1, 2),
        1,
        "the write came before the question"
    );
    // A read that comes to the store before a write does not tell of it, though both are sent
    // before its answer comes.
    let (takes, answer) = store.read(1, us(1000));
    store.count(0, 2, true, us(1100));
    store.learn(1, us(1000) + takes, answer);
    assert_eq!(store.in_flight(1, 2), 1);
    store.count(1, 2, true, us(1400));
    assert_eq!(
        store.in_flight(1, 2),
        2,
        "one of its own, one that it knows of"
    );
    assert_eq!(store.in_flight(0, 2), 2);
}

#[test]
fn batches_write_each_changed_replica_once() {
    // V: 100 replicas, 10,000 requests per second, every one counted twice: 20,000 writes per second one
    // by one, 1,000 in batches of 100 ms (rows F27 and F28 of the specification).
    let mut each = StateStore::new(&spec(), 100);
    let batches = StateStoreSpec {
        write_batch: span(100_000),
        ..spec()
    };
    let mut batched = StateStore::new(&batches, 100);
    for request in 0..10_000_u64 {
        let at = us(request * 100);
        for store in [&mut each, &mut batched] {
            store.read(0, at);
            store.count(0, request as usize % 100, true, at);
            store.count(0, (request as usize + 50) % 100, false, at);
        }
    }
    for store in [&mut each, &mut batched] {
        store.catch_up(us(1_000_000));
        assert_eq!(store.totals().reads, 10_000);
    }
    assert_eq!(each.totals().writes, 20_000);
    assert_eq!(batched.totals().writes, 1_000);
}

#[test]
fn addresses_are_written_every_period() {
    let store = StateStoreSpec::default();
    let mut store = StateStore::new(&store, 100);
    store.catch_up(us(300_000_000));
    assert_eq!(store.totals().writes, 1_000, "100 every 30 s");
}

/// A store that fails at a millisecond, for so many.
fn failing(spec: &StateStoreSpec, replicas: usize, failures: &[(u64, u64)]) -> StateStore {
    let mut store = StateStore::new(spec, replicas);
    for &(at, lasts) in failures {
        store.fail(us(at * 1000), SimDuration::from_millis(lasts));
    }
    store
}

/// What asking every ten milliseconds says, by the millisecond of asking; waits are not gone through.
fn ask(store: &mut StateStore, until_ms: u64) -> Vec<(u64, StoreAnswer)> {
    (0..until_ms / 10)
        .map(|i| {
            let (takes, answer) = store.read(0, us(i * 10_000));
            if answer == StoreAnswer::Known {
                store.learn(0, us(i * 10_000) + takes, answer);
            }
            (i * 10, answer)
        })
        .collect()
}

fn first(answers: &[(u64, StoreAnswer)], from_ms: u64, wanted: StoreAnswer) -> u64 {
    let found = answers.iter().find(|a| a.0 >= from_ms && a.1 == wanted);
    found.unwrap_or_else(|| panic!("{wanted:?} comes")).0
}

#[test]
fn a_failure_ends_with_the_store_or_with_its_copy() {
    let failover = Some(FailoverSpec {
        down_after: span(1_000_000),
        promotion: span(500_000),
    });
    // Alone; with a copy that is slower than the store itself; with one that is faster.
    for (failover, lasts, back) in [
        (None, 5_000, 6_000),
        (failover.clone(), 900, 1_900),
        (failover, 5_000, 2_500),
    ] {
        let spec = StateStoreSpec {
            failover,
            persistent: true,
            ..spec()
        };
        let answers = ask(&mut failing(&spec, 1, &[(1_000, lasts)]), 8_000);
        assert_eq!(first(&answers, 0, StoreAnswer::Silent), 1_000);
        assert_eq!(first(&answers, 1_000, StoreAnswer::Known), back);
    }
}

#[test]
fn lost_contents_are_back_within_a_period() {
    // F29: the blind time after a restart is never longer than the period, and of all lengths up to it.
    for at in [0, 700, 1_500, 2_900] {
        let spec = StateStoreSpec {
            refresh: span(1_000_000),
            ..spec()
        };
        let mut store = failing(&spec, 4, &[(at, 100)]);
        let answers = ask(&mut store, 8_000);
        let blind = answers.iter().filter(|a| a.1 == StoreAnswer::Empty).count() as u64 * 10;
        let back = at + 100;
        assert_eq!(
            blind,
            back.div_ceil(1_000) * 1_000 - back,
            "failed at {at} ms"
        );
        assert_eq!(store.totals().wiped, 1);
    }
}

#[test]
fn who_got_no_answer_does_not_ask_at_once_again() {
    let spec = StateStoreSpec { ..spec() };
    let mut store = failing(&spec, 1, &[(0, 1_000)]);
    let (waits, answer) = store.read(0, us(0));
    assert_eq!((waits, answer), (spec.timeout.0, StoreAnswer::Silent));
    store.learn(0, us(50_000), answer);
    assert_eq!(
        store.read(0, us(149_999)),
        (SimDuration::ZERO, StoreAnswer::Unasked)
    );
    assert_eq!(store.read(0, us(150_000)).1, StoreAnswer::Silent);
    assert_eq!(store.totals().reads, 2);
}

proptest! {
    /// Lindley's recursion, and everybody's knowledge once everything has been written and read.
    #[test]
    fn waits_are_those_of_a_queue_and_counts_settle(
        batch in 0_u64..3,
        steps in prop::collection::vec((0_u64..40, 0_usize..3, 0_usize..4, any::<bool>()), 1..200),
    ) {
        let three = StateStoreSpec { gateways: 3, write_batch: span(batch * 200), ..spec() };
        let mut store = StateStore::new(&three, 4);
        let mut truth = [[0_u32; 4]; 3];
        let (mut now, mut free, mut waited) = (0, 0, 0);
        for (gap, gateway, replica, more) in steps {
            now += gap;
            if more || truth[gateway][replica] > 0 {
                let count = &mut truth[gateway][replica];
                *count = if more { *count + 1 } else { *count - 1 };
                store.count(gateway, replica, more, us(now));
                if batch == 0 {
                    waited += free.max(now) - now;
                    free = free.max(now) + 10;
                }
            }
            prop_assert!(store.in_flight(gateway, replica) >= truth[gateway][replica]);
        }
        if batch == 0 {
            prop_assert_eq!(store.totals().waited_ns, waited * 1000);
        }
        let late = now + 10_000;
        for gateway in 0..3 {
            let (takes, answer) = store.read(gateway, us(late));
            prop_assert_eq!(answer, StoreAnswer::Known);
            store.learn(gateway, us(late) + takes, answer);
            for replica in 0..4 {
                let all: u32 = truth.iter().map(|own| own[replica]).sum();
                prop_assert_eq!(store.in_flight(gateway, replica), all);
            }
        }
    }

    /// However failures overlap, the store is silent in their union and at no other time.
    #[test]
    fn overlapping_failures_are_one(
        failures in prop::collection::vec((0_u64..300, 1_u64..80), 0..6),
    ) {
        let failures: Vec<(u64, u64)> = failures.iter().map(|(at, lasts)| (at * 10, lasts * 10)).collect();
        let spec = StateStoreSpec {
            round_trip: span(0),
            service: span(0),
            persistent: true,
            ..spec()
        };
        for (at, answer) in ask(&mut failing(&spec, 1, &failures), 4_000) {
            let out = failures.iter().any(|&(from, lasts)| (from..from + lasts).contains(&at));
            prop_assert_eq!(answer == StoreAnswer::Silent, out, "at {} ms", at);
        }
    }
}
