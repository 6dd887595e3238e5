//! The result of a run: segments of time with their counters, distributions and books, so that
//! warm-up can be left out after the fact without keeping every request.

/// Collecting while it happens.
mod collector;
/// The requests of a segment, or of one class.
mod population;
/// Which tenants are told apart.
mod tenants;

pub use crate::distribution::Distribution;
pub use collector::Collector;
pub use population::{Population, Standing};
pub use tenants::MAX_TENANTS;

use crate::account::Books;
use crate::computed::ComputedTotals;
use crate::decision::{Decision, GatewayTotals};
use crate::entry::Entry;
use crate::gateway::{PathTotals, PipelineTotals};
use crate::rollout::RolloutTotals;
use crate::rows::Row;
use crate::scaling::ScalingTotals;
use crate::shared_cache::SharedCacheTotals;
use crate::state_store::{IndexTotals, StoreTotals};
use crate::verification::LevelTotals;
use serde::{Deserialize, Serialize};

/// A stretch of time: requests sent in it, tokens and spending that fell into it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// All requests.
    pub all: Population,
    /// By class; empty if the scenario has only one.
    pub classes: Vec<Population>,
    /// By tenant, in the order of [`RunResult::tenants`]; behind [`MAX_TENANTS`] of them all others together.
    /// Empty if the scenario has only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<Population>,
    /// Money, energy and tokens.
    pub books: Books,
    /// Steps that ended in it.
    pub steps: u64,
    /// Of those, steps outside the cost model's range.
    pub extrapolated_steps: u64,
    /// Sum over steps of requests decoding, for the mean batch.
    pub decode_seqs: u64,
}

impl Segment {
    fn new(classes: usize) -> Self {
        let classes = if classes > 1 {
            vec![Population::default(); classes]
        } else {
            Vec::new()
        };
        Self {
            classes,
            ..Self::default()
        }
    }

    /// Adds another segment.
    pub fn merge(&mut self, o: &Self) {
        self.all.merge(&o.all);
        for (mine, theirs) in self.classes.iter_mut().zip(&o.classes) {
            mine.merge(theirs);
        }
        self.tenants_up_to(o.tenants.len());
        for (mine, theirs) in self.tenants.iter_mut().zip(&o.tenants) {
            mine.merge(theirs);
        }
        self.merge_counts(o);
    }

    /// The requests of the tenant at a place.
    fn tenant(&mut self, place: usize) -> &mut Population {
        self.tenants_up_to(place + 1);
        &mut self.tenants[place]
    }

    fn tenants_up_to(&mut self, places: usize) {
        if places > self.tenants.len() {
            self.tenants.resize_with(places, Population::default);
        }
    }

    /// Like [`Self::merge`], but takes over what it can.
    fn absorb(&mut self, o: Self) {
        self.merge_counts(&o);
        self.all.absorb(o.all);
        for (mine, theirs) in self.classes.iter_mut().zip(o.classes) {
            mine.absorb(theirs);
        }
        self.tenants_up_to(o.tenants.len());
        for (mine, theirs) in self.tenants.iter_mut().zip(o.tenants) {
            mine.absorb(theirs);
        }
    }

    fn merge_counts(&mut self, o: &Self) {
        self.books.merge(&o.books);
        self.steps += o.steps;
        self.extrapolated_steps += o.extrapolated_steps;
        self.decode_seqs += o.decode_seqs;
    }
}

/// A stretch of a run: the requests sent in it, before, during or after a disturbance.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// `before`, `during` or `after`.
    pub name: String,
    /// Its begin, ns: the end of a fixed warm-up at the earliest.
    pub from_ns: u64,
    /// Its end, ns.
    pub to_ns: u64,
    /// All requests.
    pub all: Population,
    /// By class; empty if the scenario has only one.
    pub classes: Vec<Population>,
}

impl Phase {
    fn holds(&self, ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&ns)
    }
}

/// State of one replica at one sampling instant; all zero while it is off or on order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplicaSample {
    /// Requests running.
    pub running: u32,
    /// Requests waiting in the replica.
    pub waiting: u32,
    /// KV blocks held by running requests.
    pub kv_held: u64,
    /// KV blocks with reusable content nobody runs on.
    pub kv_cached: u64,
    /// KV blocks in all.
    pub kv_total: u64,
}

/// State of the system at one sampling instant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// When, in ns.
    pub at_ns: u64,
    /// Requests waiting at the gateway.
    pub gateway_waiting: u32,
    /// Requests in the whole system.
    pub in_system: u32,
    /// Each replica.
    pub replicas: Vec<ReplicaSample>,
}

/// What one replica did over a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaTotals {
    /// Requests sent to it.
    pub requests: u64,
    /// Prompt tokens of those.
    pub prompt_tokens: u64,
    /// Output tokens it generated.
    pub output_tokens: u64,
    /// Time in steps, ns.
    pub busy_ns: u64,
}

/// A whole run. Serialised without samples and rows, which have files of their own
/// (`store`).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// The seed.
    pub seed: u64,
    /// Hash over every entry, in order.
    pub digest: String,
    /// When the last thing happened, ns.
    pub end_ns: u64,
    /// Class names, by [`ClassId`](windtunnel_base::ids::ClassId).
    pub class_names: Vec<String>,
    /// Tenant names, by rank.
    pub tenant_names: Vec<String>,
    /// Ranks of the tenants that are told apart, in the order of [`Segment::tenants`]; empty if there is only
    /// one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<u32>,
    /// Length of a segment, ns; segment `i` covers `i * segment_ns ..`.
    pub segment_ns: u64,
    /// The segments.
    pub segments: Vec<Segment>,
    /// Before, during and after the scenario's disturbance, if it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// Fixed warm-up, if the scenario sets one, ns.
    pub fixed_warm_up_ns: Option<u64>,
    /// Samples at equal distances.
    #[serde(skip)]
    pub samples: Vec<Sample>,
    /// Totals per replica.
    pub replicas: Vec<ReplicaTotals>,
    /// One row per request, in order of request, if the scenario asks for rows.
    #[serde(skip)]
    pub rows: Vec<Row>,
    /// What the gateway did.
    pub gateway: GatewayTotals,
    /// What the gateway's stages did, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<PipelineTotals>,
    /// What the choice of pools did, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<PathTotals>,
    /// What became of each kernel that was rolled out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutTotals>,
    /// What each verifier did, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verifiers: Vec<LevelTotals>,
    /// What the gateways' store did, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_store: Option<StoreTotals>,
    /// What the routing policy's index did, if it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexTotals>,
    /// What the cache of prompts that replicas share did, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_cache: Option<SharedCacheTotals>,
    /// What replicas that compute did, if there are any. Not part of the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computed: Option<ComputedTotals>,
    /// How many replicas there were, if their number followed the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingTotals>,
    /// Every routing decision, if asked for; else that of the watched request, if any.
    pub decisions: Vec<Decision>,
    /// Every entry of the watched request, if any.
    pub watched: Vec<Entry>,
    /// Integral of the number of requests in the system over time, in request-nanoseconds.
    pub in_system_ns: u128,
    /// Events handled: arrivals, ends of steps (or of runs of steps), messages, timers. Not part of
    /// the digest, because fast-forward makes fewer of them.
    pub events: u64,
    /// Facts written down: entries that laws checked and the digest took in.
    #[serde(default)]
    pub facts: u64,
}
