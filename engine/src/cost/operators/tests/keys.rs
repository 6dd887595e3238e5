//! Tables read at keys that a batch is rounded to, against figures worked out by hand.

use super::*;

fn lookups() -> LookupTables {
    let by_tokens = OPERATORS
        .iter()
        .enumerate()
        .map(|(i, (name, _))| {
            // Every operator 10^-i ms per token; reading at a multiple of 8 shows the rounding.
            let scale = 10_f64.powi(-(i as i32));
            let points = (1..=64).map(|n| (n, f64::from(n) * scale)).collect();
            Series::new(name, points).unwrap()
        })
        .collect();
    let plane = |last: u32, scale: f64| {
        let keys = (1..=last).flat_map(|x| (0..4).map(move |y| (x, y * 16)));
        let points: Vec<_> = keys
            .map(|(x, y)| (x, y, scale * f64::from(1000 * x + y)))
            .collect();
        Plane::exact("plane", &points).unwrap()
    };
    LookupTables {
        by_tokens,
        prefill: plane(40, 1.0),
        decode: plane(4, 1e-3),
        layers: None,
    }
}

#[test]
fn lookups_round_a_batch_to_their_keys() {
    let model = compose(OperatorTables::Lookups(lookups()), |_| {}).unwrap();
    assert_eq!(model.context_step(), 16);
    // Two prompts of 3 and 4 tokens (one of 5) after 10 and 20 (16 + 32); three decodes with 30 in
    // KV, and the token that came out last: 11 each, rounded up to 16.
    let shape = BatchShape {
        prefill_seqs: 2,
        prefill_tokens: 7,
        prefill_context: 30,
        prefill_context_rounded: 48,
        prefill_squares: 25,
        decode_seqs: 3,
        decode_context: 30,
        ..BatchShape::default()
    };
    // Ten tokens: linear operators at 16, what is saved at 10. In the order of OPERATORS, the
    // all-reduce left out.
    let linear = |ten_tokens: f64| -> f64 {
        let all = (0..10).map(|i| 16.0 * 10_f64.powi(-i));
        all.sum::<f64>() - 16.0 * 1e-3 + ten_tokens * 1e-3
    };
    let attention = 5048.0 + 3.016;
    let expected = 3.0 * (linear(10.0) + attention) * 1e-3;
    let (seconds, outside) = model.seconds(&shape);
    assert!(
        (seconds - expected).abs() < 1e-12,
        "{seconds} for {expected}"
    );
    assert!(!outside);
    // Shared key-value heads: a tenth more for several prompts, and for several decodes.
    let grouped = compose(OperatorTables::Lookups(lookups()), |c| {
        c.grouped_query = true
    })
    .unwrap();
    let expected = 3.0 * (linear(10.0) + 1.1 * attention) * 1e-3;
    assert!((grouped.seconds(&shape).0 - expected).abs() < 1e-12);
    // Two all-reduces per layer at 16 tokens, each with 0.02 ms of launching.
    let shared = compose(OperatorTables::Lookups(lookups()), |c| {
        c.tensor_parallel = 2
    })
    .unwrap();
    let expected = 3.0 * (linear(10.0) + attention + 2.0 * (16e-10 + 0.02)) * 1e-3;
    assert!((shared.seconds(&shape).0 - expected).abs() < 1e-12);
}

#[test]
fn beyond_the_tables_lines_go_on_and_say_so() {
    let model = compose(OperatorTables::Lookups(lookups()), |_| {}).unwrap();
    let decodes = |decode_seqs: u32, each: u64| BatchShape {
        decode_seqs,
        decode_context: each * u64::from(decode_seqs),
        ..BatchShape::default()
    };
    let plane = lookups().decode;
    assert_eq!(plane.at(2, 48), (2.048, false));
    assert!(plane.at(2, 64).1);
    assert!((plane.at(2, 64).0 - 2.064).abs() < 1e-9);
    assert!((plane.at(8, 16).0 - 8.016).abs() < 1e-9);
    assert!(!model.seconds(&decodes(4, 47)).1);
    assert!(
        model.seconds(&decodes(4, 48)).1,
        "49 tokens are rounded up to 64"
    );
    assert!(model.seconds(&decodes(5, 10)).1);
    let long = BatchShape {
        prefill_seqs: 1,
        prefill_tokens: 80,
        prefill_squares: 6400,
        ..BatchShape::default()
    };
    assert!(model.seconds(&long).1);
    // Once 80 tokens are twice those of 40, in every table.
    let expected = 3.0 * ((0..10).map(|i| 80.0 * 10_f64.powi(-i)).sum::<f64>() + 80_000.0) * 1e-3;
    assert!((model.seconds(&long).0 - expected).abs() < 1e-6);
}

#[test]
fn tables_with_holes_are_refused() {
    let full: Vec<_> = [(1, 0), (1, 8), (2, 0), (2, 8)]
        .map(|(x, y)| (x, y, 1.0))
        .to_vec();
    assert!(Plane::exact("p", &full).is_ok());
    let hole = Plane::exact("p", &full[..3]).unwrap_err();
    assert!(hole.reason.contains("(2, 8) is not there"), "{hole}");
    let mut odd = full.clone();
    odd.push((1, 12, 1.0));
    assert!(
        Plane::exact("p", &odd)
            .unwrap_err()
            .reason
            .contains("off the grid")
    );
    let mut twice = full.clone();
    twice.push((1, 8, 2.0));
    assert!(
        Plane::exact("p", &twice)
            .unwrap_err()
            .reason
            .contains("twice")
    );
    let mut tables = lookups();
    tables.by_tokens.retain(|s| s.name() != "mlp_act");
    let error = compose(OperatorTables::Lookups(tables), |_| {}).unwrap_err();
    assert!(error.reason.contains("`mlp_act` is not there"), "{error}");
}

#[test]
fn measured_points_fill_a_plane() {
    // Times 10 * x + y at a few points, one of them measured twice.
    let points: Vec<_> = [
        (1, 0, 10.0),
        (1, 100, 110.0),
        (4, 0, 30.0),
        (4, 0, 50.0),
        (4, 100, 140.0),
    ]
    .to_vec();
    let plane = Plane::interpolated("p", &points, 25).unwrap();
    assert_eq!(plane.step(), 25);
    let (time, outside) = plane.at(3, 60);
    assert!(
        (time - 105.0).abs() < 1e-9 && !outside,
        "60 is rounded up to 75"
    );
}
