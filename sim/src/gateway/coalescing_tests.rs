//! Flights against plain lists of who fetches and who waits.

use super::*;
use proptest::prelude::*;

const KEY: Key = Key(7);

/// Who goes on for others alone is known once they have left too.
#[test]
fn a_fetch_that_was_kept_on_is_found_when_nobody_waits_any_more() {
    let mut flights = Flights::default();
    flights.fetch(0, Key(7));
    assert!(flights.follow(1, Key(7)) && flights.follow(2, Key(7)));
    assert!(flights.is_needed(0));
    flights.keep_on(0);
    assert!(flights.leave(1));
    assert_eq!(flights.kept_for_nobody(Key(7)), None);
    assert!(flights.leave(2));
    assert_eq!(flights.kept_for_nobody(Key(7)), Some(0));
    flights.failed(0, OnFailure::FanOut, &mut Vec::new());
    assert!(flights.is_empty());
    // A fetch whose client is still there is nobody's to cancel.
    flights.fetch(3, Key(7));
    assert!(flights.follow(4, Key(7)) && flights.leave(4));
    assert_eq!(flights.kept_for_nobody(Key(7)), None);
}

#[test]
fn followers_are_answered_in_the_order_they_came() {
    let mut flights = Flights::default();
    assert!(!flights.follow(0, KEY), "there is nobody to wait for");
    assert!(flights.fetch(0, KEY));
    assert!((1..=4).all(|slot| flights.follow(slot, KEY)));
    assert!(flights.leave(2) && !flights.leave(2));
    assert_eq!(flights.followers(0).collect::<Vec<_>>(), [1, 3, 4]);
    assert!(flights.is_needed(0) && flights.under_way(KEY));
    let mut out = Vec::new();
    flights.answered(0, &mut out);
    assert_eq!(out, [1, 3, 4]);
    assert!(flights.is_empty() && !flights.follows(1));
}

#[test]
fn an_error_fans_out_or_one_is_promoted() {
    for rule in [OnFailure::FanOut, OnFailure::Promote] {
        let mut flights = Flights::default();
        flights.fetch(0, KEY);
        (1..=3).for_each(|slot| assert!(flights.follow(slot, KEY)));
        let mut out = Vec::new();
        match flights.failed(0, rule, &mut out) {
            Failed::All => assert_eq!((rule, out), (OnFailure::FanOut, vec![1, 2, 3])),
            Failed::Promoted(next) => {
                assert_eq!((rule, next), (OnFailure::Promote, 1));
                assert_eq!(flights.fetches(1), Some(KEY));
                assert_eq!(flights.followers(1).collect::<Vec<_>>(), [2, 3]);
                assert!(flights.follow(9, KEY), "others may still join");
            }
            Failed::Nobody => panic!("three wait"),
        }
        assert_eq!(flights.fetches(0), None);
    }
}

#[test]
fn nobody_is_promoted_while_another_fetch_is_under_way() {
    let mut flights = Flights::default();
    assert!(flights.fetch(0, KEY));
    assert!(flights.follow(1, KEY) && flights.follow(2, KEY));
    // One that waited too long goes on alone, and the others have two to wait for.
    assert!(flights.leave(1));
    assert!(!flights.fetch(1, KEY), "it is not the first");
    assert!(!flights.is_needed(0) && !flights.is_needed(1));
    let mut out = Vec::new();
    assert_eq!(
        flights.failed(0, OnFailure::FanOut, &mut out),
        Failed::Nobody
    );
    assert!(flights.is_needed(1));
    flights.answered(1, &mut out);
    assert_eq!(out, [2]);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Come(u32, u64),
    Leave(u32),
    Answer(u32),
    Fail(u32, bool),
}

/// A flight as two lists.
#[derive(Clone, Default, PartialEq, Debug)]
struct Plain {
    fetches: Vec<u32>,
    followers: Vec<u32>,
}

