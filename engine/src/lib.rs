//! One replica as a state machine: scheduler, batch, paged KV and prefix cache, cost models,
//! energy. Owns no clock and no event queue; knows nothing of gateways, fleets or metrics.

/// What a replica is, as scenario files say it: hardware, scheduler, memory, cost, energy.
pub mod config;
/// What is visible of a request, what is so, and what a replica is given.
pub mod request;
/// The contract of a replica: `Engine`, its statistics and its outcomes.
pub mod engine;
/// The shape of one step, which is all that a cost model sees.
pub mod batch;
/// GPUs and models by name, and the memory they leave for keys and values.
pub mod hardware;
/// How long a step takes.
pub mod cost;
/// What a step draws.
pub mod energy;
/// Paged memory for keys and values, and the prefix cache in it.
pub mod kv;
/// The LLM engine: iteration-level scheduling over paged memory.
pub mod continuous;
/// Prompts fetched from a cache that replicas share.
pub mod refill;
/// Executing steps for real.
pub mod execute;
/// Turns of sessions through a cascade of models, by a cost model.
pub mod cascade;
/// A plain service station.
pub mod station;
/// A replica of either kind, built from what a scenario says.
pub mod replica;
