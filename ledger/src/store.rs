//! The folder of a run: `result.json` (counters, distributions, books, decisions), `samples.csv`
//! and `requests.parquet` or `requests.csv`. Reports are made from it without running again.

use crate::export;
use crate::format::{FORMAT_VERSION, FormatError, Provenance, Requests, write_file};
use crate::result::{ReplicaSample, RunResult, Sample};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

/// How requests are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RowFormat {
    /// `requests.parquet`.
    #[default]
    Parquet,
    /// `requests.csv`.
    Csv,
}

const RESULT: &str = "result.json";
const SAMPLES: &str = "samples.csv";
const PARQUET: &str = "requests.parquet";
const CSV: &str = "requests.csv";

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    scenario_hash: &'a str,
    run: &'a RunResult,
}

#[derive(Deserialize)]
struct Stored {
    version: u32,
    scenario_hash: String,
    run: RunResult,
}

/// Writes a run into a folder, which is made if it is not there. `result.json` is written last: a
/// folder that has it is whole.
///
/// # Errors
/// Of the disk.
pub fn write(
    dir: &Path,
    run: &RunResult,
    scenario_hash: &str,
    rows: RowFormat,
) -> Result<(), FormatError> {
    let fail = |source| FormatError::File {
        path: dir.to_owned(),
        source,
    };
    fs::create_dir_all(dir).map_err(fail)?;
    // What an earlier run left must not be mistaken for this one's.
    for old in [RESULT, SAMPLES, PARQUET, CSV] {
        match fs::remove_file(dir.join(old)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
            _ => {}
        }
    }
    if !run.rows.is_empty() {
        let provenance = Provenance::of(run, scenario_hash);
        match rows {
            RowFormat::Parquet => write_file(&dir.join(PARQUET), |to| {
                export::parquet::write(&run.rows, &provenance, to)
            })?,
            RowFormat::Csv => write_file(&dir.join(CSV), |to| {
                export::csv::write(&run.rows, &provenance, to)
            })?,
        }
    }
    write_file(&dir.join(SAMPLES), |to| write_samples(&run.samples, to))?;
    write_file(&dir.join(RESULT), |to: &mut BufWriter<File>| {
        let version = FORMAT_VERSION;
        serde_json::to_writer(
            to,
            &Written {
                version,
                scenario_hash,
                run,
            },
        )?;
        Ok::<_, FormatError>(())
    })
}

/// Reads a run, and the hash of its scenario, from a folder.
///
/// # Errors
/// No such folder, another version, files that are damaged or of another run.
pub fn read(dir: &Path) -> Result<(RunResult, String), FormatError> {
    let path = dir.join(RESULT);
    let read: Stored = serde_json::from_reader(BufReader::new(open(&path)?))?;
    if read.version != FORMAT_VERSION {
        return Err(FormatError::Columns(format!(
            "{}: this is version {}, known is {FORMAT_VERSION}",
            path.display(),
            read.version
        )));
    }
    let mut run = read.run;
    run.samples = read_samples(BufReader::new(open(&dir.join(SAMPLES))?))?;
    let (parquet, csv) = (dir.join(PARQUET), dir.join(CSV));
    let requests = if parquet.exists() {
        export::parquet::read(open(&parquet)?)?
    } else if csv.exists() {
        export::csv::read(BufReader::new(open(&csv)?))?
    } else {
        Requests::default()
    };
    run.rows = requests.rows;
    Ok((run, read.scenario_hash))
}

fn open(path: &Path) -> Result<File, FormatError> {
    File::open(path).map_err(|source| FormatError::File {
        path: path.to_owned(),
        source,
    })
}

/// One line per sample and replica; what is not of one replica repeats.
#[derive(Serialize, Deserialize)]
struct SampleLine {
    version: u32,
    at_ns: u64,
    gateway_waiting_requests: u32,
    in_system_requests: u32,
    replica: Option<u32>,
    running_requests: u32,
    waiting_requests: u32,
    kv_held_blocks: u64,
    kv_cached_blocks: u64,
    kv_total_blocks: u64,
}

/// Writes samples as CSV.
///
/// # Errors
/// Of the writer.
pub fn write_samples(samples: &[Sample], to: impl Write) -> Result<(), FormatError> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(to);
    csv.write_record([
        "version",
        "at_ns",
        "gateway_waiting_requests",
        "in_system_requests",
        "replica",
        "running_requests",
        "waiting_requests",
        "kv_held_blocks",
        "kv_cached_blocks",
        "kv_total_blocks",
    ])?;
    for sample in samples {
        let mut line = |replica: Option<u32>, r: ReplicaSample| {
            csv.serialize(SampleLine {
                version: FORMAT_VERSION,
                at_ns: sample.at_ns,
                gateway_waiting_requests: sample.gateway_waiting,
                in_system_requests: sample.in_system,
                replica,
                running_requests: r.running,
                waiting_requests: r.waiting,
                kv_held_blocks: r.kv_held,
                kv_cached_blocks: r.kv_cached,
                kv_total_blocks: r.kv_total,
            })
        };
        if sample.replicas.is_empty() {
            line(None, ReplicaSample::default())?;
        }
        for (i, &replica) in sample.replicas.iter().enumerate() {
            line(Some(i as u32), replica)?;
        }
    }
    csv.flush()?;
    Ok(())
}

