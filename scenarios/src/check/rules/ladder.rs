//! A ladder of verifiers whose levels say something, and whose policy can decide.

use super::Rules;
use crate::diagnostic::Code;
use crate::schema::VerificationSpec;
use crate::schema::ladder::{BudgetSpec, EvidenceSpec, LadderSpec, LevelSpec};
use crate::tree::Path;
use std::collections::BTreeSet;
use windtunnel_base::quantity::Money;

/// Most levels: more are no ladder, and they are numbered in a byte.
const MOST_LEVELS: usize = 16;

pub(super) fn ladder(rules: &mut Rules<'_>) {
    let Some(spec) = rules.scenario.verification.clone() else {
        return;
    };
    let Some(ladder) = &spec.ladder else {
        return;
    };
    let path = Path::of("verification.ladder");
    both_mistakes_cost(rules, &spec);
    let single = VerificationSpec::default();
    for (key, told) in [
        ("sensitivity", spec.sensitivity != single.sensitivity),
        ("specificity", spec.specificity != single.specificity),
        ("latency", spec.latency != single.latency),
        ("price", spec.price != single.price),
        ("power", spec.power != single.power),
    ] {
        if told {
            let message = format!("`{key}` is of the single verifier, and the ladder checks");
            let at = Path::of("verification").key(key);
            rules.error(Code::Contradiction, &at, message).label =
                format!("leave it out, or say it of a level: [[verification.ladder.levels]] {key}");
        }
    }
    chances(rules, &path, &spec, ladder);
    levels(rules, &path.key("levels"), ladder);
    if let (Some(budget), Some(first)) = (ladder.budget, ladder.levels.first()) {
        affordable(rules, &path.key("budget"), &budget, first);
    }
}

/// The policy weighs one mistake against the other.
fn both_mistakes_cost(rules: &mut Rules<'_>, spec: &VerificationSpec) {
    for (key, cost) in [
        ("false_accept_cost", spec.false_accept_cost),
        ("false_reject_cost", spec.false_reject_cost),
    ] {
        if cost == Money::default() {
            let message = "the ladder weighs both mistakes, and this one costs nothing";
            let at = Path::of("verification").key(key);
            rules.error(Code::OutOfRange, &at, message).label = "more than $0".to_owned();
        }
    }
}

/// Probabilities that evidence can move.
fn chances(rules: &mut Rules<'_>, path: &Path, spec: &VerificationSpec, ladder: &LadderSpec) {
    let open = |p: f64| p > 0.0 && p < 1.0;
    if let Some(limit) = ladder.accept_below {
        let must = "lie between 0 and 1, neither of them included";
        rules.require(&path.key("accept_below"), open(limit), must);
    }
    match ladder.prior {
        Some(prior) => {
            let must = "lie between 0 and 1, neither of them included";
            rules.require(&path.key("prior"), open(prior), must);
        }
        None if !open(spec.error_rate) => {
            let message = "who is certain beforehand learns nothing from evidence";
            let finding = rules.error(Code::Incomplete, path, message);
            finding.label = "say what the policy reckons with: prior = 0.01".to_owned();
        }
        None => {}
    }
}

fn levels(rules: &mut Rules<'_>, path: &Path, ladder: &LadderSpec) {
    let count = ladder.levels.len();
    if count == 0 || count > MOST_LEVELS {
        let must = format!("have 1 to {MOST_LEVELS} levels");
        rules.require(path, false, &must);
    }
    let mut names = BTreeSet::new();
    for (i, level) in ladder.levels.iter().enumerate() {
        let mut path = path.clone();
        path.push_index(i);
        if level.name.is_empty() || !names.insert(level.name.as_str()) {
            let message = format!("two levels are called `{}`", level.name);
            let message = match level.name.is_empty() {
                true => "a level needs a name".to_owned(),
                false => message,
            };
            let at = path.key("name");
            rules.error(Code::Contradiction, &at, message).label = "name each".to_owned();
        }
        evidence(rules, &path.key("evidence"), level.evidence);
    }
}

/// Evidence that tells bad answers from good ones.
fn evidence(rules: &mut Rules<'_>, path: &Path, evidence: EvidenceSpec) {
    match evidence {
        EvidenceSpec::Test {
            sensitivity,
            specificity,
        } => {
            rules.share(&path.key("sensitivity"), sensitivity);
            rules.share(&path.key("specificity"), specificity);
            if sensitivity + specificity <= 1.0 {
                no_news(rules, &path.key("sensitivity"));
            }
        }
        EvidenceSpec::Score { separation } => {
            let holds = separation > 0.0 && separation.is_finite();
            let must = "be more than zero, and finite";
            rules.require(&path.key("separation"), holds, must);
        }
        EvidenceSpec::ScoreAt {
            sensitivity,
            specificity,
        } => {
            for (key, p) in [("sensitivity", sensitivity), ("specificity", specificity)] {
                let must =
                    "lie between 0 and 1, neither of them included: a score is never certain";
                rules.require(&path.key(key), p > 0.0 && p < 1.0, must);
            }
            if sensitivity + specificity <= 1.0 {
                no_news(rules, &path.key("sensitivity"));
            }
        }
    }
}

fn no_news(rules: &mut Rules<'_>, path: &Path) {
    let message = "a verifier that rejects good answers as often as bad ones says nothing";
    rules.error(Code::Contradiction, path, message).label = "more than 1 - specificity".to_owned();
}

/// Every answer is seen by the first level, whatever the budget.
fn affordable(rules: &mut Rules<'_>, path: &Path, budget: &BudgetSpec, first: &LevelSpec) {
    rules.share(&path.key("share"), budget.share);
    if budget.kernel_price > budget.frontier_price {
        let message = "an answer of a kernel costs more than one of the frontier: nothing is saved";
        rules.error(Code::Contradiction, &path.key("kernel_price"), message);
        return;
    }
    if first.price.0.0 > budget.per_answer() {
        let message = format!(
            "the first level costs {}, more than the budget of an answer",
            first.price
        );
        rules.error(Code::Contradiction, path, message).label =
            "raise `share`, or begin with a cheaper level".to_owned();
    }
}
