//! The real binary, as a user meets it. One test program, so that it links once; each test works
//! in a folder of its own with an environment of its own.

/// A folder to work in, and what a command did.
mod place;
/// Every verb once.
mod verbs;
/// What scripts rely on: exit codes, streams, precedence, sameness.
mod contract;
/// Malformed input of every kind.
mod malformed;
/// Unusual scenarios, as people of the field write them.
mod field;
/// Recorded runs of other systems.
mod fidelity;
/// The engine that computes.
mod engine;
/// Traces, published ones where they are there.
mod traces;
/// Runs whose steps are computed.
mod computing;
/// Devices that fail.
mod faults;
/// The file of a run's steps.
mod steps;
/// What gateways and clients did, as users read it.
mod safeguards;
