//! Against the block-by-block model, and stories.

use super::naive::{NaiveCache, NaiveHolding};
use super::*;
use crate::engine::CacheEvent;
use proptest::prelude::*;
use std::collections::BTreeMap;
use windtunnel_base::content::Extent;
use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::time::{SimDuration, SimTime};

fn layout(total_blocks: u64, block_size: u32) -> KvLayout {
    KvLayout {
        total_blocks,
        block_size,
        prefix_cache: true,
        eviction: EvictionKind::Lru,
    }
}

const fn e(key: u64, tokens: u32) -> Extent {
    Extent { key, tokens }
}

// --- against the naive model -------------------------------------------------------------

/// What a driver does next; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Op {
    Start {
        chain: Vec<Extent>,
        rest: u32,
        whole: bool,
    },
    Publish {
        who: usize,
        tokens: u32,
    },
    Generate {
        who: usize,
        tokens: u32,
    },
    Release {
        who: usize,
        uncomputed: u64,
    },
    /// So much time passes.
    Wait {
        nanos: u64,
    },
}

fn chains() -> impl Strategy<Value = Vec<Extent>> {
    // Few keys and lengths, so that chains meet, part in the middle, and repeat keys.
    prop::collection::vec((1_u64..4, 1_u32..12), 0..5)
        .prop_map(|v| v.into_iter().map(|(k, t)| e(k, t)).collect())
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (chains(), 0_u32..4, any::<bool>())
            .prop_map(|(chain, rest, whole)| Op::Start { chain, rest, whole }),
        4 => (any::<usize>(), 0_u32..60).prop_map(|(who, tokens)| Op::Publish { who, tokens }),
        2 => (any::<usize>(), 1_u32..9).prop_map(|(who, tokens)| Op::Generate { who, tokens }),
        3 => (any::<usize>(), 0_u64..3)
            .prop_map(|(who, uncomputed)| Op::Release { who, uncomputed }),
        2 => (0_u64..20).prop_map(|nanos| Op::Wait { nanos }),
    ];
    prop::collection::vec(op, 1..60)
}

/// A sequence in both caches.
#[derive(Debug)]
struct Running {
    chain: Vec<Extent>,
    tokens: u32,
    private: u64,
    holding: Holding,
    naive: NaiveHolding,
    /// Whether output continues the chain: only if nothing unshared came after it.
    continues: bool,
}

/// Drives the cache, and the naive one beside it if there is one for the policy.
struct Driver {
    cache: KvCache,
    naive: Option<NaiveCache>,
    running: Vec<Running>,
    resident: BTreeMap<u64, u32>,
    seen: Vec<Vec<Extent>>,
    now: u64,
    /// What is idle for so long is forgotten.
    ttl: Option<u64>,
}

impl Driver {
    fn new(layout: &KvLayout, ttl: Option<u64>) -> Self {
        let mut cache = KvCache::new(layout).expiring(ttl.map(SimDuration::from_nanos));
        cache.record_events(true);
        let naive = (layout.eviction == EvictionKind::Lru)
            .then(|| NaiveCache::new(layout.total_blocks, layout.block_size));
        Self {
            cache,
            naive,
            running: Vec::new(),
            resident: BTreeMap::new(),
            seen: Vec::new(),
            now: 0,
            ttl,
        }
    }

    fn step(&mut self, op: Op) {
        let held = self.cache.held_blocks();
        match op {
            Op::Start { chain, rest, whole } => self.start(chain, rest, whole),
            Op::Publish { who, tokens } => {
                self.publish(who, tokens);
                assert_eq!(self.cache.held_blocks(), held, "publishing holds no more");
            }
            Op::Generate { who, tokens } => self.generate(who, tokens),
            Op::Release { who, uncomputed } => self.release(who, uncomputed),
            Op::Wait { nanos } => self.wait(nanos),
        }
    }

    fn wait(&mut self, nanos: u64) {
        self.now += nanos;
        self.cache.expire(SimTime::from_nanos(self.now));
        if let Some(n) = &mut self.naive {
            n.now = self.now;
            self.ttl.into_iter().for_each(|ttl| n.expire(ttl));
        }
    }

