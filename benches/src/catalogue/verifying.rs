//! Verifiers: what they add to the cost of a kernel's answers, and the limit of an asymmetric policy.

use super::lab::{Lab, Run};
use super::{Case, CaseError, Check, Param, Point};
use windtunnel_ledger::account::Account;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-K2",
        title: "a verified kernel with the frontier behind it: cost, bad answers, the verifier's part",
        source: "closed form of one kernel: C = c_r + h (c_k + c_v + rej c_f) + (1 - h) c_f",
        params: &[
            Param {
                name: "hit",
                default: "0.8",
                doc: "share of requests that the kernel serves",
            },
            Param {
                name: "error",
                default: "0.05",
                doc: "share of its answers that are bad",
            },
            Param {
                name: "sensitivity",
                default: "0.95",
                doc: "share of those that the verifier rejects",
            },
            Param {
                name: "specificity",
                default: "0.97",
                doc: "share of the others that it accepts",
            },
            Param {
                name: "frontier_error",
                default: "0.01",
                doc: "share of bad answers of the frontier",
            },
        ],
        points: &[
            &[("hit", "0")],
            &[("hit", "0.3")],
            &[("hit", "0.6")],
            &[("hit", "0.8")],
            &[("hit", "0.95")],
        ],
        run: kernel,
    },
    Case {
        id: "V-K6",
        title: "the limit at which an answer is accepted: the best of a grid",
        source: "c_FR / (c_FA + c_FR), and the binormal model of the score",
        params: &[
            Param {
                name: "ratio",
                default: "100",
                doc: "cost of a bad answer accepted, relative to a good one rejected",
            },
            Param {
                name: "separation",
                default: "2",
                doc: "distance of the mean scores of bad and good answers",
            },
            Param {
                name: "error",
                default: "0.05",
                doc: "share of bad answers",
            },
        ],
        points: &[
            &[("ratio", "100")],
            &[("ratio", "10")],
            &[("ratio", "100"), ("separation", "3")],
        ],
        run: limit,
    },
];

/// Prices in units of an answer of the frontier, which costs a dollar: of the gateway, of a kernel's answer,
/// of a check.
const GATEWAY: f64 = 0.005;
const KERNEL: f64 = 0.02;
const CHECK: f64 = 0.03;

/// A kernel and the frontier as stations whose hours are free and whose answers, one token each, are not.
fn kernel_world(
    hit: f64,
    (error, frontier_error): (f64, f64),
    (sensitivity, specificity): (f64, f64),
) -> String {
    let client = |name: &str, share: f64| {
        format!("[[traffic.clients]]\nname = \"{name}\"\nclass = \"{name}\"\nshare = {share:?}\n")
    };
    let clients: String = [("routine", hit), ("other", 1.0 - hit)]
        .into_iter()
        .filter(|(_, share)| *share > 0.0)
        .map(|(name, share)| client(name, share))
        .collect();
    let million = |price: f64| format!("${}", (price * 1e6).round());
    format!(
        r#"
        version = 1
        [run]
        warm_up = "0s"
        [fleet]
        name = "frontier"
        error_rate = {frontier_error:?}
        engine = {{ kind = "station", servers = 100000, price = "$0/h" }}
        token_prices = {{ output = "{frontier}" }}
        [[fleet.pools]]
        name = "kernels"
        replicas = 1
        error_rate = {error:?}
        engine = {{ kind = "station", servers = 100000, price = "$0/h" }}
        token_prices = {{ output = "{kernel}" }}
        [gateway.pipeline]
        parse = {{ price = "${GATEWAY}" }}
        [gateway.paths]
        frontier = "frontier"
        kernels = [{{ name = "k", class = "routine", pool = "kernels" }}]
        checked = "kernels"
        on_reject = "frontier"
        [classes.routine]
        [classes.other]
        [verification]
        sensitivity = {sensitivity:?}
        specificity = {specificity:?}
        price = "${CHECK}"
        [traffic]
        request_rate = "1000 req/s"
        service = {{ kind = "fixed", value = "1ms" }}
        output = {{ kind = "fixed", tokens = 1 }}
        {clients}
        "#,
        frontier = million(1.0),
        kernel = million(KERNEL),
    )
}

