//! Classes, tenants, verification, thresholds.

use super::{Rules, fleet};
use crate::check::suggest::{did_you_mean, known};
use crate::diagnostic::Code;
use crate::names::{DEFAULT, Names};
use crate::threshold::{Operand, Threshold};
use crate::tree::Path;
use std::collections::BTreeSet;
use windtunnel_base::quantity::Span;

/// The classes that requests have, each with the place that says so.
fn sent_classes(rules: &Rules<'_>) -> Vec<(Path, String)> {
    let traffic = &rules.scenario.traffic;
    let name = |class: &Option<String>| class.clone().unwrap_or_else(|| DEFAULT.to_owned());
    match &traffic.trace {
        Some(trace) => vec![(Path::of("traffic.trace.class"), name(&trace.class))],
        None if traffic.clients.is_empty() => vec![(Path::of("traffic"), DEFAULT.to_owned())],
        None => {
            let path = |i: usize| Path::of(&format!("traffic.clients.{i}.class"));
            let clients = traffic.clients.iter().enumerate();
            clients.map(|(i, c)| (path(i), name(&c.class))).collect()
        }
    }
}

/// Classes that requests have must be there.
pub(super) fn classes_are_declared(rules: &mut Rules<'_>) {
    let names = Names::of(rules.scenario);
    for (path, class) in sent_classes(rules) {
        if names.class(&class).is_some() {
            continue;
        }
        let declared = || names.classes.iter().map(|(name, _)| name.as_str());
        let message = if class == DEFAULT {
            "these requests name no class, and there is no class `default`".to_owned()
        } else {
            format!("there is no class `{class}`")
        };
        let finding = rules.error(Code::UndeclaredName, &path, message);
        finding.label = did_you_mean(&class, declared());
        finding.notes.push(known(declared()));
        if rules.scenario.classes.is_empty() {
            let note = format!("declare it: [classes.{class}]");
            if let Some(finding) = rules.findings.last_mut() {
                finding.notes = vec![note];
            }
        }
    }
}

/// Objectives that somebody can meet, of classes that somebody sends.
pub(super) fn classes(rules: &mut Rules<'_>) {
    let sent: BTreeSet<String> = sent_classes(rules).into_iter().map(|(_, c)| c).collect();
    let round_trip = fleet::round_trip_ns(rules);
    for (name, class) in &rules.scenario.classes {
        let path = Path::of("classes").key(name);
        plain_name(rules, &path, name);
        if !sent.contains(name) {
            let message = format!("class `{name}`, but no client sends it");
            rules.warn(Code::UnusedClass, &path, message);
        }
        let times = [
            ("deadline", class.deadline, true),
            ("ttft", class.ttft, true),
            ("tpot", class.tpot, false),
            ("e2e", class.e2e, true),
        ];
        for (key, span, travels) in times {
            let Some(Span(span)) = span else { continue };
            let path = path.key(key);
            if span.is_zero() {
                rules.positive(&path, 0.0);
            } else if travels && span.as_nanos() < round_trip {
                let trip = Span(windtunnel_base::time::SimDuration::from_nanos(round_trip));
                let message = format!("messages alone travel {trip}: nobody can meet this");
                rules.warn(Code::Pointless, &path, message);
            }
        }
        for (key, span) in [("ttft", class.ttft), ("e2e", class.e2e)] {
            if let (Some(span), Some(deadline)) = (span, class.deadline)
                && span > deadline
            {
                let message = format!("clients give up earlier, after {deadline}");
                rules.warn(Code::Pointless, &path.key(key), message);
            }
        }
        if let (Some(ttft), Some(e2e)) = (class.ttft, class.e2e)
            && ttft > e2e
        {
            let message = format!("the whole answer is due earlier, after {e2e}");
            rules.warn(Code::Pointless, &path.key("ttft"), message);
        }
    }
}

/// Names appear in thresholds, file names and column headings.
fn plain_name(rules: &mut Rules<'_>, path: &Path, name: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let holds = !name.is_empty() && name.chars().all(plain);
    if !holds {
        let message = format!("`{name}` is no name: use letters, digits, `_`, `-` and `.`");
        rules.error(Code::OutOfRange, path, message);
    }
}

pub(super) fn tenants(rules: &mut Rules<'_>) {
    for (name, tenant) in &rules.scenario.tenants {
        let path = Path::of("tenants").key(name);
        plain_name(rules, &path, name);
        rules.positive(&path.key("weight"), tenant.weight);
    }
}

