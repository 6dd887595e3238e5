//! `run --steps`: every step in a file, and refusals before anything runs.

use crate::place::Place;
use std::collections::BTreeMap;

/// Lines of a file of steps, by column.
fn steps(place: &Place, file: &str) -> Vec<BTreeMap<String, String>> {
    let text = place.read(file);
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let header: Vec<String> = lines.next().expect("a header").collect();
    lines
        .map(|cells| header.iter().cloned().zip(cells).collect())
        .collect()
}

fn number(step: &BTreeMap<String, String>, column: &str) -> u64 {
    let cell = step.get(column).unwrap_or_else(|| panic!("no {column}"));
    cell.parse()
        .unwrap_or_else(|e| panic!("{column}: {e} in {cell}"))
}

#[test]
fn steps_are_those_of_the_run_which_they_do_not_change() {
    let place = Place::new();
    let words = "run smoke --num-prompts 120 --exit-zero";
    place.run(&format!("{words} --out plain")).code(0);
    place
        .run(&format!("{words} --out told --steps steps.csv"))
        .code(0);
    let digest = |out: &str| {
        let folder = place.folder(out, "smoke");
        place.json(&format!("{folder}/manifest.json"))["digests"].clone()
    };
    assert_eq!(digest("plain"), digest("told"));

    let folder = place.folder("told", "smoke");
    let result = place.json(&format!("{folder}/runs/seed-1/result.json"));
    let total = |name: &str| -> u64 {
        let segments = result["run"]["segments"].as_array().expect("segments");
        let count = |s: &serde_json::Value| s[name].as_u64().or_else(|| s["books"][name].as_u64());
        segments.iter().filter_map(count).sum()
    };
    let steps = steps(&place, "steps.csv");
    assert_eq!(steps.len() as u64, total("steps"));
    let sum = |column: &str| steps.iter().map(|s| number(s, column)).sum::<u64>();
    assert_eq!(sum("emitted_tokens"), total("output_tokens_generated"));
    assert_eq!(sum("prefill_tokens"), total("prompt_tokens_computed"));
    // In order of their ends; those of a replica one after the other; and in the end nobody is left.
    let mut ends = BTreeMap::new();
    let mut latest = 0;
    for (i, step) in steps.iter().enumerate() {
        assert_eq!(number(step, "step"), i as u64);
        let (start, end) = (number(step, "start_ns"), number(step, "end_ns"));
        let before = ends.insert(number(step, "replica"), end).unwrap_or(0);
        assert!(before <= start && start < end && latest <= end, "{step:?}");
        latest = end;
        let blocks = number(step, "kv_held_blocks") + number(step, "kv_cached_blocks");
        assert!(blocks <= number(step, "kv_total_blocks"), "{step:?}");
    }
    assert_eq!(ends.len(), 2, "both replicas work");
    let last = steps.last().expect("there are steps");
    assert_eq!((number(last, "running"), number(last, "waiting")), (0, 0));
    assert!(place.files().iter().all(|f| !f.ends_with("partial")));
}

#[test]
fn parquet_comes_by_the_name() {
    let place = Place::new();
    place
        .run("run smoke --num-prompts 120 --exit-zero --steps there.parquet")
        .code(0);
    let bytes = std::fs::read(place.path("there.parquet")).expect("it is written");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    assert!(bytes.len() > 1_000, "{}", bytes.len());
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_runs() {
    let place = Place::new();
    place.write("folder.csv/file", "");
    for (words, wanted) in [
        ("--steps steps.txt", "end it with .csv or .parquet"),
        ("--steps steps", "end it with .csv or .parquet"),
        ("--steps steps.csv --seeds 2", "choose one with --seed"),
        (
            "--steps nowhere/steps.csv",
            "cannot write nowhere/steps.csv",
        ),
        ("--steps folder.csv", "it is a folder"),
    ] {
        let done = place.run(&format!("run smoke {words}")).code(2);
        assert!(done.err.contains(wanted), "{wanted}: {done}");
        assert!(done.err.contains("nothing was run"), "{done}");
        assert!(done.out.is_empty(), "{done}");
        let files = place.files();
        assert_eq!(files.len(), 1, "{files:?}");
    }
}

/// Who reads such a file must know what stands in it.
#[test]
fn the_readme_names_every_column() {
    let place = Place::new();
    place
        .run("run smoke --num-prompts 120 --exit-zero --steps steps.csv")
        .code(0);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))
        .expect("the README");
    let text = place.read("steps.csv");
    for column in text.lines().next().expect("a header").split(',') {
        assert!(readme.contains(&format!("`{column}`")), "{column}");
    }
}
