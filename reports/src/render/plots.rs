//! Plots as SVG, in colours that read on light and on dark ground; text and axes take the colour of the
//! page around them.

use super::paint::{self, Canvas, Drawn, Line, Shades};
use crate::metric;
use crate::summary::Summary;
use plotters::prelude::*;
use windtunnel_ledger::account::{Account, Accounts};
use windtunnel_ledger::result::{Distribution, Population, ReplicaSample, RunResult, Sample};

/// A plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("plot `{name}` could not be drawn: {reason}")]
pub struct PlotError {
    name: String,
    reason: String,
}

/// A finished plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Name of its file, without `.svg`.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The drawing.
    pub svg: String,
}

const WIDTH: u32 = 560;
const HEIGHT: u32 = 300;
/// More replicas than this are shown as least, mean and most.
const MANY: usize = 6;
/// More points than this on one line cannot be seen.
const MAX_POINTS: usize = 400;

/// All plots that the runs of a scenario have something to show for.
///
/// # Errors
/// None that results can cause; drawing is fallible in general.
pub fn all(summary: &Summary, runs: &[RunResult]) -> Result<Vec<Plot>, PlotError> {
    let mut plots = Vec::new();
    for (family, label, caption) in [
        (
            "ttft",
            "Time to first token",
            "from sent to the first token at the client",
        ),
        (
            "tpot",
            "Time per output token",
            "after the first token, mean of each request",
        ),
        ("itl", "Inter-token latency", "each gap between tokens"),
        (
            "e2e",
            "End-to-end latency",
            "from sent to the last token at the client",
        ),
    ] {
        plots.extend(latency(summary, runs, family, label, caption)?);
    }
    let Some(run) = runs.iter().min_by_key(|run| run.seed) else {
        return Ok(plots);
    };
    let warm_up = summary
        .runs
        .iter()
        .find(|r| r.seed == run.seed)
        .map_or(0.0, |r| r.steady.window.from_ns as f64 / 1e9);
    let during = run.phases.iter().find(|phase| phase.name == "during");
    let shades = Shades {
        warm_up,
        disturbed: during.map(|p| (p.from_ns as f64 / 1e9, p.to_ns as f64 / 1e9)),
    };
    plots.extend(over_time(run, shades)?);
    plots.extend(replicas(run)?);
    plots.extend(costs(summary, runs)?);
    Ok(plots)
}

/// What a plot is called and says.
struct Words<'a> {
    name: &'a str,
    title: &'a str,
    caption: String,
}

/// The distribution function of a family, of all requests or by class, all seeds together.
fn latency(
    summary: &Summary,
    runs: &[RunResult],
    family: &str,
    title: &str,
    caption: &str,
) -> Result<Option<Plot>, PlotError> {
    let pooled = |of: &dyn Fn(&windtunnel_ledger::result::Segment) -> Option<&Population>| {
        let mut all = Distribution::default();
        for run in runs {
            let first = summary
                .runs
                .iter()
                .find(|r| r.seed == run.seed)
                .map_or(0, |r| r.steady.window.first_segment);
            let segments = run.segments.get(first..).unwrap_or_default();
            for population in segments.iter().filter_map(of) {
                if let Some(d) = metric::distribution(family, population) {
                    all.merge(d);
                }
            }
        }
        all
    };
    let classes = runs.first().map_or(&[][..], |run| &run.class_names[..]);
    let mut lines = Vec::new();
    if (2..=paint::COLOURS).contains(&classes.len()) {
        for (i, class) in classes.iter().enumerate() {
            let of = pooled(&|s| s.classes.get(i));
            lines.push((class.clone(), of));
        }
    } else {
        lines.push(("all requests".to_owned(), pooled(&|s| Some(&s.all))));
    }
    let lines: Vec<Line> = lines
        .into_iter()
        .filter(|(_, d)| d.count() > 0)
        .map(|(label, d)| Line {
            label,
            points: steps(&d.cdf()),
        })
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let words = Words {
        name: &format!("cdf_{family}"),
        title,
        caption: format!("Share of values at or below; {caption}."),
    };
    draw(&words, |svg| paint::cdf(svg, &lines)).map(Some)
}