proptest! {
    #[test]
    fn flights_are_lists(
        ops in prop::collection::vec(
            prop_oneof![
                4 => (0..20_u32, 0..3_u64).prop_map(|(s, k)| Op::Come(s, k)),
                1 => (0..20_u32).prop_map(Op::Leave),
                1 => (0..20_u32).prop_map(Op::Answer),
                2 => (0..20_u32, any::<bool>()).prop_map(|(s, f)| Op::Fail(s, f)),
            ],
            0..300,
        ),
    ) {
        let mut flights = Flights::default();
        let mut plain: [Plain; 3] = Default::default();
        let key = |k: usize| Key(k as u128);
        for op in ops {
            let holds = |slot: u32| {
                move |p: &&mut Plain| p.fetches.contains(&slot) || p.followers.contains(&slot)
            };
            let fetches = |slot: u32| move |p: &&mut Plain| p.fetches.contains(&slot);
            match op {
                Op::Come(slot, k) => {
                    if plain.iter_mut().any(|p| holds(slot)(&p)) {
                        continue;
                    }
                    let flight = &mut plain[k as usize];
                    let joins = !flight.fetches.is_empty() && slot % 5 != 0;
                    if joins {
                        flight.followers.push(slot);
                        prop_assert!(flights.follow(slot, key(k as usize)));
                    } else {
                        flight.fetches.push(slot);
                        let first = flight.fetches.len() == 1;
                        prop_assert_eq!(flights.fetch(slot, key(k as usize)), first);
                    }
                }
                Op::Leave(slot) => {
                    let follows = |p: &&mut Plain| p.followers.contains(&slot);
                    let flight = plain.iter_mut().find(follows);
                    prop_assert_eq!(flights.leave(slot), flight.is_some());
                    if let Some(flight) = flight {
                        flight.followers.retain(|&s| s != slot);
                    }
                }
                Op::Answer(slot) => {
                    let mut out = Vec::new();
                    flights.answered(slot, &mut out);
                    let mut expected = Vec::new();
                    if let Some(flight) = plain.iter_mut().find(fetches(slot)) {
                        expected = std::mem::take(&mut flight.followers);
                        flight.fetches.retain(|&s| s != slot);
                    }
                    prop_assert_eq!(out, expected);
                }
                Op::Fail(slot, fans_out) => {
                    let rule = if fans_out { OnFailure::FanOut } else { OnFailure::Promote };
                    let mut out = Vec::new();
                    let came = flights.failed(slot, rule, &mut out);
                    let mut expected = (Failed::Nobody, Vec::new());
                    if let Some(flight) = plain.iter_mut().find(fetches(slot)) {
                        flight.fetches.retain(|&s| s != slot);
                        if flight.fetches.is_empty() && !flight.followers.is_empty() {
                            expected = if fans_out {
                                (Failed::All, std::mem::take(&mut flight.followers))
                            } else {
                                let next = flight.followers.remove(0);
                                flight.fetches.push(next);
                                (Failed::Promoted(next), Vec::new())
                            };
                        }
                    }
                    prop_assert_eq!((came, out), expected);
                }
            }
            let mut open = 0;
            for (k, flight) in plain.iter().enumerate() {
                open += usize::from(*flight != Plain::default());
                prop_assert_eq!(flights.under_way(key(k)), !flight.fetches.is_empty());
                for &slot in &flight.fetches {
                    prop_assert_eq!(flights.fetches(slot), Some(key(k)));
                    let followers: Vec<u32> = flights.followers(slot).collect();
                    prop_assert_eq!(&followers, &flight.followers);
                    let needed = flight.fetches.len() == 1 && !followers.is_empty();
                    prop_assert_eq!(flights.is_needed(slot), needed);
                }
                prop_assert!(flight.followers.iter().all(|&slot| flights.follows(slot)));
                // Whoever waits, waits for somebody.
                prop_assert!(flight.followers.is_empty() || !flight.fetches.is_empty());
            }
            prop_assert_eq!(flights.len(), open);
        }
    }
}