pub(super) fn verification(rules: &mut Rules<'_>) {
    let Some(spec) = rules.scenario.verification.clone() else {
        return;
    };
    for (key, share) in [
        ("error_rate", spec.error_rate),
        ("sensitivity", spec.sensitivity),
        ("specificity", spec.specificity),
    ] {
        rules.share(&Path::of("verification").key(key), share);
    }
    if let Some(backup) = &spec.backup {
        let path = Path::of("verification.backup");
        for (key, share) in [
            ("share", backup.share),
            ("sensitivity", backup.sensitivity),
            ("specificity", backup.specificity),
        ] {
            rules.share(&path.key(key), share);
        }
    }
}

/// Metrics that only a verifier can give.
const VERIFIED: &[&str] = &[
    "verification_pass_rate",
    "accepted_outputs",
    "verified_useful_outputs",
    "cost_per_verified_output",
    "cost_per_accepted_output",
    "energy_per_verified_output",
    "toten_per_verified_output",
    "toten_raw_per_verified_output",
    "verifier_tax",
    "verifier_tax_latency",
    "verifier_tax_energy",
    "verifier_spend",
    "verifier_energy",
    "checks_per_answer",
    "bad_caught",
    "bad_accepted",
    "good_rejected",
    "error_cost",
    "net_verifier_value",
    "bad_release_rate",
];

pub(super) fn thresholds(rules: &mut Rules<'_>) {
    let sent: BTreeSet<String> = sent_classes(rules).into_iter().map(|(_, c)| c).collect();
    for (i, text) in rules.scenario.thresholds.iter().enumerate() {
        let mut path = Path::of("thresholds");
        path.push_index(i);
        match text.parse::<Threshold>() {
            Ok(threshold) => {
                for operand in threshold.operands() {
                    operand_fits(rules, &path, operand, &sent);
                }
            }
            Err(error) => {
                let message = format!("threshold cannot be read: {error}");
                let finding = rules.error(Code::BadThreshold, &path, message);
                // One more for the quote in front of the text.
                finding.at = finding.at.part(error.span.start + 1..error.span.end + 1);
                finding.label = error.help;
                finding
                    .notes
                    .extend((!error.note.is_empty()).then_some(error.note));
            }
        }
    }
}

fn operand_fits(rules: &mut Rules<'_>, path: &Path, threshold: &Operand, sent: &BTreeSet<String>) {
    if threshold.phase.is_some() && rules.scenario.disturbance().is_none() {
        let message = "phases need something that disturbs the run";
        let finding = rules.error(Code::Incomplete, path, message);
        finding.label = "add [[faults]], or run.disturbance = { from = …, to = … }".to_owned();
    }
    if let Some(class) = &threshold.class
        && !sent.contains(class)
    {
        let names = Names::of(rules.scenario);
        let declared = names.classes.iter().map(|(name, _)| name.as_str());
        if names.class(class).is_some() {
            let message = format!("threshold for class `{class}`, but no client sends it");
            rules.warn(Code::UnusedClass, path, message);
        } else {
            let message = format!("there is no class `{class}`");
            let (label, note) = (did_you_mean(class, declared.clone()), known(declared));
            let finding = rules.error(Code::UndeclaredName, path, message);
            finding.label = label;
            finding.notes = vec![note];
            return;
        }
    }
    let metric = threshold.metric.as_str();
    if VERIFIED.contains(&metric) && rules.scenario.verification.is_none() {
        let message = format!("`{metric}` needs a verifier");
        let finding = rules.error(Code::Incomplete, path, message);
        finding.label = "add a [verification] table".to_owned();
    }
    let objectives = |class: &str| {
        let spec = rules.scenario.classes.get(class);
        spec.is_some_and(|c| c.ttft.is_some() || c.tpot.is_some() || c.e2e.is_some())
    };
    let has_objectives = match &threshold.class {
        Some(class) => objectives(class),
        None => rules.scenario.classes.keys().any(|c| objectives(c)),
    };
    if matches!(metric, "goodput" | "goodput_rate") && !has_objectives {
        let message = format!("`{metric}` needs objectives to count against");
        let finding = rules.error(Code::Incomplete, path, message);
        finding.label = "give a class `ttft`, `tpot` or `e2e`".to_owned();
    }
}
