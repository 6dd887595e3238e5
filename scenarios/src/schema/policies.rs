//! One enum per policy family: its variants are the policies there are. Names and defaults are
//! the field's. Adding a policy starts with a variant here; the compiler names the rest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use windtunnel_base::quantity::{Rate, Span};

/// Who gets in, decided before routing.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdmissionSpec {
    /// Everybody.
    #[default]
    Open,
    /// At most so many requests in the whole system (gateway and replicas).
    ConcurrencyLimit {
        /// Requests in the system.
        limit: u32,
    },
    /// As many in the whole system as the urgency of a request allows: under load, classes of low priority
    /// are turned away first.
    ShedByPriority {
        /// Requests in the system beyond which a class is turned away, by the rank of its priority among
        /// the classes, most urgent first; further ranks have the last limit.
        limits: Vec<u32>,
    },
    /// A token bucket of requests per tenant.
    TokenBucket {
        /// Requests per second that refill each tenant's bucket.
        rate: Rate,
        /// Requests that a full bucket holds.
        burst: u32,
    },
}

/// Which replica answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RoutingSpec {
    /// In turn.
    RoundRobin,
    /// Uniformly at random.
    Random,
    /// The least loaded of a few replicas drawn at random, with replacement.
    PowerOfTwo {
        /// What counts as load.
        #[serde(default)]
        load: LoadSignal,
        /// Replicas drawn; 1 is `random`.
        #[serde(default = "two")]
        choices: u32,
    },
    /// The least loaded replica.
    LeastLoaded {
        /// What counts as load.
        #[serde(default)]
        load: LoadSignal,
        /// Who among equals.
        #[serde(default)]
        ties: TieBreak,
    },
    /// Each conversation stays on the replica that its first request was sent to: the one with
    /// the fewest requests in flight, then the fewest conversations.
    Session {
        /// A conversation is forgotten after so long without a request.
        #[serde(default = "four_hours")]
        idle: Span,
    },
    /// A hash ring over the key, with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018).
    ConsistentHashing {
        /// What is hashed.
        #[serde(default)]
        key: HashKey,
        /// Points of each replica on the ring.
        #[serde(default = "hundred")]
        virtual_nodes: u32,
        /// No replica gets more than `1 + epsilon` times its fair share; `"none"` means no bound.
        #[serde(default = "quarter", with = "number_or_none")]
        #[schemars(schema_with = "number_or_none::schema")]
        epsilon: Option<f64>,
    },
    /// A hash of the first tokens of the prompt, walking on from replicas over the load factor
    /// (SGLang `prefix_hash`).
    PrefixHash {
        /// Tokens that are hashed.
        #[serde(default = "n256")]
        prefix_tokens: u32,
        /// A replica is passed over when its load exceeds so many times the mean.
        #[serde(default = "one_and_a_quarter")]
        load_factor: f64,
    },
    /// Each key stays on the replica that its first request was sent to, the least loaded; tenants
    /// never share one. With a `gateway.state_store` the map lives there.
    Affinity {
        /// What requests that belong together have in common.
        #[serde(default)]
        key: AffinityKey,
        /// With `key = "columns"`: columns of 64 tokens, at most so many whole ones.
        #[serde(default = "four")]
        columns: u32,
        /// Entries older than this are forgotten.
        #[serde(default = "one_hour")]
        ttl: Span,
        /// From when their age counts.
        #[serde(default)]
        ttl_from: TtlFrom,
        /// Entries that the map holds; the oldest leave first.
        #[serde(default = "million")]
        max_entries: u64,
        /// A replica with more than `1 + epsilon` times its fair share in flight is passed over, for
        /// the least loaded; `"none"` means no bound.
        #[serde(default = "quarter", with = "number_or_none")]
        #[schemars(schema_with = "number_or_none::schema")]
        epsilon: Option<f64>,
        /// What decides for new keys, and when a replica is passed over.
        #[serde(default)]
        load: LoadSignal,
    },
    /// Where the longest prefix is, by a radix index of what was routed, unless loads are too
    /// uneven (SGLang `cache_aware`).
    CacheAware {
        /// Share of the prompt that must match for the match to decide.
        #[serde(default = "half")]
        cache_threshold: f64,
        /// Loads (see `load`, in its unit) are uneven when they differ by more than this …
        #[serde(default = "n32u")]
        balance_abs_threshold: u32,
        /// … and by more than this factor.
        #[serde(default = "one_point_one")]
        balance_rel_threshold: f64,
        /// Tokens that the index keeps per replica; the least recently used leave first.
        #[serde(default = "tree_tokens")]
        max_tree_tokens: u64,
        /// Nodes that the index keeps per replica, likewise: stretches of prompts that were last used
        /// together.
        #[serde(default = "tree_nodes")]
        max_tree_nodes: u32,
        /// Tokens that must match at least.
        #[serde(default)]
        min_match_tokens: u32,
        /// What decides when no match does: `least_loaded` replicas by this.
        #[serde(default)]
        load: LoadSignal,
    },
    /// Dynamo's KV router: least cost of prefill left to do plus decode blocks.
    KvRouter {
        /// Weight of cached blocks.
        #[serde(default = "one")]
        overlap_score_credit: f64,
        /// Weight of prefill blocks.
        #[serde(default = "one")]
        prefill_load_scale: f64,
        /// Weight of each active request, in blocks.
        #[serde(default)]
        decode_active_request_weight: f64,
        /// Zero takes the least cost, ties at random; more draws from a softmax over the costs.
        #[serde(default)]
        temperature: f64,
        /// Follow the replicas' cache events; otherwise assume that what was routed is cached.
        #[serde(default = "yes")]
        use_kv_events: bool,
        /// Without events: how long what was routed is assumed to stay cached.
        #[serde(default = "two_minutes")]
        ttl: Span,
    },
    /// Filters, then a sum of weighted scores, then a picker (llm-d, gateway API inference
    /// extension, BLIS).
    Weighted {
        /// Replicas that fail a filter are left out, unless all fail.
        #[serde(default)]
        filters: Vec<FilterSpec>,
        /// Scorers by name, with their weights.
        #[schemars(schema_with = "scorers_schema")]
        scorers: BTreeMap<ScorerKind, f64>,
        /// Who among the best.
        #[serde(default)]
        picker: PickerKind,
        /// How the prefix scorers follow caches.
        #[serde(default)]
        prefix_index: PrefixIndexSpec,
        /// Divide the weights by their sum.
        #[serde(default)]
        normalize: bool,
        /// Scorers in the order in which their scores are added, before those not named here. It
        /// matters for the last bit of a sum, and so for what is equal.
        #[serde(default)]
        order: Vec<ScorerKind>,
    },
    /// SGLang's gateway as shipped: `cache_aware` with the defaults of its command line.
    #[serde(rename = "sglang-gateway")]
    SglangGateway,
    /// The gateway API inference extension as shipped: queue 2, KV utilization 2, approximate prefix
    /// cache 3.
    Gie,
    /// llm-d as shipped: precise prefix cache, load-aware and KV utilization scorers.
    #[serde(rename = "llm-d")]
    LlmD,
    /// Dynamo as shipped: its KV router with KV events.
    Dynamo,
    /// vLLM's data-parallel balancer: least `4 * waiting + running`, statistics every 100 ms.
    #[serde(rename = "vllm-dp")]
    VllmDp,
}

