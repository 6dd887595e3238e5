//! Engine presets against recorded runs of Vidur, iteration by iteration: who computes how much,
//! from when to when, and what is in memory after it. The runs lie outside of the repository;
//! without them these tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::MicroJoules;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{CostSpec, EnginePreset, EngineSpec, OperatorsSpec};
use windtunnel_engine::engine::{Engine as _, EngineOutcome, Outcome, StepObserver};
use windtunnel_engine::replica::Replica;
use windtunnel_engine::request::{RequestView, Submission, Truth};
use windtunnel_scenarios::{presets, profile};

/// The runs, if they are here.
fn folder() -> Option<PathBuf> {
    let root = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let folder = root.join("fidelity/vidur");
    if folder.is_dir() {
        return Some(folder);
    }
    #[allow(clippy::print_stderr, reason = "says why nothing was tested")]
    {
        eprintln!("skipped: {} is not there", folder.display());
    }
    None
}

/// Rows below the header, as numbers.
fn rows(path: &Path) -> Vec<Vec<f64>> {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    if path.extension().is_some_and(|e| e == "gz") {
        let mut reader = flate2::read::MultiGzDecoder::new(&bytes[..]);
        reader.read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    let row = |line: &str| line.split(',').map(|f| f.parse().unwrap()).collect();
    text.lines().skip(1).map(row).collect()
}

/// One iteration: start and end in seconds, requests, tokens, prompt tokens.
type Iteration = (f64, f64, u32, u64, u64);

#[derive(Default)]
struct Iterations(Vec<Iteration>);

impl StepObserver for Iterations {
    fn token_gap(&mut self, _: SimTime, _: ClassId, _: SimDuration, _: u64) {}

    fn step(&mut self, from: SimTime, to: SimTime, s: &BatchShape, _: MicroJoules, _: bool) {
        let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
        self.0
            .push((from, to, s.seqs(), s.tokens(), s.prefill_tokens));
    }
}

/// What a replica made of its requests.
#[derive(Default)]
struct Served {
    iterations: Iterations,
    /// Blocks held after each event, by its time.
    held: Vec<(SimTime, u64)>,
    first: Vec<(u32, SimTime)>,
    last: Vec<(u32, SimTime)>,
    restarts: u32,
}

/// A request: when it comes, its prompt, its output.
type Arrival = (u32, SimTime, u32, u32);

fn serve(mut replica: Replica, arrivals: &[Arrival]) -> Served {
    let mut served = Served::default();
    let mut arrivals = arrivals.iter().peekable();
    let mut outcomes = Vec::new();
    let mut next: Option<SimTime> = None;
    loop {
        let at = arrivals.peek().map(|a| a.1);
        let now = match (at, next) {
            (Some(a), Some(n)) => a.min(n),
            (Some(a), None) => a,
            (None, Some(n)) => n,
            (None, None) => return served,
        };
        if next == Some(now) {
            replica.advance(now, &mut outcomes, &mut served.iterations);
            served.held.push((now, replica.stats(now).kv_held));
        }
        while let Some(&(id, _, prompt, output)) = arrivals.next_if(|a| a.1 == now) {
            let submission = submission(id, now, prompt, output);
            let taken = replica.submit(now, &submission, &mut served.iterations);
            assert!(taken.is_ok(), "{id} refused: {taken:?}");
        }
        next = replica.next_event(now, &mut outcomes);
        for EngineOutcome { request, outcome } in outcomes.drain(..) {
            match outcome {
                Outcome::FirstToken => served.first.push((request.0, now)),
                Outcome::Answered { .. } => {}
                Outcome::Finished => served.last.push((request.0, now)),
                Outcome::Preempted { .. } => served.restarts += 1,
                Outcome::Started { .. } | Outcome::Cancelled { .. } => {}
            }
        }
    }
}

fn submission(id: u32, now: SimTime, prompt: u32, output: u32) -> Submission<'static> {
    Submission {
        request: RequestView {
            id: RequestId(id),
            sent_at: now,
            deadline: None,
            prompt_tokens: prompt,
            max_output_tokens: Some(output),
            predicted_output_tokens: None,
            tenant: TenantId(0),
            class: ClassId(0),
            priority: 0,
            session: 0,
            prefix: &[],
        },
        truth: Truth {
            output_tokens: output,
            service: SimDuration::ZERO,
            good: true,
            attack: false,
            output_continues: false,
            task: None,
        },
    }
}