/// Reads what [`write_samples`] wrote.
///
/// # Errors
/// Of the reader; lines that are none.
pub fn read_samples(from: impl Read) -> Result<Vec<Sample>, FormatError> {
    let mut samples: Vec<Sample> = Vec::new();
    for line in csv::Reader::from_reader(from).deserialize() {
        let line: SampleLine = line?;
        if line.version != FORMAT_VERSION {
            return Err(FormatError::Columns(format!(
                "samples of version {}, known is {FORMAT_VERSION}",
                line.version
            )));
        }
        // A sample begins where replicas begin anew.
        if line.replica.unwrap_or(0) == 0 {
            samples.push(Sample {
                at_ns: line.at_ns,
                gateway_waiting: line.gateway_waiting_requests,
                in_system: line.in_system_requests,
                replicas: Vec::new(),
            });
        }
        if let (Some(sample), Some(_)) = (samples.last_mut(), line.replica) {
            sample.replicas.push(ReplicaSample {
                running: line.running_requests,
                waiting: line.waiting_requests,
                kv_held: line.kv_held_blocks,
                kv_cached: line.kv_cached_blocks,
                kv_total: line.kv_total_blocks,
            });
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::decision::{Candidate, Decision};
    use crate::entry::{Entry, Fact};
    use crate::export::testing::any_requests;
    use crate::result::Collector;
    use proptest::prelude::*;
    use windtunnel_base::ids::{ClassId, RequestId};
    use windtunnel_base::time::{SimDuration, SimTime};

    /// A run with something of everything; `rows` are kept as they are.
    fn run(requests: Requests) -> RunResult {
        let mut collector = Collector::new(2, SimDuration::from_secs(1), true);
        let at = SimTime::from_nanos(1_500_000_000);
        collector.gap(at, ClassId(1), SimDuration::from_micros(12_345), 7);
        let segment = collector.segment(at);
        segment.books.money.post(Account::Source, Account::Idle, 5);
        segment.steps = 9;
        let (segments, segment_ns, _) = collector.finish();
        let replica = ReplicaSample {
            running: 3,
            waiting: 1,
            kv_held: 10,
            kv_cached: 20,
            kv_total: u64::MAX,
        };
        RunResult {
            seed: u64::MAX,
            digest: "d1".into(),
            end_ns: 2_000_000_000,
            class_names: requests.provenance.class_names,
            tenant_names: requests.provenance.tenant_names,
            segment_ns,
            segments,
            fixed_warm_up_ns: Some(3),
            samples: (0..3)
                .map(|i| Sample {
                    at_ns: i * 500,
                    gateway_waiting: 1,
                    in_system: 4,
                    replicas: vec![replica; 2],
                })
                .collect(),
            rows: requests.rows,
            decisions: vec![Decision {
                at_ns: 4,
                request: 1,
                replica: Some(0),
                refused: None,
                candidates: vec![Candidate {
                    replica: 0,
                    score: Some(0.1 + 0.2),
                    in_flight: 1,
                    running: 2,
                    waiting: 3,
                    telemetry_age_ns: Some(4),
                }],
            }],
            watched: vec![Entry {
                at: SimTime::from_nanos(9),
                request: RequestId(1),
                fact: Fact::Started { cached_tokens: 3 },
            }],
            events: 77,
            ..RunResult::default()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Nothing is lost on the way through a folder, in either format.
        #[test]
        fn a_folder_gives_back_the_run(requests in any_requests()) {
            let run = run(requests);
            for format in [RowFormat::Parquet, RowFormat::Csv] {
                let dir = tempfile::tempdir().unwrap();
                write(dir.path(), &run, "3f9a", format).unwrap();
                let (read, hash) = read(dir.path()).unwrap();
                prop_assert_eq!(hash, "3f9a");
                prop_assert_eq!(&read, &run);
            }
        }
    }

    #[test]
    fn the_other_formats_rows_do_not_survive() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = run(Requests::default());
        run.rows.push(crate::format::BLANK);
        write(dir.path(), &run, "a", RowFormat::Parquet).unwrap();
        run.rows.clear();
        write(dir.path(), &run, "a", RowFormat::Csv).unwrap();
        assert!(read(dir.path()).unwrap().0.rows.is_empty());
    }

    #[test]
    fn without_replicas_a_sample_is_one_line() {
        let samples = vec![Sample::default(), Sample::default()];
        let mut file = Vec::new();
        write_samples(&samples, &mut file).unwrap();
        assert_eq!(read_samples(file.as_slice()).unwrap(), samples);
    }
}
