//! Scenarios that are wrong, each with the text that its author gets to see. `UPDATE_GOLDEN=1`
//! writes the texts anew; read the difference before committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::path::{Path, PathBuf};
use windtunnel_scenarios::{LoadEnv, Source, load};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad")
}

/// The scenarios of the folder, by name.
fn cases() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    names
}

/// What the author of a scenario gets to see.
fn shown(name: &str) -> String {
    let env = LoadEnv {
        working_dir: folder(),
        ..LoadEnv::default()
    };
    let report = match load(&Source::Path(name.into()), &[], &env) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    // Where the repository lies is no part of the message.
    let here = folder().display().to_string();
    report.render(false).replace(&here, "tests/bad")
}

#[test]
fn every_fault_is_explained_as_expected() {
    let names = cases();
    assert!(names.len() > 20, "the folder is gone");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for name in names {
        let text = shown(&name);
        assert!(!text.is_empty(), "{name} has no fault");
        let golden = folder().join(&name).with_extension("expected");
        if update {
            std::fs::write(&golden, &text).unwrap();
        } else if std::fs::read_to_string(&golden).ok().as_deref() != Some(text.as_str()) {
            different.push(format!("{name}:\n{text}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_error_has_a_place_unless_it_is_a_file() {
    for name in cases() {
        let env = LoadEnv {
            working_dir: folder(),
            ..LoadEnv::default()
        };
        let Err(report) = load(&Source::Path(name.clone().into()), &[], &env) else {
            continue;
        };
        for d in report.diagnostics() {
            let place = d.place.as_ref().unwrap_or_else(|| panic!("{name}: {d:?}"));
            assert!(place.line >= 1 && place.column >= 1 && place.width >= 1);
            assert!(!d.message.is_empty());
        }
    }
}

#[test]
fn colour_adds_nothing_but_escapes() {
    let env = LoadEnv {
        working_dir: folder(),
        ..LoadEnv::default()
    };
    let report = load(&Source::Path("unknown_policy.toml".into()), &[], &env).unwrap_err();
    let painted = report.render(true);
    assert!(painted.contains('\u{1b}'));
    let mut plain = String::new();
    let mut rest = painted.as_str();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, report.render(false));
}
