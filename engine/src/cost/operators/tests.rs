//! Tables against figures worked out by hand.

/// Tables read at keys that a batch is rounded to.
mod keys;

use super::*;
use proptest::prelude::*;
use series::Curve;

fn series(name: &str, points: &[(u32, f64)]) -> Series {
    Series::new(name, points.to_vec()).unwrap()
}

fn point(
    prefill_chunk: u32,
    kv_prefill: u32,
    n_decode: u32,
    kv_decode: u32,
    us: f64,
) -> AttentionPoint {
    AttentionPoint {
        prefill_chunk,
        kv_prefill,
        n_decode,
        kv_decode,
        us,
    }
}

#[test]
fn a_curve_is_linear_between_and_above_its_points_and_constant_below() {
    let a = series("a", &[(2, 10.0), (4, 20.0), (8, 28.0)]);
    let b = series("b", &[(1, 1.0), (8, 8.0)]);
    let curve = Curve::new(&[(&a, 2.0), (&b, 1.0)]);
    // 2 * a + b: 2*10 + 1, 2*10 + 2, 2*15 + 3, 2*24 + 6, 2*28 + 8, and beyond 2*2 + 1 per key.
    for (key, value, outside) in [
        (1, 21.0, true),
        (2, 22.0, false),
        (3, 33.0, false),
        (6, 54.0, false),
        (8, 64.0, false),
        (10, 74.0, true),
    ] {
        assert_eq!(curve.at(key), (value, outside), "at {key}");
    }
    let falling = series("c", &[(1, 5.0), (2, 1.0)]);
    let curve = Curve::new(&[(&falling, 1.0)]);
    assert_eq!(curve.at(9), (0.0, true), "no time is below zero");
}

#[test]
fn series_that_make_no_curve_are_refused() {
    for (points, says) in [
        (vec![], "no rows"),
        (vec![(1, 1.0), (1, 2.0)], "stands after"),
        (vec![(2, 1.0), (1, 2.0)], "stands after"),
        (vec![(1, f64::NAN)], "no time"),
        (vec![(1, -1.0)], "no time"),
        (vec![(1 << 21, 1.0)], "beyond"),
    ] {
        let error = Series::new("x", points).unwrap_err();
        assert!(error.reason.contains(says), "{error}");
    }
}

/// Chunks 0, 4, 8; decodes 0, 1, 2; contexts of prompts 0, 10; of decodes 0, 10, 30. Nobody measured
/// two decodes beside a chunk of 8, nor contexts of what is not there.
fn ragged(time: impl Fn(f64, f64, f64, f64) -> f64) -> AttentionGrid {
    ragged_up_to(2, time)
}

fn ragged_up_to(most: u32, time: impl Fn(f64, f64, f64, f64) -> f64) -> AttentionGrid {
    let mut points = Vec::new();
    for chunk in [0, 4, 8] {
        for decodes in [0, 1, most] {
            let absent = (chunk == 0 && decodes == 0) || (chunk == 8 && decodes == most);
            let kv_prefill: &[u32] = if chunk == 0 { &[0] } else { &[0, 10] };
            let kv_decode: &[u32] = if decodes == 0 { &[0] } else { &[10, 30] };
            for &p in kv_prefill.iter().filter(|_| !absent) {
                for &d in kv_decode {
                    let x = [chunk, p, decodes, d].map(f64::from);
                    points.push(point(chunk, p, decodes, d, time(x[0], x[1], x[2], x[3])));
                }
            }
        }
    }
    AttentionGrid::new(&points).unwrap()
}