/// A distribution function in ms, thinned to what can be seen.
fn steps(cdf: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut last = f64::NEG_INFINITY;
    for (i, &(ns, share)) in cdf.iter().enumerate() {
        if share - last >= 1.0 / MAX_POINTS as f64 || i + 1 == cdf.len() || i == 0 {
            points.push((ns / 1e6, share));
            last = share;
        }
    }
    if let Some(&(ms, _)) = points.first() {
        points.insert(0, (ms, 0.0));
    }
    points
}

fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(MAX_POINTS).max(1);
    points.into_iter().step_by(step).collect()
}

fn over_time(run: &RunResult, shades: Shades) -> Result<Vec<Plot>, PlotError> {
    if run.samples.len() < 2 {
        return Ok(Vec::new());
    }
    let line = |label: &str, of: &dyn Fn(&Sample) -> f64| Line {
        label: label.to_owned(),
        points: thin(
            run.samples
                .iter()
                .map(|s| (s.at_ns as f64 / 1e9, of(s)))
                .collect(),
        ),
    };
    let sum = |s: &Sample, of: fn(&ReplicaSample) -> u32| -> f64 {
        s.replicas.iter().map(|r| f64::from(of(r))).sum()
    };
    let seed = run.seed;
    let words = |name, title| Words {
        name,
        title,
        caption: match (shades.warm_up > 0.0, shades.disturbed) {
            (true, None) => format!("Seed {seed}; the shaded begin is warm-up."),
            (true, Some(_)) => {
                format!("Seed {seed}; grey is warm-up, orange the time of the disturbance.")
            }
            (false, Some(_)) => format!("Seed {seed}; orange is the time of the disturbance."),
            (false, None) => format!("Seed {seed}."),
        },
    };
    let mut plots = vec![
        draw(&words("in_system", "Requests in the system"), |svg| {
            paint::over_time(
                svg,
                &[line("in system", &|s| f64::from(s.in_system))],
                shades,
                false,
            )
        })?,
        draw(&words("queue_and_batch", "Queue and batch"), |svg| {
            let lines = [
                line("running", &|s| sum(s, |r| r.running)),
                line("waiting at replicas", &|s| sum(s, |r| r.waiting)),
                line("waiting at the gateway", &|s| f64::from(s.gateway_waiting)),
            ];
            paint::over_time(svg, &lines, shades, false)
        })?,
    ];
    if run
        .samples
        .iter()
        .any(|s| s.replicas.iter().any(|r| r.kv_total > 0))
    {
        let lines = occupancy(run, &line);
        plots.push(draw(&words("kv", "KV memory in use"), |svg| {
            paint::over_time(svg, &lines, shades, true)
        })?);
    }
    Ok(plots)
}

/// Makes a line of a figure of samples.
type MakeLine<'a> = dyn Fn(&str, &dyn Fn(&Sample) -> f64) -> Line + 'a;

/// KV blocks held by running requests over all, by replica or their spread.
fn occupancy(run: &RunResult, line: &MakeLine<'_>) -> Vec<Line> {
    let share = |r: &ReplicaSample| r.kv_held as f64 / (r.kv_total.max(1)) as f64;
    if run.replicas.len() <= MANY {
        return (0..run.replicas.len())
            .map(|i| {
                line(&format!("replica {i}"), &|s| {
                    s.replicas.get(i).map_or(0.0, share)
                })
            })
            .collect();
    }
    // Those that are off have no memory, and are none of those counted.
    let shares = |s: &Sample| -> Vec<f64> {
        let there = s.replicas.iter().filter(|r| r.kv_total > 0);
        there.map(share).collect()
    };
    vec![
        line("most", &|s| shares(s).into_iter().fold(0.0, f64::max)),
        line("mean", &|s| crate::stats::mean(&shares(s)).unwrap_or(0.0)),
        line("least", &|s| shares(s).into_iter().fold(1.0, f64::min)),
    ]
}

fn replicas(run: &RunResult) -> Result<Option<Plot>, PlotError> {
    if run.replicas.len() < 2 || run.end_ns == 0 {
        return Ok(None);
    }
    let bars: Vec<(String, f64)> = run
        .replicas
        .iter()
        .enumerate()
        .map(|(i, r)| (i.to_string(), (r.prompt_tokens + r.output_tokens) as f64))
        .collect();
    let words = Words {
        name: "replica_load",
        title: "Load by replica",
        caption: format!(
            "Prompt and output tokens over the whole run, seed {}.",
            run.seed
        ),
    };
    draw(&words, |svg| paint::columns(svg, &bars)).map(Some)
}

