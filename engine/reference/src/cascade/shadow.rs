//! L4: a share of what took a short path is computed again, more exactly, beside the traffic; how often
//! it differs moves the threshold of the short path until false accepts are at their target.

use super::{need, positive, share};
use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};
use windtunnel_engine::config::ComputedShadow;

/// What short answers are held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// The light model: cheap, and wrong sometimes itself. Where the light model *is* the short path
    /// it would agree with itself, and the frontier is taken instead.
    SmallModel,
    /// The frontier model in full.
    Full,
}

/// Parameters of L4.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShadowSettings {
    /// Least share that is verified.
    pub q_min: f64,
    /// Share more per unit of risk: `q = clip(q_min + k * risk, 0, 1)`.
    pub k: f64,
    /// False accepts to aim at.
    pub target: f64,
    /// How far one verification moves a threshold, as a share of where it began.
    pub eta: f64,
    /// What short answers are held against.
    pub fidelity: Fidelity,
}

impl Default for ShadowSettings {
    fn default() -> Self {
        Self::from(&ComputedShadow::default())
    }
}

impl From<&ComputedShadow> for ShadowSettings {
    fn from(spec: &ComputedShadow) -> Self {
        Self {
            q_min: spec.q_min,
            k: spec.k,
            target: spec.target,
            eta: spec.eta,
            fidelity: match spec.full {
                true => Fidelity::Full,
                false => Fidelity::SmallModel,
            },
        }
    }
}

impl ShadowSettings {
    pub(super) fn check(&self) -> Result<(), ReferenceError> {
        share(self.q_min, "shadow.q_min")?;
        share(self.target, "shadow.target")?;
        positive(self.eta, "shadow.eta")?;
        need(
            self.k >= 0.0 && self.k.is_finite(),
            "shadow.k",
            "more risk is not verified less",
            "take 0 or more",
        )
    }

    /// The share of answers of this risk that is verified.
    pub fn probability(&self, risk: f64) -> f64 {
        (self.q_min + self.k * risk).clamp(0.0, 1.0)
    }
}

/// A threshold that follows what verification finds: `theta += eta * (target - false accept)`, in units
/// of where it began. It stays between zero and `most`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Adaptive {
    theta: f64,
    began: f64,
    most: f64,
}

impl Adaptive {
    /// A threshold that begins at `theta` and never leaves `0..=most`.
    pub const fn new(theta: f64, most: f64) -> Self {
        Self {
            theta,
            began: theta,
            most,
        }
    }

    /// Where it is.
    pub const fn value(&self) -> f64 {
        self.theta
    }

    /// Learns of one verification: `false_accept` is the share of what was verified that differed.
    pub fn learn(&mut self, false_accept: f64, settings: &ShadowSettings) {
        let step = settings.eta * self.began * (settings.target - false_accept);
        self.theta = (self.theta + step).clamp(0.0, self.most);
    }
}

/// What verification has found.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// Answers that could have been verified.
    pub accepted: u64,
    /// Answers that were.
    pub verified: u64,
    /// Of those, answers that differed somewhere.
    #[serde(default)]
    pub mismatches: u64,
    /// Sum of the shares that differed.
    pub differed: f64,
    /// The same with each answer counted as often as it was likely to be left out: risky answers are
    /// verified more, and would be found more often than they are.
    pub weighted: f64,
    /// Answers accepted before the first that was found to differ.
    pub first_catch: Option<u64>,
}

impl Found {
    /// Counts an answer; `verified` holds its probability and the share that differed.
    pub fn count(&mut self, verified: Option<(f64, f64)>) {
        self.accepted += 1;
        let Some((probability, differed)) = verified else {
            return;
        };
        self.verified += 1;
        self.mismatches += u64::from(differed > 0.0);
        self.differed += differed;
        self.weighted += differed / probability;
        if differed > 0.0 && self.first_catch.is_none() {
            self.first_catch = Some(self.accepted);
        }
    }

