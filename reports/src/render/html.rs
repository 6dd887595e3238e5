//! `report.html`: one file without a script, that loads nothing, reads in light and dark, and prints.

use super::number::{count, difference, figure};
use super::plots::{self, Plot, PlotError};
use super::rollouts;
use super::table;
use crate::estimate::Estimate;
use crate::metric::METRICS;
use crate::steady::Stationarity;
use crate::summary::{Figures, Summary};
use crate::threshold::{Outcome, Verdict};
use std::fmt::Write as _;
use windtunnel_ledger::result::RunResult;

pub(super) const STYLE: &str = include_str!("report.css");

/// What a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The figures.
    pub summary: &'a Summary,
    /// The runs behind them.
    pub runs: &'a [RunResult],
    /// The scenario with all defaults, as TOML.
    pub scenario_toml: &'a str,
    /// The command that repeats it.
    pub command: &'a str,
}

/// Renders the report.
///
/// # Errors
/// None that results can cause; drawing is fallible in general.
pub fn render(report: &Report<'_>) -> Result<String, PlotError> {
    let plots = plots::all(report.summary, report.runs)?;
    let mut page = Page::default();
    page.head(report.summary);
    page.verdict(report.summary);
    page.tiles(report.summary);
    page.targets(report.summary);
    page.plots(&plots);
    page.classes(report.summary);
    page.tenants(report.summary);
    page.phases(report.summary);
    page.rollouts(report.summary);
    page.metrics(report.summary);
    page.runs(report.summary);
    page.repeat(report);
    page.text.push_str("</main>\n</body>\n</html>\n");
    Ok(page.text)
}

/// Text that cannot turn into markup, within and outside of attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[derive(Default)]
struct Page {
    text: String,
}

/// Writing to a string cannot fail.
macro_rules! write_page {
    ($page:expr, $($arg:tt)*) => {{ let _ = writeln!($page.text, $($arg)*); }};
}

impl Page {
    fn head(&mut self, summary: &Summary) {
        let name = escaped(&summary.scenario.name);
        write_page!(
            self,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{name} · windtunnel</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <header>\n<p class=\"brand\">windtunnel</p>\n<h1>{name}</h1>"
        );
        if !summary.scenario.purpose.is_empty() {
            write_page!(
                self,
                "<p class=\"purpose\">{}</p>",
                escaped(&summary.scenario.purpose)
            );
        }
        let seeds: Vec<String> = summary.seeds.iter().map(u64::to_string).collect();
        let seeds = match seeds.len() {
            0..=8 => seeds.join(", "),
            n => format!("{n} from {} to {}", seeds[0], seeds[n - 1]),
        };
        self.text.push_str("<dl class=\"facts\">\n");
        for (term, text) in [
            ("replicas", summary.setup.replicas.to_string()),
            ("routing", summary.setup.routing.replace('_', " ")),
            ("seeds", seeds),
            (
                "requests",
                count(summary.metrics.get("sent").map_or(0, |e| e.n)),
            ),
            ("scenario", summary.scenario.hash.clone()),
            ("version", summary.generator.version.clone()),
        ] {
            write_page!(
                self,
                "<div><dt>{term}</dt><dd>{}</dd></div>",
                escaped(&text)
            );
        }
        self.text.push_str("</dl>\n</header>\n");
    }

    fn verdict(&mut self, summary: &Summary) {
        let none = summary.thresholds.is_empty();
        let class = match summary.ci.verdict {
            _ if none => "neutral",
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Undecided => "undecided",
        };
        let words = escaped(&table::in_words(summary));
        write_page!(self, "<p class=\"verdict {class}\">{words}</p>");
        for warning in &summary.warnings {
            write_page!(
                self,
                "<p class=\"warning\"><strong>Note</strong> {}</p>",
                escaped(&warning.text)
            );
        }
    }

    /// The figures that people look for first.
    fn tiles(&mut self, summary: &Summary) {
        const FIRST: [(&str, &str); 8] = [
            ("cost_per_verified_output", "per verified output"),
            ("goodput", "goodput"),
            ("ttft_p99", "TTFT p99"),
            ("tpot_p99", "TPOT p99"),
            ("e2e_p99", "end to end p99"),
            ("request_throughput", "finished"),
            ("output_token_throughput", "output"),
            ("prefix_hit_rate", "prompt tokens cached"),
        ];
        self.text.push_str("<div class=\"tiles\">\n");
        for (name, label) in FIRST {
            let Some(estimate) = summary.metrics.get(name) else {
                continue;
            };
            // Nothing cached is no news where nothing can be.
            let Some(value) = estimate.value.filter(|&v| v > 0.0 || name == "goodput") else {
                continue;
            };
            let interval = estimate.half_width().map_or(String::new(), |half| {
                format!(
                    "<small>± {}</small>",
                    escaped(&difference(half, &estimate.unit))
                )
            });
            write_page!(
                self,
                "<div class=\"tile\"><b>{}</b>{interval}<span>{label}</span></div>",
                escaped(&figure(value, &estimate.unit))
            );
        }
        self.text.push_str("</div>\n");
    }

