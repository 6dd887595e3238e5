//! Many runs: run points on worker threads, the catalogue of cases that the simulator is checked
//! against, and the shapes that its speed is measured on.

/// Run points to worker threads; results in point order.
pub mod execute;
/// Runs whose steps are computed.
pub mod computing;
/// Standard shapes of work, and what each costs.
pub mod speed;
/// Cases with a known answer, run through the simulator's own components.
pub mod catalogue;
/// Predictions against measured systems and other simulators' runs.
pub mod fidelity;
