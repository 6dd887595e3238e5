//! The engine's statistics over time: KV use, tokens per second, requests running and waiting.

use super::super::files::{self, Table, Unreadable};
use super::Kept;
use std::path::Path;
use windtunnel_base::time::SimTime;
use windtunnel_reports::fidelity::{Curve, Run};

/// A line of the time series.
struct Sample {
    /// Seconds.
    at: f64,
    kv: f64,
    tokens: f64,
    running: f64,
    waiting: f64,
}

/// Compares the statistics over time, if there are any. The simulation is read where the engine was:
/// after the last step that ended by then, and tokens of the tick before it.
pub(super) fn compare(
    run: &mut Run,
    dir: &Path,
    log: &[Vec<Kept>],
    blocks: u64,
) -> Result<(), Unreadable> {
    let Some(path) = files::find(&dir.join("vllm"), "timeseries.csv") else {
        let note = "there is no vllm/timeseries.csv: nothing is compared over time";
        run.notes.push(note.into());
        return Ok(());
    };
    let measured = read(&path)?;
    let simulated: Vec<Sample> = measured
        .iter()
        .enumerate()
        .map(|(i, sample)| {
            let tick = match i.checked_sub(1) {
                Some(before) => sample.at - measured[before].at,
                None => sample.at,
            };
            read_off(log, sample.at, tick, blocks)
        })
        .collect();
    let of = |samples: &[Sample], value: fn(&Sample) -> f64| samples.iter().map(value).collect();
    type Value = fn(&Sample) -> f64;
    let parts: [(&'static str, &'static str, Value); 4] = [
        ("kv_usage", "share", |s| s.kv),
        ("output_token_throughput", "tokens/s", |s| s.tokens),
        ("running", "requests", |s| s.running),
        ("waiting", "requests", |s| s.waiting),
    ];
    for (metric, unit, value) in parts {
        // A column that was never filled says nothing.
        if measured.iter().all(|s| value(s) == 0.0) {
            run.notes
                .push(format!("vllm/timeseries.csv tells nothing of {metric}"));
            continue;
        }
        run.compare_samples(
            metric,
            unit,
            of(&measured, value),
            of(&simulated, value),
            None,
        );
        let points = |samples: &[Sample]| samples.iter().map(|s| (s.at, value(s))).collect();
        let title = match metric {
            "kv_usage" => "KV memory in use",
            "output_token_throughput" => "Output tokens per second",
            "running" => "Requests running",
            _ => "Requests waiting",
        };
        run.curves.push(Curve {
            name: metric,
            title,
            share: unit == "share",
            measured: points(&measured),
            simulated: points(&simulated),
        });
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Sample>, Unreadable> {
    let mut table = Table::open(path)?;
    let columns = [
        table.column("t")?,
        table.column("kv_cache_pct")?,
        table.column("gen_throughput")?,
        table.column("running")?,
        table.column("waiting")?,
    ];
    let mut samples = Vec::new();
    while table.advance()? {
        let mut values = [0.0; 5];
        for (value, &column) in values.iter_mut().zip(&columns) {
            *value = table.number(column)?;
        }
        let [at, kv, tokens, running, waiting] = values;
        samples.push(Sample {
            at,
            kv: kv / 100.0,
            tokens,
            running,
            waiting,
        });
    }
    Ok(samples)
}

/// What a simulated engine would have told at `at`.
fn read_off(log: &[Vec<Kept>], at: f64, tick: f64, blocks: u64) -> Sample {
    let instant = |seconds: f64| SimTime::from_nanos((seconds.max(0.0) * 1e9) as u64);
    let (begin, end) = (instant(at - tick), instant(at));
    let (mut held, mut running, mut waiting, mut tokens) = (0, 0, 0, 0_u64);
    for steps in log {
        let ended = steps.partition_point(|s| s.to <= end);
        let before = steps.partition_point(|s| s.to <= begin);
        tokens += steps[before..ended]
            .iter()
            .map(|s| u64::from(s.tokens))
            .sum::<u64>();
        if let Some(last) = ended.checked_sub(1).map(|i| &steps[i]) {
            held += last.held;
            running += last.running;
            waiting += last.waiting;
        }
    }
    Sample {
        at,
        kv: held as f64 / blocks.max(1) as f64,
        tokens: tokens as f64 / tick.max(1e-9),
        running: f64::from(running),
        waiting: f64::from(waiting),
    }
}
