//! From a path or library name to a checked scenario and its traffic. Knows replicas only as
//! configuration; runs nothing.

/// The file format, one file per table.
pub mod schema;
/// The JSON schema of the format.
pub mod schema_json;
/// From a path or library name to a checked scenario.
pub mod load;
/// `--set key.path=value`.
pub mod overrides;
/// Findings, and how they are shown.
pub mod diagnostic;
/// The texts a scenario was read from.
pub mod source;
/// Conditions on metrics.
pub mod threshold;
/// Names of classes, tenants and clients by id.
pub mod names;
/// Scenarios and policies that come with the program.
pub mod library;
/// What shipped systems are made of.
pub mod expand;
/// Clusters of BLIS, as its command line says them.
pub mod blis;
/// Engines by name.
pub mod presets;
/// Scenarios as text: complete, with origins, and what differs between two.
pub mod show;
/// A commented file to begin with.
pub mod template;
/// Where requests come from.
pub mod workload;
/// Measured systems: operator tables and coefficients from files.
pub mod profile;

/// Documents whose values know where they were written.
mod tree;
/// What extends what.
mod layers;
/// Overlays that change decisions only.
mod policy;
/// Form, then sense.
mod check;

pub use check::suggest::did_you_mean;
pub use diagnostic::Report;
pub use load::{LoadEnv, Loaded, Source, load};
pub use names::Names;
pub use overrides::Override;
pub use schema::Scenario;
pub use threshold::Threshold;
