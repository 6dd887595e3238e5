//! Cost models from measured folders, against what other programs made of the same folders. The
//! folders lie outside of the repository; without them these tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{CoefficientsSpec, ContinuousSpec, CostSpec};
use windtunnel_engine::cost::coefficients::{CoefficientSettings, Coefficients};
use windtunnel_engine::cost::interconnect::AllReduce;
use windtunnel_engine::cost::operators::{Composition, Operators};
use windtunnel_scenarios::profile;

/// The folder of measured systems, if it is here.
fn shared(part: &str) -> Option<PathBuf> {
    let root = std::env::var_os("WINDTUNNEL_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let folder = root.join("fidelity").join(part);
    if !folder.is_dir() {
        #[allow(clippy::print_stderr, reason = "says why nothing was tested")]
        {
            eprintln!("skipped: {} is not there", folder.display());
        }
        return None;
    }
    Some(folder)
}

fn text(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    if path.extension().is_some_and(|e| e == "gz") {
        let mut reader = flate2::read::MultiGzDecoder::new(&bytes[..]);
        reader.read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text
}

/// Rows below the header, as numbers.
fn rows(path: &Path) -> Vec<Vec<f64>> {
    let number = |field: &str| field.parse().unwrap_or(f64::NAN);
    let row = |line: &str| line.split(',').map(number).collect();
    text(path).lines().skip(1).map(row).collect()
}

fn operators(folder: &Path, layers: u32) -> Operators {
    let read = profile::operators(folder, None, 1).unwrap_or_else(|e| panic!("{e}"));
    let composition = Composition {
        layers,
        tensor_parallel: 1,
        grouped_query: false,
        all_reduce: AllReduce::default(),
        overhead: 0.0,
        calls: &std::collections::BTreeMap::new(),
    };
    Operators::new(&read.tables, &composition).unwrap_or_else(|e| panic!("{e}"))
}

/// A request of a small stand-in for a scheduler.
#[derive(Clone, Debug)]
struct Request {
    at: f64,
    prompt: u32,
    output: u32,
    /// Tokens in KV.
    computed: u32,
}

impl Request {
    fn prefilling(&self) -> bool {
        self.computed < self.prompt
    }

    /// It has emitted everything.
    fn done(&self) -> bool {
        self.computed + 1 == self.prompt + self.output
    }
}

/// The step in which request `i` computes `tokens` for every `(i, tokens)`.
fn shape(requests: &[Request], batch: &[(usize, u32)], context_step: u64) -> BatchShape {
    let mut shape = BatchShape::default();
    for &(i, tokens) in batch {
        let r = &requests[i];
        let (t, c) = (u64::from(tokens), u64::from(r.computed));
        if r.prefilling() {
            shape.prefill_seqs += 1;
            shape.prefill_tokens += t;
            shape.prefill_context += c;
            shape.prefill_context_rounded += c.next_multiple_of(context_step);
            shape.prefill_squares += t * t;
            shape.prefill_prompt_products += t * u64::from(r.prompt);
            if t == 1 {
                shape.single_prefills += 1;
                shape.single_context += c;
            }
        } else {
            shape.decode_seqs += 1;
            shape.decode_context += c;
        }
    }
    shape
}

/// Chunked prefill with decodes first, as Sarathi does it while memory is no concern.
fn sarathi(
    requests: &[Request],
    running: &[usize],
    waiting: &mut usize,
    now: f64,
) -> Vec<(usize, u32)> {
    const CHUNK: u32 = 512;
    let mut batch: Vec<(usize, u32)> = Vec::new();
    batch.extend(
        running
            .iter()
            .filter(|&&i| !requests[i].prefilling())
            .map(|&i| (i, 1)),
    );
    let mut tokens = batch.len() as u32;
    for &i in running.iter().filter(|&&i| requests[i].prefilling()) {
        let r = &requests[i];
        let chunk = (r.prompt - r.computed).min(CHUNK.saturating_sub(tokens));
        if chunk > 0 {
            batch.push((i, chunk));
            tokens += chunk;
        }
    }
    while *waiting < requests.len() && requests[*waiting].at <= now && running.len() < 128 {
        let chunk = requests[*waiting].prompt.min(CHUNK.saturating_sub(tokens));
        if chunk == 0 || batch.len() >= 128 {
            break;
        }
        batch.push((*waiting, chunk));
        tokens += chunk;
        *waiting += 1;
    }
    batch
}

#[test]
fn lookup_tables_take_every_iteration_of_vidur_to_the_last_bit() {
    let Some(folder) = shared("vidur") else {
        return;
    };
    let model = operators(&folder.join("tables"), 32);
    let step = u64::from(model.context_step());
    assert_eq!(step, 64);
    let run = folder.join("runs/s1_500");
    let mut requests: Vec<Request> = rows(&run.join("arrivals.csv"))
        .iter()
        .map(|r| Request {
            at: r[1],
            prompt: r[2] as u32,
            output: r[3] as u32,
            computed: 0,
        })
        .collect();
    let (mut running, mut waiting, mut now) = (Vec::new(), 0, 0.0);
    for (n, batch_row) in rows(&run.join("batches.csv.gz")).iter().enumerate() {
        if running.is_empty() {
            now = requests[waiting].at;
        }
        let batch = sarathi(&requests, &running, &mut waiting, now);
        let shape = shape(&requests, &batch, step);
        assert_eq!(
            u64::from(shape.seqs()),
            batch_row[4] as u64,
            "iteration {n}"
        );
        assert_eq!(shape.tokens(), batch_row[5] as u64, "iteration {n}");
        let (seconds, extrapolated) = model.seconds(&shape);
        assert!(!extrapolated, "iteration {n}: {shape:?}");
        assert_eq!(now.to_bits(), batch_row[2].to_bits(), "iteration {n}");
        now += seconds;
        assert_eq!(
            now.to_bits(),
            batch_row[3].to_bits(),
            "iteration {n}: {shape:?}"
        );
        for &(i, tokens) in &batch {
            requests[i].computed += tokens;
        }
        let mut all: Vec<usize> = running
            .iter()
            .copied()
            .chain(batch.iter().map(|b| b.0))
            .collect();
        all.sort_unstable();
        all.dedup();
        running = all;
        running.retain(|&i| !requests[i].done());
    }
}

fn blis(folder: &Path) -> (Coefficients, [f64; 3]) {
    let mut spec = ContinuousSpec {
        cost: CostSpec::Coefficients(Box::new(CoefficientsSpec {
            file: Some("coefficients.json".into()),
            hardware: Some("H100".into()),
            model_config: Some("qwen3-14b.config.json".into()),
            ..CoefficientsSpec::default()
        })),
        ..ContinuousSpec::default()
    };
    let dir = folder.join("config");
    profile::resolve(&mut spec, Some(&dir)).unwrap_or_else(|e| panic!("{e}"));
    let CostSpec::Coefficients(fit) = &spec.cost else {
        panic!("another cost model");
    };
    let settings = CoefficientSettings {
        beta: fit.beta.unwrap(),
        architecture: fit.architecture.unwrap(),
        tflops: fit.tflops.unwrap(),
        tflops_fp8: fit.tflops_fp8,
        hbm_tbps: fit.hbm_tbps.unwrap(),
        tensor_parallel: 1,
    };
    (Coefficients::new(&settings), fit.alpha_us.unwrap())
}

/// One replica of BLIS, by the rules of its README; gives first tokens and ends by request, in
/// microseconds.
fn replay(model: &Coefficients, alpha: [f64; 3], requests: &mut [Request]) -> Vec<(u64, u64)> {
    let per_token = alpha[2] as u64;
    let ready: Vec<u64> = requests
        .iter()
        .map(|r| r.at as u64 + alpha[0] as u64)
        .collect();
    let mut result = vec![(0, 0); requests.len()];
    let mut gaps = vec![0; requests.len()];
    let (mut running, mut waiting, mut now) = (Vec::<usize>::new(), 0, 0);
    while waiting < requests.len() || !running.is_empty() {
        if running.is_empty() {
            now = ready[waiting].max(now);
        }
        let (mut budget, mut batch) = (2048, Vec::new());
        for &i in &running {
            let r = &requests[i];
            let tokens = if r.prefilling() {
                (r.prompt - r.computed).min(budget)
            } else {
                1
            };
            batch.push((i, tokens));
            budget -= tokens;
        }
        while waiting < requests.len() && ready[waiting] <= now && budget > 0 && running.len() < 256
        {
            let tokens = requests[waiting].prompt.min(budget);
            batch.push((waiting, tokens));
            running.push(waiting);
            budget -= tokens;
            waiting += 1;
        }
        let micros = model.micros(&shape(requests, &batch, 1));
        now += micros;
        for (i, tokens) in batch {
            let prefilled = requests[i].prefilling();
            requests[i].computed += tokens;
            if requests[i].prefilling() {
                continue;
            }
            if prefilled {
                result[i].0 = now + per_token - requests[i].at as u64;
            } else {
                gaps[i] += micros + per_token;
            }
            if requests[i].done() {
                result[i].1 = result[i].0 + gaps[i] + alpha[1] as u64;
                running.retain(|&r| r != i);
            }
        }
    }
    result
}

#[test]
fn coefficients_take_every_request_of_blis_to_the_microsecond() {
    let Some(folder) = shared("blis") else { return };
    let (model, alpha) = blis(&folder);
    let trace = folder.join("traces/w1_single_n1000.csv");
    let header = text(&trace);
    let columns: Vec<&str> = header.lines().next().unwrap().split(',').collect();
    let column = |name: &str| columns.iter().position(|c| *c == name).unwrap();
    let (input, output, at) = (
        column("input_tokens"),
        column("output_tokens"),
        column("arrival_time_us"),
    );
    let mut requests: Vec<Request> = rows(&trace)
        .iter()
        .map(|r| Request {
            at: r[at],
            prompt: r[input] as u32,
            output: r[output] as u32,
            computed: 0,
        })
        .collect();
    let simulated = replay(&model, alpha, &mut requests);
    let results = folder.join("results/w1_single_n1000.requests.csv.gz");
    let header = text(&results);
    let columns: Vec<&str> = header.lines().next().unwrap().split(',').collect();
    let column = |name: &str| columns.iter().position(|c| c.contains(name)).unwrap();
    let (ttft, e2e) = (column("ttft"), column("e2e"));
    for (n, (row, (first, end))) in std::iter::zip(rows(&results), simulated).enumerate() {
        assert_eq!(
            (row[ttft] * 1e3).round() as u64,
            first,
            "first token of {n}"
        );
        assert_eq!((row[e2e] * 1e3).round() as u64, end, "end of {n}");
    }
}

#[test]
fn interpolated_medians_come_close_to_forests() {
    let Some(folder) = shared("vidur") else {
        return;
    };
    let [forests, medians] = ["tables", "profile"].map(|f| operators(&folder.join(f), 32));
    let (mut sums, mut distance) = ([0.0; 2], 0.0);
    for row in rows(&folder.join("runs/s1_500/batches.csv.gz")) {
        // Batches of the recorded sizes, decodes with 1,024 in KV each.
        let prefill = row[6] as u64;
        let decodes = (row[5] - row[6]) as u32;
        let shape = BatchShape {
            prefill_seqs: u32::from(prefill > 0),
            prefill_tokens: prefill,
            prefill_squares: prefill * prefill,
            decode_seqs: decodes,
            decode_context: u64::from(decodes) * 1023,
            ..BatchShape::default()
        };
        let (a, b) = (forests.seconds(&shape).0, medians.seconds(&shape).0);
        sums = [sums[0] + a, sums[1] + b];
        distance += (a - b).abs();
    }
    // Forests of two grids differ by up to 0.6 % of each other on average. Single steps differ more:
    // a forest misses what writing keys and values was measured to take by a quarter.
    assert!((sums[1] / sums[0] - 1.0).abs() < 0.006, "{sums:?}");
    assert!(distance / sums[0] < 0.01, "{distance} of {sums:?}");
}
