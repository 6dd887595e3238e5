//! The gateway's stages: V-R2, and what the sums of budgets are worth (C03).

use super::lab::Lab;
use super::{Case, CaseError, Check, Param, Point, Sampled};
use windtunnel_ledger::gateway::PipelineTotals;
use windtunnel_ledger::result::RunResult;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-R2",
        title: "gateway chain: a sum of stages, tokenizing by the token",
        source: "sum of the stages; 0.8 us per token",
        params: &[
            Param {
                name: "tokens",
                default: "4000",
                doc: "tokens of every prompt",
            },
            Param {
                name: "per_token",
                default: "800",
                doc: "time of tokenizing, ns per token",
            },
        ],
        points: &[
            &[("tokens", "4000")],
            &[("tokens", "5500")],
            &[("tokens", "8000")],
        ],
        run: chain,
    },
    Case {
        id: "C-03",
        title: "gateway latency budget: sum of the stages' p99 against p99 of the sum",
        source: "p99 of a sum of independent lognormal times, by a plain program; union bound",
        params: &[
            Param {
                name: "stages",
                default: "4",
                doc: "stages of 1 ms, at most 4",
            },
            Param {
                name: "sigma",
                default: "0.5",
                doc: "standard deviation of the logarithm of each",
            },
        ],
        points: &[
            &[("stages", "1")],
            &[("stages", "2")],
            &[("stages", "4")],
            &[("stages", "4"), ("sigma", "1")],
        ],
        run: budget,
    },
];

/// Requests of a point, over all replications.
const ARRIVALS: f64 = 400_000.0;

fn world(pipeline: &str, prompt: u64) -> String {
    format!(
        r#"
        version = 1
        fleet.engine = {{ kind = "station", servers = 1000 }}
        [gateway.pipeline]
        {pipeline}
        [traffic]
        request_rate = "100 req/s"
        input = {{ kind = "fixed", tokens = {prompt} }}
        service = {{ kind = "fixed", value = "1ms" }}
        "#
    )
}

fn totals(run: &RunResult) -> Result<&PipelineTotals, CaseError> {
    let totals = run.pipeline.as_ref();
    totals.ok_or_else(|| CaseError::Run("the run has no stages".into()))
}

fn chain(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let tokens = point.count("tokens", 1..=1_000_000)?;
    let per_token = point.count("per_token", 0..=1_000_000)?;
    let pipeline = format!(
        r#"
        budget = "5ms"
        parse = {{ time = "200us" }}
        authenticate = {{ time = "300us" }}
        tokenize = {{ per_token = "{per_token}ns" }}
        exact_lookup = {{ time = "100us" }}
        "#
    );
    let run = Lab::settled(&world(&pipeline, tokens), point, 8_000.0, 0.0)?.once()?;
    let totals = totals(&run.result)?;
    let expected = 600_000 + tokens * per_token;
    let n = totals.time.count() as f64;
    let late = if expected > 5_000_000 { n } else { 0.0 };
    let least = totals.time.min().unwrap_or(0) as f64 / 1e6;
    let most = totals.time.max().unwrap_or(0) as f64 / 1e6;
    Ok(vec![
        Check::exact("least time in all stages, ms", expected as f64 / 1e6, least),
        Check::exact("most, ms", expected as f64 / 1e6, most),
        Check::exact("requests over 5 ms", late, totals.over_budget as f64),
    ])
}

/// The quantile of the sum by a plain program with draws of its own: an order statistic of so many sums.
fn plain_p99(stages: u64, sigma: f64) -> f64 {
    const N: usize = 400_000;
    let mut rng = windtunnel_base::rng::Rng::from_seed(99);
    let mean_of_log = -sigma * sigma / 2.0;
    let mut normal = || {
        let (u, v) = (rng.f64_open(), rng.f64());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    let mut sums: Vec<f64> = (0..N)
        .map(|_| {
            (0..stages)
                .map(|_| (mean_of_log + sigma * normal()).exp())
                .sum()
        })
        .collect();
    sums.sort_by(f64::total_cmp);
    sums[N / 100 * 99]
}

fn budget(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let stages = point.count("stages", 1..=4)?;
    let sigma = point.number("sigma", 0.01..=2.0)?;
    let names = ["parse", "authenticate", "admission", "routing"];
    let lines: Vec<String> = names[..stages as usize]
        .iter()
        .map(|name| format!(r#"{name} = {{ time = "1ms", sigma = {sigma:?} }}"#))
        .collect();
    let runs = Lab::settled(&world(&lines.join("\n"), 10), point, ARRIVALS, 0.0)?.run()?;
    let p99 =
        |of: &windtunnel_ledger::result::Distribution| of.quantile(0.99).unwrap_or(f64::NAN) / 1e6;
    let whole = runs.each(|run| totals(&run.result).map_or(f64::NAN, |t| p99(&t.time)));
    let sum = runs.each(|run| {
        totals(&run.result).map_or(f64::NAN, |t| {
            t.stages
                .iter()
                .filter(|s| s.present)
                .map(|s| p99(&s.time))
                .sum()
        })
    });
    // A lognormal of mean 1 has its 99 % quantile at exp(2.3263 sigma - sigma^2 / 2).
    let one = (2.326_347_874 * sigma - sigma * sigma / 2.0).exp();
    // A plain program's quantile has noise of its own, about as much as the run's.
    let plain = Sampled {
        mean: plain_p99(stages, sigma),
        standard_error: whole.standard_error,
    };
    Ok(vec![
        Check::sampled(
            "sum of the stages' p99, ms",
            stages as f64 * one,
            &sum,
            0.01,
        ),
        Check::both_sampled("p99 of all together, ms", &plain, &whole, 0.01),
        Check::at_most(
            "p99 of all together, at most the sum, ms",
            sum.mean * 1.005,
            whole.mean,
        ),
    ])
}
