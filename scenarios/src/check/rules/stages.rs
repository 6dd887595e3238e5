//! The gateway's stages, and the pools between which it chooses.

use super::Rules;
use super::faults::no_pool;
use crate::check::suggest::{did_you_mean, known};
use crate::diagnostic::Code;
use crate::names::Names;
use crate::schema::FaultSpec;
use crate::schema::paths::{Checked, EvictionSpec, Instead, OnReject, PathsSpec};
use crate::schema::probing::{DetectorSpec, ProbingSpec};
use crate::tree::Path;
use std::collections::BTreeSet;

pub(super) fn stages(rules: &mut Rules<'_>) {
    let Some(spec) = &rules.scenario.gateway.pipeline else {
        return;
    };
    let path = Path::of("gateway.pipeline");
    let filter = spec.ingress_filter.as_ref();
    let limit = spec.rate_limit.as_ref();
    let mut timed: Vec<(&str, f64)> = Vec::new();
    timed.extend(filter.map(|s| ("ingress_filter", s.sigma)));
    timed.extend(limit.map(|s| ("rate_limit", s.sigma)));
    timed.extend(spec.tokenize.iter().map(|s| ("tokenize", s.sigma)));
    for (name, stage) in [
        ("parse", &spec.parse),
        ("authenticate", &spec.authenticate),
        ("exact_lookup", &spec.exact_lookup),
        ("semantic_lookup", &spec.semantic_lookup),
        ("kernel_lookup", &spec.kernel_lookup),
        ("path_choice", &spec.path_choice),
        ("admission", &spec.admission),
        ("routing", &spec.routing),
    ] {
        timed.extend(stage.iter().map(|s| (name, s.sigma)));
    }
    for (name, sigma) in timed {
        let holds = sigma.is_finite() && (0.0..=5.0).contains(&sigma);
        let path = path.key(name).key("sigma");
        rules.require(&path, holds, "lie between 0 and 5");
    }
    if let Some(filter) = filter {
        let path = path.key("ingress_filter");
        rules.share(&path.key("true_positive_rate"), filter.true_positive_rate);
        rules.share(&path.key("false_positive_rate"), filter.false_positive_rate);
    }
    if let Some(budget) = spec.budget {
        rules.positive(&path.key("budget"), budget.0.as_secs_f64());
    }
    attacks(rules);
}

/// Shares of attacks.
fn attacks(rules: &mut Rules<'_>) {
    for (i, client) in rules.scenario.traffic.clients.iter().enumerate() {
        if let Some(attack) = client.attack {
            let path = Path::of(&format!("traffic.clients.{i}.attack"));
            rules.share(&path, attack);
        }
    }
}

pub(super) fn limits(rules: &mut Rules<'_>) {
    let pipeline = rules.scenario.gateway.pipeline.as_ref();
    let Some(spec) = pipeline.and_then(|p| p.rate_limit.as_ref()) else {
        return;
    };
    let path = Path::of("gateway.pipeline.rate_limit");
    if let Some(bucket) = &spec.requests {
        let path = path.key("requests");
        rules.not_negative(&path.key("rate"), bucket.rate.0);
        rules.at_least_one(&path.key("burst"), bucket.burst.into());
    }
    if let Some(bucket) = &spec.tokens {
        let path = path.key("tokens");
        let rate = bucket.per_second;
        let holds = rate.is_finite() && rate >= 0.0;
        rules.require(
            &path.key("per_second"),
            holds,
            "be zero or more, and finite",
        );
        rules.at_least_one(&path.key("burst"), bucket.burst);
    }
    if let Some(bucket) = &spec.spend {
        rules.at_least_one(&path.key("spend").key("burst"), bucket.burst.0.0);
    }
    // What an answer may cost has to be known before it is there.
    let charged = spec.tokens.is_some() || spec.spend.is_some();
    let traffic = &rules.scenario.traffic;
    let limited = traffic.max_output_tokens.is_some()
        || (!traffic.clients.is_empty()
            && traffic
                .clients
                .iter()
                .all(|c| c.max_output_tokens.is_some()))
        || traffic.trace.is_some();
    if charged && !limited {
        let message = "budgets of tokens and money need a limit on what an answer may have";
        let finding = rules.error(Code::Incomplete, &path, message);
        finding.label = "set traffic.max_output_tokens, or that of every client".to_owned();
    }
}

