//! Fleets whose size follows their load: V-E1 to V-E3, and what autoscalers see too late (E01, E03, E10
//! to E12, E25).

use super::autoscalers;
use super::lab::Lab;
use super::{Case, CaseError, Check, Param, Point, Sampled};
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::scaling::{ScalingStep, ScalingTotals};

const REPLICAS: Param = Param {
    name: "replicas",
    default: "4",
    doc: "replicas at the start",
};
const TARGET: Param = Param {
    name: "target",
    default: "100",
    doc: "requests in flight per replica that are aimed at",
};
const LAG: Param = Param {
    name: "d",
    default: "120",
    doc: "seconds from the order of a replica until it serves",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-E1",
        title: "Kubernetes HPA: ceil(n metric / target), nothing within 10 %, four or all of them again per 15 s",
        source: "Kubernetes documentation, horizontal pod autoscaling; a plain program for the speed",
        params: &[
            REPLICAS,
            Param {
                name: "metric",
                default: "200",
                doc: "requests in flight per replica",
            },
            TARGET,
        ],
        points: &[
            &[("replicas", "4"), ("metric", "200")],
            &[("replicas", "4"), ("metric", "105")],
            &[("replicas", "10"), ("metric", "50")],
            &[("replicas", "3"), ("metric", "90"), ("target", "50")],
            &[("replicas", "1"), ("metric", "4000")],
        ],
        run: kubernetes,
    },
    Case {
        id: "V-E2",
        title: "Knative KPA: concurrency / (limit x utilisation), mean over the stable window",
        source: "Knative documentation, autoscaling concepts: 100 / (10 x 0.7) -> 15; no panic window",
        params: &[
            Param {
                name: "concurrency",
                default: "100",
                doc: "requests in flight",
            },
            Param {
                name: "limit",
                default: "10",
                doc: "most requests in flight at a replica",
            },
            Param {
                name: "utilisation",
                default: "0.7",
                doc: "share of that which is aimed at",
            },
        ],
        points: &[&[], &[("concurrency", "50")]],
        run: knative,
    },
    Case {
        id: "V-E3",
        title: "reactive scaling with provisioning lag d: backlog of a step, and of a ramp",
        source: "a step of s above capacity: s d; a ramp of g: g d^2 / 2; plus the time of one look",
        params: &[
            LAG,
            Param {
                name: "load",
                default: "step",
                doc: "step or ramp",
            },
            Param {
                name: "by",
                default: "10",
                doc: "requests per second above capacity (step), or by which that grows per second (ramp)",
            },
        ],
        points: &[
            &[("load", "step"), ("by", "10"), ("d", "120")],
            &[("load", "step"), ("by", "10"), ("d", "30")],
            &[("load", "step"), ("by", "25"), ("d", "120")],
            &[("load", "ramp"), ("by", "0.5"), ("d", "240")],
            &[("load", "ramp"), ("by", "0.1"), ("d", "600")],
        ],
        run: backlog,
    },
    Case {
        id: "V-E3d",
        title: "reactive scaling with provisioning lag d where a day is steepest: slope, and backlog",
        source: "rate m (1 - a cos(2 pi t / T)): slope 2 pi a / T of the mean; backlog its integral until capacity is there",
        params: &[
            LAG,
            Param {
                name: "a",
                default: "0.6",
                doc: "amplitude of the day, share of the mean rate",
            },
            Param {
                name: "trigger",
                default: "1000",
                doc: "requests that wait when a replica is ordered",
            },
        ],
        points: &[
            &[("a", "0.6"), ("d", "3600")],
            &[("a", "0.6"), ("d", "1200")],
            &[("a", "0.3"), ("d", "3600")],
        ],
        run: steepest_hour,
    },
    Case {
        id: "E01",
        title: "the same burst with an autoscaler at processors and one at the queue",
        source: "paired seeds, lower end of the 95 % interval of the difference",
        params: &[Param {
            name: "correlation",
            default: "0.2",
            doc: "correlation of the processors' load with the requests at a replica",
        }],
        points: &[&[]],
        run: autoscalers::processors,
    },
    Case {
        id: "E03",
        title: "retries while capacity is on its way: collapse outlasts the lag",
        source: "V-M1: sustained iff lam (1 + r) > mu, triggered by a lag beyond the timeout",
        params: &[
            LAG,
            Param {
                name: "r",
                default: "1",
                doc: "retries after the first attempt",
            },
        ],
        points: &[
            &[("d", "120"), ("r", "1")],
            &[("d", "120"), ("r", "0")],
            &[("d", "0"), ("r", "1")],
        ],
        run: autoscalers::compounding,
    },
    Case {
        id: "E10",
        title: "TTFT at the gateway doubles: seen within two windows",
        source: "a 90 % quantile over a window is that of the new times when a tenth of it is over",
        params: &[Param {
            name: "window",
            default: "10",
            doc: "seconds",
        }],
        points: &[&[], &[("window", "30")]],
        run: autoscalers::detection,
    },
    Case {
        id: "E11",
        title: "day and crowd: a forecast against what follows the queue, and a timetable that knows",
        source: "paired seeds: less wait at no more replica-hours; who knows the future bounds both",
        params: &[LAG],
        points: &[&[]],
        run: autoscalers::forecasts,
    },
    Case {
        id: "E12",
        title: "replica-hours against wait, by the load that a replica is to take",
        source: "each step of the front costs less and waits longer",
        params: &[LAG],
        points: &[&[]],
        run: autoscalers::front,
    },
    Case {
        id: "E25",
        title: "load of processors and requests at replicas: correlation as configured",
        source: "the definition of correlation",
        params: &[Param {
            name: "correlation",
            default: "0.2",
            doc: "0 to 1",
        }],
        points: &[&[], &[("correlation", "0.8")]],
        run: autoscalers::correlation,
    },
];

