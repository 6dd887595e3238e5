//! What goes wrong: whom it strikes, and whether what it strikes is there.

use super::Rules;
use crate::check::suggest::{did_you_mean, known};
use crate::diagnostic::Code;
use crate::schema::FaultSpec;
use crate::schema::faults::Target;
use crate::tree::Path;

pub(super) fn faults(rules: &mut Rules<'_>) {
    for (i, fault) in rules.scenario.faults.iter().enumerate() {
        let mut path = Path::of("faults");
        path.push_index(i);
        if !matches!(fault, FaultSpec::LeaderCrash { .. }) {
            let lasts = fault.lasts().0.as_secs_f64();
            rules.positive(&path.key("for"), lasts);
        }
        if let Some(target) = fault.target() {
            strikes_somebody(rules, &path.key("on"), target);
        }
        match fault {
            FaultSpec::Slowdown { speed, .. } => {
                let holds = *speed > 0.0 && *speed <= 1.0;
                rules.require(&path.key("speed"), holds, "be more than 0 and at most 1");
            }
            FaultSpec::KernelDrift {
                excess,
                every,
                lasts,
                ..
            } => {
                let holds = *excess > 0.0 && *excess <= 1.0;
                rules.require(&path.key("excess"), holds, "be more than 0 and at most 1");
                if let (Some(_), Some(lasts)) = (every, lasts) {
                    rules.positive(&path.key("for"), lasts.0.as_secs_f64());
                }
                if let Some(every) = every {
                    let often = every.0.as_secs_f64();
                    rules.require(&path.key("every"), often >= 1.0, "be at least one second");
                }
            }
            FaultSpec::OriginErrors { share, .. } => rules.share(&path.key("share"), *share),
            FaultSpec::VerifierOutage { .. } if rules.scenario.verification.is_none() => {
                let message = "nobody checks answers, so there is no verifier to fail";
                let finding = rules.error(Code::Incomplete, &path, message);
                finding.label = "add a [verification] table".to_owned();
            }
            FaultSpec::StoreBlackout { .. } if rules.scenario.gateway.state_store.is_none() => {
                let message = "the gateway has no state store that could fail";
                let finding = rules.error(Code::Incomplete, &path, message);
                finding.label = "add a [gateway.state_store] table".to_owned();
            }
            FaultSpec::LeaderCrash { .. } if rules.scenario.gateway.coalescing.is_none() => {
                let message =
                    "nobody waits for another's answer, so nobody leads who could be lost";
                let finding = rules.error(Code::Incomplete, &path, message);
                finding.label = "add a [gateway.coalescing] table".to_owned();
            }
            _ => {}
        }
    }
    disturbance(rules);
}

fn disturbance(rules: &mut Rules<'_>) {
    if let Some(spec) = rules.scenario.run.disturbance {
        let holds = spec.from < spec.to;
        let path = Path::of("run.disturbance").key("to");
        rules.require(&path, holds, "be later than `from`");
    }
}

/// A pool that exists, and replicas that it has.
fn strikes_somebody(rules: &mut Rules<'_>, path: &Path, target: &Target) {
    let fleet = &rules.scenario.fleet;
    let ids = match &target.pool {
        None => {
            0..fleet
                .pools_by_id()
                .map(|(_, ids)| ids.end)
                .max()
                .unwrap_or(0)
        }
        Some(name) => match fleet.pool(name) {
            Some(ids) => ids,
            None => return no_pool(rules, &path.key("pool"), name),
        },
    };
    let there = ids.end - ids.start;
    if let Some(replica) = target.replicas.iter().find(|&&r| r >= there) {
        let message = format!(
            "there is no replica {replica}: the first is 0, the last {}",
            there.saturating_sub(1)
        );
        rules.error(Code::OutOfRange, &path.key("replicas"), message);
    }
}

/// Says that a pool does not exist, and which do.
pub(super) fn no_pool(rules: &mut Rules<'_>, path: &Path, name: &str) {
    let fleet = &rules.scenario.fleet;
    let names: Vec<&str> = fleet
        .pools_by_id()
        .filter(|(name, ids)| !ids.is_empty() && !name.is_empty())
        .map(|(name, _)| name)
        .collect();
    let (label, note) = (
        did_you_mean(name, names.iter().copied()),
        known(names.iter().copied()),
    );
    let finding = rules.error(
        Code::UndeclaredName,
        path,
        format!("there is no pool `{name}`"),
    );
    finding.label = label;
    finding.notes = vec![note];
}
