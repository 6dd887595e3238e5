//! Runs of Vidur: every iteration and every request, equal to the rounding of clocks.

/// What a run was made with.
mod settings;

use super::files::{self, Table, Unreadable};
use super::play::{self, play};
use super::traffic::{Recorded, Traffic, time};
use super::{FidelityError, Options, Subject};
use settings::Settings;
use std::path::{Path, PathBuf};
use windtunnel_ledger::rows::Row;
use windtunnel_reports::fidelity::{Curve, Equality, Run};
use windtunnel_sim::Step;

/// The runs of a folder.
pub(super) fn find(dir: &Path) -> Result<Vec<Box<dyn Subject>>, Unreadable> {
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    for run in files::entries(&dir.join("runs"))? {
        if run.is_dir() {
            subjects.push(Box::new(VidurRun {
                dir: dir.to_owned(),
                run,
            }));
        }
    }
    if subjects.is_empty() {
        let runs = dir.join("runs");
        return Err(Unreadable::file(
            &runs,
            "there is no run in it",
            "each run is a folder with arrivals.csv, requests.csv and summary.json",
        ));
    }
    Ok(subjects)
}

struct VidurRun {
    dir: PathBuf,
    run: PathBuf,
}

/// What became of a request; times in seconds.
struct Fate {
    line: u64,
    replica: u32,
    arrived: f64,
    scheduled: f64,
    first_token: f64,
    completed: f64,
    restarts: u32,
    output: u32,
}

/// One step of a replica.
#[derive(Clone, Copy)]
struct Iteration {
    /// Line of the table; 0 in a simulation.
    line: u64,
    /// Seconds.
    from: f64,
    to: f64,
    /// Requests, tokens, prompt tokens, blocks held after it, requests waiting after it.
    counts: [u64; 5],
}

const COUNTS: [(&str, &str); 5] = [
    ("num_requests", "requests"),
    ("num_tokens", "tokens"),
    ("num_prefill_tokens", "prompt tokens"),
    ("kv_blocks_after", "KV blocks held after"),
    ("queued_after", "requests waiting after"),
];

impl Subject for VidurRun {
    fn name(&self) -> String {
        files::name(&self.run)
    }

    fn compare(&self, options: &Options) -> Result<Run, FidelityError> {
        let settings = match Settings::read(&self.run)? {
            Ok(settings) => settings,
            Err(reason) => return Ok(Run::without(self.name(), reason)),
        };
        let (traffic, order) = arrivals(&self.run)?;
        let fates = fates(&self.run, &order)?;
        let mut log: Vec<Vec<Iteration>> = vec![Vec::new(); settings.replicas as usize];
        let mut note = |step: &Step| {
            let after = step.after.unwrap_or_default();
            if let Some(own) = log.get_mut(step.replica.index()) {
                own.push(Iteration {
                    line: 0,
                    from: step.from.as_secs_f64(),
                    to: step.to.as_secs_f64(),
                    counts: [
                        u64::from(step.shape.seqs()),
                        step.shape.tokens(),
                        step.shape.prefill_tokens,
                        after.kv_held,
                        u64::from(after.waiting),
                    ],
                });
            }
        };
        let name = self.name();
        let sheet = settings.scenario(&self.dir)?;
        let played = play(&name, &self.dir, &sheet, &traffic, options, Some(&mut note))?;
        let mut run = Run::new(name);
        run.requests = traffic.len() as u64;
        run.steps = played.steps;
        run.settings = settings.told();
        run.notes.extend(settings.blocks_note());
        latencies(&mut run, &fates, &played.rows);
        let gaps = settings.gaps.iter().map(|(k, &ms)| (k.as_str(), ms));
        play::gaps(&mut run, &played.result, &gaps.collect::<Vec<_>>());
        self.iterations(&mut run, &settings, &fates, &log)?;
        requests(&mut run, &self.run, &fates, &played.rows);
        run.conclude();
        Ok(run)
    }
}

/// What clocks may differ by, in seconds, after `sums` additions up to `end`: ours is whole
/// nanoseconds outside of replicas and rounds ends up, arrivals to the nearest; theirs adds up
/// 64-bit floats, each sum rounded by half a unit in the last place at most.
fn clock_bound(sums: usize, end: f64) -> f64 {
    let unit = end.abs().max(1.0) * f64::EPSILON;
    2e-9 + sums as f64 * unit / 2.0
}

const BASIS: &str = "2 ns for whole nanoseconds here, and half a unit in the last place of a 64-bit \
                     float for each sum there";

