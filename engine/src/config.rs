//! What a replica is, as scenario files say it. These types are the file format (serde, unknown
//! keys refused) and the JSON schema at once; their documentation is the manual.

/// A cascade of models.
mod cascade;
/// Cost models.
mod cost;
/// Files that calibrations are written to.
pub mod calibration;

pub use cascade::{
    CascadeControl, CascadeDevice, CascadeEvidence, CascadeLayers, CascadeModel, CascadeRoute,
    CascadeShadow, CascadeSkip, CascadeSpans, CascadeSpec, CascadeWorld,
};
pub use cost::{
    ArchitectureSpec, BetaSpec, CoefficientsSpec, CostSpec, DecodePoint, LinearSpec, OperatorsSpec,
    PrefillPoint, Resident, TableSpec,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::quantity::{Bandwidth, Bytes, Compute, HourlyPrice, Power, Span};

/// One replica.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EngineSpec {
    /// An LLM engine with continuous batching and paged KV.
    Continuous(Box<ContinuousSpec>),
    /// The same engine, computing: the reference engine (`reference`) executes every step with a real
    /// model, and time advances by what its steps take. Needs the `run`, `live` and `validate` verbs
    /// of the program, which bring that engine along.
    Reference(Box<ContinuousSpec>),
    /// A plain service station: `servers` requests at a time, each for its own service time.
    /// For gateways' back ends and for checking the simulator against queueing theory.
    Station(StationSpec),
}

impl EngineSpec {
    /// The LLM engine, computing or not; none at a station.
    pub fn llm(&self) -> Option<&ContinuousSpec> {
        match self {
            Self::Continuous(spec) | Self::Reference(spec) => Some(spec),
            Self::Station(_) => None,
        }
    }

    /// As [`Self::llm`], to be changed.
    pub fn llm_mut(&mut self) -> Option<&mut ContinuousSpec> {
        match self {
            Self::Continuous(spec) | Self::Reference(spec) => Some(spec),
            Self::Station(_) => None,
        }
    }
}

/// A service station.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StationSpec {
    /// Requests served at once.
    pub servers: u32,
    /// Requests that may wait; none means no limit.
    pub queue_limit: Option<u32>,
    /// Who goes next.
    pub order: StationOrder,
    /// Price of the station.
    pub price: HourlyPrice,
    /// Power while serving nobody, and added per busy server.
    pub idle_power: Power,
    /// Power added by each busy server.
    pub busy_power: Power,
    /// A cascade of models serves here: times of service follow from prompts and answers by its
    /// cost model, and `traffic.service` means nothing.
    pub cascade: Option<Box<CascadeSpec>>,
}

/// Who goes next at a station.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StationOrder {
    /// First come, first served.
    #[default]
    Fcfs,
    /// By class priority (lower first), then first come; never interrupts.
    Priority,
    /// Last come, first served; never interrupts.
    Lifo,
    /// All requests share the servers equally (processor sharing).
    Sharing,
}

impl Default for StationSpec {
    fn default() -> Self {
        Self {
            servers: 1,
            queue_limit: None,
            order: StationOrder::Fcfs,
            price: HourlyPrice::default(),
            idle_power: Power::default(),
            busy_power: Power::default(),
            cascade: None,
        }
    }
}

/// An LLM engine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ContinuousSpec {
    /// The engine it behaves like: rules and limits of scheduler and memory that stand where this
    /// table says nothing else.
    pub preset: Option<EnginePreset>,
    /// GPU of the catalogue, such as `h100-sxm`; see `windtunnel scenario schema`.
    pub gpu: String,
    /// Another GPU than those of the catalogue; `gpu` then means nothing.
    pub custom_gpu: Option<GpuSpec>,
    /// Model of the catalogue, such as `llama-3.1-8b`.
    pub model: String,
    /// Another model than those of the catalogue; `model` then means nothing.
    pub custom_model: Option<ModelSpec>,
    /// GPUs of one replica that share every layer.
    pub tensor_parallel: u32,
    /// Longest prompt plus output; the model's own limit if absent.
    pub max_model_len: Option<u32>,
    /// Requests that may wait inside the replica; none means no limit.
    pub queue_limit: Option<u32>,
    /// What a step runs.
    pub scheduler: SchedulerSpec,
    /// Memory for keys and values.
    pub kv: KvSpec,
    /// How long a step takes.
    pub cost: CostSpec,
    /// Time on the way in and out that holds up no step.
    pub frontend: FrontendSpec,
    /// What a step draws; derived from the GPU if absent.
    pub energy: Option<EnergySpec>,
    /// Price of one GPU; its own if absent.
    pub gpu_price: Option<HourlyPrice>,
    /// Advance over uneventful decode steps in one loop. Changes nothing but speed.
    pub fast_forward: bool,
    /// What computes the steps, with kind `reference`; means nothing otherwise.
    pub reference: Option<ReferenceSpec>,
}

