//! Quantised variants of one model as tiers: what they save, and what they spoil: I26.

use super::lab::Lab;
use super::{Case, CaseError, Check, Param, Point, Sampled};
use windtunnel_engine::hardware;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[Case {
    id: "I26",
    title: "quantised variants of a model at the edge (bf16, fp8, int4): time, cost, quality",
    source: "overhead + (bytes of weights and context) / bandwidth; no tier is worse in all",
    params: &[
        Param {
            name: "fp8_error",
            default: "0.025",
            doc: "share of bad answers in fp8; in bf16 it is 0.02",
        },
        Param {
            name: "int4_error",
            default: "0.06",
            doc: "share of bad answers in int4",
        },
    ],
    points: &[&[("int4_error", "0.06")]],
    run: tiers,
}];

const GPU: &str = "l4";
/// Tokens of every prompt and answer.
const PROMPT: f64 = 16.0;
const OUTPUT: f64 = 65.0;
/// Of the roofline: what steps take beside bytes, in seconds, and the share of the bandwidth that is reached.
const OVERHEAD: f64 = 0.5e-3;
const EFFICIENCY: f64 = 0.8;

/// One request after the other on one GPU.
fn world(model: &str, error: f64) -> String {
    format!(
        "[run]\nwarm_up = \"0s\"\n\
         [fleet]\nerror_rate = {error:?}\n\
         [fleet.engine]\nkind = \"continuous\"\ngpu = \"{GPU}\"\nmodel = \"{model}\"\n\
         max_model_len = 4096\n\
         cost = {{ kind = \"roofline\", overhead = \"{}ms\", bandwidth_efficiency = {EFFICIENCY} }}\n\
         [verification]\nsensitivity = 1.0\nspecificity = 1.0\nprice = \"$0\"\nlatency = \"0s\"\n\
         [traffic]\nmax_concurrency = 1\n\
         input = {{ kind = \"fixed\", tokens = {PROMPT} }}\n\
         output = {{ kind = \"fixed\", tokens = {OUTPUT} }}\n",
        OVERHEAD * 1e3
    )
}

/// Seconds per token of a lone request, by hand: the bytes of weights and context that a step has to read.
fn by_hand(model: &str) -> Option<f64> {
    let (gpu, model) = (hardware::find_gpu(GPU)?, hardware::find_model(model)?);
    let weights = model.layer_parameters() as f64 * model.bytes_per_weight
        + 2.0 * model.head_parameters() as f64;
    // Decode steps read the prompt and, on average, half of the answer.
    let context = PROMPT + OUTPUT / 2.0;
    let bytes = weights + context * model.kv_bytes_per_token(2.0);
    Some(OVERHEAD + bytes / (gpu.bandwidth * EFFICIENCY))
}

fn tiers(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let fp8_error = point.number("fp8_error", 0.0..=1.0)?;
    let int4_error = point.number("int4_error", 0.0..=1.0)?;
    let mut checks = Vec::new();
    let mut before: Option<(Sampled, f64)> = None;
    for (model, error) in [
        ("llama-3.1-8b", 0.02),
        ("llama-3.1-8b-fp8", fp8_error),
        ("llama-3.1-8b-int4", int4_error),
    ] {
        let runs = Lab::settled(&world(model, error), point, 200_000.0, 0.0)?.run()?;
        let tpot = runs.each(|run| run.mean_seconds(|p| &p.tpot));
        let bad = runs.each(|run| 1.0 - run.population().good as f64 / run.sent() as f64);
        let cost = runs.each(|run| {
            let dollars = run.books().money.total() as f64 / 1e9;
            dollars / run.population().verified_useful as f64
        });
        let expected = by_hand(model).unwrap_or(f64::NAN);
        checks.push(Check::sampled(
            format!("{model}: seconds per token"),
            expected,
            &tpot,
            0.005,
        ));
        let name = format!("{model}: share of bad answers");
        checks.push(Check::sampled(name, error, &bad, 0.01));
        if let Some((dearer, better)) = before {
            let name = format!("{model}: dollars per verified answer, less than the one before");
            checks.push(Check::at_most(name, dearer.mean, cost.mean));
            let name = format!("{model}: and more bad answers");
            checks.push(Check::at_least(name, better, bad.mean));
        }
        before = Some((cost, bad.mean));
    }
    Ok(checks)
}
