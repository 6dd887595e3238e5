//! Runs whose steps are computed, and runs in real time.

use crate::place::{Place, metric};

/// A tiny model, few requests, and a rate that leaves the machine idle at times.
const TINY: &str = "reference-smoke --set engine.reference.model=tiny --set engine.reference.device=cpu \
                    --set traffic.max_output_tokens=12 --num-prompts 12 --request-rate 40 --no-progress";

#[test]
fn on_the_cost_models_clock_a_computed_run_repeats() {
    let place = Place::new();
    let command = format!("run {TINY} --set engine.reference.clock=cost_model --format json");
    let [a, b] = [0, 1].map(|_| place.run(&command).code(0));
    assert_eq!(a.out, b.out);
    let summary = a.json();
    assert_eq!(metric(&summary, "finished"), Some(12.0));
    // Random weights answer nothing right, and what they say was looked at.
    assert_eq!(metric(&summary, "verification_pass_rate"), Some(0.0));
}

#[test]
fn a_live_run_takes_its_time_and_writes_the_folder_of_a_run() {
    let place = Place::new();
    let begin = std::time::Instant::now();
    let done = place.run(&format!("live {TINY} --format json")).code(0);
    let took = begin.elapsed().as_secs_f64();
    assert_eq!(metric(&done.json(), "finished"), Some(12.0));
    let folder = place.folder("out", "reference-smoke");
    let files = place.files();
    for file in ["summary.json", "runs/seed-1/requests.parquet"] {
        assert!(files.contains(&format!("{folder}/{file}")), "{files:?}");
    }
    let result = place.json(&format!("{folder}/runs/seed-1/result.json"));
    let end = result["run"]["end_ns"].as_f64().expect("an end") / 1e9;
    assert!(end > 0.05 && took >= end, "{end} s of the run in {took} s");
}

#[test]
fn a_model_that_is_not_there_is_named_and_nothing_is_run() {
    let place = Place::new();
    let done = place
        .run("run reference-smoke --set engine.reference.model=no-such-folder")
        .code(2);
    assert!(done.err.contains("no-such-folder"), "{done}");
    assert!(done.err.contains("nothing was run"), "{done}");
    assert!(place.files().is_empty(), "{:?}", place.files());
}