/// The reference engine: which model it computes, where, and on which clock.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReferenceSpec {
    /// The model it computes: `pocket_frontier`, `pocket_light`, `tiny` (for tests), or a folder
    /// with `config.json` and safetensors; a relative path starts at the working folder. Lengths and
    /// memory per token are those of this model; GPU and `model` of the engine give price, power
    /// and the modelled time of steps.
    pub model: String,
    /// Where the weights of a model with a name come from.
    pub weights: WeightsSpec,
    /// Seed of random weights.
    pub seed: u64,
    /// Where it computes.
    pub device: DeviceSpec,
    /// What time a step takes.
    pub clock: ClockSpec,
    /// Sampling temperature; 0 takes the most likely token.
    pub temperature: f64,
    /// Sample from the most likely tokens that together have this probability.
    pub top_p: f64,
}

impl Default for ReferenceSpec {
    fn default() -> Self {
        Self {
            model: "pocket_frontier".into(),
            weights: WeightsSpec::default(),
            seed: 1,
            device: DeviceSpec::default(),
            clock: ClockSpec::default(),
            temperature: 0.0,
            top_p: 1.0,
        }
    }
}

/// Where the weights of a named model come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightsSpec {
    /// Trained ones, where the program has them; else random.
    #[default]
    Auto,
    /// Drawn from `seed`.
    Random,
}

/// Where the reference engine computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSpec {
    /// A GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU.
    Cuda,
}

/// What time a computed step takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockSpec {
    /// What was measured around it.
    #[default]
    Measured,
    /// What the cost model says: answers are real, and runs repeat byte for byte.
    CostModel,
}

/// Engines that are known by name. What each stands for is a file of the scenario library.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnginePreset {
    /// vLLM with its V1 scheduler, as of 0.19.
    VllmV1,
    /// vLLM with its first scheduler, as Vidur models it.
    VllmV0,
    /// Sarathi-Serve, as Vidur models it.
    Sarathi,
    /// The engine of BLIS (inference-sim).
    Blis,
}

impl EnginePreset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::VllmV1, Self::VllmV0, Self::Sarathi, Self::Blis];

    /// Its name in scenario files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VllmV1 => "vllm-v1",
            Self::VllmV0 => "vllm-v0",
            Self::Sarathi => "sarathi",
            Self::Blis => "blis",
        }
    }

    /// The preset of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

impl Default for ContinuousSpec {
    fn default() -> Self {
        Self {
            preset: None,
            gpu: "h100-sxm".into(),
            custom_gpu: None,
            model: "llama-3.1-8b".into(),
            custom_model: None,
            tensor_parallel: 1,
            max_model_len: None,
            queue_limit: None,
            scheduler: SchedulerSpec::default(),
            kv: KvSpec::default(),
            cost: CostSpec::default(),
            frontend: FrontendSpec::default(),
            energy: None,
            gpu_price: None,
            fast_forward: true,
            reference: None,
        }
    }
}

/// The server in front of an engine: it parses and tokenizes requests, turns tokens back into text
/// and sends them on, all beside the engine, so none of it holds up a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FrontendSpec {
    /// From the request's arrival at the replica to the engine's waiting queue.
    pub input: Span,
    /// Added per output token on its way out: the first token comes out so much later, and every
    /// gap between tokens is so much longer.
    pub per_token: Span,
    /// From the last token to the end of the answer.
    pub completion: Span,
}

/// What a step runs. Limits are shared by all kinds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerSpec {
    /// The rule.
    pub kind: SchedulerKind,
    /// Tokens that one step may compute (vLLM `max_num_batched_tokens`). Kind `static` does not
    /// look at it: its first step computes all prompts of the batch.
    pub token_budget: u32,
    /// Requests that may run at once (vLLM `max_num_seqs`).
    pub max_num_seqs: u32,
    /// With `chunked`: cap on one request's prompt tokens per step; none means the budget.
    pub long_prefill_threshold: Option<u32>,
    /// A request that comes at the very instant at which a step ends joins the step that begins
    /// then (BLIS), instead of the one after it. Means nothing with `async_scheduling`.
    pub join_at_boundary: bool,
    /// Prompts of a step are padded to the longest of them, so that the budget bounds their number
    /// times the longest, not their sum (the first vLLM). For kinds that compute prompts whole.
    pub padded_prompts: bool,
    /// Decoding requests run whatever the budget; it bounds what they leave to prompts, which come
    /// after them (Sarathi-Serve). Needs `kv.allocation = "whole_prompt"`.
    pub unlimited_decodes: bool,
    /// Waiting requests may join a step for which somebody was preempted, even the one preempted
    /// (Sarathi-Serve in Vidur).
    pub admit_after_preemption: bool,
    /// A step is planned when the step before it begins (vLLM `--async-scheduling`). So it knows
    /// only who came before that; slots and blocks of requests whose last token that step makes
    /// are free one step later; and a request whose end could not be foreseen, because it stops
    /// before its limit, runs one step more. A step that would run nobody is planned anew at its start.
    pub async_scheduling: bool,
}

