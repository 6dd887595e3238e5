//! Golden files of every document, and what must hold of each: widths, no loads from elsewhere, escaping,
//! the published schema, METRICS.md. `UPDATE_GOLDEN=1` writes schema and METRICS.md anew;
//! `INSTA_UPDATE=always` the snapshots.

mod common;

use std::fs;
use std::path::Path;
use windtunnel_reports::Summary;
use windtunnel_reports::metric::METRICS;
use windtunnel_reports::render::{html, json, markdown, plots, points, table};
use windtunnel_scenarios::threshold;

fn usual() -> Summary {
    let runs: Vec<_> = (1..=5).map(|seed| common::run(seed, 11.0)).collect();
    Summary::from_runs(&common::scenario(), "support-kernels", "3f9a", &runs)
}

fn overloaded() -> Summary {
    let mut scenario = common::scenario();
    scenario.thresholds.truncate(3);
    Summary::from_runs(
        &scenario,
        "support-kernels",
        "3f9a",
        &[common::run(1, 16.0)],
    )
}

/// Too short for anything, without targets, classes or a verifier.
fn tiny() -> Summary {
    let mut scenario = common::scenario();
    scenario.thresholds.clear();
    scenario.classes.clear();
    scenario.verification = None;
    let mut run = common::run(3, 11.0);
    run.segments.truncate(1);
    run.end_ns = run.segment_ns;
    run.samples.retain(|s| s.at_ns < run.segment_ns);
    Summary::from_runs(&scenario, "tiny", "00ff", &[run])
}

#[test]
fn tables() {
    insta::assert_snapshot!("table_usual", table::render(&usual()));
    insta::assert_snapshot!("table_overloaded", table::render(&overloaded()));
    insta::assert_snapshot!("table_tiny", table::render(&tiny()));
}

#[test]
fn a_long_condition_is_shown_to_its_end() {
    let mut scenario = common::scenario();
    scenario.thresholds =
        vec!["goodput{class=interactive,phase=during} >= 0.9876543210".to_owned()];
    let runs = [common::run(1, 11.0)];
    let text = table::render(&Summary::from_runs(&scenario, "x", "h", &runs));
    assert!(text.contains(&scenario.thresholds[0]), "{text}");
}

#[test]
fn tables_fit_and_promise_nothing_empty() {
    for summary in [usual(), overloaded(), tiny()] {
        let text = table::render(&summary);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
            assert!(!line.contains("N/A") && !line.contains("NaN"), "{line}");
        }
    }
    let text = table::render(&overloaded());
    let warning = text.find("warning: overloaded").unwrap();
    assert!(warning < text.find("TTFT").unwrap(), "above the table");
}

#[test]
fn summary_json() {
    let summary = usual();
    let text = json::render(&summary).unwrap();
    assert!(text.starts_with("{\n  \"schema_version\": 1,"), "{text}");
    let back: Summary = serde_json::from_str(&text).unwrap();
    assert_eq!(back, summary, "nothing is lost");
    // Without the figures of each seed, which are many.
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value["runs"].as_array_mut().unwrap().truncate(1);
    rounded(&mut value);
    insta::assert_snapshot!("summary", serde_json::to_string_pretty(&value).unwrap());
}

/// Floats to nine digits: Student's t comes from a library whose last digit may differ by platform.
fn rounded(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Number(n) if n.is_f64() => {
            let short: f64 = format!("{:.8e}", n.as_f64().unwrap_or(0.0))
                .parse()
                .unwrap_or(0.0);
            *value = short.into();
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(rounded),
        serde_json::Value::Object(items) => items.values_mut().for_each(rounded),
        _ => {}
    }
}

#[test]
fn points_and_markdown() {
    let text = points::render(&[&usual()]);
    insta::assert_snapshot!("points_header", text.lines().next().unwrap());
    let cells = text.lines().next().unwrap().split(',').count();
    assert_eq!(text.lines().count(), 6);
    assert!(text.lines().all(|line| line.split(',').count() == cells));
    insta::assert_snapshot!("markdown", markdown::render(&usual()));
}

fn page(summary: &Summary, runs: &[windtunnel_ledger::result::RunResult]) -> String {
    html::render(&html::Report {
        summary,
        runs,
        scenario_toml: "[fleet]\nname = \"<script>alert(1)</script>\"\n",
        command: "windtunnel run a.toml --set \"x=<b>\"",
    })
    .expect("it draws")
}

