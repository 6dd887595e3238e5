//! The store against a plain list that is searched from its beginning to its end.

use super::*;
use crate::Judgement;
use proptest::prelude::*;
use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::ids::TenantId;
use windtunnel_base::quantity::Span;
use windtunnel_base::rng::Rng;
use windtunnel_scenarios::schema::answers::SemanticSpec;
use windtunnel_scenarios::workload::Question;

fn spec() -> AnswersSpec {
    AnswersSpec {
        ttl: Some(Span(secs(10))),
        stale_while_revalidate: Span(secs(3)),
        stale_if_error: Span(secs(20)),
        ..AnswersSpec::default()
    }
}

fn secs(s: u64) -> SimDuration {
    SimDuration::from_secs(s)
}

fn at(s: u64) -> SimTime {
    SimTime::ZERO + secs(s)
}

fn answer(question: u64) -> Answer {
    Answer {
        tenant: TenantId(0),
        question: Question::plain(question),
        output_tokens: 1,
        good: true,
        judged: Judgement::Unjudged,
    }
}

fn keys(words: u64) -> (Key, Key, u64) {
    (
        Key(u128::from(words)),
        Key(u128::from(words / 3)),
        words % 2,
    )
}

fn write(store: &mut Store, words: u64, now: u64) -> u32 {
    store.write(keys(words), answer(words), (at(now), secs(1)), at(now))
}

fn state(store: &mut Store, words: u64, now: u64) -> Option<State> {
    let found = store.look_up(keys(words).0, at(now));
    found.map(|found| found.state)
}

#[test]
fn windows_are_those_of_rfc_5861() {
    let mut store = Store::new(&spec(), Rng::from_seed(1));
    assert_eq!(state(&mut store, 1, 0), None);
    write(&mut store, 1, 0);
    let expected = [
        (0, Some(State::Fresh)),
        (9, Some(State::Fresh)),
        (10, Some(State::Stale)),
        (12, Some(State::Stale)),
        (13, Some(State::Spare)),
        (29, Some(State::Spare)),
    ];
    for (now, expected) in expected {
        assert_eq!(state(&mut store, 1, now), expected, "{now}");
        assert!(store.on_error(keys(1).0, at(now)).is_some());
    }
    assert_eq!(store.on_error(keys(1).0, at(30)), None);
    assert_eq!(state(&mut store, 1, 30), None);
    assert!(store.is_empty(), "what is nothing any more has left");
}

#[test]
fn time_since_use_begins_anew_with_each_use() {
    let spec = AnswersSpec {
        ttl_since: TtlSince::Use,
        ..spec()
    };
    let mut store = Store::new(&spec, Rng::from_seed(1));
    write(&mut store, 1, 0);
    for now in (9..90).step_by(9) {
        assert_eq!(state(&mut store, 1, now), Some(State::Fresh));
    }
    // A stale answer does not become fresh by being given.
    assert_eq!(state(&mut store, 1, 92), Some(State::Stale));
    assert_eq!(state(&mut store, 1, 93), Some(State::Stale));
    assert_eq!(state(&mut store, 1, 94), Some(State::Spare));
}

#[test]
fn lifetimes_are_spread_over_their_window() {
    let spec = AnswersSpec {
        ttl_jitter: 0.4,
        ..spec()
    };
    let mut store = Store::new(&spec, Rng::from_seed(1));
    let lifetimes: Vec<f64> = (0..10_000)
        .map(|words| {
            let slot = write(&mut store, words, 0);
            store.get(slot).unwrap().lifetime.as_secs_f64()
        })
        .collect();
    assert!(lifetimes.iter().all(|t| (6.0..=14.0).contains(t)));
    // The mean of a uniform over a width of 8: four standard errors are 4 * 8 / sqrt(12 * 10^4).
    let mean = lifetimes.iter().sum::<f64>() / 10_000.0;
    assert!((mean - 10.0).abs() < 0.093, "{mean}");
}

#[test]
fn early_refresh_has_the_chance_that_xfetch_gives_it() {
    let spec = AnswersSpec {
        early_refresh: Some(2.0),
        ..spec()
    };
    let mut store = Store::new(&spec, Rng::from_seed(1));
    write(&mut store, 1, 0);
    // One second is left: P(-2 * 1 s * ln U >= 1 s) = exp(-1/2).
    let n = 20_000;
    let early = (0..n).filter(|_| state(&mut store, 1, 9) == Some(State::Early));
    let share = early.count() as f64 / f64::from(n);
    let p = (-0.5_f64).exp();
    assert!((share - p).abs() < 4.0 * (p * (1.0 - p) / f64::from(n)).sqrt());
}

#[test]
fn an_answer_begun_before_the_stored_one_was_written_is_not_newer() {
    let mut store = Store::new(&spec(), Rng::from_seed(1));
    write(&mut store, 1, 0);
    let mut late = answer(1);
    late.good = false;
    write(&mut store, 1, 3);
    for (begun, now, good) in [(2, 4, true), (3, 5, false)] {
        let slot = store.write(keys(1), late, (at(begun), secs(2)), at(now));
        assert_eq!(store.get(slot).unwrap().answer.good, good);
    }
    assert_eq!(state(&mut store, 1, 14), Some(State::Fresh), "written at 5");
}

