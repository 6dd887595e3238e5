//! Documents: what people read, and what other programs do.

/// Numbers as people read them.
pub mod number;
/// The terminal table.
pub mod table;
/// `summary.json`.
pub mod json;
/// `points.csv`.
pub mod points;
/// Markdown, for pull requests and job summaries.
pub mod markdown;
/// Where time went, as text.
pub mod story;
/// Plots as SVG.
pub mod plots;
/// The kinds of drawings.
mod paint;
mod safeguards;
/// Stages of rollouts.
mod rollouts;
/// `report.html`, one file.
pub mod html;
/// Predictions beside measurements: table, CSV, JSON and page.
pub mod fidelity;
