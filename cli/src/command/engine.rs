//! `engine`: the engine that computes. Devices and models, steps against the hardware, training.

use crate::args::{AskArgs, Device, EngineBenchArgs, EngineCommand, Format, TrainArgs, Trained};
use crate::command::calibrate::writable;
use crate::common::{print, say, write};
use crate::exit::{Exit, Stop};
use crate::progress::Progress;
use anyhow::Context as _;
use serde_json::json;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use windtunnel_reference::answer::answer;
use windtunnel_reference::backend::Sampling;
use windtunnel_reference::backend::cpu::KvMemory;
use windtunnel_reference::backend::cuda::measure::{BenchPlan, bench as measure_gpu};
use windtunnel_reference::backend::cuda::{CudaBackend, CudaOptions, Source};
use windtunnel_reference::config::ModelConfig;
use windtunnel_reference::devices::{DeviceKind, Found, find, first_that_fits, open, open_any};
use windtunnel_reference::error::ReferenceError;
use windtunnel_reference::floor::{Ceiling, Line, Sharing, bench as measure, cpu_ceiling, sharing};
use windtunnel_reference::kv::format::KvFormat;
use windtunnel_reference::machine::{machine, today};
use windtunnel_reference::models::{Model, Pocket, load};
use windtunnel_reference::tokenizer::Tokenizer;
use windtunnel_reference::train::pocket::{Card, NIGHT_TASKS, Plan, Report, settings, train};

/// Threads of candle's own pool: they wait by spinning, which costs training more than they give it.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

pub(crate) fn engine(command: &EngineCommand) -> anyhow::Result<Exit> {
    match command {
        EngineCommand::Info { format } => info(*format),
        EngineCommand::Bench(args) => bench(args),
        EngineCommand::Ask(args) => ask(args),
        EngineCommand::Cascade(args) => super::cascade::cascade(args),
        EngineCommand::Train(args) => training(args),
    }
}

/// An error of the reference engine with its exit code: what a user gave is wrong, or something
/// failed.
pub(crate) fn stop(error: ReferenceError) -> anyhow::Error {
    match error {
        ReferenceError::NotANumber { .. }
        | ReferenceError::Training { .. }
        | ReferenceError::Device { .. } => error.into(),
        _ => Stop::usage(format!("error: {error}")),
    }
}

/// The device that is meant; none if any will do.
pub(crate) const fn device_kind(device: Device) -> Option<DeviceKind> {
    match device {
        Device::Cpu => Some(DeviceKind::Cpu),
        Device::Cuda => Some(DeviceKind::Cuda),
        Device::Auto => None,
    }
}

fn used(devices: &[Found]) -> DeviceKind {
    let usable = devices.iter().find(|d| d.usable);
    usable.map_or(DeviceKind::Cpu, |d| d.kind)
}

/// A model that cannot be put on a device. That there is no GPU is the request's fault.
pub(crate) fn missing(kind: Option<DeviceKind>, error: ReferenceError) -> anyhow::Error {
    match (kind, &error) {
        (Some(DeviceKind::Cuda), ReferenceError::Device { .. }) => {
            Stop::usage(format!("error: {error}"))
        }
        _ => stop(error),
    }
}

pub(crate) fn table_or_json(format: Format) -> anyhow::Result<()> {
    if matches!(format, Format::Csv | Format::Markdown) {
        return Err(Stop::usage("error: `engine` prints `table` or `json`"));
    }
    Ok(())
}

fn info(format: Format) -> anyhow::Result<Exit> {
    table_or_json(format)?;
    let devices = find();
    let used = used(&devices);
    let mut cards = Vec::new();
    for pocket in Pocket::ALL {
        cards.push((pocket, pocket.card().map_err(stop)?));
    }
    if format == Format::Json {
        let models: Vec<_> = cards
            .iter()
            .map(|(pocket, card)| {
                json!({"name": pocket.name(), "bytes": pocket.bytes(), "config": pocket.config(), "card": card})
            })
            .collect();
        let document = json!({
            "schema_version": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "devices": devices,
            "used": used,
            "models": models,
        });
        print(&(serde_json::to_string_pretty(&document)? + "\n"))?;
        return Ok(Exit::Done);
    }
    let mut out = devices_text(&devices, used);
    out.push_str("\nmodels\n");
    for (pocket, card) in &cards {
        let _ = writeln!(
            out,
            "  {:<16} {} parameters, {:.1} MB, exact match {:.1} % on {} held-out tasks",
            pocket.name(),
            card.parameters,
            pocket.bytes() as f64 / 1e6,
            card.held_out.exact_match * 100.0,
            card.held_out.tasks_per_class * card.held_out.right.len()
        );
        let _ = writeln!(out, "    {}", by_class(card));
        let _ = writeln!(
            out,
            "    learnt from {}; {} steps, {:.0} CPU s, seed {}",
            card.data, card.steps, card.cpu_seconds, card.training.seed
        );
    }
    out.push_str("  any folder with config.json and safetensors of a Llama-family model\n");
    print(&out)?;
    Ok(Exit::Done)
}

