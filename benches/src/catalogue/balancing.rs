//! Load balancing, V-L1 and V-L2: many stations behind the gateway's routing policies.

use super::lab::Lab;
use super::naive;
use super::queueing::run_length;
use super::theory;
use super::{Case, CaseError, Check, Param, Point, Sampled};
use rayon::prelude::*;

const RHO: Param = Param {
    name: "rho",
    default: "0.9",
    doc: "load per replica",
};
const REPLICAS: Param = Param {
    name: "replicas",
    default: "500",
    doc: "replicas of one server each",
};

/// The cases of this file. One number of the catalogue is no point: one choice at a load of 0.99 is an
/// M/M/1 whose mean takes 4e8 arrivals to 2 %; it can be asked for by `--set` and `--effort`.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-L1",
        title: "supermarket model: mean time in system with d choices",
        source: "Mitzenmacher 1996; Vvedenskaya, Dobrushin & Karpelevich 1996",
        params: &[
            RHO,
            REPLICAS,
            Param {
                name: "choices",
                default: "2",
                doc: "replicas drawn per request, d; 1 is `random`, more are `power_of_two`",
            },
        ],
        points: &[
            &[("rho", "0.9"), ("choices", "1"), ("replicas", "20")],
            &[("rho", "0.9"), ("choices", "2")],
            &[("rho", "0.9"), ("choices", "3")],
            &[("rho", "0.95"), ("choices", "1"), ("replicas", "20")],
            &[("rho", "0.95"), ("choices", "2")],
            &[("rho", "0.95"), ("choices", "3")],
            &[("rho", "0.99"), ("choices", "2")],
            &[("rho", "0.99"), ("choices", "3")],
            &[("rho", "0.9"), ("choices", "2"), ("replicas", "20")],
        ],
        run: supermarket,
    },
    Case {
        id: "V-L2",
        title: "stale load board: mean time in system",
        source: "a plain program; the specification's own simulation; phenomenon in Mitzenmacher 2000",
        params: &[
            RHO,
            Param {
                name: "replicas",
                default: "20",
                doc: "replicas of one server each",
            },
            Param {
                name: "period",
                default: "1",
                doc: "time between two readings of the board, in mean service times; 0 is live",
            },
            Param {
                name: "policy",
                default: "least_loaded",
                doc: "least_loaded, power_of_two or random",
            },
            Param {
                name: "ties",
                default: "random",
                doc: "among the least loaded: random or lowest_id",
            },
        ],
        points: &[
            &[("period", "0"), ("policy", "least_loaded")],
            &[("period", "0.1"), ("policy", "least_loaded")],
            &[("period", "1"), ("policy", "least_loaded")],
            &[("period", "5"), ("policy", "least_loaded")],
            &[("period", "20"), ("policy", "least_loaded")],
            &[("period", "0"), ("policy", "power_of_two")],
            &[("period", "0.1"), ("policy", "power_of_two")],
            &[("period", "1"), ("policy", "power_of_two")],
            &[("period", "5"), ("policy", "power_of_two")],
            &[("period", "20"), ("policy", "power_of_two")],
            &[("period", "0"), ("policy", "random")],
            &[
                ("period", "5"),
                ("policy", "least_loaded"),
                ("ties", "lowest_id"),
            ],
        ],
        run: stale_board,
    },
];

/// What the specification's own simulation gave at load 0.9 with 20 replicas: policy, period, mean
/// time in system.
const STALE_BOARD: &[(&str, f64, f64)] = &[
    ("least_loaded", 0.0, 1.52),
    ("least_loaded", 0.1, 1.82),
    ("least_loaded", 1.0, 4.82),
    ("least_loaded", 5.0, 15.6),
    ("least_loaded", 20.0, 57.3),
    ("power_of_two", 0.0, 2.98),
    ("power_of_two", 0.1, 2.91),
    ("power_of_two", 1.0, 3.08),
    ("power_of_two", 5.0, 4.21),
    ("power_of_two", 20.0, 7.20),
    ("random", 0.0, 9.97),
];

/// Arrivals of a stale-board run, over all replications.
const STALE_ARRIVALS: f64 = 3.2e6;

fn stations(replicas: u64, rate: f64, routing: &str, period_ms: u64) -> String {
    format!(
        r#"
        version = 1
        fleet.replicas = {replicas}
        fleet.engine = {{ kind = "station", servers = 1 }}
        fleet.telemetry.period = "{period_ms}ms"
        gateway.routing = {routing}
        [traffic]
        request_rate = "{rate} req/s"
        service = {{ kind = "exponential", mean = "1s" }}
        "#
    )
}

