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
    let files = place.files();
    let folder = files.iter().find_map(|f| f.strip_suffix("/summary.json"));
    let folder = folder.expect("a folder");
    let beside = folder.starts_with("out/reference-smoke-") && folder.ends_with("-live");
    assert!(beside, "not where `run` writes: {folder}");
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

#[test]
fn the_cascade_measures_its_layers_and_writes_what_the_simulator_runs() {
    let place = Place::new();
    let command = "engine cascade --device cpu --sessions 2 --turns 3 --out measured.toml --format json --no-progress";
    let study = place.run(command).code(0).json();
    let cells = study["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), 9, "none, six alone, all but one, all");
    for cell in cells {
        assert!(cell["wall_seconds"].as_f64() > Some(0.0), "{cell}");
        assert!(cell["work"]["launches"].as_u64() > Some(0), "{cell}");
        let quality = &cell["quality"];
        assert!(quality["tokens"].as_u64() > Some(0), "{cell}");
    }
    assert!(study["interaction"]["wall"].as_f64() > Some(0.0));
    assert_eq!(study["map"].as_array().map(Vec::len), Some(0));
    let run =
        place.run("run measured.toml --set traffic.duration=10min --format json --no-progress");
    let summary = run.code(0).json();
    assert!(metric(&summary, "finished") > Some(0.0));
    let wrong = place.run("engine cascade --no-change 2").code(2);
    assert!(wrong.err.contains("between 0 and 1"), "{wrong}");
}

#[test]
fn a_model_is_asked_and_what_does_not_fit_is_refused() {
    let place = Place::new();
    let ask = "engine ask hello --device cpu --model pocket_light";
    let said = place.run(&format!("{ask} --max-tokens 6")).code(0);
    assert_eq!(
        said.out,
        place.run(&format!("{ask} --max-tokens 6")).code(0).out
    );
    let long = place.run(&format!("{ask} --max-tokens 5000")).code(2);
    assert!(long.err.contains("do not fit"), "{long}");
    place.write("model/tokenizer.json", "{");
    let wrong = place.run("engine ask hello --model model").code(2);
    assert!(wrong.err.contains("config.json"), "{wrong}");
}

/// Agents whose turns repeat themselves, on models for tests.
const AGENTS: &str = "reference-cascade --set engine.reference.model=tiny --set engine.reference.device=cpu \
                      --set engine.cascade.light=tiny --set traffic.max_output_tokens=12 --set traffic.num_prompts=24 \
                      --no-progress --format json";

fn switched(place: &Place, policy: &str, more: &str) -> serde_json::Value {
    let command = format!("run {AGENTS} --policy {policy} {more}");
    place.run(&command).code(0).json()
}

#[test]
fn layers_of_a_cascade_that_are_off_or_change_nothing_leave_a_computed_run_as_it_is() {
    let place = Place::new();
    let modelled = "--set engine.reference.clock=cost_model";
    let off = switched(&place, "cascade-none", modelled);
    assert_eq!(metric(&off, "finished"), Some(24.0));
    let draft = format!("{modelled} --set engine.cascade.route.short=speculative");
    let two = format!("{modelled} --set engine.cascade.spans.max=2");
    // On the cost model's clock nothing can differ but what is answered, and what work that was.
    let work = [
        "launches_per_token",
        "operations_per_token",
        "moved_per_token",
        "kv_in_use_mean",
        "span_mean",
    ];
    let figures = off["metrics"].as_object().expect("figures");
    for (policy, more) in [("cascade-l1", &two), ("cascade-l2", &draft)] {
        let on = switched(&place, policy, more);
        for (name, figure) in figures.iter().filter(|f| !work.contains(&f.0.as_str())) {
            assert_eq!(&on["metrics"][name], figure, "{policy}: {name}");
        }
    }
    // Nor where the table is not there at all.
    let table = "--set engine.reference.model=tiny --set engine.reference.device=cpu \
                 --set engine.reference.clock=cost_model --set traffic.max_output_tokens=12 \
                 --num-prompts 12 --no-progress --format json";
    let without = place.run(&format!("run reference-smoke {table}")).code(0);
    let with = place.run(&format!(
        "run reference-smoke {table} --set engine.cascade.light=pocket_light"
    ));
    assert_eq!(with.code(0).json()["metrics"], without.json()["metrics"]);
}

#[test]
fn layers_of_a_cascade_are_paid_for_by_the_work_they_leave_out() {
    let place = Place::new();
    let pocket = "--set engine.reference.model=pocket_frontier --set engine.cascade.light=pocket_light \
                  --set traffic.max_output_tokens=96 --set traffic.tasks.no_change=0.6 --set traffic.num_prompts=64";
    let run = |policy: &str| switched(&place, policy, pocket);
    let read = |summary: &serde_json::Value, name: &str| metric(summary, name).expect(name);
    let none = run("cascade-none");
    let right = read(&none, "verified_useful_outputs");
    assert!(right > 0.0, "{none}");
    // What asks the same again is answered as before, and the light model says most tokens: for one
    // request at a time a right answer costs less by either, and the queue is shorter.
    for policy in ["cascade-l0", "cascade-l2", "cascade-all"] {
        let some = run(policy);
        for key in ["cost_per_verified_output", "e2e_mean", "tpot_mean"] {
            let (with, without) = (read(&some, key), read(&none, key));
            assert!(with < 0.95 * without, "{policy}: {key} {with} {without}");
        }
        assert!(
            read(&some, "verified_useful_outputs") > 0.5 * right,
            "{some}"
        );
    }
    // Runs on counted work repeat, whatever the layers learn on the way.
    assert_eq!(run("cascade-all")["metrics"], run("cascade-all")["metrics"]);
}

#[test]
fn layers_that_cannot_act_are_refused_before_anything_runs() {
    let place = Place::new();
    for (arguments, words) in [
        (
            "--set engine.cascade.route.short=early_exit --set engine.cascade.route.exit_layers=9",
            &["cascade.route.exit_layers", "nothing was run"][..],
        ),
        (
            "--set engine.cascade.route.threshold=-1",
            &["cascade.route.threshold", "nothing was run"],
        ),
        (
            "--set engine.cascade.light=nobody",
            &["nobody", "nothing was run"],
        ),
        ("--set engine.cascade.layers.l6=true", &["l6", "known:"]),
    ] {
        let done = place.run(&format!("run {AGENTS} {arguments}")).code(2);
        for word in words {
            assert!(done.err.contains(word), "{arguments}: {done}");
        }
    }
    let simulated = place
        .run("run smoke --set engine.cascade.layers.l2=true")
        .code(2);
    assert!(simulated.err.contains("kind `reference`"), "{simulated}");
    let lengths = "run smoke --set engine.kind=reference --set engine.reference.model=tiny \
                   --set engine.cascade.layers.l2=true";
    let done = place.run(lengths).code(2);
    assert!(done.err.contains("traffic.tasks"), "{done}");
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn a_run_says_what_its_engine_computed_and_what_layers_left_out() {
    let place = Place::new();
    let agents = "run reference-cascade --set engine.reference.device=cpu --num-prompts 24 --no-progress --format json \
                  --set engine.cascade.control.period=10ms";
    let all = place.run(agents).code(0).json();
    let none = place
        .run(&format!("{agents} --policy cascade-none"))
        .code(0);
    let none = none.json();
    for name in ["launches_per_token", "moved_per_token"] {
        let [less, more] = [&all, &none].map(|s| metric(s, name).expect(name));
        assert!(0.0 < less && less < more, "{name}: {less} and {more}");
    }
    let share = |name: &str| {
        let value = metric(&all, name).expect(name);
        assert!((0.0..=1.0).contains(&value), "{name}: {value}");
        assert_eq!(metric(&none, name), None, "{name} without layers");
        value
    };
    assert!(share("turns_skipped") > 0.0 && share("short_path_share") > 0.0);
    for name in [
        "risk_signal",
        "novelty_signal",
        "drift_signal",
        "confidence_signal",
    ] {
        share(name);
    }
    // Held against the frontier in full; 24 answers are fewer than are compared. The light model says the same
    // words less surely. Leaving out the last layer of four says others.
    let apart = |summary: &serde_json::Value| {
        let [words, nats] = ["token_agreement", "token_divergence"].map(|n| metric(summary, n));
        (words.expect("words"), nats.expect("drawn tokens"))
    };
    assert_eq!(metric(&all, "compared_answers"), Some(24.0));
    assert_eq!(metric(&none, "compared_answers"), None);
    let (words, nats) = apart(&all);
    assert!(words > 0.9 && nats > 1e-6, "{words}, {nats}");
    let exit = format!(
        "{agents} --policy cascade-l2 --set engine.cascade.route.short=early_exit \
         --set engine.cascade.route.exit_layers=3 --set engine.cascade.route.threshold=1.5"
    );
    let (fewer, more) = apart(&place.run(&exit).code(0).json());
    assert!(fewer < 0.9 * words && more > 10.0 * nats, "{fewer}, {more}");
    // It is no part of the run.
    let alone = format!("{agents} --set engine.cascade.compared=0");
    let alone = place.run(&alone).code(0).json();
    assert_eq!(metric(&alone, "token_agreement"), None);
    for name in ["launches_per_token", "e2e_p50", "cost_per_verified_output"] {
        assert_eq!(metric(&alone, name), metric(&all, name), "{name}");
    }
    let bits = metric(&all, "kv_bits_mean").expect("full blocks");
    assert!((8.0..16.0).contains(&bits), "{bits}");
    let [checks, mismatches] = ["shadow_checks", "shadow_mismatches"].map(|n| metric(&all, n));
    assert!(
        mismatches <= checks && checks.is_some(),
        "{mismatches:?} of {checks:?}"
    );
    // Layers that are off have no figures, and drafts only exist where the short path makes some.
    assert_eq!(metric(&all, "draft_acceptance"), None);
    let drafts = format!(
        "{agents} --policy cascade-l2 --set engine.cascade.route.short=speculative \
         --set thresholds=[\"draft_acceptance>0.1\"]"
    );
    let drafts = place.run(&drafts).code(0).json();
    assert!(metric(&drafts, "tokens_per_draft_step") > Some(1.0));
    assert_eq!(metric(&drafts, "turns_skipped"), None);
    assert_eq!(metric(&drafts, "token_agreement"), Some(1.0));
    assert!(metric(&drafts, "token_divergence") < Some(1e-6));
    // The same in the terminal, and in the folder.
    let table = place.run(
        "run reference-cascade --set engine.reference.device=cpu --num-prompts 24 --no-progress \
         --set engine.cascade.control.period=10ms",
    );
    let table = table.code(0);
    for words in [
        "launches per token",
        "of turns skipped",
        "of tokens short",
        "of tokens as in full",
        "confidence",
    ] {
        assert!(table.out.contains(words), "{words}: {table}");
    }
    let folder = place
        .files()
        .into_iter()
        .find(|f| f.ends_with("result.json"));
    let result = place.json(&folder.expect("a result"));
    assert!(result["run"]["computed"]["launches"].as_u64() > Some(0));
}
