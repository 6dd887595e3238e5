//! Kernels that come into use in stages: V-S1, B09, C14.

use super::lab::{Lab, Run};
use super::{Case, CaseError, Check, Param, Point, Sampled};
use windtunnel_ledger::rollout::{RolloutOutcome, RolloutStageTotals};

const RATE: Param = Param {
    name: "rate",
    default: "1",
    doc: "requests per second of a kernel's class",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-S1",
        title: "a sequential probability ratio test of shadow answers: its length and its errors",
        source: "simulated 856 and 737, errors .044 and .0495 (Wald: 849.5 and 677.1, .05)",
        params: &[Param {
            name: "error",
            default: "0.02",
            doc: "share of bad answers of the kernel; 0.01 is fit, 0.02 is not",
        }],
        points: &[&[("error", "0.01")], &[("error", "0.02")]],
        run: sequential_test,
    },
    Case {
        id: "B09",
        title: "pilot risk magnitude: harm to users before a canary is withdrawn, as predicted",
        source: "(n1 / q + f lam (delay + propagation / 2)) de S",
        params: &[
            Param {
                name: "share",
                default: "0.25",
                doc: "share of its class that the canary serves",
            },
            Param {
                name: "checked",
                default: "1",
                doc: "share of its answers that are checked",
            },
            RATE,
        ],
        points: &[&[("share", "0.25")], &[("share", "1"), ("checked", "0.25")]],
        run: predicted_harm,
    },
    Case {
        id: "C14",
        title: "a poisoned kernel is released: harm to users, by how it comes into use",
        source: "replay = shadow = 0 < assist < canary < blue-green < big bang; harm <= sum of risks",
        params: &[
            Param {
                name: "error",
                default: "0.5",
                doc: "share of bad answers of the kernel, which its test is to find; the frontier's is 0.05",
            },
            RATE,
        ],
        points: &[&[("error", "0.5")], &[("error", "0.25")]],
        run: ways_into_use,
    },
];

/// Kernels that one run rolls out beside one another, each for a class of its own: each is one sample.
fn kernels(point: &Point<'_>) -> u64 {
    point.length(100.0).clamp(10, 250)
}

/// Stations that answer at once: a frontier, and a pool for all kernels. The requests of each class come at that
/// rate, for so many seconds.
fn world(
    kernels: u64,
    (rate, seconds): (f64, f64),
    (frontier, error): (f64, f64),
    rollout: &str,
) -> String {
    let mut text = format!(
        "[run]\nwarm_up = \"0s\"\n\
         [fleet]\nname = \"frontier\"\nerror_rate = {frontier:?}\n\
         engine = {{ kind = \"station\", servers = 100000 }}\n\
         [[fleet.pools]]\nname = \"kernels\"\nreplicas = 1\nerror_rate = {error:?}\n\
         engine = {{ kind = \"station\", servers = 100000 }}\n\
         [gateway.paths]\nfrontier = \"frontier\"\n"
    );
    for k in 0..kernels {
        text += &format!(
            "[[gateway.paths.kernels]]\nname = \"k{k}\"\nclass = \"c{k}\"\npool = \"kernels\"\n\
             [gateway.paths.rollouts.k{k}]\n{rollout}\n[classes.c{k}]\n\
             [[traffic.clients]]\nname = \"c{k}\"\nclass = \"c{k}\"\nshare = 1.0\n\
             service = {{ kind = \"fixed\", value = \"1ms\" }}\n"
        );
    }
    let all = rate * kernels as f64;
    text + &format!("[traffic]\nrequest_rate = \"{all} req/s\"\nduration = \"{seconds}s\"\n")
}

/// A figure of all stages of a run's rollouts, per kernel.
fn per_kernel(run: &Run, figure: impl Fn(&RolloutStageTotals) -> f64) -> f64 {
    let stages = run.result.rollouts.iter().flat_map(|r| &r.stages);
    stages.map(figure).sum::<f64>() / run.result.rollouts.len() as f64
}

fn sequential_test(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let error = point.number("error", 0.01..=0.02)?;
    let fit = error < 0.015;
    let rollout = "stages = [{ kind = \"shadow\", share = 1.0 }, { kind = \"full\" }]\n\
                   test = { p0 = 0.01, p1 = 0.02, alpha = 0.05, beta = 0.05 }\n\
                   propagation = \"0s\"";
    // Ten times the mean: hardly any test takes longer.
    let text = world(kernels(point), (10.0, 800.0), (0.0, error), rollout);
    let runs = Lab::whole(&text, point)?.run()?;
    let compared = |s: &RolloutStageTotals| s.compared as f64;
    let length = runs.each(|run| per_kernel(run, compared));
    let ended = |run: &Run, how| {
        let rollouts = &run.result.rollouts;
        let so = rollouts.iter().filter(|r| r.outcome == how).count();
        so as f64 / rollouts.len() as f64
    };
    let (wrong, expected, share) = match fit {
        true => (RolloutOutcome::RolledBack, 856.0, 0.044),
        false => (RolloutOutcome::Full, 737.0, 0.0495),
    };
    let errors = runs.each(|run| ended(run, wrong));
    let undecided = runs.each(|run| ended(run, RolloutOutcome::UnderWay));
    Ok(vec![
        Check::sampled("answers compared until the end", expected, &length, 0.04),
        Check::sampled("tests that end wrongly", share, &errors, 0.04),
        Check::at_most("tests that have not ended", 0.005, undecided.mean),
    ])
}

