//! What autoscalers see, and when: E01, E03, E10 to E12, E25.

use super::lab::{Lab, Run, Runs};
use super::scaling::totals;
use super::{CaseError, Check, Point};
use windtunnel_ledger::scaling::{ScalingStep, ScalingTotals};

/// The mean of pairs' differences less the half width of its 95 % interval (seven degrees of freedom).
fn surely_more(a: &[f64], b: &[f64]) -> f64 {
    const T: f64 = 2.365;
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let sampled = super::Sampled::of(&differences);
    sampled.mean - T * sampled.standard_error
}

/// Two days of half an hour with a crowd at the second peak; each replica serves four at a time, one second
/// each.
fn day_and_crowd(scaling: &str) -> String {
    format!(
        r#"
        version = 1
        [fleet]
        replicas = 4
        engine = {{ kind = "station", servers = 4 }}
        [fleet.scaling]
        max_replicas = 16
        {scaling}
        [gateway]
        queue = {{ max_in_flight = 4 }}
        [traffic]
        request_rate = "10 req/s"
        duration = "60min"
        service = {{ kind = "lognormal", mean = "1s", sigma = 0.5 }}
        [[traffic.clients]]
        share = 99.0
        arrivals = {{ kind = "diurnal", amplitude = 0.6, period = "30min", peak = "15min" }}
        [[traffic.clients]]
        share = 1.0
        arrivals = {{ kind = "flash_crowd", at = "44min", rise = "60s", hold = "3min", fall = "60s", factor = 160.0 }}
        "#
    )
}

fn hours(runs: &Runs) -> Vec<f64> {
    let hours = |t: &ScalingTotals| t.provisioned_ns as f64 / 3.6e12;
    runs.values(|run| run.result.scaling.as_ref().map_or(f64::NAN, hours))
}

fn p99_wait(runs: &Runs) -> Vec<f64> {
    runs.values(|run| run.quantile_seconds(0.99, |p| &p.queue))
}

fn mean_wait(runs: &Runs) -> Vec<f64> {
    runs.values(|run| run.mean_seconds(|p| &p.queue))
}

pub(super) fn processors(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let correlation = point.number("correlation", 0.0..=1.0)?;
    // Both are means over a minute, as metrics servers give them.
    let with = |signal: String| {
        let scaling = format!(
            "provisioning = \"60s\"\npolicy = {{ kind = \"reactive\", window = \"60s\", signal = {signal} }}"
        );
        Lab::whole(&day_and_crowd(&scaling), point)?.run()
    };
    let cpu = with(format!(
        "{{ kind = \"cpu\", target = 0.5, deviation = 0.05, correlation = {correlation:?} }}"
    ))?;
    let queue = with("{ kind = \"queue_depth\", target = 2.0 }".to_owned())?;
    let (late, soon) = (p99_wait(&cpu), p99_wait(&queue));
    Ok(vec![Check::at_least(
        "p99 wait: processors' - queue's, surely more than, s",
        0.0,
        surely_more(&late, &soon),
    )])
}

/// Share of what comes late in the run that is answered in time.
fn answered_late(run: &Run, end: f64) -> f64 {
    let length = run.result.segment_ns as f64 / 1e9;
    let (first, until) = ((0.6 * end / length).ceil(), (end / length).floor());
    let segments = run.result.segments.iter().take(until as usize);
    let late = segments.skip(first as usize);
    let (mut sent, mut finished) = (0, 0);
    for segment in late {
        sent += segment.all.sent;
        finished += segment.all.finished;
    }
    finished as f64 / sent as f64
}