    fn start(&mut self, chain: Vec<Extent>, rest: u32, whole: bool) {
        let named: u32 = chain.iter().map(|e| e.tokens).sum();
        let tokens = named + rest;
        let most = if whole {
            tokens
        } else {
            tokens.saturating_sub(1)
        };
        self.seen.push(chain.clone());
        let probed = self.cache.probe(&chain, most);
        let free = self.cache.free_blocks();
        let (holding, cached) = self.cache.acquire(&chain, most);
        let pinned = free - self.cache.free_blocks();
        assert_eq!(probed, (cached, pinned), "a probe of {chain:?} foretells");
        let need = u64::from(tokens.div_ceil(self.cache.block_size()))
            - u64::from(cached / self.cache.block_size());
        let mut naive = NaiveHolding::default();
        if let Some(n) = &mut self.naive {
            assert_eq!(cached, n.lookup(&chain, most), "hit of {chain:?}");
            naive = n.acquire(&chain, most);
        }
        let taken = self.cache.take(need);
        if let Some(n) = &mut self.naive {
            assert_eq!(taken.is_ok(), n.take(need));
        }
        if let Err(Shortage { missing }) = taken {
            assert_eq!(missing, need - self.cache.free_blocks());
            self.cache.release(holding, 0);
            if let Some(n) = &mut self.naive {
                n.release(naive, 0);
            }
            return;
        }
        self.running.push(Running {
            continues: rest == 0 && !chain.is_empty(),
            chain,
            tokens,
            private: need,
            holding,
            naive,
        });
    }

    fn publish(&mut self, who: usize, tokens: u32) {
        let Some(index) = who.checked_rem(self.running.len()) else {
            return;
        };
        let r = &mut self.running[index];
        let tokens = tokens.min(r.tokens);
        let moved = self.cache.publish(&mut r.holding, &r.chain, tokens);
        r.private -= moved;
        if let Some(n) = &mut self.naive {
            assert_eq!(moved, n.publish(&mut r.naive, &r.chain, tokens));
        }
    }

    fn generate(&mut self, who: usize, tokens: u32) {
        let Some(index) = who.checked_rem(self.running.len()) else {
            return;
        };
        let b = self.cache.block_size();
        let r = &mut self.running[index];
        let need = u64::from((r.tokens + tokens).div_ceil(b) - r.tokens.div_ceil(b));
        let taken = self.cache.take(need).is_ok();
        if let Some(n) = &mut self.naive {
            assert_eq!(taken, n.take(need));
        }
        if !taken {
            return;
        }
        r.private += need;
        r.tokens += tokens;
        if r.continues
            && let Some(last) = r.chain.last_mut()
        {
            last.tokens += tokens;
            self.seen.push(r.chain.clone());
        }
    }

    fn release(&mut self, who: usize, uncomputed: u64) {
        let Some(index) = who.checked_rem(self.running.len()) else {
            return;
        };
        let r = self.running.swap_remove(index);
        let empty = uncomputed.min(r.private);
        self.cache.give_back(empty);
        self.cache.release(r.holding, r.private - empty);
        if let Some(n) = &mut self.naive {
            n.give_back(empty);
            n.release(r.naive, r.private - empty);
        }
    }

    fn compare(&mut self) {
        assert_eq!(self.cache.audit(), Ok(()));
        let mut events: Vec<CacheEvent> = Vec::new();
        self.cache.take_events(SimTime::ZERO, &mut events);
        for event in events {
            match event.tokens {
                0 => self.resident.remove(&event.chain),
                tokens => self.resident.insert(event.chain, tokens),
            };
        }
        for chain in &self.seen {
            let found = self.cache.lookup(chain, u32::MAX);
            assert_eq!(found, self.told(chain), "events about {chain:?}");
            if let Some(n) = &self.naive {
                assert_eq!(found, n.lookup(chain, 1000), "lookup of {chain:?}");
            }
        }
        if let Some(n) = &self.naive {
            assert_eq!(self.cache.held_blocks(), n.held());
            assert_eq!(self.cache.cached_blocks(), n.cached());
            assert_eq!(self.cache.evicted_blocks(), n.evicted);
        }
    }

    /// What a router that follows the events would expect to be found.
    fn told(&self, prefix: &[Extent]) -> u32 {
        let (mut name, mut at, mut sum) = (ROOT_CHAIN, 0, 0);
        for extent in prefix {
            name = chain(name, at, extent.key);
            let resident = self.resident.get(&name).copied().unwrap_or(0);
            sum += resident.min(extent.tokens);
            if resident < extent.tokens {
                break;
            }
            at = extent.tokens;
        }
        sum - sum % self.cache.block_size()
    }
}

