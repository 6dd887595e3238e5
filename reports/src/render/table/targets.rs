//! Conditions, what they come to, and whether they are met.

use super::super::number::{difference, figure};
use super::{CELL, CONDITION, WIDTH, shortened};
use crate::summary::Summary;
use crate::threshold::{Outcome, Verdict};
use std::fmt::Write as _;

/// The first condition on a metric or family, over all requests.
pub(super) fn target_of<'a>(summary: &'a Summary, metric: &str) -> Option<(usize, &'a Outcome)> {
    summary
        .thresholds
        .iter()
        .enumerate()
        .find(|(_, t)| t.metric == metric && t.class.is_none() && t.phase.is_none())
}

pub(super) fn write_target(line: &mut String, target: &Outcome) {
    let limit = figure(target.limit, &target.unit);
    let _ = write!(line, "{limit:>CELL$}");
    write_verdict(line, target);
}

/// Whether it is met and by how much; the interval is left out where it does not fit.
fn write_verdict(line: &mut String, target: &Outcome) {
    let met = match target.verdict {
        Verdict::Pass => "yes",
        Verdict::Fail => "no",
        Verdict::Undecided => "?",
    };
    let _ = write!(line, "{met:>6}   ");
    let mut margin = margin(target);
    if line.chars().count() + margin.chars().count() > WIDTH {
        margin.truncate(margin.find(" ± ").unwrap_or(margin.len()));
    }
    line.push_str(&margin);
}

/// `p99 over by 12 ms ± 4`.
fn margin(target: &Outcome) -> String {
    let statistic = target
        .statistic
        .as_ref()
        .map_or(String::new(), |s| format!("{s} "));
    let Some(by) = target.margin else {
        return format!("{statistic}undecided");
    };
    // Which side of the limit it is on: inside a ceiling is under it, inside a floor over it.
    let value = target.value.unwrap_or(target.limit);
    let side = if value > target.limit {
        "over"
    } else {
        "under"
    };
    let width = target.ci95.map_or(String::new(), |[low, high]| {
        format!(
            " ± {}",
            digits_of((high - low) / 2.0, by.abs(), &target.unit)
        )
    });
    format!(
        "{statistic}{side} by {}{width}",
        difference(by.abs(), &target.unit)
    )
}

/// A half width in the scale of the figure before it, without repeating the unit.
fn digits_of(half: f64, beside: f64, unit: &str) -> String {
    let text = difference(half, unit);
    let unit_of = |text: &str| text.split_once(' ').map(|(_, u)| u.to_owned());
    match text.split_once(' ') {
        Some((number, u)) if unit_of(&difference(beside, unit)).as_deref() == Some(u) => {
            number.to_owned()
        }
        _ => text,
    }
}

/// Conditions that have no line of their own above.
pub(super) fn targets(summary: &Summary, lines: &mut Vec<String>, shown: &[usize]) {
    let rest: Vec<&Outcome> = summary
        .thresholds
        .iter()
        .enumerate()
        .filter(|(i, _)| !shown.contains(i))
        .map(|(_, t)| t)
        .collect();
    if rest.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(format!("{:CONDITION$}{:>12}{:>6}", "target", "is", "met"));
    for target in rest {
        let mut condition = target.condition.as_str();
        if condition.chars().count() >= CONDITION {
            // Whole, on a line of its own: its end is the limit.
            lines.push(shortened(condition));
            condition = "";
        }
        let value = target
            .value
            .map_or(String::new(), |v| figure(v, &target.unit));
        let mut line = format!("{condition:CONDITION$}{value:>12}");
        write_verdict(&mut line, target);
        lines.push(line);
    }
}