    fn targets(&mut self, summary: &Summary) {
        if summary.thresholds.is_empty() {
            return;
        }
        self.text.push_str(
            "<section>\n<h2>Targets</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>target</th>\
             <th class=\"n\">is</th><th class=\"n\">margin</th><th>verdict</th></tr></thead>\n<tbody>\n",
        );
        for target in &summary.thresholds {
            self.target(target);
        }
        self.text.push_str("</tbody>\n</table></div>\n</section>\n");
    }

    fn target(&mut self, target: &Outcome) {
        let unit = &target.unit;
        let value = target.value.map_or(String::new(), |v| figure(v, unit));
        let margin = target.margin.map_or(String::new(), |m| difference(m, unit));
        let half = target.ci95.map_or(String::new(), |[low, high]| {
            format!(" ± {}", difference((high - low) / 2.0, unit))
        });
        let (class, word) = match target.verdict {
            Verdict::Pass => ("pass", "met"),
            Verdict::Fail => ("fail", "missed"),
            Verdict::Undecided => ("undecided", "undecided"),
        };
        let reason = target.reason.as_ref().map_or(String::new(), |r| {
            format!("<br><small>{}</small>", escaped(r))
        });
        write_page!(
            self,
            "<tr><td><code>{}</code>{reason}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td><span class=\"badge {class}\">{word}</span></td></tr>",
            escaped(&target.condition),
            escaped(&value),
            escaped(&format!("{margin}{half}")),
        );
    }

    fn plots(&mut self, plots: &[Plot]) {
        if plots.is_empty() {
            return;
        }
        self.text
            .push_str("<section>\n<h2>Plots</h2>\n<div class=\"plots\">\n");
        for plot in plots {
            write_page!(
                self,
                "<figure>\n<h3>{}</h3>\n{}\n<figcaption>{}</figcaption>\n</figure>",
                escaped(&plot.title),
                plot.svg,
                escaped(&plot.caption)
            );
        }
        self.text.push_str("</div>\n</section>\n");
    }

    fn classes(&mut self, summary: &Summary) {
        if summary.by_class.len() >= 2 {
            let rows: Vec<_> = summary.by_class.iter().collect();
            self.figures_by("By class", "class", &rows);
        }
    }

    /// Whoever sent most, and all others together.
    fn tenants(&mut self, summary: &Summary) {
        let rows = super::table::by_size(summary);
        if !rows.is_empty() {
            self.figures_by("By tenant", "tenant", &rows);
        }
    }

    /// Before, during and after what disturbed the run.
    fn phases(&mut self, summary: &Summary) {
        let rows = summary.phases();
        if !rows.is_empty() {
            self.figures_by("Before, during and after", "phase", &rows);
        }
    }

    /// The stages of kernels that came into use.
    fn rollouts(&mut self, summary: &Summary) {
        if summary.rollouts.is_empty() {
            return;
        }
        self.text.push_str(
            "<section>\n<h2>Rollouts</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>stage</th>",
        );
        for label in rollouts::COLUMNS {
            write_page!(self, "<th class=\"n\">{label}</th>");
        }
        self.text.push_str("</tr></thead>\n<tbody>\n");
        for stage in &summary.rollouts {
            let (name, cells) = rollouts::line(stage);
            let _ = write!(self.text, "<tr><td>{}</td>", escaped(&name));
            for cell in cells {
                let _ = write!(self.text, "<td class=\"n\">{}</td>", escaped(&cell));
            }
            self.text.push_str("</tr>\n");
        }
        self.text.push_str(
            "</tbody>\n</table></div>\n<p><small>Means over the runs that came to a stage. Bad: where the \
             frontier's answer would have been good; risk: the pilot risk magnitude.</small></p>\n</section>\n",
        );
    }