/// Runs a recorded run again and compares all that was recorded. An arrival is known to the
/// nanosecond here, so a time may be off by one, and by one more as it is rounded up.
fn reproduces(run: &str, preset: EnginePreset, replicas: usize, blocks: u64) {
    const ROUNDING: f64 = 2.1e-9;
    let Some(folder) = folder() else { return };
    let mut spec = presets::engine(preset);
    spec.model = "llama-2-7b".into();
    spec.max_model_len = Some(4096);
    spec.kv.blocks = Some(blocks);
    // Every iteration shows what is held after it.
    spec.fast_forward = false;
    spec.cost = CostSpec::Operators(Box::new(OperatorsSpec {
        folder: folder.join("tables").display().to_string(),
        overhead: Default::default(),
        link: None,
        calls: Default::default(),
        model_config: None,
        digest: None,
        tables: Default::default(),
    }));
    profile::resolve(&mut spec, None).unwrap_or_else(|e| panic!("{e}"));
    let spec = EngineSpec::Continuous(Box::new(spec));
    let run = folder.join("runs").join(run);
    let nanos = |seconds: f64| SimTime::from_nanos((seconds * 1e9).round() as u64);
    let arrivals: Vec<Arrival> = rows(&run.join("arrivals.csv"))
        .iter()
        .map(|r| (r[0] as u32, nanos(r[1]), r[2] as u32, r[3] as u32))
        .collect();
    let batches = rows(&run.join("batches.csv.gz"));
    let requests = rows(&run.join("requests.csv"));
    let (mut iterations, mut restarts) = (0, 0);
    for replica in 0..replicas {
        let mine: Vec<Arrival> = arrivals
            .iter()
            .skip(replica)
            .step_by(replicas)
            .copied()
            .collect();
        let served = serve(
            Replica::build(&spec).unwrap_or_else(|e| panic!("{e}")),
            &mine,
        );
        let theirs: Vec<_> = batches.iter().filter(|b| b[1] == replica as f64).collect();
        for (n, (b, i)) in theirs.iter().zip(&served.iterations.0).enumerate() {
            let (ours, recorded) = ((i.2, i.3, i.4), (b[4] as u32, b[5] as u64, b[6] as u64));
            assert_eq!(ours, recorded, "replica {replica}, iteration {n}");
            assert!(
                (i.0 - b[2]).abs() < ROUNDING,
                "start of {n}: {} for {}",
                i.0,
                b[2]
            );
            assert!(
                (i.1 - b[3]).abs() < ROUNDING,
                "end of {n}: {} for {}",
                i.1,
                b[3]
            );
            assert_eq!(served.held[n].1, b[7] as u64, "blocks after {n}");
        }
        assert_eq!(theirs.len(), served.iterations.0.len());
        for (what, column) in [(&served.first, 6), (&served.last, 7)] {
            for &(id, at) in what {
                let recorded = requests[id as usize][column];
                assert!(
                    (at.as_secs_f64() - recorded).abs() < ROUNDING,
                    "request {id}"
                );
            }
            assert_eq!(what.len(), mine.len());
        }
        iterations += served.iterations.0.len();
        restarts += served.restarts;
    }
    assert_eq!(iterations, batches.len());
    let recorded: f64 = requests.iter().map(|r| r[8]).sum();
    assert_eq!(f64::from(restarts), recorded);
}

#[test]
fn sarathi_takes_every_iteration_of_vidur() {
    reproduces("s1_500", EnginePreset::Sarathi, 1, 7424);
    reproduces("s1_2000", EnginePreset::Sarathi, 1, 7424);
}

#[test]
fn sarathi_preempts_and_restarts_as_vidur_does() {
    reproduces("s5_2000", EnginePreset::Sarathi, 1, 1500);
}

#[test]
fn vllm_v0_takes_every_iteration_of_vidur() {
    reproduces("s3_2000", EnginePreset::VllmV0, 4, 7424);
}
