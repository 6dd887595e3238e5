//! Which part of a run is measured, and whether the system had settled in it.
//!
//! Warm-up is found as MSER-5 does (White, Cobb and Spratt 2000): of all truncation points in the
//! first half, take the one that minimises the squared standard error of the mean of what
//! remains; or an earlier one that is as good within the error of that figure. The batches are the run's segments; the series are the mean end-to-end latency of the
//! requests sent in each, and the mean number of requests in the system. The later of
//! the two truncations counts.

use crate::stats;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_ledger::result::{RunResult, Segment};
use windtunnel_ledger::rows::Row;

/// Fewer segments with traffic than this show no trend.
const MIN_SEGMENTS: usize = 8;
/// Fewer finished requests than this show nothing.
const MIN_FINISHED: u64 = 50;
/// A trend counts from this t statistic on: segments are correlated, so it is well above the 2
/// of independent points.
const GROWTH_T: f64 = 4.0;
/// A trend counts if at least this share of what arrives stays.
const GROWTH_SHARE: f64 = 0.01;

/// The measured part of a run: whole segments, from the end of warm-up to the end of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The first measured segment.
    pub first_segment: usize,
    /// Begin, in ns of simulated time; requests sent from then on are measured.
    pub from_ns: u64,
    /// End, in ns: the end of the run.
    pub to_ns: u64,
    /// Whether the warm-up was found from the run (otherwise the scenario fixes it).
    pub detected: bool,
}

impl Window {
    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.to_ns.saturating_sub(self.from_ns) as f64 / 1e9
    }

    /// The measured segments as one.
    pub fn merge(&self, run: &RunResult) -> Segment {
        let mut segments = run.segments[self.first_segment..].iter();
        let mut merged = segments.next().cloned().unwrap_or_default();
        segments.for_each(|s| merged.merge(s));
        merged
    }

    /// Marks the rows of requests that were sent in the window.
    pub fn mark(&self, rows: &mut [Row]) {
        for row in rows {
            row.measured = row.sent_ns >= self.from_ns;
        }
    }
}

/// Whether the measured part had settled.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stationarity {
    /// Levels stay.
    Stationary,
    /// Not enough of it to tell, or levels still change without growing steadily.
    TooShort,
    /// Requests pile up: more arrive than leave.
    Growing,
}

/// What was found about a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Steadiness {
    /// What is measured.
    pub window: Window,
    /// Whether it had settled.
    pub verdict: Stationarity,
    /// Why, in words.
    pub evidence: String,
}

/// Finds warm-up and verdict of a run.
pub fn assess(run: &RunResult) -> Steadiness {
    let series = Series::of(run);
    let limit = series.sending / 2;
    let (first, settled) = match run.fixed_warm_up_ns {
        // Segments that begin before the end of the fixed warm-up go, but never all.
        Some(fixed) => {
            let last = run.segments.len().saturating_sub(1);
            let first = fixed.div_ceil(run.segment_ns.max(1)) as usize;
            (first.min(last), true)
        }
        // A handful of requests shows no warm-up, and none of them can be spared.
        None if series.sending < MIN_SEGMENTS || finished(run, 0) < MIN_FINISHED => (0, true),
        None => {
            let cut = mser(&series.e2e, limit).max(mser(&series.in_system, limit));
            (cut, cut < limit)
        }
    };
    let window = Window {
        first_segment: first,
        from_ns: (first as u64 * run.segment_ns).min(run.end_ns),
        to_ns: run.end_ns,
        detected: run.fixed_warm_up_ns.is_none(),
    };
    let (verdict, evidence) = judge(run, &series, &window, settled);
    Steadiness {
        window,
        verdict,
        evidence,
    }
}

/// The two series, over the segments in which requests were sent.
struct Series {
    /// Whole segments up to the last sending; the very last, being cut anywhere, does not count.
    sending: usize,
    /// Mean end-to-end latency in s of the requests sent in each segment, carried on over gaps.
    e2e: Vec<f64>,
    /// Mean requests in the system, likewise.
    in_system: Vec<f64>,
}

impl Series {
    fn of(run: &RunResult) -> Self {
        let sending = run
            .segments
            .iter()
            .rposition(|s| s.all.sent > 0)
            .unwrap_or(0);
        let mut sums = vec![(0.0, 0_u64); sending];
        for sample in &run.samples {
            let index = (sample.at_ns / run.segment_ns.max(1)) as usize;
            if let Some(sum) = sums.get_mut(index) {
                sum.0 += f64::from(sample.in_system);
                sum.1 += 1;
            }
        }
        let in_system = sums.iter().map(|&(sum, n)| (n > 0).then(|| sum / n as f64));
        let e2e = run.segments[..sending]
            .iter()
            .map(|s| s.all.e2e.mean().map(|ns| ns / 1e9));
        Self {
            sending,
            e2e: carried(e2e),
            in_system: carried(in_system),
        }
    }
}

impl Series {
    /// Mean requests in the system from segment `first` on, at the middle of each, in s.
    fn levels(&self, first: usize, segment_seconds: f64) -> Vec<(f64, f64)> {
        self.in_system
            .iter()
            .enumerate()
            .skip(first)
            .map(|(i, &level)| ((i as f64 + 0.5) * segment_seconds, level))
            .collect()
    }
}