fn devices_text(devices: &[Found], used: DeviceKind) -> String {
    let mut out = String::from("devices\n");
    for device in devices {
        let cannot = if device.usable {
            ""
        } else {
            "cannot be used: "
        };
        let _ = writeln!(
            out,
            "  {:<5} {cannot}{}",
            kind_name(device.kind),
            device.what
        );
        for (name, value) in &device.details {
            let _ = writeln!(out, "        {name}: {value}");
        }
    }
    let why = match used {
        DeviceKind::Cuda => "a GPU comes before the CPU where the model runs on it",
        DeviceKind::Cpu => "no GPU can be used",
    };
    let _ = writeln!(out, "\n`auto` is {}: {why}", kind_name(used));
    out
}

const fn kind_name(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Cuda => "cuda",
    }
}

fn by_class(card: &Card) -> String {
    let tried = card.held_out.tasks_per_class.max(1) as f64;
    let classes = card.held_out.right.iter();
    let shares: Vec<String> = classes
        .map(|(class, &right)| format!("{class} {:.0} %", right as f64 / tried * 100.0))
        .collect();
    shares.join(", ")
}

fn ask(args: &AskArgs) -> anyhow::Result<Exit> {
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        return Err(Stop::usage(
            "error: `--temperature` must be zero or a positive number",
        ));
    }
    let model = load(&args.model).map_err(stop)?;
    let tokenizer = Tokenizer::of(&args.model, model.config.vocab_size).map_err(stop)?;
    let prompt = tokenizer.encode(&args.prompt).map_err(stop)?;
    let longest = args.max_tokens as usize;
    let kind = device_kind(args.device);
    let pages = (prompt.len() + longest).div_ceil(16);
    let opened = open_any(kind, &model.config, &model.weights, pages);
    let mut backend = opened.map_err(|e| missing(kind, e))?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: 1.0,
        seed: args.seed,
    };
    let ends = |token| tokenizer.ends(token);
    let said = answer(backend.as_mut(), &prompt, longest, sampling, &ends).map_err(stop)?;
    let text = tokenizer.decode(&said).map_err(stop)?;
    print(&format!("{text}\n"))?;
    Ok(Exit::Done)
}

/// The name of sizes without weights, which are drawn on the GPU.
const EIGHT_BILLION: &str = "8b";
/// Seed of weights that are drawn.
const DRAWN: u64 = 1;

fn bench(args: &EngineBenchArgs) -> anyhow::Result<Exit> {
    table_or_json(args.format)?;
    if let Some(file) = &args.out {
        writable(file)?;
    }
    if args.model == EIGHT_BILLION {
        return bench_drawn(args);
    }
    let model = load(&args.model).map_err(stop)?;
    let plan = gpu_plan(&model.config);
    let kind = device_kind(args.device);
    let on_gpu = || gpu(&model.config, Source::Host(&model.weights), &plan).map(Some);
    let gpu = match kind {
        Some(DeviceKind::Cpu) => Ok(None),
        Some(DeviceKind::Cuda) => on_gpu(),
        None => first_that_fits(on_gpu, || Ok(None)),
    };
    match gpu.map_err(|e| missing(kind, e))? {
        Some(backend) => bench_gpu(args, backend, &plan),
        None => bench_cpu(args, &model),
    }
}

/// Steps at the sizes of an 8B model: on a GPU, as no CPU has them in a second.
fn bench_drawn(args: &EngineBenchArgs) -> anyhow::Result<Exit> {
    if args.device == Device::Cpu {
        return Err(Stop::usage(
            "error: `--model 8b`: its weights are drawn on a GPU; give `--device cuda`, or a model that the CPU computes\nnothing was measured",
        ));
    }
    let config = ModelConfig::eight_billion();
    let plan = gpu_plan(&config);
    let backend = gpu(&config, Source::Seed(DRAWN), &plan);
    let backend = backend.map_err(|e| missing(Some(DeviceKind::Cuda), e))?;
    bench_gpu(args, backend, &plan)
}

