//! From ledgers to figures: metrics, statistics, verdicts, plots, documents. Reads results, never
//! runs anything.

/// Which part of a run is measured, and whether it had settled.
pub mod steady;
/// The metrics: name, unit, population, formula.
pub mod metric;
/// Means and intervals over seeds, single and paired.
pub mod stats;
/// One figure over seeds.
pub mod estimate;
/// Conditions on metrics: pass, fail, undecided.
pub mod threshold;
/// `summary.json`: the figures of one or several seeds of one scenario.
pub mod summary;

/// Figures by tenant.
pub mod tenants;
/// What became of kernels that came into use in stages.
pub mod rollouts;

/// Two runs of the same traffic, paired.
pub mod compare;
/// Where a request's time went, and what makes the slow ones slow.
pub mod explain;
/// Predictions beside measurements.
pub mod fidelity;
/// Documents.
pub mod render;

pub use summary::Summary;
