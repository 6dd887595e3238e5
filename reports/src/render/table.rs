//! The terminal table: at most 100 columns, units beside figures, no empty promises. A line that has
//! nothing to say is left out; a quantile that the sample cannot support leaves a blank and a
//! note.

/// Conditions and whether they are met.
mod targets;
/// Tables with a line per class, phase or tenant.
mod populations;

use super::number::{count, digits, figure};
use super::safeguards;
use crate::estimate::Estimate;
use crate::summary::{Figures, Summary, WarningKind};
use crate::threshold::Verdict;
pub(super) use populations::by_size;
use populations::{classes, phases, rollouts, tenants};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use targets::{target_of, targets, write_target};

/// Families of times and what people call them.
const FAMILIES: [(&str, &str); 5] = [
    ("ttft", "TTFT"),
    ("tpot", "TPOT"),
    ("itl", "ITL"),
    ("e2e", "E2E"),
    ("queue", "queue"),
];
const STATISTICS: [&str; 4] = ["mean", "p50", "p90", "p99"];

/// The widest line.
const WIDTH: usize = 100;
const LABEL: usize = 9;
const CELL: usize = 10;
/// Column of conditions that have a line of their own.
const CONDITION: usize = 46;

/// Renders a summary as text.
pub fn render(summary: &Summary) -> String {
    let mut lines = vec![head(summary)];
    for warning in &summary.warnings {
        if matches!(
            warning.kind,
            WarningKind::Overloaded | WarningKind::TooShort
        ) {
            wrap(&mut lines, "warning: ", &warning.text);
        }
    }
    lines.push(String::new());
    let mut shown = Vec::new();
    latencies(summary, &mut lines, &mut shown);
    goodput(summary, &mut lines, &mut shown);
    rates(summary, &mut lines);
    classes(summary, &mut lines);
    tenants(summary, &mut lines);
    phases(summary, &mut lines);
    rollouts(summary, &mut lines);
    targets(summary, &mut lines, &shown);
    costs(summary, &mut lines);
    cache(summary, &mut lines);
    for (label, parts) in safeguards::lines(&summary.metrics) {
        joined(&mut lines, label, &parts);
    }
    notes(summary, &mut lines);
    lines.push(in_words(summary));
    // Blocks that had nothing to say leave no gap.
    lines.dedup_by(|next, line| next.is_empty() && line.is_empty());
    let mut text = String::new();
    for line in lines {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The outcome in one sentence.
pub fn in_words(summary: &Summary) -> String {
    let (passed, failed, undecided) = (summary.ci.passed, summary.ci.failed, summary.ci.undecided);
    let all = passed + failed + undecided;
    match (failed, undecided) {
        _ if all == 0 => {
            let pooled = |name| summary.metrics.get(name).map_or(0, |e: &Estimate| e.n);
            let (finished, sent) = (pooled("finished"), pooled("sent"));
            format!(
                "{} of {} requests finished; no targets are set.",
                count(finished),
                count(sent)
            )
        }
        (0, 0) if all == 1 => "The target is met.".to_owned(),
        (0, 0) => format!("All {all} targets are met."),
        (0, n) => format!("{n} of {all} targets undecided, none missed."),
        (n, 0) => format!("{n} of {all} targets missed."),
        (n, u) => format!("{n} of {all} targets missed, {u} undecided."),
    }
}

fn head(summary: &Summary) -> String {
    let plural = |n: u64, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{} {what}s", count(n)),
    };
    let seeds = match summary.seeds[..] {
        [seed] => format!("seed {seed}"),
        [first, ..] => format!("{} seeds from {first}", summary.seeds.len()),
        [] => "no seeds".to_owned(),
    };
    let sent = summary.metrics.get("sent").map_or(0, |e| e.n);
    let mut parts = vec![
        summary.scenario.name.clone(),
        plural(u64::from(summary.setup.replicas), "replica"),
        summary.setup.routing.clone(),
        seeds,
        plural(sent, "request"),
    ];
    parts.retain(|part| !part.is_empty());
    // Only a long name can make this too wide.
    shortened(&parts.join(" · "))
}

fn shortened(line: &str) -> String {
    shortened_to(WIDTH, line)
}

fn shortened_to(width: usize, text: &str) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    kept + "…"
}