fn bench_gpu(
    args: &EngineBenchArgs,
    mut backend: CudaBackend,
    plan: &BenchPlan,
) -> anyhow::Result<Exit> {
    // As JSON: its figures go by product and by format of pages, too.
    let measured = measure_gpu(&mut backend, plan, &today()).map_err(stop)?;
    let json = serde_json::to_string_pretty(&measured)? + "\n";
    keep(args, &json)?;
    print(&json)?;
    Ok(Exit::Done)
}

/// Writes what was measured to where it was asked for.
fn keep(args: &EngineBenchArgs, json: &str) -> anyhow::Result<()> {
    let Some(file) = &args.out else {
        return Ok(());
    };
    write(file, json.as_bytes())?;
    if !args.talk.quiet {
        say(format!("written to {}", file.display()));
    }
    Ok(())
}

fn bench_cpu(args: &EngineBenchArgs, model: &Model) -> anyhow::Result<Exit> {
    let silent = args.talk.quiet || args.talk.no_progress;
    let progress = Progress::new("measuring", 100, silent);
    let ceiling = cpu_ceiling().map_err(stop)?;
    let open = |layers: usize, pages: usize| {
        let config = ModelConfig {
            num_hidden_layers: layers,
            ..model.config.clone()
        };
        open(DeviceKind::Cpu, &config, &model.weights, pages)
    };
    let mut shown = 0;
    let lines = measure(model, ceiling, &open, &mut |share| {
        let now = (share * 100.0) as u64;
        progress.add(now - shown);
        shown = now;
        ControlFlow::Continue(())
    });
    progress.finish();
    let lines = lines.map_err(stop)?.unwrap_or_default();
    let shared = sharing();
    let document = json!({
        "schema_version": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "date": today(),
        "machine": machine(),
        "device": "cpu",
        "model": {"name": model.name, "weights": model.digest, "config": model.config},
        "ceiling": ceiling,
        "steps": lines,
        "sharing": shared,
    });
    let json = serde_json::to_string_pretty(&document)? + "\n";
    keep(args, &json)?;
    if args.format == Format::Json {
        print(&json)?;
    } else {
        print(&(bench_table(&args.model, ceiling, &lines) + &sharing_table(&shared)))?;
    }
    Ok(Exit::Done)
}

/// Products by one thread and by all; nothing where there is one.
fn sharing_table(all: &[Sharing]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "\nmatrix       rows  one thread ms  all threads ms  the engine takes  of the faster\n",
    );
    for s in all {
        let _ = writeln!(
            out,
            "{:<12} {:>4} {:>14.3} {:>15.3}  {:<16} {:>12.2}",
            format!("{0} x {0}", s.width),
            s.rows,
            s.one_ms,
            s.all_ms,
            if s.shared { "all" } else { "one" },
            s.loss()
        );
    }
    out
}

/// The steps that a GPU is measured by. Models for short texts have no room for the contexts of large
/// ones.
fn gpu_plan(config: &ModelConfig) -> BenchPlan {
    let longest = config.max_position_embeddings;
    let usual = BenchPlan::default();
    BenchPlan {
        context: usual.context.min(longest / 2),
        prefills: usual.prefills.iter().map(|&n| n.min(longest / 2)).collect(),
        ..usual
    }
}

fn gpu(
    config: &ModelConfig,
    source: Source<'_>,
    plan: &BenchPlan,
) -> Result<CudaBackend, ReferenceError> {
    // A page more than the context takes for each sequence; prompts have as many.
    let largest = plan.batches.iter().copied().max().unwrap_or(1);
    let memory = KvMemory {
        pages: largest * (plan.context.div_ceil(16) + 2),
        page_tokens: 16,
        filling: KvFormat::F16,
    };
    CudaBackend::new(0, config, source, &memory, CudaOptions::default())
}

