//! From a path or library name to a checked scenario and its traffic. Knows replicas only as
//! configuration; runs nothing.

/// The file format, one file per table.
pub mod schema;
/// Where requests come from.
pub mod workload;
