//! Standard shapes of work, and what each costs: requests and facts per second of CPU time, and memory.
//! `windtunnel bench` prints them, `cargo bench` and `PERFORMANCE.md` use the same.
//!
//! What is timed is the run itself: world, requests, laws, full metrics and the accounts of memory, no rows.
//! Reading scenario and trace is not.

/// CPU time, memory, machine.
pub mod cost;
/// What shapes run.
mod prepare;
/// Requests of the shapes that others were measured on.
mod requests;
/// The standard shapes.
mod shapes;

pub use shapes::{SHAPES, Shape};

use crate::execute::{RunPoint, run_point};
use requests::{Played, Request};
use serde::{Deserialize, Serialize};
use shapes::Work;
use std::path::PathBuf;
use std::sync::Arc;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_sim::{RunOptions, run};

/// How shapes are run.
#[derive(Clone, Debug, Default)]
pub struct Effort {
    /// Fewer requests.
    pub quick: bool,
    /// So many requests instead of a shape's own number.
    pub requests: Option<u64>,
    /// Folder with the requests that others were measured on.
    pub fidelity: Option<PathBuf>,
    /// Folder with traces.
    pub traces: Option<PathBuf>,
}

/// What a shape cost.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The shape's name.
    pub shape: String,
    /// What it is.
    pub title: String,
    /// Where its requests come from: `generated`, or a file.
    pub source: String,
    /// Requests of one run.
    pub requests: u64,
    /// Facts that were checked, booked and hashed in one run.
    pub facts: u64,
    /// Steps of replicas in one run.
    pub steps: u64,
    /// CPU time of the best run, in seconds.
    pub cpu_s: f64,
    /// Requests per second of CPU time.
    pub requests_per_cpu_s: f64,
    /// Facts per second of CPU time.
    pub facts_per_cpu_s: f64,
    /// The most memory that the process had in RAM, in bytes, if the system says.
    pub peak_bytes: Option<u64>,
    /// Runs of which the best counts.
    pub runs: u32,
    /// Digest of the run: equal work, equal digest.
    pub digest: String,
}

/// Repeats a shape until so much CPU time is spent, in ns: short runs are timed coarsely otherwise.
const SPEND: u64 = 500_000_000;
/// But not more often.
const MOST_RUNS: u32 = 50;

/// A shape whose input is read: what is timed comes after this.
#[derive(Debug)]
pub struct Prepared {
    work: Ready,
    source: String,
}

impl Prepared {
    /// Runs it once.
    ///
    /// # Errors
    /// If a law is broken.
    pub fn run(&self) -> Result<RunResult, String> {
        self.work.run()
    }
}

/// What a shape runs.
#[derive(Debug)]
enum Ready {
    Point(Box<RunPoint>),
    Played(Box<Scenario>, Arc<[Request]>),
}

impl Ready {
    fn run(&self) -> Result<RunResult, String> {
        match self {
            Self::Point(point) => run_point(point, &|_| ()),
            Self::Played(scenario, requests) => {
                let options = RunOptions {
                    keep_rows: false,
                    ..RunOptions::default()
                };
                let mut workload = Played::new(requests);
                run(scenario, &mut workload, scenario.run.seed, options)
            }
        }
        .map_err(|error| error.to_string())
    }
}

/// Runs a shape in this process. Memory is that of the whole process, so a process should run one shape.
///
/// # Errors
/// If files cannot be read, or a law is broken.
pub fn measure(shape: &Shape, effort: &Effort) -> Result<Measured, String> {
    let ready = prepare(shape, effort)?;
    let from_start = matches!(shape.work, Work::Library(_));
    let (mut best, mut spent, mut runs) = (u64::MAX, 0, 0);
    let mut result;
    loop {
        // The first run of the smoke scenario is paid from the start of the process.
        let before = if from_start { Some(0) } else { cost::cpu_ns() };
        let wall = std::time::Instant::now();
        result = ready.run()?;
        let took = match (before, cost::cpu_ns()) {
            (Some(before), Some(after)) => after - before,
            _ => wall.elapsed().as_nanos() as u64,
        };
        best = best.min(took);
        spent += took;
        runs += 1;
        if from_start || spent >= SPEND || runs >= MOST_RUNS || effort.quick && runs >= 5 {
            break;
        }
    }
    let requests: u64 = result.segments.iter().map(|s| s.all.sent).sum();
    let cpu_s = best as f64 / 1e9;
    Ok(Measured {
        shape: shape.name.into(),
        title: shape.title.into(),
        source: ready.source,
        requests,
        facts: result.facts,
        steps: result.segments.iter().map(|s| s.steps).sum(),
        cpu_s,
        requests_per_cpu_s: requests as f64 / cpu_s,
        facts_per_cpu_s: result.facts as f64 / cpu_s,
        peak_bytes: cost::peak_bytes(),
        runs,
        digest: result.digest,
    })
}

/// Reads and compiles what a shape needs.
///
/// # Errors
/// If files cannot be read.
pub fn prepare(shape: &Shape, effort: &Effort) -> Result<Prepared, String> {
    let own = shape.requests[usize::from(effort.quick)];
    let (work, source) = prepare::read(shape, effort.requests.unwrap_or(own), effort)?;
    Ok(Prepared { work, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shape runs, its work is what it says, and it is the same each time.
    #[test]
    fn shapes_run_small_and_repeat() {
        for shape in SHAPES.iter().filter(|shape| !shape.needs_files()) {
            let small = Effort {
                quick: true,
                requests: Some(60),
                ..Effort::default()
            };
            let first = measure(shape, &small).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
            let again = measure(shape, &small).unwrap_or_else(|e| panic!("{}: {e}", shape.name));
            assert_eq!((first.requests, first.facts), (again.requests, again.facts));
            assert_eq!(first.digest, again.digest, "{}", shape.name);
            assert_eq!(first.requests, 60, "{}", shape.name);
            assert!(first.facts >= 6 * first.requests, "{}", shape.name);
            assert!(first.cpu_s > 0.0 && first.requests_per_cpu_s.is_finite());
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = SHAPES.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SHAPES.len());
    }

    #[test]
    fn requests_of_a_file_are_read_and_bad_ones_refused() -> Result<(), Box<dyn std::error::Error>>
    {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("requests.csv");
        let columns = ["at", "in", "out"];
        std::fs::write(
            &path,
            "out,at,in,group,length\n5,1000,7,a,16\n1,2000,9,b,0\n",
        )?;
        let read = requests::read(&path, 1e3, columns, Some(["group", "length"]))?;
        assert_eq!(
            (read[0].at.as_nanos(), read[0].input, read[0].output),
            (1_000_000, 7, 5)
        );
        assert_eq!((read[0].prefix, read[1].prefix), (Some((0, 16)), None));
        // Again, as long after the last as that is after the start.
        let times = requests::repeated(&read, 3);
        let times: Vec<u64> = times.iter().map(|r| r.at.as_nanos()).collect();
        assert_eq!(times, [1_000_000, 2_000_000, 3_000_000]);
        for (bad, place) in [
            ("at,in\n1,2\n", "no column `out`"),
            ("at,in,out\n1,2,x\n", "line 2: `x`"),
            ("at,in,out\n2,2,2\n1,2,2\n", "line 3: earlier"),
        ] {
            std::fs::write(&path, bad)?;
            let error = requests::read(&path, 1e3, columns, None)
                .err()
                .unwrap_or_default();
            assert!(error.contains(place), "{error}");
        }
        Ok(())
    }
}
