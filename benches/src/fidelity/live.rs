//! A scenario in real time beside its simulation: step times are measured on other requests of the
//! same traffic, fitted, and the requests of the live run are simulated with them.

use super::FidelityError;
use crate::computing::Computing;
use crate::execute::{RunPoint, run_live};
use std::sync::Arc;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::RequestId;
use windtunnel_base::quantity::Span;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{CostSpec, EngineSpec, LinearSpec};
use windtunnel_ledger::rows::Row;
use windtunnel_reports::fidelity::{Fidelity, Figure, Run, System};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload::{Arrival, Traffic, Workload};
use windtunnel_sim::run::{RunError, RunOptions, Step, run};

/// Largest relative error of medians, and of figures that are one number.
const TARGET_MEDIAN: f64 = 0.05;
/// Largest relative error of the 99th percentile.
const TARGET_TAIL: f64 = 0.10;
/// The requests that step times are measured on are those of a seed so much later.
const OTHER_SEED: u64 = 1_000;

/// Runs a scenario live under `seed`, and compares it with the simulation of the same requests. Step
/// times are fitted to a live run of other requests before. Takes as long as two live runs.
///
/// # Errors
/// If nothing in the scenario computes, it cannot be built, a device fails, or a law is broken.
pub fn compare_live(
    name: &str,
    scenario: &Arc<Scenario>,
    traffic: &Arc<Traffic>,
    seed: u64,
    ended: &(dyn Fn(u64) + Sync),
) -> Result<Fidelity, FidelityError> {
    let failed = |error: RunError| match error {
        RunError::Law(violation) => FidelityError::Law {
            run: name.to_owned(),
            violation: violation.to_string(),
        },
        other => FidelityError::Scenario {
            run: name.to_owned(),
            findings: other.to_string(),
        },
    };
    let point = |seed| RunPoint {
        scenario: Arc::clone(scenario),
        traffic: Arc::clone(traffic),
        seed,
        laws: true,
        rows: true,
        watch: None,
    };
    let mut steps = Vec::new();
    let mut log = |step: &Step| steps.push((step.shape, step.to.since(step.from)));
    run_live(&point(seed.wrapping_add(OTHER_SEED)), ended, Some(&mut log)).map_err(failed)?;
    let fit = Fit::of(&steps);
    let mut live_steps = Vec::new();
    let mut log = |step: &Step| live_steps.push((step.shape, step.to.since(step.from)));
    let measured = run_live(&point(seed), ended, Some(&mut log)).map_err(failed)?;
    let mut live = measured.rows;
    live.sort_by_key(|row| row.request);
    let mut simulated = simulate(scenario, traffic, seed, &fit, &live).map_err(failed)?;
    simulated.sort_by_key(|row| row.request);
    let mut run = Run::new(name);
    run.requests = live.len() as u64;
    run.steps = live_steps.len() as u64;
    run.settings = fit.settings();
    run.notes.push(format!(
        "step times are fitted to {} steps of other requests (seed {}); on them the fit is off by {:.1} % at the median and {:.1} % at p90, on the {} steps of this run by {:.1} % and {:.1} %",
        steps.len(),
        seed.wrapping_add(OTHER_SEED),
        100.0 * fit.error(&steps, 0.5),
        100.0 * fit.error(&steps, 0.9),
        live_steps.len(),
        100.0 * fit.error(&live_steps, 0.5),
        100.0 * fit.error(&live_steps, 0.9),
    ));
    figures(&mut run, &live, &simulated);
    run.conclude();
    Ok(Fidelity::of(vec![System {
        name: "live".into(),
        layout: "live",
        runs: vec![run],
    }]))
}

/// The requests of a live run through the simulator: same arrivals and prompts, answers as long as
/// those that came.
fn simulate(
    scenario: &Scenario,
    traffic: &Traffic,
    seed: u64,
    fit: &Fit,
    live: &[Row],
) -> Result<Vec<Row>, RunError> {
    let computing = Computing::of(scenario)?;
    let mut scenario = computing.map_or_else(|| scenario.clone(), |c| (*c.scenario).clone());
    let fleet = &mut scenario.fleet;
    let pools = fleet.pools.iter_mut().map(|p| &mut p.engine);
    for engine in std::iter::once(&mut fleet.engine).chain(pools) {
        if let EngineSpec::Reference(spec) = engine {
            spec.cost = CostSpec::Linear(fit.spec());
            *engine = EngineSpec::Continuous(spec.clone());
        }
    }
    let mut workload = Answered {
        inner: traffic.workload(seed),
        taken: 0,
        live,
    };
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    Ok(run(&scenario, &mut workload, seed, options)?.rows)
}

/// A workload whose answers are as long as those of a live run.
struct Answered<'a> {
    inner: Box<dyn Workload>,
    taken: usize,
    live: &'a [Row],
}

