//! Queueing theory, V-B1 to V-B7: stations behind the gateway.

use super::lab::{Lab, wait_share};
use super::theory;
use super::{Case, CaseError, Check, Param, Point};

pub(super) const RHO: Param = Param {
    name: "rho",
    default: "0.8",
    doc: "load per server, between 0 and 1",
};
pub(super) const SERVERS: Param = Param {
    name: "servers",
    default: "1",
    doc: "servers",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-B1",
        title: "M/M/1: number, time and tail of the time in system",
        source: "Kleinrock 1975",
        params: &[RHO],
        points: &[&[("rho", "0.5")], &[("rho", "0.8")], &[("rho", "0.9")]],
        run: mm1,
    },
    Case {
        id: "V-B2",
        title: "M/M/c: probability and mean of waiting",
        source: "Erlang C",
        params: &[RHO, SERVERS],
        points: &[
            &[("servers", "2"), ("rho", "0.8")],
            &[("servers", "4"), ("rho", "0.8")],
            &[("servers", "8"), ("rho", "0.8")],
            &[("servers", "8"), ("rho", "0.9")],
            &[("servers", "16"), ("rho", "0.9")],
            &[("servers", "100"), ("rho", "0.95")],
        ],
        run: mmc,
    },
    Case {
        id: "V-B3",
        title: "M/G/1, first come first served: mean wait",
        source: "Pollaczek-Khinchine",
        params: &[
            RHO,
            Param {
                name: "service",
                default: "exponential",
                doc: "deterministic, exponential, lognormal, hyperexponential or gamma",
            },
            Param {
                name: "cs2",
                default: "1",
                doc: "squared coefficient of variation of the service time, where the service allows to choose",
            },
        ],
        points: &[
            &[("rho", "0.8"), ("service", "deterministic")],
            &[("rho", "0.8"), ("service", "exponential")],
            &[
                ("rho", "0.8"),
                ("service", "lognormal"),
                ("cs2", "1.718281828459045"),
            ],
            &[
                ("rho", "0.8"),
                ("service", "hyperexponential"),
                ("cs2", "4"),
            ],
            &[
                ("rho", "0.7"),
                ("service", "hyperexponential"),
                ("cs2", "9"),
            ],
        ],
        run: mg1,
    },
    Case {
        id: "V-B4",
        title: "two non-preemptive priority classes: mean waits and their conservation",
        source: "Cobham 1954",
        params: &[
            Param {
                name: "rho1",
                default: "0.3",
                doc: "load of the class that goes first",
            },
            Param {
                name: "rho2",
                default: "0.5",
                doc: "load of the other class",
            },
        ],
        points: &[&[("rho1", "0.3"), ("rho2", "0.5")]],
        run: priorities,
    },
    Case {
        id: "V-B5",
        title: "M/G/1, processor sharing: slowdown does not depend on the distribution",
        source: "Kleinrock 1976",
        params: &[
            RHO,
            Param {
                name: "service",
                default: "exponential",
                doc: "exponential, hyperexponential or two_point",
            },
        ],
        points: &[
            &[("rho", "0.8"), ("service", "exponential")],
            &[("rho", "0.8"), ("service", "hyperexponential")],
            &[("rho", "0.8"), ("service", "two_point")],
        ],
        run: sharing,
    },
    Case {
        id: "V-B6",
        title: "M/M/1/K: share refused",
        source: "finite birth-death chain",
        params: &[
            Param {
                name: "rho",
                default: "0.9",
                doc: "offered load; may exceed 1",
            },
            Param {
                name: "k",
                default: "10",
                doc: "requests that fit, the one in service included",
            },
        ],
        points: &[
            &[("rho", "0.9"), ("k", "10")],
            &[("rho", "1.2"), ("k", "10")],
        ],
        run: mm1k,
    },
    Case {
        id: "V-B7",
        title: "M/G/c/c: share lost, whatever the service distribution",
        source: "Erlang B",
        params: &[
            SERVERS,
            Param {
                name: "load",
                default: "6.4",
                doc: "offered load in Erlang",
            },
            Param {
                name: "service",
                default: "exponential",
                doc: "as in V-B3",
            },
            Param {
                name: "cs2",
                default: "4",
                doc: "as in V-B3",
            },
        ],
        points: &[
            &[
                ("servers", "8"),
                ("load", "6.4"),
                ("service", "exponential"),
            ],
            &[
                ("servers", "8"),
                ("load", "6.4"),
                ("service", "hyperexponential"),
            ],
            &[
                ("servers", "100"),
                ("load", "95"),
                ("service", "deterministic"),
            ],
        ],
        run: erlang_loss,
    },
];