/// The rule by which a step is filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerKind {
    /// A batch is formed, runs until its last request is done, then the next is formed.
    Static,
    /// Requests join and leave at every iteration (Orca); prompts are computed whole, and a step
    /// with prompts computes the running requests' tokens too.
    Fcfs,
    /// A token budget per step, decoding requests first, prompts cut into chunks (vLLM V1).
    #[default]
    Chunked,
    /// As `chunked`, with the waiting queue by class priority, then by age; when memory is short
    /// the latest of the worst priority among the running is preempted (vLLM V1).
    Priority,
    /// As `chunked`, with the waiting queue by least predicted work.
    Shortest,
    /// Prompts first, whole, in steps of their own, as many as fit; only when none can be
    /// admitted the running requests decode, in order of arrival (vLLM V0).
    PrefillFirst,
}

impl Default for SchedulerSpec {
    fn default() -> Self {
        Self {
            kind: SchedulerKind::Chunked,
            token_budget: 8192,
            max_num_seqs: 256,
            long_prefill_threshold: None,
            join_at_boundary: false,
            padded_prompts: false,
            unlimited_decodes: false,
            admit_after_preemption: false,
            async_scheduling: false,
        }
    }
}

/// Memory for keys and values.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KvSpec {
    /// Tokens per block.
    pub block_size: u32,
    /// Blocks in all; derived from GPU memory, weights and `memory_utilization` if absent.
    pub blocks: Option<u64>,
    /// How the memory for keys and values of a replica is spread over its shards, if they do not
    /// all need the same per token; not with `blocks`, which says the result.
    pub shards: Option<ShardSpec>,
    /// Share of GPU memory the engine may use (vLLM `gpu_memory_utilization`), over 0 to 1.
    pub memory_utilization: f64,
    /// Memory per GPU set aside for activations and the runtime.
    pub activation_reserve: Bytes,
    /// Bytes per stored number: 2 for FP16, 1 for FP8.
    pub bytes_per_element: f64,
    /// Share of blocks, rounded down to whole ones, kept free when a request is admitted while
    /// others run, 0 to 1.
    pub watermark: f64,
    /// When a request gets the blocks for its prompt.
    pub allocation: Allocation,
    /// A decoding request runs only where a block is free, even if its last one has room
    /// (Vidur). No request may then fill all blocks.
    pub spare_block: bool,
    /// Admit a request only if its whole prompt fits into free blocks
    /// (vLLM V1 `scheduler_reserve_full_isl`).
    pub reserve_full_prompt: bool,
    /// Keep and reuse computed prefixes.
    pub prefix_cache: bool,
    /// When computed blocks can be reused by others.
    pub visibility: PrefixVisibility,
    /// Which reusable content is forgotten first.
    pub eviction: EvictionKind,
    /// What happens to a request thrown out of memory.
    pub preemption: PreemptionKind,
    /// What a request thrown out of memory computes again.
    pub restart: RestartKind,
    /// Host memory for swapped requests.
    pub swap_space: Bytes,
    /// Speed between host and device.
    pub swap_bandwidth: Bandwidth,
}

impl Default for KvSpec {
    fn default() -> Self {
        Self {
            block_size: 16,
            blocks: None,
            shards: None,
            memory_utilization: 0.9,
            activation_reserve: Bytes(4 << 30),
            bytes_per_element: 2.0,
            watermark: 0.01,
            allocation: Allocation::AsComputed,
            spare_block: false,
            reserve_full_prompt: false,
            prefix_cache: true,
            visibility: PrefixVisibility::OnSchedule,
            eviction: EvictionKind::Lru,
            preemption: PreemptionKind::Recompute,
            restart: RestartKind::Everything,
            swap_space: Bytes(4 << 30),
            swap_bandwidth: Bandwidth(25e9),
        }
    }
}

