//! Runs of BLIS: every request's latencies and replica, equal to the last printed digit, and the
//! aggregates.

/// The arguments of runs.
mod commands;
/// What a run was made with.
mod settings;
/// Aggregates, as BLIS makes them.
mod aggregates;

use super::files::{self, Table, Unreadable};
use super::play::{self, play};
use super::traffic::{Recorded, Traffic};
use super::{FidelityError, Options, Subject};
use aggregates::Gaps;
use commands::Command;
use settings::{Settings, System};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::rows::Row;
use windtunnel_reports::fidelity::{Equality, Run};
use windtunnel_sim::Step;

/// Endings of the files of a result.
const ENDINGS: [&str; 3] = [".requests.csv", ".summary.json", ".stdout.txt"];

/// The runs of a folder.
pub(super) fn find(dir: &Path) -> Result<Vec<Box<dyn Subject>>, Unreadable> {
    let system = Arc::new(System::read(dir)?);
    let commands = commands::read(dir)?;
    let mut names = BTreeSet::new();
    for path in files::entries(&dir.join("results"))? {
        let name = files::name(&path);
        names.extend(
            ENDINGS
                .iter()
                .find_map(|end| Some(name.strip_suffix(end)?.to_owned())),
        );
    }
    if names.is_empty() {
        return Err(Unreadable::file(
            &dir.join("results"),
            "there is no result in it",
            "put NAME.requests.csv.gz and NAME.summary.json there",
        ));
    }
    let run = |name: String| {
        let command = commands::of_result(&commands, &name);
        let subject: Box<dyn Subject> = Box::new(BlisRun {
            dir: dir.to_owned(),
            name,
            command,
            system: Arc::clone(&system),
        });
        subject
    };
    Ok(names.into_iter().map(run).collect())
}

struct BlisRun {
    dir: PathBuf,
    name: String,
    command: Option<Command>,
    system: Arc<System>,
}

/// What BLIS told of a request; times in milliseconds.
struct Told {
    line: u64,
    instance: Option<u32>,
    ttft: f64,
    itl: Option<f64>,
    e2e: f64,
    delay: Option<f64>,
}

impl Subject for BlisRun {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn compare(&self, options: &Options) -> Result<Run, FidelityError> {
        let Some(command) = &self.command else {
            let reason = "no line of workloads/*.cmd.txt is for this result: what it was made with is not known";
            return Ok(Run::without(&self.name, reason));
        };
        let Some(trace) = self.trace(command)? else {
            let reason = "no file of traces/ goes with this result";
            return Ok(Run::without(&self.name, reason));
        };
        let settings = match Settings::of(&self.system, command)? {
            Ok(settings) => settings,
            Err(reason) => return Ok(Run::without(&self.name, reason)),
        };
        let summary = aggregates::read(&self.dir.join("results"), &self.name)?;
        let missed = summary.as_ref().is_some_and(|s| s.timed_out());
        let (traffic, ids) = read_trace(&trace, missed)?;
        let told = self.told(&ids)?;
        let mut gaps = Gaps::new(settings.per_token_us());
        let mut note = |step: &Step| gaps.add(step);
        let sheet = settings.scenario()?;
        let played = play(
            &self.name,
            &self.dir,
            &sheet,
            &traffic,
            options,
            Some(&mut note),
        )?;
        let mut run = Run::new(&self.name);
        run.requests = traffic.len() as u64;
        run.steps = played.steps;
        run.settings = command
            .flags()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        run.settings.insert("trace".into(), files::name(&trace));
        if let Some(told) = &told {
            self.requests(&mut run, told, &played.rows, &settings);
        }
        if let Some(summary) = &summary {
            aggregates::compare(&mut run, summary, &played.rows, gaps);
        }
        run.conclude();
        Ok(run)
    }
}

