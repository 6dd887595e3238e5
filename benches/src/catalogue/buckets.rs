//! Static batches of similar lengths, F12.

use super::lab::{Lab, Runs};
use super::theory;
use super::{Case, CaseError, Check, Param, Point, Sampled};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[Case {
    id: "F12",
    title: "static batches of similar lengths: gain in throughput, and what continuous batching adds",
    source: "mean of the largest of B exponentials within a bucket",
    params: &[
        Param {
            name: "batch",
            default: "8",
            doc: "requests per batch",
        },
        Param {
            name: "buckets",
            default: "4",
            doc: "buckets, each with as many requests as any other",
        },
    ],
    points: &[
        &[("batch", "4"), ("buckets", "4")],
        &[("batch", "8"), ("buckets", "4")],
        &[("batch", "32"), ("buckets", "4")],
        &[("batch", "64"), ("buckets", "4")],
        &[("batch", "32"), ("buckets", "16")],
    ],
    run: similar_lengths,
}];

/// Mean tokens of what varies.
const MEAN: f64 = 1_000.0;

/// Exponential lengths.
const VARIED: &str = r#"{ kind = "exponential", mean = 1000.0 }"#;
/// Lengths that do not vary.
const ONE: &str = r#"{ kind = "fixed", tokens = 1 }"#;

/// A saturated engine, with lengths that are known beforehand.
struct World {
    /// What the scheduler does, beside its limits.
    scheduler: String,
    cost: &'static str,
    input: &'static str,
    output: &'static str,
}

/// Steps that all take the same, for answers that vary.
fn answers(scheduler: String) -> World {
    World {
        scheduler,
        cost: r#"base = "1ms""#,
        input: ONE,
        output: VARIED,
    }
}

/// Steps that take their time for prompts, which vary.
fn prompts(scheduler: String) -> World {
    World {
        scheduler: format!("{scheduler}, padded_prompts = true"),
        cost: r#"base = "1ns", per_prefill_token = "1us""#,
        input: VARIED,
        output: ONE,
    }
}

impl World {
    fn runs(&self, point: &Point<'_>, batch: u64) -> Result<Runs, CaseError> {
        let Self {
            scheduler,
            cost,
            input,
            output,
        } = self;
        // What the last batches of the buckets lack is below a percent with so many rounds.
        let requests = batch * point.length(2_000.0);
        let text = format!(
            r#"
            version = 1
            fleet.replicas = 1
            gateway.routing.kind = "round_robin"
            [fleet.engine]
            kind = "continuous"
            scheduler = {{ max_num_seqs = {batch}, token_budget = 1000000, {scheduler} }}
            kv = {{ blocks = 100000000, prefix_cache = false, watermark = 0.0 }}
            cost = {{ kind = "linear", {cost} }}
            [traffic]
            request_rate = "inf"
            num_prompts = {requests}
            input = {input}
            output = {output}
            predictor = {{ error = 0.0 }}
            "#
        );
        Lab::whole(&text, point)?.run()
    }
}

/// The scheduler of static batches, in buckets by some length.
fn in_buckets(by: &str, buckets: u64) -> String {
    let bound = |i: u64| -MEAN * (-(i as f64) / buckets as f64).ln_1p();
    let bounds: Vec<_> = (1..buckets).map(|i| bound(i).round() as u64).collect();
    format!(r#"kind = "static", length_buckets = {{ by = "{by}", bounds = {bounds:?} }}"#)
}

/// How many times longer one takes than the other, request by request the same.
fn gain(slow: &Runs, fast: &Runs) -> Sampled {
    let time = |runs: &Runs| runs.values(|run| run.end_ns() as f64);
    let pairs = time(slow).into_iter().zip(time(fast));
    Sampled::of(&pairs.map(|(slow, fast)| slow / fast).collect::<Vec<_>>())
}

fn padding(runs: &Runs) -> Sampled {
    runs.each(|run| run.books().batch_padding as f64 / run.books().batch_room as f64)
}

fn similar_lengths(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let batch = point.count("batch", 1..=512)?;
    let buckets = point.count("buckets", 2..=64)?;
    let largest = theory::harmonic(batch as u32);
    let similar = theory::largest_in_bucket(batch as u32, buckets as u32);
    let plain = || r#"kind = "static""#.to_owned();
    let any = answers(plain()).runs(point, batch)?;
    let alike = answers(in_buckets("output", buckets)).runs(point, batch)?;
    let rolling = answers(r#"kind = "chunked""#.to_owned()).runs(point, batch)?;
    let by_prompt = answers(in_buckets("prompt", buckets)).runs(point, batch)?;
    let long_prompts = prompts(plain()).runs(point, batch)?;
    let alike_prompts = prompts(in_buckets("prompt", buckets)).runs(point, batch)?;
    Ok(vec![
        Check::sampled(
            "gain of buckets, answers of known length",
            largest / similar,
            &gain(&any, &alike),
            0.02,
        ),
        Check::sampled(
            "gain of continuous batching beyond that, of lengths nobody knows",
            similar,
            &gain(&alike, &rolling),
            0.02,
        ),
        Check::sampled_within(
            "padding without buckets",
            1.0 - 1.0 / largest,
            &padding(&any),
            0.005,
        ),
        Check::sampled_within(
            "padding with buckets",
            1.0 - 1.0 / similar,
            &padding(&alike),
            0.005,
        ),
        Check::exact(
            "gain of buckets by prompts, all of one length",
            1.0,
            gain(&any, &by_prompt).mean,
        ),
        Check::sampled(
            "gain of buckets, padded prompts and no answers",
            largest / similar,
            &gain(&long_prompts, &alike_prompts),
            0.02,
        ),
    ])
}
