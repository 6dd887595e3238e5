//! The result folder: what `run` writes and the reading verbs read.
//!
//! ```text
//! out/chat-burst-3f9a12cd/
//!   manifest.json  scenario.toml  summary.json  points.csv  report.html  plots/*.svg
//!   runs/seed-1/   result.json  requests.parquet  samples.csv  trace.perfetto-trace
//! ```

use crate::args::RowsFormat;
use crate::common::{create_dir, write};
use crate::exit::Stop;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::store::{self, RowFormat};
use windtunnel_reports::render::{html, json, plots, points};
use windtunnel_reports::summary::Summary;
use windtunnel_scenarios::workload::FileFact;
use windtunnel_scenarios::{LoadEnv, Loaded, Source, load};

/// What it takes to repeat a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of this file's format.
    pub(crate) schema_version: u32,
    /// Program and version.
    pub(crate) program: String,
    /// Operating system and processor family.
    pub(crate) platform: String,
    /// Name of the random generator.
    pub(crate) generator: String,
    /// The scenario's name.
    pub(crate) scenario: String,
    /// Hash of the scenario with all defaults.
    pub(crate) scenario_hash: String,
    /// The seeds.
    pub(crate) seeds: Vec<u64>,
    /// Digest of each seed's run.
    pub(crate) digests: Vec<String>,
    /// Trace files, with sizes and checksums.
    pub(crate) inputs: Vec<FileFact>,
    /// What was done to a trace before it was played.
    pub(crate) transformations: Vec<String>,
    /// What was assumed.
    pub(crate) notes: Vec<String>,
    /// The command line.
    pub(crate) command: String,
}

/// Everything a folder needs.
pub(crate) struct Results<'a> {
    pub(crate) loaded: &'a Loaded,
    pub(crate) summary: &'a Summary,
    pub(crate) runs: &'a [RunResult],
    pub(crate) manifest: Manifest,
}

/// The folder of a scenario under `out`: its name and a short hash, never a time.
pub(crate) fn path(out: &Path, loaded: &Loaded) -> PathBuf {
    let name: String = loaded
        .name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    out.join(format!("{name}-{}", &loaded.content_hash[..8]))
}

/// Writes everything; `summary.json` last, so that a folder that has it is whole.
pub(crate) fn write_all(dir: &Path, results: &Results<'_>, rows: RowsFormat) -> anyhow::Result<()> {
    create_dir(dir)?;
    let _ = std::fs::remove_file(dir.join("summary.json"));
    let runs_dir = dir.join("runs");
    if runs_dir.exists() {
        std::fs::remove_dir_all(&runs_dir)
            .with_context(|| format!("cannot clear {}", runs_dir.display()))?;
    }
    let hash = &results.loaded.content_hash;
    let format = match rows {
        RowsFormat::Csv => RowFormat::Csv,
        RowsFormat::Jsonl | RowsFormat::Parquet | RowsFormat::None => RowFormat::Parquet,
    };
    for run in results.runs {
        let seed_dir = runs_dir.join(format!("seed-{}", run.seed));
        store::write(&seed_dir, run, hash, format)?;
        if rows == RowsFormat::Jsonl {
            crate::command::export::write_rows_as_jsonl(
                run,
                hash,
                &seed_dir.join("requests.jsonl"),
            )?;
        }
    }
    write(
        &dir.join("scenario.toml"),
        results.loaded.resolved_toml.as_bytes(),
    )?;
    write(
        &dir.join("manifest.json"),
        (serde_json::to_string_pretty(&results.manifest)? + "\n").as_bytes(),
    )?;
    write(
        &dir.join("points.csv"),
        points::render(&[results.summary]).as_bytes(),
    )?;
    write_documents(
        dir,
        results.summary,
        results.runs,
        &results.loaded.resolved_toml,
        &results.manifest.command,
    )
}

/// Writes what is made from results: report, plots, summary.
pub(crate) fn write_documents(
    dir: &Path,
    summary: &Summary,
    runs: &[RunResult],
    scenario_toml: &str,
    command: &str,
) -> anyhow::Result<()> {
    create_dir(&dir.join("plots"))?;
    for plot in plots::all(summary, runs)? {
        write(
            &dir.join("plots").join(format!("{}.svg", plot.name)),
            plot.svg.as_bytes(),
        )?;
    }
    let page = html::render(&html::Report {
        summary,
        runs,
        scenario_toml,
        command,
    })?;
    write(&dir.join("report.html"), page.as_bytes())?;
    write(&dir.join("summary.json"), json::render(summary)?.as_bytes())
}

/// A folder, read back.
pub(crate) struct Folder {
    pub(crate) manifest: Manifest,
    pub(crate) loaded: Loaded,
    pub(crate) runs: Vec<RunResult>,
}

impl Folder {
    /// Reads a result folder.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        if !dir.join("summary.json").is_file() {
            return Err(Stop::usage(format!(
                "error: {} is no result folder: there is no summary.json in it\nwrite one with `windtunnel run SCENARIO`",
                dir.display()
            )));
        }
        let text = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))
        };
        let manifest: Manifest = serde_json::from_str(&text("manifest.json")?)
            .map_err(|e| Stop::usage(format!("error: {}/manifest.json: {e}", dir.display())))?;
        let source = Source::Text {
            name: "scenario.toml".into(),
            text: text("scenario.toml")?,
            dir: None,
        };
        let loaded =
            load(&source, &[], &LoadEnv::default()).map_err(|r| Stop::usage(r.render(false)))?;
        let mut runs = Vec::new();
        for seed in &manifest.seeds {
            let (run, _) = store::read(&dir.join("runs").join(format!("seed-{seed}")))
                .map_err(|e| Stop::usage(format!("error: {}: {e}", dir.display())))?;
            runs.push(run);
        }
        Ok(Self {
            manifest,
            loaded,
            runs,
        })
    }

    /// The summary, made anew from the runs.
    pub(crate) fn summary(&self) -> Summary {
        Summary::from_runs(
            &self.loaded.scenario,
            &self.manifest.scenario,
            &self.manifest.scenario_hash,
            &self.runs,
        )
    }
}

/// The command line as it could be typed again.
pub(crate) fn command_line() -> String {
    let quote = |arg: String| {
        let plain = !arg.is_empty()
            && arg
                .chars()
                .all(|c| c.is_alphanumeric() || "-_./=:,+@%".contains(c));
        if plain {
            arg
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    };
    std::iter::once("windtunnel".to_owned())
        .chain(std::env::args().skip(1).map(quote))
        .collect::<Vec<_>>()
        .join(" ")
}
