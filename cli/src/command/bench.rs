//! `bench`: what standard shapes of work cost on this machine. Each shape runs in a process of its own, one
//! after the other, so that its memory is its own and nothing else competes for the caches.

use crate::args::{BenchArgs, Format};
use crate::common::{print, say};
use crate::exit::{Exit, Stop};
use anyhow::Context as _;
use serde_json::json;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use windtunnel_benches::speed::cost::{MachineLine, machine};
use windtunnel_benches::speed::{Effort, Measured, SHAPES, Shape, measure};
use windtunnel_scenarios::did_you_mean;

pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<Exit> {
    if matches!(args.format, Format::Csv | Format::Markdown) {
        return Err(Stop::usage("error: `bench` prints `table` or `json`"));
    }
    let shapes = select(&args.shapes)?;
    if args.list {
        print(&list(&shapes))?;
        return Ok(Exit::Done);
    }
    if args.here {
        let [shape] = &shapes[..] else {
            return Err(Stop::usage("error: `--here` runs exactly one shape"));
        };
        print(&serde_json::to_string(&run_here(shape, args)?)?)?;
        return Ok(Exit::Done);
    }
    for folder in [&args.fidelity, &args.traces].into_iter().flatten() {
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(Stop::usage(format!(
                "error: there is no folder {folder}\nnothing was run"
            )));
        }
    }
    // Unasked, a shape whose files are not there is left out; asked for, it says what it needs.
    let runs =
        |shape: &Shape| !args.shapes.is_empty() || args.fidelity.is_some() || !shape.needs_files();
    let shapes: Vec<Shape> = shapes.into_iter().filter(runs).collect();
    let machine = machine();
    let mut all = Vec::with_capacity(shapes.len());
    if args.format == Format::Table {
        print(&heading(&machine))?;
    }
    for shape in shapes {
        let measured = run_apart(&shape, args)?;
        if args.format == Format::Table {
            print(&line(&measured))?;
        }
        all.push(measured);
    }
    match args.format {
        Format::Table => print(&notes(&machine, args))?,
        _ => print(&to_json(&machine, &all)?)?,
    }
    Ok(Exit::Done)
}

/// Shapes by name; an unknown one is refused.
fn select(names: &[String]) -> anyhow::Result<Vec<Shape>> {
    if names.is_empty() {
        return Ok(SHAPES.to_vec());
    }
    let find = |name: &String| {
        let found = SHAPES.iter().find(|shape| shape.name == name).copied();
        found.ok_or_else(|| {
            let known = SHAPES.map(|shape| shape.name);
            Stop::usage(format!(
                "error: there is no shape `{name}`; {}\nknown: {}\nnothing was run",
                did_you_mean(name, known),
                known.join(", ")
            ))
        })
    };
    names.iter().map(find).collect()
}

fn list(shapes: &[Shape]) -> String {
    let mut out = String::new();
    for shape in shapes {
        let _ = writeln!(out, "{:<14} {}", shape.name, shape.title);
    }
    out
}

fn run_here(shape: &Shape, args: &BenchArgs) -> anyhow::Result<Measured> {
    let effort = Effort {
        quick: args.quick,
        requests: args.requests,
        fidelity: args.fidelity.clone(),
        traces: args.traces.clone(),
    };
    measure(shape, &effort).map_err(|error| {
        let error = error.trim_end();
        Stop::usage(format!("error: `{}` cannot run: {error}", shape.name))
    })
}

/// Runs a shape in a process of its own.
fn run_apart(shape: &Shape, args: &BenchArgs) -> anyhow::Result<Measured> {
    let program = std::env::current_exe().context("cannot find this program again")?;
    let mut child = Command::new(program);
    child.args(["bench", "--here", shape.name]);
    if args.quick {
        child.arg("--quick");
    }
    if let Some(n) = args.requests {
        child.arg("--requests").arg(n.to_string());
    }
    for (flag, folder) in [("--fidelity", &args.fidelity), ("--traces", &args.traces)] {
        if let Some(folder) = folder {
            child.arg(flag).arg(folder);
        }
    }
    let output = child
        .stderr(Stdio::piped())
        .output()
        .context("cannot start a process for the shape")?;
    if !output.status.success() {
        say(String::from_utf8_lossy(&output.stderr).trim_end());
        let usage = output.status.code() == Some(Exit::Usage as i32);
        let message = format!("error: `{}` did not run to its end", shape.name);
        return Err(if usage {
            Stop::usage(message)
        } else {
            anyhow::Error::msg(message)
        });
    }
    serde_json::from_slice(&output.stdout).context("what the shape's process printed")
}

fn heading(machine: &MachineLine) -> String {
    format!(
        "{}, {} cores, {}; windtunnel {}\n\n{:<14} {:>10} {:>9} {:>15} {:>15} {:>10}  {}\n",
        machine.cpu,
        machine.cores,
        machine.system,
        env!("CARGO_PKG_VERSION"),
        "shape",
        "requests",
        "CPU s",
        "requests/CPU s",
        "facts/CPU s",
        "memory MB",
        "what"
    )
}

fn line(m: &Measured) -> String {
    let memory = m
        .peak_bytes
        .map_or("–".into(), |bytes| format!("{:.0}", bytes as f64 / 1e6));
    let source = match m.source.as_str() {
        "generated" => String::new(),
        file => format!(" ({file})"),
    };
    format!(
        "{:<14} {:>10} {:>9.4} {:>15.0} {:>15.0} {:>10}  {}{source}\n",
        m.shape, m.requests, m.cpu_s, m.requests_per_cpu_s, m.facts_per_cpu_s, memory, m.title,
    )
}

fn notes(machine: &MachineLine, args: &BenchArgs) -> String {
    let mut out = "\nCPU time of the run itself, best of several where it is short: full metrics, accounts of \
                   memory and laws on, no rows per request. A fact is what happens to a request (sent, \
                   dispatched, accepted, started, first token, generated, finished …): checked, booked and \
                   hashed. Memory is the most the shape's process had, reading its input included.\n"
        .to_owned();
    if args.quick {
        out.push_str("With --quick runs are short: not for comparison.\n");
    }
    if let Some(load) = machine.load.filter(|&load| load > 0.5) {
        let _ = writeln!(
            out,
            "The machine was busy (load {load:.1}) when this began: figures may be too low."
        );
    }
    out
}

fn to_json(machine: &MachineLine, all: &[Measured]) -> anyhow::Result<String> {
    let document = json!({
        "schema_version": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine,
        "shapes": all,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