fn value_of(figures: &Figures, name: &str) -> Option<f64> {
    figures.get(name)?.value
}

fn shown_figure(figures: &Figures, name: &str) -> Option<String> {
    let estimate = figures.get(name)?;
    Some(figure(estimate.value?, &estimate.unit))
}

fn latencies(summary: &Summary, lines: &mut Vec<String>, shown: &mut Vec<usize>) {
    let any_target = !summary.thresholds.is_empty();
    let mut head = format!("{:LABEL$}", "");
    for statistic in STATISTICS {
        let _ = write!(head, "{statistic:>CELL$}");
    }
    if any_target {
        let _ = write!(head, "{:>CELL$}{:>6}", "target", "met");
    }
    lines.push(head);
    for (family, label) in FAMILIES {
        let figures = &summary.metrics;
        if !figures.contains_key(&format!("{family}_mean")) {
            continue;
        }
        let mut line = format!("{label:LABEL$}");
        for statistic in STATISTICS {
            let text = shown_figure(figures, &format!("{family}_{statistic}"));
            let _ = write!(line, "{:>CELL$}", text.unwrap_or_default());
        }
        if let Some((i, target)) = target_of(summary, family) {
            shown.push(i);
            write_target(&mut line, target);
        }
        lines.push(line);
    }
}

fn goodput(summary: &Summary, lines: &mut Vec<String>, shown: &mut Vec<usize>) {
    let Some(share) = shown_figure(&summary.metrics, "goodput") else {
        return;
    };
    let offered = shown_figure(&summary.metrics, "offered_rate")
        .map_or(String::new(), |rate| format!(" of {rate} offered"));
    let mut line = format!("{:LABEL$}{share:>CELL$}{offered}", "goodput");
    if let Some((i, target)) = target_of(summary, "goodput") {
        shown.push(i);
        line = format!("{line:width$}", width = LABEL + 4 * CELL);
        write_target(&mut line, target);
    }
    lines.push(line);
}

fn rates(summary: &Summary, lines: &mut Vec<String>) {
    let m = &summary.metrics;
    let mut parts = Vec::new();
    parts.extend(shown_figure(m, "request_throughput").map(|f| format!("{f} finished")));
    parts.extend(shown_figure(m, "output_token_throughput").map(|f| format!("{f} out")));
    for name in ["refused", "abandoned", "unfinished"] {
        if let Some(n) = m.get(name).map(|e| e.n).filter(|&n| n > 0) {
            let why =
                Some(&summary.refused_by_reason).filter(|r| name == "refused" && r.len() == 1);
            let why = why.and_then(|reasons| reasons.keys().next());
            let why = why.map_or(String::new(), |w| format!(" ({})", w.replace('_', " ")));
            parts.push(format!("{} {name}{why}", count(n)));
        }
    }
    parts.extend(shown_figure(m, "batch_mean").map(|f| format!("batch {}", number_only(&f))));
    if let Some(imbalance) = value_of(m, "load_imbalance") {
        parts.push(format!("busiest replica {} × mean", digits(imbalance)));
    }
    joined(lines, "served", &parts);
}

fn number_only(text: &str) -> &str {
    text.split_once(' ').map_or(text, |(number, _)| number)
}

/// Parts behind a label, broken into lines between parts.
fn joined(lines: &mut Vec<String>, label: &str, parts: &[String]) {
    let mut line = format!("{label:LABEL$}");
    let mut empty = true;
    for part in parts {
        let separator = if empty { "" } else { " · " };
        if !empty && line.chars().count() + separator.len() + part.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, format!("{:LABEL$}", "")));
        } else {
            line.push_str(separator);
        }
        line.push_str(part);
        empty = false;
    }
    if !empty {
        lines.push(line);
    }
}

