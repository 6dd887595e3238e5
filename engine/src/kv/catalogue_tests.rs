//! Known figures, from the cache itself: closed forms under independent references, and the hit
//! table of a public trace.

use super::replay::{Replay, chain_of_blocks};
use super::*;
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use windtunnel_base::content::Extent;
use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::rng::Rng;
use windtunnel_base::sample::Zipf;

fn layout(total_blocks: u64, block_size: u32, eviction: EvictionKind) -> KvLayout {
    KvLayout {
        total_blocks,
        block_size,
        prefix_cache: true,
        eviction,
    }
}

// --- independent references --------------------------------------------------------------

/// Hit rate of single-block prompts that are drawn independently, Zipf over `items`, after a
/// warm-up of as many requests.
fn measured(kind: EvictionKind, items: u64, exponent: f64, capacity: u64, requests: u64) -> f64 {
    let zipf = Zipf::new(items, exponent).expect("valid");
    let mut rng = Rng::from_seed(5);
    let mut replay = Replay::new(&layout(capacity, 16, kind));
    let mut hits_before = 0;
    for i in 0..2 * requests {
        if i == requests {
            hits_before = replay.hits();
        }
        let key = zipf.sample(&mut rng) as u64;
        replay.request(&[Extent { key, tokens: 16 }]);
    }
    assert_eq!(replay.cache().audit(), Ok(()));
    (replay.hits() - hits_before) as f64 / requests as f64
}

/// Solves `sum f(p_i t) = capacity` for t by bisection and returns `sum p_i f(p_i t)`: the
/// characteristic-time approximation (Che, Tung and Wang 2002; Fricker, Robert and Roberts 2012).
fn characteristic(p: &[f64], capacity: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    let filled = |t: f64| p.iter().map(|p| f(p * t)).sum::<f64>();
    while filled(high) < capacity {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if filled(middle) < capacity {
            low = middle;
        } else {
            high = middle;
        }
    }
    p.iter().map(|p| p * f(p * low)).sum()
}

/// Cases of the catalogue over 1,000 items: exponent, capacity, and the figures of LRU,
/// FIFO and the best static content.
const CASES: [(f64, u64, f64, f64, f64); 2] = [
    (0.8, 100, 0.3778, 0.3337, 0.5258),
    (1.0, 100, 0.5765, 0.5202, 0.6930),
];

#[test]
fn independent_references_give_the_hit_rates_of_theory() {
    for (exponent, capacity, lru, fifo, best) in CASES {
        let p = Zipf::new(1000, exponent).expect("valid").probabilities();
        let c = capacity as f64;
        // Half a unit of the last digit that the catalogue prints.
        let che = characteristic(&p, c, |x| -libm::expm1(-x));
        assert!((che - lru).abs() < 0.5e-4, "{che}");
        let che_fifo = characteristic(&p, c, |x| x / (1.0 + x));
        assert!((che_fifo - fifo).abs() < 0.5e-4, "{che_fifo}");
        let top: f64 = p[..capacity as usize].iter().sum();
        assert!((top - best).abs() < 0.5e-4, "{top}");

        // The catalogue allows half a point for the approximations; a hit rate of 200,000
        // requests has a standard error of about a tenth of a point.
        let n = 200_000;
        let lru = measured(EvictionKind::Lru, 1000, exponent, capacity, n);
        assert!((lru - che).abs() < 0.005, "LRU {lru}, theory {che}");
        let fifo = measured(EvictionKind::Fifo, 1000, exponent, capacity, n);
        assert!(
            (fifo - che_fifo).abs() < 0.005,
            "FIFO {fifo}, theory {che_fifo}"
        );
        // FIFO forgets the popular as well, LRU keeps them longer, counting approaches the best.
        let lfu = measured(EvictionKind::Lfu, 1000, exponent, capacity, n);
        assert!(
            fifo < lru && lru < lfu && lfu < top,
            "{fifo} {lru} {lfu} {top}"
        );
        // Both newcomers were made to beat LRU on such skewed popularity, and do.
        for kind in [EvictionKind::Sieve, EvictionKind::S3fifo] {
            let found = measured(kind, 1000, exponent, capacity, n);
            assert!(lru < found && found < top, "{kind:?} {found}");
        }
    }
}

/// Items, exponent, capacity, and the hit rate of LRU by the approximation.
const LRU_CASES: [(u64, f64, u64, f64); 6] = [
    (1000, 1.0, 10, 0.2095),
    (10_000, 0.8, 1000, 0.4367),
    (10_000, 1.0, 100, 0.3905),
    (10_000, 1.0, 500, 0.5867),
    (10_000, 1.0, 1000, 0.6756),
    (10_000, 1.2, 100, 0.6563),
];

