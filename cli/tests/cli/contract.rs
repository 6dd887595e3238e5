//! What scripts rely on: exit codes, what goes where, which setting wins, and that nothing but the
//! seed moves a figure.

use crate::place::{BINARY, Done, Place, metric, rows};
use std::process::{Command, Stdio};

/// Not a terminal: no colours, no cursor movements, no bells.
fn plain(done: &Done) {
    for text in [&done.out, &done.err] {
        let odd = text.chars().find(|&c| c.is_control() && c != '\n');
        assert_eq!(odd, None, "{done}");
    }
}

const SMALL: &str = "run smoke --num-prompts 120";

#[test]
fn exit_codes_are_what_the_help_promises() {
    let cases: [(&str, &str, i32); 16] = [
        ("all is well", "", 0),
        ("help", "--help", 0),
        ("version", "--version", 0),
        ("no verb", "NOTHING", 2),
        ("unknown verb", "walk", 2),
        ("unknown flag", "run smoke --sed 3", 2),
        ("unknown format", "run smoke --format yaml", 2),
        ("no scenario", "run", 2),
        ("unknown scenario", "run smok", 2),
        ("unknown case", "validate V-X", 2),
        ("parameter without a value", "validate V-B3 --set rho", 2),
        ("one subject", "compare smoke", 2),
        ("no folder of results", "report nowhere", 2),
        ("nothing to export", "export nowhere --to csv", 2),
        (
            "percentile out of range",
            "explain smoke --percentile 101",
            2,
        ),
        ("unknown shell", "completions tcsh", 2),
    ];
    for (why, words, code) in cases {
        let place = Place::new();
        let done = match words {
            "" => place.run(SMALL),
            "NOTHING" => place.run(""),
            words => place.run(words),
        };
        assert_eq!(done.code, code, "{why}: {done}");
        plain(&done);
        if code == 2 {
            assert!(done.out.is_empty() && !done.err.is_empty(), "{why}: {done}");
            assert!(place.files().is_empty(), "{why}: {:?}", place.files());
        }
    }
}

#[test]
fn a_scenario_one_letter_off_is_recognised() {
    let done = Place::new().run("run smok").code(2);
    assert!(done.err.contains("did you mean `smoke`?"), "{done}");
    let done = Place::new().run("run smoke --policy round-robbin").code(2);
    assert!(done.err.contains("did you mean `round-robin`?"), "{done}");
}

#[test]
fn a_folder_that_cannot_be_written_is_code_1() {
    let place = Place::new();
    place.write("taken", "a file where the folder should be");
    let done = place.run(&format!("{SMALL} --out taken")).code(1);
    assert!(done.err.contains("taken"), "{done}");
    assert!(done.out.is_empty(), "said before anything is run: {done}");
    assert_eq!(place.read("taken"), "a file where the folder should be");
}

#[test]
fn a_missed_threshold_is_code_3_and_results_are_written() {
    let place = Place::new();
    let missed = [SMALL, "--format json"].join(" ");
    let set = "thresholds=[\"p90(ttft) <= 1us\"]";
    let mut args: Vec<&str> = missed.split(' ').collect();
    args.extend(["--set", set]);
    let done = place.run_args(&args).code(3);
    assert_eq!(done.json()["ci"]["failed"], 1);
    let folder = place.folder("out", "smoke");
    let summary = place.json(&format!("{folder}/summary.json"));
    assert_eq!(summary["ci"]["failed"], 1);
    args.push("--exit-zero");
    place.run_args(&args).code(0);
}

#[test]
fn a_threshold_inside_the_interval_is_code_4() {
    // Two seeds: Student's interval around the mean is many times the difference of the two.
    let place = Place::new();
    let words = format!("{SMALL} --seeds 2 --format json");
    let mut args: Vec<&str> = words.split(' ').collect();
    let mean = metric(
        &place.run(&format!("{words} --exit-zero")).json(),
        "ttft_mean",
    );
    let set = format!("thresholds=[\"mean(ttft) <= {}ms\"]", mean.expect("a mean"));
    args.extend(["--set", &set]);
    let done = place.run_args(&args).code(4);
    assert_eq!(done.json()["ci"]["undecided"], 1);
    args.push("--exit-zero");
    place.run_args(&args).code(0);
}

