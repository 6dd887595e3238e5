//! Tables with a line per class, phase or tenant.

use super::super::number::{compact, count};
use super::super::rollouts::{COLUMNS as COLUMNS_OF_STAGES, line as stage_line};
use super::{CELL, number_only, shortened_to, shown_figure, value_of};
use crate::summary::{Figures, Summary};
use crate::tenants::OTHERS;
use std::cmp::Reverse;
use std::fmt::Write as _;

/// Columns of tables with a line per class or phase.
/// Of each group the first that any row has: where too few requests came for a 99th percentile, a
/// lower one says something still.
const COLUMNS: [&[(&str, &str)]; 13] = [
    &[("sent", "sent")],
    &[("offered_rate", "req/s")],
    &[("refused", "refused")],
    &[("ttft_p50", "TTFT p50")],
    &[("ttft_p99", "TTFT p99"), ("ttft_p90", "TTFT p90")],
    &[("tpot_p99", "TPOT p99"), ("tpot_p90", "TPOT p90")],
    &[("e2e_p50", "E2E p50")],
    &[("e2e_p99", "E2E p99"), ("e2e_p90", "E2E p90")],
    &[("goodput", "goodput")],
    &[("prefix_hit_rate", "cache")],
    &[("prompt_tokens", "prompt")],
    &[("output_tokens", "output")],
    &[("cost", "cost")],
];

pub(super) fn classes(summary: &Summary, lines: &mut Vec<String>) {
    if summary.by_class.len() < 2 {
        return;
    }
    let shown = [
        "sent",
        "ttft_p99",
        "tpot_p99",
        "e2e_p99",
        "goodput",
        "prefix_hit_rate",
    ];
    let rows: Vec<_> = summary.by_class.iter().collect();
    figures_by(lines, "class", &rows, &shown);
}

/// The tenants that have figures, the largest first; all others together come last.
pub(in crate::render) fn by_size(summary: &Summary) -> Vec<(&String, &Figures)> {
    let mut rows: Vec<_> = summary.by_tenant.iter().collect();
    let sent = |figures: &Figures| figures.get("sent").map_or(0, |e| e.n);
    rows.sort_by_key(|(name, figures)| (*name == OTHERS, Reverse(sent(figures))));
    rows
}

/// Whoever sent most.
pub(super) fn tenants(summary: &Summary, lines: &mut Vec<String>) {
    let rows = by_size(summary);
    if !rows.is_empty() {
        let shown = [
            "sent",
            "refused",
            "ttft_p50",
            "ttft_p99",
            "goodput",
            "prompt_tokens",
            "output_tokens",
            "cost",
        ];
        figures_by(lines, "tenant", &rows, &shown);
    }
}

/// Before, during and after what disturbed the run.
pub(super) fn phases(summary: &Summary, lines: &mut Vec<String>) {
    let rows = summary.phases();
    if !rows.is_empty() {
        let shown = [
            "sent",
            "offered_rate",
            "ttft_p99",
            "e2e_p50",
            "e2e_p99",
            "goodput",
            "prefix_hit_rate",
        ];
        figures_by(lines, "phase", &rows, &shown);
    }
}

/// The stages of kernels that came into use.
pub(super) fn rollouts(summary: &Summary, lines: &mut Vec<String>) {
    if summary.rollouts.is_empty() {
        return;
    }
    let row = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>CELL$}")).collect();
        format!("{:20}{cells}", shortened_to(19, name))
    };
    lines.push(String::new());
    lines.push(row("rollout", &COLUMNS_OF_STAGES.map(str::to_owned)));
    for stage in &summary.rollouts {
        let (name, cells) = stage_line(stage);
        lines.push(row(&name, &cells));
    }
}

/// A line per row, a column per metric that any row has.
fn figures_by(lines: &mut Vec<String>, what: &str, rows: &[(&String, &Figures)], shown: &[&str]) {
    let has = |name: &str| rows.iter().any(|(_, f)| value_of(f, name).is_some());
    let columns: Vec<_> = COLUMNS
        .iter()
        .filter(|group| shown.contains(&group[0].0))
        .filter_map(|group| group.iter().find(|(name, _)| has(name)))
        .collect();
    lines.push(String::new());
    let mut head = format!("{what:18}");
    for (_, label) in &columns {
        let _ = write!(head, "{label:>CELL$}");
    }
    lines.push(head);
    for (name, figures) in rows {
        let mut line = format!("{:18}", shortened_to(17, name));
        for (name, _) in &columns {
            let text = match *name {
                "sent" | "refused" => figures.get(*name).map(|e| count(e.n)),
                "prompt_tokens" | "output_tokens" => figures.get(*name).map(|e| compact(e.n)),
                // Its unit stands above: with it the figure would fill the column.
                "offered_rate" => {
                    shown_figure(figures, name).map(|text| number_only(&text).to_owned())
                }
                name => shown_figure(figures, name),
            };
            let _ = write!(line, "{:>CELL$}", text.unwrap_or_default());
        }
        lines.push(line);
    }
}
