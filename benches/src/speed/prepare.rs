//! What shapes run: scenarios of our own or of the library, with generated requests or those of files.

use super::requests::{self, Request};
use super::shapes::{LONG_PREFIXES, ONE_REPLICA, SHARED_PREFIXES};
use super::shapes::{Shape, Work};
use super::{Effort, Ready};
use crate::execute::RunPoint;
use std::sync::Arc;
use windtunnel_scenarios::{LoadEnv, Override, Source, load, workload};

/// What a shape runs, and where its requests come from.
pub(super) fn read(shape: &Shape, number: u64, effort: &Effort) -> Result<(Ready, String), String> {
    let generated = || "generated".to_owned();
    let count = format!("traffic.num_prompts={number}");
    let kind;
    match shape.work {
        Work::Own(text, overrides) => {
            let mut all = vec![count.as_str()];
            all.extend(overrides);
            Ok((point(own(shape, text), &all, effort)?, generated()))
        }
        Work::Library(name) => {
            let all = if effort.requests.is_some() {
                vec![count.as_str()]
            } else {
                Vec::new()
            };
            Ok((
                point(Source::Library(name.into()), &all, effort)?,
                generated(),
            ))
        }
        Work::Fleet(replicas, rate) => {
            let all = [count.as_str(), replicas, rate];
            Ok((point(own(shape, ONE_REPLICA), &all, effort)?, generated()))
        }
        Work::LongPrefixes if effort.traces.is_some() => {
            let library = Source::Library("mooncake-conversation".into());
            let all = [
                "fleet.replicas=8",
                "fleet.engine.kv.block_size=512",
                "fleet.telemetry.period=0s",
                "fleet.telemetry.delay=0s",
                "gateway.routing={ kind = \"kv_router\" }",
                count.as_str(),
            ];
            let file = "mooncake/conversation_trace.jsonl.gz".to_owned();
            Ok((point(library, &all, effort)?, file))
        }
        Work::LongPrefixes => Ok((
            point(own(shape, LONG_PREFIXES), &[&count], effort)?,
            generated(),
        )),
        Work::Operators => operators(shape, number, effort),
        Work::OneReplica => {
            kind = (ONE_REPLICA, Vec::new());
            let file = "traces/w1_single_n100000.compact.csv.gz";
            let columns = ["arrival_time_us", "input_tokens", "output_tokens"];
            played(
                shape,
                kind,
                number,
                effort,
                (file, columns, None),
                requests::one_replica,
            )
        }
        Work::SharedPrefixes(routing) => {
            kind = (
                SHARED_PREFIXES,
                vec![format!("gateway.routing={{ kind = \"{routing}\" }}")],
            );
            let file = "traces/w2_prefix16.csv.gz";
            let columns = ["arrival_time_us", "input_tokens", "output_tokens"];
            let prefix = Some(["prefix_group", "prefix_length"]);
            played(
                shape,
                kind,
                number,
                effort,
                (file, columns, prefix),
                requests::shared_prefixes,
            )
        }
    }
}

/// Requests of a Vidur run, as often in a row as needed, on the tables that run was made with.
fn operators(shape: &Shape, number: u64, effort: &Effort) -> Result<(Ready, String), String> {
    let Some(folder) = &effort.fidelity else {
        return Err(
            "its tables and requests are in files; name their folder with --fidelity".into(),
        );
    };
    let inside = folder.join("vidur");
    let folder = if inside.is_dir() {
        inside
    } else {
        folder.clone()
    };
    let file = "runs/s1_2000/arrivals.csv";
    let columns = ["arrived_at", "num_prefill_tokens", "num_decode_tokens"];
    let recorded = requests::read(&folder.join(file), 1e9, columns, None)?;
    let tables = std::fs::canonicalize(folder.join("tables"));
    let tables = tables.map_err(|error| format!("cannot find its tables: {error}"))?;
    let cost = format!(
        "fleet.engine.cost={{ kind = \"operators\", folder = {:?} }}",
        tables.display().to_string()
    );
    let all = [
        "fleet.engine.model=llama-2-7b",
        "fleet.engine.gpu=a100-80gb",
        "fleet.engine.scheduler.token_budget=512",
        "fleet.engine.scheduler.max_num_seqs=128",
        cost.as_str(),
    ];
    let scenario = loaded(&own(shape, ONE_REPLICA), &all)?.scenario;
    let requests = requests::repeated(&recorded, number);
    Ok((Ready::Played(Box::new(scenario), requests), file.into()))
}

type Table = (&'static str, [&'static str; 3], Option<[&'static str; 2]>);
type Generator = fn(u64, u64) -> Result<Arc<[Request]>, windtunnel_base::sample::SampleError>;

/// Requests of a file if there is a folder for it, else generated, on the engines of a scenario of ours.
fn played(
    shape: &Shape,
    (text, overrides): (&str, Vec<String>),
    number: u64,
    effort: &Effort,
    (file, columns, prefix): Table,
    generator: Generator,
) -> Result<(Ready, String), String> {
    let mut all: Vec<&str> = overrides.iter().map(String::as_str).collect();
    // The model and the limits that the others' runs had.
    all.extend([
        "fleet.engine.model=qwen3-14b",
        "fleet.engine.scheduler.token_budget=2048",
        "fleet.engine.scheduler.max_num_seqs=256",
    ]);
    let scenario = loaded(&own(shape, text), &all)?.scenario;
    let (requests, source) = match &effort.fidelity {
        Some(folder) => {
            // The folder of all systems, or that of this one.
            let here = folder.join(file);
            let path = if here.exists() {
                here
            } else {
                folder.join("blis").join(file)
            };
            let mut requests = requests::read(&path, 1e3, columns, prefix)?;
            if (number as usize) < requests.len() {
                requests = requests[..number as usize].into();
            }
            (requests, file.to_owned())
        }
        None => {
            let made = generator(number, scenario.run.seed);
            (made.map_err(|error| error.to_string())?, "generated".into())
        }
    };
    Ok((Ready::Played(Box::new(scenario), requests), source))
}

fn own(shape: &Shape, text: &str) -> Source {
    Source::Text {
        name: format!("{}.toml", shape.name),
        text: text.to_owned(),
        dir: None,
    }
}

fn loaded(source: &Source, overrides: &[&str]) -> Result<windtunnel_scenarios::Loaded, String> {
    let overrides: Vec<Override> = overrides.iter().map(|&o| Override::new(o)).collect();
    load(source, &overrides, &LoadEnv::default()).map_err(|report| report.render(false))
}

fn point(source: Source, overrides: &[&str], effort: &Effort) -> Result<Ready, String> {
    let loaded = loaded(&source, overrides)?;
    let traces = effort.traces.as_deref();
    let traffic = workload::prepare(&loaded.scenario, loaded.dir.as_deref(), traces, false);
    Ok(Ready::Point(Box::new(RunPoint {
        seed: loaded.scenario.run.seed,
        traffic: Arc::new(traffic.map_err(|error| error.to_string())?),
        scenario: Arc::new(loaded.scenario),
        laws: true,
        rows: false,
        watch: None,
    })))
}