/// The requests, and their ids in the order of the file.
fn arrivals(run: &Path) -> Result<(Traffic, Vec<String>), Unreadable> {
    let path = files::expect(run, "arrivals.csv", "the requests that were sent")?;
    let mut table = Table::open(&path)?;
    let id = table.column("request_id")?;
    let at = table.column("arrived_at")?;
    let prompt = table.column("num_prefill_tokens")?;
    let output = table.column("num_decode_tokens")?;
    let (mut record, mut ids) = (Vec::new(), Vec::new());
    while table.advance()? {
        let seconds: f64 = table.number(at)?;
        let arrived = time(seconds).ok_or_else(|| table.wrong("an arrival before time zero"))?;
        let (prompt, output): (u32, u32) = (table.number(prompt)?, table.number(output)?);
        if prompt == 0 || output == 0 {
            return Err(table.wrong("a request without prompt or answer"));
        }
        ids.push(table.text(id).to_owned());
        record.push(Recorded {
            at: arrived,
            prompt,
            output,
            prefix: Vec::new(),
            session: record.len() as u64,
            patience: None,
        });
    }
    if record.is_empty() {
        return Err(Unreadable::file(
            &path,
            "there is no request in it",
            "fetch the file again",
        ));
    }
    Ok((Traffic::new(record), ids))
}

/// What became of the requests, in the order of `ids`; `None` where the file does not say.
fn fates(run: &Path, ids: &[String]) -> Result<Vec<Option<Fate>>, Unreadable> {
    let path = files::expect(run, "requests.csv", "what became of the requests")?;
    let mut table = Table::open(&path)?;
    let id = table.column("request_id")?;
    let output = table.column("num_decode_tokens")?;
    let times = [
        table.column("arrived_at")?,
        table.column("scheduled_at")?,
        table.column("prefill_completed_at")?,
        table.column("completed_at")?,
    ];
    let replica = table.optional("replica_id");
    let restarts = table.optional("num_restarts");
    let places: std::collections::BTreeMap<&str, usize> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| (id.as_str(), i))
        .collect();
    let mut fates: Vec<Option<Fate>> = ids.iter().map(|_| None).collect();
    while table.advance()? {
        let Some(&place) = places.get(table.text(id)) else {
            return Err(table.wrong("this request is not in arrivals.csv"));
        };
        fates[place] = Some(Fate {
            line: table.line(),
            replica: replica.map_or(Ok(0), |c| table.number(c))?,
            arrived: table.number(times[0])?,
            scheduled: table.number(times[1])?,
            first_token: table.number(times[2])?,
            completed: table.number(times[3])?,
            restarts: restarts.map_or(Ok(0), |c| table.number(c))?,
            output: table.number(output)?,
        });
    }
    Ok(fates)
}

/// Latencies of all requests, in milliseconds.
fn latencies(run: &mut Run, fates: &[Option<Fate>], rows: &[Row]) {
    let measured = |of: &dyn Fn(&Fate) -> Option<f64>| -> Vec<Option<f64>> {
        fates
            .iter()
            .map(|f| f.as_ref().and_then(of).map(|s| s * 1e3))
            .collect()
    };
    let simulated = |of: &dyn Fn(&Row) -> Option<f64>| -> Vec<Option<f64>> {
        rows.iter().map(|row| of(row).map(|ns| ns / 1e6)).collect()
    };
    let ns = |ns: Option<u64>| ns.map(|ns| ns as f64);
    let tpot =
        |f: &Fate| (f.output > 1).then(|| (f.completed - f.first_token) / f64::from(f.output - 1));
    run.compare(
        "ttft",
        "ms",
        measured(&|f| Some(f.first_token - f.arrived)),
        simulated(&|r| ns(r.ttft_ns())),
        None,
    );
    run.compare(
        "tpot",
        "ms",
        measured(&tpot),
        simulated(&Row::tpot_ns),
        None,
    );
    run.compare(
        "e2e",
        "ms",
        measured(&|f| Some(f.completed - f.arrived)),
        simulated(&|r| ns(r.e2e_ns())),
        None,
    );
    play::throughput(
        run,
        fates
            .iter()
            .flatten()
            .map(|f| (f.arrived, f.completed, f.output)),
        rows,
    );
}

/// Every request's times, replica and restarts.
fn requests(run: &mut Run, dir: &Path, fates: &[Option<Fate>], rows: &[Row]) {
    let end = fates
        .iter()
        .flatten()
        .map(|f| f.completed)
        .fold(0.0, f64::max);
    let bound = clock_bound(run.steps as usize, end);
    type Measured = fn(&Fate) -> f64;
    type Simulated = fn(&Row) -> Option<f64>;
    let seconds = |what: &str| Equality::new(what, "s", bound, BASIS);
    let exact = |what: &str| Equality::new(what, "", 0.0, "exact");
    let parts: [(Equality, Measured, Simulated); 5] = [
        (
            seconds("first scheduling of every request"),
            |f| f.scheduled,
            |r| Some(r.started_ns? as f64 / 1e9),
        ),
        (
            seconds("end of every request's prefill"),
            |f| f.first_token,
            |r| Some(r.first_token_ns? as f64 / 1e9),
        ),
        (
            seconds("completion of every request"),
            |f| f.completed,
            |r| Some(r.last_token_ns? as f64 / 1e9),
        ),
        (
            exact("replica of every request"),
            |f| f64::from(f.replica),
            |r| r.replica.map(f64::from),
        ),
        (
            exact("restarts of every request"),
            |f| f64::from(f.restarts),
            |r| Some(f64::from(r.preemptions)),
        ),
    ];
    let file = dir.join("requests.csv");
    for (mut equality, measured, simulated) in parts {
        for (i, fate) in fates.iter().enumerate() {
            let place = |line: u64| format!("request {i} ({}:{line})", file.display());
            let Some(fate) = fate else {
                equality.exceeds(1, || format!("request {i}"));
                continue;
            };
            match rows.get(i).and_then(simulated) {
                Some(value) => equality.add(measured(fate), value, || place(fate.line)),
                None => equality.lacks(measured(fate), || place(fate.line)),
            }
        }
        run.equalities.extend(equality.conclude());
    }
}

