//! Markdown, for pull requests and job summaries.

use super::number::{count, difference, figure};
use super::table;
use crate::estimate::Estimate;
use crate::metric::METRICS;
use crate::summary::Summary;
use crate::threshold::Verdict;
use std::fmt::Write as _;

/// Renders a summary.
pub fn render(summary: &Summary) -> String {
    let mut text = format!("## {}\n\n", escaped(&summary.scenario.name));
    if !summary.scenario.purpose.is_empty() {
        let _ = writeln!(text, "{}\n", escaped(&summary.scenario.purpose));
    }
    let _ = writeln!(text, "**{}**\n", table::in_words(summary));
    for warning in &summary.warnings {
        let _ = writeln!(text, "> {}\n", escaped(&warning.text));
    }
    if !summary.thresholds.is_empty() {
        text.push_str("| target | is | verdict | margin |\n| --- | ---: | --- | ---: |\n");
        for t in &summary.thresholds {
            let shown = |v: Option<f64>| v.map_or(String::new(), |v| figure(v, &t.unit));
            let margin = t.margin.map_or(String::new(), |m| difference(m, &t.unit));
            let verdict = match t.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "**fail**",
                Verdict::Undecided => "undecided",
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {verdict} | {margin} |",
                t.condition.replace('|', "\\|"),
                shown(t.value)
            );
        }
        text.push('\n');
    }
    text.push_str("| metric | value | 95 % interval | n |\n| --- | ---: | :---: | ---: |\n");
    for metric in METRICS {
        let Some(estimate) = summary.metrics.get(metric.name) else {
            continue;
        };
        let _ = writeln!(text, "| `{}` | {}", metric.name, row(estimate));
    }
    let _ = writeln!(
        text,
        "\nScenario `{}`, seeds {:?}, windtunnel {}.",
        escaped(&summary.scenario.hash),
        summary.seeds,
        summary.generator.version
    );
    text
}

fn row(estimate: &Estimate) -> String {
    let value = match (estimate.value, &estimate.reason) {
        (Some(value), _) => figure(value, &estimate.unit),
        (None, reason) => escaped(reason.as_deref().unwrap_or("")),
    };
    let interval = estimate.ci95.map_or(String::new(), |[low, high]| {
        format!(
            "{} to {}",
            figure(low, &estimate.unit),
            figure(high, &estimate.unit)
        )
    });
    format!("{value} | {interval} | {} |", count(estimate.n))
}

/// Names come from files: they must not turn into markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => {
                out.push('\\');
                out.push(c);
            }
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
