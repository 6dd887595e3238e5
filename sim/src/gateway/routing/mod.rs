//! Which replica answers. `build` makes a policy from its specification; presets are data
//! (`expand`) and become one of the general policies. A decision allocates nothing once its
//! buffers have grown, and reads only the signals that the policy declares.

/// Replicas compared by a load signal.
mod load;
/// Who among equals.
mod ties;
/// Replicas in an order that is kept.
mod order;
/// In turn.
mod round_robin;
/// Uniformly at random.
mod random;
/// The least loaded of a few drawn.
mod power_of_two;
/// The least loaded of all.
mod least_loaded;
/// Conversations stay where they are.
mod session;
/// A ring of hash points, walked clockwise.
mod ring;
/// A hash of the conversation, tenant or prefix, with bounded loads.
mod consistent_hashing;
/// A map from keys of prompts to replicas.
mod affinity;
/// A hash of the prompt's first tokens.
mod prefix_hash;
/// Where the longest prefix was routed, unless loads are uneven.
mod cache_aware;
/// Distinct KV blocks of active requests.
mod active;
/// Least prefill left to do plus decode blocks.
mod kv_router;
/// Filters, weighted scorers, picker.
mod weighted;

pub use ring::{HashRing, bounded_load};
pub use windtunnel_scenarios::expand::expand;

use crate::view::{FleetView, PolicyCx, ReplicaView, RoutingPolicy};
use windtunnel_base::ids::ReplicaId;
use windtunnel_scenarios::schema::policies::RoutingSpec;

/// What a policy may know of a fleet before it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FleetFacts {
    /// Replicas in all.
    pub replicas: usize,
    /// Tokens per KV block of the replicas (of the first kind, if they differ); 16 where
    /// replicas have no KV cache. More than zero.
    pub block_tokens: u32,
    /// Seed of the run, for policies that bring a generator of their own.
    pub seed: u64,
}

/// The policy that a specification names; presets are expanded.
pub fn build(spec: &RoutingSpec, fleet: &FleetFacts) -> Box<dyn RoutingPolicy> {
    match spec {
        RoutingSpec::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        RoutingSpec::Random => Box::new(random::Random),
        RoutingSpec::PowerOfTwo { load, choices } => {
            Box::new(power_of_two::PowerOfTwo::new(*load, *choices))
        }
        RoutingSpec::LeastLoaded { load, ties } => {
            Box::new(least_loaded::LeastLoaded::new(*load, *ties, fleet.seed))
        }
        RoutingSpec::Session { idle } => Box::new(session::Session::new(idle.0)),
        RoutingSpec::ConsistentHashing {
            key,
            virtual_nodes,
            epsilon,
        } => Box::new(consistent_hashing::ConsistentHashing::new(
            *key,
            *virtual_nodes,
            *epsilon,
            fleet,
        )),
        RoutingSpec::PrefixHash {
            prefix_tokens,
            load_factor,
        } => Box::new(prefix_hash::PrefixHash::new(
            *prefix_tokens,
            *load_factor,
            fleet,
        )),
        RoutingSpec::Affinity { .. } => Box::new(affinity::Affinity::new(spec)),
        RoutingSpec::CacheAware { .. } => Box::new(cache_aware::CacheAware::new(spec)),
        RoutingSpec::KvRouter { .. } => Box::new(kv_router::KvRouter::new(spec, fleet)),
        RoutingSpec::Weighted {
            filters,
            scorers,
            picker,
            prefix_index,
            normalize,
            order,
        } => Box::new(weighted::Weighted::new(
            &weighted::Parts {
                filters,
                scorers,
                picker: *picker,
                prefix_index,
                normalize: *normalize,
                order,
            },
            fleet.seed,
        )),
        RoutingSpec::SglangGateway
        | RoutingSpec::Gie
        | RoutingSpec::LlmD
        | RoutingSpec::Dynamo
        | RoutingSpec::VllmDp => build(&expand(spec).0, fleet),
    }
}

/// Where a replica stands in the view; at its own id while all replicas are routable.
fn position(fleet: &FleetView<'_>, id: ReplicaId) -> Option<usize> {
    if fleet.replicas.get(id.index()).is_some_and(|r| r.id == id) {
        return Some(id.index());
    }
    fleet.replicas.binary_search_by_key(&id, |r| r.id).ok()
}

/// One past the highest id in view: how long arrays by id must be.
fn width(fleet: &FleetView<'_>) -> usize {
    fleet.replicas.last().map_or(0, |r| r.id.index() + 1)
}

/// Writes scores for `explain`, if anybody asked; replicas out of view get minus infinity.
fn note(
    cx: &mut PolicyCx<'_>,
    fleet: &FleetView<'_>,
    mut score: impl FnMut(usize, &ReplicaView) -> f64,
) {
    if let Some(scores) = cx.scores.as_deref_mut() {
        scores.clear();
        scores.resize(width(fleet), f64::NEG_INFINITY);
        for (place, replica) in fleet.replicas.iter().enumerate() {
            scores[replica.id.index()] = score(place, replica);
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod properties;