fn supermarket(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.05..=0.99)?;
    let replicas = point.count("replicas", 1..=5_000)?;
    let choices = point.count("choices", 1..=100)? as u32;
    let routing = if choices == 1 {
        r#"{ kind = "random" }"#.to_owned()
    } else {
        format!(r#"{{ kind = "power_of_two", load = "in_flight", choices = {choices} }}"#)
    };
    let text = stations(replicas, rho * replicas as f64, &routing, 0);
    let expected = theory::supermarket(rho, choices);
    if choices == 1 {
        // Every replica is an M/M/1 of its own: the length of one, however many they are, for an
        // interval half as wide as the tolerance.
        let runs = Lab::new(&text, point, run_length(rho, 1.0, 0.01))?.run()?;
        let time = runs.each(|r| r.mean_seconds(|p| &p.e2e));
        return Ok(vec![Check::sampled(
            "mean time in system (s)",
            expected,
            &time,
            0.02,
        )]);
    }
    // Choices shorten the memory of queues: about (1 - rho)^-1 service times of all replicas, of
    // which a replication has hundreds. An empty fleet fills up slowly, so a fifth is left out.
    let arrivals = 2.5e6 + 1e5 / (1.0 - rho);
    let runs = Lab::settled(&text, point, arrivals, 0.2)?.run()?;
    let time = runs.each(|r| r.mean_seconds(|p| &p.e2e));
    if replicas >= 500 {
        return Ok(vec![Check::sampled(
            "mean time in system (s)",
            expected,
            &time,
            0.02,
        )]);
    }
    // Fewer servers than endless ones: a plain program.
    let published = (rho, replicas, choices) == (0.9, 20, 2);
    let note = if published { " (catalogue: 2.98)" } else { "" };
    let board = naive::Board {
        servers: replicas as usize,
        rho,
        period: 0.0,
    };
    let plain = plain_board(&board, naive::Choice::LeastOf(choices), point, arrivals);
    let name = format!("mean time in system (s){note}, against a plain program");
    Ok(vec![Check::both_sampled(name, &plain, &time, 0.02)])
}

/// A plain program's mean time in system over eight replications.
fn plain_board(
    board: &naive::Board,
    choice: naive::Choice,
    point: &Point<'_>,
    arrivals: f64,
) -> Sampled {
    let each = point.length(arrivals / 8.0).max(1_000);
    let one = |i| naive::stale_board(board, choice, each, point.seed + i);
    Sampled::of(&(0..8_u64).into_par_iter().map(one).collect::<Vec<_>>())
}

fn stale_board(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rho = point.number("rho", 0.05..=0.97)?;
    let replicas = point.count("replicas", 1..=1_000)?;
    let period = point.number("period", 0.0..=1_000.0)?;
    let policy = point.text("policy");
    let ties = point.text("ties");
    if !["lowest_id", "random"].contains(&ties) {
        return Err(point.refuse("ties", "known: lowest_id, random"));
    }
    let routing = match policy {
        "least_loaded" => {
            format!(r#"{{ kind = "least_loaded", load = "waiting_and_running", ties = "{ties}" }}"#)
        }
        "power_of_two" => r#"{ kind = "power_of_two", load = "waiting_and_running" }"#.into(),
        "random" => r#"{ kind = "random" }"#.into(),
        _ => return Err(point.refuse("policy", "known: least_loaded, power_of_two, random")),
    };
    // Readings come at whole milliseconds; a server's mean is a second.
    let period_ms = (period * 1e3).round();
    if period > 0.0 && period_ms != period * 1e3 {
        return Err(point.refuse("period", "give at most three digits after the point"));
    }
    let text = stations(replicas, rho * replicas as f64, &routing, period_ms as u64);
    let runs = Lab::new(&text, point, STALE_ARRIVALS)?.run()?;
    let time = runs.each(|r| r.mean_seconds(|p| &p.e2e));
    let known = STALE_BOARD.iter().find(|k| k.0 == policy && k.1 == period);
    let known = known.filter(|_| rho == 0.9 && replicas == 20 && ties == "random");
    let printed = known.map_or_else(String::new, |k| format!(" (catalogue: {})", k.2));
    let name = format!("mean time in system (s){printed}");
    let mut checks = Vec::new();
    if policy == "random" {
        let alone = 1.0 / (1.0 - rho);
        checks.push(Check::sampled(format!("{name}, M/M/1"), alone, &time, 0.03));
    } else {
        let board = naive::Board {
            servers: replicas as usize,
            rho,
            period,
        };
        let choice = match (policy, ties) {
            ("power_of_two", _) => naive::Choice::LeastOf(2),
            (_, "random") => naive::Choice::AnyLeast,
            _ => naive::Choice::FirstLeast,
        };
        let plain = plain_board(&board, choice, point, STALE_ARRIVALS);
        let name = format!("{name}, against a plain program");
        checks.push(Check::both_sampled(name, &plain, &time, 0.02));
        // The table has one run each; where a longer one differs, it is no measure of anything.
        let Some(&(.., table)) = known.filter(|k| (plain.mean / k.2 - 1.0).abs() <= 0.06) else {
            return Ok(checks);
        };
        checks.push(Check::sampled(
            "the same, against the table",
            table,
            &time,
            0.06,
        ));
    }
    Ok(checks)
}