#[test]
fn stdout_holds_the_result_and_nothing_else() {
    // A scenario with a warning, a note and a progress line to give.
    let text =
        "version = 1\nname = \"terse\"\n[traffic]\nrequest_rate = \"20 req/s\"\nnum_prompts = 60\n";
    let place = Place::new();
    place.write("terse.toml", text);
    for format in ["table", "json", "csv", "markdown"] {
        let loud = place
            .run(&format!("run terse.toml --format {format}"))
            .code(0);
        let quiet = place
            .run(&format!("run terse.toml --quiet --format {format}"))
            .code(0);
        plain(&loud);
        assert!(loud.err.contains("traffic.input"), "{loud}");
        assert_eq!(quiet.err, "", "{quiet}");
        assert_eq!(loud.out, quiet.out, "{format}");
    }
    place.run("run terse.toml --format json").json();
}

#[test]
fn colour_comes_only_when_asked_for() {
    let place = Place::new();
    let always = place
        .run_args(&["run", "smok", "--color", "always"])
        .code(2);
    assert!(always.err.contains('\u{1b}'), "{always}");
    for choice in ["auto", "never"] {
        plain(&place.run_args(&["run", "smok", "--color", choice]).code(2));
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    let codes = |words: &str, close_stderr: bool| {
        let mut child = Command::new(BINARY)
            .args(words.split(' '))
            .current_dir(place.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        drop(child.stdout.take());
        if close_stderr {
            drop(child.stderr.take());
        }
        child.wait().expect("it ends").code()
    };
    for words in ["completions zsh", "scenario schema", "scenario list", SMALL] {
        assert_eq!(codes(words, false), Some(0), "{words}");
        assert_eq!(codes(words, true), Some(0), "{words} 2>&1");
    }
    // The code still tells what was found, whoever listens.
    assert_eq!(codes("run smok", true), Some(2));
    let missed = format!("{SMALL} --set thresholds=[\"p90(ttft)<=1us\"]");
    assert_eq!(codes(&missed, true), Some(3));
}

#[test]
fn a_dry_run_says_what_it_would_do_and_writes_nothing() {
    let place = Place::new();
    let done = place
        .run("run smoke --dry-run --seeds 3 --out results")
        .code(0);
    for wanted in [
        "3 seeds from 1",
        "400 requests",
        "results/smoke-",
        "nothing was run",
    ] {
        assert!(done.out.contains(wanted), "{wanted}: {done}");
    }
    assert!(place.files().is_empty());
    assert!(!place.path("results").exists());
}

/// What one run leaves that its seed and scenario decide.
fn outcome(place: &Place, words: &str) -> Vec<(String, String)> {
    place.run(words).code(0);
    let folder = place.folder("out", "smoke");
    let mut all = vec![];
    for file in ["summary.json", "points.csv", "scenario.toml", "report.html"] {
        all.push((file.to_owned(), place.read(&format!("{folder}/{file}"))));
    }
    for seed in 5..8 {
        for file in ["result.json", "requests.csv", "samples.csv"] {
            let name = format!("runs/seed-{seed}/{file}");
            all.push((name.clone(), place.read(&format!("{folder}/{name}"))));
        }
    }
    all
}

#[test]
fn the_seed_alone_decides() {
    let words = "run smoke --seed 5 --seeds 3 --rows csv --exit-zero";
    let first = outcome(&Place::new(), &format!("{words} --jobs 1"));
    for (how, more) in [
        ("other folder, other threads", "--jobs 2"),
        ("laws unwatched", "--jobs 2 --no-laws"),
        ("quiet", "--jobs 1 --quiet"),
    ] {
        let again = outcome(&Place::new(), &format!("{words} {more}"));
        for ((name, a), (_, b)) in first.iter().zip(&again) {
            // The page tells the command line; all else is the same to the byte.
            assert!(a == b || name == "report.html", "{how}: {name} differs");
        }
    }
    let other = outcome(&Place::new(), &format!("{words} --set run.warm_up=0s"));
    assert_ne!(first[0], other[0], "a test that can fail");
}

#[test]
fn running_twice_into_one_folder_leaves_the_second() {
    let place = Place::new();
    place.run("run smoke --seeds 3 --rows csv").code(0);
    let folder = place.folder("out", "smoke");
    place.run("run smoke --seed 2 --rows none").code(0);
    assert_eq!(place.folder("out", "smoke"), folder);
    let runs: Vec<_> = place
        .files()
        .into_iter()
        .filter(|f| f.contains("/runs/"))
        .collect();
    assert!(
        !runs.is_empty() && runs.iter().all(|f| f.contains("seed-2")),
        "{runs:?}"
    );
    let summary = place.json(&format!("{folder}/summary.json"));
    assert_eq!(summary["seeds"], serde_json::json!([2]));
}

#[test]
fn the_scenario_of_a_folder_repeats_its_digests() {
    for start in [
        "run smoke --seeds 2 --num-prompts 150",
        "run memory-pressure --num-prompts 150 --request-rate 20",
        "run chat-sessions --num-prompts 150 --policy dynamo",
    ] {
        let place = Place::new();
        place
            .run(&format!("{start} --exit-zero --out first"))
            .code(0);
        let name = start.split(' ').nth(1).expect("a name");
        let folder = place.folder("first", name);
        let manifest = place.json(&format!("{folder}/manifest.json"));
        let seeds = manifest["seeds"].as_array().map_or(0, Vec::len);
        let words = format!("run {folder}/scenario.toml --seeds {seeds} --exit-zero --out again");
        place.run(&words).code(0);
        let again = place.folder("again", name);
        let again = place.json(&format!("{again}/manifest.json"));
        assert_eq!(manifest["digests"], again["digests"], "{start}");
        assert_eq!(manifest["scenario_hash"], again["scenario_hash"], "{start}");
        let command = manifest["command"].as_str().expect("a command");
        assert_eq!(
            command,
            format!("windtunnel {start} --exit-zero --out first")
        );
    }
}

#[test]
fn results_stay_inside_the_output_folder_whatever_a_scenario_is_called() {
    for name in ["../../up", "..", "/etc/x", "a b\\c", "nul\u{7}l"] {
        let place = Place::new();
        let text = format!(
            "version = 1\nname = {}\n[traffic]\nrequest_rate = \"9 req/s\"\nnum_prompts = 9\n",
            serde_json::json!(name)
        );
        place.write("work/s.toml", text);
        let done = place.run("run work/s.toml --quiet --out work/deep/out");
        if done.code != 0 {
            assert_eq!(done.code, 2, "{done}");
            continue;
        }
        let files = place.files();
        let inside = |f: &String| f == "work/s.toml" || f.starts_with("work/deep/out/");
        assert!(files.iter().all(inside), "{name}: {files:?}");
        assert!(files.iter().any(|f| f.ends_with("summary.json")), "{name}");
    }
}

#[test]
fn set_wins_over_flags_and_flags_over_files() {
    let place = Place::new();
    let sent = |words: &str| {
        let json = place
            .run(&format!("{words} --exit-zero --format json"))
            .json();
        let runs = json["metrics"]["sent"]["n"].as_u64();
        runs.expect("requests were sent")
    };
    let whole = "--set run.warm_up=0s";
    assert_eq!(sent(&format!("run smoke {whole}")), 400);
    assert_eq!(sent(&format!("run smoke {whole} --num-prompts 70")), 70);
    let both = format!("run smoke {whole} --set traffic.num_prompts=80 --num-prompts 70");
    assert_eq!(sent(&both), 80);
    // Of two, the later.
    let twice = format!("{both} --set traffic.num_prompts=90");
    assert_eq!(sent(&twice), 90);
}

#[test]
fn flags_have_the_names_and_meanings_of_vllm() {
    let place = Place::new();
    let shown = place
        .run(
            "scenario show smoke --request-rate 7.5 --num-prompts 33 --burstiness 0.5 \
             --max-concurrency 4",
        )
        .code(0);
    for wanted in [
        "request_rate = \"7.5 req/s\"",
        "num_prompts = 33",
        "max_concurrency = 4",
        "kind = \"gamma\"",
        "burstiness = 0.5",
    ] {
        assert!(shown.out.contains(wanted), "{wanted}: {shown}");
    }
    // All at once, four at a time: never more than four in the system.
    let words = "run smoke --request-rate inf --num-prompts 60 --max-concurrency 4 --exit-zero";
    place.run(words).code(0);
    let folder = place.folder("out", "smoke");
    let samples = rows(&place.read(&format!("{folder}/runs/seed-1/samples.csv")));
    let most = samples
        .iter()
        .map(|s| s["in_system_requests"].parse::<u32>());
    assert_eq!(most.map(|n| n.expect("a count")).max(), Some(4));
}

#[test]
fn traces_are_found_by_flag_and_by_environment() {
    let place = Place::new();
    place.write(
        "data/t.csv",
        "req_id,adapter,prompt_len,output_len,req_time_s\n0,3,45,21,0.1\n1,4,46,9,0.5\n",
    );
    place.write(
        "s.toml",
        "version = 1\nname = \"t\"\n[traffic.trace]\nformat = \"vtc\"\nfile = \"t.csv\"\n",
    );
    place.run("run s.toml").code(2);
    place.run("run s.toml --traces data").code(0);
    let output = place
        .command()
        .args(["run", "s.toml", "--out", "env"])
        .env("WINDTUNNEL_TRACES", "data")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
}
