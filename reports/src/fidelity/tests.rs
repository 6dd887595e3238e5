use super::*;

#[test]
fn percentiles_are_interpolated() {
    // numpy.percentile([10, 20, 40, 80], [50, 90, 95, 99]) = 30, 68, 74, 78.8
    let sorted = [10.0, 20.0, 40.0, 80.0];
    for (p, value) in [
        (0.0, 10.0),
        (50.0, 30.0),
        (90.0, 68.0),
        (95.0, 74.0),
        (99.0, 78.8),
        (100.0, 80.0),
    ] {
        let found = percentile(&sorted, p).expect("values");
        assert!((found - value).abs() < 1e-9, "p{p}: {found}");
    }
    assert_eq!(percentile(&[], 50.0), None);
    assert_eq!(percentile(&[7.0], 99.0), Some(7.0));
    assert_eq!(value_of("mean", &sorted), Some(37.5));
}

#[test]
fn a_figure_misses_its_target_or_has_none() {
    let of = |m, s, t| Figure::new("ttft", "p50", "ms", m, s, t);
    let within = of(Some(100.0), Some(101.9), Some(0.02));
    assert_eq!(within.verdict, Some(Verdict::Pass));
    assert!((within.relative_error.unwrap_or(0.0) - 0.019).abs() < 1e-12);
    let outside = of(Some(100.0), Some(97.9), Some(0.02));
    assert_eq!(outside.verdict, Some(Verdict::Fail));
    // Measured and not simulated misses a target; not measured cannot.
    assert_eq!(of(Some(1.0), None, Some(0.02)).verdict, Some(Verdict::Fail));
    assert_eq!(of(None, Some(1.0), Some(0.02)).verdict, None);
    assert_eq!(of(Some(100.0), Some(50.0), None).verdict, None);
    assert_eq!(of(Some(0.0), Some(0.0), None).relative_error, Some(0.0));
    assert_eq!(of(Some(0.0), Some(1.0), None).relative_error, None);
}

#[test]
fn equality_counts_what_differs_and_what_is_missing() {
    let mut e = Equality::new("x", "s", 0.5, "a test");
    e.add(1.0, 1.5, || "first".into());
    assert_eq!((e.compared, e.equal, e.largest), (1, 1, 0.5));
    assert_eq!(e.clone().conclude().map(|e| e.verdict), Some(Verdict::Pass));
    e.add(1.0, 1.6, || "second".into());
    e.add(1.0, f64::NAN, || "third".into());
    assert_eq!((e.compared, e.equal), (3, 1));
    let first = e.first_mismatch.clone().expect("a mismatch");
    assert_eq!(
        (first.place.as_str(), first.simulated.as_str()),
        ("second", "1.6")
    );
    assert_eq!(e.clone().conclude().map(|e| e.verdict), Some(Verdict::Fail));
    let mut missing = Equality::new("x", "s", 0.5, "a test");
    missing.add(1.0, 1.0, || "first".into());
    missing.exceeds(0, || "end".into());
    assert_eq!(
        missing.clone().conclude().map(|e| e.verdict),
        Some(Verdict::Pass)
    );
    missing.exceeds(2, || "end".into());
    assert_eq!(missing.conclude().map(|e| e.verdict), Some(Verdict::Fail));
    assert_eq!(Equality::new("x", "s", 0.0, "").conclude(), None);
}

#[test]
fn one_missed_target_fails_a_run_and_the_whole() {
    let mut run = Run::new("a");
    let values = |by: f64| (1..=100).map(|i| Some(f64::from(i) * by)).collect();
    run.compare("ttft", "ms", values(1.0), values(1.01), Some(0.02));
    run.compare("itl", "ms", values(1.0), values(2.0), None);
    run.conclude();
    assert_eq!(run.verdict, Verdict::Pass);
    assert_eq!(run.figures.len(), 10);
    assert_eq!((run.errors[1].n, run.errors[1].median), (100, 50.5));
    let mut other = run.clone();
    other.compare("e2e", "ms", values(1.0), values(1.05), Some(0.02));
    other.conclude();
    assert_eq!(other.verdict, Verdict::Fail);
    let system = |runs| System {
        name: "s".into(),
        layout: "vllm",
        runs,
    };
    let verdict = |runs| Fidelity::of(vec![system(runs)]).verdict;
    let skipped = Run::without("c", "no KV size");
    assert_eq!(verdict(vec![skipped.clone()]), Verdict::Undecided);
    assert_eq!(verdict(vec![skipped.clone(), run.clone()]), Verdict::Pass);
    assert_eq!(verdict(vec![run, other, skipped]), Verdict::Fail);
}
