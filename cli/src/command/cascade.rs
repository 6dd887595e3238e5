//! `engine cascade`: agentic sessions through the layers of the cascade, on real models.

use crate::args::{CascadeArgs, Device, Format};
use crate::command::calibrate::writable;
use crate::command::engine::{device_kind, missing, stop, table_or_json};
use crate::common::{print, say, write};
use crate::exit::{Exit, Stop};
use crate::folder::command_line;
use crate::progress::Progress;
use serde_json::json;
use std::fmt::Write as _;
use windtunnel_engine::config::calibration::MeasuredLayers;
use windtunnel_reference::backend::Backend;
use windtunnel_reference::cascade::report::{Grid, grid, usual_cells};
use windtunnel_reference::cascade::run::Models;
use windtunnel_reference::cascade::sessions::{Workload, draw};
use windtunnel_reference::cascade::study::{
    Gain, Measured, Rates, Staleness, layers, look, map, map_points, periods, staleness, table,
};
use windtunnel_reference::cascade::{Settings, Switches};
use windtunnel_reference::devices::{DeviceKind, open_any};
use windtunnel_reference::error::ReferenceError;
use windtunnel_reference::floor::cpu_ceiling;
use windtunnel_reference::machine::{machine, today};
use windtunnel_reference::models::{Model, load};

pub(crate) fn cascade(args: &CascadeArgs) -> anyhow::Result<Exit> {
    table_or_json(args.format)?;
    if !(0.0..=1.0).contains(&args.no_change) {
        return Err(Stop::usage(
            "error: `--no-change` is a share; give a number between 0 and 1\nnothing was run",
        ));
    }
    if let Some(file) = &args.out {
        writable(file)?;
    }
    let (frontier, light) = (load(&args.frontier), load(&args.light));
    let (frontier, light) = (frontier.map_err(stop)?, light.map_err(stop)?);
    let workload = Workload {
        sessions: args.sessions as usize,
        turns: args.turns as usize,
        no_change: args.no_change,
        preamble: args.preamble,
        seed: args.seed,
        ..Workload::default()
    };
    let settings = Settings::default();
    let kind = match (&args.out, args.device) {
        // The rates of the scenario are measured on the CPU.
        (Some(_), Device::Cuda) => {
            return Err(Stop::usage(
                "error: `--out` writes what the CPU does; give `--device cpu`\nnothing was run",
            ));
        }
        (Some(_), _) => device_kind(Device::Cpu),
        (None, device) => device_kind(device),
    };
    let mut devices = open(kind, &frontier, &light, args.sessions.max(MAP_SESSIONS))?;
    let silent = args.talk.quiet || args.talk.no_progress;
    let more = if args.map {
        map_points() + periods()
    } else {
        0
    };
    let progress = Progress::new("cascade", 1 + more as u64, silent);
    let study = measure(&mut devices, &workload, &settings, args.map, &|| {
        progress.add(1);
    });
    progress.finish();
    let study = study.map_err(stop)?;
    if let Some(out) = &args.out {
        let text = scenario(&study, &frontier, &light, &workload)?;
        write(out, text.as_bytes())?;
        if !args.talk.quiet {
            say(format!("written to {}", out.display()));
        }
    }
    if args.format == Format::Json {
        let factor = |time| study.cells.interaction(Switches::ALL, time);
        let document = json!({
            "schema_version": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "date": today(),
            "machine": machine(),
            "device": study.device,
            "models": {
                "frontier": {"name": frontier.name, "weights": frontier.digest},
                "light": {"name": light.name, "weights": light.digest},
            },
            "workload": workload,
            "settings": settings,
            "cells": study.cells.cells,
            "interaction": {
                "model": factor(|c| c.model_seconds),
                "wall": factor(|c| c.wall_seconds),
            },
            "look_seconds": study.look,
            "map": study.map,
            "staleness": study.staleness,
        });
        print(&(serde_json::to_string_pretty(&document)? + "\n"))?;
    } else {
        print(&text(&study, args))?;
    }
    Ok(Exit::Done)
}

/// Sessions at once of the largest point of the map.
const MAP_SESSIONS: u32 = 8;

/// The frontier, the light model, and the frontier again to hold answers against.
type Devices = [Box<dyn Backend + Send>; 3];

fn open(
    kind: Option<DeviceKind>,
    frontier: &Model,
    light: &Model,
    sessions: u32,
) -> anyhow::Result<Devices> {
    let open = |model: &Model| {
        // All sessions at once, each as long as the model takes, and as many prefixes kept.
        let each = model.config.max_position_embeddings.div_ceil(16);
        let pages = 2 * each * sessions as usize + 64;
        open_any(kind, &model.config, &model.weights, pages).map_err(|e| missing(kind, e))
    };
    Ok([open(frontier)?, open(light)?, open(frontier)?])
}