#[test]
fn the_grid_is_linear_on_each_axis() {
    // 100 + 2 per pair of decode and context + 3 per chunk token and context + 5 per chunk token.
    let grid = ragged(|c, p, n, d| 100.0 + 2.0 * n * d + 3.0 * c * p + 5.0 * c);
    let at = |c, p, n, d| grid.at(c, p, n, d);
    assert_eq!(at(0, 0, 1, 10), (120.0, false));
    assert_eq!(at(0, 0, 1, 20), (140.0, false));
    assert_eq!(at(0, 0, 2, 20), (180.0, false));
    assert_eq!(at(6, 5, 0, 0), (100.0 + 90.0 + 30.0, false));
    assert_eq!(at(4, 5, 1, 20), (100.0 + 40.0 + 60.0 + 20.0, false));
    // Contexts of prompts mean nothing without a prompt: halfway to a chunk of 4 it is half of it.
    assert_eq!(at(2, 10, 1, 10), (120.0 + (120.0 + 20.0) / 2.0, false));
    // Beyond the grid the last cell is extended: longer contexts, more decodes, larger chunks.
    assert_eq!(at(0, 0, 1, 50), (200.0, true));
    assert_eq!(at(0, 0, 4, 10), (180.0, true));
    assert_eq!(at(16, 0, 0, 0), (180.0, true));
    // Below it the first holds.
    assert_eq!(at(0, 0, 1, 4), (120.0, true));
    // What was not measured beside a chunk of 8 goes on as the smaller batches there.
    assert_eq!(
        at(8, 0, 2, 10),
        (100.0 + 40.0 + 40.0 - 20.0 + 20.0 - 0.0, true)
    );
}

#[test]
fn sweeps_over_several_grids_fill_each_other() {
    // Chunk 8 was swept over other contexts than chunks 4 and 16.
    let sweep = |chunk: u32, contexts: [u32; 3]| {
        contexts.map(|kv| point(chunk, kv, 0, 0, f64::from(chunk + 2 * kv)))
    };
    let points = [
        sweep(4, [0, 10, 40]),
        sweep(8, [0, 16, 40]),
        sweep(16, [0, 10, 30]),
    ];
    let grid = AttentionGrid::new(points.as_flattened()).unwrap();
    assert_eq!(
        grid.at(4, 20, 0, 0),
        (44.0, false),
        "between two measured ones"
    );
    assert_eq!(grid.at(6, 12, 0, 0), (30.0, false));
    assert_eq!(
        grid.at(16, 40, 0, 0),
        (96.0, true),
        "chunk 16 was not measured so far"
    );
}

#[test]
fn points_that_make_no_grid_are_refused() {
    let twice = [point(0, 0, 1, 16, 1.0), point(0, 0, 1, 16, 2.0)];
    for (points, says) in [
        (
            &twice[..],
            "prefill_chunk 0, n_decode 1, kv_prefill 0, kv_decode 16 is there twice",
        ),
        (&[], "no rows"),
        (&[point(0, 0, 1, 16, f64::NAN)], "no time"),
    ] {
        let error = AttentionGrid::new(points).unwrap_err();
        assert!(error.reason.contains(says), "{error}");
    }
}

proptest! {
    /// What is linear on each axis comes back exactly, within the grid and above it.
    #[test]
    fn a_multilinear_function_is_its_own_interpolation(
        k in prop::array::uniform4(0.0..5.0_f64),
        chunk in 4_u64..20, kv_prefill in 0_u64..25, decodes in 1_u64..5, kv_decode in 10_u64..60,
    ) {
        let f = |c: f64, p: f64, n: f64, d: f64| {
            7.0 + k[0] * c + k[1] * c * p + k[2] * n * d + k[3] * c * n * d * p / 100.0
        };
        let mut points = Vec::new();
        for c in [4, 8] {
            for p in [0, 10] {
                for n in [1, 2] {
                    for d in [10, 20, 30] {
                        let x = [c, p, n, d].map(f64::from);
                        points.push(point(c, p, n, d, f(x[0], x[1], x[2], x[3])));
                    }
                }
            }
        }
        let grid = AttentionGrid::new(&points).unwrap();
        let (us, outside) = grid.at(chunk, kv_prefill, decodes, kv_decode);
        let x = [chunk, kv_prefill, decodes, kv_decode].map(|x| x as f64);
        let exact = f(x[0], x[1], x[2], x[3]);
        prop_assert!((us - exact).abs() <= 1e-9 * exact, "{us} for {exact}");
        let within = chunk <= 8 && kv_prefill <= 10 && decodes <= 2 && kv_decode <= 30;
        prop_assert_eq!(outside, !within);
    }
}

