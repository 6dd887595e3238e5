//! Plays traffic without a simulator: every answer comes a fixed time after its request.

#![allow(dead_code, reason = "each test file uses its part of it")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

pub(crate) mod slices;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use windtunnel_base::content::Extent;
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::Scenario;
use windtunnel_scenarios::workload::{Arrival, Traffic, Workload, prepare};

/// One request and its extents.
pub(crate) type Sent = (Arrival, Vec<Extent>);

/// A scenario from its text.
pub(crate) fn scenario(text: &str) -> Scenario {
    toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The traffic of a scenario that needs no file.
pub(crate) fn traffic(text: &str) -> Traffic {
    prepare(&scenario(text), None, None, false).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Plays at most `most` requests; each is answered after `latency`, or fails if `fails` says so.
pub(crate) fn play_with(
    workload: &mut dyn Workload,
    most: usize,
    latency: SimDuration,
    fails: impl Fn(&Arrival) -> bool,
) -> Vec<Sent> {
    let mut sent: Vec<Sent> = Vec::new();
    let mut answers = BinaryHeap::new();
    let mut now = SimTime::ZERO;
    while sent.len() < most {
        let next = workload.next_at();
        match (next, answers.peek().copied()) {
            (None, None) => break,
            // An answer at the same time as a request comes first.
            (due, Some(Reverse((at, id, ok)))) if due.is_none_or(|due| at <= due) => {
                answers.pop();
                workload.departed(RequestId(id), at, ok);
            }
            (Some(due), _) => {
                assert!(due >= now, "time ran backwards: {due:?} after {now:?}");
                now = due;
                let mut prefix = Vec::new();
                let arrival = workload.take(&mut prefix);
                assert_eq!(arrival.at, due, "taken at another time than announced");
                check(&arrival, &prefix);
                let id = sent.len() as u32;
                answers.push(Reverse((due + latency, id, !fails(&arrival))));
                sent.push((arrival, prefix));
            }
            (None, Some(_)) => unreachable!("covered above"),
        }
    }
    sent
}

/// What holds for every request.
fn check(arrival: &Arrival, prefix: &[Extent]) {
    assert!(arrival.prompt_tokens > 0, "{arrival:?}");
    assert!(arrival.truth.output_tokens > 0, "{arrival:?}");
    let covered: u64 = prefix.iter().map(|e| u64::from(e.tokens)).sum();
    assert!(
        covered <= u64::from(arrival.prompt_tokens),
        "{arrival:?} {prefix:?}"
    );
    assert!(prefix.iter().all(|e| e.tokens > 0), "{prefix:?}");
}

/// Plays with answers after one second.
pub(crate) fn play(traffic: &Traffic, seed: u64, most: usize) -> Vec<Sent> {
    let mut workload = traffic.workload(seed);
    play_with(&mut *workload, most, SimDuration::from_secs(1), |_| false)
}

/// Arrival times in seconds.
pub(crate) fn seconds(sent: &[Sent]) -> Vec<f64> {
    sent.iter().map(|(a, _)| a.at.as_secs_f64()).collect()
}

/// Mean and coefficient of variation.
pub(crate) fn mean_and_cv(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, variance.sqrt() / mean)
}

/// The percentile by linear interpolation between ranks, cut to whole tokens as in the published table.
pub(crate) fn percentile(values: &mut [u32], p: f64) -> u32 {
    values.sort_unstable();
    let rank = p / 100.0 * (values.len() - 1) as f64;
    let (low, high) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
    (f64::from(low) + rank.fract() * (f64::from(high) - f64::from(low))) as u32
}

/// The folder of real traces, if it is there.
pub(crate) fn real_traces() -> Option<PathBuf> {
    let shared = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let traces = shared.join("traces");
    if traces.is_dir() {
        return Some(traces);
    }
    println!("skipped: no real traces at {}", traces.display());
    None
}
