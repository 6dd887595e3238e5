//! What verbs share: loading scenarios, reading their traffic, running points, printing.

use crate::args::{Color, LoadArgs, SeedArgs, TalkArgs};
use crate::exit::{Exit, Stop};
use crate::progress::Progress;
use anyhow::Context as _;
use std::io::{ErrorKind, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use windtunnel_benches::execute::{RunPoint, execute, run_live, run_point_by_steps};
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::workload::{self, Traffic};
use windtunnel_scenarios::{LoadEnv, Loaded, Override, Source, load};
use windtunnel_sim::run::{RunError, Step};

/// Prints the result, and nothing else, on stdout. Whoever closes the pipe has read enough; the verb
/// goes on, so that its exit code does not depend on it.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Says something beside the result, on stderr. That nobody listens is no reason to stop, and
/// `eprintln!` would panic.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Whether text for this stream is coloured.
pub(crate) fn colored(choice: Color, stream_is_terminal: bool) -> bool {
    match choice {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => stream_is_terminal && std::env::var_os("NO_COLOR").is_none(),
    }
}

/// A scenario, ready to run.
pub(crate) struct Ready {
    /// The checked scenario and where its parts came from.
    pub(crate) loaded: Loaded,
    /// Its traffic; trace files are read.
    pub(crate) traffic: Arc<Traffic>,
}

/// Loads and checks a scenario; warnings go to stderr.
pub(crate) fn load_scenario(
    argument: &str,
    args: &LoadArgs,
    policies: &[String],
    talk: Option<TalkArgs>,
) -> anyhow::Result<Loaded> {
    let working_dir = PathBuf::new();
    let source = Source::of_argument(argument, &working_dir);
    let of_policy = |p: &String| Source::of_argument(p, &working_dir);
    let env = LoadEnv {
        policies: args.policy.iter().chain(policies).map(of_policy).collect(),
        working_dir: working_dir.clone(),
    };
    let color = colored(
        talk.map_or(Color::Auto, |t| t.color),
        std::io::stderr().is_terminal(),
    );
    match load(&source, &overrides(args), &env) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() && !talk.is_some_and(|t| t.quiet) {
                say(loaded.warnings.render(color).trim_end());
            }
            Ok(loaded)
        }
        Err(report) => Err(Stop::usage(report.render(color).trim_end())),
    }
}

/// Flags with vLLM's names are overrides like `--set`; the latter wins.
fn overrides(args: &LoadArgs) -> Vec<Override> {
    let mut all = Vec::new();
    if let Some(rate) = &args.request_rate {
        // vLLM's flag is a plain number of requests per second.
        let value = if rate.parse::<f64>().is_ok() && rate != "inf" {
            format!("\"{rate} req/s\"")
        } else {
            format!("{rate:?}")
        };
        all.push(Override::from_flag(
            "--request-rate",
            "traffic.request_rate",
            &value,
        ));
    }
    if let Some(n) = args.num_prompts {
        all.push(Override::from_flag(
            "--num-prompts",
            "traffic.num_prompts",
            &n.to_string(),
        ));
    }
    if let Some(shape) = args.burstiness {
        all.push(Override::from_flag(
            "--burstiness",
            "traffic.arrivals.kind",
            "gamma",
        ));
        all.push(Override::from_flag(
            "--burstiness",
            "traffic.arrivals.burstiness",
            &format!("{shape:?}"),
        ));
    }
    if let Some(n) = args.max_concurrency {
        all.push(Override::from_flag(
            "--max-concurrency",
            "traffic.max_concurrency",
            &n.to_string(),
        ));
    }
    all.extend(args.set.iter().map(Override::new));
    all
}

/// Loads a scenario and reads its traffic; what was skipped or assumed goes to stderr.
pub(crate) fn ready(
    argument: &str,
    args: &LoadArgs,
    policies: &[String],
    talk: TalkArgs,
) -> anyhow::Result<Ready> {
    let loaded = load_scenario(argument, args, policies, Some(talk))?;
    let dir = loaded.dir.as_deref();
    let traffic = workload::prepare(
        &loaded.scenario,
        dir,
        args.traces.as_deref(),
        args.skip_bad_rows,
    )
    .map_err(|error| Stop::usage(format!("error: {error}\nnothing was run")))?;
    if !talk.quiet {
        let facts = traffic.facts();
        if facts.skipped_rows > 0 {
            say(match facts.skipped_rows {
                1 => "warning: 1 malformed row was left out:".to_owned(),
                n => format!("warning: {n} malformed rows were left out, such as:"),
            });
            facts
                .skipped_examples
                .iter()
                .for_each(|e| say(format!("  {e}")));
        }
        facts
            .notes
            .iter()
            .for_each(|note| say(format!("note: {note}")));
    }
    Ok(Ready {
        loaded,
        traffic: Arc::new(traffic),
    })
}

