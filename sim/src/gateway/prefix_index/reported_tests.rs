use super::*;
use crate::gateway::fixtures::request;
use proptest::prelude::*;
use windtunnel_base::content::Extent;
use windtunnel_engine::config::EvictionKind;
use windtunnel_engine::kv::{Holding, KvCache, KvLayout};

const fn e(key: u64, tokens: u32) -> Extent {
    Extent { key, tokens }
}

fn event(at: u64, chain: u64, tokens: u32) -> CacheEvent {
    CacheEvent {
        at: SimTime::from_nanos(at),
        chain,
        tokens,
    }
}

#[test]
fn a_match_ends_where_a_chain_is_not_fully_resident() {
    let mut index = ReportedIndex::new(vec![16, 16, 8]);
    let system = chain(ROOT_CHAIN, 0, 1);
    let talk = chain(system, 40, 2);
    for replica in 0..3 {
        index.apply(ReplicaId(replica), &event(0, system, 40));
    }
    index.apply(ReplicaId(1), &event(0, talk, 30));
    let mut tokens = Vec::new();
    index.matches(&request(0, 100, &[e(1, 40), e(2, 50)]), &mut tokens);
    assert_eq!(tokens, [32, 64, 40], "whole blocks of 16, 16 and 8");
    // The system prompt shrinks on replica 1: what is below it cannot be reached.
    index.apply(ReplicaId(1), &event(1, system, 20));
    index.matches(&request(0, 100, &[e(1, 40), e(2, 50)]), &mut tokens);
    assert_eq!(tokens, [32, 16, 40]);
    // All is forgotten, in any order.
    for (replica, chain) in [(2, system), (0, system), (1, talk), (1, system), (1, talk)] {
        index.apply(ReplicaId(replica), &event(2, chain, 0));
    }
    index.matches(&request(0, 100, &[e(1, 40)]), &mut tokens);
    assert_eq!((tokens, index.entries()), (vec![0, 0, 0], 0));
    assert!(index.places.is_empty());
}

#[test]
fn reports_take_effect_when_they_arrive_in_order_of_their_changes() {
    let mut view = DelayedCacheView::new(vec![1, 1], SimDuration::from_nanos(10));
    let place = chain(ROOT_CHAIN, 0, 1);
    // Replica 1 ran ahead and reports first, for later.
    view.record(ReplicaId(1), &[event(5, place, 7), event(8, place, 0)]);
    view.record(ReplicaId(0), &[event(3, place, 4), event(5, place, 6)]);
    let prefix = [e(1, 9)];
    let mut at = |now| {
        view.advance(SimTime::from_nanos(now));
        let mut tokens = Vec::new();
        view.cached_tokens(&request(0, 99, &prefix), &mut tokens);
        tokens
    };
    assert_eq!(at(12), [0, 0], "nothing has arrived");
    assert_eq!(at(13), [4, 0], "exactly after the delay");
    assert_eq!(at(15), [6, 7]);
    assert_eq!(at(100), [6, 0]);
}

/// What a replica does with its cache: begins a prompt, computes it to the end, or ends one.
#[derive(Clone, Debug)]
enum Deed {
    Begin { prefix: Vec<Extent>, rest: u32 },
    Compute { which: usize, share: u32 },
    End { which: usize },
}

fn prompts() -> impl Strategy<Value = (Vec<Extent>, u32)> {
    (0..3_u64, 0..3_u64, 1..40_u32, 0..20_u32, 0..30_u32).prop_map(
        |(system, talk, length, more, rest)| {
            let mut prefix = vec![e(10 + system, 7 + 5 * system as u32)];
            prefix.push(e(100 + 10 * system + talk, length));
            if more > 0 && length % 3 == 0 {
                prefix.push(e(200 + talk, more));
            }
            (prefix, rest)
        },
    )
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        3 => prompts().prop_map(|(prefix, rest)| Deed::Begin { prefix, rest }),
        3 => (0..4_usize, 1..4_u32).prop_map(|(which, share)| Deed::Compute { which, share }),
        2 => (0..4_usize).prop_map(|which| Deed::End { which }),
    ];
    prop::collection::vec(deed, 1..80)
}

/// A prompt under way in a replica.
struct Running {
    prefix: Vec<Extent>,
    tokens: u32,
    holding: Holding,
    private: u64,
}

/// One deed of a replica.
fn act(cache: &mut KvCache, running: &mut Vec<Running>, deed: &Deed) {
    match deed {
        Deed::Begin { prefix, rest } => {
            let tokens = prefix.iter().map(|x| x.tokens).sum::<u32>() + rest;
            let (holding, found) = cache.acquire(prefix, tokens);
            let private = u64::from((tokens - found).div_ceil(cache.block_size()));
            if cache.take(private).is_err() {
                cache.release(holding, 0);
                return;
            }
            running.push(Running {
                prefix: prefix.clone(),
                tokens,
                holding,
                private,
            });
        }
        Deed::Compute { which, share } if *which < running.len() => {
            let run = &mut running[*which];
            let done = run.tokens * share / 3;
            run.private -= cache.publish(&mut run.holding, &run.prefix, done);
        }
        Deed::End { which } if *which < running.len() => {
            let run = running.swap_remove(*which);
            cache.release(run.holding, run.private);
        }
        Deed::Compute { .. } | Deed::End { .. } => {}
    }
}

proptest! {
    /// Who follows the reports knows at every moment what a look into the caches would show.
    #[test]
    fn reports_tell_what_caches_hold(
        deeds in prop::collection::vec(deeds(), 2),
        asked in prop::collection::vec(prompts(), 1..6),
        block in 1_u32..9,
        blocks in 4_u64..60,
        eviction in prop::sample::select(vec![EvictionKind::Lru, EvictionKind::Fifo, EvictionKind::Sieve]),
    ) {
        let layout = KvLayout { total_blocks: blocks, block_size: block, prefix_cache: true, eviction };
        let mut index = ReportedIndex::new(vec![block; 2]);
        let mut caches = vec![KvCache::new(&layout), KvCache::new(&layout)];
        let mut running = [Vec::new(), Vec::new()];
        let mut events = Vec::new();
        for cache in &mut caches { cache.record_events(true); }
        for step in 0..deeds.iter().map(Vec::len).max().unwrap_or(0) {
            for (replica, cache) in caches.iter_mut().enumerate() {
                let Some(deed) = deeds[replica].get(step) else { continue };
                act(cache, &mut running[replica], deed);
                cache.take_events(SimTime::ZERO, &mut events);
                for event in events.drain(..) { index.apply(ReplicaId::from(replica), &event); }
            }
            for (prefix, rest) in &asked {
                let prompt = prefix.iter().map(|x| x.tokens).sum::<u32>() + rest;
                let mut told = Vec::new();
                index.matches(&request(0, prompt, prefix), &mut told);
                let held: Vec<_> = caches.iter().map(|c| c.lookup(prefix, prompt - 1)).collect();
                prop_assert_eq!(told, held, "of {:?} at step {}", prefix, step);
            }
        }
    }
}
