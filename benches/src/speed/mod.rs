//! Standard shapes of work, and what each costs: requests and facts per second of CPU time, and memory.
//! `windtunnel bench` prints them, `cargo bench` and `PERFORMANCE.md` use the same.
//!
//! What is timed is the run itself: world, requests, laws, full metrics and the accounts of memory, no rows.
//! Reading scenario and trace is not.

/// CPU time, memory, machine.
pub mod cost;
/// Requests of the shapes that others were measured on.
mod requests;

use crate::execute::{RunPoint, run_point};
use requests::{Played, Request};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::{LoadEnv, Override, Source, load, workload};
use windtunnel_sim::{RunOptions, run};

const MM1: &str = include_str!("../../benches/scenarios/mm1.toml");
const ONE_REPLICA: &str = include_str!("../../benches/scenarios/one-replica.toml");
const SHARED_PREFIXES: &str = include_str!("../../benches/scenarios/shared-prefixes.toml");
const LONG_PREFIXES: &str = include_str!("../../benches/scenarios/long-prefixes.toml");
const OPEN_SESSIONS: &str = include_str!("../../benches/scenarios/open-sessions.toml");

/// A standard shape of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    /// Requests, and with `--quick`.
    pub requests: [u64; 2],
    work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    /// A scenario of the benchmarks' own, and what is changed in it.
    Own(&'static str, &'static [&'static str]),
    /// A library scenario as it is.
    Library(&'static str),
    /// Constant gaps and normal lengths on one replica.
    OneReplica,
    /// 16 shared prefixes, with this routing.
    SharedPrefixes(&'static str),
    /// Chat requests on tables of operators; both are in files only.
    Operators,
    /// Long prompts with shared beginnings: the trace, if there are traces.
    LongPrefixes,
    /// So many replicas, each with the load of `one-replica`.
    Fleet(&'static str, &'static str),
}

impl Shape {
    /// Whether it runs only with [`Effort::fidelity`].
    pub const fn needs_files(&self) -> bool {
        matches!(self.work, Work::Operators)
    }
}

const fn shape(name: &'static str, requests: [u64; 2], work: Work, title: &'static str) -> Shape {
    Shape {
        name,
        title,
        requests,
        work,
    }
}

/// All shapes, in the order of the table.
pub const SHAPES: [Shape; 16] = [
    shape(
        "smoke",
        [1_200, 1_200],
        Work::Library("smoke"),
        "the smoke scenario, start of the program included",
    ),
    shape(
        "mm1",
        [2_000_000, 200_000],
        Work::Own(MM1, &[]),
        "M/M/1 at load 0.8: the cheapest request there is",
    ),
    shape(
        "one-replica",
        [100_000, 10_000],
        Work::OneReplica,
        "one replica, 10 req/s, 512 + 512 tokens (W1)",
    ),
    shape(
        "round-robin",
        [10_000, 10_000],
        Work::SharedPrefixes("round_robin"),
        "8 replicas, 16 shared prefixes (W2), round robin",
    ),
    shape(
        "cache-aware",
        [10_000, 10_000],
        Work::SharedPrefixes("cache_aware"),
        "the same, cache-aware routing",
    ),
    shape(
        "kv-aware",
        [12_031, 3_000],
        Work::LongPrefixes,
        "8 workers, prompts of 12,000 tokens, KV-aware routing",
    ),
    shape(
        "operators",
        [8_000, 2_000],
        Work::Operators,
        "Llama-2-7B by operator tables, chat requests; needs --fidelity",
    ),
    shape(
        "flat-1k",
        [1_000, 1_000],
        Work::Own(ONE_REPLICA, &[]),
        "one replica, a short run",
    ),
    shape(
        "flat-10k",
        [10_000, 10_000],
        Work::Own(ONE_REPLICA, &[]),
        "the same, ten times as long",
    ),
    shape(
        "flat-1m",
        [1_000_000, 100_000],
        Work::Own(ONE_REPLICA, &[]),
        "the same, a thousand times as long",
    ),
    shape(
        "flat-10m",
        [10_000_000, 200_000],
        Work::Own(ONE_REPLICA, &[]),
        "the same, ten thousand times as long",
    ),
    shape(
        "fleet-1",
        [100_000, 10_000],
        Work::Fleet("fleet.replicas=1", "traffic.request_rate=\"10 req/s\""),
        "1 replica, least loaded",
    ),
    shape(
        "fleet-8",
        [100_000, 10_000],
        Work::Fleet("fleet.replicas=8", "traffic.request_rate=\"80 req/s\""),
        "8 replicas, least loaded",
    ),
    shape(
        "fleet-64",
        [100_000, 10_000],
        Work::Fleet("fleet.replicas=64", "traffic.request_rate=\"640 req/s\""),
        "64 replicas, least loaded",
    ),
    shape(
        "fleet-1024",
        [100_000, 20_000],
        Work::Fleet(
            "fleet.replicas=1024",
            "traffic.request_rate=\"10240 req/s\"",
        ),
        "1,024 replicas, least loaded",
    ),
    shape(
        "open-sessions",
        [2_200_000, 220_000],
        Work::Own(OPEN_SESSIONS, &[]),
        "a million conversations open at once",
    ),
];

/// How shapes are run.
#[derive(Clone, Debug, Default)]
pub struct Effort {
    /// Fewer requests.
    pub quick: bool,
    /// So many requests instead of a shape's own number.
    pub requests: Option<u64>,
    /// Folder with the requests that others were measured on.
    pub fidelity: Option<PathBuf>,
    /// Folder with traces.
    pub traces: Option<PathBuf>,
}

/// What a shape cost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The shape's name.
    pub shape: String,
    /// What it is.
    pub title: String,
    /// Where its requests come from: `generated`, or a file.
    pub source: String,
    /// Requests of one run.
    pub requests: u64,
    /// Facts that were checked, booked and hashed in one run.
    pub facts: u64,
    /// Steps of replicas in one run.
    pub steps: u64,
    /// CPU time of the best run, in seconds.
    pub cpu_s: f64,
    /// Requests per second of CPU time.
    pub requests_per_cpu_s: f64,
    /// Facts per second of CPU time.
    pub facts_per_cpu_s: f64,
    /// The most memory that the process had in RAM, in bytes, if the system says.
    pub peak_bytes: Option<u64>,
    /// Runs of which the best counts.
    pub runs: u32,
    /// Digest of the run: equal work, equal digest.
    pub digest: String,
}

/// Repeats a shape until so much CPU time is spent, in ns: short runs are timed coarsely otherwise.
const SPEND: u64 = 500_000_000;
/// But not more often.
const MOST_RUNS: u32 = 50;

/// A shape whose input is read: what is timed comes after this.
#[derive(Debug)]
pub struct Prepared {
    work: Ready,
    source: String,
}

impl Prepared {
    /// Runs it once.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn run(&self) -> Result<RunResult, String> {
        self.work.run()
    }
}

/// What a shape runs.
#[derive(Debug)]
enum Ready {
    Point(Box<RunPoint>),
    Played(Box<Scenario>, Arc<[Request]>),
}

impl Ready {
    fn run(&self) -> Result<RunResult, String> {
        match self {
            Self::Point(point) => run_point(point, &|_| ()),
            Self::Played(scenario, requests) => {
                let options = RunOptions {
                    keep_rows: false,
                    ..RunOptions::default()
                };
                let mut workload = Played::new(requests);
                run(scenario, &mut workload, scenario.run.seed, options)
            }
        }
        .map_err(|error| error.to_string())
    }
}

/// Runs a shape in this process. Memory is that of the whole process, so a process should run one shape.
///
/// # Errors
/// If files cannot be read, or a law is broken.
pub fn measure(shape: &Shape, effort: &Effort) -> Result<Measured, String> {
    let ready = prepare(shape, effort)?;
    let from_start = matches!(shape.work, Work::Library(_));
    let (mut best, mut spent, mut runs) = (u64::MAX, 0, 0);
    let mut result;
    loop {
        // The first run of the smoke scenario is paid from the start of the process.
        let before = if from_start { Some(0) } else { cost::cpu_ns() };
        let wall = std::time::Instant::now();
        result = ready.run()?;
        let took = match (before, cost::cpu_ns()) {
            (Some(before), Some(after)) => after - before,
            _ => wall.elapsed().as_nanos() as u64,
        };
        best = best.min(took);
        spent += took;
        runs += 1;
        if from_start || spent >= SPEND || runs >= MOST_RUNS || effort.quick && runs >= 5 {
            break;
        }
    }
    let requests: u64 = result.segments.iter().map(|s| s.all.sent).sum();
    let cpu_s = best as f64 / 1e9;
    Ok(Measured {
        shape: shape.name.into(),
        title: shape.title.into(),
        source: ready.source,
        requests,
        facts: result.facts,
        steps: result.segments.iter().map(|s| s.steps).sum(),
        cpu_s,
        requests_per_cpu_s: requests as f64 / cpu_s,
        facts_per_cpu_s: result.facts as f64 / cpu_s,
        peak_bytes: cost::peak_bytes(),
        runs,
        digest: result.digest,
    })
}

/// Reads and compiles what a shape needs.
///
/// # Errors
/// If files cannot be read.
pub fn prepare(shape: &Shape, effort: &Effort) -> Result<Prepared, String> {
    let own = shape.requests[usize::from(effort.quick)];
    let (work, source) = read(shape, effort.requests.unwrap_or(own), effort)?;
    Ok(Prepared { work, source })
}

/// What a shape runs, and where its requests come from.
fn read(shape: &Shape, number: u64, effort: &Effort) -> Result<(Ready, String), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shape runs, its work is what it says, and it is the same each time.
    #[test]
    fn shapes_run_small_and_repeat() {
        for shape in SHAPES.iter().filter(|shape| !shape.needs_files()) {
            let small = Effort {
                quick: true,
                requests: Some(60),
                ..Effort::default()
            };
            let first = measure(shape, &small).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
            let again = measure(shape, &small).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
            assert_eq!((first.requests, first.facts), (again.requests, again.facts));
            assert_eq!(first.digest, again.digest, "{}", shape.name);
            assert_eq!(first.requests, 60, "{}", shape.name);
            assert!(first.facts >= 6 * first.requests, "{}", shape.name);
            assert!(first.cpu_s > 0.0 && first.requests_per_cpu_s.is_finite());
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SHAPES.len());
    }

    #[test]
    fn requests_of_a_file_are_read_and_bad_ones_refused() -> Result<(), Box<dyn std::error::Error>>
    {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("requests.csv");
        let columns = ["at", "in", "out"];
        std::fs::write(
            &path,
            "out,at,in,group,length\n5,1000,7,a,16\n1,2000,9,b,0\n",
        )?;
        let read = requests::read(&path, 1e3, columns, Some(["group", "length"]))?;
        assert_eq!(
            (read[0].at.as_nanos(), read[0].input, read[0].output),
            (1_000_000, 7, 5)
        );
        assert_eq!((read[0].prefix, read[1].prefix), (Some((0, 16)), None));
        // Again, as long after the last as that is after the start.
        let times = requests::repeated(&read, 3);
        let times: Vec<u64> = times.iter().map(|r| r.at.as_nanos()).collect();
        assert_eq!(times, [1_000_000, 2_000_000, 3_000_000]);
        for (bad, place) in [
            ("at,in\n1,2\n", "no column `out`"),
            ("at,in,out\n1,2,x\n", "line 2: `x`"),
            ("at,in,out\n2,2,2\n1,2,2\n", "line 3: earlier"),
        ] {
            std::fs::write(&path, bad)?;
            let error = requests::read(&path, 1e3, columns, None)
                .err()
                .unwrap_or_default();
            assert!(error.contains(place), "{error}");
        }
        Ok(())
    }
}
