//! A measured vLLM: latencies of the recorded requests, and the engine's own statistics over time.

/// What the engine was run with.
mod settings;
/// The engine's statistics over time.
mod series;

use super::files::{self, Unreadable};
use super::play::{self, play};
use super::traffic::{Recorded, Streams, Traffic, time};
use super::{FidelityError, Options, Subject, TOLERANCE};
use serde::Deserialize;
use settings::Settings;
use std::path::{Path, PathBuf};
use windtunnel_base::time::SimTime;
use windtunnel_ledger::rows::Row;
use windtunnel_reports::fidelity::Run;
use windtunnel_sim::Step;

/// The run of a folder.
pub(super) fn find(dir: &Path) -> Result<Vec<Box<dyn Subject>>, Unreadable> {
    let requests = files::expect(dir, "vllm/requests.jsonl", "the measured requests")?;
    if !dir.join("profile").is_dir() {
        return Err(Unreadable::file(
            &dir.join("profile"),
            "there is no such folder",
            "put the GPU's operator tables there",
        ));
    }
    Ok(vec![Box::new(Measured {
        dir: dir.to_owned(),
        requests,
    })])
}

struct Measured {
    dir: PathBuf,
    requests: PathBuf,
}

/// A measured request. Times are seconds; all but the arrival are on the engine's own clock.
#[derive(Clone, Deserialize)]
struct Served {
    #[serde(default)]
    request_id: serde_json::Value,
    input_toks: u32,
    output_toks: u32,
    #[serde(default)]
    arrival_time: Option<f64>,
    #[serde(default)]
    queued_ts: Option<f64>,
    first_token_ts: f64,
    last_token_ts: f64,
}

impl Served {
    /// When the engine took it in: between two steps.
    fn queued(&self) -> Option<f64> {
        // Before it was told, the arrival is all there is, if it is on the same clock.
        let arrival = self
            .arrival_time
            .filter(|at| (self.first_token_ts - at).abs() < 1e6);
        self.queued_ts.or(arrival)
    }
}

/// A request of the workload.
#[derive(Clone, Deserialize)]
struct Asked {
    #[serde(default)]
    request_id: serde_json::Value,
    #[serde(default)]
    arrival_time_ns: Option<f64>,
    input_toks: u32,
    #[serde(default)]
    input_block_hashes: Vec<String>,
}

/// What is kept of a step.
struct Kept {
    from: SimTime,
    to: SimTime,
    tokens: u32,
    held: u64,
    running: u32,
    waiting: u32,
}

impl Subject for Measured {
    fn name(&self) -> String {
        "measured".into()
    }

    fn compare(&self, options: &Options) -> Result<Run, FidelityError> {
        let settings = match Settings::read(&self.dir)? {
            Ok(settings) => settings,
            Err(missing) => return Ok(Run::without(self.name(), missing)),
        };
        let served: Vec<Served> = files::json_lines(&self.requests)?;
        let traffic = Traffic::new(self.record(&served)?);
        let mut log: Vec<Vec<Kept>> = (0..settings.replicas).map(|_| Vec::new()).collect();
        let mut note = |step: &Step| {
            let after = step.after.unwrap_or_default();
            if let Some(own) = log.get_mut(step.replica.index()) {
                own.push(Kept {
                    from: step.from,
                    to: step.to,
                    tokens: step.shape.sampled,
                    held: after.kv_held,
                    running: after.running,
                    waiting: after.waiting,
                });
            }
        };
        let name = self.name();
        let sheet = settings.scenario(&self.dir);
        let played = play(&name, &self.dir, &sheet, &traffic, options, Some(&mut note))?;
        let mut run = Run::new(name);
        run.requests = traffic.len() as u64;
        run.steps = played.steps;
        run.settings = settings.told();
        let target = options.tolerance.unwrap_or(TOLERANCE);
        latencies(&mut run, &served, &played.rows, &log, target);
        play::gaps(&mut run, &played.result, &[]);
        play::throughput(
            &mut run,
            served
                .iter()
                .filter_map(|s| Some((s.queued()?, s.last_token_ts, s.output_toks))),
            &played.rows,
        );
        let blocks = settings.blocks * u64::from(settings.replicas);
        series::compare(&mut run, &self.dir, &log, blocks)?;
        let peak = log.iter().flatten().map(|s| s.held).max().unwrap_or(0);
        run.notes.extend(settings.notes(peak));
        run.conclude();
        Ok(run)
    }
}

