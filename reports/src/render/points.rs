//! `points.csv`: one line per run, with the metrics of that seed; units are in the header. A figure
//! that a run does not have, or cannot support, is an empty cell.

use crate::metric::METRICS;
use crate::summary::Summary;

/// One line per seed of each summary; all metrics, so that files of different runs stack.
pub fn render(summaries: &[&Summary]) -> String {
    let mut text =
        String::from("scenario,scenario_hash,seed,digest,stationarity,warm_up_s,measured_s");
    for metric in METRICS {
        text.push(',');
        text.push_str(&column(metric.name, metric.unit));
    }
    text.push('\n');
    for summary in summaries {
        for run in &summary.runs {
            let window = &run.steady.window;
            let verdict = serde_json::to_value(run.steady.verdict).unwrap_or_default();
            let cells = [
                quoted(&summary.scenario.name),
                quoted(&summary.scenario.hash),
                run.seed.to_string(),
                run.digest.clone(),
                verdict.as_str().unwrap_or_default().to_owned(),
                (window.from_ns as f64 / 1e9).to_string(),
                window.seconds().to_string(),
            ];
            text.push_str(&cells.join(","));
            for metric in METRICS {
                text.push(',');
                if let Some(value) = run.metrics.get(metric.name) {
                    text.push_str(&value.to_string());
                }
            }
            text.push('\n');
        }
    }
    text
}

/// `ttft_mean_ms`; counts and ratios need no unit.
fn column(name: &str, unit: &str) -> String {
    let suffix = match unit {
        "requests" | "times" | "ratio" => return name.to_owned(),
        "req/s" => "requests_per_second",
        "tokens/s" => return format!("{name}_per_second"),
        unit => &unit.to_lowercase(),
    };
    format!("{name}_{suffix}")
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