impl Default for RoutingSpec {
    fn default() -> Self {
        Self::LeastLoaded {
            load: LoadSignal::default(),
            ties: TieBreak::default(),
        }
    }
}

/// Who among equally loaded replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TieBreak {
    /// The lowest id. An idle fleet then fills up from its first replica.
    #[default]
    LowestId,
    /// Any of them, each as likely as the others.
    Random,
    /// Any of them, drawn as BLIS draws: by Go's `math/rand`, seeded with the run's seed xor the
    /// FNV-1a hash of `router`, and only if there are several.
    GoRandom,
}

/// What counts as load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadSignal {
    /// Requests sent and not yet answered: exact, the gateway counts them itself.
    #[default]
    InFlight,
    /// Prompt tokens sent in requests not yet answered: exact likewise.
    InFlightTokens,
    /// All tokens ever sent to the replica: prompts and, as predicted, outputs.
    TotalTokens,
    /// Waiting requests, as telemetry has it.
    Waiting,
    /// Waiting and running requests, as telemetry has it.
    WaitingAndRunning,
    /// Waiting and running requests, as telemetry has it, and those in flight, as the gateway
    /// counts them: who has reached a replica counts twice (BLIS).
    WaitingRunningInFlight,
    /// Share of KV blocks held, as telemetry has it. Differences count in billionths.
    KvUtilization,
    /// `4 * waiting + running` as telemetry has it, where requests sent since the last reading
    /// count as waiting (vLLM's data-parallel balancer).
    VllmDp,
}

/// What a hash ring hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The conversation.
    #[default]
    Session,
    /// The tenant.
    Tenant,
    /// The first extent of the prompt that others may share; the conversation if there is none.
    Prefix,
}

/// What requests that belong on the same replica have in common, besides their tenant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AffinityKey {
    /// The first columns of their prompts.
    #[default]
    Columns,
    /// The conversation.
    Conversation,
    /// The whole prompt.
    Prompt,
}

/// From when the age of an entry counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TtlFrom {
    /// Its last use.
    #[default]
    LastUse,
    /// Its first.
    FirstUse,
}

/// Leaves replicas out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FilterSpec {
    /// Those with more waiting requests than this.
    MaxWaiting {
        /// The most that may wait.
        limit: u32,
    },
    /// Those with a higher share of KV blocks held than this.
    MaxKvUtilization {
        /// The most, 0 to 1.
        limit: f64,
    },
    /// All but those with the fewest waiting requests.
    LeastWaiting,
    /// All but those within this many tokens of the longest cached prefix: by the replicas' cache
    /// events if `precise_prefix_cache` is scored, else by what was routed.
    LongestPrefix {
        /// Tokens short of the longest that still count.
        within_tokens: u32,
    },
}

