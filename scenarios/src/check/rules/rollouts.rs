//! Kernels that are rolled out: that they are there, and that their stages can come to an end.

use super::Rules;
use crate::check::suggest::{did_you_mean, known};
use crate::diagnostic::Code;
use crate::schema::paths::PathsSpec;
use crate::schema::rollout::{RolloutSpec, RolloutStage, SequentialTestSpec};
use crate::tree::Path;

pub(super) fn rollouts(rules: &mut Rules<'_>, path: &Path, spec: &PathsSpec) {
    let kernels = || spec.kernels.iter().map(|kernel| kernel.name.as_str());
    for (name, rollout) in &spec.rollouts {
        let path = path.key("rollouts").key(name);
        if !kernels().any(|kernel| kernel == name) {
            let message = format!("there is no kernel `{name}`");
            let finding = rules.error(Code::UndeclaredName, &path, message);
            finding.label = did_you_mean(name, kernels());
            finding.notes = vec![known(kernels())];
        }
        numbers(rules, &path, rollout);
        test(rules, &path.key("test"), &rollout.test);
        stages(rules, &path.key("stages"), rollout);
    }
}

fn numbers(rules: &mut Rules<'_>, path: &Path, spec: &RolloutSpec) {
    rules.share(&path.key("sensitivity"), spec.sensitivity);
    rules.share(&path.key("specificity"), spec.specificity);
    let holds = spec.checked > 0.0 && spec.checked <= 1.0;
    rules.require(&path.key("checked"), holds, "be more than 0 and at most 1");
    rules.positive(&path.key("severity"), spec.severity);
    if let Some(most) = spec.max_risk {
        rules.positive(&path.key("max_risk"), most);
    }
}

fn test(rules: &mut Rules<'_>, path: &Path, spec: &SequentialTestSpec) {
    let inside = |p: f64| p > 0.0 && p < 1.0;
    rules.require(
        &path.key("p0"),
        inside(spec.p0),
        "be more than 0 and less than 1",
    );
    let holds = inside(spec.p1) && spec.p1 > spec.p0;
    rules.require(&path.key("p1"), holds, "be more than `p0` and less than 1");
    for (name, error) in [("alpha", spec.alpha), ("beta", spec.beta)] {
        let holds = error > 0.0 && error < 0.5;
        rules.require(&path.key(name), holds, "be more than 0 and less than 0.5");
    }
}

fn stages(rules: &mut Rules<'_>, path: &Path, spec: &RolloutSpec) {
    let count = spec.stages.len();
    rules.require(path, (1..=255).contains(&count), "have 1 to 255 stages");
    for (i, stage) in spec.stages.iter().enumerate() {
        let mut path = path.clone();
        path.push_index(i);
        match *stage {
            RolloutStage::Replay { samples, lasts } => {
                let holds = (1..=1_000_000).contains(&samples);
                rules.require(&path.key("samples"), holds, "lie between 1 and 1,000,000");
                let long = lasts.0.as_secs_f64() >= 0.001;
                rules.require(&path.key("for"), long, "be at least one millisecond");
            }
            RolloutStage::Shadow { share } | RolloutStage::Canary { share } => {
                some(rules, &path.key("share"), share);
            }
            RolloutStage::Assist {
                share,
                accept_bad,
                accept_good,
                ..
            } => {
                some(rules, &path.key("share"), share);
                rules.share(&path.key("accept_bad"), accept_bad);
                rules.share(&path.key("accept_good"), accept_good);
            }
            RolloutStage::Full {} => {
                let last = i + 1 == count;
                rules.require(&path, last, "come last: `full` is the end of a rollout");
            }
        }
    }
}

/// Of a stage that exposes nobody the test would never end.
fn some(rules: &mut Rules<'_>, path: &Path, share: f64) {
    let holds = share > 0.0 && share <= 1.0;
    rules.require(path, holds, "be more than 0 and at most 1");
}