/// Arrivals for a relative 95 % half-width `eps` of the mean time in M/M/1 (Whitt 1989), scaled for
/// service times that vary more.
pub(super) fn run_length(rho: f64, cs2: f64, eps: f64) -> f64 {
    let one = 1.96 * 1.96 * 2.0 * (1.0 + rho) / ((1.0 - rho) * (1.0 - rho) * eps * eps);
    one * ((1.0 + cs2) / 2.0).max(1.0)
}

/// The `[traffic.service]` line of a distribution with mean one second.
fn service(point: &Point<'_>, kind: &str, cs2: f64) -> Result<(String, f64), CaseError> {
    Ok(match kind {
        "deterministic" => (r#"{ kind = "fixed", value = "1s" }"#.into(), 0.0),
        "exponential" => (r#"{ kind = "exponential", mean = "1s" }"#.into(), 1.0),
        "lognormal" => (
            format!(
                r#"{{ kind = "lognormal", mean = "1s", sigma = {:?} }}"#,
                (1.0 + cs2).ln().sqrt()
            ),
            cs2,
        ),
        "hyperexponential" if cs2 >= 1.0 => (
            format!(r#"{{ kind = "hyperexponential", mean = "1s", cv2 = {cs2:?} }}"#),
            cs2,
        ),
        "hyperexponential" => return Err(point.refuse("cs2", "a hyperexponential has at least 1")),
        "gamma" if cs2 > 0.0 => (
            format!(r#"{{ kind = "gamma", mean = "1s", cv2 = {cs2:?} }}"#),
            cs2,
        ),
        "two_point" => (
            r#"{ kind = "two_point", low = "500ms", high = "3s", p_high = 0.2 }"#.into(),
            1.0,
        ),
        _ => {
            return Err(point.refuse(
                "service",
                "known: deterministic, exponential, lognormal, hyperexponential, gamma",
            ));
        }
    })
}

pub(super) fn station(
    rate: f64,
    servers: u64,
    engine: &str,
    service: &str,
    traffic: &str,
) -> String {
    format!(
        r#"
        version = 1
        fleet.replicas = 1
        gateway.routing.kind = "round_robin"
        classes.default.priority = 0
        classes.first.priority = 0
        classes.second.priority = 1
        [fleet.engine]
        kind = "station"
        servers = {servers}
        {engine}
        [traffic]
        request_rate = "{rate} req/s"
        service = {service}
        {traffic}
        "#
    )
}

pub(super) const EXPONENTIAL: &str = r#"{ kind = "exponential", mean = "1s" }"#;

fn mm1(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.01..=0.98)?;
    let lab = Lab::new(
        &station(rho, 1, "", EXPONENTIAL, ""),
        point,
        run_length(rho, 1.0, 0.01),
    )?;
    let runs = lab.run()?;
    let time = runs.each(|r| r.mean_seconds(|p| &p.e2e));
    let p99 = runs.each(|r| r.quantile_seconds(0.99, |p| &p.e2e));
    let number = runs.each(|r| r.mean_in_system());
    Ok(vec![
        Check::sampled("mean number in system", rho / (1.0 - rho), &number, 0.02),
        Check::sampled("mean time in system (s)", 1.0 / (1.0 - rho), &time, 0.02),
        Check::sampled(
            "p99 of the time in system (s)",
            100.0_f64.ln() / (1.0 - rho),
            &p99,
            0.02,
        ),
    ])
}

fn mmc(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.01..=0.98)?;
    let servers = point.count("servers", 1..=10_000)?;
    let offered = rho * servers as f64;
    let lab = Lab::new(
        &station(offered, servers, "", EXPONENTIAL, ""),
        point,
        // Long enough for every server to be used many times, too.
        run_length(rho, 1.0, 0.015).max(400.0 * servers as f64),
    )?;
    let runs = lab.run()?;
    let c = theory::erlang_c(servers as u32, offered);
    Ok(vec![
        Check::sampled("probability of waiting", c, &runs.each(wait_share), 0.02),
        Check::sampled(
            "mean wait (s)",
            c / (servers as f64 - offered),
            &runs.each(|r| r.mean_seconds(|p| &p.queue)),
            0.02,
        ),
    ])
}

fn mg1(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.01..=0.98)?;
    let cs2 = point.number("cs2", 0.0..=100.0)?;
    let (service, cs2) = service(point, point.text("service"), cs2)?;
    let lab = Lab::new(
        &station(rho, 1, "", &service, ""),
        point,
        run_length(rho, cs2, 0.015),
    )?;
    let wait = lab.run()?.each(|r| r.mean_seconds(|p| &p.queue));
    let share = if cs2 > 1.5 { 0.03 } else { 0.02 };
    Ok(vec![Check::sampled(
        "mean wait (s)",
        theory::pollaczek_khinchine(rho, cs2),
        &wait,
        share,
    )])
}

fn priorities(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho1 = point.number("rho1", 0.01..=0.9)?;
    let rho2 = point.number("rho2", 0.01..=0.9)?;
    let rho = rho1 + rho2;
    if rho > 0.97 {
        return Err(point.refuse("rho2", "both loads together must stay below 0.97"));
    }
    let rest = format!(
        r#"
        clients = [
            {{ name = "first", class = "first", share = {rho1:?} }},
            {{ name = "second", class = "second", share = {rho2:?} }},
        ]"#
    );
    let lab = Lab::new(
        &station(rho, 1, r#"order = "priority""#, EXPONENTIAL, &rest),
        point,
        run_length(rho, 1.0, 0.01),
    )?;
    let runs = lab.run()?;
    let (w1, w2) = theory::cobham(rho1, rho2, rho);
    let wait = |class: &str| runs.each(|r| r.class(class).queue.mean().unwrap_or(f64::NAN) / 1e9);
    let (first, second) = (wait("first"), wait("second"));
    let weighted = runs.each(|r| {
        let mean = |c: &str| r.class(c).queue.mean().unwrap_or(f64::NAN) / 1e9;
        rho1 * mean("first") + rho2 * mean("second")
    });
    Ok(vec![
        Check::sampled("mean wait of the first class (s)", w1, &first, 0.02),
        Check::sampled("mean wait of the second class (s)", w2, &second, 0.02),
        Check::sampled(
            "load-weighted wait (conservation law)",
            rho1 * w1 + rho2 * w2,
            &weighted,
            0.02,
        ),
    ])
}

fn sharing(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.01..=0.95)?;
    let kind = point.text("service");
    let slowdown = 1.0 / (1.0 - rho);
    if kind == "two_point" {
        // Two classes of fixed sizes: the slowdown of each size shows by itself.
        let rest = r#"
        clients = [
            { name = "small", class = "first", share = 0.8, service = { kind = "fixed", value = "500ms" } },
            { name = "large", class = "second", share = 0.2, service = { kind = "fixed", value = "3s" } },
        ]"#;
        let text = station(rho, 1, r#"order = "sharing""#, EXPONENTIAL, rest);
        let runs = Lab::new(&text, point, run_length(rho, 1.0, 0.015))?.run()?;
        let of = |class: &str, size: f64| {
            runs.each(|r| r.class(class).e2e.mean().unwrap_or(f64::NAN) / 1e9 / size)
        };
        return Ok(vec![
            Check::sampled(
                "slowdown of requests of 0.5 s",
                slowdown,
                &of("first", 0.5),
                0.03,
            ),
            Check::sampled(
                "slowdown of requests of 3 s",
                slowdown,
                &of("second", 3.0),
                0.03,
            ),
        ]);
    }
    if kind != "exponential" && kind != "hyperexponential" {
        return Err(point.refuse("service", "known: exponential, hyperexponential, two_point"));
    }
    let (service, cs2) = service(point, kind, 4.0)?;
    let text = station(rho, 1, r#"order = "sharing""#, &service, "");
    let time = Lab::new(&text, point, run_length(rho, cs2, 0.015))?
        .run()?
        .each(|r| r.mean_seconds(|p| &p.e2e));
    Ok(vec![Check::sampled(
        "mean time in system over mean size",
        slowdown,
        &time,
        0.03,
    )])
}

fn mm1k(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.01..=10.0)?;
    let k = point.count("k", 1..=10_000)?;
    let engine = format!("queue_limit = {}", k - 1);
    let runs = Lab::new(&station(rho, 1, &engine, EXPONENTIAL, ""), point, 2e6)?.run()?;
    let expected = theory::mm1k_blocking(rho, k as u32);
    Ok(vec![Check::sampled(
        "share refused",
        expected,
        &runs.each(|r| r.refused_share()),
        0.02,
    )])
}

fn erlang_loss(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let servers = point.count("servers", 1..=10_000)?;
    let load = point.number("load", 0.01..=1e5)?;
    let (service, _) = service(
        point,
        point.text("service"),
        point.number("cs2", 0.0..=100.0)?,
    )?;
    let runs = Lab::new(
        &station(load, servers, "queue_limit = 0", &service, ""),
        point,
        2e6,
    )?
    .run()?;
    let expected = theory::erlang_b(servers as u32, load);
    Ok(vec![Check::sampled(
        "share lost",
        expected,
        &runs.each(|r| r.refused_share()),
        0.02,
    )])
}
