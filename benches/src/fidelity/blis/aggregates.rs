//! The aggregates of a run, made as BLIS makes them: means and interpolated percentiles of whole
//! microseconds.

use super::super::files::{self, Unreadable};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use windtunnel_ledger::rows::{End, Row};
use windtunnel_reports::fidelity::{Figure, Run, value_of};
use windtunnel_sim::Step;

/// What counts as equal: figures are printed as 64-bit floats, whose sums and quotients depend on the
/// order in the last digits.
const SAME: f64 = 1e-12;

/// Aggregates as they were told.
pub(super) struct Summary(Value);

impl Summary {
    /// Whether clients gave up.
    pub(super) fn timed_out(&self) -> bool {
        self.number("timed_out_requests").is_some_and(|n| n > 0.0)
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }
}

/// The aggregates of a result: its `summary.json`, or what was printed.
pub(super) fn read(results: &Path, name: &str) -> Result<Option<Summary>, Unreadable> {
    if let Some(path) = files::find(results, &format!("{name}.summary.json")) {
        return Ok(Some(Summary(files::json(&path)?)));
    }
    let Some(path) = files::find(results, &format!("{name}.stdout.txt")) else {
        return Ok(None);
    };
    let text = files::text(&path)?;
    let document = text
        .find('{')
        .zip(text.rfind('}'))
        .and_then(|(a, b)| text.get(a..=b));
    let Some(document) = document else {
        return Err(Unreadable::file(
            &path,
            "there are no metrics in it",
            "fetch the file again",
        ));
    };
    Ok(Some(Summary(files::from_json(&path, document)?)))
}

/// Gaps between tokens, in microseconds and how many of each: one per decoding request and step.
pub(super) struct Gaps {
    per_token: u64,
    counts: BTreeMap<u64, u64>,
}

impl Gaps {
    /// None yet; each will be longer than its step by `per_token` microseconds.
    pub(super) fn new(per_token: u64) -> Self {
        Self {
            per_token,
            counts: BTreeMap::new(),
        }
    }

    /// The gaps that end with a step.
    pub(super) fn add(&mut self, step: &Step) {
        if step.shape.decode_seqs > 0 {
            let gap = step.to.since(step.from).as_nanos() / 1_000 + self.per_token;
            *self.counts.entry(gap).or_default() += u64::from(step.shape.decode_seqs);
        }
    }

    /// A statistic, in milliseconds.
    fn value(&self, statistic: &str) -> Option<f64> {
        let n: u64 = self.counts.values().sum();
        let last = n.checked_sub(1)?;
        let Some(p) = statistic
            .strip_prefix('p')
            .and_then(|p| p.parse::<f64>().ok())
        else {
            let sum: f64 = self
                .counts
                .iter()
                .map(|(&us, &n)| us as f64 * n as f64)
                .sum();
            return Some(sum / n as f64 / 1e3);
        };
        let rank = p / 100.0 * last as f64;
        let (low, high) = (self.at(rank.floor() as u64)?, self.at(rank.ceil() as u64)?);
        Some((low + (high - low) * (rank - rank.floor())) / 1e3)
    }

    /// The gap of a rank, from 0.
    fn at(&self, rank: u64) -> Option<f64> {
        let mut before = 0;
        for (&us, &n) in &self.counts {
            before += n;
            if rank < before {
                return Some(us as f64);
            }
        }
        None
    }
}

/// Compares every aggregate that is told and that a simulation has.
pub(super) fn compare(run: &mut Run, summary: &Summary, rows: &[Row], gaps: Gaps) {
    let sorted = |of: &dyn Fn(&Row) -> Option<u64>| -> Vec<f64> {
        let mut us: Vec<f64> = rows
            .iter()
            .filter_map(of)
            .map(|ns| (ns / 1_000) as f64)
            .collect();
        us.sort_by(f64::total_cmp);
        us
    };
    let ttft = sorted(&Row::ttft_ns);
    let e2e = sorted(&Row::e2e_ns);
    let delay = sorted(&Row::queue_ns);
    type Statistic<'a> = Box<dyn Fn(&str) -> Option<f64> + 'a>;
    let families: [(&'static str, &str, Statistic<'_>); 4] = [
        (
            "summary_ttft",
            "ttft",
            Box::new(|s| value_of(s, &ttft).map(|us| us / 1e3)),
        ),
        (
            "summary_e2e",
            "e2e",
            Box::new(|s| value_of(s, &e2e).map(|us| us / 1e3)),
        ),
        ("itl", "itl", Box::new(|s| gaps.value(s))),
        (
            "scheduling_delay",
            "scheduling_delay",
            Box::new(|s| value_of(s, &delay).map(|us| us / 1e3)),
        ),
    ];
    for (metric, told, simulated) in families {
        for statistic in ["mean", "p90", "p95", "p99"] {
            let measured = summary.number(&format!("{told}_{statistic}_ms"));
            if measured.is_some() {
                run.figures.push(Figure::new(
                    metric,
                    statistic,
                    "ms",
                    measured,
                    simulated(statistic),
                    Some(SAME),
                ));
            }
        }
    }
    counts(run, summary, rows);
}

/// Counts, tokens and rates.
fn counts(run: &mut Run, summary: &Summary, rows: &[Row]) {
    let finished = || rows.iter().filter(|r| r.end == End::Finished);
    let completed = finished().count() as f64;
    let sum = |of: fn(&Row) -> u32| finished().map(|r| f64::from(of(r))).sum::<f64>();
    let (input, output) = (sum(|r| r.prompt_tokens), sum(|r| r.output_tokens));
    let preemptions: f64 = rows.iter().map(|r| f64::from(r.preemptions)).sum();
    let abandoned = rows.iter().filter(|r| r.end == End::Abandoned).count() as f64;
    let end = summary.number("vllm_estimated_duration_s");
    let per_second = |n: f64| end.filter(|&s| s > 0.0).map(|s| n / s);
    let parts: [(&'static str, &'static str, &str, Option<f64>); 7] = [
        (
            "finished",
            "requests",
            "completed_requests",
            Some(completed),
        ),
        ("prompt_tokens", "tokens", "total_input_tokens", Some(input)),
        (
            "output_tokens",
            "tokens",
            "total_output_tokens",
            Some(output),
        ),
        (
            "summary_throughput",
            "requests/s",
            "responses_per_sec",
            per_second(completed),
        ),
        (
            "summary_token_throughput",
            "tokens/s",
            "tokens_per_sec",
            per_second(output),
        ),
        (
            "preemptions",
            "times",
            "preemption_count",
            Some(preemptions),
        ),
        (
            "abandoned",
            "requests",
            "timed_out_requests",
            Some(abandoned),
        ),
    ];
    for (metric, unit, told, simulated) in parts {
        if let Some(measured) = summary.number(told) {
            let figure = Figure::new(metric, "", unit, Some(measured), simulated, Some(SAME));
            run.figures.push(figure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_weighted_and_interpolated() {
        let mut gaps = Gaps::new(0);
        for (us, n) in [(1_000, 3), (2_000, 1)] {
            gaps.counts.insert(us, n);
        }
        assert_eq!(gaps.value("mean"), Some(1.25));
        // Ranks 0 to 3; p90 is at 2.7, between 1,000 and 2,000 us.
        assert!((gaps.value("p90").unwrap_or(0.0) - 1.7).abs() < 1e-12);
        assert_eq!(gaps.value("p50"), Some(1.0));
        assert_eq!(Gaps::new(0).value("mean"), None);
    }
}