fn predicted_harm(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let share = point.number("share", 0.01..=1.0)?;
    let checked = point.number("checked", 0.01..=1.0)?;
    let rate = point.number("rate", 0.1..=100.0)?;
    // As bad as the test is to find, and a fifth worse than the frontier.
    let rollout = format!(
        "at = \"100s\"\nchecked = {checked:?}\nseverity = 2.0\npropagation = \"10s\"\n\
         reference = {{ kind = \"verifier\", latency = \"5s\" }}\n\
         stages = [{{ kind = \"canary\", share = {share:?} }}, {{ kind = \"shadow\", share = 0.01 }}]"
    );
    let seconds = 100.0 + 400.0 / (share * checked * rate);
    let text = world(kernels(point), (rate, seconds), (0.05, 0.25), &rollout);
    let runs = Lab::whole(&text, point)?.run()?;
    let risk = |s: &RolloutStageTotals| s.risk.unwrap_or(0.0);
    let ratio = runs.each(|run| per_kernel(run, |s| s.harm) / per_kernel(run, risk));
    let harm = runs.each(|run| per_kernel(run, |s| s.harm));
    Ok(vec![
        Check::sampled("harm, of the risk predicted", 1.0, &ratio, 0.01),
        Check::at_least(
            "weighted bad outputs to each kernel's users",
            1.0,
            harm.mean,
        ),
    ])
}

/// Mean harm of a kernel, and the sum of the risks of its stages.
fn way(point: &Point<'_>, stages: &str) -> Result<(Sampled, f64), CaseError> {
    let error = point.number("error", 0.25..=1.0)?;
    let rate = point.number("rate", 0.1..=10.0)?;
    let rollout = format!(
        "at = \"60s\"\npropagation = \"30s\"\ntest = {{ p0 = 0.05, p1 = {error:?} }}\n\
         reference = {{ kind = \"verifier\", latency = \"20s\" }}\n\
         stages = [{stages}]"
    );
    let text = world(kernels(point), (rate, 1_800.0), (0.05, error), &rollout);
    let runs = Lab::whole(&text, point)?.run()?;
    let each = |figure: fn(&RolloutStageTotals) -> f64| runs.each(|run| per_kernel(run, figure));
    let risks = each(|s| s.risk.unwrap_or(0.0));
    Ok((each(|s| s.harm), risks.mean))
}

fn ways_into_use(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let replay = r#"{ kind = "replay", samples = 100, for = "60s" }"#;
    let shadow = r#"{ kind = "shadow", share = 1.0 }"#;
    let assist = r#"{ kind = "assist", share = 0.5, accept_bad = 0.3, accept_good = 0.9 }"#;
    let canary = r#"{ kind = "canary", share = 0.05 }, { kind = "canary", share = 0.5 }"#;
    let blue_green = r#"{ kind = "canary", share = 1.0 }"#;
    let full = r#"{ kind = "full" }"#;
    // Those that pass by chance, one unfit kernel in twenty, go no further here: what they do is no matter of
    // the way they came.
    let no_further = r#"{ kind = "shadow", share = 0.001 }"#;
    let gated = |stage: &str| way(point, &format!("{stage}, {no_further}"));
    let mut checks = Vec::new();
    for (name, stage) in [("replay", replay), ("shadow", shadow)] {
        let (harm, _) = gated(stage)?;
        checks.push(Check::at_most(format!("harm by {name}"), 0.0, harm.mean));
    }
    let mut before = 0.0;
    for (name, stage) in [
        ("assist", assist),
        ("canary", canary),
        ("blue-green", blue_green),
    ] {
        let (harm, risks) = gated(stage)?;
        checks.push(Check::at_least(
            format!("harm by {name}, more than by the one before"),
            before,
            harm.mean,
        ));
        let most = risks + 3.0 * harm.standard_error;
        checks.push(Check::at_most(
            format!("harm by {name}, within its risks"),
            most,
            harm.mean,
        ));
        before = harm.mean;
    }
    let (all, _) = way(point, full)?;
    checks.push(Check::at_least(
        "harm by a big bang, more than tenfold",
        10.0 * before,
        all.mean,
    ));
    Ok(checks)
}