impl BlisRun {
    /// The trace that a result was made from: of its own name, of its workload's, or else of the name
    /// that the result's goes on from.
    fn trace(&self, command: &Command) -> Result<Option<PathBuf>, Unreadable> {
        let mut traces: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in files::entries(&self.dir.join("traces"))? {
            let name = files::name(&path);
            if let Some(stem) = name.strip_suffix(".csv") {
                let stem = stem.strip_suffix(".compact").unwrap_or(stem);
                traces.insert(stem.to_owned(), path);
            }
        }
        let stem = |flag: &str| {
            let file = Path::new(command.get(flag)?).file_name()?.to_string_lossy();
            Some(file.split('.').next().unwrap_or_default().to_owned())
        };
        let own = [
            Some(self.name.clone()),
            stem("workload-spec"),
            stem("trace-header"),
        ];
        if let Some(path) = own.iter().flatten().find_map(|name| traces.get(name)) {
            return Ok(Some(path.clone()));
        }
        let fits = |(trace, _): &(&String, &PathBuf)| commands::continues(&self.name, trace);
        let longest = traces
            .iter()
            .filter(fits)
            .max_by_key(|(trace, _)| trace.len());
        Ok(longest.map(|(_, path)| path.clone()))
    }

    /// What BLIS told of every request, in the order of `ids`, if there is such a file.
    fn told(&self, ids: &[String]) -> Result<Option<Vec<Option<Told>>>, Unreadable> {
        let file = format!("{}.requests.csv", self.name);
        let Some(path) = files::find(&self.dir.join("results"), &file) else {
            return Ok(None);
        };
        let mut table = Table::open(&path)?;
        let id = table.column("request_id")?;
        let (ttft, e2e) = (table.column("ttft_ms")?, table.column("e2e_ms")?);
        let instance = table.optional("handled_by");
        let itl = table.optional("itl_ms");
        let delay = table.optional("scheduling_delay_ms");
        let places: BTreeMap<&str, usize> = ids
            .iter()
            .enumerate()
            .map(|(i, id)| (id.as_str(), i))
            .collect();
        let mut told: Vec<Option<Told>> = ids.iter().map(|_| None).collect();
        while table.advance()? {
            let name = table.text(id);
            // `request_17` is called 17 in traces.
            let number = name.rsplit('_').next().unwrap_or_default();
            let place = places.get(name).or_else(|| places.get(number)).copied();
            let Some(place) = place else {
                return Err(table.wrong("this request is not in the trace"));
            };
            let maybe = |column| match column {
                Some(c) => table.number::<f64>(c).map(Some),
                None => Ok(None),
            };
            let handled_by = instance.map(|c| table.text(c).rsplit('_').next().unwrap_or_default());
            told[place] = Some(Told {
                line: table.line(),
                instance: handled_by.and_then(|n| n.parse().ok()),
                ttft: table.number(ttft)?,
                itl: maybe(itl)?,
                e2e: table.number(e2e)?,
                delay: maybe(delay)?,
            });
        }
        Ok(Some(told))
    }