pub(super) fn compounding(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    const END: f64 = 4_000.0;
    let lag = point.number("d", 0.0..=600.0)?;
    let retries = point.count("r", 0..=5)?;
    if (1.0..=60.0).contains(&lag) {
        return Err(point.refuse(
            "d",
            "about as long as the timeout of 30 s; try 0, or from 61",
        ));
    }
    // From one replica that hardly works to the four there can be at 60 %: with retries it is 120 %.
    let text = format!(
        r#"
        version = 1
        run.cut_off = "{END}s"
        fleet.engine = {{ kind = "station", servers = 1 }}
        gateway.queue.max_in_flight = 1
        [fleet.scaling]
        max_replicas = 4
        provisioning = "{lag}s"
        period = "1s"
        policy = {{ kind = "reactive", signal = {{ kind = "queue_depth", target = 3.0 }} }}
        scale_down = {{ stabilization = "4000s" }}
        [traffic]
        request_rate = "0.1 req/s"
        duration = "{END}s"
        arrivals = {{ kind = "step", at = "300s", factor = 24.0 }}
        service = {{ kind = "exponential", mean = "1s" }}
        [clients]
        attempt_timeout = "30s"
        cancel_dead_work = false
        retries = {{ max = {retries}, on = ["timed_out"] }}
        "#
    );
    let runs = Lab::whole(&text, point)?.run()?;
    let shares = runs.values(|run| answered_late(run, END));
    let collapses = 2.4 * (1.0 + retries as f64) > 4.0 && lag > 60.0;
    Ok(match collapses {
        true => vec![Check::at_most(
            "answered in time, at most in any seed",
            0.1,
            shares.iter().copied().fold(0.0, f64::max),
        )],
        false => vec![Check::at_least(
            "answered in time, at least in any seed",
            0.9,
            shares.iter().copied().fold(1.0, f64::min),
        )],
    })
}

pub(super) fn detection(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    const SLOW_FROM: f64 = 103.0;
    let window = point.number("window", 1.0..=90.0)?;
    let world = |fault: &str| {
        format!(
            r#"
            version = 1
            fleet.replicas = 2
            fleet.engine = {{ kind = "station", servers = 1000 }}
            [fleet.scaling]
            min_replicas = 2
            max_replicas = 8
            period = "{window}s"
            policy = {{ kind = "reactive", window = "{window}s", signal = {{ kind = "ttft", target = "150ms" }} }}
            [traffic]
            request_rate = "50 req/s"
            duration = "300s"
            service = {{ kind = "fixed", value = "100ms" }}
            {fault}
            "#
        )
    };
    let fault = format!(
        "[[faults]]\nkind = \"slowdown\"\nat = \"{SLOW_FROM}s\"\nfor = \"190s\"\nspeed = 0.5"
    );
    let first = |text: &str| -> Result<Option<f64>, CaseError> {
        let run = Lab::whole(text, point)?.once()?;
        let changes = &totals(&run.result)?.changes;
        let order = changes.iter().find(|c| c.step == ScalingStep::Ordered);
        Ok(order.map(|c| c.at_ns as f64 / 1e9))
    };
    let (seen, calm) = (first(&world(&fault))?, first(&world(""))?);
    let after = seen.map_or(f64::NAN, |at| at - SLOW_FROM);
    Ok(vec![
        Check::at_most("seen after, s: two windows", 2.0 * window, after),
        Check::at_least("and not before it happens, s", 0.0, after),
        Check::exact("orders while all is well", 0.0, calm.map_or(0.0, |_| 1.0)),
    ])
}

const SEASONAL: &str = r#"season = "30min""#;

fn predictive(per_replica: f64, lag: f64) -> String {
    format!(
        r#"
        provisioning = "{lag}s"
        policy = {{ kind = "predictive", per_replica = "{per_replica} req/s", level = 0.4, {SEASONAL}, work_off = "60s" }}
        "#
    )
}

/// The rate of [`day_and_crowd`] at a time, requests per second.
fn rate_of_the_day(at: f64) -> f64 {
    let day = 9.9 * (1.0 + 0.6 * (std::f64::consts::TAU * (at - 900.0) / 1800.0).cos());
    let (begin, top, fall, end) = (2640.0, 2700.0, 2880.0, 2940.0);
    let crowd = match at {
        at if at < begin || at >= end => 0.0,
        at if at < top => (at - begin) / (top - begin),
        at if at < fall => 1.0,
        at => (end - at) / (end - fall),
    };
    day + 0.1 * (1.0 + 159.0 * crowd)
}

