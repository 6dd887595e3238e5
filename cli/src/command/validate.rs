//! `validate`: cases with a known answer through the simulator's own components.

use crate::args::{Format, ValidateArgs};
use crate::common::print;
use crate::exit::{Exit, Stop};
use crate::progress::Progress;
use serde_json::json;
use std::fmt::Write as _;
use windtunnel_benches::catalogue::{self, Case, CaseError, Outcome, Selection};
use windtunnel_benches::execute::on_threads;

pub(crate) fn validate(args: &ValidateArgs) -> anyhow::Result<Exit> {
    if let Some(dir) = &args.fidelity {
        if dir.as_os_str() == "live" && !dir.is_dir() {
            return super::fidelity::live(args);
        }
        return super::fidelity::fidelity(dir, args);
    }
    let cases = select(&args.cases)?;
    if args.list {
        print(&list(&cases))?;
        return Ok(Exit::Done);
    }
    let selection = selection(args, &cases)?;
    let total = catalogue::points(&cases, &selection) as u64;
    let progress = Progress::new("validate", total, args.talk.quiet || args.talk.no_progress);
    let traces = args.traces.as_deref();
    let jobs = args.seeds.jobs.map(|n| n as usize);
    let outcomes = on_threads(jobs, || {
        catalogue::run(&cases, &selection, traces, &|| progress.add(1))
    });
    progress.finish();
    let outcomes = outcomes.map_err(usage)?;
    match args.format {
        Format::Json => print(&to_json(&outcomes)?)?,
        Format::Csv => print(&to_csv(&outcomes))?,
        Format::Table | Format::Markdown => print(&to_table(&outcomes))?,
    }
    verdict(&outcomes)
}

fn usage(error: CaseError) -> anyhow::Error {
    Stop::usage(format!(
        "error: {error}\nnothing was run; `windtunnel validate --list` shows cases and parameters"
    ))
}

/// What cases of one kind have in common: `V-E` of `V-E3` and `V-E3d`.
fn family(id: &str) -> &str {
    let id = id.trim_end_matches(|c: char| c.is_ascii_lowercase());
    id.trim_end_matches(char::is_numeric)
}

/// Cases by id or family; an unknown name is refused.
fn select(names: &[String]) -> anyhow::Result<Vec<Case>> {
    let all = catalogue::cases();
    if names.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for name in names {
        let of_family = |c: &&Case| {
            [c.id, family(c.id)]
                .iter()
                .any(|id| id.eq_ignore_ascii_case(name))
        };
        let found: Vec<_> = all.iter().filter(of_family).copied().collect();
        if found.is_empty() {
            let families: std::collections::BTreeSet<_> =
                all.iter().map(|c| family(c.id)).collect();
            let known = families.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Stop::usage(format!(
                "error: no case `{name}`\nknown families: {known}; `windtunnel validate --list` shows all cases"
            )));
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

fn selection(args: &ValidateArgs, cases: &[Case]) -> anyhow::Result<Selection> {
    let mut set = Vec::new();
    for text in &args.set {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Stop::usage(format!(
                "error: `--set {text}` has no `=`; write it like `--set rho=0.7`"
            )));
        };
        set.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if !set.is_empty() && cases.len() != 1 {
        return Err(Stop::usage(
            "error: `--set` needs exactly one case, such as `windtunnel validate V-B3 --set rho=0.7`",
        ));
    }
    if !(args.effort > 0.0 && args.effort <= 1_000.0) {
        return Err(Stop::usage("error: `--effort` must lie between 0 and 1000"));
    }
    Ok(Selection {
        set,
        seed: args.seeds.seed.unwrap_or(1),
        effort: args.effort,
    })
}

/// 0 if everything holds, 3 if a check fails, 4 if nothing failed but a case could not run.
fn verdict(outcomes: &[Outcome]) -> anyhow::Result<Exit> {
    for outcome in outcomes {
        if let Err(CaseError::Parameter { .. }) = &outcome.checks {
            return Ok(Exit::Usage);
        }
    }
    if outcomes.iter().any(|o| {
        o.checks
            .as_ref()
            .is_ok_and(|c| c.iter().any(|c| !c.holds()))
    }) {
        return Ok(Exit::Failed);
    }
    if outcomes
        .iter()
        .any(|o| matches!(o.checks, Err(CaseError::Run(_))))
    {
        return Ok(Exit::Failed);
    }
    let ran = outcomes.iter().any(|o| o.checks.is_ok());
    Ok(if ran { Exit::Done } else { Exit::Undecided })
}

fn list(cases: &[Case]) -> String {
    let mut out = String::new();
    for case in cases {
        let _ = writeln!(out, "{:<6} {}", case.id, case.title);
        for p in case.params {
            let _ = writeln!(out, "       --set {}={:<14} {}", p.name, p.default, p.doc);
        }
    }
    out
}

/// Six significant digits: enough for every tolerance in use.
fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let digits = (5 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.digits$}")
}

