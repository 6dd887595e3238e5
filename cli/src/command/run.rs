//! `run`: one scenario, some seeds, a table and a folder.

use crate::args::{Format, RowsFormat, RunArgs};
use crate::common::{self, Ready, print, ready};
use crate::exit::Exit;
use crate::folder::{self, Manifest, Results};
use crate::steps::StepFile;
use std::fmt::Write as _;
use std::path::Path;
use windtunnel_ledger::result::RunResult;
use windtunnel_reports::render::{json, markdown, points, table};
use windtunnel_reports::steady;
use windtunnel_reports::summary::Summary;

/// On which clock a scenario runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RunClock {
    /// As fast as it goes.
    Simulated,
    /// In real time, on an engine that computes.
    Wall,
}

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    run_on(args, RunClock::Simulated)
}

pub(crate) fn live(args: &RunArgs) -> anyhow::Result<Exit> {
    let mut args = args.clone();
    // What the user sets comes later, and wins.
    let computes = r#"fleet.engine.kind="reference""#;
    args.load.set.insert(0, computes.to_owned());
    run_on(&args, RunClock::Wall)
}

fn run_on(args: &RunArgs, clock: RunClock) -> anyhow::Result<Exit> {
    let ready = ready(&args.scenario, &args.load, &[], args.talk)?;
    let scenario = &ready.loaded.scenario;
    let seeds = common::seeds(&args.seeds, scenario.run.seed)?;
    let steps = args
        .steps
        .as_deref()
        .map(|path| StepFile::plan(path, &seeds));
    let steps = steps.transpose()?;
    let mut dir = folder::path(&args.out, &ready.loaded);
    if clock == RunClock::Wall {
        // Beside the folder of `run`, of the same scenario: neither is to overwrite the other.
        dir.as_mut_os_string().push("-live");
    }
    if args.dry_run {
        print(&preview(&ready, &seeds, &dir))?;
        return Ok(Exit::Done);
    }
    let rows = scenario.run.rows && args.rows != RowsFormat::None;
    let laws = scenario.run.laws && !args.no_laws;
    // A folder or a file that cannot be written shows now, not after hours of simulation.
    common::create_dir(&dir)?;
    let points = common::points(&ready, &seeds, rows, laws);
    let live = clock == RunClock::Wall;
    let done = match (steps.map(StepFile::create).transpose(), &points[..]) {
        (Err(error), _) => Err(error),
        (Ok(Some(file)), [point]) => file.run(&args.scenario, point, live, args.talk),
        (Ok(_), _) if live => common::run_points_live(&args.scenario, &points, args.talk),
        (Ok(_), _) => common::run_points(&args.scenario, &points, args.seeds.jobs, args.talk),
    };
    let mut runs = done.inspect_err(|_| {
        // Goes only if it is empty: results of an earlier run stay.
        let _ = std::fs::remove_dir(&dir);
        let _ = std::fs::remove_dir(&args.out);
    })?;
    for run in &mut runs {
        let window = steady::assess(run).window;
        window.mark(&mut run.rows);
    }
    let summary = Summary::from_runs(
        scenario,
        &ready.loaded.name,
        &ready.loaded.content_hash,
        &runs,
    );
    let results = Results {
        loaded: &ready.loaded,
        summary: &summary,
        runs: &runs,
        manifest: manifest(&ready, &runs),
    };
    folder::write_all(&dir, &results, args.rows)?;
    if args.perfetto {
        for run in &runs {
            let file = dir.join(format!("runs/seed-{}/trace.perfetto-trace", run.seed));
            super::export::write_perfetto(run, scenario, None, &file)?;
        }
    }
    show(args, &summary, &dir)?;
    Ok(verdict(&summary, args.exit_zero))
}

/// What is known of how a run came about.
fn manifest(ready: &Ready, runs: &[RunResult]) -> Manifest {
    let facts = ready.traffic.facts();
    Manifest {
        schema_version: 1,
        program: format!("windtunnel {}", env!("CARGO_PKG_VERSION")),
        platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        generator: windtunnel_base::rng::GENERATOR.to_owned(),
        scenario: ready.loaded.name.clone(),
        scenario_hash: ready.loaded.content_hash.clone(),
        seeds: runs.iter().map(|r| r.seed).collect(),
        digests: runs.iter().map(|r| r.digest.clone()).collect(),
        inputs: facts.files.clone(),
        transformations: facts.transformations.clone(),
        notes: facts.notes.clone(),
        command: folder::command_line(),
    }
}

fn preview(ready: &Ready, seeds: &[u64], dir: &Path) -> String {
    let facts = ready.traffic.facts();
    let mut out = ready.loaded.name.clone();
    let purpose = &ready.loaded.scenario.purpose;
    if !purpose.is_empty() {
        let _ = write!(out, " · {purpose}");
    }
    out.push('\n');
    let expected = facts
        .requests
        .map_or("an unknown number of".to_owned(), |n| n.to_string());
    let _ = writeln!(
        out,
        "{}, {expected} requests each",
        match seeds {
            [seed] => format!("seed {seed}"),
            _ => format!(
                "{} seeds from {}",
                seeds.len(),
                seeds.first().copied().unwrap_or(0)
            ),
        }
    );
    for file in &facts.files {
        let _ = writeln!(
            out,
            "reads {} ({} rows, {} bytes, xxh3 {})",
            file.file, file.rows, file.bytes, file.xxh3
        );
    }
    for line in facts.transformations.iter().chain(&facts.notes) {
        let _ = writeln!(out, "  {line}");
    }
    let _ = writeln!(out, "would write {}\nnothing was run", dir.display());
    out
}

fn show(args: &RunArgs, summary: &Summary, dir: &Path) -> anyhow::Result<()> {
    match args.format {
        Format::Table => {
            print(&table::render(summary))?;
            if !args.talk.quiet {
                common::say(format!("written to {}", dir.display()));
            }
        }
        Format::Json => print(&json::render(summary)?)?,
        Format::Csv => print(&points::render(&[summary]))?,
        Format::Markdown => print(&markdown::render(summary))?,
    }
    Ok(())
}

/// 3 if a condition failed, 4 if one is undecided.
pub(crate) fn verdict(summary: &Summary, exit_zero: bool) -> Exit {
    match (summary.ci.failed, summary.ci.undecided) {
        _ if exit_zero => Exit::Done,
        (0, 0) => Exit::Done,
        (0, _) => Exit::Undecided,
        _ => Exit::Failed,
    }
}
