use super::*;

fn fidelity() -> Fidelity {
    let mut run = Run::new("a,b");
    run.requests = 100;
    let values = |by: f64| (1..=100).map(|i| Some(f64::from(i) * by)).collect();
    run.compare("ttft", "ms", values(1.0), values(1.05), Some(0.02));
    let mut equality = Equality::new("replica of every request", "", 0.0, "exact");
    equality.add(1.0, 2.0, || "request <7>".into());
    run.equalities.extend(equality.conclude());
    run.conclude();
    let skipped = Run::without("c", "its KV size is not told");
    Fidelity::of(vec![System {
        name: "s".into(),
        layout: "vllm",
        runs: vec![run, skipped],
    }])
}

#[test]
fn a_missed_target_is_marked_and_counted() {
    let text = table(&fidelity());
    for part in [
        "+5.00 % !",
        "off by 2.53 ms (median)",
        "0 of 1 equal",
        "first at request <7>: measured 1, simulated 2",
        "not compared: its KV size is not told",
        "1 of 2 runs miss a stated target; 1 could not be compared.",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}

#[test]
fn how_sure_an_error_is_stands_below_it_where_that_was_reckoned() {
    let mut fidelity = fidelity();
    let without = table(&fidelity) + &html(&fidelity, "").expect("a page");
    assert!(!without.contains("95 % "), "{without}");
    fidelity.systems[0].runs[0].figures[4].interval = Some([-0.021, 0.118]);
    let text = table(&fidelity);
    assert!(text.contains("95 % of errors, %"), "{text}");
    assert!(text.contains("-2..+12\n"), "{text}");
    let page = html(&fidelity, "").expect("a page");
    assert!(page.contains("95 % between -2.1 and +11.8 %"), "{page}");
}

#[test]
fn lines_of_csv_have_as_many_cells_as_the_first() {
    let text = csv(&fidelity());
    let mut lines = text.lines();
    let cells = lines.next().map(|l| l.split(',').count());
    assert_eq!(cells, Some(11));
    for line in lines {
        // The run's name has a comma of its own.
        let commas = line.matches(',').count() - usize::from(line.contains("\"a,b\""));
        assert_eq!(Some(commas + 1), cells, "{line}");
    }
    let requests = requests_csv(&fidelity().systems[0].runs[0]);
    assert!(requests.starts_with("request,measured_ttft_ms,simulated_ttft_ms\n0,1,1.05\n"));
    assert_eq!(requests.lines().count(), 101);
}

#[test]
fn the_page_shows_every_plot_and_no_markup_of_others() {
    let page = html(&fidelity(), "windtunnel validate <x>").expect("a page");
    assert!(page.contains("request &lt;7&gt;") && page.contains("&lt;x&gt;"));
    assert_eq!(page.matches("<svg").count(), 1);
    assert!(!page.contains("http://") || !page.contains("src=\"http"));
    let text = json(&fidelity()).expect("JSON");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["verdict"], "fail");
    assert_eq!(
        value["systems"][0]["runs"][0]["figures"][0]["verdict"],
        "fail"
    );
    assert_eq!(
        value["systems"][0]["runs"][0]["pairs"],
        serde_json::Value::Null
    );
}