/// Shards of a replica's KV cache: parts of a model (ranges of layers, groups of heads) that keep
/// keys and values of the same tokens, but not equally many bytes of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShardSpec {
    /// Bytes per token of each shard, relative to one another, more than zero. Together they are
    /// the model's bytes per token.
    pub weights: Vec<f64>,
    /// Who gets how much of the memory.
    #[serde(default)]
    pub split: ShardSplit,
}

/// How memory is divided among the shards of a KV cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShardSplit {
    /// Each gets the same, as GPUs of one size do. A token is cached when every shard has its
    /// part, so the hungriest shard decides, and memory of the others is left over:
    /// `mean weight / largest weight` of all tokens fit.
    #[default]
    Equal,
    /// Each gets what its weight needs, so all are full at once.
    Proportional,
}

/// When computed blocks can be reused by others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrefixVisibility {
    /// When the step that computes them is formed, for later requests of the same step too
    /// (vLLM V1).
    #[default]
    OnSchedule,
    /// When the step that computes them has ended.
    OnComputed,
    /// When the request has finished.
    OnFinish,
}

/// When a request gets the blocks for its prompt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Allocation {
    /// As its chunks are computed.
    #[default]
    AsComputed,
    /// All of them when it is admitted.
    WholePrompt,
}

/// What a request thrown out of memory computes again, if its blocks are not swapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartKind {
    /// Its prompt and the tokens that came out so far, in one prefill; then it goes on (vLLM).
    #[default]
    Everything,
    /// What it had computed. For a decoding request that is the same; one whose prompt was not
    /// complete takes what it had for its prompt, and decodes the rest of it token by
    /// token (Vidur).
    Computed,
    /// Its prompt alone. The tokens that came out so far are lost and generated again (BLIS),
    /// unless it ran alone: then it would never get further.
    Scratch,
}

/// What happens to a request thrown out of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreemptionKind {
    /// Its blocks are released; prompt and generated tokens are computed again.
    #[default]
    Recompute,
    /// Its blocks are copied to host memory and back; recompute when host memory is full.
    Swap,
}

/// What a step draws.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EnergySpec {
    /// `idle + (peak - idle) * utilization` watts per GPU while a step runs, `idle` otherwise.
    Power {
        /// Per GPU, always.
        idle: Power,
        /// Per GPU, at full utilization.
        peak: Power,
    },
    /// Joules per output token `at_infinity + per_batch / B` (fits of measured servers), plus idle
    /// power while no step runs.
    PerToken {
        /// A fit of the catalogue that gives what is absent here.
        preset: Option<String>,
        /// Joules per token at an endless batch.
        at_infinity: Option<f64>,
        /// Joules per step, shared by the batch.
        per_batch: Option<f64>,
        /// Per GPU, while idle.
        idle: Option<Power>,
    },
}

/// A GPU that the catalogue does not know, or knows otherwise.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuSpec {
    /// Dense 16-bit operations per second.
    pub compute: Compute,
    /// Dense 8-bit operations per second; weights of one byte are computed in 16 bits if absent.
    pub compute_fp8: Option<Compute>,
    /// Memory, as the driver reports it.
    pub memory: Bytes,
    /// Memory bandwidth.
    pub bandwidth: Bandwidth,
    /// Bandwidth to the other GPUs of the replica, in one direction.
    pub interconnect: Bandwidth,
    /// Per collective call.
    pub interconnect_latency: Span,
    /// Power while idle.
    pub idle_power: Power,
    /// Power at full utilization.
    pub peak_power: Power,
    /// Price of an hour.
    pub price: HourlyPrice,
}

/// A dense decoder-only transformer with gated MLP that the catalogue does not know. The names in
/// brackets are those of a published `config.json`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Layers (`num_hidden_layers`).
    pub layers: u32,
    /// Width of the residual stream (`hidden_size`).
    pub hidden: u32,
    /// Width of the gated MLP (`intermediate_size`).
    pub ffn: u32,
    /// Query heads (`num_attention_heads`).
    pub heads: u32,
    /// Key-value heads, a divisor of `heads` (`num_key_value_heads`).
    pub kv_heads: u32,
    /// Numbers per head (`head_dim`).
    pub head_dim: u32,
    /// Rows of embedding and head, taken as two matrices (`vocab_size`).
    pub vocab: u32,
    /// Bytes per weight of the layers, 1 or 2; embedding and head have two.
    pub bytes_per_weight: u32,
    /// Longest prompt plus output (`max_position_embeddings`).
    pub max_len: u32,
}
