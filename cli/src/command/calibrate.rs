//! `calibrate`: step times of a model on a device, as a cost table.

use crate::args::{CalibrateArgs, Device};
use crate::command::cascade::measured_layers;
use crate::command::engine::{device_kind, missing, stop};
use crate::common::{print, say};
use crate::exit::{Exit, Stop};
use crate::progress::Progress;
use anyhow::Context as _;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};
use windtunnel_base::quantity::Span;
use windtunnel_engine::config::calibration::{Calibration, Errors};
use windtunnel_reference::calibrate::calibrate as measure;
use windtunnel_reference::calibrate::plan::Plan;
use windtunnel_reference::devices::open_any;
use windtunnel_reference::models::{Model, Pocket, load};
use windtunnel_reference::train::files::write;

/// Parts that progress is shown in.
const PARTS: f64 = 1_000.0;

pub(crate) fn calibrate(args: &CalibrateArgs) -> anyhow::Result<Exit> {
    let budget: Span = args.budget.parse().map_err(|e| {
        Stop::usage(format!(
            "error: `--budget {}`: {e}\nnothing was measured",
            args.budget
        ))
    })?;
    writable(&args.out)?;
    let begin = Instant::now();
    let model = load(&args.model).map_err(stop)?;
    let plan = Plan {
        budget: Duration::from_nanos(budget.0.as_nanos()),
        seed: args.seed,
        ..Plan::new(
            &model.config,
            args.max_num_seqs,
            args.max_num_batched_tokens,
        )
    };
    plan.check(&model.config).map_err(stop)?;
    let light = light(args)?;
    let kind = device_kind(args.device);
    let opened = open_any(kind, &model.config, &model.weights, plan.pages(16));
    let mut backend = opened.map_err(|e| missing(kind, e))?;
    let load_time = begin.elapsed();
    let silent = args.talk.quiet || args.talk.no_progress;
    let progress = Progress::new("measuring", PARTS as u64, silent);
    let mut shown = 0;
    let measured = measure(backend.as_mut(), &model, &plan, load_time, &mut |share| {
        let now = (share * PARTS) as u64;
        if now > shown {
            progress.add(now - shown);
            shown = now;
        }
        ControlFlow::Continue(())
    });
    progress.finish();
    let Some(mut measured) = measured.map_err(stop)? else {
        return Ok(Exit::Failure);
    };
    if let Some(light) = light {
        drop(backend);
        measured.layers = Some(measured_layers(&model, &light, args.seed)?);
    }
    let json = serde_json::to_string_pretty(&measured)? + "\n";
    write(&args.out, json.as_bytes()).map_err(stop)?;
    print(&summary(&measured, &args.out))?;
    if let Some(load) = measured.provenance.load.filter(|&load| load > 0.5)
        && !args.talk.quiet
    {
        say(format!(
            "warning: the machine was busy (load {load:.1}) when this began; calibrate on a quiet one"
        ));
    }
    Ok(Exit::Done)
}

/// The light model of the cascade whose layers are measured too; none if they are not.
fn light(args: &CalibrateArgs) -> anyhow::Result<Option<Model>> {
    let on_gpu = args.device == Device::Cuda;
    let name = match args.light.as_deref() {
        Some("none") => return Ok(None),
        Some(_) if on_gpu => {
            return Err(Stop::usage(
                "error: `--light`: rates for layers are measured on the CPU; give `--device cpu`, or `--light none`\nnothing was measured",
            ));
        }
        Some(name) => name,
        None if args.model == Pocket::Frontier.name() && !on_gpu => Pocket::Light.name(),
        None => return Ok(None),
    };
    Ok(Some(load(name).map_err(stop)?))
}

/// Says now, and not after a minute of measuring, that the file cannot be written.
pub(crate) fn writable(file: &Path) -> anyhow::Result<()> {
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if file.is_dir() || !folder.is_dir() {
        return Err(Stop::usage(format!(
            "error: `--out {}`: it is a folder, or in none that exists; name a file\nnothing was measured",
            file.display()
        )));
    }
    let probe = tempfile_in(folder);
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("cannot write to {}", folder.display()))
}

fn tempfile_in(folder: &Path) -> std::path::PathBuf {
    folder.join(format!(".windtunnel-{}.part", std::process::id()))
}

fn summary(c: &Calibration, file: &Path) -> String {
    let p = &c.provenance;
    let r = &c.ranges;
    let line = |name: &str, e: &Errors| {
        format!(
            "{name:<8} {:>6} {:>11.1} % {:>9.1} % {:>+8.1} %\n",
            e.steps,
            e.median * 100.0,
            e.p90 * 100.0,
            e.bias * 100.0
        )
    };
    format!(
        "{} ({} parameters) on {}, {}\n{} points, median of {} rounds; a single measurement is {:.1} % off\n\
         decode: {} to {} sequences, {} to {} tokens in KV; prefill: {} to {} tokens after {} to {}\n\n\
         held out  steps  median error  90th pct      bias\n{}{}{}{}\n{}: use it as `engine.cost = {{ kind = \"table\", file = \"{}\" }}`\n",
        p.model,
        p.parameters,
        p.device,
        p.hardware,
        c.decode.len() + c.prefill.len(),
        c.rounds,
        c.noise * 100.0,
        r.decode_seqs.0,
        r.decode_seqs.1,
        r.decode_context.0,
        r.decode_context.1,
        r.prefill_tokens.0,
        r.prefill_tokens.1,
        r.prefill_context.0,
        r.prefill_context.1,
        line("decode", &c.held_out.decode),
        line("prefill", &c.held_out.prefill),
        line("mixed", &c.held_out.mixed),
        layers(c, file),
        file.display(),
        file.display()
    )
}

/// What each layer is worth, if that was measured.
fn layers(c: &Calibration, file: &Path) -> String {
    let Some(measured) = &c.layers else {
        return String::new();
    };
    let mut out = format!(
        "\nlayers, with {} on the CPU   ms  times less  launches   agree  exact\n",
        measured.light
    );
    for cell in &measured.cells {
        let _ = writeln!(
            out,
            "{:<24} {:>8.1} {:>11.2} {:>9} {:>7.3} {:>6.2}",
            cell.layers, cell.ms, cell.times_less, cell.launches, cell.agreement, cell.exact_match
        );
    }
    let _ = writeln!(
        out,
        "a simulated cascade reads its costs by `engine.cascade.file = \"{}\"`",
        file.display()
    );
    out
}