pub(super) fn totals(run: &RunResult) -> Result<&ScalingTotals, CaseError> {
    let totals = run.scaling.as_ref();
    totals.ok_or_else(|| CaseError::Run("the fleet does not scale".into()))
}

/// How many replicas serve or will at a time.
fn ordered(run: &RunResult, start: u64, at_seconds: f64) -> Result<f64, CaseError> {
    let changes = totals(run)?.changes.iter();
    let mut draining = Vec::new();
    let mut ordered = start as f64;
    for change in changes.filter(|c| c.at_ns as f64 <= at_seconds * 1e9) {
        match change.step {
            ScalingStep::Ordered => ordered += 1.0,
            ScalingStep::Draining => {
                draining.push(change.replica);
                ordered -= 1.0;
            }
            // The end of a way out was counted at its begin; an order taken back was not.
            ScalingStep::Released => match draining.iter().position(|&r| r == change.replica) {
                Some(place) => drop(draining.swap_remove(place)),
                None => ordered -= 1.0,
            },
            ScalingStep::Ready => {}
        }
    }
    Ok(ordered)
}

/// So many requests that stay for the whole run, all there within a second.
fn standing(requests: u64, replicas: u64, scaling: &str, end: f64) -> String {
    format!(
        r#"
        version = 1
        run.cut_off = "{end}s"
        [fleet]
        replicas = {replicas}
        engine = {{ kind = "station", servers = 100000 }}
        [fleet.scaling]
        max_replicas = 400
        {scaling}
        [traffic]
        request_rate = "{rate} req/s"
        num_prompts = {requests}
        arrivals = {{ kind = "constant" }}
        service = {{ kind = "fixed", value = "1000s" }}
        "#,
        rate = 2 * requests
    )
}