/// Times that are easy to tell apart: every layer a power of ten.
fn dense() -> Vec<Series> {
    let flat = |name: &str, us: f64| series(name, &[(1, us), (100, us)]);
    vec![
        flat("embedding", 1.0),
        flat("final_layernorm", 2.0),
        flat("layernorm", 10.0),
        flat("qkv_proj", 100.0),
        flat("o_proj", 200.0),
        flat("gate_up_proj", 300.0),
        flat("down_proj", 400.0),
    ]
}

fn curves(skew: Option<SkewFit>) -> CurveTables {
    CurveTables {
        dense: dense(),
        per_sequence: vec![
            series("lm_head", &[(1, 0.25), (9, 0.25)]),
            series("sampler", &[(1, 0.5), (9, 4.5)]),
        ],
        attention: ragged(|c, p, n, d| 50.0 + n * d + c * p),
        skew,
        moe: Vec::new(),
        experts: None,
        layers: None,
    }
}

fn compose(
    tables: OperatorTables,
    change: impl FnOnce(&mut Composition<'_>),
) -> Result<Operators, TablesError> {
    let calls = BTreeMap::new();
    let mut composition = Composition {
        layers: 3,
        tensor_parallel: 1,
        grouped_query: false,
        all_reduce: AllReduce::default(),
        overhead: 0.0,
        calls: &calls,
    };
    change(&mut composition);
    Operators::new(&Arc::new(tables), &composition)
}

/// Two decodes of 10 and 20, a last chunk of one token after 30, and 4 tokens after 10.
fn mixed() -> BatchShape {
    BatchShape {
        prefill_seqs: 2,
        prefill_tokens: 5,
        prefill_context: 40,
        prefill_context_rounded: 40,
        single_prefills: 1,
        single_context: 30,
        prefill_squares: 17,
        decode_seqs: 2,
        decode_context: 30,
        context_max: 30,
        context_squares: 1400,
        ..BatchShape::default()
    }
}

fn microseconds(model: &Operators, shape: &BatchShape) -> f64 {
    model.seconds(shape).0 * 1e6
}

#[test]
fn curves_compose_into_a_step() {
    let model = compose(OperatorTables::Curves(curves(None)), |c| c.overhead = 1e-3).unwrap();
    // Once 3; per layer 2 * 10 + 100 + 200 + 300 + 400; four requests 0.25 + 2; overhead 1000.
    let around = 3.0 + 3.0 * 1020.0 + 2.25 + 1000.0;
    // Three requests compute one token, after 20 on average; the others 4 tokens after 10.
    let attention = 50.0 + 3.0 * 20.0 + 4.0 * 10.0;
    let expected = around + 3.0 * attention;
    assert!((microseconds(&model, &mixed()) - expected).abs() < 1e-6);
    // Three decodes beside a chunk were not measured.
    assert!(model.seconds(&mixed()).1);
    assert!(!model.needs_spread());
    assert_eq!(model.context_step(), 1);
}

#[test]
fn unequal_lengths_move_attention_towards_the_longest() {
    let bins = |ends: &[f64]| Bins(ends.to_vec());
    let axes = || {
        [
            bins(&[2.0, 4.0]),
            bins(&[0.25, 0.75]),
            bins(&[20.0, 40.0]),
            bins(&[0.0, 100.0]),
        ]
    };
    // Three decodes of 10, 20 and 30, which are spread like 1.2 of 30 and 1.8 of 13.3; prompts with
    // context.
    let bucket = |chunk| Bucket {
        chunk,
        decodes: 1,
        rate: 1,
        longest: 1,
        kv_prefill: 1,
    };
    let fit = |chunks: Vec<u32>, most: u32| {
        let mut skew = SkewFit::new(chunks, axes(), 0.125);
        assert!(skew.set(bucket(0), 0.25) && skew.set(bucket(1), 0.75));
        assert!(!skew.set(bucket(2), 0.5), "there is no third chunk");
        let mut tables = curves(Some(skew));
        tables.attention = ragged_up_to(most, |c, p, n, d| 50.0 + n * d + c * p);
        compose(OperatorTables::Curves(tables), |_| {}).unwrap()
    };
    // At a chunk of 4 from the mean (20) to the longest (30), by the share of its bucket if that
    // chunk was measured, else by the mean share; at the four decodes that the bucket was measured
    // at, or the batch's own three if attention was not measured at so many.
    for (chunks, most, share, decodes) in [
        (vec![0, 4], 4, 0.75, 4.0),
        (vec![0, 8], 4, 0.125, 4.0),
        (vec![0, 4], 2, 0.75, 3.0),
    ] {
        let model = fit(chunks, most);
        assert!(model.needs_spread());
        let attention = 50.0 + 3.0 * 20.0 + 40.0 + share * (decodes * 10.0);
        let expected = 3.0 + 3.0 * 1020.0 + 2.25 + 3.0 * attention;
        assert!((microseconds(&model, &mixed()) - expected).abs() < 1e-6);
    }
    let model = fit(vec![0, 8], 2);
    // Equal lengths, or one alone, need no correction.
    for (seqs, context) in [(1, 20), (2, 40)] {
        let shape = BatchShape {
            decode_seqs: seqs,
            decode_context: context,
            context_max: 20,
            context_squares: u128::from(seqs) * 400,
            ..BatchShape::default()
        };
        let attention = 50.0 + f64::from(seqs) * 20.0;
        let around = 3.0 + 3.0 * 1020.0 + 0.25 + 0.5 * f64::from(seqs);
        let expected = around + 3.0 * attention;
        assert!((microseconds(&model, &shape) - expected).abs() < 1e-6);
    }
    // A bucket that was not measured has the fit's own mean: two decodes are in the first bucket.
    let shape = BatchShape {
        decode_seqs: 2,
        decode_context: 40,
        context_max: 30,
        context_squares: 1000,
        ..BatchShape::default()
    };
    let attention = 50.0 + 2.0 * 20.0 + 0.125 * 20.0;
    let expected = 3.0 + 3.0 * 1020.0 + 1.25 + 3.0 * attention;
    assert!((microseconds(&model, &shape) - expected).abs() < 1e-6);
}

#[test]
fn an_outlier_among_spread_lengths_is_one_long_context() {
    let bins = |ends: &[f64]| Bins(ends.to_vec());
    // The share of a batch is the share of long ones by which it is looked up.
    let ends: Vec<f64> = (1..=100).map(|i| f64::from(i) / 100.0).collect();
    let axes = [bins(&[1e6]), bins(&ends), bins(&[1e9]), bins(&[1e9])];
    let mut skew = SkewFit::new(vec![0], axes, 0.0);
    for (rate, &end) in ends.iter().enumerate() {
        let bucket = Bucket {
            chunk: 0,
            decodes: 0,
            rate,
            longest: 0,
            kv_prefill: 0,
        };
        assert!(skew.set(bucket, end));
    }
    let share = |contexts: &[u64]| {
        skew.share(&skew::Unequal {
            chunk: 0,
            kv_prefill: 0,
            decodes: contexts.len() as u64,
            contexts: contexts.iter().sum(),
            squares: contexts.iter().map(|&c| u128::from(c).pow(2)).sum(),
            most: contexts.iter().copied().max().unwrap(),
        })
    };
    // Two lengths: exactly their shares.
    let two = |long: usize| [vec![4000; long], vec![1000; 50 - long]].concat();
    for long in [1, 5, 20, 49] {
        assert!((share(&two(long)) - long as f64 / 50.0).abs() < 1e-9);
    }
    // Evenly spread: a quarter. One outlier above them: about one in fifty.
    let spread: Vec<u64> = (0..49).map(|i| 500 + 20 * i).collect();
    assert!((share(&spread) - 0.25).abs() < 0.021);
    assert!(share(&[spread, vec![5000]].concat()) <= 0.03);
}

#[test]
fn parallel_layers_reduce_by_table_or_by_the_interconnect() {
    let mut tables = curves(None);
    let plain = compose(OperatorTables::Curves(tables.clone()), |_| {}).unwrap();
    let plain = microseconds(&plain, &mixed());
    let reduce = AllReduce {
        per_step: 1e-6,
        per_token: 2e-6,
    };
    let shared = |c: &mut Composition<'_>| (c.tensor_parallel, c.all_reduce) = (2, reduce);
    let modelled = compose(OperatorTables::Curves(tables.clone()), shared).unwrap();
    // Seven tokens.
    assert!((microseconds(&modelled, &mixed()) - plain - 15.0).abs() < 1e-6);
    tables
        .dense
        .push(series("all_reduce", &[(1, 5.0), (100, 5.0)]));
    let measured = compose(OperatorTables::Curves(tables.clone()), shared).unwrap();
    // Two in each of three layers.
    assert!((microseconds(&measured, &mixed()) - plain - 30.0).abs() < 1e-6);
    let alone = compose(OperatorTables::Curves(tables), |_| {}).unwrap();
    assert!((microseconds(&alone, &mixed()) - plain).abs() < 1e-6);
}

#[test]
fn layers_must_be_known_and_complete() {
    let mut tables = curves(None);
    tables.dense.push(series("gate", &[(1, 7.0), (100, 7.0)]));
    let error = compose(OperatorTables::Curves(tables.clone()), |_| {}).unwrap_err();
    assert!(error.table.contains("`gate`") && error.remedy.contains("calls = { gate = 1 }"));
    let plain = compose(OperatorTables::Curves(curves(None)), |_| {}).unwrap();
    let calls = BTreeMap::from([("gate".to_owned(), 2)]);
    let told = Operators::new(
        &Arc::new(OperatorTables::Curves(tables)),
        &Composition {
            layers: 3,
            tensor_parallel: 1,
            grouped_query: false,
            all_reduce: AllReduce::default(),
            overhead: 0.0,
            calls: &calls,
        },
    )
    .unwrap();
    let more = microseconds(&told, &mixed()) - microseconds(&plain, &mixed());
    assert!((more - 3.0 * 2.0 * 7.0).abs() < 1e-6);
    let mut tables = curves(None);
    tables.dense.retain(|s| s.name() != "o_proj");
    let error = compose(OperatorTables::Curves(tables), |_| {}).unwrap_err();
    assert!(error.reason.contains("lacks layer `o_proj`"), "{error}");
}

#[test]
fn experts_are_touched_evenly() {
    let mut tables = curves(None);
    tables
        .dense
        .retain(|s| !["gate_up_proj", "down_proj"].contains(&s.name()));
    for tokens in [1, 64] {
        for experts in [4, 8] {
            let us = 10.0 * f64::from(experts) + f64::from(tokens);
            tables.moe.push(MoePoint {
                tokens,
                experts,
                us,
            });
        }
    }
    let error = compose(OperatorTables::Curves(tables.clone()), |_| {}).unwrap_err();
    assert!(error.remedy.contains("model_config"), "{error}");
    tables.experts = Some(Experts {
        count: 8,
        per_token: 2,
    });
    let one = |tokens: u64| BatchShape {
        prefill_seqs: 1,
        prefill_tokens: tokens,
        ..BatchShape::default()
    };
    let dense = 3.0 + 3.0 * (20.0 + 300.0) + 0.75;
    let attention = |tokens: u64| tables.attention.at(tokens, 0, 0, 0).0;
    let model = compose(OperatorTables::Curves(tables.clone()), |_| {}).unwrap();
    // Three tokens touch six of eight experts; ten touch all.
    for (tokens, expert) in [(3, 63.0), (10, 90.0)] {
        let expected = dense + 3.0 * (attention(tokens) + expert);
        let us = microseconds(&model, &one(tokens));
        assert!((us - expected).abs() < 1e-6, "{us} for {expected}");
    }
    // Two GPUs own four each; of ten tokens 7.5 come to each, which is 8.
    let model = compose(OperatorTables::Curves(tables.clone()), |c| {
        c.tensor_parallel = 2
    })
    .unwrap();
    let expected = dense + 3.0 * (attention(10) + 48.0);
    assert!((microseconds(&model, &one(10)) - expected).abs() < 1e-6);
}
