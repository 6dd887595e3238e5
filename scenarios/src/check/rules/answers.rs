//! Stored answers and coalescing.

use super::Rules;
use crate::diagnostic::Code;
use crate::schema::answers::{SemanticSpec, SimilarityRule, TtlSince};
use crate::tree::Path;

/// Stored answers.
pub(super) fn answers(rules: &mut Rules<'_>) {
    let Some(spec) = rules.scenario.gateway.answers.clone() else {
        return;
    };
    let path = Path::of("gateway.answers");
    rules.share(&path.key("ttl_jitter"), spec.ttl_jitter);
    if let Some(ttl) = spec.ttl {
        rules.positive(&path.key("ttl"), ttl.0.as_secs_f64());
    } else {
        let given = [
            ("ttl_jitter", spec.ttl_jitter > 0.0),
            ("ttl_since", spec.ttl_since == TtlSince::Use),
            ("early_refresh", spec.early_refresh.is_some()),
            (
                "stale_while_revalidate",
                !spec.stale_while_revalidate.0.is_zero(),
            ),
            ("stale_if_error", !spec.stale_if_error.0.is_zero()),
        ];
        for (key, _) in given.into_iter().filter(|(_, given)| *given) {
            let message = format!("without `ttl` answers never expire, so `{key}` means nothing");
            rules.warn(Code::Pointless, &path.key(key), message);
        }
    }
    if let Some(beta) = spec.early_refresh {
        rules.positive(&path.key("early_refresh"), beta);
    }
    if let Some(capacity) = spec.capacity {
        let most = u64::from(u32::MAX / 2);
        let holds = (1..=most).contains(&capacity);
        let must = format!("lie between 1 and {most}");
        rules.require(&path.key("capacity"), holds, &must);
    }
    if let Some(semantic) = &spec.semantic {
        self::semantic(rules, &path.key("semantic"), semantic);
    } else if !spec.exact {
        let message = "with neither `exact` nor `semantic` no stored answer is ever given";
        rules.warn(Code::Pointless, &path.key("exact"), message);
    }
    questions_are_asked(rules, &path);
}

fn semantic(rules: &mut Rules<'_>, path: &Path, spec: &SemanticSpec) {
    for (key, similarity) in [("same", spec.same), ("other", spec.other)] {
        let path = path.key(key);
        rules.not_negative(&path.key("sigma"), similarity.sigma);
        rules.require(
            &path.key("mean"),
            similarity.mean.abs() <= 1.0,
            "lie between -1 and 1",
        );
    }
    let path = path.key("rule");
    match spec.rule {
        SimilarityRule::Threshold { at_least } => rules.require(
            &path.key("at_least"),
            at_least.is_finite(),
            "be a similarity, such as 0.9",
        ),
        SimilarityRule::Learned {
            max_error,
            confidence,
        } => {
            for (key, value) in [("max_error", max_error), ("confidence", confidence)] {
                let holds = value > 0.0 && value < 1.0;
                rules.require(&path.key(key), holds, "be more than 0 and less than 1");
            }
        }
    }
}

/// Coalescing.
pub(super) fn coalescing(rules: &mut Rules<'_>) {
    let Some(spec) = rules.scenario.gateway.coalescing.clone() else {
        return;
    };
    let path = Path::of("gateway.coalescing");
    if let Some(timeout) = spec.follower_timeout {
        let here = path.key("follower_timeout");
        rules.positive(&here, timeout.0.as_secs_f64());
    }
    questions_are_asked(rules, &path);
}

/// Without questions no two requests ask the same, which is a mistake more often than a control.
fn questions_are_asked(rules: &mut Rules<'_>, path: &Path) {
    let traffic = &rules.scenario.traffic;
    let mut clients = traffic.clients.iter();
    let asked = traffic.trace.is_none()
        && (traffic.questions.is_some()
            || traffic.tasks.is_some()
            || clients.any(|c| c.questions.is_some() || c.tasks.is_some()));
    if !asked {
        let message =
            format!("`{path}` has nothing to go by: nobody's `traffic.questions` are given");
        let finding = rules.warn(Code::Pointless, path, message);
        finding.notes = vec!["example: questions = { distinct = 1000, zipf = 1.0 }".into()];
    }
}
