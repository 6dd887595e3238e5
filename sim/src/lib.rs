//! Everything outside a replica, under one clock: gateway, fleet, verification, laws. Knows no
//! files, threads or wall clocks.

/// One run: scenario, workload and seed in, result out.
pub mod run;
/// What policies see.
pub mod view;
/// What clients decide about their own attempts.
mod clients;
/// Between a client and its replica: admission, waiting, routing.
pub mod gateway;

/// How many replicas there should be.
mod scaling;

/// What can be due, and what goes first.
mod event;
/// All state of a run, and the order in which it changes.
mod world;
/// The replicas, their network and telemetry.
mod fleet;
/// Whether answers are good, where that depends on who gives them.
mod quality;
/// Who checks answers.
mod verification;
/// Laws that every run must obey.
mod laws;

pub use run::{
    Discrepancy, Law, Machine, Progress, RunError, RunOptions, Step, TieOrder, Violation, replicas,
    run, run_on,
};
pub use verification::Judgement;