    /// Request by request.
    fn requests(&self, run: &mut Run, told: &[Option<Told>], rows: &[Row], settings: &Settings) {
        let measured = |of: &dyn Fn(&Told) -> Option<f64>| -> Vec<Option<f64>> {
            told.iter().map(|t| t.as_ref().and_then(of)).collect()
        };
        let simulated = |of: &dyn Fn(&Row) -> Option<f64>| -> Vec<Option<f64>> {
            rows.iter().map(of).collect()
        };
        let ms = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e6);
        run.compare(
            "ttft",
            "ms",
            measured(&|t| Some(t.ttft)),
            simulated(&|r| ms(r.ttft_ns())),
            None,
        );
        let after = settings.completion_us() as f64 / 1e3;
        run.compare(
            "tpot",
            "ms",
            measured(&|t| t.itl),
            simulated(&|r| {
                let gaps = ms(r.e2e_ns())? - ms(r.ttft_ns())? - after;
                Some(gaps / f64::from(r.output_tokens.max(2) - 1))
            }),
            None,
        );
        run.compare(
            "e2e",
            "ms",
            measured(&|t| Some(t.e2e)),
            simulated(&|r| ms(r.e2e_ns())),
            None,
        );
        let arrived = |r: &Row| r.sent_ns as f64 / 1e9;
        let of_told = told.iter().zip(rows).filter_map(|(t, r)| {
            let e2e = t.as_ref()?.e2e / 1e3;
            Some((arrived(r), arrived(r) + e2e, r.output_tokens))
        });
        play::throughput(run, of_told, rows);
        self.equal(run, told, rows);
    }

    /// What must be equal to the last printed digit, which is a microsecond.
    fn equal(&self, run: &mut Run, told: &[Option<Told>], rows: &[Row]) {
        let us =
            |what: &str| Equality::new(what, "us", 0.0, "to the last printed digit, a microsecond");
        let whole = |ms: f64| {
            // Milliseconds are printed from whole microseconds.
            let us = (ms * 1e3).round();
            if (ms * 1e3 - us).abs() < 1e-3 {
                us
            } else {
                ms * 1e3
            }
        };
        let ns = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e3);
        let mut parts = [
            us("TTFT of every request"),
            us("E2E of every request"),
            us("scheduling delay of every request"),
            Equality::new("instance of every request", "", 0.0, "exact"),
        ];
        let file = format!("{}.requests.csv", self.name);
        for (i, told) in told.iter().enumerate() {
            let row = rows.get(i);
            let Some(told) = told else {
                parts
                    .iter_mut()
                    .for_each(|e| e.exceeds(1, || format!("request {i}")));
                continue;
            };
            let pairs = [
                (Some(whole(told.ttft)), row.and_then(|r| ns(r.ttft_ns()))),
                (Some(whole(told.e2e)), row.and_then(|r| ns(r.e2e_ns()))),
                (told.delay.map(whole), row.and_then(|r| ns(r.queue_ns()))),
                (
                    told.instance.map(f64::from),
                    row.and_then(|r| r.replica.map(f64::from)),
                ),
            ];
            let place = || format!("request {i} ({file}:{})", told.line);
            for (equality, (measured, simulated)) in parts.iter_mut().zip(pairs) {
                match (measured, simulated) {
                    (Some(m), Some(s)) => equality.add(m, s, place),
                    (Some(m), None) => equality.lacks(m, place),
                    (None, _) => {}
                }
            }
        }
        run.equalities
            .extend(parts.into_iter().filter_map(Equality::conclude));
    }
}

/// The requests of a trace, and their ids in the order of the file. `deadlines` says that clients give
/// up when the trace says so.
fn read_trace(path: &Path, deadlines: bool) -> Result<(Traffic, Vec<String>), Unreadable> {
    let mut table = Table::open(path)?;
    let id = table.optional("request_id");
    let at = table.column("arrival_time_us")?;
    let (input, output) = (
        table.column("input_tokens")?,
        table.column("output_tokens")?,
    );
    let group = table.optional("prefix_group");
    let length = table.optional("prefix_length");
    let deadline = table.optional("deadline_us");
    let session = table.optional("session_id");
    let space = namespace("prefix groups");
    let (mut record, mut ids) = (Vec::new(), Vec::new());
    while table.advance()? {
        let at: u64 = table.number(at)?;
        let (input, output): (u32, u32) = (table.number(input)?, table.number(output)?);
        let shared: u32 = match length {
            Some(column) => table.number(column)?,
            None => 0,
        };
        let name = group.map_or("", |column| table.text(column));
        let prefix = if shared > 0 && !name.is_empty() {
            vec![Extent {
                key: stream_key(space, namespace(name)),
                tokens: shared,
            }]
        } else {
            Vec::new()
        };
        if input + shared == 0 || output == 0 {
            return Err(table.wrong("a request without prompt or answer"));
        }
        let deadline: u64 = match deadline.filter(|_| deadlines) {
            Some(column) => table.number(column)?,
            None => 0,
        };
        let conversation = session.map_or("", |column| table.text(column));
        let number = record.len() as u64;
        ids.push(id.map_or_else(
            || number.to_string(),
            |column| table.text(column).to_owned(),
        ));
        record.push(Recorded {
            at: SimTime::from_nanos(at.saturating_mul(1_000)),
            prompt: input + shared,
            output,
            prefix,
            session: match conversation {
                "" => number,
                name => namespace(name),
            },
            patience: deadline
                .checked_sub(at)
                .filter(|&us| us > 0)
                .map(SimDuration::from_micros),
        });
    }
    if record.is_empty() {
        return Err(Unreadable::file(
            path,
            "there is no request in it",
            "fetch the file again",
        ));
    }
    Ok((Traffic::new(record), ids))
}
