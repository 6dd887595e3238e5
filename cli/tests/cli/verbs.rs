//! Every verb, once, for success; and that what it prints or writes is what it says.

use crate::place::{Place, metric, rows};

/// A folder with results of `smoke`, small, and that folder's name.
fn with_results(more: &str) -> (Place, String) {
    let place = Place::new();
    place
        .run(&format!("run smoke --num-prompts 120 --exit-zero {more}"))
        .code(0);
    let folder = place.folder("out", "smoke");
    (place, folder)
}

#[test]
fn run_prints_a_table_and_writes_a_whole_folder() {
    let place = Place::new();
    let done = place.run("run smoke").code(0);
    for wanted in [
        "smoke · 2 replicas",
        "TTFT",
        "goodput",
        "All 2 targets are met.",
    ] {
        assert!(done.out.contains(wanted), "{wanted}: {done}");
    }
    assert!(done.out.lines().all(|line| line.chars().count() <= 100));
    let folder = place.folder("out", "smoke");
    assert!(done.err.contains(&folder), "{done}");
    let files = place.files();
    for file in [
        "manifest.json",
        "scenario.toml",
        "summary.json",
        "points.csv",
        "report.html",
        "plots/cdf_ttft.svg",
        "runs/seed-1/result.json",
        "runs/seed-1/requests.parquet",
        "runs/seed-1/samples.csv",
    ] {
        assert!(
            files.contains(&format!("{folder}/{file}")),
            "{file} of {files:?}"
        );
    }
    assert!(files.iter().all(|f| f.starts_with(&folder)), "{files:?}");
    assert!(!files.iter().any(|f| f.ends_with("partial")), "{files:?}");
}

#[test]
fn run_as_json_is_the_summary_of_the_folder() {
    let place = Place::new();
    let done = place.run("run smoke --seeds 2 --format json").code(0);
    let summary = done.json();
    assert_eq!(summary["schema_version"], 1);
    assert_eq!(summary["seeds"], serde_json::json!([1, 2]));
    let metrics = summary["metrics"].as_object().expect("metrics by name");
    assert!(metrics.len() > 40, "{}", metrics.len());
    for (name, metric) in metrics {
        assert!(metric["unit"].is_string(), "{name}");
        assert!(metric["n"].is_u64(), "{name}");
        // What has no value says why.
        assert_ne!(
            metric["value"].is_number(),
            metric["reason"].is_string(),
            "{name}"
        );
    }
    // With two seeds there are intervals, and they hold the value.
    let interval = metrics["ttft_mean"]["ci95"]
        .as_array()
        .expect("an interval");
    let value = metrics["ttft_mean"]["value"].as_f64().expect("a value");
    assert!(interval[0].as_f64() < Some(value) && Some(value) < interval[1].as_f64());
    assert_eq!(summary["ci"]["passed"], 2);
    assert_eq!(summary["ci"]["failed"], 0);
    assert_eq!(summary["runs"].as_array().map(Vec::len), Some(2));
    let folder = place.folder("out", "smoke");
    assert_eq!(summary, place.json(&format!("{folder}/summary.json")));
}

#[test]
fn run_as_csv_has_a_row_per_seed() {
    let place = Place::new();
    let done = place.run("run smoke --seeds 3 --format csv").code(0);
    let points = rows(&done.out);
    let seeds: Vec<&str> = points.iter().map(|p| p["seed"].as_str()).collect();
    assert_eq!(seeds, ["1", "2", "3"]);
    for point in &points {
        assert!(
            point["ttft_mean_ms"]
                .parse::<f64>()
                .is_ok_and(|ms| ms > 0.0)
        );
        assert_eq!(point["unfinished"], "0");
    }
}

#[test]
fn run_as_markdown_is_a_document() {
    let done = Place::new().run("run smoke --format markdown").code(0);
    assert!(done.out.starts_with('#'), "{done}");
    assert!(done.out.contains("| `ttft_p50` |"), "{done}");
}

