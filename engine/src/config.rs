//! What a replica is, as scenario files say it. These types are the file format (serde, unknown
//! keys refused) and the JSON schema at once; their documentation is the manual.

/// A cascade of models.
mod cascade;
/// A cascade of models, computed.
mod computed;
/// Cost models.
mod cost;
/// Machines and models of one's own, and what steps draw.
mod hardware;
/// Memory for keys and values.
mod memory;
/// Engines that are known by name.
mod preset;
/// The engine that computes.
mod reference;
/// Files that calibrations are written to.
pub mod calibration;

pub use cascade::{
    CascadeControl, CascadeDevice, CascadeEvidence, CascadeLayers, CascadeModel, CascadeRoute,
    CascadeShadow, CascadeSkip, CascadeSpans, CascadeSpec, CascadeWorld,
};
pub use computed::{
    ComputedCascade, ComputedControl, ComputedEvidence, ComputedRoute, ComputedShadow,
    ComputedShort, ComputedSkip, ComputedSpans,
};
pub use cost::{
    ArchitectureSpec, BetaSpec, CoefficientsSpec, CostSpec, DecodePoint, LinearSpec, OperatorsSpec,
    PrefillPoint, Resident, TableSpec,
};
pub use hardware::{EnergySpec, GpuSpec, ModelSpec};
pub use memory::{
    Allocation, KvSpec, PreemptionKind, PrefixVisibility, RestartKind, ShardSpec, ShardSplit,
};
pub use preset::EnginePreset;
pub use reference::{ClockSpec, DeviceSpec, ReferenceSpec, WeightsSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::quantity::{HourlyPrice, Power, Span};

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
    /// Layers that leave out work, with kind `reference`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cascade: Option<Box<ComputedCascade>>,
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
            cascade: None,
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
    /// times the longest, not their sum (the first vLLM). For kinds that compute prompts whole; `static`
    /// computes them as long as that, too.
    pub padded_prompts: bool,
    /// With `static`: a batch is formed of requests of similar lengths alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_buckets: Option<LengthBuckets>,
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

/// Requests by their length. A batch takes the requests of one bucket: of the one that who has waited
/// longest is in, so that nobody waits for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LengthBuckets {
    /// Which length.
    #[serde(default)]
    pub by: LengthKind,
    /// Where a bucket ends, in tokens, ascending: three bounds make four buckets. A request that is as
    /// long as a bound belongs below it.
    pub bounds: Vec<u32>,
}

/// A length of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LengthKind {
    /// Of its prompt.
    #[default]
    Prompt,
    /// Of its answer, as predicted; what it may be at most where nothing predicts it.
    Output,
    /// Of both together.
    Total,
}

impl LengthBuckets {
    /// The bucket of a request, counted from the shortest.
    pub fn of(&self, prompt: u32, expected_output: u32) -> usize {
        let length = match self.by {
            LengthKind::Prompt => prompt,
            LengthKind::Output => expected_output,
            LengthKind::Total => prompt.saturating_add(expected_output),
        };
        self.bounds.partition_point(|&bound| bound < length)
    }
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
            length_buckets: None,
            unlimited_decodes: false,
            admit_after_preemption: false,
            async_scheduling: false,
        }
    }
}