#[test]
fn what_has_expired_does_not_pile_up() {
    let spec = AnswersSpec {
        stale_if_error: Span::default(),
        ..spec()
    };
    let mut store = Store::new(&spec, Rng::from_seed(1));
    // One a second lives for 13 s; the sweep goes round twice as fast as places are taken.
    let most = (0..10_000).map(|now| {
        write(&mut store, now, now);
        store.len()
    });
    assert!(most.max().unwrap() <= 40);
}

/// An entry of the plain list.
#[derive(Clone, Copy)]
struct Plain {
    words: u64,
    since: u64,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    LookUp(u64),
    Write(u64),
    Wait(u64),
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (0..12_u64).prop_map(Op::LookUp),
        6 => (0..12_u64).prop_map(Op::Write),
        4 => (0..8_u64).prop_map(Op::Wait),
        1 => Just(Op::Clear),
    ];
    prop::collection::vec(op, 0..200)
}

proptest! {
    /// Least recently used first, both windows, both ways to count time: as a plain list has it. Lists by
    /// meaning and by tenant hold exactly the entries there are.
    #[test]
    fn the_store_is_a_list_with_times(ops in ops(), capacity in 1..8_u64, since_use: bool) {
        let spec = AnswersSpec {
            capacity: Some(capacity),
            ttl_since: if since_use { TtlSince::Use } else { TtlSince::Write },
            semantic: Some(SemanticSpec::default()),
            eviction: EvictionKind::Lru,
            ..spec()
        };
        let mut store = Store::new(&spec, Rng::from_seed(1));
        // The one that was used last is at the end.
        let mut list: Vec<Plain> = Vec::new();
        let mut now = 0;
        for op in ops {
            // The store forgets what is dead when it comes by; it may never show.
            match op {
                Op::Wait(s) => now += s,
                Op::Clear => {
                    store.clear();
                    list.clear();
                }
                Op::LookUp(words) => {
                    let place = list.iter().position(|p| p.words == words && now - p.since < 30);
                    let expected = place.map(|i| {
                        let mut entry = list.remove(i);
                        let state = match now - entry.since {
                            0..10 => State::Fresh,
                            10..13 => State::Stale,
                            _ => State::Spare,
                        };
                        if since_use && state == State::Fresh {
                            entry.since = now;
                        }
                        list.push(entry);
                        state
                    });
                    prop_assert_eq!(state(&mut store, words, now), expected);
                    list.retain(|p| p.words != words || now - p.since < 30);
                }
                Op::Write(words) => {
                    // All the dead leave here, in the store some: look them all up first.
                    for dead in list.extract_if(.., |p| now - p.since >= 30) {
                        prop_assert_eq!(state(&mut store, dead.words, now), None);
                    }
                    write(&mut store, words, now);
                    match list.iter_mut().find(|p| p.words == words) {
                        Some(entry) => entry.since = now,
                        None => {
                            if list.len() as u64 >= capacity {
                                list.remove(0);
                            }
                            list.push(Plain { words, since: now });
                        }
                    }
                }
            }
            let mut of_lists: Vec<u32> = (0..2).flat_map(|all| store.of_all(all).to_vec()).collect();
            let mut of_meanings: Vec<u32> = (0..4)
                .flat_map(|m| store.of_meaning(Key(m)).collect::<Vec<_>>())
                .collect();
            let mut all: Vec<u32> = (0..12).filter_map(|w| store.slot(keys(w).0)).collect();
            for list in [&mut of_lists, &mut of_meanings, &mut all] {
                list.sort_unstable();
            }
            prop_assert_eq!(&of_lists, &all);
            prop_assert_eq!(&of_meanings, &all);
            prop_assert_eq!(store.len(), all.len());
            prop_assert!(all.len() as u64 <= capacity);
        }
    }

    /// Whatever the policy, the capacity holds and the newest is there.
    #[test]
    fn every_policy_keeps_to_the_capacity(
        ops in ops(),
        capacity in 1..8_u64,
        kind in prop::sample::select(vec![
            EvictionKind::Lru,
            EvictionKind::Fifo,
            EvictionKind::Lfu,
            EvictionKind::Sieve,
            EvictionKind::S3fifo,
        ]),
    ) {
        let spec = AnswersSpec {
            ttl: None,
            capacity: Some(capacity),
            eviction: kind,
            ..AnswersSpec::default()
        };
        let mut store = Store::new(&spec, Rng::from_seed(1));
        for op in ops {
            match op {
                Op::LookUp(words) => {
                    let held = store.slot(keys(words).0).is_some();
                    prop_assert_eq!(state(&mut store, words, 0).is_some(), held);
                }
                Op::Write(words) => {
                    let slot = write(&mut store, words, 0);
                    prop_assert_eq!(store.slot(keys(words).0), Some(slot));
                    prop_assert!(store.len() as u64 <= capacity);
                }
                Op::Wait(_) | Op::Clear => {}
            }
        }
    }
}