#[test]
fn the_page_is_whole_and_loads_nothing() {
    let runs: Vec<_> = (1..=5).map(|seed| common::run(seed, 11.0)).collect();
    let mut scenario = common::scenario();
    scenario.purpose = "<img src=x onerror=alert(1)> & more".into();
    let summary = Summary::from_runs(&scenario, "a\"><script>", "3f9a", &runs);
    let page = page(&summary, &runs);
    // Namespaces are names, not loads.
    let rest = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for load in [
        "http", "<script", "<link", "<img", "url(", "@import", "src=",
    ] {
        let found = rest.find(load).map(|i| &rest[i..(i + 60).min(rest.len())]);
        // Escaped text may speak of them.
        assert!(
            found.is_none_or(|_| load == "src=" && !rest.contains("<img src")),
            "{load}: {found:?}"
        );
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@media print"));
    // Tags in the order of the page, with their headings.
    let outline: Vec<&str> = page
        .lines()
        .filter(|l| l.starts_with("<h") || l.starts_with("<section") || l.starts_with("<figure"))
        .filter(|l| !l.starts_with("<html") && !l.starts_with("<head"))
        .collect();
    insta::assert_snapshot!("html_outline", outline.join("\n"));
    for tag in [
        "section", "table", "figure", "svg", "div", "tr", "td", "details", "main",
    ] {
        let open =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        let closed = page.matches(&format!("</{tag}>")).count();
        assert_eq!(open, closed, "{tag}");
    }
}

#[test]
fn plots_stand_alone() {
    let runs = [common::run(1, 11.0)];
    let summary = Summary::from_runs(&common::scenario(), "x", "h", &runs);
    let plots = plots::all(&summary, &runs).unwrap();
    let names: Vec<_> = plots.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "cdf_ttft",
            "cdf_tpot",
            "cdf_itl",
            "cdf_e2e",
            "in_system",
            "queue_and_batch",
            "kv",
            "replica_load",
            "cost"
        ]
    );
    for plot in &plots {
        assert!(plot.svg.starts_with("<svg viewBox=") && plot.svg.contains("<title>"));
        assert!(plot.svg.contains("currentColor"), "{}", plot.name);
        assert!(!plot.svg.contains("#010203") && !plot.svg.contains("NaN"));
    }
    // A run without samples, books or traffic has nothing to show, and says so by having no plot.
    let empty = windtunnel_ledger::result::RunResult {
        segments: vec![Default::default()],
        segment_ns: 1,
        ..Default::default()
    };
    let runs = [empty];
    let summary = Summary::from_runs(&common::scenario(), "x", "h", &runs);
    assert!(plots::all(&summary, &runs).unwrap().is_empty());
    assert!(!page(&summary, &runs).contains("<figure"));
}

/// The text must equal the file; `UPDATE_GOLDEN=1` writes it.
fn same_as_file(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, text).expect("the repository can be written");
    }
    let file = fs::read_to_string(path).unwrap_or_default();
    assert!(
        file == text,
        "{} is out of date; UPDATE_GOLDEN=1 writes it anew",
        path.display()
    );
}

#[test]
fn the_published_schema_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("summary.schema.json");
    same_as_file(&path, &json::schema().unwrap());
}

#[test]
fn the_manual_of_metrics_lists_what_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../METRICS.md");
    let manual = fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- metrics -->\n", "<!-- end -->");
    let from = manual.find(begin).unwrap() + begin.len();
    let to = manual.find(end).unwrap();
    let mut rows = String::from(
        "| name | unit | better | population | formula | `vllm bench serve` |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for m in METRICS {
        let vllm = m.vllm.map_or("–".to_owned(), |key| format!("`{key}`"));
        rows += &format!(
            "| `{}` | {} | {} | {} | {} | {vllm} |\n",
            m.name,
            m.unit,
            format!("{:?}", m.direction).to_lowercase(),
            m.population,
            m.formula
        );
    }
    same_as_file(
        &path,
        &format!("{}{rows}{}", &manual[..from], &manual[to..]),
    );
}

#[test]
fn conditions_know_the_same_metrics() {
    for m in METRICS {
        assert_eq!(threshold::unit_of(m.name), Some(m.unit), "{}", m.name);
    }
    for (name, _) in threshold::METRICS {
        assert!(METRICS.iter().any(|m| m.name == *name), "{name}");
    }
}
