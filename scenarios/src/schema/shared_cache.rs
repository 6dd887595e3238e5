//! The second level of prompt caches: one that all replicas share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::quantity::{Bandwidth, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_engine::refill::RefillWhen;

/// A cache of prompts behind all replicas, such as disks or memory of other machines. Every prompt is
/// written to it when it is computed, and again with its answer where a conversation goes on
/// (write-through: it holds what replicas hold, and more). Writing holds up nobody. What a replica has not
/// cached itself it reads back over a link of its own, one prompt after the other, while the request
/// waits and others go before it. Prompts that may not share a replica's cache share nothing here.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SharedCacheSpec {
    /// Tokens it holds, rounded down to whole blocks.
    pub capacity: u64,
    /// Which prompts are forgotten first.
    pub eviction: EvictionKind,
    /// Speed of each replica's own link to it.
    pub bandwidth: Bandwidth,
    /// Added to each read.
    pub latency: Span,
    /// When a replica reads instead of computing.
    pub refill: RefillWhen,
    /// Which prompts are read ahead, while their requests queue at the replica; others are read when their
    /// requests come up.
    pub prefetch: Prefetch,
}

impl Default for SharedCacheSpec {
    fn default() -> Self {
        Self {
            capacity: 50_000_000,
            eviction: EvictionKind::Lru,
            bandwidth: Bandwidth(10e9),
            latency: Span(SimDuration::from_millis(3)),
            refill: RefillWhen::default(),
            prefetch: Prefetch::default(),
        }
    }
}

/// Which prompts are read ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefetch {
    /// None.
    Off,
    /// Those whose routing policy followed its affinity map: a prompt of the same key was computed before,
    /// so something of it is likely to be there.
    #[default]
    OnAffinity,
    /// All.
    Always,
}