/// Fills gaps with the value before; leading gaps with zero; empty if there is no value at all.
fn carried(series: impl Iterator<Item = Option<f64>>) -> Vec<f64> {
    let mut any = false;
    let filled = series
        .scan(0.0, |last, value| {
            any |= value.is_some();
            *last = value.unwrap_or(*last);
            Some(*last)
        })
        .collect();
    if any { filled } else { Vec::new() }
}

/// The least truncation point, at most `limit`, whose `sum (x - mean)^2 / n^2` of the rest is not
/// told apart from the smallest: within its own standard error, a share `sqrt(2 / (n - 1))` of a
/// variance estimated from `n` values. Of twenty noisy values the smallest alone would often be far
/// in, where nothing had to settle.
fn mser(series: &[f64], limit: usize) -> usize {
    let statistic = |cut: usize| {
        let rest = &series[cut..];
        let n = rest.len() as f64;
        let mean = rest.iter().sum::<f64>() / n;
        rest.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n * n)
    };
    let cuts = || (0..=limit.min(series.len().saturating_sub(1))).filter(|&cut| cut < series.len());
    let best = cuts().min_by(|&a, &b| statistic(a).total_cmp(&statistic(b)));
    let Some(best) = best else { return 0 };
    let values = (series.len() - best) as f64;
    let within = statistic(best) * (1.0 + (2.0 / (values - 1.0).max(1.0)).sqrt());
    cuts().find(|&cut| statistic(cut) <= within).unwrap_or(best)
}

/// Requests finished among those sent from segment `first` on.
fn finished(run: &RunResult, first: usize) -> u64 {
    let measured = run.segments.iter().skip(first);
    measured.map(|s| s.all.finished).sum()
}

fn judge(
    run: &RunResult,
    series: &Series,
    window: &Window,
    settled: bool,
) -> (Stationarity, String) {
    let finished = finished(run, window.first_segment);
    let seconds = run.segment_ns as f64 / 1e9;
    let points = series.levels(window.first_segment, seconds);
    if let Some(evidence) = growth(run, series, window, &points) {
        return (Stationarity::Growing, evidence);
    }
    if series.sending < MIN_SEGMENTS {
        let evidence = format!(
            "requests were sent in only {} of {} segments of {seconds:.3} s",
            run.segments.iter().filter(|s| s.all.sent > 0).count(),
            run.segments.len()
        );
        return (Stationarity::TooShort, evidence);
    }
    if finished < MIN_FINISHED {
        let requests = if finished == 1 { "request" } else { "requests" };
        let evidence = format!("only {finished} {requests} finished in the measured window");
        return (Stationarity::TooShort, evidence);
    }
    if !settled {
        let evidence = "latency or load still changes in the second half; \
                        run longer, or the load varies by design";
        return (Stationarity::TooShort, evidence.to_owned());
    }
    let level = stats::mean(&points.iter().map(|p| p.1).collect::<Vec<_>>()).unwrap_or(0.0);
    let evidence = format!(
        "{level:.1} requests in the system on average, no growth over {:.1} s",
        points.len() as f64 * seconds
    );
    (Stationarity::Stationary, evidence)
}

/// Evidence that requests pile up: over the measured segments in which requests were sent, the
/// number in the system rises along a line, by a share of what arrives, and by more than a few.
fn growth(
    run: &RunResult,
    series: &Series,
    window: &Window,
    points: &[(f64, f64)],
) -> Option<String> {
    let sent: u64 = run.segments[..series.sending]
        .iter()
        .skip(window.first_segment)
        .map(|s| s.all.sent)
        .sum();
    let seconds = run.segment_ns as f64 / 1e9 * points.len() as f64;
    let rate = sent as f64 / seconds.max(1e-9);
    if points.len() < MIN_SEGMENTS / 2 {
        return None;
    }
    let (growth, t) = stats::slope(points)?;
    let grows = t > GROWTH_T && growth > GROWTH_SHARE * rate && growth * seconds > 5.0;
    grows.then(|| {
        let arrivals = match rising_arrivals(run, series, window) {
            Some(share) => format!(", {:.0} % more at the end than at the begin", share * 100.0),
            None => String::new(),
        };
        format!(
            "requests in the system grow by {growth:.3} per second while {rate:.3} per second arrive{arrivals}"
        )
    })
}

/// By what share more arrive at the end of the window than at its begin, if their number rises along
/// a line: then the load grows, whether or not the system keeps up.
fn rising_arrivals(run: &RunResult, series: &Series, window: &Window) -> Option<f64> {
    let points: Vec<(f64, f64)> = run.segments[..series.sending]
        .iter()
        .enumerate()
        .skip(window.first_segment)
        .map(|(i, s)| (i as f64, s.all.sent as f64))
        .collect();
    let (rise, t) = stats::slope(&points)?;
    let mean = stats::mean(&points.iter().map(|p| p.1).collect::<Vec<_>>())?;
    let half = rise * (points.len() - 1) as f64 / 2.0;
    (t > GROWTH_T && half < mean).then(|| 2.0 * half / (mean - half))
}
