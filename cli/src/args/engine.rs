//! Arguments of `engine` and `calibrate`.

use super::{Format, TalkArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EngineCommand {
    /// Say which devices and models there are, and which would be used
    Info {
        /// table or json
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Measure steps against what the device can do
    Bench(EngineBenchArgs),
    /// Say what a model answers to a prompt
    Ask(AskArgs),
    /// Run agentic sessions through the cascade's layers: each alone, all, and all but one
    Cascade(CascadeArgs),
    /// Train the pocket models from a seed; taken up again where it was interrupted
    Train(TrainArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EngineBenchArgs {
    /// pocket_frontier, pocket_light, a folder with config.json and safetensors, or 8b: the sizes of a model
    /// with 8 billion weights, which are drawn on the GPU
    #[arg(long, value_name = "NAME|DIR|8b", default_value = "pocket_frontier")]
    pub(crate) model: String,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Writes the figures as JSON, with device, driver, version and date
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    /// table or json
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AskArgs {
    /// The prompt; read by the `tokenizer.json` beside the weights, byte by byte without one
    pub(crate) prompt: String,
    /// pocket_frontier, pocket_light, or a folder with config.json and safetensors
    #[arg(long, value_name = "NAME|DIR", default_value = "pocket_frontier")]
    pub(crate) model: String,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_tokens: u32,
    /// 0 takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub(crate) temperature: f32,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CascadeArgs {
    /// The model that answers: pocket_frontier, or a folder with config.json and safetensors
    #[arg(long, value_name = "NAME|DIR", default_value = "pocket_frontier")]
    pub(crate) frontier: String,
    /// The model that answers for less, of the same vocabulary
    #[arg(long, value_name = "NAME|DIR", default_value = "pocket_light")]
    pub(crate) light: String,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Sessions, all at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) sessions: u32,
    /// Turns of each
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) turns: u32,
    /// Share of turns that change nothing
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    pub(crate) no_change: f64,
    /// Bytes of text before every task, the same in all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preamble: usize,
    /// Seed of sessions
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Also over how many turns change nothing and how many sessions there are, and how old the
    /// control plane's signals are
    #[arg(long)]
    pub(crate) map: bool,
    /// Write what was measured on the CPU as a scenario that the simulator runs
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    /// table or json
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Device {
    /// A GPU if there is one that can be used, else the CPU
    Auto,
    /// The CPU
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Trained {
    /// The model that answers
    Frontier,
    /// The model that is distilled from it; the folder's frontier, or the one that is built in
    Light,
    /// Both, one after the other
    All,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TrainArgs {
    /// Which model
    #[arg(long, value_enum, default_value_t = Trained::All)]
    pub(crate) model: Trained,
    /// Folder for `frontier/` and `light/`, and for checkpoints meanwhile
    #[arg(long, value_name = "DIR", default_value = "models")]
    pub(crate) out: PathBuf,
    /// Seed of weights and tasks
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// So many steps instead of a model's own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) steps: Option<u32>,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// pocket_frontier, pocket_light, or a folder with config.json and safetensors
    #[arg(long, value_name = "NAME|DIR", default_value = "pocket_frontier")]
    pub(crate) model: String,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub(crate) device: Device,
    /// Also measure every layer of a cascade, with this model of the same vocabulary as the light one; `none`
    /// leaves layers out. pocket_light beside pocket_frontier, if absent; on the CPU
    #[arg(long, value_name = "NAME|DIR")]
    pub(crate) light: Option<String>,
    /// File to write, for `engine.cost = { kind = "table", file = … }` and, with layers,
    /// `engine.cascade.file`
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Time for measuring, such as `60s`; at least three rounds are made
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(crate) budget: String,
    /// Most decoding sequences of a step; the engine's `max_num_seqs`
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) max_num_seqs: usize,
    /// Most new prompt tokens of a step; the engine's `max_num_batched_tokens`
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) max_num_batched_tokens: usize,
    /// Seed of the held-out steps
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
}
