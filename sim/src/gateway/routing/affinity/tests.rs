//! The map against a plain list, and what it does without its store.

use super::*;
use crate::gateway::fixtures::{Cached, Shown, replica, request};
use crate::view::{News, ReplicaView};
use proptest::prelude::*;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{RequestId, TenantId};
use windtunnel_base::rng::Rng;

fn policy(text: &str) -> Affinity {
    Affinity::new(&serde_json::from_str(text).unwrap())
}

fn idle(replicas: u32) -> Vec<ReplicaView> {
    (0..replicas)
        .map(|id| replica(id, Shown::default()))
        .collect()
}

fn at(seconds: u64) -> SimTime {
    SimTime::ZERO + SimDuration::from_secs(seconds)
}

fn route(
    policy: &mut Affinity,
    asked: &RequestView<'_>,
    fleet: &[ReplicaView],
    now: SimTime,
) -> u32 {
    let cached = Cached(Vec::new());
    let seen = FleetView {
        now,
        replicas: fleet,
        cache: &cached,
        news: News::Everything,
    };
    let mut cx = PolicyCx {
        rng: &mut Rng::from_seed(now.as_nanos() ^ 5),
        scores: None,
    };
    match policy.route(asked, &seen, &mut cx) {
        Route::To(id) => id.0,
        Route::Refuse(reason) => panic!("refused: {reason:?}"),
    }
}

