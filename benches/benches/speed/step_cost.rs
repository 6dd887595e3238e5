//! One evaluation of a cost model: decode steps whose contexts grow, as in a fast-forward run, and
//! mixed steps. Tables are made up in the size of measured ones (attention on 9 x 10 x 12 x 12
//! nodes, lookups for 4,096 tokens).

use criterion::Criterion;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{ArchitectureSpec, BetaSpec};
use windtunnel_engine::cost::coefficients::{CoefficientSettings, Coefficients};
use windtunnel_engine::cost::interconnect::AllReduce;
use windtunnel_engine::cost::operators::{
    AttentionGrid, AttentionPoint, Bins, Composition, CurveTables, LookupTables, OPERATORS,
    OperatorTables, Operators, Plane, Series, SkewFit,
};

fn series(name: &str, keys: impl Iterator<Item = u32>) -> Series {
    let points = keys.map(|n| (n, 10.0 + f64::from(n) * 0.1)).collect();
    Series::new(name, points).unwrap_or_else(|e| panic!("{e}"))
}

fn doubling(from: u32, to: u32) -> Vec<u32> {
    let doubled = std::iter::successors(Some(from), |n| Some(n * 2)).take_while(|n| *n <= to);
    std::iter::once(0).chain(doubled).collect()
}

fn curves(skew: bool) -> OperatorTables {
    let mut points = Vec::new();
    for prefill_chunk in doubling(16, 2048) {
        for n_decode in doubling(1, 256) {
            for kv_prefill in doubling(16, 16_384) {
                for kv_decode in doubling(16, 16_384) {
                    let pairs = u64::from(prefill_chunk) * u64::from(kv_prefill)
                        + u64::from(n_decode) * u64::from(kv_decode);
                    points.push(AttentionPoint {
                        prefill_chunk,
                        kv_prefill,
                        n_decode,
                        kv_decode,
                        us: 9.0 + pairs as f64 * 1e-3,
                    });
                }
            }
        }
    }
    let bins = |ends: &[f64]| Bins(ends.to_vec());
    let bins = [
        bins(&[2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1e6]),
        bins(&[0.05, 0.15, 0.4, 0.7, 1.01]),
        bins(&[1024.0, 4096.0, 16_384.0, 1e9]),
        bins(&[0.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 1e9]),
    ];
    let layers = [
        "layernorm",
        "qkv_proj",
        "o_proj",
        "gate_up_proj",
        "down_proj",
    ];
    OperatorTables::Curves(CurveTables {
        dense: layers.map(|name| series(name, 1..=2048)).to_vec(),
        per_sequence: vec![series("lm_head", 1..=256)],
        attention: AttentionGrid::new(&points).unwrap_or_else(|e| panic!("{e}")),
        skew: skew.then(|| SkewFit::new(doubling(16, 2048), bins, 0.06)),
        moe: Vec::new(),
        experts: None,
        layers: None,
    })
}

fn lookups() -> OperatorTables {
    let plane = |last: u32| {
        let keys = (1..=last).flat_map(|x| (0..=64).map(move |y| (x, y * 64)));
        let points: Vec<_> = keys.map(|(x, y)| (x, y, f64::from(x + y) * 1e-4)).collect();
        Plane::exact("plane", &points).unwrap_or_else(|e| panic!("{e}"))
    };
    OperatorTables::Lookups(LookupTables {
        by_tokens: OPERATORS.map(|(name, _)| series(name, 1..=4096)).to_vec(),
        prefill: plane(4096),
        decode: plane(128),
        layers: None,
    })
}

fn operators(tables: OperatorTables) -> Operators {
    let composition = Composition {
        layers: 32,
        tensor_parallel: 1,
        grouped_query: false,
        all_reduce: AllReduce::default(),
        overhead: 0.0,
        calls: &BTreeMap::new(),
    };
    Operators::new(&Arc::new(tables), &composition).unwrap_or_else(|e| panic!("{e}"))
}

fn coefficients() -> Coefficients {
    Coefficients::new(&CoefficientSettings {
        beta: BetaSpec {
            b1a: 0.2,
            b1b: Some(0.0),
            b2a: 0.1,
            b2b: Some(1.5),
            b3: 1.2,
            b5: 30.0,
            b6: 4.0,
            b7: 120.0,
            ..BetaSpec::default()
        },
        architecture: ArchitectureSpec {
            layers: 40,
            hidden: 5120,
            heads: 40,
            kv_heads: 8,
            ffn: 17_408,
            bytes: 2.0,
            ..ArchitectureSpec::default()
        },
        tflops: 989.5,
        tflops_fp8: None,
        hbm_tbps: 3.35,
        tensor_parallel: 1,
    })
}

/// The shape of a batch `step` steps on: 48 decodes of about 900 tokens, with a chunk if `mixed`.
fn shape(step: u64, mixed: bool) -> BatchShape {
    let grown = (step % 512) as u32;
    let mut shape = BatchShape {
        decode_seqs: 48,
        decode_context: 48 * u64::from(900 + grown),
        context_max: 2000 + grown,
        context_squares: 48 * u128::from(1000 + grown).pow(2),
        sampled: 48,
        ..BatchShape::default()
    };
    if mixed {
        let chunk = 100 + step % 300;
        shape.prefill_seqs = 1;
        shape.prefill_tokens = chunk;
        shape.prefill_squares = chunk * chunk;
        shape.prefill_prompt_products = chunk * 700;
        shape.prefill_context = 300;
        shape.prefill_context_rounded = 320;
    }
    shape
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("step_cost");
    let mut time = |name: &str, mixed: bool, model: &dyn Fn(&BatchShape) -> f64| {
        let kind = if mixed { "mixed" } else { "decode" };
        group.bench_function(format!("{name}/{kind}"), |b| {
            let mut step = 0;
            b.iter(|| {
                step += 1;
                model(black_box(&shape(step, mixed)))
            });
        });
    };
    let plain = operators(curves(false));
    let skewed = operators(curves(true));
    let lookups = operators(lookups());
    let fitted = coefficients();
    for mixed in [false, true] {
        time("curves", mixed, &|s| plain.seconds(s).0);
        time("curves_skewed", mixed, &|s| skewed.seconds(s).0);
        time("lookups", mixed, &|s| lookups.seconds(s).0);
        time("coefficients", mixed, &|s| fitted.micros(s) as f64);
    }
    group.finish();
}