fn to_table(outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    let mut last = "";
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for outcome in outcomes {
        if outcome.id != last {
            let _ = writeln!(out, "\n{}  {}", outcome.id, outcome.title);
            last = outcome.id;
        }
        let setting = if outcome.setting.is_empty() {
            String::new()
        } else {
            format!(" ({})", outcome.setting)
        };
        match &outcome.checks {
            Err(error) => {
                let word = if matches!(error, CaseError::NeedsFiles(_)) {
                    "skipped"
                } else {
                    "ERROR"
                };
                skipped += usize::from(word == "skipped");
                failed += usize::from(word == "ERROR");
                let _ = writeln!(out, "  {word}{setting}: {error}");
            }
            Ok(checks) => {
                if !setting.is_empty() {
                    let _ = writeln!(out, " {setting}");
                }
                for c in checks {
                    let verdict = if c.holds() { "pass" } else { "FAIL" };
                    passed += usize::from(c.holds());
                    failed += usize::from(!c.holds());
                    let _ = writeln!(
                        out,
                        "  {:<56} {:>12} {:>12}  ± {:<10} {:<28} {verdict}",
                        c.name,
                        number(c.expected),
                        number(c.measured),
                        number(c.tolerance),
                        c.basis
                    );
                }
            }
        }
    }
    let heading = format!(
        "{:<58} {:>12} {:>12}  {:<12} {:<28} verdict\n",
        "check", "expected", "measured", "tolerance", "basis"
    );
    let _ = writeln!(
        out,
        "\n{passed} checks passed, {failed} failed, {skipped} points skipped for want of files."
    );
    heading + &out
}

fn to_csv(outcomes: &[Outcome]) -> String {
    let mut out = "case,setting,check,expected,measured,tolerance,basis,verdict\n".to_owned();
    for o in outcomes {
        match &o.checks {
            Ok(checks) => {
                for c in checks {
                    let verdict = if c.holds() { "pass" } else { "fail" };
                    let _ = writeln!(
                        out,
                        "{},\"{}\",\"{}\",{},{},{},{},{verdict}",
                        o.id, o.setting, c.name, c.expected, c.measured, c.tolerance, c.basis
                    );
                }
            }
            Err(error) => {
                let _ = writeln!(out, "{},\"{}\",\"{error}\",,,,,not run", o.id, o.setting);
            }
        }
    }
    out
}

fn to_json(outcomes: &[Outcome]) -> anyhow::Result<String> {
    let rows: Vec<_> = outcomes
        .iter()
        .map(|o| match &o.checks {
            Ok(checks) => {
                let checks: Vec<_> = checks
                    .iter()
                    .map(|c| {
                        json!({ "name": c.name, "expected": c.expected, "measured": c.measured, "tolerance": c.tolerance,
                                "basis": c.basis, "verdict": if c.holds() { "pass" } else { "fail" } })
                    })
                    .collect();
                json!({ "case": o.id, "title": o.title, "setting": o.setting, "checks": checks })
            }
            Err(error) => json!({ "case": o.id, "title": o.title, "setting": o.setting, "reason": error.to_string() }),
        })
        .collect();
    Ok(serde_json::to_string_pretty(&json!({ "schema_version": 1, "cases": rows }))? + "\n")
}