fn kubernetes(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let start = point.count("replicas", 1..=100)?;
    let metric = point.count("metric", 1..=10_000)?;
    let target = point.number("target", 1.0..=10_000.0)?;
    let scaling = format!(
        r#"
        provisioning = "0s"
        scale_down = {{ stabilization = "0s" }}
        policy = {{ kind = "reactive", signal = {{ kind = "concurrency", target = {target:?} }} }}
        "#
    );
    let text = standing(start * metric, start, &scaling, 61.0);
    let run = Lab::whole(&text, point)?.once()?;
    let mut present = start;
    let mut checks = Vec::new();
    for look in 1..=4 {
        // Nobody ends or moves meanwhile: a replica on its way out keeps its requests and is seen no more, as a
        // terminating pod is left out of the average.
        let seen = (metric * start.min(present)) as f64;
        let ratio = seen / (target * present as f64);
        let wanted = match (ratio - 1.0).abs() <= 0.1 {
            true => present,
            false => (seen / target).ceil().min(400.0) as u64,
        };
        present = wanted.min((present + 4).max(2 * present)).max(1);
        let found = ordered(&run.result, start, 15.5 * f64::from(look))?;
        let name = format!("replicas after {} s", 15 * look);
        checks.push(Check::exact(name, present as f64, found));
    }
    Ok(checks)
}

fn knative(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let concurrency = point.count("concurrency", 1..=10_000)?;
    let limit = point.count("limit", 1..=1_000)?;
    let utilisation = point.number("utilisation", 0.01..=1.0)?;
    let target = limit as f64 * utilisation;
    let scaling = format!(
        r#"
        provisioning = "0s"
        period = "2s"
        scale_up = {{ percent = 1000000.0 }}
        policy = {{ kind = "reactive", window = "60s", signal = {{ kind = "concurrency", target = {target:?} }} }}
        "#
    );
    let text = standing(concurrency, 1, &scaling, 70.0);
    let run = Lab::whole(&text, point)?.once()?;
    let expected = (concurrency as f64 / target).ceil();
    let found = ordered(&run.result, 1, 70.0)?;
    Ok(vec![Check::exact("replicas", expected, found)])
}

/// A pool that orders all it may at the first request that waits.
fn eager(lag: f64, most: u64) -> String {
    format!(
        r#"
        max_replicas = {most}
        provisioning = "{lag}s"
        period = "1s"
        scale_up = {{ percent = 1000000.0 }}
        policy = {{ kind = "reactive", signal = {{ kind = "queue_depth", target = 0.001 }} }}
        "#
    )
}

/// Requests above what one replica, with one request per second, can do.
fn backlog(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let lag = point.number("d", 0.0..=2_000.0)?;
    let by = point.number("by", 0.01..=100.0)?;
    let load = point.text("load");
    let end = lag + 60.0;
    let (arrivals, rate, excess) = match load {
        "step" => ("kind = \"constant\"".to_owned(), 1.0 + by, by),
        "ramp" => {
            let factor = 1.0 + by * end;
            let ramp =
                format!("kind = \"ramp\", from = \"0s\", to = \"{end}s\", factor = {factor:?}");
            (ramp, 1.0, by * end)
        }
        _ => return Err(point.refuse("load", "known: step, ramp")),
    };
    // Enough to work it off at once.
    let scaling = eager(lag, (4.0 * excess).ceil() as u64 + 2);
    let text = format!(
        r#"
        version = 1
        run.cut_off = "{end}s"
        fleet.engine = {{ kind = "station", servers = 1 }}
        gateway.queue.max_in_flight = 1
        [fleet.scaling]
        {scaling}
        [traffic]
        request_rate = "{rate} req/s"
        duration = "{end}s"
        arrivals = {{ {arrivals} }}
        service = {{ kind = "fixed", value = "1s" }}
        "#
    );
    let runs = Lab::whole(&text, point)?.run()?;
    let peak = runs.each(|run| run.result.gateway.queue_peak as f64);
    // The first look is a second after the first request that waits, at most.
    let (formula, name) = match load {
        "step" => (by * (lag + 1.0), "most that waited: s (d + 1 s)"),
        _ => (
            by * (lag + 1.0) * (lag + 1.0) / 2.0,
            "most that waited: g (d + 1 s)^2 / 2",
        ),
    };
    let to_capacity = runs.each(|run| {
        let totals = run.result.scaling.as_ref();
        let time = totals.and_then(|t| t.time_to_capacity.max());
        time.unwrap_or(0) as f64 / 1e9
    });
    Ok(vec![
        Check::sampled(name, formula, &peak, 0.02),
        Check::within("from need to capacity, s", lag, to_capacity.mean, 1.0),
    ])
}