/// A timetable made by who knows the rate, minute by minute.
fn oracle(per_replica: f64, lag: f64) -> String {
    let needed = |minute: u64| {
        let most = (0..=60)
            .map(|s| rate_of_the_day((60 * minute + s) as f64))
            .fold(0.0, f64::max);
        (most / per_replica).ceil().clamp(1.0, 16.0)
    };
    let entries: Vec<String> = (0..60)
        .map(|m| format!("{{ from = \"{m}min\", replicas = {} }}", needed(m)))
        .collect();
    format!(
        r#"
        provisioning = "{lag}s"
        policy = {{ kind = "scheduled", at = [{}] }}
        scale_up = {{ percent = 1000.0 }}
        scale_down = {{ stabilization = "0s" }}
        "#,
        entries.join(", ")
    )
}

pub(super) fn forecasts(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let lag = point.number("d", 30.0..=300.0)?;
    let with = |scaling: &str| Lab::whole(&day_and_crowd(scaling), point)?.run();
    let reactive = with(&format!(
        "provisioning = \"{lag}s\"\npolicy = {{ kind = \"reactive\", signal = {{ kind = \"queue_depth\", target = 4.0 }} }}"
    ))?;
    let forecast = with(&predictive(2.5, lag))?;
    let known = with(&oracle(2.8, lag))?;
    let order = [
        ("reactive - forecast", &reactive, &forecast),
        ("forecast - oracle", &forecast, &known),
    ];
    let mut checks = Vec::new();
    for (name, more, less) in order {
        checks.push(Check::at_least(
            format!("mean wait: {name}, surely more than, s"),
            0.0,
            surely_more(&mean_wait(more), &mean_wait(less)),
        ));
        checks.push(Check::at_least(
            format!("replica-hours: {name}, surely more than"),
            0.0,
            surely_more(&hours(more), &hours(less)),
        ));
    }
    Ok(checks)
}

pub(super) fn front(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let lag = point.number("d", 30.0..=300.0)?;
    let mut steps = Vec::new();
    for load in [2.0, 2.5, 3.0, 3.5] {
        let runs = Lab::whole(&day_and_crowd(&predictive(load, lag)), point)?.run()?;
        steps.push((load, hours(&runs), mean_wait(&runs)));
    }
    let mut checks = Vec::new();
    for pair in steps.windows(2) {
        let [(less, costly, short), (more, cheap, long)] = pair else {
            continue;
        };
        let name = |what: &str| format!("{what} from {less} to {more} req/s, surely more than");
        let saved = surely_more(costly, cheap);
        checks.push(Check::at_least(name("replica-hours saved"), 0.0, saved));
        let waited = surely_more(long, short);
        checks.push(Check::at_least(name("seconds waited"), 0.0, waited));
    }
    Ok(checks)
}

pub(super) fn correlation(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let asked = point.number("correlation", 0.0..=1.0)?;
    let text = format!(
        r#"
        version = 1
        fleet.replicas = 4
        fleet.engine = {{ kind = "station", servers = 100 }}
        [fleet.scaling]
        min_replicas = 4
        max_replicas = 4
        period = "5s"
        policy = {{ kind = "reactive", signal = {{ kind = "cpu", correlation = {asked:?} }} }}
        [traffic]
        request_rate = "40 req/s"
        service = {{ kind = "exponential", mean = "1s" }}
        "#
    );
    let runs = Lab::settled(&text, point, 1_200_000.0, 0.0)?.run()?;
    let found = runs.each(|run| {
        let totals = run.result.scaling.as_ref();
        totals
            .and_then(|t| t.signal.correlation())
            .unwrap_or(f64::NAN)
    });
    Ok(vec![Check::sampled_within(
        "correlation",
        asked,
        &found,
        0.02,
    )])
}
