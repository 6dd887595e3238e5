//! The command line as typed. Applying it is each verb's business.

/// Verbs of the engine that computes.
mod engine;

use clap::{Args, Parser, Subcommand, ValueEnum};
pub(crate) use engine::{
    AskArgs, CalibrateArgs, CascadeArgs, Device, EngineBenchArgs, EngineCommand, TrainArgs, Trained,
};
use std::path::PathBuf;

/// Tests LLM-serving policies against realistic load before they ship.
#[derive(Debug, Parser)]
#[command(name = "windtunnel", version, about, long_about = None, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one scenario over one or more seeds; print a table, write a folder
    Run(RunArgs),
    /// Run one scenario in real time on the reference engine: every step is computed, and takes as
    /// long as it takes
    Live(RunArgs),
    /// Run scenarios, or read result folders, and compare them, paired over seeds
    Compare(CompareArgs),
    /// Check the simulator against theory and published numbers
    Validate(ValidateArgs),
    /// Say how fast the simulator is on this machine: requests per CPU second, and memory
    Bench(BenchArgs),
    /// The engine that computes: its devices and models, how near it comes to the hardware, training
    #[command(subcommand)]
    Engine(EngineCommand),
    /// Measure how long the steps of a model take on a device, as a cost table for scenarios
    Calibrate(CalibrateArgs),
    /// List, create, check and show scenarios
    #[command(subcommand)]
    Scenario(ScenarioCommand),
    /// Write documents from a result folder
    Report(ReportArgs),
    /// Where a request's time went, or what makes up a percentile
    Explain(ExplainArgs),
    /// Convert a result folder's requests to another format
    Export(ExportArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How a scenario is read: shared by every verb that takes one.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LoadArgs {
    /// Change a value of the scenario, such as `fleet.replicas=8`; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Scenario")]
    pub(crate) set: Vec<String>,
    /// Policies from a file or `scenarios/library/policies`; changes only decisions, never the world
    #[arg(long, value_name = "FILE|NAME", help_heading = "Scenario")]
    pub(crate) policy: Option<String>,
    /// Folder with trace files
    #[arg(
        long,
        value_name = "DIR",
        env = "WINDTUNNEL_TRACES",
        help_heading = "Scenario"
    )]
    pub(crate) traces: Option<PathBuf>,
    /// Count and report malformed trace rows instead of refusing the file
    #[arg(long, help_heading = "Scenario")]
    pub(crate) skip_bad_rows: bool,
    /// Mean requests per second (vLLM's name for `--set traffic.request_rate=…`); `inf` is all at once
    #[arg(long, value_name = "RATE", help_heading = "Scenario")]
    pub(crate) request_rate: Option<String>,
    /// Stop after so many requests (`--set traffic.num_prompts=…`)
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub(crate) num_prompts: Option<u64>,
    /// Gamma shape of the arrivals; 1 is Poisson, less is burstier
    #[arg(long, value_name = "SHAPE", help_heading = "Scenario")]
    pub(crate) burstiness: Option<f64>,
    /// Requests in flight beyond which clients wait (`--set traffic.max_concurrency=…`)
    #[arg(long, value_name = "N", help_heading = "Scenario")]
    pub(crate) max_concurrency: Option<u32>,
}

/// Which seeds, and how many at once.
#[derive(Clone, Debug, Args)]
pub(crate) struct SeedArgs {
    /// First seed; the scenario's if absent
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How many seeds, counting up from the first
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) seeds: u32,
    /// Runs at once; all cores if absent. Changes no result
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) jobs: Option<u32>,
}