#[test]
fn request_rows_come_in_the_format_asked_for() {
    for (rows, file) in [
        ("csv", Some("requests.csv")),
        ("jsonl", Some("requests.jsonl")),
        ("parquet", Some("requests.parquet")),
        ("none", None),
    ] {
        let (place, folder) = with_results(&format!("--rows {rows}"));
        let files = place.files();
        let start = format!("{folder}/runs/seed-1/requests.");
        let found: Vec<_> = files.iter().filter(|f| f.starts_with(&start)).collect();
        match file {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(file) => assert!(found.iter().any(|f| f.ends_with(file)), "{file}: {found:?}"),
        }
    }
}

#[test]
fn compare_sets_policies_side_by_side() {
    let place = Place::new();
    let done = place
        .run("compare smoke policy:round-robin --seeds 2 --num-prompts 200")
        .code(0);
    for wanted in ["smoke", "round-robin", "ttft"] {
        assert!(done.out.contains(wanted), "{wanted}: {done}");
    }
    let pairs = place
        .run("compare policy:round-robin policy:gie --on smoke --num-prompts 200 --format json")
        .code(0)
        .json();
    assert_eq!(pairs.as_array().map(Vec::len), Some(1), "{pairs}");
    // Nothing is written unless asked for.
    assert!(place.files().is_empty());
}

#[test]
fn compare_reads_result_folders() {
    let place = Place::new();
    for (out, policy) in [("a", "round-robin"), ("b", "dynamo")] {
        let words = format!(
            "run smoke --policy {policy} --num-prompts 120 --seeds 2 --exit-zero --out {out}"
        );
        place.run(&words).code(0);
    }
    let (a, b) = (place.folder("a", "smoke"), place.folder("b", "smoke"));
    let done = place.run(&format!("compare {a} {b}")).code(0);
    let name = a.rsplit('/').next().expect("a name");
    assert!(done.out.contains(name), "{done}");
    let csv = place.run(&format!("compare {a} {b} --format csv")).code(0);
    assert_eq!(rows(&csv.out).len(), 4);
}

#[test]
fn validate_lists_its_cases_and_runs_one() {
    let place = Place::new();
    let list = place.run("validate --list").code(0);
    for wanted in ["V-B1", "V-H3", "--set rho="] {
        assert!(list.out.contains(wanted), "{wanted}: {list}");
    }
    // LRU and FIFO against the static optimum, over short runs.
    let done = place.run("validate V-H3 --effort 0.05 --format json");
    assert!([0, 3].contains(&done.code), "{done}");
    let json = done.json();
    assert_eq!(json["schema_version"], 1);
    let cases = json["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 2);
    let mut failed = 0;
    for check in cases
        .iter()
        .flat_map(|c| c["checks"].as_array().expect("checks"))
    {
        for key in ["expected", "measured", "tolerance"] {
            assert!(check[key].is_number(), "{check}");
        }
        failed += usize::from(check["verdict"] != "pass");
    }
    // The code is that of the checks.
    assert_eq!(done.code == 3, failed > 0, "{done}");
}

#[test]
fn scenarios_are_listed_shown_and_told_apart() {
    let place = Place::new();
    let list = place.run("scenario list").code(0);
    let json = place.run("scenario list --format json").code(0).json();
    let names: Vec<&str> = json
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| e["name"].as_str().expect("a name"))
        .collect();
    assert!(names.contains(&"smoke") && names.len() > 15, "{names:?}");
    for name in &names {
        assert!(list.out.contains(name), "{name}: {list}");
    }
    // What is shown says the same when it is read again.
    let shown = place.run("scenario show chat-burst").code(0);
    place.write("again.toml", &shown.out);
    let diff = place.run("scenario diff chat-burst again.toml").code(0);
    assert!(!diff.out.contains("traffic."), "{diff}");
    let diff = place.run("scenario diff smoke mm1").code(0);
    assert!(diff.out.contains("fleet.engine.kind"), "{diff}");
    let origins = place
        .run("scenario show smoke --origins --set fleet.replicas=3")
        .code(0);
    assert!(origins.out.contains("replicas = 3  # --set"), "{origins}");
    assert!(origins.out.contains("# default"), "{origins}");
    let schema = place.run("scenario schema").code(0).json();
    assert!(schema["properties"]["fleet"].is_object());
}

