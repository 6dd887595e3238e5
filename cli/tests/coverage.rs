//! COVERAGE.md is generated from coverage.toml, and what it names exists.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Coverage {
    row: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: String,
    source: String,
    group: String,
    mechanism: String,
    r#where: Vec<String>,
    #[serde(default)]
    note: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rows() -> Vec<Row> {
    let text =
        std::fs::read_to_string(root().join("coverage.toml")).expect("coverage.toml is there");
    toml::from_str::<Coverage>(&text)
        .expect("coverage.toml is valid")
        .row
}

fn render(rows: &[Row]) -> String {
    let works = rows.iter().filter(|r| !r.r#where.is_empty()).count();
    let mut out = format!(
        "# Coverage\n\nGenerated from `coverage.toml`; a test checks that what it names exists. {works} of {} rows of the \
         specification of behaviour work somewhere: in a library scenario, a case of `windtunnel validate`, or a test. \
         \"Not yet\" means just that.\n",
        rows.len()
    );
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = &row.group;
            let _ = write!(
                out,
                "\n## {group}\n\n| row | source | mechanism, metric or claim | where it works |\n| --- | --- | --- | --- |\n"
            );
        }
        let place = if row.r#where.is_empty() {
            "not yet".to_owned()
        } else {
            row.r#where
                .iter()
                .map(|w| format!("`{w}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let note = if row.note.is_empty() {
            String::new()
        } else {
            format!("; {}", row.note)
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {place}{note} |",
            row.id,
            row.source,
            row.mechanism.replace('|', "\\|")
        );
    }
    out
}

#[test]
fn the_table_is_generated_from_the_data() {
    let path = root().join("COVERAGE.md");
    let text = render(&rows());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).expect("COVERAGE.md can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "COVERAGE.md is out of date: run `UPDATE_GOLDEN=1 cargo test -p windtunnel --test coverage`"
    );
}

#[test]
fn every_row_is_there_once() {
    let ids: Vec<String> = rows().into_iter().map(|r| r.id).collect();
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), unique.len()), (215, 215));
}

#[test]
fn what_is_named_exists() {
    let scenarios: BTreeSet<String> = windtunnel_scenarios::library::list()
        .iter()
        .map(|s| s.name.to_string())
        .collect();
    let cases: BTreeSet<String> = windtunnel_benches::catalogue::cases()
        .iter()
        .map(|c| c.id.to_owned())
        .collect();
    let mut wrong = Vec::new();
    for row in rows() {
        for place in &row.r#where {
            let ok = match place.split_once(':') {
                Some(("scenario", name)) => scenarios.contains(name),
                Some(("case", id)) => cases.contains(id),
                Some(("test", rest)) => rest.split_once("::").is_some_and(|(file, function)| {
                    std::fs::read_to_string(root().join(file))
                        .is_ok_and(|text| text.contains(&format!("fn {function}(")))
                }),
                _ => false,
            };
            if !ok {
                wrong.push(format!("{}: {place}", row.id));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "named but not there:\n{}",
        wrong.join("\n")
    );
}