#[test]
fn lru_follows_theory_from_tiny_to_large_caches() {
    for (items, exponent, capacity, catalogue) in LRU_CASES {
        let p = Zipf::new(items, exponent).expect("valid").probabilities();
        let theory = characteristic(&p, capacity as f64, |x| -libm::expm1(-x));
        assert!((theory - catalogue).abs() < 0.5e-4, "{theory}");
        let found = measured(EvictionKind::Lru, items, exponent, capacity, 200_000);
        assert!((found - theory).abs() < 0.005, "{found}, theory {theory}");
    }
}

#[test]
fn tiny_fifo_does_better_than_its_approximation() {
    // The approximation says 0.1789; simulations of others found 0.1827.
    let found = measured(EvictionKind::Fifo, 1000, 1.0, 10, 400_000);
    assert!((found - 0.1827).abs() < 0.003, "{found}");
}

// --- a public trace ----------------------------------------------------------------------

/// A file of the folder for shared data, or `None` (with a note) if it is not there.
fn shared(path: &str) -> Option<BufReader<GzDecoder<File>>> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared"));
    let folder = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(beside, PathBuf::from);
    let file = File::open(folder.join(path));
    if file.is_err() {
        eprintln!("skipped: {path} is not in {}", folder.display());
    }
    Some(BufReader::new(GzDecoder::new(file.ok()?)))
}

#[derive(serde::Deserialize)]
struct Line {
    hash_ids: Vec<u64>,
}

fn hit_ratios(path: &str, capacities: &[u64]) -> Option<Vec<f64>> {
    let requests: Vec<Vec<u64>> = shared(path)?
        .lines()
        .map(|line| {
            let line: Line = serde_json::from_str(&line.expect("readable")).expect("JSON");
            line.hash_ids
        })
        .collect();
    let ratios = capacities.iter().map(|capacity| {
        let mut replay = Replay::new(&layout(*capacity, 512, EvictionKind::Lru));
        let mut chain = Vec::new();
        for ids in &requests {
            chain_of_blocks(1, ids, 512, &mut chain);
            replay.request(&chain);
        }
        assert_eq!(replay.cache().audit(), Ok(()));
        replay.hit_ratio()
    });
    Some(ratios.collect())
}

const ENDLESS: u64 = 1 << 40;

fn check_table(path: &str, table: &[(u64, f64)]) {
    let capacities: Vec<u64> = table.iter().map(|(c, _)| *c).collect();
    let Some(found) = hit_ratios(path, &capacities) else {
        return;
    };
    for ((capacity, expected), found) in table.iter().zip(found) {
        // To the last digit that was published.
        assert_eq!(
            (found * 1e4).round(),
            (expected * 1e4_f64).round(),
            "{capacity}: {found}"
        );
    }
}

#[test]
fn conversation_trace_gives_the_published_hit_table() {
    check_table(
        "traces/mooncake/conversation_trace.jsonl.gz",
        &[
            (ENDLESS, 0.3664),
            (97_656, 0.3635),
            (50_000, 0.3546),
            (30_000, 0.3257),
            (10_000, 0.2116),
            (5_859, 0.1361),
            (3_000, 0.0653),
            (1_000, 0.0445),
        ],
    );
}

#[test]
fn synthetic_trace_gives_the_published_hit_table() {
    check_table(
        "traces/mooncake/synthetic_trace.jsonl.gz",
        &[
            (ENDLESS, 0.6396),
            (30_000, 0.6242),
            (10_000, 0.4239),
            (5_859, 0.3094),
            (3_000, 0.1906),
            (1_000, 0.0841),
        ],
    );
}

// --- waste -------------------------------------------------------------------------------

/// A sequence leaves `(b - 1) / 2` tokens of its last block unused on average, if that block is
/// as likely to end anywhere: lengths uniform over whole blocks.
#[test]
fn paging_wastes_half_a_block_per_sequence() {
    let mut rng = Rng::from_seed(6);
    for (block_size, mean, catalogue) in [
        (16_u32, 200_u32, 0.036),
        (16, 512, 0.014),
        (128, 512, 0.110),
    ] {
        let mut cache = KvCache::new(&layout(1 << 30, block_size, EvictionKind::Lru));
        let n = 100_000;
        let mut tokens = 0;
        for _ in 0..n {
            let length = 1 + rng.below(2 * u64::from(mean));
            tokens += length;
            let blocks = length.div_ceil(u64::from(block_size));
            cache.take(blocks).expect("there is room");
        }
        let held = cache.held_blocks() * u64::from(block_size);
        let waste = 1.0 - tokens as f64 / held as f64;
        let unused = f64::from(block_size - 1) / 2.0;
        let expected = unused / (f64::from(mean) + 0.5 + unused);
        // Relative standard errors: unused tokens 1/sqrt(3n), mean length 1/sqrt(3n); together
        // 0.26 %, of which five.
        assert!(
            (waste / expected - 1.0).abs() < 0.013,
            "{waste}, not {expected}"
        );
        assert!((waste - catalogue).abs() < 0.003, "{waste}");
    }
}