#[test]
fn a_new_scenario_is_fine_and_runs() {
    let place = Place::new();
    place.run("scenario new mine.toml").code(0);
    place
        .run("scenario new burst.toml --from chat-burst")
        .code(0);
    let check = place
        .run("scenario check mine.toml burst.toml smoke")
        .code(0);
    for name in ["mine.toml", "burst.toml", "smoke"] {
        assert!(check.out.contains(&format!("{name}: fine")), "{check}");
    }
    place
        .run("run mine.toml --num-prompts 50 --exit-zero")
        .code(0);
    place.folder("out", "mine");
    // A file that is there is not overwritten.
    let before = place.read("mine.toml");
    let refused = place.run("scenario new mine.toml").code(2);
    assert!(refused.err.contains("exists already"), "{refused}");
    assert_eq!(before, place.read("mine.toml"));
    let refused = place.run("scenario new other.toml --from smok").code(2);
    assert!(refused.err.contains("smoke"), "{refused}");
}

#[test]
fn report_makes_the_documents_anew() {
    let (place, folder) = with_results("");
    let page = place.read(&format!("{folder}/report.html"));
    let summary = place.read(&format!("{folder}/summary.json"));
    let done = place
        .run(&format!("report {folder} --out docs --format json"))
        .code(0);
    assert_eq!(summary, place.read("docs/summary.json"));
    assert_eq!(summary, done.out);
    assert_eq!(page, place.read("docs/report.html"));
    assert!(page.starts_with("<!DOCTYPE html>") || page.starts_with("<!doctype html>"));
    let done = place.run(&format!("report {folder}")).code(0);
    assert!(done.out.contains("report.html"), "{done}");
}

#[test]
fn explain_tells_a_request_and_a_percentile() {
    let (place, folder) = with_results("");
    for subject in ["smoke", folder.as_str()] {
        let done = place.run(&format!("explain {subject} --request 7")).code(0);
        for wanted in ["request 7", "prefill", "decode"] {
            assert!(done.out.contains(wanted), "{wanted}: {done}");
        }
        let words = format!("explain {subject} --percentile 90 --metric e2e");
        let done = place.run(&words).code(0);
        assert!(done.out.contains("decode"), "{done}");
    }
    // Parts of a life sum to the whole.
    let life = place
        .run("explain smoke --request 7 --format json")
        .code(0)
        .json();
    let parts = life["parts"].as_array().expect("parts");
    let sum: u64 = parts.iter().map(|p| p["ns"].as_u64().expect("ns")).sum();
    assert_eq!(Some(sum), life["total_ns"].as_u64());
    let none = place
        .run(&format!("explain {folder} --request 4000"))
        .code(2);
    assert!(none.err.contains("0 to 119"), "{none}");
}

/// A client that asks again while the server stands still: its attempts are told one by one.
#[test]
fn explain_follows_attempts() {
    let place = Place::new();
    let life = |request: u32| {
        let words = format!("explain metastable --request {request} --format json");
        place.run(&words).code(0).json()
    };
    // Sent during the stall, and timed out twice.
    let stalled = life(345);
    let attempts = stalled["attempts"].as_array().expect("attempts");
    let why: Vec<_> = attempts.iter().map(|a| a["purpose"].as_str()).collect();
    assert_eq!(why, [Some("attempt"), Some("retry")]);
    assert!(attempts.iter().all(|a| a["answered"] == false));
    assert_eq!(stalled["parts"][0]["part"], "attempts");
    assert_eq!(stalled["parts"][0]["ns"], stalled["total_ns"]);
    assert_eq!(stalled["decisions"].as_array().map(Vec::len), Some(2));
    // Sent long before it.
    let calm = life(7);
    assert_eq!(calm["attempts"][0]["answered"], true);
    let parts = calm["parts"].as_array().expect("parts");
    assert!(parts.iter().all(|p| p["part"] != "attempts"), "{calm}");
    let text = place.run("explain metastable --request 7").code(0).out;
    assert!(text.contains("← the answer"), "{text}");
}