fn kernel(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let hit = point.number("hit", 0.0..=1.0)?;
    let error = point.number("error", 0.0..=1.0)?;
    let sensitivity = point.number("sensitivity", 0.0..=1.0)?;
    let specificity = point.number("specificity", 0.0..=1.0)?;
    let frontier_error = point.number("frontier_error", 0.0..=1.0)?;
    let errors = (error, frontier_error);
    let text = kernel_world(hit, errors, (sensitivity, specificity));
    let runs = Lab::settled(&text, point, 800_000.0, 0.0)?.run()?;
    let rejected = error * sensitivity + (1.0 - error) * (1.0 - specificity);
    let cost = GATEWAY + hit * (KERNEL + CHECK + rejected) + (1.0 - hit);
    let good =
        hit * (1.0 - error) * specificity + (hit * rejected + 1.0 - hit) * (1.0 - frontier_error);
    let spent = |run: &Run, account| run.books().money.received(account) as f64 / 1e9;
    let total = |run: &Run| run.books().money.total() as f64 / 1e9;
    let tax = runs.each(|run| spent(run, Account::Verification) / total(run));
    let each = runs.each(|run| total(run) / run.sent() as f64);
    let per_useful = runs.each(|run| total(run) / run.population().verified_useful as f64);
    let bad = runs.each(|run| 1.0 - run.population().good as f64 / run.sent() as f64);
    let mut checks = vec![
        Check::sampled(
            "cost per verified useful output",
            cost / good,
            &per_useful,
            0.01,
        ),
        Check::sampled("share of bad answers", 1.0 - good, &bad, 0.01),
        Check::sampled("verifier tax", hit * CHECK / cost, &tax, 0.01),
        Check::sampled("cost of an answer, in the frontier's", cost, &each, 0.01),
    ];
    if hit > 0.0 {
        let replaced = runs.each(|run| {
            let paths = run.result.paths.unwrap_or_default();
            paths.fallbacks.unwrap_or_default() as f64 / paths.kernel as f64
        });
        checks.push(Check::sampled(
            "rejected, of the kernel's",
            rejected,
            &replaced,
            0.01,
        ));
    }
    Ok(checks)
}

/// Thresholds on both sides of the best one; each is so many times the one before it, as odds.
const AROUND: i32 = 4;
const STEP: f64 = std::f64::consts::SQRT_2;

fn limit(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let ratio = point.number("ratio", 1.0..=10_000.0)?;
    let separation = point.number("separation", 0.1..=10.0)?;
    let error = point.number("error", 0.0001..=0.9)?;
    let best = 1.0 / (1.0 + ratio);
    let mut losses = Vec::new();
    for step in -AROUND..=AROUND {
        let odds = best / (1.0 - best) * STEP.powi(step);
        let text = format!(
            r#"
            version = 1
            [run]
            warm_up = "0s"
            [fleet.engine]
            kind = "station"
            servers = 100000
            [verification]
            error_rate = {error:?}
            false_accept_cost = "$1"
            false_reject_cost = "${reject}"
            [verification.ladder]
            accept_below = {limit:?}
            [[verification.ladder.levels]]
            name = "score"
            latency = "20ms"
            price = "$0.0001"
            evidence = {{ kind = "score", separation = {separation:?} }}
            [traffic]
            request_rate = "1000 req/s"
            service = {{ kind = "fixed", value = "1ms" }}
            "#,
            reject = 1.0 / ratio,
            limit = odds / (1.0 + odds),
        );
        // The same answers and scores at every threshold: seeds are the same.
        let runs = Lab::settled(&text, point, 400_000.0, 0.0)?.run()?;
        losses.push(runs.each(|run| loss(run, ratio)));
    }
    let least = losses
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
    let found = least.map_or(f64::NAN, |(i, _)| i as f64 - f64::from(AROUND));
    let theory = binormal_loss(error, separation, ratio);
    let at_best = &losses[AROUND as usize];
    Ok(vec![
        Check::within("best limit, in steps of the grid from t*", 0.0, found, 1.0),
        Check::sampled("loss per answer at t*, in dollars", theory, at_best, 0.01),
    ])
}

/// What wrong verdicts cost per answer, a bad one accepted being a dollar.
fn loss(run: &Run, ratio: f64) -> f64 {
    let p = run.population();
    let verdicts = p.good_accepted + p.bad_accepted + p.good_rejected + p.bad_caught;
    (p.bad_accepted as f64 + p.good_rejected as f64 / ratio) / verdicts as f64
}

/// The same by the normal distribution, with the best limit.
fn binormal_loss(error: f64, separation: f64, ratio: f64) -> f64 {
    let below = |x: f64| 0.5 * statrs::function::erf::erfc(-x / std::f64::consts::SQRT_2);
    let prior = (error / (1.0 - error)).ln();
    let score = (-ratio.ln() - prior) / separation + separation / 2.0;
    error * below(score - separation) + (1.0 - error) * below(-score) / ratio
}
