//! The file of a run's steps (`run --steps`): begun before the run, and there under its name only when
//! the run is whole.

use crate::args::TalkArgs;
use crate::common;
use crate::exit::Stop;
use anyhow::Context as _;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use windtunnel_benches::execute::RunPoint;
use windtunnel_ledger::export::steps::{AfterStep, StepFormat, StepRow, StepWriter};
use windtunnel_ledger::result::RunResult;
use windtunnel_sim::run::Step;

/// Where steps will go.
#[derive(Debug)]
pub(crate) struct StepFile {
    path: PathBuf,
    format: StepFormat,
}

/// Where steps go.
#[derive(Debug)]
pub(crate) struct OpenStepFile {
    path: PathBuf,
    partial: PathBuf,
    writer: StepWriter<BufWriter<File>>,
}

impl StepFile {
    /// Checks what was asked for; touches no file.
    pub(crate) fn plan(path: &Path, seeds: &[u64]) -> anyhow::Result<Self> {
        let refuse = |reason: String, remedy: &str| {
            let message = format!("error: --steps {}: {reason}; {remedy}", path.display());
            Err(Stop::usage(format!("{message}\nnothing was run")))
        };
        let Some(format) = StepFormat::of(path) else {
            let reason = "the name says no format".to_owned();
            return refuse(reason, "end it with .csv or .parquet");
        };
        if seeds.len() > 1 {
            let reason = format!(
                "one file holds the steps of one run, not of {}",
                seeds.len()
            );
            return refuse(reason, "choose one with --seed, without --seeds");
        }
        let path = path.to_owned();
        Ok(Self { path, format })
    }

    /// Begins the file.
    pub(crate) fn create(self) -> anyhow::Result<OpenStepFile> {
        let Self { path, format } = self;
        let mut partial = path.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        if path.is_dir() {
            return Err(cannot_write(&path, "it is a folder"));
        }
        let file = File::create(&partial).map_err(|error| cannot_write(&path, error))?;
        let writer = StepWriter::new(format, BufWriter::new(file));
        match writer {
            Ok(writer) => Ok(OpenStepFile {
                path,
                partial,
                writer,
            }),
            Err(error) => {
                let _ = std::fs::remove_file(&partial);
                Err(cannot_write(&path, error))
            }
        }
    }
}

fn cannot_write(path: &Path, why: impl std::fmt::Display) -> anyhow::Error {
    Stop::usage(format!(
        "error: --steps: cannot write {}: {why}; name a file in a folder that is there\nnothing was run",
        path.display()
    ))
}

impl OpenStepFile {
    /// Runs the point, in real time if it is to be live, and writes its steps.
    pub(crate) fn run(
        self,
        what: &str,
        point: &RunPoint,
        live: bool,
        talk: TalkArgs,
    ) -> anyhow::Result<Vec<RunResult>> {
        let Self {
            path,
            partial,
            mut writer,
        } = self;
        let written = common::run_one_by_steps(what, point, live, talk, &mut |step| {
            writer.push(row(step));
        })
        .and_then(|runs| {
            let at = || format!("cannot write {}", path.display());
            writer.finish().with_context(at)?;
            std::fs::rename(&partial, &path).with_context(at)?;
            Ok(runs)
        });
        written.inspect_err(|_| {
            let _ = std::fs::remove_file(&partial);
        })
    }
}

fn row(step: &Step) -> StepRow {
    let shape = &step.shape;
    StepRow {
        step: 0, // its writer counts
        replica: step.replica.0,
        start_ns: step.from.as_nanos(),
        end_ns: step.to.as_nanos(),
        prefill_requests: shape.prefill_seqs,
        prefill_tokens: shape.prefill_tokens,
        prefill_context: shape.prefill_context,
        decode_requests: shape.decode_seqs,
        decode_context: shape.decode_context,
        emitted_tokens: shape.sampled,
        swap_bytes: shape.swap_bytes,
        extrapolated: step.extrapolated,
        after: step.after.map(|after| AfterStep {
            running: after.running,
            waiting: after.waiting,
            kv_held_blocks: after.kv_held,
            kv_cached_blocks: after.kv_cached,
            kv_total_blocks: after.kv_total,
        }),
    }
}
