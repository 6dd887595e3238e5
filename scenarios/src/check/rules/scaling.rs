//! How many replicas there are.

use super::Rules;
use super::faults::no_pool;
use crate::diagnostic::Code;
use crate::schema::scaling::{
    ScalingPolicySpec, ScalingRuleSpec, ScalingSignalSpec, ScalingSpec, ScheduledReplicas,
};
use crate::tree::Path;
use windtunnel_base::quantity::Span;

/// Looks in a season of which more cannot be meant: a day of seconds, and some.
const MAX_SEASON: u64 = 100_000;

pub(super) fn scaling(rules: &mut Rules<'_>) {
    let Some(spec) = &rules.scenario.fleet.scaling else {
        return;
    };
    let path = Path::of("fleet.scaling");
    sizes(rules, &path, spec);
    rules.positive(&path.key("period"), spec.period.0.as_secs_f64());
    rules.share(&path.key("tolerance"), spec.tolerance);
    let policy = path.key("policy");
    match &spec.policy {
        ScalingPolicySpec::Reactive { signal, .. } => {
            self::signal(rules, &policy.key("signal"), signal);
        }
        ScalingPolicySpec::Predictive { .. } => predictive(rules, &policy, spec),
        ScalingPolicySpec::Scheduled { at, every } => {
            scheduled(rules, &policy, spec, at, *every);
        }
    }
    rule(rules, &path.key("scale_up"), &spec.scale_up);
    rule(rules, &path.key("scale_down"), &spec.scale_down);
}

/// The pool exists, and its size at the start lies between the least and the most.
fn sizes(rules: &mut Rules<'_>, path: &Path, spec: &ScalingSpec) {
    let (least, most) = (spec.min_replicas, spec.max_replicas);
    rules.at_least_one(&path.key("min_replicas"), least.into());
    if most < least {
        let message = format!("at most {most} replicas, and never fewer than {least}");
        rules.error(Code::Contradiction, &path.key("max_replicas"), message);
        return;
    }
    let fleet = &rules.scenario.fleet;
    let Some((_, start)) = fleet.scaled() else {
        if let Some(name) = &spec.pool {
            no_pool(rules, &path.key("pool"), name);
        }
        return;
    };
    if !(least..=most).contains(&start) {
        let message = format!(
            "the pool starts with {start} replicas, which are not between {least} and {most}"
        );
        rules
            .error(Code::Contradiction, &path.key("max_replicas"), message)
            .label = "the `replicas` of the pool are those at the start".to_owned();
    }
}

fn signal(rules: &mut Rules<'_>, path: &Path, signal: &ScalingSignalSpec) {
    let target = path.key("target");
    match *signal {
        ScalingSignalSpec::QueueDepth { target: of }
        | ScalingSignalSpec::Running { target: of }
        | ScalingSignalSpec::Concurrency { target: of } => rules.positive(&target, of),
        ScalingSignalSpec::KvUsage { target: of } => {
            above_zero_up_to_one(rules, &target, of);
            if super::fleet::is_stations(rules) {
                let message = "stations have no KV memory";
                rules.error(Code::Contradiction, path, message).label =
                    "look at `concurrency` or `queue_depth`".to_owned();
            }
        }
        ScalingSignalSpec::Ttft {
            target: of,
            quantile,
        } => {
            rules.positive(&target, of.0.as_secs_f64());
            let inside = quantile > 0.0 && quantile < 1.0;
            rules.require(&path.key("quantile"), inside, "lie between 0 and 1");
        }
        ScalingSignalSpec::Cpu {
            target: of,
            correlation,
            mean,
            deviation,
        } => {
            above_zero_up_to_one(rules, &target, of);
            rules.share(&path.key("correlation"), correlation);
            rules.share(&path.key("mean"), mean);
            rules.not_negative(&path.key("deviation"), deviation);
        }
    }
}

fn above_zero_up_to_one(rules: &mut Rules<'_>, path: &Path, value: f64) {
    let holds = value > 0.0 && value <= 1.0;
    rules.require(path, holds, "be more than 0 and at most 1");
}

fn predictive(rules: &mut Rules<'_>, path: &Path, spec: &ScalingSpec) {
    let ScalingPolicySpec::Predictive {
        per_replica,
        level,
        trend,
        season,
        seasonal,
        work_off,
    } = spec.policy
    else {
        return;
    };
    rules.positive(&path.key("per_replica"), per_replica.0);
    above_zero_up_to_one(rules, &path.key("level"), level);
    rules.share(&path.key("trend"), trend);
    above_zero_up_to_one(rules, &path.key("seasonal"), seasonal);
    if let Some(season) = season {
        let looks = season.0.as_nanos() / spec.period.0.as_nanos().max(1);
        let holds = (2..=MAX_SEASON).contains(&looks);
        let must = format!("hold between 2 and {MAX_SEASON} looks, and holds {looks}");
        rules.require(&path.key("season"), holds, &must);
    }
    if let Some(time) = work_off {
        rules.positive(&path.key("work_off"), time.0.as_secs_f64());
    }
}

fn scheduled(
    rules: &mut Rules<'_>,
    path: &Path,
    spec: &ScalingSpec,
    at: &[ScheduledReplicas],
    every: Option<Span>,
) {
    let list = path.key("at");
    if at.windows(2).any(|pair| pair[0].from >= pair[1].from) {
        rules.error(Code::Contradiction, &list, "times must ascend");
    }
    let within = spec.min_replicas..=spec.max_replicas;
    if let Some(entry) = at.iter().find(|entry| !within.contains(&entry.replicas)) {
        let message = format!(
            "{} replicas are not between {} and {}",
            entry.replicas, spec.min_replicas, spec.max_replicas
        );
        rules.error(Code::OutOfRange, &list, message);
    }
    let last = at.last().map(|entry| entry.from);
    if let (Some(every), Some(last)) = (every, last) {
        let holds = every > last;
        rules.require(&path.key("every"), holds, "be later than the last time");
    }
}

fn rule(rules: &mut Rules<'_>, path: &Path, rule: &ScalingRuleSpec) {
    if let Some(replicas) = rule.replicas {
        rules.at_least_one(&path.key("replicas"), replicas.into());
    }
    if let Some(percent) = rule.percent {
        rules.positive(&path.key("percent"), percent);
    }
    if let Some(per) = rule.per {
        rules.positive(&path.key("per"), per.0.as_secs_f64());
    }
}