/// Every layer alone and together on the CPU, as a calibration has it.
pub(crate) fn measured_layers(
    frontier: &Model,
    light: &Model,
    seed: u64,
) -> anyhow::Result<MeasuredLayers> {
    let workload = Workload {
        seed,
        ..Workload::default()
    };
    let kind = device_kind(Device::Cpu);
    let mut devices = open(kind, frontier, light, workload.sessions as u32)?;
    let study = measure(&mut devices, &workload, &Settings::default(), false, &|| {});
    as_measured(&study.map_err(stop)?, frontier, light, &workload)
}

fn as_measured(
    study: &Study,
    frontier: &Model,
    light: &Model,
    workload: &Workload,
) -> anyhow::Result<MeasuredLayers> {
    let ceiling = cpu_ceiling().map_err(stop)?;
    let measured = Measured {
        frontier: &frontier.config,
        light,
        rates: Rates {
            flops_per_s: ceiling.flops_per_s,
            bytes_per_s: ceiling.bytes_per_s,
            weight_bytes: 4.0,
        },
        look: study.look,
        workload,
    };
    let layers = layers(&study.cells, &measured);
    layers.ok_or_else(|| anyhow::anyhow!("not every layer was run alone"))
}

/// What was measured.
struct Study {
    device: String,
    cells: Grid,
    look: f64,
    map: Vec<Gain>,
    staleness: Vec<Staleness>,
}

fn measure(
    devices: &mut Devices,
    workload: &Workload,
    settings: &Settings,
    whole: bool,
    told: &dyn Fn(),
) -> Result<Study, ReferenceError> {
    let [frontier, light, reference] = devices;
    let device = frontier.device();
    let mut models = Models {
        frontier: frontier.as_mut(),
        light: light.as_mut(),
        reference: Some(reference.as_mut()),
    };
    let cells = grid(&mut models, &draw(workload), settings, &usual_cells())?;
    told();
    let look = look(&mut models, workload)?;
    let (mut gains, mut stale) = (Vec::new(), Vec::new());
    if whole {
        gains = map(&mut models, workload, settings, &mut || told())?;
        stale = staleness(&mut models, workload, settings, &mut || told())?;
    }
    Ok(Study {
        device,
        cells,
        look,
        map: gains,
        staleness: stale,
    })
}

/// A scenario with the measured table.
fn scenario(
    study: &Study,
    frontier: &Model,
    light: &Model,
    workload: &Workload,
) -> anyhow::Result<String> {
    let table = table(&as_measured(study, frontier, light, workload)?);
    Ok(format!(
        "# The cascade as it was measured on {} ({}), {}:\n#   {}\nversion = 1\nname = \"cascade-measured\"\n\
         extends = \"library:serr-agentic\"\n\n{table}",
        machine().cpu,
        study.device,
        today(),
        command_line()
    ))
}

fn text(study: &Study, args: &CascadeArgs) -> String {
    let mut out = format!(
        "{} and {} on {}; {} sessions of {} turns, {:.0} % of turns change nothing\n\n{}",
        args.frontier,
        args.light,
        study.device,
        args.sessions,
        args.turns,
        args.no_change * 100.0,
        study.cells.table()
    );
    if let Some(factor) = study.cells.interaction(Switches::ALL, |c| c.wall_seconds) {
        let _ = writeln!(out, "as measured on this machine: {factor:.2}");
    }
    if !study.map.is_empty() {
        out.push_str("\nall layers against none\nno change  sessions  S model  S wall  bytes  launches   agree  exact without  exact\n");
    }
    for g in &study.map {
        let _ = writeln!(
            out,
            "{:>9.2} {:>9} {:>8.2} {:>7.2} {:>6.2} {:>9.2} {:>7.3} {:>14.2} {:>6.2}",
            g.no_change,
            g.sessions,
            g.model,
            g.wall,
            g.bytes,
            g.launches,
            g.agreement,
            g.exact_without,
            g.exact
        );
    }
    if !study.staleness.is_empty() {
        out.push_str("\nturns between publications of L5   time  exact  regret\n");
    }
    for s in &study.staleness {
        let _ = writeln!(
            out,
            "{:>32.0} {:>6.3} {:>6.3} {:>+7.3}",
            s.period, s.time, s.exact, s.regret
        );
    }
    out.push_str(
        "\nS: how many times less time than without layers, by counted work on a device model; wall: as measured.\n",
    );
    out
}
