//! Many servers, Little's law on the path of a run, and whether arrivals are what they are said to be.

use super::lab::{Lab, wait_share};
use super::queueing::{EXPONENTIAL, RHO, SERVERS, station};
use super::theory;
use super::{Case, CaseError, Check, Param, Point, Sampled, Setting};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-B8",
        title: "many servers, square-root staffing: probability of waiting",
        source: "Halfin & Whitt 1981; Erlang C for the exact value",
        params: &[
            Param {
                name: "load",
                default: "100",
                doc: "offered load R in Erlang",
            },
            Param {
                name: "beta",
                default: "1",
                doc: "servers = R + beta * sqrt(R), rounded",
            },
        ],
        points: HALFIN_WHITT,
        run: square_root_staffing,
    },
    Case {
        id: "V-B9",
        title: "Little's law on the sample path: integral of the number in system = sum of times in system",
        source: "Little 1961",
        params: &[RHO, SERVERS],
        points: &[
            &[("rho", "0.8"), ("servers", "1")],
            &[("rho", "0.9"), ("servers", "4")],
        ],
        run: little,
    },
    Case {
        id: "V-B10",
        title: "arrival generators: coefficient of variation, and counts against the integrated rate",
        source: "definitions",
        params: &[
            Param {
                name: "kind",
                default: "poisson",
                doc: "poisson, gamma, weibull, diurnal or flash_crowd",
            },
            Param {
                name: "shape",
                default: "0.25",
                doc: "gamma burstiness or Weibull shape; diurnal amplitude; flash-crowd factor",
            },
        ],
        points: &[
            &[("kind", "poisson")],
            &[("kind", "gamma"), ("shape", "0.25")],
            &[("kind", "gamma"), ("shape", "4")],
            &[("kind", "weibull"), ("shape", "0.6")],
            &[("kind", "diurnal"), ("shape", "0.6")],
            &[("kind", "flash_crowd"), ("shape", "5")],
        ],
        run: generators,
    },
];

const HALFIN_WHITT: &[Setting] = &[
    &[("load", "100"), ("beta", "0.5")],
    &[("load", "100"), ("beta", "1")],
    &[("load", "100"), ("beta", "1.5")],
    &[("load", "100"), ("beta", "2")],
    &[("load", "1000"), ("beta", "1")],
];

fn square_root_staffing(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let load = point.number("load", 1.0..=20_000.0)?;
    let beta = point.number("beta", 0.05..=5.0)?;
    let servers = (load + beta * load.sqrt()).round();
    let rho = load / servers;
    if rho >= 0.9999 {
        return Err(point.refuse("beta", "rounds to hardly more servers than load"));
    }
    let exact = theory::erlang_c(servers as u32, load);
    // What is waiting for is forgotten after about 4 / beta^2 service times (1 at least), each of
    // `load` arrivals; a length for 3 %, within limits.
    let memory = (4.0 / (beta * beta)).max(1.0);
    let periods = 1.96 * 1.96 * 2.0 * memory * (1.0 - exact) / exact / (0.03 * 0.03);
    let arrivals = (periods * load).min(1.2e7);
    let text = station(load, servers as u64, "", EXPONENTIAL, "");
    let runs = Lab::new(&text, point, arrivals)?.run()?;
    let waited = runs.each(wait_share);
    let mut checks = vec![Check::sampled(
        "probability of waiting, exact at this size",
        exact,
        &waited,
        0.03,
    )];
    // At R the limit is off by a share of order 1/sqrt(R), 6 % at 100: it is compared where that
    // is below 3 %.
    if load >= 1_000.0 {
        let limit = theory::halfin_whitt((servers - load) / load.sqrt());
        checks.push(Check::sampled(
            "probability of waiting, limit of many servers",
            limit,
            &waited,
            0.03,
        ));
    }
    Ok(checks)
}

fn little(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.01..=0.98)?;
    let servers = point.count("servers", 1..=10_000)?;
    let runs = Lab::new(
        &station(rho * servers as f64, servers, "", EXPONENTIAL, ""),
        point,
        1e5,
    )?
    .run()?;
    // The run drains, so it is a whole number of regeneration cycles. The world integrates the
    // number in system; the rows know each time in system: two independent counts.
    let results = runs.results();
    let checks = results.iter().map(|r| {
        let times: u128 = r
            .segments
            .iter()
            .map(|s| (s.all.e2e.mean().unwrap_or(0.0) * s.all.e2e.count() as f64).round() as u128)
            .sum();
        Check::relative(
            format!("integral of the number in system (s), seed {}", r.seed),
            r.in_system_ns as f64 / 1e9,
            times as f64 / 1e9,
            1e-9,
        )
    });
    Ok(checks.collect())
}

