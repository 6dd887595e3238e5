//! Answers to similar questions: one threshold for all, or a rule that each stored answer learns.

use super::answers::{AT_ONCE, totals, world};
use super::lab::{Lab, Run};
use super::{Case, CaseError, Check, Param, Point};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-K3",
        title: "semantic lookup with one threshold: hits, and wrong ones among them",
        source: "mixture of two normal distributions",
        params: &[Param {
            name: "threshold",
            default: "0.8",
            doc: "least similarity",
        }],
        points: &[
            &[("threshold", "0.75")],
            &[("threshold", "0.8")],
            &[("threshold", "0.85")],
            &[("threshold", "0.9")],
            &[("threshold", "0.95")],
        ],
        run: threshold,
    },
    Case {
        id: "V-K4",
        title: "semantic lookup where each answer learns its own rule: wrong answers",
        source: "the guarantee of vCache, Schroeder et al. 2026",
        params: &[Param {
            name: "max_error",
            default: "0.05",
            doc: "share of wrong answers that is allowed",
        }],
        points: &[
            &[("max_error", "0.02")],
            &[("max_error", "0.05")],
            &[("max_error", "0.1")],
        ],
        run: learned,
    },
];

/// Probability that a normal variate is at least `x`.
fn tail(x: f64, mean: f64, sigma: f64) -> f64 {
    0.5 * statrs::function::erf::erfc((x - mean) / (sigma * std::f64::consts::SQRT_2))
}

/// Rephrased questions that no exact key finds.
const REPHRASED: &str = "phrasings = 1_000_000_000";

fn threshold(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let least = point.number("threshold", 0.0..=1.5)?;
    // Two questions, equally likely, and room for one: the nearest means the same every other time.
    let text = world(
        1_000.0,
        AT_ONCE,
        &format!("distinct = 2, {REPHRASED}"),
        &format!(
            "[gateway.answers]\ncapacity = 1\n\
             semantic = {{ rule = {{ kind = \"threshold\", at_least = {least:?} }} }}"
        ),
    );
    let runs = Lab::new(&text, point, 800_000.0)?.run()?;
    let same = 0.5 * tail(least, 0.88, 0.05);
    let other = 0.5 * tail(least, 0.70, 0.08);
    let hit = runs.each(|run| totals(run).similar as f64 / totals(run).asked as f64);
    let wrong = runs.each(|run| totals(run).wrong as f64 / totals(run).similar as f64);
    Ok(vec![
        Check::sampled_within("hits", same + other, &hit, 0.005),
        Check::sampled_within("wrong among hits", other / (same + other), &wrong, 0.005),
    ])
}

fn learned(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let max_error = point.number("max_error", 0.001..=0.5)?;
    let text = |rule: &str| {
        world(
            1_000.0,
            AT_ONCE,
            &format!("distinct = 1000, zipf = 0.8, {REPHRASED}"),
            &format!(
                "[gateway.answers]\ncapacity = 100\neviction = \"lfu\"\n\
                 semantic = {{ rule = {{ {rule} }} }}"
            ),
        )
    };
    let learns = text(&format!("kind = \"learned\", max_error = {max_error:?}"));
    let learned = Lab::new(&learns, point, 1_600_000.0)?.run()?;
    let fixed = Lab::new(
        &text("kind = \"threshold\", at_least = 0.75"),
        point,
        400_000.0,
    )?;
    let fixed = fixed.run()?;
    let of = |run: &Run, count: u64| count as f64 / totals(run).asked as f64;
    let wrong = |run: &Run| of(run, totals(run).wrong);
    let hit = |run: &Run| of(run, totals(run).similar);
    let among = |run: &Run| totals(run).wrong as f64 / totals(run).similar.max(1) as f64;
    Ok(vec![
        Check::at_most(
            "wrong answers, of all requests",
            max_error,
            learned.each(wrong).mean,
        ),
        Check::at_most(
            "wrong answers, of those given",
            max_error,
            learned.each(among).mean,
        ),
        Check::at_least("hits", 0.02, learned.each(hit).mean),
        Check::at_least(
            "the same with one threshold of 0.75: wrong, of those given",
            learned.each(among).mean,
            fixed.each(among).mean,
        ),
    ])
}
