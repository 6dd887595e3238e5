//! Devices that fail in the middle of a command: an error that says what failed where, and nothing left behind.

use crate::place::{Done, Place};

const RUN: &str = "reference-smoke --set engine.reference.model=tiny --set engine.reference.device=cpu \
                   --set traffic.max_output_tokens=12 --num-prompts 12 --request-rate 40 --no-progress";
const LAYERS: &str =
    "reference-cascade --set engine.reference.device=cpu --num-prompts 8 --no-progress";

/// Every verb that computes, at a step that is in its middle, with words of its own in the message.
fn verbs() -> Vec<(String, &'static [&'static str])> {
    let run: &[&str] = &["replica 0 failed at", "nothing was written"];
    vec![
        (format!("run {RUN}"), run),
        (format!("run {RUN} --steps steps.csv"), run),
        (format!("live {RUN}"), run),
        (format!("live {RUN} --steps steps.csv"), run),
        (format!("run {LAYERS}"), run),
        (
            "calibrate --model pocket_light --light none --out t.json --device cpu --budget 1ms \
             --max-num-seqs 2 --max-num-batched-tokens 16"
                .into(),
            &[],
        ),
        (
            "engine bench --model pocket_light --device cpu --no-progress".into(),
            &[],
        ),
        (
            "engine ask hello --model pocket_light --device cpu".into(),
            &[],
        ),
        (
            "engine cascade --device cpu --sessions 2 --turns 3 --out c.toml --no-progress".into(),
            &[],
        ),
    ]
}

fn with_fault(place: &Place, fault: &str, command: &str) -> Done {
    let words = command.split_whitespace();
    let mut process = place.command();
    process.env("WINDTUNNEL_FAULT", fault).args(words);
    // A command that waits for a device that is gone would never end.
    process.timeout(std::time::Duration::from_secs(120));
    let output = process.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is text");
    Done {
        what: format!("{command} ({fault})"),
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

#[test]
fn a_device_that_fails_in_the_middle_ends_every_verb_and_leaves_nothing_behind() {
    for (fault, code, says) in [
        (
            "lost@5",
            1,
            &["cpu", "a step failed: the device is lost"][..],
        ),
        ("nan@5", 1, &["not numbers", "position"]),
    ] {
        for (command, words) in verbs() {
            let place = Place::new();
            let done = with_fault(&place, fault, &command).code(code);
            assert!(!done.err.contains("panicked"), "{done}");
            assert_eq!(done.out, "", "{done}");
            for word in says.iter().chain(words) {
                assert!(done.err.contains(word), "{word}: {done}");
            }
            assert!(place.files().is_empty(), "{command}: {:?}", place.files());
        }
    }
}

#[test]
fn memory_that_runs_out_in_the_middle_says_how_much_was_needed() {
    for (command, words) in verbs() {
        let place = Place::new();
        let done = with_fault(&place, "memory@5", &command);
        // A run that had begun failed; what measures could not be done as it was asked for.
        let code = if words.is_empty() { 2 } else { 1 };
        let done = done.code(code);
        let says = "a buffer of a step needs 1048576 bytes and 0 are free; take fewer pages";
        assert!(done.err.contains(says), "{done}");
        assert!(place.files().is_empty(), "{command}: {:?}", place.files());
    }
}

#[test]
fn what_an_earlier_run_left_stays_when_a_later_one_fails() {
    let place = Place::new();
    place.run(&format!("run {RUN} --steps steps.csv")).code(0);
    let before: Vec<_> = place.files().into_iter().collect();
    let steps = place.read("steps.csv");
    with_fault(&place, "lost@5", &format!("run {RUN} --steps steps.csv")).code(1);
    assert_eq!(place.files().into_iter().collect::<Vec<_>>(), before);
    assert_eq!(place.read("steps.csv"), steps);
    // A fault that never comes changes nothing.
    with_fault(&place, "lost@100000", &format!("run {RUN}")).code(0);
}
