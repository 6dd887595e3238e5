//! The catalogue itself: every case runs, refuses nonsense, and can fail.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on may panic, and says when it skips"
)]

use std::path::PathBuf;
use windtunnel_benches::catalogue::{self, Case, CaseError, Check, Selection, Setting};

fn case(id: &str) -> Case {
    let found = catalogue::cases().into_iter().find(|c| c.id == id);
    found.unwrap_or_else(|| panic!("no case {id}"))
}

fn selection(set: &[(&str, &str)], effort: f64) -> Selection {
    Selection {
        set: set
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect(),
        seed: 1,
        effort,
    }
}

/// The traces folder, if it is here.
fn traces() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(beside, PathBuf::from);
    Some(shared.join("traces")).filter(|path| path.is_dir())
}

/// The checks of one setting of one case.
fn checks(id: &str, set: &[(&str, &str)], effort: f64) -> Result<Vec<Check>, CaseError> {
    let outcomes = catalogue::run(
        &[case(id)],
        &selection(set, effort),
        traces().as_deref(),
        &|| (),
    );
    outcomes?.remove(0).checks
}

#[test]
fn the_catalogue_is_complete_and_its_names_are_unique() {
    let ids: Vec<_> = catalogue::cases().iter().map(|c| c.id).collect();
    let mut expected = Vec::new();
    for (family, last) in [("V-B", 10), ("V-C", 6), ("V-H", 10), ("V-P", 8), ("V-L", 6)] {
        expected.extend((1..=last).map(|n| format!("{family}{n}")));
        if family == "V-B" {
            expected.push("E13".into());
        }
        if family == "V-C" {
            expected.push("F12".into());
        }
        if family == "V-H" {
            expected.push("I28".into());
            expected.extend(["V-K3", "V-K4", "V-K2", "V-K6"].map(String::from));
        }
    }
    expected.push("V-R1".into());
    let tokens = ["V-T1", "V-T2", "V-T3", "V-T6", "V-Q1", "V-Q3", "E-06"];
    expected.extend(tokens.map(String::from));
    expected.extend((1..=4).map(|n| format!("V-M{n}")));
    expected.extend(["V-R2", "C-03"].map(String::from));
    expected.extend(["V-D5", "V-D6", "V-D7", "C06", "V-S1", "B09", "C14", "I26"].map(String::from));
    let scaling = [
        "V-E1", "V-E2", "V-E3", "V-E3d", "E01", "E03", "E10", "E11", "E12", "E25",
    ];
    expected.extend(scaling.map(String::from));
    expected.push("V-Z4".into());
    assert_eq!(ids, expected);
    for case in catalogue::cases() {
        assert!(!case.points.is_empty(), "{} has no point", case.id);
        for (name, _) in case.points.iter().copied().flatten() {
            let declared = case.params.iter().filter(|p| p.name == *name).count();
            assert_eq!(declared, 1, "{}: {name}", case.id);
        }
    }
}

#[test]
fn the_first_point_of_every_case_runs() {
    for case in catalogue::cases() {
        let first = selection(case.points[0], 0.02);
        let outcomes = catalogue::run(&[case], &first, traces().as_deref(), &|| ()).unwrap();
        match &outcomes[0].checks {
            Ok(checks) => {
                assert!(!checks.is_empty(), "{} compares nothing", case.id);
                let finite = |c: &Check| c.measured.is_finite() && c.expected.is_finite();
                assert!(checks.iter().all(finite), "{}: {checks:?}", case.id);
            }
            Err(CaseError::NeedsFiles(file)) => {
                println!("{}: skipped, {file} is not here", case.id)
            }
            Err(error) => panic!("{}: {error}", case.id),
        }
    }
}

#[test]
fn every_case_refuses_what_it_does_not_know() {
    for case in catalogue::cases() {
        let refused = catalogue::run(&[case], &selection(&[("speed", "9")], 0.01), None, &|| ());
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("no such parameter"), "{}: {text}", case.id);
        // No parameter takes this for a value.
        for param in case.params {
            let nonsense = selection(&[(param.name, "nonsense")], 0.01);
            let outcomes = catalogue::run(&[case], &nonsense, None, &|| ()).unwrap();
            let refused = match (&outcomes[0].checks, param.name) {
                (Err(CaseError::NeedsFiles(_)), "trace") => true,
                (Err(CaseError::Parameter { .. }), _) => true,
                // What is wrong with a GPU is the engine's to say.
                (Err(CaseError::Run(text)), "gpu") => text.contains("not in the catalogue"),
                _ => false,
            };
            assert!(
                refused,
                "{} {}: {:?}",
                case.id, param.name, outcomes[0].checks
            );
        }
    }
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    let rows = [
        ("V-B1", "rho", "1", "between"),
        ("V-B1", "rho", "nan", "between"),
        ("V-B2", "servers", "0", "between"),
        ("V-B2", "servers", "1.5", "whole number"),
        ("V-B3", "cs2", "-1", "between"),
        ("V-C3", "rate", "1000", "unstable"),
        ("V-C4", "reach", "500", "reaches"),
        ("V-H1", "capacity", "1000", "smaller"),
        ("V-P1", "nodes", "0", "between"),
        ("V-P8", "shards", "1,0", "more than zero"),
        ("V-P8", "shards", "", "numbers"),
        ("V-L2", "period", "0.0001", "three digits"),
        ("V-L3", "keys", "5", "little"),
        ("V-L4", "epsilon", "-0.5", "between"),
        ("V-T1", "alpha", "1", "between"),
        ("V-T6", "layers", "9", "between"),
        ("E-06", "scenario", "smoke", "cascade"),
    ];
    for (id, name, value, reason) in rows {
        let error = checks(id, &[(name, value)], 0.01).unwrap_err();
        assert!(
            matches!(error, CaseError::Parameter { .. }),
            "{id} {name}={value}: {error}"
        );
        assert!(
            error.to_string().contains(reason),
            "{id} {name}={value}: {error}"
        );
    }
}