fn generators(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let kind = point.text("kind");
    let shape = point.number("shape", 0.01..=100.0)?;
    let n = point.length(1e6);
    let gamma = |x: f64| statrs::function::gamma::gamma(x);
    let (arrivals, cv) = match kind {
        "poisson" => (r#"{ kind = "poisson" }"#.to_owned(), Some(1.0)),
        "gamma" => (
            format!(r#"{{ kind = "gamma", burstiness = {shape:?} }}"#),
            Some(1.0 / shape.sqrt()),
        ),
        "weibull" if shape < 0.4 => {
            let reason = "below 0.4 a Weibull tail is too heavy for its spread to be measured";
            return Err(point.refuse("shape", reason));
        }
        "weibull" => {
            let cv2 = gamma(1.0 + 2.0 / shape) / gamma(1.0 + 1.0 / shape).powi(2) - 1.0;
            (
                format!(r#"{{ kind = "weibull", shape = {shape:?} }}"#),
                Some(cv2.sqrt()),
            )
        }
        "diurnal" if shape <= 1.0 => (
            format!(r#"{{ kind = "diurnal", amplitude = {shape:?}, period = "1000s" }}"#),
            None,
        ),
        "diurnal" => return Err(point.refuse("shape", "a diurnal amplitude lies between 0 and 1")),
        "flash_crowd" => {
            let times = r#"at = "400s", rise = "100s", hold = "200s", fall = "100s""#;
            (
                format!(r#"{{ kind = "flash_crowd", {times}, factor = {shape:?} }}"#),
                None,
            )
        }
        _ => {
            return Err(point.refuse(
                "kind",
                "known: poisson, gamma, weibull, diurnal, flash_crowd",
            ));
        }
    };
    let ends = if cv.is_some() {
        format!("num_prompts = {n}")
    } else {
        r#"duration = "1000s""#.to_owned()
    };
    let rate = if cv.is_some() {
        100.0
    } else {
        n as f64 / 1000.0
    };
    let text = station(
        rate,
        1,
        "",
        EXPONENTIAL,
        &format!("arrivals = {arrivals}\n{ends}"),
    );
    let times = Lab::arrivals_of(&text, point.seed)?;
    match cv {
        Some(cv) => {
            let gaps: Vec<f64> = times.windows(2).map(|w| w[1] - w[0]).collect();
            let s = Sampled::of(&gaps);
            let sd = s.standard_error * (gaps.len() as f64).sqrt();
            Ok(vec![
                Check::sampled("mean distance (s)", 1.0 / rate, &s, 0.01),
                Check::relative("coefficient of variation", cv, sd / s.mean, 0.01),
            ])
        }
        None => {
            // Counts in tenths of the period against the integral of the rate over each.
            let rate_at = |t: f64| match kind {
                "diurnal" => rate * (1.0 + shape * (2.0 * std::f64::consts::PI * t / 1000.0).cos()),
                _ if (400.0..500.0).contains(&t) => {
                    rate * (1.0 + (shape - 1.0) * (t - 400.0) / 100.0)
                }
                _ if (500.0..700.0).contains(&t) => rate * shape,
                _ if (700.0..800.0).contains(&t) => {
                    rate * (shape - (shape - 1.0) * (t - 700.0) / 100.0)
                }
                _ => rate,
            };
            let checks = (0..10).map(|i| {
                let (from, to) = (f64::from(i) * 100.0, f64::from(i + 1) * 100.0);
                let expected: f64 = (0..10_000)
                    .map(|k| rate_at(from + (f64::from(k) + 0.5) * 0.01) * 0.01)
                    .sum();
                let counted = times.iter().filter(|&&t| (from..to).contains(&t)).count() as f64;
                let tolerance = (0.01 * expected).max(3.0 * expected.sqrt());
                Check::within(
                    format!("arrivals from {from} s to {to} s"),
                    expected,
                    counted,
                    tolerance,
                )
            });
            Ok(checks.collect())
        }
    }
}