    /// A table with a line per row.
    fn figures_by(&mut self, title: &str, what: &str, rows: &[(&String, &Figures)]) {
        // Of each group the first that any row has: where too few requests came for a 99th percentile,
        // a lower one says something still.
        const COLUMNS: [&[(&str, &str)]; 12] = [
            &[("sent", "sent")],
            &[("offered_rate", "offered")],
            &[("finished", "finished")],
            &[("ttft_p50", "TTFT p50")],
            &[("ttft_p99", "TTFT p99"), ("ttft_p90", "TTFT p90")],
            &[("tpot_p99", "TPOT p99"), ("tpot_p90", "TPOT p90")],
            &[("e2e_p50", "E2E p50")],
            &[("e2e_p99", "E2E p99"), ("e2e_p90", "E2E p90")],
            &[("goodput", "goodput")],
            // Tenants alone have these.
            &[("prompt_tokens", "prompt tokens")],
            &[("output_tokens", "output tokens")],
            &[("cost", "cost")],
        ];
        let shown = |figures: &Figures, name: &str| {
            let estimate = figures.get(name)?;
            match estimate.unit.as_str() {
                "requests" | "tokens" => Some(count(estimate.n)),
                unit => Some(figure(estimate.value?, unit)),
            }
        };
        write_page!(
            self,
            "<section>\n<h2>{title}</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>{what}</th>"
        );
        let has = |name: &str| rows.iter().any(|(_, f)| shown(f, name).is_some());
        let columns: Vec<_> = COLUMNS
            .iter()
            .filter_map(|group| group.iter().find(|(name, _)| has(name)))
            .collect();
        for (_, label) in &columns {
            let _ = write!(self.text, "<th class=\"n\">{label}</th>");
        }
        self.text.push_str("</tr></thead>\n<tbody>\n");
        for (name, figures) in rows {
            let _ = write!(self.text, "<tr><td>{}</td>", escaped(name));
            for (name, _) in &columns {
                let text = shown(figures, name).unwrap_or_default();
                let _ = write!(self.text, "<td class=\"n\">{}</td>", escaped(&text));
            }
            self.text.push_str("</tr>\n");
        }
        self.text.push_str("</tbody>\n</table></div>\n</section>\n");
    }

    fn metrics(&mut self, summary: &Summary) {
        self.text.push_str(
            "<section>\n<h2>All metrics</h2>\n<div class=\"wide\"><table class=\"metrics\">\n<thead><tr>\
             <th>metric</th><th class=\"n\">value</th><th class=\"n\">95 % interval</th>\
             <th class=\"n\">n</th><th>definition</th></tr></thead>\n<tbody>\n",
        );
        for metric in METRICS {
            let Some(estimate) = summary.metrics.get(metric.name) else {
                continue;
            };
            write_page!(
                self,
                "<tr><td><code>{}</code></td>{}<td class=\"what\">{}<br><small>{}</small></td></tr>",
                metric.name,
                cells(estimate),
                escaped(metric.formula),
                escaped(metric.population),
            );
        }
        self.text.push_str(
            "</tbody>\n</table></div>\n<p><small>Values are means over seeds of each seed's own figure; \
             n counts the observations of all seeds; intervals are Student's, over seeds.</small></p>\n\
             </section>\n",
        );
    }

    fn runs(&mut self, summary: &Summary) {
        self.text.push_str(
            "<section>\n<h2>Runs</h2>\n<div class=\"wide\"><table>\n<thead><tr><th class=\"n\">seed</th>\
             <th class=\"n\">warm-up</th><th class=\"n\">measured</th><th>settled</th><th>digest</th>\
             </tr></thead>\n<tbody>\n",
        );
        for run in &summary.runs {
            let window = &run.steady.window;
            let verdict = match run.steady.verdict {
                Stationarity::Stationary => "yes",
                Stationarity::TooShort => "cannot tell",
                Stationarity::Growing => "no, overloaded",
            };
            write_page!(
                self,
                "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td>{verdict}<br><small>{}</small></td><td><code>{}</code></td></tr>",
                run.seed,
                figure(window.from_ns as f64 / 1e6, "ms"),
                figure(window.seconds() * 1e3, "ms"),
                escaped(&run.steady.evidence),
                escaped(run.digest.get(..12).unwrap_or(&run.digest)),
            );
        }
        self.text.push_str("</tbody>\n</table></div>\n</section>\n");
    }

    fn repeat(&mut self, report: &Report<'_>) {
        write_page!(
            self,
            "<section>\n<h2>Repeat</h2>\n<pre class=\"command\"><code>{}</code></pre>\n\
             <details>\n<summary>The scenario with all defaults</summary>\n<pre><code>{}</code></pre>\n\
             </details>\n</section>",
            escaped(report.command),
            escaped(report.scenario_toml)
        );
    }
}

fn cells(estimate: &Estimate) -> String {
    let interval = estimate.ci95.map_or(String::new(), |[low, high]| {
        format!(
            "{} to {}",
            figure(low, &estimate.unit),
            figure(high, &estimate.unit)
        )
    });
    let value = match (estimate.value, &estimate.reason) {
        (Some(value), _) => escaped(&figure(value, &estimate.unit)),
        (None, reason) => format!(
            "<small>{}</small>",
            escaped(reason.as_deref().unwrap_or("left out"))
        ),
    };
    format!(
        "<td class=\"n\">{value}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>",
        escaped(&interval),
        count(estimate.n)
    )
}
