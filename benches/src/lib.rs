//! Many runs: run points on worker threads, and the catalogue of cases that the simulator is
//! checked against.

/// Run points to worker threads; results in point order.
pub mod execute;
/// Cases with a known answer, run through the simulator's own components.
pub mod catalogue;
/// Predictions against measured systems and other simulators' runs.
pub mod fidelity;