impl Workload for Answered<'_> {
    fn next_at(&mut self) -> Option<SimTime> {
        self.inner.next_at()
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let mut arrival = self.inner.take(prefix);
        if let Some(row) = self.live.get(self.taken)
            && row.output_tokens > 0
        {
            arrival.truth.output_tokens = row.output_tokens;
        }
        self.taken += 1;
        arrival
    }

    fn departed(&mut self, request: RequestId, at: SimTime, finished: bool) {
        self.inner.departed(request, at, finished);
    }
}

/// Sets the figures of both sides beside each other.
fn figures(run: &mut Run, live: &[Row], simulated: &[Row]) {
    let since_sent = |row: &Row, at: Option<u64>| Some((at? - row.sent_ns) as f64 / 1e6);
    type Value = fn(&Row) -> Option<u64>;
    let metrics: [(&'static str, Value); 2] =
        [("ttft", |r| r.first_token_ns), ("e2e", |r| r.last_token_ns)];
    let all = |rows: &[Row], value: Value| -> Vec<Option<f64>> {
        rows.iter().map(|r| since_sent(r, value(r))).collect()
    };
    for (metric, value) in metrics {
        run.compare(metric, "ms", all(live, value), all(simulated, value), None);
    }
    let tpot = |rows: &[Row]| -> Vec<Option<f64>> {
        rows.iter()
            .map(|r| r.tpot_ns().map(|ns| ns / 1e6))
            .collect()
    };
    run.compare("tpot", "ms", tpot(live), tpot(simulated), None);
    let of = |row: &Row| {
        let end = row.last_token_ns? as f64 / 1e9;
        Some((row.sent_ns as f64 / 1e9, end, row.output_tokens))
    };
    super::play::throughput(run, live.iter().filter_map(of), simulated);
    for figure in &mut run.figures {
        let target = match figure.statistic {
            "p50" | "" => Some(TARGET_MEDIAN),
            "p99" => Some(TARGET_TAIL),
            _ => None,
        };
        *figure = Figure::new(
            figure.metric,
            figure.statistic,
            figure.unit,
            figure.measured,
            figure.simulated,
            target,
        );
    }
}

/// Rounds of least squares after the first: weights hardly change any more.
const REWEIGHTED: usize = 4;

/// Terms of the fit, in the order of [`terms`].
const TERMS: [&str; 5] = [
    "per_step_us",
    "per_sequence_us",
    "per_kilo_context_us",
    "per_prompt_token_us",
    "per_mega_pair_us",
];

/// What a step's time is a sum of.
fn terms(shape: &BatchShape) -> [f64; 5] {
    [
        1.0,
        f64::from(shape.decode_seqs),
        shape.decode_context as f64,
        shape.prefill_tokens as f64,
        shape.prefill_pairs as f64,
    ]
}

/// Seconds per term, none below zero.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Fit([f64; 5]);

impl Fit {
    /// Least squares, then again with errors relative to what was found before: relative to what was
    /// measured, a fit would come out too low, because slow moments would count for less. Terms
    /// that would be negative are left out.
    fn of(steps: &[(BatchShape, SimDuration)]) -> Self {
        let mut fit = Self::weighted(steps, |_| 1.0);
        for _ in 0..REWEIGHTED {
            fit = Self::weighted(steps, |shape| 1.0 / fit.seconds(shape).max(1e-9));
        }
        fit
    }

    fn weighted(steps: &[(BatchShape, SimDuration)], weight: impl Fn(&BatchShape) -> f64) -> Self {
        let total = |i: usize| steps.iter().map(|(s, _)| terms(s)[i]).sum::<f64>();
        let mut open = [true; 5];
        loop {
            let found = solve(steps, &weight, &open);
            let worst = (0..5)
                .filter(|&i| open[i] && found[i] < 0.0)
                .min_by(|&a, &b| (found[a] * total(a)).total_cmp(&(found[b] * total(b))));
            match worst {
                Some(i) => open[i] = false,
                None => return Self(found),
            }
        }
    }

    fn seconds(&self, shape: &BatchShape) -> f64 {
        self.0.iter().zip(terms(shape)).map(|(a, x)| a * x).sum()
    }

    /// A quantile of the sizes of relative errors.
    fn error(&self, steps: &[(BatchShape, SimDuration)], quantile: f64) -> f64 {
        let error = |(shape, took): &(BatchShape, SimDuration)| {
            let took = took.as_secs_f64();
            ((self.seconds(shape) - took) / took).abs()
        };
        let mut errors: Vec<f64> = steps.iter().map(error).collect();
        errors.sort_by(f64::total_cmp);
        let at = (quantile * errors.len().saturating_sub(1) as f64) as usize;
        errors.get(at).copied().unwrap_or(0.0)
    }

    fn spec(&self) -> LinearSpec {
        let span = |seconds: f64| Some(Span(SimDuration::from_secs_f64_saturating(seconds)));
        let [base, per_seq, per_context, per_token, per_pair] = self.0;
        LinearSpec {
            preset: None,
            // A step takes some time, whatever was fitted.
            base: span(base.max(1e-9)),
            per_seq: span(per_seq),
            per_kilo_context: span(per_context * 1e3),
            per_prefill_token: span(per_token),
            per_mega_pair: span(per_pair * 1e6),
            max_seqs: None,
        }
    }

    fn settings(&self) -> std::collections::BTreeMap<String, String> {
        let scale = [1e6, 1e6, 1e9, 1e6, 1e12];
        let values = self
            .0
            .iter()
            .zip(scale)
            .map(|(a, s)| format!("{:.3}", a * s));
        TERMS.map(str::to_owned).into_iter().zip(values).collect()
    }
}

/// Solves the normal equations over the open terms.
fn solve(
    steps: &[(BatchShape, SimDuration)],
    weight: impl Fn(&BatchShape) -> f64,
    open: &[bool; 5],
) -> [f64; 5] {
    let mut a = [[0.0_f64; 6]; 5];
    for (shape, took) in steps {
        let weight = weight(shape);
        let took = took.as_secs_f64() * weight;
        let x = terms(shape).map(|x| x * weight);
        for i in 0..5 {
            for j in 0..5 {
                a[i][j] += x[i] * x[j];
            }
            a[i][5] += x[i] * took;
        }
    }
    // Terms differ by orders of magnitude: scale them, and leave out those that never occur.
    let scale: [f64; 5] = std::array::from_fn(|i| a[i][i].sqrt());
    let used: Vec<usize> = (0..5).filter(|&i| open[i] && scale[i] > 0.0).collect();
    let mut rows: Vec<Vec<f64>> = used
        .iter()
        .map(|&i| {
            let left = used.iter().map(|&j| a[i][j] / (scale[i] * scale[j]));
            left.chain([a[i][5] / scale[i]]).collect()
        })
        .collect();
    let n = used.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|&p, &q| rows[p][k].abs().total_cmp(&rows[q][k].abs()));
        rows.swap(k, pivot.unwrap_or(k));
        if rows[k][k].abs() < 1e-12 {
            continue;
        }
        let from = rows[k].clone();
        for (r, row) in rows.iter_mut().enumerate() {
            if r != k {
                let factor = row[k] / from[k];
                row.iter_mut()
                    .zip(&from)
                    .for_each(|(x, y)| *x -= factor * y);
            }
        }
    }
    let mut found = [0.0; 5];
    for (k, &i) in used.iter().enumerate() {
        if rows[k][k].abs() >= 1e-12 {
            found[i] = rows[k][n] / rows[k][k] / scale[i];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(seqs: u32, context: u64, tokens: u64, pairs: u64) -> BatchShape {
        BatchShape {
            decode_seqs: seqs,
            decode_context: context,
            prefill_tokens: tokens,
            prefill_pairs: pairs,
            ..BatchShape::default()
        }
    }

    #[test]
    fn a_fit_finds_the_line_that_steps_were_made_by() {
        let truth = Fit([2e-3, 3e-4, 2e-7, 0.0, 5e-9]);
        let mut steps = Vec::new();
        for i in 0..60_u64 {
            let s = shape(
                (i % 8) as u32,
                (i % 8) * (40 + i),
                7 * (i % 5),
                900 * (i % 5) * (i % 3),
            );
            steps.push((s, SimDuration::from_secs_f64_saturating(truth.seconds(&s))));
        }
        let found = Fit::of(&steps);
        for (a, b) in found.0.iter().zip(truth.0) {
            // Times are whole nanoseconds, a millionth of a step.
            assert!((a - b).abs() <= 1e-4 * b.max(1e-8), "{found:?}");
        }
        assert!(found.error(&steps, 1.0) < 1e-5);
    }

    #[test]
    fn slow_moments_do_not_make_a_fit_too_low() {
        // Every fourth step takes three times as long: the mean is 1.5 times the usual time.
        let truth = Fit([1e-3, 4e-4, 0.0, 0.0, 0.0]);
        let steps: Vec<_> = (0..400_u64)
            .map(|i| {
                let s = shape(1 + (i / 4 % 8) as u32, 0, 0, 0);
                let slow = if i % 4 == 0 { 3.0 } else { 1.0 };
                let took = slow * truth.seconds(&s);
                (s, SimDuration::from_secs_f64_saturating(took))
            })
            .collect();
        let found = Fit::of(&steps);
        for i in 0..2 {
            assert!((found.0[i] / truth.0[i] - 1.5).abs() < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn no_term_is_negative_and_what_never_occurs_is_nothing() {
        let steps: Vec<_> = (1..20_u64)
            .map(|i| {
                let s = shape(i as u32, 100 * i, 0, 0);
                (s, SimDuration::from_micros(4000 - 10 * i))
            })
            .collect();
        let found = Fit::of(&steps);
        assert!(found.0.iter().all(|&a| a >= 0.0), "{found:?}");
        assert_eq!(found.0[3..], [0.0, 0.0]);
        assert!(found.error(&steps, 0.5) < 0.05);
    }
}
