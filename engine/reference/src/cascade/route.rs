//! L2: tokens of little risk take a short path. Risk is how unsure the model is of a token, weighted by
//! the harm that a wrong one does, and it flows forward only: `r_t = max(sev_t, gamma * r_{t-1})`.

use super::{need, share};
use crate::backend::Sampled;
use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};
use windtunnel_tasks::tokenizer::EOS;
use windtunnel_tasks::{Severity, severity};

/// How a token is computed when its risk is small.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ShortPath {
    /// By the first layers of the frontier model.
    EarlyExit {
        /// How many.
        layers: usize,
    },
    /// By the light model, which keeps keys and values of its own.
    SmallModel,
    /// By the light model as drafts, all of which the frontier verifies in one step: answers are those
    /// of the frontier.
    Speculative {
        /// Drafts per step.
        drafts: usize,
    },
}

/// Parameters of L2.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteSettings {
    /// The short path.
    pub short: ShortPath,
    /// Tokens of this risk or more go to the frontier, in full.
    pub threshold: f64,
    /// What is left of a risk one token later.
    pub gamma: f64,
    /// Critical tokens have risk 1 however sure the model is.
    pub severity_override: bool,
    /// Weight of uncertainty by severity: low, high, critical.
    pub weights: [f64; 3],
}

impl Default for RouteSettings {
    fn default() -> Self {
        Self {
            short: ShortPath::SmallModel,
            threshold: 0.5,
            gamma: 0.9,
            severity_override: true,
            weights: [0.6, 0.8, 1.0],
        }
    }
}

impl RouteSettings {
    pub(super) fn check(&self) -> Result<(), ReferenceError> {
        need(
            self.threshold >= 0.0 && self.threshold.is_finite(),
            "route.threshold",
            "risk is between 0 and 1",
            "take 0 (all in full) to just above 1 (all short)",
        )?;
        share(self.gamma, "route.gamma")?;
        for weight in self.weights {
            share(weight, "route.weights")?;
        }
        match self.short {
            ShortPath::EarlyExit { layers: 0 } => need(
                false,
                "route.short.early_exit.layers",
                "a token needs a layer",
                "take 1 or more",
            ),
            ShortPath::Speculative { drafts: 0 } => need(
                false,
                "route.short.speculative.drafts",
                "there is nothing to verify",
                "take 1 or more",
            ),
            _ => Ok(()),
        }
    }
}

/// The harm a wrong token would do. The end of an answer counts as structure.
pub fn token_severity(token: u32) -> Severity {
    match u8::try_from(token) {
        Ok(byte) => severity(byte),
        Err(_) if token == EOS => Severity::High,
        Err(_) => Severity::Low,
    }
}

/// How unsure the model was of a token, between 0 and 1: its entropy as a share of the largest there
/// is, or what the best token lacks of a clear lead, whichever is more.
pub fn uncertainty(sampled: &Sampled, vocab: usize) -> f64 {
    let entropy = f64::from(sampled.entropy) / (vocab as f64).ln();
    entropy.max(1.0 - f64::from(sampled.margin)).clamp(0.0, 1.0)
}

/// The severity-weighted risk of one token by itself.
pub fn own_risk(sampled: &Sampled, vocab: usize, settings: &RouteSettings) -> f64 {
    let class = token_severity(sampled.token);
    if class == Severity::Critical && settings.severity_override {
        return 1.0;
    }
    let weight = settings.weights[match class {
        Severity::Low => 0,
        Severity::High => 1,
        Severity::Critical => 2,
    }];
    weight * uncertainty(sampled, vocab)
}

/// Risk of a token, from its own and that of the token before.
pub fn propagate(own: f64, before: f64, gamma: f64) -> f64 {
    own.max(gamma * before)
}

/// Risks of all tokens in order.
pub fn trace(own: &[f64], gamma: f64) -> Vec<f64> {
    own.iter()
        .scan(0.0, |risk, own| {
            *risk = propagate(*own, *risk, gamma);
            Some(*risk)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Rng;

    #[test]
    fn what_comes_later_changes_no_risk() {
        let mut rng = Rng::from_seed(4);
        for _ in 0..300 {
            let n = 2 + rng.below(40) as usize;
            let own: Vec<f64> = (0..n).map(|_| rng.f64()).collect();
            let at = 1 + rng.below(n as u64 - 1) as usize;
            let mut other = own.clone();
            for i in (at + 1..n).rev() {
                other.swap(i, at + rng.below((i - at + 1) as u64) as usize);
            }
            assert_eq!(trace(&own, 0.9)[..at], trace(&other, 0.9)[..at]);
        }
    }

    #[test]
    fn risk_falls_by_gamma_and_never_below_its_own() {
        let own = [1.0, 0.0, 0.0, 0.95, 0.1];
        let want = [1.0, 0.9, 0.81, 0.95, 0.855];
        for (got, want) in trace(&own, 0.9).iter().zip(want) {
            assert!((got - want).abs() < 1e-12);
        }
        assert_eq!(trace(&own, 0.0), own);
    }

    #[test]
    fn critical_tokens_are_never_of_little_risk_unless_the_override_is_off() {
        let sure = |token| Sampled {
            token,
            entropy: 0.0,
            margin: 1.0,
            log_probability: 0.0,
        };
        let on = RouteSettings::default();
        let off = RouteSettings {
            severity_override: false,
            ..on
        };
        let seven = u32::from(b'7');
        assert!((own_risk(&sure(seven), 258, &on) - 1.0).abs() < 1e-12);
        assert!(own_risk(&sure(seven), 258, &off) < 1e-12);
        let unsure = |token| Sampled {
            margin: 0.2,
            ..sure(token)
        };
        let risks = [b'a', b':', b'7'].map(|b| own_risk(&unsure(u32::from(b)), 258, &off));
        assert!(risks[0] < risks[1] && risks[1] < risks[2]);
    }
}
