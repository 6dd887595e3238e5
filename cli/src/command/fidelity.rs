//! `validate --fidelity`: recorded runs of real engines and other simulators, played again.

use crate::args::{Format, LoadArgs, ValidateArgs};
use crate::common::{create_dir, print, ready, say, write};
use crate::exit::{Exit, Stop};
use crate::folder::command_line;
use crate::progress::Progress;
use std::path::Path;
use std::sync::Arc;
use windtunnel_benches::execute::on_threads;
use windtunnel_benches::fidelity::{self, FidelityError, Options, compare_live};
use windtunnel_reports::fidelity::Fidelity;
use windtunnel_reports::render::fidelity as render;
use windtunnel_reports::threshold::Verdict;

/// Compares what is in `dir`; positional arguments choose runs by parts of their names.
pub(crate) fn fidelity(dir: &Path, args: &ValidateArgs) -> anyhow::Result<Exit> {
    let options = Options {
        set: args.set.clone(),
        only: args.cases.clone(),
        tolerance: args.tolerance,
    };
    let total = fidelity::count(dir, &options).map_err(stop)?;
    let quiet = args.talk.quiet || args.talk.no_progress;
    let progress = Progress::new("fidelity", total as u64, quiet);
    let jobs = args.seeds.jobs.map(|n| n as usize);
    let compared = on_threads(jobs, || {
        fidelity::compare(dir, &options, &|| progress.add(1))
    });
    progress.finish();
    show(&compared.map_err(stop)?, args)
}

/// Runs a scenario in real time and compares it with its simulation.
pub(crate) fn live(args: &ValidateArgs) -> anyhow::Result<Exit> {
    if args.tolerance.is_some() {
        return Err(Stop::usage(
            "error: `--tolerance` is for recorded runs; a live run is held to 5 % at p50 and for throughput, 10 % at p99",
        ));
    }
    let scenario = match args.cases.as_slice() {
        [] => "reference-live",
        [one] => one,
        _ => {
            return Err(Stop::usage(
                "error: `--fidelity live` takes one scenario, such as `windtunnel validate --fidelity live reference-live`",
            ));
        }
    };
    let mut set = vec![r#"fleet.engine.kind="reference""#.to_owned()];
    set.extend(args.set.iter().cloned());
    let load = LoadArgs {
        set,
        ..LoadArgs::default()
    };
    let ready = ready(scenario, &load, &[], args.talk)?;
    let quiet = args.talk.quiet || args.talk.no_progress;
    let expected = ready.traffic.facts().requests.map_or(0, |n| 3 * n);
    let progress = Progress::new("live", expected, quiet);
    let world = Arc::new(ready.loaded.scenario.clone());
    let seed = world.run.seed;
    let compared = compare_live(&ready.loaded.name, &world, &ready.traffic, seed, &|n| {
        progress.add(n);
    });
    progress.finish();
    show(&compared.map_err(stop)?, args)
}

/// Prints and writes what was compared; its verdict is the exit code.
fn show(compared: &Fidelity, args: &ValidateArgs) -> anyhow::Result<Exit> {
    if let Some(out) = &args.out {
        save(out, compared)?;
        if !args.talk.quiet {
            say(format!("written to {}", out.display()));
        }
    }
    match args.format {
        Format::Json => print(&render::json(compared)?)?,
        Format::Csv => print(&render::csv(compared))?,
        Format::Table | Format::Markdown => print(&render::table(compared))?,
    }
    Ok(match compared.verdict {
        Verdict::Pass => Exit::Done,
        Verdict::Fail => Exit::Failed,
        Verdict::Undecided => Exit::Undecided,
    })
}

fn stop(error: FidelityError) -> anyhow::Error {
    match error {
        FidelityError::Law { .. } => Stop::law(format!(
            "error: a law of the simulation was broken; this is a bug of windtunnel, not of your files\n  {error}"
        )),
        error => Stop::usage(format!("error: {error}\nnothing was compared")),
    }
}

/// Writes document, page, plots and values request by request.
fn save(out: &Path, compared: &Fidelity) -> anyhow::Result<()> {
    create_dir(&out.join("plots"))?;
    create_dir(&out.join("requests"))?;
    for system in &compared.systems {
        for run in &system.runs {
            let name = file_name(&format!("{}-{}", system.name, run.name));
            for plot in render::plots(run)? {
                let file = out.join("plots").join(format!("{name}-{}.svg", plot.name));
                write(&file, plot.svg.as_bytes())?;
            }
            if !run.pairs.is_empty() {
                let file = out.join("requests").join(format!("{name}.csv"));
                write(&file, render::requests_csv(run).as_bytes())?;
            }
        }
    }
    let page = render::html(compared, &command_line())?;
    write(&out.join("report.html"), page.as_bytes())?;
    write(&out.join("figures.csv"), render::csv(compared).as_bytes())?;
    write(
        &out.join("fidelity.json"),
        render::json(compared)?.as_bytes(),
    )
}

/// A name that any file system takes.
fn file_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    name.chars().map(plain).collect()
}