impl Measured {
    /// The requests in the order of the measurement, with arrivals and block hashes of the workload.
    fn record(&self, served: &[Served]) -> Result<Vec<Recorded>, Unreadable> {
        let (path, asked) = self.workload(served)?;
        let places = places(served, &asked);
        let origin = served
            .iter()
            .filter_map(|s| s.arrival_time)
            .fold(f64::INFINITY, f64::min);
        let first = asked.iter().filter_map(|a| a.arrival_time_ns);
        let first = first.fold(f64::INFINITY, f64::min);
        let first = if first.is_finite() { first / 1e9 } else { 0.0 };
        let recorded = served.iter().all(|s| s.arrival_time.is_some());
        let mut streams = Streams::default();
        let mut record = Vec::with_capacity(served.len());
        for (i, request) in served.iter().enumerate() {
            let wrong = |reason: &str| Unreadable {
                file: self.requests.clone(),
                line: i as u64 + 1,
                reason: reason.into(),
                remedy: "fetch the file again, or correct the line".into(),
            };
            let asked = places.get(i).and_then(|&place| asked.get(place));
            let Some(asked) = asked.filter(|a| a.input_toks == request.input_toks) else {
                return Err(wrong(&format!(
                    "{} has no request of {} prompt tokens in this place",
                    path.display(),
                    request.input_toks
                )));
            };
            // When it really came, if that was recorded: else when it was meant to.
            let arrival = match request.arrival_time {
                Some(at) if recorded => first + at - origin,
                _ => asked.arrival_time_ns.unwrap_or(0.0) / 1e9,
            };
            let at = time(arrival).ok_or_else(|| wrong("it arrived before time zero"))?;
            if request.input_toks == 0 || request.output_toks == 0 {
                return Err(wrong("a request without prompt or answer"));
            }
            let hashes = &asked.input_block_hashes;
            let block = block_tokens(request.input_toks, hashes.len())
                .ok_or_else(|| wrong("its workload row has too many or too few block hashes"))?;
            record.push(Recorded {
                at,
                prompt: request.input_toks,
                output: request.output_toks,
                prefix: streams.extents(hashes, block),
                session: i as u64,
                patience: None,
            });
        }
        if record.is_empty() {
            let reason = "there is no request in it";
            return Err(Unreadable::file(
                &self.requests,
                reason,
                "fetch the file again",
            ));
        }
        Ok(record)
    }

    /// The workload: the first file whose requests are those that were served.
    fn workload(&self, served: &[Served]) -> Result<(PathBuf, Vec<Asked>), Unreadable> {
        let mut last = None;
        for path in files::entries(&self.dir)? {
            let name = files::name(&path);
            if !path.is_file() || !name.starts_with("workload") || !name.ends_with(".jsonl") {
                continue;
            }
            let asked: Vec<Asked> = files::json_lines(&path)?;
            let places = places(served, &asked);
            let fits = served.iter().zip(&places).all(|(s, &place)| {
                asked
                    .get(place)
                    .is_some_and(|a| a.input_toks == s.input_toks)
            });
            if fits && !asked.is_empty() {
                return Ok((path, asked));
            }
            last = Some((path, asked));
        }
        last.ok_or_else(|| {
            Unreadable::file(
                &self.dir.join("workload*.jsonl"),
                "there is no such file",
                "put the workload there, one request per line",
            )
        })
    }
}

/// For each served request its place in the workload: by the number at the end of its id, if all have
/// one of their own; else by order.
fn places(served: &[Served], asked: &[Asked]) -> Vec<usize> {
    let of_asked: std::collections::BTreeMap<u64, usize> = asked
        .iter()
        .enumerate()
        .filter_map(|(i, a)| Some((number(&a.request_id)?, i)))
        .collect();
    let numbers: Vec<Option<u64>> = served.iter().map(|s| number(&s.request_id)).collect();
    let distinct: std::collections::BTreeSet<_> = numbers.iter().flatten().collect();
    let known = |n: &Option<u64>| n.is_some_and(|n| of_asked.contains_key(&n));
    if of_asked.len() == asked.len() && distinct.len() == served.len() && numbers.iter().all(known)
    {
        let place = |n: &Option<u64>| n.and_then(|n| of_asked.get(&n).copied()).unwrap_or(0);
        return numbers.iter().map(place).collect();
    }
    (0..served.len()).collect()
}

