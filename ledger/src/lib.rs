//! What happened, and what it cost: entries, accounts, rows, file formats, exports. Knows
//! nothing of scenarios, policies or engines; reports and notebooks read results through it.

/// The life of a request, fact by fact.
pub mod entry;
/// Entries folded to one row per request.
pub mod rows;
/// Money, energy and tokens in double entry, as integers.
pub mod account;
/// Distributions of times, mergeable and lossless in files.
pub mod distribution;
/// The result of a run: counters, distributions, time series, books.
pub mod result;
/// What the gateway's stages and safeguards did.
pub mod gateway;
/// Routing decisions, kept for `explain`; totals of the gateway.
pub mod decision;
/// What the gateways' store did over a run.
pub mod state_store;
/// What verifiers did.
pub mod verification;
/// What a cache of prompts that replicas share did.
pub mod shared_cache;
/// What replicas that compute did.
pub mod computed;
/// How many replicas there were, where their number follows the load.
pub mod scaling;
/// What became of kernels that were rolled out in stages.
pub mod rollout;
/// What rows look like in files; writing files whole or not at all.
pub mod format;
/// Rows and samples in the formats of other tools.
pub mod export;
/// The folder of a run.
pub mod store;
