use super::*;

fn parse(text: &str) -> Threshold {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn value(text: &str) -> f64 {
    match parse(text).limit {
        Limit::Value(value) => value,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn figures_of_one_run_are_compared_with_each_other() {
    let t =
        parse("p99(ttft{class=chat, phase=during}) <= 1.05 * p99(ttft{class=chat,phase=before})");
    assert_eq!(t.operand.phase.as_deref(), Some("during"));
    let Limit::Times(factor, other) = t.limit else {
        panic!("{t:?}");
    };
    assert_eq!((factor, other.phase.as_deref()), (1.05, Some("before")));
    assert_eq!(other.class.as_deref(), Some("chat"));
    let t = parse("goodput{phase=after} >= goodput{phase=before}");
    assert!(matches!(t.limit, Limit::Times(1.0, _)));
    for (text, at, says) in [
        ("goodput{phase=later} >= 1", "later", "before"),
        ("goodput >= 0.9 * ttft_p99", " ttft_p99", "share"),
        ("goodput >= x * goodput", "x", "factor"),
        ("goodput >= 2 * goodput 3", "3", "follow"),
    ] {
        let e = text.parse::<Threshold>().unwrap_err();
        assert_eq!(&text[e.span.clone()], at, "{text}: {e:?}");
        let said = format!("{} {} {}", e.reason, e.help, e.note);
        assert!(said.contains(says), "{text}: {said}");
    }
}

#[test]
fn conditions_are_read_in_the_units_of_their_metrics() {
    let t = parse("p99(ttft) <= 200ms");
    assert_eq!(
        (t.operand.metric.as_str(), &t.operand.class),
        ("ttft", &None)
    );
    assert_eq!(t.operand.statistic, Some(Statistic::Quantile(0.99)));
    assert_eq!((t.comparison, t.operand.unit), (Comparison::AtMost, "ms"));
    assert_eq!(t.limit, Limit::Value(200.0));

    let t = parse(" mean( e2e{class = batch} )<2s ");
    assert_eq!(t.operand.statistic, Some(Statistic::Mean));
    assert_eq!(t.operand.class.as_deref(), Some("batch"));
    assert_eq!(
        (t.comparison, t.limit),
        (Comparison::Below, Limit::Value(2000.0))
    );

    assert_eq!(
        parse("p99(ttft){class=a-b.c} > 1us")
            .operand
            .class
            .as_deref(),
        Some("a-b.c")
    );
    assert_eq!(
        parse("p99.9(itl) < 1s").operand.statistic,
        Some(Statistic::Quantile(0.999))
    );
    assert_eq!(value("goodput{class=chat} >= 95%"), 0.95);
    assert_eq!(value("cost_per_verified_output <= $0.002"), 0.002);
    assert_eq!(value("energy_per_verified_output < 720J"), 0.2);
    assert_eq!(value("output_token_throughput > 5_000 tokens/s"), 5000.0);
    assert_eq!(value("ttft_p99 ≤ 0.2s"), 200.0);
}

#[test]
fn errors_say_what_where_and_how() {
    let fail = |text: &str| {
        let e = text.parse::<Threshold>().unwrap_err();
        (
            text[e.span.clone()].to_owned(),
            format!("{} {} {}", e.reason, e.help, e.note),
        )
    };
    for (text, at, says) in [
        ("p99(tftt) < 1s", "tftt", "did you mean `ttft`?"),
        ("ttft < 1s", "ttft", "p99(ttft)"),
        ("goodputt > 0.9", "goodputt", "did you mean `goodput`?"),
        ("p0(ttft) < 1s", "p0", "unknown statistic"),
        ("p99(ttft < 1s", "<", "`)` is missing"),
        ("p99(ttft) 1s", "1", "one of <, <="),
        ("p99(ttft) < 200", "200", "no unit"),
        ("goodput >= 95", "95", "95%"),
        ("cost_total < 3", "3", "$"),
        ("p99(ttft{tenant=x}) < 1s", "tenant", "{class=NAME}"),
        ("p99(ttft{class=x}){class=y} < 1s", "class=y", "twice"),
        ("", "", "missing"),
        ("goodput >=", "", "share"),
    ] {
        let (where_, what) = fail(text);
        assert_eq!(where_, at, "{text}: {what}");
        assert!(what.contains(says), "{text}: {what}");
    }
}
