//! `export`: a result folder's requests in another format.

use crate::args::{ExportArgs, ExportFormat};
use crate::common::print;
use crate::exit::{Exit, Stop};
use crate::folder::Folder;
use anyhow::Context as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use windtunnel_base::quantity::Span;
use windtunnel_ledger::export::{csv, jsonl, parquet, perfetto};
use windtunnel_ledger::format::{FormatError, Provenance};
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::Scenario;

pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<Exit> {
    let window = window(args)?;
    let folder = Folder::read(&args.folder)?;
    let run = choose(&folder, args.seed)?;
    let hash = &folder.manifest.scenario_hash;
    let needs_rows = args.to != ExportFormat::Perfetto || !run.samples.is_empty();
    if needs_rows && run.rows.is_empty() {
        return Err(Stop::usage(
            "error: this folder has no request rows; run the scenario again without `--rows none`",
        ));
    }
    let provenance = provenance(run, hash);
    let file = match &args.output {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = Vec::new();
            match args.to {
                ExportFormat::Csv => csv::write(&run.rows, &provenance, &mut text)?,
                ExportFormat::Jsonl => jsonl::write(&run.rows, &provenance, &mut text)?,
                _ => {
                    return Err(Stop::usage(
                        "error: only csv and jsonl go to standard output; give a file with --output",
                    ));
                }
            }
            print(&String::from_utf8_lossy(&text))?;
            return Ok(Exit::Done);
        }
        Some(path) => path.clone(),
        None => args.folder.join(default_name(args.to)),
    };
    match args.to {
        ExportFormat::Csv => whole(&file, |to| csv::write(&run.rows, &provenance, to))?,
        ExportFormat::Jsonl => whole(&file, |to| jsonl::write(&run.rows, &provenance, to))?,
        ExportFormat::Parquet => whole(&file, |to| parquet::write(&run.rows, &provenance, to))?,
        ExportFormat::Perfetto => write_perfetto(run, &folder.loaded.scenario, window, &file)?,
    }
    print(&format!("wrote {}\n", file.display()))?;
    Ok(Exit::Done)
}

fn default_name(format: ExportFormat) -> PathBuf {
    PathBuf::from(match format {
        ExportFormat::Csv => "requests.csv",
        ExportFormat::Jsonl => "requests.jsonl",
        ExportFormat::Parquet => "requests.parquet",
        ExportFormat::Perfetto => "trace.perfetto-trace",
    })
}

fn choose(folder: &Folder, seed: Option<u64>) -> anyhow::Result<&RunResult> {
    let found = seed.map_or(folder.runs.first(), |seed| {
        folder.runs.iter().find(|r| r.seed == seed)
    });
    found.ok_or_else(|| {
        let known: Vec<_> = folder.manifest.seeds.iter().map(u64::to_string).collect();
        Stop::usage(format!(
            "error: no such seed in this folder\nknown: {}",
            known.join(", ")
        ))
    })
}

fn window(args: &ExportArgs) -> anyhow::Result<Option<(u64, u64)>> {
    let parse = |text: &Option<String>, default: u64| match text {
        None => Ok(default),
        Some(text) => text
            .parse::<Span>()
            .map(|s| s.0.as_nanos())
            .map_err(|e| Stop::usage(format!("error: {e}"))),
    };
    let (from, until) = (parse(&args.from, 0)?, parse(&args.until, u64::MAX)?);
    if from >= until {
        return Err(Stop::usage("error: `--until` must be later than `--from`"));
    }
    Ok((args.from.is_some() || args.until.is_some()).then_some((from, until)))
}

fn provenance(run: &RunResult, hash: &str) -> Provenance {
    Provenance {
        scenario_hash: hash.to_owned(),
        seed: run.seed,
        class_names: run.class_names.clone(),
        tenant_names: run.tenant_names.clone(),
    }
}

/// Writes a file whole or not at all.
fn whole(
    path: &Path,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), FormatError>,
) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    let file = std::fs::File::create(&partial)
        .with_context(|| format!("cannot write {}", partial.display()))?;
    let mut to = BufWriter::new(file);
    let written = fill(&mut to).and_then(|()| to.flush().map_err(FormatError::from));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&partial);
        return Err(error).with_context(|| format!("cannot write {}", path.display()));
    }
    std::fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the requests of a run as JSON lines.
pub(crate) fn write_rows_as_jsonl(run: &RunResult, hash: &str, path: &Path) -> anyhow::Result<()> {
    whole(path, |to| {
        jsonl::write(&run.rows, &provenance(run, hash), to)
    })
}

/// Writes a trace for ui.perfetto.dev.
pub(crate) fn write_perfetto(
    run: &RunResult,
    scenario: &Scenario,
    window: Option<(u64, u64)>,
    path: &Path,
) -> anyhow::Result<()> {
    let network = &scenario.fleet.network;
    let return_ns =
        network.client_to_gateway.0.as_nanos() + network.gateway_to_replica.0.as_nanos();
    whole(path, |to| {
        perfetto::write(run, &perfetto::Options { window, return_ns }, to)
    })
}
