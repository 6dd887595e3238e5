//! What happens to a request between its client and its replica: whether it gets in, whether it
//! waits, and where it goes.

/// Token buckets per tenant.
pub mod buckets;
/// Replicas that fail one request after the other.
pub mod outliers;
/// The stages, their times and their budget.
pub mod pipeline;
/// Which pool serves: kernels, their eviction, leakage.
pub mod paths;
/// Detectors of drift, one per kernel.
pub mod probing;
/// Kernels that come into use in stages.
pub mod rollout;
/// Who gets in.
pub mod admission;
/// Waiting rooms that are fair between tenants.
pub mod fair;
/// The waiting room in front of full replicas.
pub mod queue;
/// The store that gateways share.
pub mod state_store;
/// Which replica has how much of a prompt, as far as the gateway knows.
pub mod prefix_index;
/// Answers that are kept and given again.
pub mod answers;
/// Who is being answered for whom.
pub mod coalescing;
/// Which replica answers: one file per policy.
pub mod routing;
/// A trace through a routing policy and plain prefix caches, without time.
pub mod replay;
/// Small experiments on balance with known results.
pub mod experiments;
/// An order of use over slots of an arena.
mod recency;
/// Requests and fleets for tests.
#[cfg(test)]
pub(crate) mod fixtures;
