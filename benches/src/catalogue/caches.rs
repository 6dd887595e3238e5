//! Caches, V-H1 to V-H3: the replicas' own prefix cache under independent references. Every item is
//! a prompt of one block.

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
        title: "static optimum: LRU stays below it and above FIFO; LFU comes near it",
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

/// Hit ratio of the prefix cache over `references`, after a warm-up of a quarter more.
fn hit_ratio(
    setting: &Setting,
    eviction: EvictionKind,
    seed: u64,
    references: u64,
) -> Result<f64, CaseError> {
    let zipf =
        Zipf::new(setting.items, setting.alpha).map_err(|e| CaseError::Run(e.to_string()))?;
    let mut rng = Streams::new(seed).stream("independent references", 0);
    let layout = KvLayout {
        total_blocks: setting.capacity,
        block_size: 1,
        prefix_cache: true,
        eviction,
    };
    let mut cache = KvCache::new(&layout);
    let (warm_up, mut hits) = (references / 4, 0);
    for i in 0..warm_up + references {
        let prompt = [Extent {
            key: stream_key(1, zipf.sample(&mut rng) as u64),
            tokens: 1,
        }];
        let (mut holding, cached) = cache.acquire(&prompt, 1);
        hits += u64::from(cached == 1 && i >= warm_up);
        let missing = u64::from(1 - cached);
        cache
            .take(missing)
            .map_err(|s| CaseError::Run(format!("{} blocks missing", s.missing)))?;
        let shared = cache.publish(&mut holding, &prompt, 1);
        cache.release(holding, missing - shared);
    }
    Ok(hits as f64 / references as f64)
}

fn measure(
    point: &Point<'_>,
    setting: &Setting,
    eviction: EvictionKind,
) -> Result<Sampled, CaseError> {
    let references = point.length(1_000_000.0);
    let ratios: Result<Vec<f64>, CaseError> = (0..4)
        .into_par_iter()
        .map(|i| hit_ratio(setting, eviction, point.seed + i, references))
        .collect();
    Ok(Sampled::of(&ratios?))
}

fn against(
    point: &Point<'_>,
    eviction: EvictionKind,
    formula: fn(&[f64], f64) -> f64,
) -> Result<Vec<Check>, CaseError> {
    let setting = setting(point)?;
    let expected = formula(
        &theory::zipf(setting.items as usize, setting.alpha),
        setting.capacity as f64,
    );
    let measured = measure(point, &setting, eviction)?;
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
    let ratio = |kind| measure(point, &setting, kind).map(|s| s.mean);
    let (lru, fifo, lfu) = (
        ratio(EvictionKind::Lru)?,
        ratio(EvictionKind::Fifo)?,
        ratio(EvictionKind::Lfu)?,
    );
    Ok(vec![
        Check::within("LFU hit ratio, against the static optimum", best, lfu, 0.03),
        Check::at_most("LRU hit ratio, at most the optimum", best, lru),
        Check::at_most("FIFO hit ratio, at most LRU's", lru, fifo),
    ])
}
