//! One recorded run through the simulator: the scenario that its settings say, its requests, and what
//! came of each.

use super::traffic::Traffic;
use super::{FidelityError, Options};
use std::fmt::Write as _;
use std::path::Path;
use windtunnel_ledger::result::{Distribution, RunResult};
use windtunnel_ledger::rows::Row;
use windtunnel_reports::fidelity::{Figure, Run, STATISTICS};
use windtunnel_scenarios::{LoadEnv, Override, Source, load};
use windtunnel_sim::{RunError, RunOptions, Step, TieOrder, run};

/// What came of a run.
pub(super) struct Played {
    /// One row per request, in the order of the record.
    pub(super) rows: Vec<Row>,
    /// The whole result; its rows are above.
    pub(super) result: RunResult,
    /// Steps that were taken.
    pub(super) steps: u64,
}

/// Plays recorded requests in the world that `scenario` describes. `dir` is where its relative paths
/// start; `name` is for messages. Laws are on; `step` is told of every step, if given.
pub(super) fn play(
    name: &str,
    dir: &Path,
    scenario: &Sheet,
    traffic: &Traffic,
    options: &Options,
    step: Option<&mut dyn FnMut(&Step)>,
) -> Result<Played, FidelityError> {
    let refused = |findings: String| FidelityError::Scenario {
        run: name.to_owned(),
        findings,
    };
    let source = Source::Text {
        name: format!("scenario of {name}"),
        // The requests are at hand; these lines only say how many there are.
        text: format!(
            "{}\n[traffic]\nnum_prompts = {}\nrequest_rate = \"1 req/s\"\n\
             input = {{ kind = \"fixed\", tokens = 1 }}\noutput = {{ kind = \"fixed\", tokens = 1 }}\n",
            scenario.text,
            traffic.len()
        ),
        dir: Some(dir.canonicalize().unwrap_or_else(|_| dir.to_owned())),
    };
    let overrides: Vec<Override> = options.set.iter().map(Override::new).collect();
    let loaded = load(&source, &overrides, &LoadEnv::default())
        .map_err(|report| refused(report.render(false).trim_end().to_owned()))?;
    let mut workload = traffic.play();
    let run_options = RunOptions {
        laws: true,
        keep_rows: true,
        samples: 0,
        // As BLIS and Vidur have it; on a real clock nothing is simultaneous.
        ties: TieOrder::ArrivalsFirst,
        steps: step,
        ..RunOptions::default()
    };
    let seed = scenario.seed.unwrap_or(loaded.scenario.run.seed);
    let mut result =
        run(&loaded.scenario, &mut workload, seed, run_options).map_err(|error| match error {
            RunError::Law(violation) => FidelityError::Law {
                run: name.to_owned(),
                violation: violation.to_string(),
            },
            other => refused(other.to_string()),
        })?;
    let mut rows: Vec<(usize, Row)> = std::mem::take(&mut result.rows)
        .into_iter()
        .map(|row| (traffic.recorded_at(row.request), row))
        .collect();
    rows.sort_by_key(|&(place, _)| place);
    Ok(Played {
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        steps: result.segments.iter().map(|s| s.steps).sum(),
        result,
    })
}

/// A scenario being written.
#[derive(Default)]
pub(super) struct Sheet {
    text: String,
    /// Seed of the run's draws; the scenario's if absent.
    pub(super) seed: Option<u64>,
}

impl Sheet {
    /// Begins a table.
    pub(super) fn table(&mut self, path: &str) -> &mut Self {
        let _ = writeln!(self.text, "\n[{path}]");
        self
    }

    /// Gives a value in the table that was begun last.
    pub(super) fn set(&mut self, key: &str, value: impl Into<toml::Value>) -> &mut Self {
        let _ = writeln!(self.text, "{key} = {}", value.into());
        self
    }

    /// Gives a value if there is one.
    pub(super) fn maybe(&mut self, key: &str, value: Option<impl Into<toml::Value>>) -> &mut Self {
        if let Some(value) = value {
            self.set(key, value);
        }
        self
    }
}

/// Compares how much was served in a second, from the first arrival to the last token. `measured` has
/// arrival and end in seconds and output tokens of each request.
pub(super) fn throughput(
    run: &mut Run,
    measured: impl Iterator<Item = (f64, f64, u32)>,
    rows: &[Row],
) {
    let simulated = rows.iter().filter_map(|row| {
        let end = row.last_token_ns? as f64 / 1e9;
        Some((row.sent_ns as f64 / 1e9, end, row.output_tokens))
    });
    let (measured, simulated) = (rates(measured), rates(simulated));
    for (i, (metric, unit)) in [
        ("request_throughput", "requests/s"),
        ("output_token_throughput", "tokens/s"),
    ]
    .into_iter()
    .enumerate()
    {
        let of = |rates: Option<[f64; 2]>| rates.map(|r| r[i]);
        let figure = Figure::new(metric, "", unit, of(measured), of(simulated), None);
        run.figures.push(figure);
    }
}

/// Requests and output tokens per second.
fn rates(requests: impl Iterator<Item = (f64, f64, u32)>) -> Option<[f64; 2]> {
    let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
    let (mut n, mut tokens) = (0_u64, 0_u64);
    for (arrived, ended, output) in requests {
        first = first.min(arrived);
        last = last.max(ended);
        n += 1;
        tokens += u64::from(output);
    }
    let time = last - first;
    (time > 0.0 && time.is_finite()).then(|| [n as f64 / time, tokens as f64 / time])
}

/// Compares gaps between tokens, pooled over all requests, in milliseconds: `measured` has statistics
/// by name. The simulation's come from its ledger, whose quantiles are exact to one part in 1024.
pub(super) fn gaps(run: &mut Run, result: &RunResult, measured: &[(&str, f64)]) {
    let mut gaps = Distribution::default();
    result.segments.iter().for_each(|s| gaps.merge(&s.all.itl));
    for statistic in STATISTICS {
        let quantile = statistic
            .strip_prefix('p')
            .and_then(|p| p.parse::<f64>().ok());
        let simulated = match quantile {
            Some(p) => gaps.quantile(p / 100.0),
            None => gaps.mean(),
        };
        let measured = measured.iter().find(|(name, _)| *name == statistic);
        run.figures.push(Figure::new(
            "itl",
            statistic,
            "ms",
            measured.map(|&(_, ms)| ms),
            simulated.map(|ns| ns / 1e6),
            None,
        ));
    }
}
