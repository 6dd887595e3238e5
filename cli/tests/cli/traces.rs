//! Traces through the binary: its own rows played again, and the published traces of the library
//! where they are there.

use crate::place::{Place, metric, rows};
use std::path::{Path, PathBuf};

#[test]
fn exported_requests_can_be_played_again() {
    let place = Place::new();
    let first = "run smoke --seed 3 --exit-zero --rows csv --num-prompts 200";
    place.run(first).code(0);
    let folder = place.folder("out", "smoke");
    place
        .run(&format!("export {folder} --to csv -o requests.csv"))
        .code(0);
    // The same world, its traffic from the rows.
    let replay = "version = 1\nname = \"again\"\n\
        fleet = { replicas = 2, engine = { kind = \"continuous\" } }\n\
        classes.default = { ttft = \"1s\", tpot = \"50ms\" }\n\
        [traffic.trace]\nformat = \"native\"\nfile = \"requests.csv\"\n";
    place.write("again.toml", replay);
    place.run("run again.toml --rows csv").code(0);
    let again = place.folder("out", "again");
    let of = |folder: &str| rows(&place.read(&format!("{folder}/runs/seed-1/requests.csv")));
    let (before, after) = (
        rows(&place.read(&format!("{folder}/runs/seed-3/requests.csv"))),
        of(&again),
    );
    assert_eq!((before.len(), after.len()), (200, 200));
    // A trace begins with its first request.
    let ns = |row: &std::collections::BTreeMap<String, String>, key: &str| {
        row[key].parse::<u64>().expect("a time")
    };
    let (from, to) = (ns(&before[0], "sent_ns"), ns(&after[0], "sent_ns"));
    for (a, b) in before.iter().zip(&after) {
        for key in ["prompt_tokens", "output_tokens", "replica", "end"] {
            assert_eq!(a[key], b[key], "{key} of request {}", a["request"]);
        }
        for key in ["sent_ns", "first_token_ns", "generated_ns"] {
            assert_eq!(
                ns(a, key) - from,
                ns(b, key) - to,
                "{key} of {}",
                a["request"]
            );
        }
    }
    let manifest = place.json(&format!("{again}/manifest.json"));
    assert_eq!(manifest["inputs"][0]["rows"], 200);
}

/// The folder of published traces, if it is there.
fn published() -> Option<PathBuf> {
    let shared = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let traces = shared.join("traces");
    traces.canonicalize().ok().filter(|path| path.is_dir())
}

#[test]
fn published_traces_run_and_balance() {
    let Some(traces) = published() else {
        eprintln!("skipped: the shared folder with published traces is not there");
        return;
    };
    let traces = traces.display().to_string();
    let place = Place::new();
    let json = place.run("scenario list --format json").code(0).json();
    let names = json.as_array().expect("a list").iter();
    let names: Vec<&str> = names.map(|e| e["name"].as_str().expect("a name")).collect();
    let mut played = 0;
    for name in names {
        let shown = place.run(&format!("scenario show {name}")).code(0);
        if !shown.out.contains("[traffic.trace]") {
            continue;
        }
        let args = [
            "run",
            name,
            "--traces",
            &traces,
            "--num-prompts",
            "500",
            // Shorter than the warm-up that some of these scenarios leave out.
            "--set",
            "run.warm_up=0s",
            "--format",
            "json",
        ];
        let done = place.run_args(&args);
        // A missed threshold is a finding, not a fault.
        assert!([0, 3].contains(&done.code), "{done}");
        let summary = done.json();
        let get = |m: &str| metric(&summary, m).unwrap_or_else(|| panic!("{name} has no {m}"));
        let ends: f64 = ["finished", "refused", "abandoned", "unfinished"]
            .map(get)
            .iter()
            .sum();
        assert_eq!(get("sent"), ends, "{name}");
        assert!(get("finished") > 0.0, "{name}: {done}");
        let folder = place.folder("out", name);
        let manifest = place.json(&format!("{folder}/manifest.json"));
        let inputs = manifest["inputs"].as_array().expect("files");
        assert!(!inputs.is_empty(), "{name}");
        for file in inputs {
            assert!(file["rows"].as_u64() > Some(0), "{name}: {file}");
            assert!(file["xxh3"].is_string(), "{name}: {file}");
        }
        played += 1;
    }
    assert!(played >= 6, "{played}");
}