/// What is said while it runs.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct TalkArgs {
    /// Print nothing but the result
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// No progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
    /// Colour
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// `summary.json`
    Json,
    /// One row per run point
    Csv,
    /// For pull requests and job summaries
    Markdown,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// A scenario file, or a name of the library (`windtunnel scenario list`)
    pub(crate) scenario: String,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) seeds: SeedArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    /// Folder for results; each invocation writes a folder of its own inside
    #[arg(short, long, value_name = "DIR", default_value = "out")]
    pub(crate) out: PathBuf,
    /// What is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Request rows as well: CSV, JSON lines, Parquet or none
    #[arg(long, value_enum, default_value_t = RowsFormat::Parquet)]
    pub(crate) rows: RowsFormat,
    /// Write a trace for ui.perfetto.dev of the first seed
    #[arg(long)]
    pub(crate) perfetto: bool,
    /// Write every step of every replica: a table by the name's end, .csv or .parquet; one seed only
    #[arg(long, value_name = "FILE")]
    pub(crate) steps: Option<PathBuf>,
    /// Do not check the laws of the simulation while it runs
    #[arg(long)]
    pub(crate) no_laws: bool,
    /// Say what would run, and stop
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// End with 0 even if a threshold fails
    #[arg(long)]
    pub(crate) exit_zero: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum RowsFormat {
    None,
    Csv,
    Jsonl,
    Parquet,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// Two or more scenarios, policy names prefixed by `policy:`, or result folders; the first is the reference
    #[arg(required = true, num_args = 1..)]
    pub(crate) subjects: Vec<String>,
    /// Scenario that `policy:` subjects are applied to
    #[arg(long, value_name = "SCENARIO")]
    pub(crate) on: Option<String>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) seeds: SeedArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    /// Metrics to compare, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// Hide changes smaller than this share, such as 0.02
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) threshold: f64,
    /// What is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// A share above zero, as a number or in per cent.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 0.01),
        None => (text.trim(), 1.0),
    };
    let share = number.parse::<f64>().map(|n| n * unit);
    let share = share.ok().filter(|s| s.is_finite() && *s > 0.0);
    share.ok_or_else(|| "write a share above zero, such as `3%` or `0.03`".to_owned())
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Cases (`V-B1`) or families (`V-B`); with --fidelity parts of runs' names; all if absent
    pub(crate) cases: Vec<String>,
    /// Compare with recorded runs instead: the folder of a measured system (vLLM) or of another
    /// simulator's runs (BLIS, Vidur), or a folder of such folders; see the README. `live`: run a
    /// scenario (reference-live if none is named) in real time on the reference engine, and compare
    /// with its simulation
    #[arg(long, value_name = "DIR", conflicts_with_all = ["list", "effort", "traces", "seed", "seeds"])]
    pub(crate) fidelity: Option<PathBuf>,
    /// With --fidelity: a folder for report.html, fidelity.json, figures.csv, plots and values
    /// request by request
    #[arg(long, value_name = "DIR", requires = "fidelity")]
    pub(crate) out: Option<PathBuf>,
    /// With --fidelity: how far each statistic of a measured engine's TTFT, TPOT and E2E may be off,
    /// such as `3%` or `0.03`; 2 % if absent
    #[arg(long, value_name = "SHARE", requires = "fidelity", value_parser = share)]
    pub(crate) tolerance: Option<f64>,
    /// Change a parameter of a case, such as `rho=0.7`, or, with --fidelity, a value of the scenarios
    /// that runs are played in, such as `fleet.engine.kv.blocks=4000`; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// List the cases and their parameters
    #[arg(long)]
    pub(crate) list: bool,
    /// Run so many times longer, which narrows the tolerance that follows from run length
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub(crate) effort: f64,
    /// Folder with trace files
    #[arg(long, value_name = "DIR", env = "WINDTUNNEL_TRACES")]
    pub(crate) traces: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeds: SeedArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    /// What is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// Shapes of work; all if absent
    pub(crate) shapes: Vec<String>,
    /// List the shapes
    #[arg(long)]
    pub(crate) list: bool,
    /// Fewer requests: a look, not a measurement
    #[arg(long)]
    pub(crate) quick: bool,
    /// So many requests instead of a shape's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) requests: Option<u64>,
    /// Folder with the requests that other simulators were measured on; similar ones are made if absent
    #[arg(long, value_name = "DIR")]
    pub(crate) fidelity: Option<PathBuf>,
    /// Folder with trace files
    #[arg(long, value_name = "DIR", env = "WINDTUNNEL_TRACES")]
    pub(crate) traces: Option<PathBuf>,
    /// table or json
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Run one shape in this process and print what it cost
    #[arg(long, hide = true)]
    pub(crate) here: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ScenarioCommand {
    /// List the library, a purpose line each
    List {
        /// What is printed
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Write a commented scenario file to start from
    New {
        /// File to write; must not exist
        file: PathBuf,
        /// Library scenario to extend
        #[arg(long)]
        from: Option<String>,
    },
    /// Check scenario files; all findings at once
    Check {
        /// Files or library names
        #[arg(required = true)]
        scenarios: Vec<String>,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Print a scenario with everything resolved
    Show {
        /// A file or library name
        scenario: String,
        /// Say where each value comes from
        #[arg(long)]
        origins: bool,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// What differs between two scenarios
    Diff {
        /// A file or library name
        a: String,
        /// Another
        b: String,
    },
    /// Print the JSON schema of scenario files
    Schema,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// A result folder
    pub(crate) folder: PathBuf,
    /// Write into this folder instead
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the summary as well
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A result folder, or a scenario to run
    pub(crate) subject: String,
    /// One request, by its number
    #[arg(long, value_name = "N", conflicts_with = "percentile")]
    pub(crate) request: Option<u32>,
    /// What makes up this percentile, 0 to 100
    #[arg(long, value_name = "P")]
    pub(crate) percentile: Option<f64>,
    /// Metric of the percentile: ttft, tpot or e2e
    #[arg(long, default_value = "ttft")]
    pub(crate) metric: String,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) seeds: SeedArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    /// table or json
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExportArgs {
    /// A result folder
    pub(crate) folder: PathBuf,
    /// Target format
    #[arg(long, value_enum)]
    pub(crate) to: ExportFormat,
    /// File to write; `-` is standard output for csv and jsonl
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Seed, if the folder holds several
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Only what happens from this time on, such as `60s` (perfetto)
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only what happens up to this time (perfetto)
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    Csv,
    Jsonl,
    Parquet,
    /// For ui.perfetto.dev
    Perfetto,
}