/// The seeds that were asked for.
pub(crate) fn seeds(args: &SeedArgs, default: u64) -> anyhow::Result<Vec<u64>> {
    let first = args.seed.unwrap_or(default);
    let last = first.checked_add(u64::from(args.seeds - 1));
    let last = last.ok_or_else(|| {
        Stop::usage(format!(
            "error: there are no {} seeds from {first}",
            args.seeds
        ))
    })?;
    Ok((first..=last).collect())
}

/// One point per seed.
pub(crate) fn points(ready: &Ready, seeds: &[u64], rows: bool, laws: bool) -> Vec<RunPoint> {
    let scenario = Arc::new(ready.loaded.scenario.clone());
    let of_seed = |&seed| RunPoint {
        scenario: Arc::clone(&scenario),
        traffic: Arc::clone(&ready.traffic),
        seed,
        laws,
        rows,
        watch: None,
    };
    seeds.iter().map(of_seed).collect()
}

/// Runs points with a progress bar; the first failure ends the verb.
pub(crate) fn run_points(
    what: &str,
    points: &[RunPoint],
    jobs: Option<u32>,
    talk: TalkArgs,
) -> anyhow::Result<Vec<RunResult>> {
    run_points_by(what, points, talk, |progress| {
        execute(points, jobs.map(|n| n as usize), &|n| progress.add(n))
    })
}

/// As [`run_points`], in real time and one after the other.
pub(crate) fn run_points_live(
    what: &str,
    points: &[RunPoint],
    talk: TalkArgs,
) -> anyhow::Result<Vec<RunResult>> {
    run_points_by(what, points, talk, |progress| {
        let live = |point| run_live(point, &|n| progress.add(n), None);
        points.iter().map(live).collect()
    })
}

fn run_points_by(
    what: &str,
    points: &[RunPoint],
    talk: TalkArgs,
    run: impl FnOnce(&Progress) -> Vec<Result<RunResult, RunError>>,
) -> anyhow::Result<Vec<RunResult>> {
    let expected: u64 = points
        .iter()
        .filter_map(|p| p.traffic.facts().requests)
        .sum();
    let progress = Progress::new(what, expected, talk.quiet || talk.no_progress);
    let results = run(&progress);
    progress.finish();
    let mut runs = Vec::with_capacity(results.len());
    for (point, result) in points.iter().zip(results) {
        runs.push(result.map_err(|error| failed(what, point.seed, &error))?);
    }
    Ok(runs)
}

/// As [`run_points`] or [`run_points_live`], one point; `steps` is told of every step.
pub(crate) fn run_one_by_steps(
    what: &str,
    point: &RunPoint,
    live: bool,
    talk: TalkArgs,
    steps: &mut dyn FnMut(&Step),
) -> anyhow::Result<Vec<RunResult>> {
    run_points_by(what, std::slice::from_ref(point), talk, |progress| {
        let ended = |n| progress.add(n);
        let run = if live { run_live } else { run_point_by_steps };
        vec![run(point, &ended, Some(steps))]
    })
}

fn failed(what: &str, seed: u64, error: &RunError) -> anyhow::Error {
    match error {
        RunError::Law(_) => Stop::law(format!(
            "error: a law of the simulation was broken; this is a bug of windtunnel, not of your scenario\n  {error}\n\
             repeat it with: windtunnel run {what} --seed {seed}"
        )),
        RunError::Execution { .. } => Stop {
            exit: Exit::Failure,
            message: format!("error: {error}\nthe run ended there; nothing was written"),
        }
        .into(),
        _ => Stop::usage(format!("error: {error}\nnothing was run")),
    }
}

/// Creates a folder and those above it.
pub(crate) fn create_dir(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path)
        .with_context(|| format!("cannot create the folder {}", path.display()))
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
