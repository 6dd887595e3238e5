//! Distributions and arrival processes.

use super::Rules;
use crate::diagnostic::Code;
use crate::schema::traffic::{ArrivalSpec, LengthSpec, PrefixSpec, SessionSpec, TimeSpec};
use crate::tree::Path;

/// A length; `least` is the least that makes sense here.
pub(super) fn length(rules: &mut Rules<'_>, path: &Path, spec: &LengthSpec, least: u32) {
    let floor = format!("be {least} or more");
    match spec {
        LengthSpec::Fixed { tokens } => {
            rules.require(&path.key("tokens"), *tokens >= least, &floor);
        }
        LengthSpec::Uniform { min, max } => {
            rules.require(&path.key("min"), *min >= least, &floor);
            rules.require(&path.key("max"), max >= min, "be at least `min`");
        }
        LengthSpec::Exponential { mean, min, max } => {
            rules.positive(&path.key("mean"), *mean);
            limits(rules, path, *min, *max);
        }
        LengthSpec::Lognormal {
            mean,
            sigma,
            min,
            max,
        } => {
            rules.positive(&path.key("mean"), *mean);
            rules.not_negative(&path.key("sigma"), *sigma);
            limits(rules, path, *min, *max);
        }
        LengthSpec::Empirical { tokens, weights } => {
            let here = path.key("tokens");
            rules.require(&here, !tokens.is_empty(), "list at least one count");
            let holds = tokens.iter().all(|t| *t >= least);
            rules.require(&here, holds, &format!("list counts of {least} or more"));
            if let Some(weights) = weights {
                let here = path.key("weights");
                if weights.len() != tokens.len() {
                    let message = format!(
                        "{} weights for {} token counts",
                        weights.len(),
                        tokens.len()
                    );
                    rules.error(Code::Contradiction, &here, message);
                }
                let holds = weights.iter().all(|w| *w >= 0.0) && weights.iter().sum::<f64>() > 0.0;
                rules.require(&here, holds, "be zero or more, and one of them more");
            }
        }
    }
}

fn limits(rules: &mut Rules<'_>, path: &Path, min: Option<u32>, max: Option<u32>) {
    if let Some(max) = max {
        let holds = max >= min.unwrap_or(1);
        rules.require(&path.key("max"), holds, "be at least `min`");
    }
}

/// A time.
pub(super) fn time(rules: &mut Rules<'_>, path: &Path, spec: &TimeSpec) {
    match spec {
        TimeSpec::Fixed { .. } => {}
        TimeSpec::Exponential { mean } => {
            rules.positive(&path.key("mean"), mean.0.as_secs_f64());
        }
        TimeSpec::Lognormal { mean, sigma } => {
            rules.positive(&path.key("mean"), mean.0.as_secs_f64());
            rules.not_negative(&path.key("sigma"), *sigma);
        }
        TimeSpec::Gamma { mean, cv2 } => {
            rules.positive(&path.key("mean"), mean.0.as_secs_f64());
            rules.positive(&path.key("cv2"), *cv2);
        }
        TimeSpec::Hyperexponential { mean, cv2 } => {
            rules.positive(&path.key("mean"), mean.0.as_secs_f64());
            rules.require(
                &path.key("cv2"),
                *cv2 >= 1.0,
                "be 1 or more: mixtures of exponentials vary at least as much as one",
            );
        }
        TimeSpec::TwoPoint { low, high, p_high } => {
            rules.require(&path.key("high"), high >= low, "be at least `low`");
            rules.share(&path.key("p_high"), *p_high);
        }
    }
}

/// An arrival process.
pub(super) fn arrivals(rules: &mut Rules<'_>, path: &Path, spec: &ArrivalSpec) {
    match spec {
        ArrivalSpec::Poisson | ArrivalSpec::Constant => {}
        ArrivalSpec::Gamma { burstiness } => {
            rules.positive(&path.key("burstiness"), *burstiness);
        }
        ArrivalSpec::Weibull { shape } => rules.positive(&path.key("shape"), *shape),
        ArrivalSpec::OnOff { on, off: _ } => {
            rules.positive(&path.key("on"), on.0.as_secs_f64());
        }
        ArrivalSpec::Diurnal {
            amplitude, period, ..
        } => {
            rules.share(&path.key("amplitude"), *amplitude);
            rules.positive(&path.key("period"), period.0.as_secs_f64());
        }
        ArrivalSpec::Step { factor, .. } => rules.not_negative(&path.key("factor"), *factor),
        ArrivalSpec::Ramp { from, to, factor } => {
            rules.require(&path.key("to"), to >= from, "not be before `from`");
            rules.not_negative(&path.key("factor"), *factor);
        }
        ArrivalSpec::FlashCrowd { factor, .. } => {
            rules.not_negative(&path.key("factor"), *factor);
        }
    }
}

/// Shared prefixes.
pub(super) fn prefix(rules: &mut Rules<'_>, path: &Path, spec: &PrefixSpec) {
    rules.at_least_one(&path.key("groups"), spec.groups.into());
    length(rules, &path.key("tokens"), &spec.tokens, 0);
    if let Some(zipf) = spec.zipf {
        rules.not_negative(&path.key("zipf"), zipf);
    }
}

/// Conversations.
pub(super) fn session(rules: &mut Rules<'_>, path: &Path, spec: &SessionSpec) {
    length(rules, &path.key("turns"), &spec.turns, 1);
    time(rules, &path.key("think_time"), &spec.think_time);
    if let Some(max) = spec.max_context {
        rules.at_least_one(&path.key("max_context"), max.into());
    }
}
