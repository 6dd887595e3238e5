//! The prefix cache of a replica and the index of a router, by length of the prompt in tokens and in
//! extents. Both claim work per extent and none per block: a line that grows with the tokens at
//! equal extents would show that the claim is broken.

use criterion::{BenchmarkId, Criterion};
use std::hint::black_box;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, ReplicaId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::config::EvictionKind;
use windtunnel_engine::kv::{KvCache, KvLayout};
use windtunnel_engine::request::RequestView;
use windtunnel_sim::gateway::prefix_index::{RoutedIndex, RoutedLimits};

const BLOCK: u32 = 16;
/// Distinct prompts that are played in turn; together they fit, so that most of each is found.
const PROMPTS: usize = 64;
const REPLICAS: u32 = 8;

/// Tokens and extents of a prompt.
const SHAPES: [(u32, u32); 5] = [(512, 1), (8_192, 1), (131_072, 1), (8_192, 8), (8_192, 64)];

/// Prompts of equal shape whose first half is common to all.
fn prompts(tokens: u32, extents: u32) -> Vec<Vec<Extent>> {
    (0..PROMPTS as u64)
        .map(|prompt| {
            (0..extents)
                .map(|e| {
                    let own = if e < extents / 2 { 0 } else { prompt + 1 };
                    Extent {
                        key: own << 32 | u64::from(e),
                        tokens: tokens / extents,
                    }
                })
                .collect()
        })
        .collect()
}

/// A request's life in a replica's memory: found, computed, shown to others, left behind.
fn live(cache: &mut KvCache, prompt: &[Extent], tokens: u32) -> u32 {
    let (mut holding, found) = cache.acquire(prompt, tokens - 1);
    let blocks = u64::from(tokens.div_ceil(BLOCK) - found / BLOCK);
    if cache.take(blocks).is_ok() {
        let published = cache.publish(&mut holding, prompt, tokens);
        cache.release(holding, blocks - published);
    }
    found
}

fn view(prompt: &[Extent], tokens: u32) -> RequestView<'_> {
    RequestView {
        id: RequestId(0),
        sent_at: SimTime::ZERO,
        deadline: None,
        prompt_tokens: tokens,
        max_output_tokens: None,
        predicted_output_tokens: None,
        tenant: TenantId(0),
        class: ClassId(0),
        priority: 0,
        session: 0,
        prefix: prompt,
    }
}

fn kv_cache(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefix_cache/kv_cache");
    for (tokens, extents) in SHAPES {
        let prompts = prompts(tokens, extents);
        let mut cache = KvCache::new(&KvLayout {
            total_blocks: 2 * PROMPTS as u64 * u64::from(tokens / BLOCK),
            block_size: BLOCK,
            prefix_cache: true,
            eviction: EvictionKind::default(),
        });
        let mut next = 0;
        let id = BenchmarkId::new(format!("{tokens}_tokens"), format!("{extents}_extents"));
        group.bench_function(id, |b| {
            b.iter(|| {
                let prompt = &prompts[next % PROMPTS];
                next += 1;
                black_box(cache.lookup(prompt, tokens - 1));
                live(&mut cache, prompt, tokens)
            });
        });
    }
    group.finish();
}

fn routed_index(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefix_cache/routed_index");
    for (tokens, extents) in SHAPES {
        let prompts = prompts(tokens, extents);
        let mut index = RoutedIndex::new(RoutedLimits {
            block_tokens: BLOCK,
            max_blocks: u32::MAX,
            capacity_blocks: PROMPTS as u64 * u64::from(tokens / BLOCK),
            max_entries: u32::MAX,
            ttl: None,
        });
        let (mut next, mut now, mut found) = (0_usize, SimTime::ZERO, Vec::new());
        let id = BenchmarkId::new(format!("{tokens}_tokens"), format!("{extents}_extents"));
        group.bench_function(id, |b| {
            b.iter(|| {
                let request = view(&prompts[next % PROMPTS], tokens);
                let replica = ReplicaId(next as u32 % REPLICAS);
                next += 1;
                now = now.saturating_add(SimDuration::from_millis(1));
                index.matches(&request, now, REPLICAS as usize, &mut found);
                index.insert(&request, replica, now);
                black_box(found.len())
            });
        });
    }
    group.finish();
}

/// Prompts held, all of which go on from the same beginning, while the same few are looked up.
const HELD: [u64; 3] = [1_000, 32_000, 1_000_000];

/// A lookup by how many prompts the index holds: it should cost the same, but for what the processor's
/// own caches hold.
fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefix_cache/lookup");
    let beginning = Extent {
        key: 0,
        tokens: 1_024,
    };
    for held in HELD {
        let mut index = RoutedIndex::new(RoutedLimits {
            block_tokens: BLOCK,
            max_blocks: u32::MAX,
            capacity_blocks: u64::MAX,
            max_entries: u32::MAX,
            ttl: None,
        });
        let prompt = |own: u64| {
            let tokens = 1_024;
            [beginning, Extent { key: own, tokens }]
        };
        for own in 1..=held {
            let replica = ReplicaId((own % u64::from(REPLICAS)) as u32);
            index.insert(&view(&prompt(own), 2_048), replica, SimTime::ZERO);
        }
        let (mut next, mut found) = (0, Vec::new());
        group.bench_function(BenchmarkId::from_parameter(held), |b| {
            b.iter(|| {
                let prompt = prompt(1 + next % PROMPTS as u64);
                next += 1;
                let request = view(&prompt, 2_048);
                index.matches(&request, SimTime::ZERO, REPLICAS as usize, &mut found);
                black_box(found.len())
            });
        });
    }
    group.finish();
}

pub(crate) fn benches(c: &mut Criterion) {
    kv_cache(c);
    routed_index(c);
    lookup(c);
}