pub(super) fn paths(rules: &mut Rules<'_>) {
    kernels_that_are_evicted_exist(rules);
    let Some(spec) = &rules.scenario.gateway.paths else {
        return;
    };
    let path = Path::of("gateway.paths");
    pools_exist(rules, &path, spec);
    let names = Names::of(rules.scenario);
    let mut classes = BTreeSet::new();
    for (i, kernel) in spec.kernels.iter().enumerate() {
        let mut path = path.key("kernels");
        path.push_index(i);
        class_exists(rules, &path.key("class"), &names, &kernel.class);
        if !classes.insert(kernel.class.as_str()) {
            let message = format!("class `{}` has two kernels", kernel.class);
            rules.error(Code::Contradiction, &path.key("class"), message);
        }
    }
    if let EvictionSpec::Jittered { over, .. } = spec.eviction {
        let path = path.key("eviction").key("over");
        rules.positive(&path, over.0.as_secs_f64());
    }
    if let Some(leakage) = &spec.leakage {
        let path = path.key("leakage");
        let holds = leakage.capacity.0.is_finite() && leakage.capacity.0 > 0.0;
        rules.require(
            &path.key("capacity"),
            holds,
            "be more than zero, and finite",
        );
        let holds = leakage.u_max > 0.0 && leakage.u_max <= 1.0;
        rules.require(&path.key("u_max"), holds, "be more than 0 and at most 1");
        rules.positive(&path.key("window"), leakage.window.0.as_secs_f64());
        for class in leakage.overflow_by_class.keys() {
            let path = path.key("overflow_by_class").key(class);
            class_exists(rules, &path, &names, class);
        }
    }
    if let Some(spec) = &spec.probing {
        probing(rules, &path.key("probing"), spec);
    }
    super::rollouts::rollouts(rules, &path, spec);
    instead_is_there(rules, &path, spec);
    somebody_checks(rules, &path, spec);
}

/// What is checked or rejected needs somebody who does so.
fn somebody_checks(rules: &mut Rules<'_>, path: &Path, spec: &PathsSpec) {
    if rules.scenario.verification.is_some() {
        return;
    }
    let told = [
        ("checked", spec.checked != Checked::All),
        ("on_reject", spec.on_reject != OnReject::Deliver),
    ];
    for (key, _) in told.into_iter().filter(|(_, told)| *told) {
        let message = format!("`{key}`, but nobody checks answers");
        let finding = rules.error(Code::Incomplete, &path.key(key), message);
        finding.label = "add a [verification] table".to_owned();
    }
}

fn probing(rules: &mut Rules<'_>, path: &Path, spec: &ProbingSpec) {
    rules.share(&path.key("share"), spec.share);
    rules.share(&path.key("sensitivity"), spec.sensitivity);
    rules.share(&path.key("specificity"), spec.specificity);
    let path = path.key("detector");
    let (p0, h) = match spec.detector {
        DetectorSpec::LogLikelihood { p0, p1, h } => {
            let holds = p1 > p0 && p1 < 1.0;
            rules.require(&path.key("p1"), holds, "be more than `p0` and less than 1");
            (p0, h)
        }
        DetectorSpec::Standardised { p0, k, h } => {
            rules.not_negative(&path.key("k"), k);
            (p0, h)
        }
    };
    let holds = p0 > 0.0 && p0 < 1.0;
    rules.require(&path.key("p0"), holds, "be more than 0 and less than 1");
    rules.positive(&path.key("h"), h);
}