#[test]
fn export_converts_requests() {
    let (place, folder) = with_results("--rows parquet");
    let before = place.files();
    let csv = place.run(&format!("export {folder} --to csv -o -")).code(0);
    assert_eq!(rows(&csv.out).len(), 120);
    assert_eq!(place.files(), before, "stdout only");
    let jsonl = place
        .run(&format!("export {folder} --to jsonl -o -"))
        .code(0);
    let lines: Vec<serde_json::Value> = jsonl
        .out
        .lines()
        .map(|l| serde_json::from_str(l).expect("a JSON value per line"))
        .collect();
    assert!(lines.len() >= 120);
    for (to, begin) in [
        ("csv", b"version,".as_slice()),
        ("jsonl", b"{".as_slice()),
        ("parquet", b"PAR1".as_slice()),
        ("perfetto", b"\x0a".as_slice()),
    ] {
        let file = format!("requests.{to}");
        place
            .run(&format!("export {folder} --to {to} -o {file}"))
            .code(0);
        let bytes = std::fs::read(place.path(&file)).expect("it is written");
        assert!(bytes.len() > 1_000, "{to}: {} bytes", bytes.len());
        let shown = &bytes[..begin.len()];
        assert!(bytes.starts_with(begin), "{to} begins with {shown:?}");
    }
    assert_eq!(csv.out, place.read("requests.csv"));
    let refused = place
        .run(&format!("export {folder} --to parquet -o -"))
        .code(2);
    assert!(refused.out.is_empty(), "{refused}");
}

#[test]
fn perfetto_traces_come_with_a_run_too() {
    let (place, folder) = with_results("--perfetto");
    let trace = std::fs::read(place.path(&format!("{folder}/runs/seed-1/trace.perfetto-trace")));
    assert!(trace.is_ok_and(|bytes| bytes.len() > 1_000));
}

#[test]
fn completions_exist_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = place.run(&format!("completions {shell}")).code(0);
        for wanted in ["windtunnel", "validate", "num-prompts"] {
            assert!(done.out.contains(wanted), "{shell}: {wanted}");
        }
        assert!(done.err.is_empty(), "{done}");
    }
}

#[test]
fn every_library_scenario_without_a_trace_is_fine() {
    let place = Place::new();
    let json = place.run("scenario list --format json").code(0).json();
    let names = json.as_array().expect("a list").iter();
    let names: Vec<&str> = names.map(|e| e["name"].as_str().expect("a name")).collect();
    let done = place
        .run(&format!("scenario check {}", names.join(" ")))
        .code(0);
    assert_eq!(done.out.lines().count(), names.len(), "{done}");
    // One that is mostly decode, with little to do, says what it measured.
    let json = place.run("run smoke --format json").code(0).json();
    assert!(metric(&json, "finished").is_some_and(|n| n > 300.0));
}

#[test]
fn bench_says_what_shapes_cost_each_in_a_process_of_its_own() {
    let place = Place::new();
    let shapes = place.run("bench --list").code(0);
    for shape in [
        "smoke",
        "mm1",
        "one-replica",
        "cache-aware",
        "open-sessions",
    ] {
        assert!(shapes.out.contains(shape), "{shape}: {shapes}");
    }
    let table = place
        .run("bench mm1 round-robin --quick --requests 300")
        .code(0);
    assert!(
        table.out.contains("requests/CPU s") && table.out.contains("cores"),
        "{table}"
    );
    let json = place
        .run("bench mm1 kv-aware --requests 200 --format json")
        .code(0);
    let document: serde_json::Value = serde_json::from_str(&json.out).expect("a JSON document");
    let measured = document["shapes"].as_array().expect("a list of shapes");
    let names: Vec<_> = measured.iter().map(|m| m["shape"].as_str()).collect();
    assert_eq!(names, [Some("mm1"), Some("kv-aware")]);
    for m in measured {
        assert_eq!(m["requests"], 200);
        assert!(m["facts"].as_u64() >= Some(1_400), "{m}");
        assert!(m["cpu_s"].as_f64() > Some(0.0) && m["requests_per_cpu_s"].as_f64() > Some(0.0));
    }
}

#[test]
fn bench_refuses_what_it_does_not_know() {
    let place = Place::new();
    let unknown = place.run("bench mm2").code(2);
    assert!(unknown.err.contains("did you mean `mm1`?"), "{unknown}");
    assert!(unknown.out.is_empty());
    let missing = place
        .run("bench one-replica --fidelity no/such/folder")
        .code(2);
    assert!(missing.err.contains("no/such/folder"), "{missing}");
    let empty = place.run("bench one-replica --fidelity .").code(2);
    assert!(empty.err.contains("w1_single"), "{empty}");
    place.run("bench mm1 --format csv").code(2);
}