/// Checks whose names begin so, of one setting.
fn named(id: &str, set: &[(&str, &str)], name: &str) -> Check {
    let all = checks(id, set, 0.1).unwrap();
    let found = all.iter().find(|c| c.name.starts_with(name)).cloned();
    found.unwrap_or_else(|| panic!("{id} has no check `{name}`: {all:?}"))
}

/// What one system does, against what theory says of another.
fn crossed(expected: &Check, measured: &Check) -> Check {
    Check {
        measured: measured.measured,
        ..expected.clone()
    }
}

/// Each pair holds for itself, and neither when one is taken for the other.
#[test]
fn a_wrong_system_fails_in_every_family() {
    let pairs: [(&str, &str, Setting, &str, Setting); 7] = [
        // Erlang C is no matter of the servers' total speed alone.
        (
            "V-B2",
            "mean wait",
            &[("servers", "2"), ("rho", "0.8")],
            "V-B2",
            &[("servers", "4"), ("rho", "0.8")],
        ),
        // Service times of another spread.
        (
            "V-B3",
            "mean wait",
            &[("rho", "0.7"), ("service", "exponential")],
            "V-B3",
            &[("rho", "0.7"), ("service", "deterministic")],
        ),
        // Batch sizes swapped.
        (
            "V-C1",
            "gain",
            &[("batch", "8")],
            "V-C1",
            &[("batch", "16")],
        ),
        // FIFO against the formula of LRU.
        ("V-H1", "hit ratio", &[], "V-H2", &[]),
        // Affinity against the formula of random routing over another number of nodes.
        (
            "V-P1",
            "random",
            &[("nodes", "8")],
            "V-P1",
            &[("nodes", "7")],
        ),
        // Drafts that stand less often.
        (
            "V-T1",
            "tokens per step",
            &[("alpha", "0.8")],
            "V-T1",
            &[("alpha", "0.75")],
        ),
        // One choice against two.
        (
            "V-L6",
            "largest bin",
            &[("choices", "2")],
            "V-L6",
            &[("choices", "1")],
        ),
    ];
    for (id, name, set, other, other_set) in pairs {
        let (right, wrong) = (named(id, set, name), named(other, other_set, name));
        assert!(right.holds(), "{id}: {right:?}");
        assert!(wrong.holds(), "{other}: {wrong:?}");
        let taken = crossed(&right, &wrong);
        assert!(!taken.holds(), "{id} does not tell them apart: {taken:?}");
    }
}

#[test]
fn routing_without_a_minimum_match_fails_its_table() {
    if traces().is_none() {
        println!("skipped: the traces folder is not here");
        return;
    }
    // All prompts share their first block: any match will do, and one node gets everything.
    let broken = named(
        "V-P6",
        &[("policy", "longest_match"), ("at_least", "0")],
        "share found",
    );
    assert!(broken.measured < 0.2, "{broken:?}");
    let table = |c: &Check| c.basis.contains("digits");
    let all = checks(
        "V-P6",
        &[("policy", "longest_match"), ("at_least", "0")],
        1.0,
    )
    .unwrap();
    assert!(all.iter().any(|c| table(c) && !c.holds()), "{all:?}");
    let all = checks("V-P6", &[("policy", "longest_match")], 1.0).unwrap();
    assert!(
        all.iter().any(table) && all.iter().all(Check::holds),
        "{all:?}"
    );
}

#[test]
fn verifiers_cost_and_decide_as_their_formulas_say() {
    for id in ["V-K2", "V-K6"] {
        for point in case(id).points {
            let all = checks(id, point, 0.5).unwrap();
            assert!(all.iter().all(Check::holds), "{id} {point:?}: {all:?}");
        }
    }
    // What another share of hits costs is not within the tolerance.
    let tax = |hit| named("V-K2", &[("hit", hit)], "verifier tax");
    assert!(!crossed(&tax("0.8"), &tax("0.79")).holds());
}

#[test]
fn ties_by_id_are_not_ties_at_random() {
    let board = |ties| {
        named(
            "V-L2",
            &[("period", "5"), ("ties", ties)],
            "mean time in system",
        )
    };
    let (random, lowest) = (board("random"), board("lowest_id"));
    assert!(random.holds() && lowest.holds(), "{random:?} {lowest:?}");
    assert!(!crossed(&random, &lowest).holds());
}

#[test]
fn nothing_holds_that_is_not_a_number() {
    for check in [
        Check::exact("", 1.0, f64::NAN),
        Check::relative("", f64::NAN, 1.0, 0.1),
        Check::at_most("", 1.0, f64::NAN),
        Check::at_least("", 1.0, f64::NAN),
        Check::at_most("", 1.0, 1.1),
        Check::at_least("", 1.0, 0.9),
        Check::exact("", 1.0, 1.0 + f64::EPSILON),
    ] {
        assert!(!check.holds(), "{check:?}");
    }
    assert!(Check::at_most("", 1.0, 1.0).holds() && Check::at_least("", 1.0, 1.0).holds());
}