fn pools_exist(rules: &mut Rules<'_>, path: &Path, spec: &PathsSpec) {
    let fleet = &rules.scenario.fleet;
    let mut named = Vec::new();
    named.extend(spec.frontier.iter().map(|p| (path.key("frontier"), p)));
    named.extend(spec.small.iter().map(|p| (path.key("small"), p)));
    for (i, kernel) in spec.kernels.iter().enumerate() {
        let mut path = path.key("kernels");
        path.push_index(i);
        named.push((path.key("pool"), &kernel.pool));
    }
    let mut missing = false;
    for (path, name) in &named {
        if fleet.pool(name).is_none() {
            no_pool(rules, path, name);
            missing = true;
        }
    }
    let taken = |name: &str| named.iter().any(|(_, taken)| taken.as_str() == name);
    let free = |(name, ids): (&str, std::ops::Range<u32>)| !ids.is_empty() && !taken(name);
    if !missing && spec.frontier.is_none() && !fleet.pools_by_id().any(free) {
        let message =
            "every pool belongs to a kernel or to the small model: nobody is left for the rest";
        let finding = rules.error(Code::Incomplete, path, message);
        finding.label = "add a pool, or name one as `frontier`".to_owned();
    }
}

/// Who is sent to the small model needs one, and who is given expired answers a gateway that keeps them.
fn instead_is_there(rules: &mut Rules<'_>, path: &Path, spec: &PathsSpec) {
    let leakage = spec.leakage.iter();
    let overflows = leakage.flat_map(|l| l.overflow_by_class.values().chain([&l.overflow]));
    let meanwhile = match &spec.eviction {
        EvictionSpec::Jittered { meanwhile, .. } => Some(meanwhile),
        EvictionSpec::Step => None,
    };
    let wanted: Vec<Instead> = overflows.chain(meanwhile).copied().collect();
    let answers = rules.scenario.gateway.answers.as_ref();
    let kept = answers.is_some_and(|a| a.exact && !a.stale_if_error.0.is_zero());
    if wanted.contains(&Instead::StaleAnswer) && !kept {
        let message = "`stale_answer` is what requests are given, and no expired answers are kept";
        let finding = rules.error(Code::Incomplete, path, message);
        finding.label = "say for how long: gateway.answers.stale_if_error = \"20min\"".to_owned();
    }
    if wanted.contains(&Instead::Small) && spec.small.is_none() {
        let message = "`small` is where requests go, and there is no small model";
        let finding = rules.error(Code::Incomplete, path, message);
        finding.label = "name its pool: small = \"NAME\"".to_owned();
    }
}

fn class_exists(rules: &mut Rules<'_>, path: &Path, names: &Names, class: &str) {
    if names.class(class).is_none() {
        let declared = || names.classes.iter().map(|(name, _)| name.as_str());
        let (label, note) = (did_you_mean(class, declared()), known(declared()));
        let message = format!("there is no class `{class}`");
        let finding = rules.error(Code::UndeclaredName, path, message);
        finding.label = label;
        finding.notes = vec![note];
    }
}

fn kernels_that_are_evicted_exist(rules: &mut Rules<'_>) {
    let paths = rules.scenario.gateway.paths.as_ref();
    let kernels = || {
        paths
            .iter()
            .flat_map(|p| &p.kernels)
            .map(|k| k.name.as_str())
    };
    for (i, fault) in rules.scenario.faults.iter().enumerate() {
        if let FaultSpec::KernelEvicted { kernel, .. } | FaultSpec::KernelDrift { kernel, .. } =
            fault
            && !kernels().any(|name| name == kernel)
        {
            let path = Path::of(&format!("faults.{i}.kernel"));
            let message = format!("there is no kernel `{kernel}`");
            let (label, note) = (did_you_mean(kernel, kernels()), known(kernels()));
            let finding = rules.error(Code::UndeclaredName, &path, message);
            finding.label = label;
            finding.notes = vec![note];
        }
    }
}
