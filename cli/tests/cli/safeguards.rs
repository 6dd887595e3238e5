//! What a gateway and its clients did, as a user reads it.

use crate::place::Place;

/// The lines that begin with a word.
fn line(out: &str, word: &str) -> String {
    let found = out
        .lines()
        .find(|line| line.split(' ').next() == Some(word));
    found
        .unwrap_or_else(|| panic!("no `{word}` in\n{out}"))
        .to_owned()
}

#[test]
fn each_part_of_a_gateway_has_its_line() {
    let place = Place::new();
    for (scenario, word, wanted) in [
        (
            "stampede",
            "answers",
            "coalesced · 11 origin calls · 1.00 per flight",
        ),
        ("metastable", "clients", "attempts per request"),
        ("kernel-eviction", "kernels", "leaked to the frontier"),
        ("prompt-injection", "stages", "of attacks blocked"),
        ("store-failover", "store", "reads/s"),
        ("shared-cache", "shared", "of prompt tokens read back"),
    ] {
        let out = place.run(&format!("run {scenario}")).code(0).out;
        let line = line(&out, word);
        assert!(line.contains(wanted), "{scenario}: {line}");
    }
    // Who has none of them is told nothing of them.
    let out = place.run("run smoke").code(0).out;
    for word in ["answers", "clients", "kernels", "stages", "store", "shared"] {
        assert!(
            !out.lines().any(|l| l.split(' ').next() == Some(word)),
            "{out}"
        );
    }
}

#[test]
fn phases_stand_side_by_side_with_what_few_requests_can_say() {
    let place = Place::new();
    let out = place.run("run stampede").code(0).out;
    let head = line(&out, "phase");
    for column in ["sent", "req/s", "TTFT p90", "E2E p50"] {
        assert!(head.contains(column), "{head}");
    }
    assert!(!head.contains("p99"), "{head}");
    let sent = |phase| {
        line(&out, phase)
            .split_whitespace()
            .nth(1)
            .map(str::to_owned)
    };
    assert_eq!(sent("during"), Some("189".into()));
    // On the page too, and the time of the disturbance is marked.
    let folder = place.folder("out", "stampede");
    let page = place.read(&format!("{folder}/report.html"));
    assert!(page.contains("Before, during and after"));
    assert!(page.contains("orange is the time of the disturbance"));
}
