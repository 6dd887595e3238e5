//! Tests of replicas through their public contract.

/// Drives a replica through a list of calls and writes down all that can be observed.
mod harness;
/// A plain engine that moves one token at a time, to compare with.
mod naive;
/// Fast-forward and stepping one by one cannot be told apart; nor from the plain engine.
mod equivalence;
/// What executors are told, and that it changes nothing.
mod executing;
/// Stories of a few requests, step by step.
mod stories;
/// The same for the rules that presets are made of.
mod rules;
/// Throughput and latency against closed forms.
mod closed_forms;
/// Stations against queueing theory.
mod station;
/// Replicas that stand still, or are slow.
mod warped;
/// Building replicas from what scenarios say.
mod building;