/// Where the money went (or the energy, if nothing has a price).
fn costs(summary: &Summary, runs: &[RunResult]) -> Result<Option<Plot>, PlotError> {
    let (mut money, mut energy) = (Accounts::default(), Accounts::default());
    for run in runs {
        let first = summary
            .runs
            .iter()
            .find(|r| r.seed == run.seed)
            .map_or(0, |r| r.steady.window.first_segment);
        for segment in run.segments.get(first..).unwrap_or_default() {
            money.merge(&segment.books.money);
            energy.merge(&segment.books.energy);
        }
    }
    let (accounts, scale, unit) = if money.total() > 0 {
        (money, 1e9, "USD")
    } else {
        (energy, 3.6e9, "Wh")
    };
    let bars: Vec<(String, f64)> = Account::ALL
        .into_iter()
        .filter(|&a| a != Account::Source && accounts.received(a) > 0)
        .map(|a| (a.name().to_owned(), accounts.received(a) as f64 / scale))
        .collect();
    if bars.is_empty() {
        return Ok(None);
    }
    let words = Words {
        name: "cost",
        title: if unit == "USD" {
            "Where the money went"
        } else {
            "Where the energy went"
        },
        caption: "All postings of the measured window, all seeds together.".to_owned(),
    };
    draw(&words, |svg| paint::bars(svg, &bars, unit)).map(Some)
}

/// Draws on an empty page, then lets the page's colours in and gives the drawing a title.
fn draw(words: &Words<'_>, paint: impl FnOnce(&Canvas<'_>) -> Drawn) -> Result<Plot, PlotError> {
    let mut svg = String::new();
    let result = {
        let canvas = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        paint(&canvas).and_then(|()| canvas.present().map_err(Into::into))
    };
    result.map_err(|e| PlotError {
        name: words.name.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(Plot {
        name: words.name.to_owned(),
        title: words.title.to_owned(),
        caption: words.caption.clone(),
        svg: titled(&paint::in_page_colours(&svg), words.title),
    })
}

/// Predictions beside measurements: request by request, then over time.
pub(super) fn of_run(run: &crate::fidelity::Run) -> Result<Vec<Plot>, PlotError> {
    /// More dots than this cannot be told apart.
    const MAX_DOTS: usize = 2_000;
    let mut plots = Vec::new();
    for pairs in &run.pairs {
        let points: Vec<(f64, f64)> = pairs.both().collect();
        if points.is_empty() {
            continue;
        }
        let step = points.len().div_ceil(MAX_DOTS);
        let shown: Vec<(f64, f64)> = points.iter().copied().step_by(step).collect();
        let every = match step {
            1 => String::new(),
            n => format!(" One request in {n} is shown."),
        };
        let words = Words {
            name: &format!("predicted_{}", pairs.metric),
            title: &format!("{}, request by request", pairs.metric.to_uppercase()),
            caption: format!("On the line prediction and measurement agree.{every}"),
        };
        plots.push(draw(&words, |svg| paint::scatter(svg, &shown, pairs.unit))?);
    }
    for curve in &run.curves {
        let line = |label: &str, points: &[(f64, f64)]| Line {
            label: label.to_owned(),
            points: thin(points.to_vec()),
        };
        let lines = [
            line("measured", &curve.measured),
            line("simulated", &curve.simulated),
        ];
        let words = Words {
            name: &format!("over_time_{}", curve.name),
            title: curve.title,
            caption: "Measured and simulated over time.".to_owned(),
        };
        plots.push(draw(&words, |svg| {
            paint::over_time(svg, &lines, Shades::default(), curve.share)
        })?);
    }
    Ok(plots)
}

/// Gives a drawing its title, for those who cannot see it, and lets it shrink with the page.
fn titled(svg: &str, title: &str) -> String {
    let title = super::html::escaped(title);
    let Some(body) = svg.find('>').map(|i| &svg[i + 1..]) else {
        return svg.to_owned();
    };
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         aria-label=\"{title}\" xmlns=\"http://www.w3.org/2000/svg\"><title>{title}</title>{body}"
    )
}