impl VidurRun {
    /// Every iteration, replica by replica, and KV use over them.
    fn iterations(
        &self,
        run: &mut Run,
        settings: &Settings,
        fates: &[Option<Fate>],
        log: &[Vec<Iteration>],
    ) -> Result<(), Unreadable> {
        let Some(path) = files::find(&self.run, "batches.csv") else {
            run.notes
                .push("there is no batches.csv: iterations are not compared".into());
            return Ok(());
        };
        let batches = batches(&path, settings.replicas)?;
        let end = fates
            .iter()
            .flatten()
            .map(|f| f.completed)
            .fold(0.0, f64::max);
        let most = batches.iter().map(Vec::len).max().unwrap_or(0);
        let bound = clock_bound(most, end);
        let mut times = [
            Equality::new("start of every iteration", "s", bound, BASIS),
            Equality::new("end of every iteration", "s", bound, BASIS),
        ];
        let mut counts = COUNTS
            .map(|(_, what)| Equality::new(format!("{what} of every iteration"), "", 0.0, "exact"));
        for (replica, (theirs, ours)) in batches.iter().zip(log).enumerate() {
            for (i, theirs) in theirs.iter().enumerate() {
                let place = || {
                    format!(
                        "replica {replica}, iteration {i} ({}:{})",
                        path.display(),
                        theirs.line
                    )
                };
                let Some(ours) = ours.get(i) else {
                    times
                        .iter_mut()
                        .chain(&mut counts)
                        .for_each(|e| e.lacks("an iteration", place));
                    continue;
                };
                times[0].add(theirs.from, ours.from, place);
                times[1].add(theirs.to, ours.to, place);
                for (k, equality) in counts.iter_mut().enumerate() {
                    equality.add(theirs.counts[k] as f64, ours.counts[k] as f64, place);
                }
            }
            let more = ours.len().saturating_sub(theirs.len()) as u64;
            for equality in times.iter_mut().chain(&mut counts) {
                equality.exceeds(more, || {
                    format!("replica {replica} after iteration {}", theirs.len())
                });
            }
        }
        let all = times.into_iter().chain(counts);
        run.equalities.extend(all.filter_map(Equality::conclude));
        kv_use(run, settings.blocks, &batches, log);
        Ok(())
    }
}

/// The share of blocks held after each iteration, over iterations and over time.
fn kv_use(run: &mut Run, blocks: u64, theirs: &[Vec<Iteration>], ours: &[Vec<Iteration>]) {
    if blocks == 0 {
        return;
    }
    let share = |i: &Iteration| i.counts[3] as f64 / blocks as f64;
    let shares = |log: &[Vec<Iteration>]| log.iter().flatten().map(share).collect();
    run.compare_samples("kv_usage", "share", shares(theirs), shares(ours), None);
    let points = |log: &[Vec<Iteration>]| -> Vec<(f64, f64)> {
        let first = log.first().into_iter().flatten();
        first.map(|i| (i.to, share(i))).collect()
    };
    run.curves.push(Curve {
        name: "kv_usage",
        title: "KV memory in use, replica 0",
        share: true,
        measured: points(theirs),
        simulated: points(ours),
    });
}

/// Iterations by replica, in the order of their starts.
fn batches(path: &Path, replicas: u32) -> Result<Vec<Vec<Iteration>>, Unreadable> {
    let mut table = Table::open(path)?;
    let replica = table.column("replica_id")?;
    let (from, to) = (table.column("scheduled_at")?, table.column("completed_at")?);
    let mut columns = Vec::new();
    for (name, _) in COUNTS {
        columns.push(table.column(name)?);
    }
    let mut all: Vec<Vec<Iteration>> = vec![Vec::new(); replicas as usize];
    while table.advance()? {
        let r: usize = table.number(replica)?;
        let mut counts = [0; 5];
        for (count, &column) in counts.iter_mut().zip(&columns) {
            *count = table.number(column)?;
        }
        let iteration = Iteration {
            line: table.line(),
            from: table.number(from)?,
            to: table.number(to)?,
            counts,
        };
        let Some(own) = all.get_mut(r) else {
            return Err(table.wrong(format!(
                "the run has {replicas} replicas, and this is number {r}"
            )));
        };
        own.push(iteration);
    }
    for own in &mut all {
        own.sort_by(|a, b| a.from.total_cmp(&b.from));
    }
    Ok(all)
}