#[test]
fn a_column_and_a_token_make_a_key() {
    let map = policy(r#"{"kind":"affinity","columns":2}"#);
    let one = [Extent {
        key: 1,
        tokens: 500,
    }];
    let key = |id, tokens| map.key(&request(id, tokens, &one));
    assert_eq!(key(0, 64), None, "of 64 tokens, 63 could be found at most");
    assert!(key(0, 65).is_some());
    assert_eq!(
        key(0, 65),
        key(1, 128),
        "one whole column before the last token"
    );
    assert_ne!(key(0, 128), key(1, 129));
    assert_eq!(key(0, 129), key(1, 500), "two columns, however it goes on");
    assert_ne!(
        map.key(&request(0, 500, &[])),
        map.key(&request(1, 500, &[]))
    );
}

#[test]
fn age_counts_from_the_last_use_or_from_the_first() {
    let prefix = [Extent { key: 1, tokens: 99 }];
    for (from, left_after, expired) in [("last_use", 1, 0), ("first_use", 1, 1)] {
        let text = format!(r#"{{"kind":"affinity","ttl":"10s","ttl_from":"{from}"}}"#);
        let mut map = policy(&text);
        for (id, seconds) in [(0, 0), (1, 8), (2, 16)] {
            route(&mut map, &request(id, 99, &prefix), &idle(4), at(seconds));
        }
        assert_eq!(
            (map.entries.len(), map.totals.expired),
            (left_after, expired),
            "{from}"
        );
        assert_eq!(map.totals.placed, 1 + expired, "{from}");
    }
}

#[test]
fn a_hot_key_fills_its_replica_to_the_bound_and_no_further() {
    // V-P7 and its remedy: 800 requests of one key, none of which ends.
    let prefix = [Extent {
        key: 1,
        tokens: 999,
    }];
    for (epsilon, most) in [("\"none\"", 800), ("0.25", 125), ("0.05", 105)] {
        let text = format!(r#"{{"kind":"affinity","epsilon":{epsilon}}}"#);
        let mut map = policy(&text);
        let mut fleet = idle(8);
        for id in 0..800 {
            let to = route(&mut map, &request(id, 999, &prefix), &fleet, at(1));
            fleet[to as usize].in_flight += 1;
        }
        let busiest = fleet.iter().map(|r| r.in_flight).max().unwrap();
        assert_eq!(busiest, most, "epsilon {epsilon}");
        assert_eq!(map.entries.len(), 1);
    }
}

#[test]
fn without_its_store_a_gateway_knows_what_it_has_seen() {
    let mut map = policy(r#"{"kind":"affinity","key":"conversation","epsilon":"none"}"#);
    let fleet = idle(64);
    let ask = |map: &mut Affinity, gateway, answered, conversation: u32| {
        map.asks(Asking { gateway, answered });
        route(
            map,
            &request(conversation, 100, &[]),
            &fleet,
            at(u64::from(conversation)),
        )
    };
    for conversation in 0..100 {
        ask(&mut map, conversation % 2, true, conversation);
    }
    let home = |map: &Affinity, conversation: u32| {
        let key = map.key(&request(conversation, 100, &[])).unwrap();
        map.entries[map.by_key[&key]].replica.0
    };
    let mut strays = 0;
    for conversation in 0..100 {
        assert_eq!(
            ask(&mut map, conversation % 2, false, conversation),
            home(&map, conversation)
        );
        strays += u32::from(
            ask(&mut map, 1 - conversation % 2, false, conversation) != home(&map, conversation),
        );
    }
    assert_eq!(map.totals.unknown, 100);
    assert!(strays > 90, "one in 64 is right by chance: {strays}");
    // Once a gateway has read an entry, it knows it.
    ask(&mut map, 1, true, 0);
    assert_eq!(ask(&mut map, 1, false, 0), home(&map, 0));
    // A new conversation leaves nothing in a store that does not answer.
    ask(&mut map, 0, false, 100);
    assert_eq!(map.entries.len(), 100);
    map.forget_all();
    assert_eq!((map.entries.len(), map.by_key.len()), (0, 0));
    assert!(map.held.iter().all(|&held| held == 0));
}

#[test]
fn only_keys_of_the_replica_that_lost_its_memory_move() {
    // E09: 1 of 8 replicas comes back cold; an eighth of the keys is placed anew.
    let mut map = policy(r#"{"kind":"affinity","key":"conversation","epsilon":"none"}"#);
    let before: Vec<u32> = (0..800)
        .map(|c| route(&mut map, &request(c, 100, &[]), &idle(8), at(1)))
        .collect();
    let on_three = before.iter().filter(|&&to| to == 3).count() as u64;
    assert_eq!(on_three, 100, "placed evenly");
    map.forget(ReplicaId(3));
    let mut fleet = idle(8);
    fleet.remove(3);
    for (c, &was) in before.iter().enumerate() {
        let to = route(&mut map, &request(c as u32, 100, &[]), &fleet, at(2));
        assert!(to == was || was == 3);
    }
    assert_eq!(map.totals.placed, 800 + on_three);
}

#[test]
fn a_prompt_is_expected_where_one_of_its_key_was_computed() {
    let mut map = policy(r#"{"kind":"affinity","key":"conversation","epsilon":"none"}"#);
    let asked = request(0, 100, &[]);
    let to = ReplicaId(route(&mut map, &asked, &idle(4), at(1)));
    assert_eq!(
        map.last_use(),
        IndexUse {
            expects_cached: false,
            wrote: true
        }
    );
    route(&mut map, &asked, &idle(4), at(1));
    assert!(
        !map.last_use().expects_cached,
        "the first is still being computed"
    );
    map.observe(&asked, ReplicaId(to.0 ^ 1), Feedback::FirstToken, at(2));
    map.observe(&asked, to, Feedback::Finished, at(2));
    route(&mut map, &asked, &idle(4), at(2));
    assert!(!map.last_use().expects_cached);
    map.observe(&asked, to, Feedback::FirstToken, at(2));
    route(&mut map, &asked, &idle(4), at(2));
    assert_eq!(
        map.last_use(),
        IndexUse {
            expects_cached: true,
            wrote: false
        }
    );
}

/// A request as drawn: tenant, conversation, seconds since the one before, replicas out.
type Asked = (u32, u32, u64, u32);

proptest! {
    /// Against a list of entries in the order of their age: the same entries, never more than the
    /// bound, none older than the limit; and no entry is ever used by another tenant.
    #[test]
    fn agrees_with_a_list(
        asked in prop::collection::vec((0..3_u32, 0..5_u32, 0..4_u64, 0..4_u32), 1..120),
        by_last_use in any::<bool>(),
        max in 1..9_usize,
    ) {
        let from = if by_last_use { "last_use" } else { "first_use" };
        let mut map = policy(&format!(
            r#"{{"kind":"affinity","key":"conversation","epsilon":"none","ttl":"6s","ttl_from":"{from}","max_entries":{max}}}"#
        ));
        let mut list: Vec<((u32, u32), u32, u64)> = Vec::new();
        let mut now = 0;
        for &(tenant, conversation, gap, out) in &asked as &Vec<Asked> {
            now += gap;
            let mut fleet = idle(4);
            fleet.remove(out as usize);
            let view = RequestView {
                id: RequestId(0),
                tenant: TenantId(tenant),
                ..request(conversation, 100, &[])
            };
            let to = route(&mut map, &view, &fleet, at(now));
            prop_assert_ne!(to, out);
            list.retain(|entry| entry.2 + 6 > now);
            let key = (tenant, conversation);
            match list.iter().position(|entry| entry.0 == key) {
                Some(place) => {
                    if list[place].1 != out {
                        prop_assert_eq!(to, list[place].1);
                    }
                    if by_last_use {
                        let entry = list.remove(place);
                        list.push((entry.0, entry.1, now));
                    }
                }
                None => {
                    if list.len() == max {
                        list.remove(0);
                    }
                    list.push((key, to, now));
                }
            }
            prop_assert_eq!(map.entries.len(), list.len());
            for (replica, &held) in map.held.iter().enumerate() {
                let here = list.iter().filter(|entry| entry.1 == replica as u32).count();
                prop_assert_eq!(held as usize, here);
            }
        }
    }
}
