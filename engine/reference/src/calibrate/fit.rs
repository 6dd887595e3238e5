//! From times to a table, and how far off it is on steps it was not made from.

use super::plan::Kind;
use super::{Timed, rounded};
use crate::error::ReferenceError;
use windtunnel_engine::config::calibration::{Errors, HeldOut};
use windtunnel_engine::config::{DecodePoint, PrefillPoint, TableSpec};
use windtunnel_engine::cost::table::Table;

/// The middle of numbers, the mean of the two middle ones if they are even; zero of none.
pub(super) fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

/// The `q` quantile, linear between the two nearest; zero of none.
fn quantile(numbers: &[f64], q: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let at = q * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * at.fract()
}

/// Median distance of a measurement from the median of its step, as a share of that.
pub(super) fn noise(timed: &[Timed]) -> f64 {
    let mut distances = Vec::new();
    for t in timed {
        let middle = median(&t.ms);
        distances.extend(t.ms.iter().map(|ms| (ms - middle).abs() / middle));
    }
    (median(&distances) * 1e5).round() / 1e5
}

/// A table of the steps of the grid, and the two constants of steps with several parts.
pub(super) fn table(timed: &[Timed]) -> TableSpec {
    let mut table = TableSpec::default();
    let points = |table: &mut TableSpec| {
        (table.decode, table.prefill) = (Vec::new(), Vec::new());
        for t in timed {
            let ms = median(&t.ms);
            match t.kind {
                Kind::Decode(seqs, context) => table.decode.push(DecodePoint {
                    seqs,
                    context,
                    ms: rounded(ms),
                }),
                Kind::Prefill(tokens, context) => {
                    // Points stand for one prompt; long ones had to be several.
                    let extra = table.extra_prompt_ms * (t.step.prefill.len() - 1) as f64;
                    table.prefill.push(PrefillPoint {
                        tokens,
                        context,
                        ms: rounded((ms - extra).max(ms / 2.0)),
                    });
                }
                _ => {}
            }
        }
    };
    points(&mut table);
    let residuals = |table: &TableSpec, kind: Kind| -> Vec<f64> {
        let Ok(model) = Table::new(table) else {
            return Vec::new();
        };
        let these = timed.iter().filter(|t| t.kind == kind);
        these
            .map(|t| {
                let says = model.seconds(&t.step.shape()).0 * 1e3;
                let parts = match kind {
                    Kind::Prompts => t.step.prefill.len() - 1,
                    _ => 1,
                };
                (median(&t.ms) - says) / parts as f64
            })
            .collect()
    };
    table.extra_prompt_ms = rounded(median(&residuals(&table, Kind::Prompts)).max(0.0));
    points(&mut table);
    table.mixed_saving_ms = rounded((-median(&residuals(&table, Kind::Mixed))).max(0.0));
    table
}

/// Errors of the table on held-out steps.
pub(super) fn held_out(spec: &TableSpec, timed: &[Timed]) -> Result<HeldOut, ReferenceError> {
    let model = Table::new(spec).map_err(|(grid, error)| ReferenceError::Device {
        device: "clock".into(),
        reason: format!("the measured {grid} steps make no table: {error}"),
    })?;
    let errors = |decodes: bool, prefills: bool| {
        let these = timed.iter().filter(|t| {
            t.kind == Kind::HeldOut
                && t.step.decode.is_empty() != decodes
                && t.step.prefill.is_empty() != prefills
        });
        let errors: Vec<f64> = these
            .map(|t| {
                let measured = median(&t.ms);
                (model.seconds(&t.step.shape()).0 * 1e3 - measured) / measured
            })
            .collect();
        let sizes: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
        let short = |x: f64| (x * 1e5).round() / 1e5;
        Errors {
            steps: errors.len(),
            median: short(median(&sizes)),
            p90: short(quantile(&sizes, 0.9)),
            bias: short(errors.iter().sum::<f64>() / errors.len().max(1) as f64),
        }
    };
    Ok(HeldOut {
        decode: errors(true, false),
        prefill: errors(false, true),
        mixed: errors(true, true),
    })
}
