//! `validate --fidelity`: recorded runs of real engines and other simulators, played again.

use crate::args::{Format, ValidateArgs};
use crate::common::{create_dir, print, say, write};
use crate::exit::{Exit, Stop};
use crate::folder::command_line;
use crate::progress::Progress;
use std::path::Path;
use windtunnel_benches::execute::on_threads;
use windtunnel_benches::fidelity::{self, FidelityError, Options};
use windtunnel_reports::fidelity::Fidelity;
use windtunnel_reports::render::fidelity as render;
use windtunnel_reports::threshold::Verdict;

/// Compares what is in `dir`; positional arguments choose runs by parts of their names.
pub(crate) fn fidelity(dir: &Path, args: &ValidateArgs) -> anyhow::Result<Exit> {
    let options = Options {
        set: args.set.clone(),
        only: args.cases.clone(),
    };
    let total = fidelity::count(dir, &options).map_err(stop)?;
    let quiet = args.talk.quiet || args.talk.no_progress;
    let progress = Progress::new("fidelity", total as u64, quiet);
    let jobs = args.seeds.jobs.map(|n| n as usize);
    let compared = on_threads(jobs, || {
        fidelity::compare(dir, &options, &|| progress.add(1))
    });
    progress.finish();
    let compared = compared.map_err(stop)?;
    if let Some(out) = &args.out {
        save(out, &compared)?;
        if !args.talk.quiet {
            say(format!("written to {}", out.display()));
        }
    }
    match args.format {
        Format::Json => print(&render::json(&compared)?)?,
        Format::Csv => print(&render::csv(&compared))?,
        Format::Table | Format::Markdown => print(&render::table(&compared))?,
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
