//! Caches, V-H1 to V-H3: the replicas' own prefix cache under independent references. Every item is
//! a prompt of one block.

use super::naive;
use super::theory;
use super::{Case, CaseError, Check, Param, Point, Sampled};
use rayon::prelude::*;
use windtunnel_base::content::{Extent, stream_key};
use windtunnel_base::rng::Streams;
use windtunnel_base::sample::Zipf;
use windtunnel_engine::config::EvictionKind;
use windtunnel_engine::kv::{KvCache, KvLayout};

const ITEMS: Param = Param {
    name: "items",
    default: "1000",
    doc: "different prompts",
};
const ALPHA: Param = Param {
    name: "alpha",
    default: "1.0",
    doc: "Zipf exponent of their popularity",
};
const CAPACITY: Param = Param {
    name: "capacity",
    default: "100",
    doc: "prompts that fit",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-H1",
        title: "LRU under independent Zipf references: hit ratio",
        source: "Che, Tung & Wang 2002; Fricker, Robert & Roberts 2012",
        params: &[ITEMS, ALPHA, CAPACITY],
        points: &[
            &[("items", "1000"), ("alpha", "0.8"), ("capacity", "100")],
            &[("items", "1000"), ("alpha", "1.0"), ("capacity", "100")],
            &[("items", "1000"), ("alpha", "1.0"), ("capacity", "10")],
            &[("items", "10000"), ("alpha", "0.8"), ("capacity", "1000")],
            &[("items", "10000"), ("alpha", "1.0"), ("capacity", "100")],
            &[("items", "10000"), ("alpha", "1.0"), ("capacity", "500")],
            &[("items", "10000"), ("alpha", "1.0"), ("capacity", "1000")],
            &[("items", "10000"), ("alpha", "1.2"), ("capacity", "100")],
        ],
        run: |point| against(point, EvictionKind::Lru, theory::che_lru),
    },
    Case {
        id: "V-H2",
        title: "FIFO under independent Zipf references: hit ratio",
        source: "Fricker, Robert & Roberts 2012",
        params: &[ITEMS, ALPHA, CAPACITY],
        points: &[
            &[("items", "1000"), ("alpha", "0.8"), ("capacity", "100")],
            &[("items", "1000"), ("alpha", "1.0"), ("capacity", "100")],
            &[("items", "1000"), ("alpha", "1.0"), ("capacity", "10")],
        ],
        run: |point| against(point, EvictionKind::Fifo, theory::che_fifo),
    },
    Case {
        id: "V-H3",
        title: "static optimum: the most popular prompts; LFU stays below it, LRU below that, FIFO last",
        source: "sum of the most popular items' probabilities",
        params: &[ITEMS, ALPHA, CAPACITY],
        points: &[
            &[("items", "1000"), ("alpha", "0.8"), ("capacity", "100")],
            &[("items", "1000"), ("alpha", "1.0"), ("capacity", "100")],
        ],
        run: order,
    },
];

struct Setting {
    items: u64,
    alpha: f64,
    capacity: u64,
}

fn setting(point: &Point<'_>) -> Result<Setting, CaseError> {
    let items = point.count("items", 2..=1_000_000)?;
    let capacity = point.count("capacity", 1..=1_000_000)?;
    if capacity >= items {
        return Err(point.refuse("capacity", "must be smaller than the number of items"));
    }
    Ok(Setting {
        items,
        alpha: point.number("alpha", 0.0..=3.0)?,
        capacity,
    })
}

/// Prompts asked for, by rank, the same for one seed.
fn references(
    setting: &Setting,
    seed: u64,
    count: u64,
) -> Result<impl Iterator<Item = u64>, CaseError> {
    let zipf =
        Zipf::new(setting.items, setting.alpha).map_err(|e| CaseError::Run(e.to_string()))?;
    let mut rng = Streams::new(seed).stream("independent references", 0);
    Ok((0..count).map(move |_| zipf.sample(&mut rng) as u64))
}

const fn prompt(item: u64) -> [Extent; 1] {
    [Extent {
        key: stream_key(1, item),
        tokens: 1,
    }]
}

fn cache(setting: &Setting, eviction: EvictionKind) -> KvCache {
    KvCache::new(&KvLayout {
        total_blocks: setting.capacity,
        block_size: 1,
        prefix_cache: true,
        eviction,
    })
}