fn drive(kind: EvictionKind, total: u64, block_size: u32, ttl: Option<u64>, ops: Vec<Op>) {
    let layout = KvLayout {
        eviction: kind,
        ..layout(total, block_size)
    };
    let mut driver = Driver::new(&layout, ttl);
    for op in ops {
        driver.step(op);
        driver.compare();
    }
    while !driver.running.is_empty() {
        driver.step(Op::Release {
            who: 0,
            uncomputed: 0,
        });
        driver.compare();
    }
    assert_eq!(driver.cache.held_blocks(), 0, "everything came back");
    let all = driver.cache.total_blocks();
    assert_eq!(driver.cache.take(all), Ok(()), "and can be taken");
    if let Some(n) = &mut driver.naive {
        assert!(n.take(all));
    }
    driver.compare();
    assert!(driver.resident.is_empty(), "nothing is left in the tree");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn lru_is_what_hashing_every_block_would_give(
        total in 1_u64..30,
        block_size in 1_u32..6,
        ttl in prop::option::of(1_u64..40),
        ops in ops(),
    ) {
        drive(EvictionKind::Lru, total, block_size, ttl, ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn books_balance_and_events_tell_all_under_every_policy(
        kind in prop_oneof![
            Just(EvictionKind::Fifo), Just(EvictionKind::Lfu),
            Just(EvictionKind::Sieve), Just(EvictionKind::S3fifo),
        ],
        total in 1_u64..30, block_size in 1_u32..6, ops in ops(),
    ) {
        drive(kind, total, block_size, None, ops);
    }
}

// --- stories -----------------------------------------------------------------------------

#[test]
fn a_conversation_finds_its_last_turn() {
    let mut kv = KvCache::new(&layout(10, 4));
    let (mut first, cached) = kv.acquire(&[e(1, 10)], 9);
    assert_eq!(cached, 0, "memory is empty");
    assert_eq!(kv.take(3), Ok(()), "ten tokens fill two blocks and a half");
    assert_eq!(
        kv.publish(&mut first, &[e(1, 10)], 10),
        2,
        "whole blocks only"
    );
    // Six tokens of output continue the stream: the half block is whole, one more is needed.
    assert_eq!(kv.take(1), Ok(()));
    assert_eq!(kv.publish(&mut first, &[e(1, 16)], 16), 2);
    kv.release(first, 0);
    assert_eq!((kv.held_blocks(), kv.cached_blocks()), (0, 4));
    // The next turn repeats all that and adds a question.
    let (second, cached) = kv.acquire(&[e(1, 20)], 19);
    assert_eq!((cached, second.tokens()), (16, 16));
    assert_eq!(kv.held_blocks(), 4, "pinned");
    kv.release(second, 0);
}

#[test]
fn one_token_is_always_computed() {
    let mut kv = KvCache::new(&layout(10, 4));
    let (mut first, _) = kv.acquire(&[e(1, 8)], 7);
    kv.take(2).expect("room");
    assert_eq!(kv.publish(&mut first, &[e(1, 8)], 8), 2);
    kv.release(first, 0);
    // The same prompt again: its last block is in memory but must be computed anew for its last
    // token, so the sequence's own block takes over and the stale one is empty.
    let (mut second, cached) = kv.acquire(&[e(1, 8)], 7);
    assert_eq!(cached, 4);
    kv.take(1).expect("room");
    assert_eq!((kv.held_blocks(), kv.cached_blocks()), (2, 1));
    assert_eq!(kv.publish(&mut second, &[e(1, 8)], 8), 1);
    assert_eq!((kv.held_blocks(), kv.cached_blocks()), (2, 0));
    // A third computes the same while the second holds it: both copies exist until it ends.
    let (mut third, cached) = kv.acquire(&[e(1, 8)], 7);
    assert_eq!(cached, 4);
    kv.take(1).expect("room");
    assert_eq!(
        kv.publish(&mut third, &[e(1, 8)], 8),
        0,
        "a copy stays private"
    );
    assert_eq!(kv.held_blocks(), 3);
    kv.release(third, 1);
    assert_eq!((kv.held_blocks(), kv.cached_blocks()), (2, 1));
    kv.release(second, 0);
    assert_eq!((kv.held_blocks(), kv.cached_blocks()), (0, 3));
}

#[test]
fn the_end_of_a_prompt_leaves_before_its_beginning() {
    let mut kv = KvCache::new(&layout(6, 4));
    let (mut a, _) = kv.acquire(&[e(1, 8), e(2, 8)], 16);
    kv.take(5).expect("four blocks of prompt, one of output");
    assert_eq!(kv.publish(&mut a, &[e(1, 8), e(2, 8)], 16), 4);
    kv.release(a, 1);
    kv.take(2)
        .expect("one is empty, and the output that nobody can ask for goes first");
    assert_eq!(kv.lookup(&[e(1, 8), e(2, 8)], 16), 16);
    kv.take(1).expect("then the last block");
    assert_eq!(kv.lookup(&[e(1, 8), e(2, 8)], 16), 12);
    kv.take(2).expect("and on towards the beginning");
    assert_eq!(kv.lookup(&[e(1, 8), e(2, 8)], 16), 4);
    assert_eq!(
        kv.take(2),
        Err(Shortage { missing: 1 }),
        "one block is left"
    );
    assert_eq!(kv.lookup(&[e(1, 8)], 8), 4, "a refusal changes nothing");
    assert_eq!(kv.evicted_blocks(), 4);
}

#[test]
fn a_shared_beginning_outlives_its_ends() {
    let mut kv = KvCache::new(&layout(8, 4));
    for key in [2, 3] {
        // A system prompt of six tokens, then a question each: the second block belongs to the
        // question, because its content depends on it.
        let prompt = [e(1, 6), e(key, 6)];
        let (mut h, cached) = kv.acquire(&prompt, 11);
        assert_eq!(cached, if key == 2 { 0 } else { 4 });
        let need = 3 - u64::from(cached / 4);
        kv.take(need).expect("room");
        assert_eq!(kv.publish(&mut h, &prompt, 12), need);
        kv.release(h, 0);
    }
    assert_eq!(
        kv.cached_blocks(),
        5,
        "one shared block, two for each question"
    );
    kv.take(5)
        .expect("three are empty, and the first question is oldest");
    assert_eq!(kv.lookup(&[e(1, 6), e(2, 6)], 12), 4);
    assert_eq!(kv.lookup(&[e(1, 6), e(3, 6)], 12), 12);
}

#[test]
fn what_follows_a_victim_leaves_before_it() {
    let mut kv = KvCache::new(&KvLayout {
        eviction: EvictionKind::Fifo,
        ..layout(6, 4)
    });
    let question = [e(1, 8), e(2, 8)];
    for prompt in [&question[..1], &question, &[e(3, 8)]] {
        let (mut h, cached) = kv.acquire(prompt, 16);
        let tokens: u32 = prompt.iter().map(|e| e.tokens).sum();
        let need = u64::from((tokens - cached) / 4);
        kv.take(need).expect("room");
        assert_eq!(kv.publish(&mut h, prompt, tokens), need);
        kv.release(h, 0);
    }
    // Stream 1 came first, so it must go; but without it the question could not be found.
    kv.take(1).expect("one of six");
    assert_eq!(
        kv.lookup(&question, 16),
        12,
        "the question's end goes first"
    );
    // Somebody asks for stream 1 again before its turn has come: it returns as a newcomer, and
    // the rest of the question is next, then what came after it.
    let (h, cached) = kv.acquire(&question[..1], 8);
    assert_eq!(cached, 8);
    kv.release(h, 0);
    kv.give_back(1);
    kv.take(2).expect("an empty one and another");
    assert_eq!(kv.lookup(&question, 16), 8);
    kv.take(2).expect("two more");
    assert_eq!((kv.lookup(&[e(3, 8)], 8), kv.lookup(&question, 16)), (0, 8));
}

#[test]
fn without_prefix_cache_blocks_are_only_counted() {
    let mut kv = KvCache::new(&KvLayout {
        prefix_cache: false,
        ..layout(4, 4)
    });
    let (mut h, cached) = kv.acquire(&[e(1, 16)], 15);
    assert_eq!(cached, 0);
    kv.take(4).expect("room");
    assert_eq!(kv.publish(&mut h, &[e(1, 16)], 16), 0);
    kv.release(h, 4);
    assert_eq!((kv.cached_blocks(), kv.free_blocks()), (0, 4));
    assert_eq!(kv.lookup(&[e(1, 16)], 15), 0);
}

#[test]
fn names_tell_apart_where_a_stream_begins() {
    // Both chains are stream 1, then stream 2, but the second stream begins elsewhere.
    let early = chain(chain(ROOT_CHAIN, 0, 1), 8, 2);
    let late = chain(chain(ROOT_CHAIN, 0, 1), 10, 2);
    assert_ne!(early, late);
}

#[test]
fn host_memory_is_counted() {
    let mut host = HostPool::new(3);
    assert_eq!(host.take(2), Ok(()));
    assert_eq!(host.take(2), Err(Shortage { missing: 1 }));
    host.give_back(1);
    assert_eq!((host.used_blocks(), host.total_blocks()), (1, 3));
}