/// The number at the end of an id such as `bench-17`.
fn number(id: &serde_json::Value) -> Option<u64> {
    match id {
        serde_json::Value::Number(n) => n.as_u64(),
        serde_json::Value::String(text) => {
            let begin = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            text[begin..].parse().ok()
        }
        _ => None,
    }
}

/// Tokens per hashed block: the most usual size that makes so many whole blocks of a prompt.
fn block_tokens(prompt: u32, hashes: usize) -> Option<u32> {
    let sizes = [16, 32, 64, 128, 256, 8, 1];
    if hashes == 0 {
        return Some(16);
    }
    sizes
        .into_iter()
        .find(|&size| (prompt / size) as usize == hashes)
}

/// Latencies from when the engine took a request in, in milliseconds: that is where the measurement
/// begins, and a busy engine takes requests in between two steps.
fn latencies(run: &mut Run, served: &[Served], rows: &[Row], log: &[Vec<Kept>], target: f64) {
    let of = |value: &dyn Fn(&Served) -> Option<f64>| -> Vec<Option<f64>> {
        served.iter().map(|s| value(s).map(|v| v * 1e3)).collect()
    };
    let taken: Vec<f64> = rows.iter().map(|row| taken_in(row, log)).collect();
    let simulated = |value: &dyn Fn(&Row) -> Option<u64>| -> Vec<Option<f64>> {
        let at = |(row, taken): (&Row, &f64)| Some((value(row)? as f64 - taken) / 1e6);
        rows.iter().zip(&taken).map(at).collect()
    };
    let tpot = |s: &Served| {
        (s.output_toks > 1)
            .then(|| (s.last_token_ts - s.first_token_ts) / f64::from(s.output_toks - 1))
    };
    run.compare(
        "ttft",
        "ms",
        of(&|s| Some(s.first_token_ts - s.queued()?)),
        simulated(&|r| r.first_token_ns),
        Some(target),
    );
    run.compare(
        "tpot",
        "ms",
        of(&tpot),
        rows.iter()
            .map(|r| r.tpot_ns().map(|ns| ns / 1e6))
            .collect(),
        Some(target),
    );
    run.compare(
        "e2e",
        "ms",
        of(&|s| Some(s.last_token_ts - s.queued()?)),
        simulated(&|r| r.last_token_ns),
        Some(target),
    );
}

/// When the replica of a request took it in, ns: the end of the step in progress when it came, or at
/// once if there was none.
fn taken_in(row: &Row, log: &[Vec<Kept>]) -> f64 {
    let came = row.accepted_ns.unwrap_or(row.sent_ns);
    let steps = log.get(row.replica.unwrap_or(0) as usize);
    let busy = steps.and_then(|steps| {
        let next = steps.partition_point(|s| s.to.as_nanos() < came);
        steps.get(next).filter(|s| s.from.as_nanos() < came)
    });
    busy.map_or(came, |step| step.to.as_nanos()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_blocks_are_told_apart() {
        let id = |text: &str| number(&serde_json::json!(text));
        assert_eq!(
            (id("bench-17"), id("17"), id("x")),
            (Some(17), Some(17), None)
        );
        assert_eq!(number(&serde_json::json!(4)), Some(4));
        assert_eq!(block_tokens(2358, 147), Some(16));
        assert_eq!(block_tokens(2358, 73), Some(32));
        assert_eq!(block_tokens(10, 0), Some(16));
        assert_eq!(block_tokens(10, 7), None);
    }

    #[test]
    fn a_busy_engine_takes_requests_in_between_two_steps() {
        let step = |from, to| Kept {
            from: SimTime::from_nanos(from),
            to: SimTime::from_nanos(to),
            tokens: 0,
            held: 0,
            running: 0,
            waiting: 0,
        };
        let log = vec![vec![step(10, 20), step(20, 35), step(50, 60)]];
        let mut row: Row = serde_json::from_value(serde_json::json!({
            "request": 0, "session": 0, "turn": 0, "tenant": 0, "class": 0, "replica": 0,
            "end": "finished", "measured": true, "sent_ns": 0, "ended_ns": 0,
            "prompt_tokens": 1, "cached_tokens": 0, "output_tokens": 1, "preemptions": 0,
            "good": true, "met_objectives": true
        }))
        .expect("a row");
        for (came, taken) in [
            (5, 5.0),
            (10, 10.0),
            (15, 20.0),
            (20, 20.0),
            (21, 35.0),
            (40, 40.0),
            (70, 70.0),
        ] {
            row.accepted_ns = Some(came);
            assert_eq!(taken_in(&row, &log), taken, "at {came}");
        }
    }
}