/// A day around the hour at which it is steepest, which is when its rate is the mean: then the replica that
/// there is has just enough to do, and from then on too much.
fn steepest_hour(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    const MEAN: f64 = 100.0;
    const DAY: f64 = 86_400.0;
    /// When it is steepest; before that requests hardly wait.
    const STEEPEST: f64 = 3_600.0;
    let lag = point.number("d", 60.0..=7_200.0)?;
    let amplitude = point.number("a", 0.1..=0.9)?;
    let trigger = point.count("trigger", 100..=100_000)? as f64;
    let frequency = std::f64::consts::TAU / DAY;
    // What comes above the mean within so long after the steepest moment, and about when that is so much.
    let above = |t: f64| MEAN * amplitude * (1.0 - (frequency * t).cos()) / frequency;
    let until = |much: f64| (1.0 - much * frequency / (MEAN * amplitude)).acos() / frequency;
    // A replica is ordered when more than a tenth above the target wait.
    let ordered = until(1.1 * trigger);
    let end = STEEPEST + ordered + lag + 60.0;
    let text = format!(
        r#"
        version = 1
        run.cut_off = "{end}s"
        fleet.engine = {{ kind = "station", servers = {MEAN} }}
        gateway.queue.max_in_flight = {MEAN}
        [fleet.scaling]
        max_replicas = 2
        provisioning = "{lag}s"
        period = "1s"
        policy = {{ kind = "reactive", signal = {{ kind = "queue_depth", target = {trigger:?} }} }}
        [traffic]
        request_rate = "{MEAN} req/s"
        duration = "{end}s"
        arrivals = {{ kind = "diurnal", amplitude = {amplitude:?}, peak = "{peak}s" }}
        service = {{ kind = "fixed", value = "1s" }}
        "#,
        peak = STEEPEST + DAY / 4.0,
    );
    // From the hour before to the hour after, the rate rises by so much; an hour is not steep everywhere.
    let hour = STEEPEST.min(end - STEEPEST);
    let slopes: Result<Vec<f64>, CaseError> = (0..8)
        .map(|i| {
            let times = Lab::arrivals_of(&text, point.seed + i)?;
            let came = |from: f64| {
                let within = times.iter().filter(|&&t| (from..from + hour).contains(&t));
                within.count() as f64
            };
            let more = came(STEEPEST) - came(STEEPEST - hour);
            let curved = 2.0 * (1.0 - (frequency * hour).cos()) / (frequency * frequency);
            Ok(more / curved / MEAN * 3600.0)
        })
        .collect();
    let runs = Lab::whole(&text, point)?.run()?;
    // So many wait when the order is made, which is when chance has it; what comes from then on is fair.
    let expected = runs.values(|run| {
        let changes = run.result.scaling.iter().flat_map(|t| &t.changes);
        let mut orders = changes.filter(|c| c.step == ScalingStep::Ordered);
        let made = orders.next().map_or(f64::NAN, |c| c.at_ns as f64 / 1e9);
        let from = made - STEEPEST;
        1.1 * trigger + above(from + lag) - above(from)
    });
    let peaks = runs.values(|run| run.result.gateway.queue_peak as f64);
    let more: Vec<f64> = peaks.iter().zip(&expected).map(|(p, e)| p - e).collect();
    let (more, expected) = (Sampled::of(&more), Sampled::of(&expected).mean);
    let peak = Sampled {
        mean: expected + more.mean,
        ..more
    };
    Ok(vec![
        Check::sampled(
            "steepest, share of the mean per hour: 2 pi a / 24",
            std::f64::consts::TAU * amplitude / 24.0,
            &Sampled::of(&slopes?),
            0.02,
        ),
        Check::sampled(
            "most that waited, from the order until capacity is there",
            expected,
            &peak,
            0.02,
        ),
    ])
}