fn costs(summary: &Summary, lines: &mut Vec<String>) {
    let m = &summary.metrics;
    let mut parts = Vec::new();
    parts.extend(shown_figure(m, "cost_per_verified_output"));
    parts.extend(shown_figure(m, "energy_per_verified_output"));
    parts
        .extend(shown_figure(m, "toten_per_verified_output").map(|f| f.replace("tokens", "TOTEN")));
    let pooled = |name: &str| m.get(name).map(|e| e.n);
    let verified = pooled("verified_useful_outputs").zip(pooled("accepted_outputs"));
    lines.push(String::new());
    if !parts.is_empty() {
        lines.push(format!(
            "{:LABEL$}{} per verified output",
            "cost",
            parts.join(" · ")
        ));
    } else if let Some(total) = shown_figure(m, "cost_total") {
        let energy = shown_figure(m, "energy_total").map_or(String::new(), |e| format!(" · {e}"));
        lines.push(format!("{:LABEL$}{total}{energy} per seed", "cost"));
    }
    if let Some((useful, accepted)) = verified {
        let finished = pooled("finished").unwrap_or(0);
        let mut parts = vec![
            format!("{} of {} accepted", count(accepted), count(finished)),
            format!("{} useful", count(useful)),
            format!("{} late or bad", count(accepted.saturating_sub(useful))),
        ];
        parts.extend(shown_figure(m, "verifier_tax").map(|tax| format!("verifier tax {tax}")));
        joined(lines, "verified", &parts);
    }
}

fn cache(summary: &Summary, lines: &mut Vec<String>) {
    let m = &summary.metrics;
    let mut parts = Vec::new();
    if value_of(m, "prefix_hit_rate").is_some_and(|rate| rate > 0.0) {
        parts.extend(shown_figure(m, "prefix_hit_rate").map(|f| format!("{f} of prompt tokens")));
    }
    parts.extend(shown_figure(m, "padding_share").map(|f| format!("{f} of batches padding")));
    parts.extend(shown_figure(m, "kv_usage_mean").map(|f| format!("KV {f} full")));
    if let Some(n) = m.get("preemptions").map(|e| e.n).filter(|&n| n > 0) {
        parts.push(format!("{} preemptions", count(n)));
    }
    joined(lines, "cache", &parts);
}

fn notes(summary: &Summary, lines: &mut Vec<String>) {
    let mut notes = Vec::new();
    let windows: Vec<_> = summary.runs.iter().map(|r| &r.steady.window).collect();
    let longest = windows.iter().map(|w| w.from_ns).max().unwrap_or(0);
    if longest > 0 {
        let how = match windows.iter().any(|w| w.detected) {
            true => "found from the run",
            false => "as the scenario says",
        };
        let upto = if windows.iter().all(|w| w.from_ns == longest) {
            ""
        } else {
            "up to "
        };
        notes.push(format!(
            "{upto}{} of warm-up left out, {how}",
            figure(longest as f64 / 1e6, "ms")
        ));
    }
    for warning in &summary.warnings {
        if matches!(
            warning.kind,
            WarningKind::Extrapolated | WarningKind::CutOff
        ) {
            notes.push(warning.text.clone());
        }
    }
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, estimate) in &summary.metrics {
        if let Some(reason) = &estimate.reason {
            reasons.entry(reason).or_default().push(name);
        }
    }
    notes.extend(
        reasons
            .iter()
            .map(|(reason, names)| format!("{} left out: {reason}", names.join(", "))),
    );
    for target in &summary.thresholds {
        if let (Verdict::Undecided, Some(reason)) = (target.verdict, &target.reason) {
            notes.push(format!("{} is undecided: {reason}", target.condition));
        }
    }
    if summary.refused_by_reason.len() > 1 {
        let parts: Vec<_> = summary
            .refused_by_reason
            .iter()
            .map(|(reason, &n)| format!("{} {}", count(n), reason.replace('_', " ")))
            .collect();
        notes.push(format!("refused: {}", parts.join(", ")));
    }
    lines.push(String::new());
    for note in notes {
        wrap(lines, "  note: ", &note);
    }
}

/// Breaks a text between words; further lines are indented as far as the first.
fn wrap(lines: &mut Vec<String>, label: &str, text: &str) {
    let mut line = label.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let next = " ".repeat(label.chars().count());
            lines.push(std::mem::replace(&mut line, next));
        } else if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
}
