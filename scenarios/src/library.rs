//! Scenarios, policies and engine presets that come with the program, each a commented file that
//! teaches.

use windtunnel_engine::config::EnginePreset;

/// One file of the library.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, as in `windtunnel run NAME` or `extends = "library:NAME"`.
    pub name: &'static str,
    /// What to find it by.
    pub tags: &'static [&'static str],
    /// The file.
    pub text: &'static str,
}

impl Entry {
    /// Its purpose, in one line: the file's own words.
    pub fn purpose(&self) -> &'static str {
        self.text
            .lines()
            .find_map(|line| line.strip_prefix("purpose = \""))
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or_default()
    }
}

macro_rules! entries {
    ($folder:literal: $($name:literal $($tag:literal)*;)*) => { &[
        $(Entry {
            name: $name,
            tags: &[$($tag),*],
            text: include_str!(concat!("../", $folder, "/", $name, ".toml")),
        },)*
    ] };
}

const SCENARIOS: &[Entry] = entries! { "library":
    "smoke" "fast" "first";
    "chat-burst" "bursts" "prefixes" "classes" "tenants";
    "chat-sessions" "conversations" "closed loop";
    "rag-prefix" "prefixes" "routing";
    "shared-cache" "prefixes" "memory";
    "agents-closed-loop" "agents" "conversations" "closed loop";
    "diurnal" "varying load";
    "three-regions" "varying load" "classes";
    "similar-lengths" "scheduling";
    "edge-cache" "stored answers";
    "quantised-edge" "models" "cost";
    "flash-crowd" "varying load" "overload";
    "step-load" "varying load";
    "long-prompts" "scheduling" "classes";
    "memory-pressure" "memory" "preemption";
    "mixed-classes" "classes" "scheduling" "tenants";
    "stale-telemetry" "telemetry" "routing";
    "store-failover" "failures" "routing" "conversations";
    "prefix-hot-spot" "failures" "prefixes" "routing";
    "weighted-gie" "prefixes" "routing";
    "reference-smoke" "reference engine" "tasks";
    "reference-live" "reference engine" "tasks";
    "reference-cascade" "reference engine" "cascade" "agents" "tasks";
    "mm1" "theory" "stations";
    "mmc" "theory" "stations";
    "mg1" "theory" "stations";
    "serr-agentic" "cascade" "agents";
    "serr-busy" "cascade" "agents";
    "serr-launches" "cascade" "agents";
    "serr-graphs" "cascade" "agents";
    "serr-critical" "cascade" "agents";
    "serr-one-shot" "cascade";
    "serr-long-context" "cascade" "agents" "memory";
    "serr-drift" "cascade" "agents" "varying load";
    "serr-best-case" "cascade" "agents";
    "kernel-eviction" "boundary" "kernels";
    "verifier-ladder" "verification";
    "kernel-drift" "boundary" "kernels";
    "kernel-rollout" "boundary" "kernels";
    "verifier-outage" "boundary" "verification";
    "brown-out" "boundary" "overload" "retries";
    "crowd-at-peak" "boundary" "scaling" "varying load" "overload" "classes";
    "metastable" "overload" "retries" "stations";
    "prompt-injection" "gateway" "attacks";
    "lost-replica" "boundary" "gateway";
    "noisy-neighbour" "gateway" "tenants" "bursts";
    "stampede" "boundary" "coalescing" "bursts";
    "leader-failure" "boundary" "coalescing";
    "ttl-avalanche" "boundary" "stored answers";
    "revalidation" "stored answers";
    "origin-outage" "boundary" "stored answers";
    "similar-questions" "stored answers";
    "azure-conv" "trace";
    "azure-code" "trace" "bursts";
    "mooncake-conversation" "trace" "prefixes";
    "servegen-m-large" "trace" "bursts";
    "servegen-deepseek-r1" "trace" "reasoning";
    "agentic-coding" "trace" "agents" "closed loop";
    "vtc-tenants" "trace" "tenants";
};

const POLICIES: &[Entry] = entries! { "library/policies":
    "round-robin" "baseline";
    "sglang-gateway" "caches";
    "gie" "caches" "scorers";
    "llm-d" "caches" "scorers";
    "dynamo" "caches";
    "vllm-dp" "queues";
    "cascade-none" "cascade";
    "cascade-l0" "cascade";
    "cascade-l1" "cascade";
    "cascade-l2" "cascade";
    "cascade-l3" "cascade";
    "cascade-l24" "cascade";
    "cascade-all-but-l5" "cascade";
    "cascade-all" "cascade";
};

/// As `EnginePreset::ALL`.
const ENGINES: &[Entry; 4] = entries! { "library/engines":
    "vllm-v1";
    "vllm-v0";
    "sarathi";
    "blis";
};

/// The scenarios, in the order to read them.
pub fn list() -> &'static [Entry] {
    SCENARIOS
}

/// The scenario of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    SCENARIOS.iter().find(|e| e.name == name)
}

/// The policies, for `--policy`.
pub fn policies() -> &'static [Entry] {
    POLICIES
}

/// What an engine preset stands for: the tables of an engine.
pub fn engine(preset: EnginePreset) -> &'static Entry {
    match preset {
        EnginePreset::VllmV1 => &ENGINES[0],
        EnginePreset::VllmV0 => &ENGINES[1],
        EnginePreset::Sarathi => &ENGINES[2],
        EnginePreset::Blis => &ENGINES[3],
    }
}

/// The policy of this name.
pub fn find_policy(name: &str) -> Option<&'static Entry> {
    POLICIES.iter().find(|e| e.name == name)
}
