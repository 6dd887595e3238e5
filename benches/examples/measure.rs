//! Runs one scenario once and says what it cost: CPU time, memory, events. For figures in
//! `PERFORMANCE.md` and for profilers; `cargo bench` is for comparing two versions.
//!
//! ```text
//! cargo run --release -p windtunnel-benches --example measure -- SCENARIO [KEY=VALUE]...
//! cargo run --release -p windtunnel-benches --example measure -- shape NAME [requests=N] [traces=DIR] [fidelity=DIR]
//! ```
//!
//! `NAME` is a standard shape of `windtunnel bench`, which this runs once.
//! `SCENARIO` is `mm1`, `one-replica` or `shared-prefixes` (the benchmarks' own), a library name or a
//! path. `rows=true` keeps a row per request, `laws=false` checks no laws; other keys are those of
//! the scenario. Traces are looked for in `WINDTUNNEL_TRACES`.

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use windtunnel_benches::execute::{RunPoint, run_point};
use windtunnel_benches::speed::{Effort, SHAPES, prepare};
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::{LoadEnv, Override, Source, load, workload};

fn source(argument: &str) -> Source {
    let own = |text: &str| Source::Text {
        name: format!("{argument}.toml"),
        text: text.to_owned(),
        dir: None,
    };
    match argument {
        "mm1" => own(include_str!("../benches/scenarios/mm1.toml")),
        "one-replica" => own(include_str!("../benches/scenarios/one-replica.toml")),
        "shared-prefixes" => own(include_str!("../benches/scenarios/shared-prefixes.toml")),
        _ => Source::of_argument(argument, Path::new("")),
    }
}

/// Nanoseconds this process has been on a CPU; none where the system does not say.
fn cpu_ns() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse().ok()
}

/// The most memory this process has had, in MB; none where the system does not say.
fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().ok_or("which scenario?")?;
    if scenario == "shape" {
        return shape(arguments);
    }
    let (mut laws, mut rows, mut overrides) = (true, false, Vec::new());
    for argument in arguments {
        match argument.split_once('=') {
            Some(("laws", value)) => laws = value.parse()?,
            Some(("rows", value)) => rows = value.parse()?,
            _ => overrides.push(Override::new(argument)),
        }
    }
    let loaded = load(&source(&scenario), &overrides, &LoadEnv::default())
        .map_err(|report| report.render(false))?;
    let traces = std::env::var_os("WINDTUNNEL_TRACES").map(PathBuf::from);
    let traffic = workload::prepare(
        &loaded.scenario,
        loaded.dir.as_deref(),
        traces.as_deref(),
        false,
    )?;
    let point = RunPoint {
        seed: loaded.scenario.run.seed,
        scenario: Arc::new(loaded.scenario),
        traffic: Arc::new(traffic),
        laws,
        rows,
        watch: None,
    };
    report(&scenario, || {
        run_point(&point, &|_| ()).map_err(|e| e.to_string())
    })
}

/// Runs a standard shape once.
fn shape(mut arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let name = arguments.next().ok_or("which shape?")?;
    let shape = SHAPES.iter().find(|shape| shape.name == name);
    let shape = shape.ok_or("there is no such shape")?;
    let mut effort = Effort::default();
    for argument in arguments {
        match argument.split_once('=') {
            Some(("requests", n)) => effort.requests = Some(n.parse()?),
            Some(("traces", folder)) => effort.traces = Some(folder.into()),
            Some(("fidelity", folder)) => effort.fidelity = Some(folder.into()),
            _ => return Err(format!("what is `{argument}`?").into()),
        }
    }
    let ready = prepare(shape, &effort)?;
    report(&name, || ready.run())
}

/// Runs something and prints what it cost.
fn report(
    name: &str,
    run: impl FnOnce() -> Result<RunResult, String>,
) -> Result<(), Box<dyn Error>> {
    let (before, begun) = (cpu_ns(), Instant::now());
    let result = run()?;
    let wall = begun.elapsed().as_secs_f64();
    let cpu = match (before, cpu_ns()) {
        (Some(before), Some(after)) => (after - before) as f64 / 1e9,
        _ => wall,
    };
    let sent: u64 = result.segments.iter().map(|s| s.all.sent).sum();
    let steps: u64 = result.segments.iter().map(|s| s.steps).sum();
    let per = |count: u64| cpu * 1e9 / count.max(1) as f64;
    writeln!(
        std::io::stdout(),
        "{name}: {cpu:.3} s CPU ({wall:.3} s), {:.0} MB at most; {sent} requests at {:.0} ns, \
         {} events at {:.0} ns, {steps} steps at {:.1} ns; digest {}",
        peak_mb().unwrap_or(f64::NAN),
        per(sent),
        result.events,
        per(result.events),
        per(steps),
        result.digest,
    )?;
    Ok(())
}