/// Scores a replica from 0 (worst) to 1.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ScorerKind {
    /// Fewest waiting requests: `(max - waiting) / (max - min)`, 1 for all if equal.
    QueueDepth,
    /// `1 - share of KV blocks held`.
    KvUtilization,
    /// Share of the prompt cached, by what was routed (approximate).
    PrefixCache,
    /// Share of the prompt cached, by the replicas' cache events (precise).
    PrecisePrefixCache,
    /// `0.5 * (1 - waiting / 128)`; replicas with an empty queue get 0.5, none gets more (llm-d).
    LoadAware,
    /// Fewest requests in flight, scaled like `queue_depth`.
    ActiveRequest,
    /// 1 for the replica of the conversation's last request.
    SessionAffinity,
    /// Least recently given a request that had no cached prefix (llm-d).
    NoHitLru,
    /// Fewest running requests, scaled like `queue_depth`.
    Running,
    /// `1 / (1 + waiting + running + in flight)` (BLIS).
    LoadBalance,
    /// Most cached prefix blocks by the replicas' cache events: `(cached - min) / (max - min)`, 1
    /// for all if equal (BLIS, llm-d).
    PrecisePrefixRank,
    /// 1 for replicas with nothing in flight, else `(max - in flight) / max` (llm-d, BLIS).
    IdleFirst,
    /// Least `4 * waiting + running`, scaled like `queue_depth` (BLIS).
    VllmDp,
}

/// Who among the scored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PickerKind {
    /// The best; ties go to the lowest id.
    #[default]
    MaxScore,
    /// The best; ties are drawn.
    MaxScoreRandomTie,
    /// The best; ties are drawn as `go_random` draws for `least_loaded`.
    MaxScoreGoRandomTie,
    /// Drawn with probability proportional to the score.
    WeightedRandom,
}

/// How prefix scorers follow caches.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixIndexSpec {
    /// Tokens per block of the index; matches count in whole blocks.
    pub block_tokens: u32,
    /// Blocks of a prompt that are looked at.
    pub max_blocks: u32,
    /// Blocks that the approximate index keeps per replica, least recently used first out.
    pub capacity_blocks: u64,
    /// Who leaves first of the blocks that one request used.
    pub forget: ForgetOrder,
}

/// Which of the blocks that were used last by the same request an index forgets first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForgetOrder {
    /// The end of the prompt: what is left is a beginning, and can be found.
    #[default]
    DeepestFirst,
    /// The beginning of the prompt, as if its blocks were entered in that order (BLIS): what is
    /// left behind it cannot be found until the beginning comes back.
    ShallowestFirst,
}

impl Default for PrefixIndexSpec {
    fn default() -> Self {
        Self {
            block_tokens: 16,
            max_blocks: 256,
            capacity_blocks: 31_250,
            forget: ForgetOrder::DeepestFirst,
        }
    }
}

/// A table with a key per scorer, so that editors complete them and misspelt ones are found.
fn scorers_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let kinds = ScorerKind::json_schema(generator).to_value();
    let properties: serde_json::Map<String, serde_json::Value> = kinds["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|kind| {
            let name = kind["const"].as_str()?.to_owned();
            let schema =
                serde_json::json!({ "type": "number", "description": kind["description"] });
            Some((name, schema))
        })
        .collect();
    schemars::json_schema!({
        "type": "object", "properties": properties, "additionalProperties": false
    })
}

/// An optional number whose absence has a word of its own, because leaving it out means the default.
mod number_or_none {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Word(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(number) => s.serialize_f64(*number),
            None => s.serialize_str("none"),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
        match Written::deserialize(d)? {
            Written::Number(number) => Ok(Some(number)),
            Written::Word(word) if word == "none" => Ok(None),
            Written::Word(word) => Err(serde::de::Error::custom(format!(
                "`{word}` is neither a number nor `none`"
            ))),
        }
    }

    pub(super) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "number" }, { "type": "string", "enum": ["none"] }]
        })
    }
}

fn four_hours() -> Span {
    Span(windtunnel_base::time::SimDuration::from_secs(4 * 3600))
}
fn two_minutes() -> Span {
    Span(windtunnel_base::time::SimDuration::from_secs(120))
}
fn one_hour() -> Span {
    Span(windtunnel_base::time::SimDuration::from_secs(3600))
}
fn million() -> u64 {
    1_000_000
}
fn four() -> u32 {
    4
}
fn two() -> u32 {
    2
}
fn hundred() -> u32 {
    100
}
#[allow(
    clippy::unnecessary_wraps,
    reason = "serde defaults have the field's type"
)]
fn quarter() -> Option<f64> {
    Some(0.25)
}
fn n256() -> u32 {
    256
}
fn n32u() -> u32 {
    32
}
fn one_and_a_quarter() -> f64 {
    1.25
}
fn half() -> f64 {
    0.5
}
fn one_point_one() -> f64 {
    1.1
}
const fn tree_nodes() -> u32 {
    1 << 20
}
fn tree_tokens() -> u64 {
    67_108_864
}
fn one() -> f64 {
    1.0
}
fn yes() -> bool {
    true
}