    /// False accepts among all answers, estimated without bias (Horvitz and Thompson).
    pub fn false_accepts(&self) -> f64 {
        self.weighted / self.accepted.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Rng;

    /// False accepts at a threshold: risks are uniform, and an answer of risk `r` is wrong with
    /// probability `slope * r`. The expected share at threshold t is `slope * t / 2`.
    fn environment(rng: &mut Rng, theta: f64, slope: f64) -> Option<bool> {
        let risk = rng.f64();
        (risk < theta).then(|| rng.chance(slope * risk))
    }

    fn settle(slope: f64, theta: &mut Adaptive, rng: &mut Rng, checks: u32) -> f64 {
        let settings = ShadowSettings::default();
        let (mut wrong, mut n) = (0_u32, 0_u32);
        while n < checks {
            if let Some(bad) = environment(rng, theta.value(), slope) {
                theta.learn(f64::from(u8::from(bad)), &settings);
                n += 1;
                // The second half counts.
                if n > checks / 2 {
                    wrong += u32::from(bad);
                }
            }
        }
        f64::from(wrong) / f64::from(checks / 2)
    }

    #[test]
    fn false_accepts_come_within_a_fifth_of_the_target_and_follow_a_step() {
        let mut rng = Rng::from_seed(7);
        let mut theta = Adaptive::new(0.5, 1.0);
        // Four standard errors of 1 % over 100,000 are 0.13 of it.
        let calm = settle(0.05, &mut theta, &mut rng, 200_000);
        assert!((calm / 0.01 - 1.0).abs() < 0.2, "{calm}");
        let before = theta.value();
        let step = settle(0.1, &mut theta, &mut rng, 200_000);
        assert!((step / 0.01 - 1.0).abs() < 0.2, "{step}");
        assert!(
            theta.value() < before * 0.7,
            "{} after {before}",
            theta.value()
        );
        // Left alone it would have stayed twice as wrong as it may be.
        let fixed = 0.1 * before / 2.0;
        assert!(fixed > 0.015);
    }

    #[test]
    fn the_first_catch_takes_what_the_catalogue_says() {
        // V-D5: 1 / (q Se de) answers on average.
        let (q, se, de) = (0.1, 0.8, 0.2);
        let mut rng = Rng::from_seed(3);
        let runs = 20_000;
        let mut total = 0;
        for _ in 0..runs {
            let mut found = Found::default();
            while found.first_catch.is_none() {
                let bad = rng.chance(de);
                let verified = rng.chance(q).then(|| {
                    let caught = bad && rng.chance(se);
                    (q, f64::from(u8::from(caught)))
                });
                found.count(verified);
            }
            total += found.first_catch.unwrap_or(0);
        }
        let mean = total as f64 / f64::from(runs);
        let want = 1.0 / (q * se * de);
        // The delay is geometric: its deviation is its mean.
        assert!(
            (mean / want - 1.0).abs() < 4.0 / f64::from(runs).sqrt(),
            "{mean} {want}"
        );
    }

    #[test]
    fn risky_answers_are_verified_more_and_do_not_bias_the_estimate() {
        let settings = ShadowSettings::default();
        assert!((settings.probability(0.0) - 0.02).abs() < 1e-12);
        assert!((settings.probability(0.4) - 0.22).abs() < 1e-12);
        assert!((settings.probability(9.0) - 1.0).abs() < 1e-12);
        let mut rng = Rng::from_seed(11);
        let mut found = Found::default();
        let mut wrong = 0_u32;
        for _ in 0..400_000 {
            let risk = rng.f64();
            let bad = rng.chance(0.1 * risk);
            wrong += u32::from(bad);
            let q = settings.probability(risk);
            found.count(rng.chance(q).then(|| (q, f64::from(u8::from(bad)))));
        }
        let truth = f64::from(wrong) / 400_000.0;
        assert!((found.false_accepts() / truth - 1.0).abs() < 0.06);
        assert!(
            found.differed / found.verified as f64 > 1.2 * truth,
            "unweighted is biased"
        );
    }
}
