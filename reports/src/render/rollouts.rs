//! A line per stage of a rollout, as text and on the page.

use super::number::{count, digits, figure};
use crate::rollouts::RolloutStage;

/// What the columns are called, after the stage.
pub(super) const COLUMNS: [&str; 8] = [
    "exposure", "runs", "lasted", "compared", "differed", "to users", "bad", "risk",
];

/// The stage, and what stands in its columns.
pub(super) fn line(stage: &RolloutStage) -> (String, [String; COLUMNS.len()]) {
    let name = format!("{} · {}", stage.kernel, stage.kind);
    let cells = [
        figure(stage.exposure, "share"),
        count(stage.runs),
        stage
            .seconds
            .map_or(String::new(), |s| figure(s * 1e3, "ms")),
        amount(stage.compared),
        amount(stage.differed),
        amount(stage.exposed),
        amount(stage.harm),
        stage.risk.map_or(String::new(), digits),
    ];
    (name, cells)
}

/// A mean number of things: whole if it is.
fn amount(value: f64) -> String {
    match value.fract() == 0.0 && value >= 0.0 {
        true => count(value as u64),
        false => digits(value),
    }
}
