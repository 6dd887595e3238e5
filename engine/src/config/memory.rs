//! Memory for keys and values.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::quantity::{Bandwidth, Bytes, Span};

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
    /// What nobody has used for so long is forgotten, at the first step that begins after that; for
    /// `eviction = "lru"`. Absent: it stays until its room is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_ttl: Option<Span>,
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
            prefix_ttl: None,
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