fn bench_table(model: &str, ceiling: Ceiling, lines: &[Line]) -> String {
    let here = machine();
    let mut out = format!(
        "{model} on {}, {} cores: {:.1} GB/s from memory, {:.0} GFLOP/s in matrix products\n\n\
         step     seqs  tokens  context        ms  per layer      ends     floor  bound by    achieved\n",
        here.cpu,
        here.cores,
        ceiling.bytes_per_s / 1e9,
        ceiling.flops_per_s / 1e9
    );
    for l in lines {
        let _ = writeln!(
            out,
            "{:<8} {:>4} {:>7} {:>8} {:>9.3} {:>10.3} {:>9.3} {:>9.3}  {:<10} {:>8.0} %",
            l.phase,
            l.sequences,
            l.tokens,
            l.context,
            l.ms,
            l.layer_ms,
            l.ends_ms,
            l.floor_ms,
            l.bound,
            l.achieved * 100.0
        );
    }
    out.push_str(
        "\nMedians. The floor is the bytes of a step over the bandwidth, or its operations over the rate, \
         whichever is more. Weights that fit in a cache can be read faster than memory.\n",
    );
    if let Some(load) = here.load.filter(|&load| load > 0.5) {
        let _ = writeln!(
            out,
            "The machine was busy (load {load:.1}): figures may be too low."
        );
    }
    out
}

fn training(args: &TrainArgs) -> anyhow::Result<Exit> {
    if std::env::var_os(CANDLE_THREADS).is_none() {
        return again_without_spinning();
    }
    let silent = args.talk.quiet || args.talk.no_progress;
    if matches!(args.model, Trained::Frontier | Trained::All) {
        one(Pocket::Frontier, args, silent)?;
    }
    if matches!(args.model, Trained::Light | Trained::All) {
        one(Pocket::Light, args, silent)?;
    }
    Ok(Exit::Done)
}

/// The pool's size is read from the environment once, so the training is a process of its own.
fn again_without_spinning() -> anyhow::Result<Exit> {
    let program = std::env::current_exe().context("cannot find this program again")?;
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(CANDLE_THREADS, "1")
        .status()
        .context("cannot start the process that trains")?;
    match status.code() {
        Some(0) => Ok(Exit::Done),
        Some(2) => Ok(Exit::Usage),
        _ => Ok(Exit::Failure),
    }
}

fn one(pocket: Pocket, args: &TrainArgs, silent: bool) -> anyhow::Result<()> {
    let mut settings = settings(pocket, args.seed);
    if let Some(steps) = args.steps {
        settings.steps = steps as usize;
    }
    let teacher = match pocket {
        Pocket::Frontier => None,
        Pocket::Light => Some(teacher(&args.out)?),
    };
    let folder = args.out.join(pocket.folder());
    let asked = if teacher.is_some() { NIGHT_TASKS } else { 0 };
    let plan = Plan::pocket(pocket, settings, teacher.as_ref());
    // A task asked and a step are not the same work, but each is a unit of what is left.
    let progress = Progress::new(pocket.name(), (settings.steps + asked / 10) as u64, silent);
    let mut loss_shown = 0.0;
    let card = train(&plan, &folder, &mut |report| {
        match report {
            Report::TakenUp(steps) => {
                if !args.talk.quiet {
                    say(format!("{}: taken up after {steps} steps", pocket.name()));
                }
                progress.add(steps as u64);
            }
            Report::Asked(tasks) => progress.add(tasks as u64 / 10),
            Report::Step(loss) => {
                loss_shown = loss;
                progress.add(1);
            }
        }
        ControlFlow::Continue(())
    });
    progress.finish();
    let Some(card) = card.map_err(stop)? else {
        return Ok(());
    };
    let mut out = format!(
        "{}: {} steps, {:.0} CPU s, loss {loss_shown:.4} nats per token at the end\n  exact match on held-out tasks: {:.1} % ({})\n",
        card.model,
        card.steps,
        card.cpu_seconds,
        card.held_out.exact_match * 100.0,
        by_class(&card)
    );
    if let Some(night) = &card.night {
        let _ = writeln!(
            out,
            "  learnt from {} verified of {} answers of the frontier",
            night.verified, night.asked
        );
    }
    let _ = writeln!(out, "  {}", folder.display());
    print(&out)
}

/// The frontier that was trained into this folder; the one that is built in, if none was.
fn teacher(out: &Path) -> anyhow::Result<Model> {
    let folder = out.join(Pocket::Frontier.folder());
    if folder.join("model.safetensors").is_file() {
        load(&folder.to_string_lossy()).map_err(stop)
    } else {
        load(Pocket::Frontier.name()).map_err(stop)
    }
}
