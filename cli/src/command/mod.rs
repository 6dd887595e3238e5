//! The verbs, one file each.

/// The catalogue of cases with a known answer.
pub(crate) mod validate;
/// Recorded runs of other systems, played again.
pub(crate) mod fidelity;
/// Shell completions.
pub(crate) mod completions;
/// One scenario, some seeds, a table and a folder.
pub(crate) mod run;
/// List, new, check, show, diff, schema.
pub(crate) mod scenario;
/// A result folder to documents.
pub(crate) mod report;
/// A result folder to another format.
pub(crate) mod export;
/// Scenarios, policies or folders side by side.
pub(crate) mod compare;
/// One request, or one percentile.
pub(crate) mod explain;
/// What standard shapes of work cost.
pub(crate) mod bench;
/// The engine that computes: info, bench, train.
pub(crate) mod engine;
/// Step times as a cost table.
pub(crate) mod calibrate;
/// The cascade's layers on real models.
pub(crate) mod cascade;
