//! Prompts in a cache that replicas share (their second level): what a replica has not cached itself, it may
//! fetch from there over a link of its own, instead of computing it again.
//!
//! Who owns the shared cache says how much of a prompt it has ([`crate::replica::Replica::offer`]); the
//! replica decides what to fetch and when. A request that waits for its prompt stands aside: it holds
//! neither slot nor memory, and others go before it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::SimDuration;

/// How a replica fetches from a shared cache.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RefillRules {
    /// Bytes per second of the replica's own link, which carries one fetch after the other; more than
    /// zero.
    pub bandwidth: f64,
    /// Added to each fetch; holds up no other.
    pub latency: SimDuration,
    /// When it fetches.
    pub when: RefillWhen,
}

/// When prompts are fetched from a shared cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefillWhen {
    /// If that is faster than to compute them: time until they are here, other fetches on the link
    /// first, against what they would add to a step of the prompt alone.
    #[default]
    IfFaster,
    /// Whenever the shared cache has more than the replica.
    Always,
    /// Never.
    Never,
}

/// What a request that has just been admitted was fetched from the shared cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refill {
    /// Whose prompt.
    pub request: RequestId,
    /// Tokens of it that need not be computed for that reason: whole blocks, beyond those that the
    /// replica had cached itself.
    pub tokens: u32,
    /// From asking for the first of them to having all.
    pub took: SimDuration,
    /// The part of that in which the request could not have been admitted anyway:
    /// `min(time until it could, took)`.
    pub hidden: SimDuration,
}