/// Asks for a prompt, and leaves it in the cache; whether it was there.
fn ask(cache: &mut KvCache, item: u64) -> Result<bool, CaseError> {
    let prompt = prompt(item);
    let (mut holding, cached) = cache.acquire(&prompt, 1);
    let missing = u64::from(1 - cached);
    cache
        .take(missing)
        .map_err(|s| CaseError::Run(format!("{} blocks missing", s.missing)))?;
    let shared = cache.publish(&mut holding, &prompt, 1);
    cache.release(holding, missing - shared);
    Ok(cached == 1)
}

/// A cache's figure over replications of a million references, after a warm-up of a quarter more.
fn measure(
    point: &Point<'_>,
    one: impl Fn(u64, u64, u64) -> Result<f64, CaseError> + Sync,
) -> Result<Sampled, CaseError> {
    let counted = point.length(1_000_000.0);
    let ratios: Result<Vec<f64>, CaseError> = (0..4)
        .into_par_iter()
        .map(|i| one(point.seed + i, counted / 4, counted))
        .collect();
    Ok(Sampled::of(&ratios?))
}

/// Hit ratio of the prefix cache.
fn hit_ratio(
    point: &Point<'_>,
    setting: &Setting,
    eviction: EvictionKind,
) -> Result<Sampled, CaseError> {
    measure(point, |seed, warm_up, counted| {
        let mut cache = cache(setting, eviction);
        let mut hits = 0;
        for (i, item) in references(setting, seed, warm_up + counted)?.enumerate() {
            let hit = ask(&mut cache, item)?;
            hits += u64::from(hit && i as u64 >= warm_up);
        }
        Ok(hits as f64 / counted as f64)
    })
}

/// Hit ratio of a prefix cache that was filled with the most popular prompts and is only looked at.
fn static_hit_ratio(point: &Point<'_>, setting: &Setting) -> Result<Sampled, CaseError> {
    measure(point, |seed, _, counted| {
        let mut cache = cache(setting, EvictionKind::Lru);
        for item in 0..setting.capacity {
            ask(&mut cache, item)?;
        }
        let found = |item: u64| u64::from(cache.lookup(&prompt(item), 1));
        let hits: u64 = references(setting, seed, counted)?.map(found).sum();
        Ok(hits as f64 / counted as f64)
    })
}

fn against(
    point: &Point<'_>,
    eviction: EvictionKind,
    formula: fn(&[f64], f64) -> f64,
) -> Result<Vec<Check>, CaseError> {
    let setting = setting(point)?;
    if setting.capacity < 10 {
        let reason = "the formula is for caches of many items: 10 at least";
        return Err(point.refuse("capacity", reason));
    }
    let expected = formula(
        &theory::zipf(setting.items as usize, setting.alpha),
        setting.capacity as f64,
    );
    let measured = hit_ratio(point, &setting, eviction)?;
    // The approximation itself errs by up to half a point, most for tiny caches.
    Ok(vec![Check::within(
        "hit ratio",
        expected,
        measured.mean,
        0.005_f64.max(3.0 * measured.standard_error),
    )])
}

fn order(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let setting = setting(point)?;
    let p = theory::zipf(setting.items as usize, setting.alpha);
    let best: f64 = p.iter().take(setting.capacity as usize).sum();
    let ratio = |kind| hit_ratio(point, &setting, kind).map(|s| s.mean);
    let (lru, fifo, lfu) = (
        ratio(EvictionKind::Lru)?,
        ratio(EvictionKind::Fifo)?,
        ratio(EvictionKind::Lfu)?,
    );
    let held = static_hit_ratio(point, &setting)?;
    let plain = measure(point, |seed, warm_up, counted| {
        let items = references(&setting, seed, warm_up + counted)?;
        Ok(naive::lfu(items, setting.capacity as usize, warm_up) as f64 / counted as f64)
    })?;
    Ok(vec![
        Check::sampled_within("most popular prompts held", best, &held, 0.003),
        Check::within(
            "LFU (counts of what is held), against a plain list",
            plain.mean,
            lfu,
            1e-12,
        ),
        Check::at_most("LFU hit ratio, at most the optimum", best, lfu),
        Check::at_most("LRU hit ratio, at most LFU's", lfu, lru),
        Check::at_most("FIFO hit ratio, at most LRU's", lru, fifo),
    ])
}
