//! Predictions against measured systems and other simulators' runs: folders of them are recognised
//! by their files, the recorded requests are played through the simulator's own components, and
//! what comes out is set beside what was measured.
//!
//! Three layouts are known, whatever the folders are called:
//!
//! - `vllm`: a measured engine. `vllm/requests.jsonl`, `vllm/meta.json`, `workload*.jsonl`,
//!   `model_config*.json` and operator tables in `profile/`; optionally `vllm/timeseries.csv`;
//! - `blis`: runs of BLIS. `config/coefficients.json`, `traces/`, `workloads/*.cmd.txt` and
//!   `results/`;
//! - `vidur`: runs of Vidur. `tables/` and `runs/NAME/` with `arrivals.csv`, `requests.csv` and
//!   `summary.json`; optionally `batches.csv`.
//!
//! Everything a run was made with is read from these files; no constant belongs to a system.

/// Reading, with errors that say where.
mod files;
/// The recorded requests, played again.
mod traffic;
/// One run through the simulator.
mod play;
/// A measured vLLM.
mod vllm;
/// Runs of BLIS.
mod blis;
/// Runs of Vidur.
mod vidur;
/// The reference engine in real time.
mod live;

pub use files::Unreadable;
pub use live::compare_live;

use rayon::prelude::*;
use std::path::{Path, PathBuf};
use windtunnel_reports::fidelity::{Fidelity, Run, System};

/// What to compare, and what to change.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Changes of the scenarios that the runs are played in, as `key=value`: what if the system had
    /// been another one.
    pub set: Vec<String>,
    /// Only runs whose `system/run` contains one of these; all if empty.
    pub only: Vec<String>,
    /// Largest relative error of each statistic of TTFT, TPOT and E2E on a measured engine;
    /// [`TOLERANCE`] if absent. Runs of other simulators are compared to the last digit.
    pub tolerance: Option<f64>,
}

/// Largest relative error of each statistic on a measured engine, unless another is asked for.
pub const TOLERANCE: f64 = 0.02;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FidelityError {
    /// A file or folder cannot be used.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The scenario that a run is played in is refused.
    #[error("{run}: {findings}")]
    Scenario {
        /// Which run.
        run: String,
        /// What is wrong, and what to do.
        findings: String,
    },
    /// No run has such a name.
    #[error("no run is called `{name}`\n  there are {known}")]
    NoSuchRun {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A law of the simulation was broken: a bug.
    #[error("{run}: {violation}")]
    Law {
        /// In which run.
        run: String,
        /// What happened.
        violation: String,
    },
}

/// What a run was made with, or why it cannot be played.
type Playable<T> = Result<T, String>;

/// A run that can be compared, found in a folder.
trait Subject: Send + Sync {
    /// Its name within its system.
    fn name(&self) -> String;

    /// Plays it and compares.
    fn compare(&self, options: &Options) -> Result<Run, FidelityError>;
}

/// A system, found in a folder.
struct Found {
    name: String,
    layout: &'static str,
    subjects: Vec<Box<dyn Subject>>,
}

/// Compares every run of every system in `dir`, which is the folder of one system or a folder of such
/// folders. Runs are played on the current rayon pool; the result does not depend on its size.
/// `done` is told of each run that ended.
///
/// # Errors
/// If a file cannot be read, a scenario is refused, or a law is broken.
pub fn compare(
    dir: &Path,
    options: &Options,
    done: &(dyn Fn() + Sync),
) -> Result<Fidelity, FidelityError> {
    let mut found = find(dir)?;
    select(&mut found, &options.only)?;
    let subjects: Vec<&dyn Subject> = found
        .iter()
        .flat_map(|system| system.subjects.iter().map(AsRef::as_ref))
        .collect();
    let runs: Result<Vec<Run>, FidelityError> = subjects
        .into_par_iter()
        .with_max_len(1)
        .map(|subject| {
            let run = subject.compare(options);
            done();
            run
        })
        .collect();
    let mut runs = runs?.into_iter();
    let systems = found.iter().map(|system| System {
        name: system.name.clone(),
        layout: system.layout,
        runs: runs.by_ref().take(system.subjects.len()).collect(),
    });
    Ok(Fidelity::of(systems.collect()))
}

/// How many runs there are to compare in a folder.
///
/// # Errors
/// If it cannot be read.
pub fn count(dir: &Path, options: &Options) -> Result<usize, FidelityError> {
    let mut found = find(dir)?;
    select(&mut found, &options.only)?;
    Ok(found.iter().map(|system| system.subjects.len()).sum())
}

/// Keeps the runs that were asked for.
fn select(found: &mut Vec<Found>, only: &[String]) -> Result<(), FidelityError> {
    let full = |system: &str, subject: &dyn Subject| format!("{system}/{}", subject.name());
    let all: Vec<String> = found
        .iter()
        .flat_map(|s| s.subjects.iter().map(|r| full(&s.name, r.as_ref())))
        .collect();
    if let Some(name) = only
        .iter()
        .find(|name| !all.iter().any(|a| a.contains(*name)))
    {
        return Err(FidelityError::NoSuchRun {
            name: name.clone(),
            known: all.join(", "),
        });
    }
    for system in found.iter_mut() {
        let name = system.name.clone();
        system.subjects.retain(|subject| {
            let full = full(&name, subject.as_ref());
            only.is_empty() || only.iter().any(|wanted| full.contains(wanted))
        });
    }
    found.retain(|system| !system.subjects.is_empty());
    Ok(())
}

/// The systems of a folder: itself, or those in it.
fn find(dir: &Path) -> Result<Vec<Found>, Unreadable> {
    if !dir.is_dir() {
        return Err(Unreadable::file(
            dir,
            "there is no such folder",
            "give the folder of a measured system, or one of such folders",
        ));
    }
    if let Some(system) = recognise(dir)? {
        return Ok(vec![system]);
    }
    let mut found = Vec::new();
    for path in files::entries(dir)?.iter().filter(|p| p.is_dir()) {
        found.extend(recognise(path)?);
    }
    if found.is_empty() {
        return Err(Unreadable::file(
            dir,
            "neither this folder nor one in it is a measured system",
            "known are those with vllm/requests.jsonl and profile/ (a measured vLLM), with \
             config/coefficients.json and results/ (BLIS), with tables/ and runs/ (Vidur)",
        ));
    }
    Ok(found)
}

/// What a folder is, by its files.
fn recognise(dir: &Path) -> Result<Option<Found>, Unreadable> {
    let has = |path: &str| files::find(dir, path).is_some() || dir.join(path).is_dir();
    let (layout, subjects) = if has("vllm/requests.jsonl") || (has("vllm") && has("profile")) {
        ("vllm", vllm::find(dir)?)
    } else if has("config/coefficients.json") || (has("workloads") && has("results")) {
        ("blis", blis::find(dir)?)
    } else if has("tables") && has("runs") {
        ("vidur", vidur::find(dir)?)
    } else {
        return Ok(None);
    };
    Ok(Some(Found {
        name: system_name(dir),
        layout,
        subjects,
    }))
}

/// The folder's name, also of `.` and the like.
fn system_name(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| PathBuf::from(dir));
    files::name(&whole)
}
