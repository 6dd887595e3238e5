//! A ladder of verifiers and the policy that climbs it: error costs are asymmetric, and so are the
//! prices of evidence.
//!
//! A level shows the policy evidence `x` about an answer, drawn from its truth; all that counts of it is
//! the log-likelihood ratio `L = ln(P(x | bad) / P(x | good))`. A score is normal with variance 1 and
//! mean 0 (good) or `d` (bad), so `L = d x - d²/2`; a test that fails `Se` of the bad and `1 - Sp` of the
//! good has `L = ln(Se / (1 - Sp))` or `ln((1 - Se) / Sp)`. Levels err independently of each other, given
//! the truth, so the log-odds of bad are those of the prior and the sum of all `L`.
//!
//! With a probability `p` of bad, deciding now loses `min(A p, R (1 - p))` on average, `A` being the cost
//! of a bad answer that is accepted and `R` that of a good one that is rejected: it is accepted below
//! `p = R / (A + R)`. A level that comes next is worth what it takes off that on average,
//! `min(A p, R (1 - p)) - E[min(A p', R (1 - p'))]`, `p'` being the probability after it. For a score the
//! expectation is `A p Φ(s - d) + R (1 - p) Φ(-s)` with the score `s = (ln(R / A) - ln(p / (1 - p))) / d +
//! d / 2` at which both mistakes would be equal; for a test the sum over both outcomes of
//! `min(A p P(outcome | bad), R (1 - p) P(outcome | good))`.

use super::{AnswerId, Check};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::standard_normal;
use windtunnel_scenarios::schema::VerificationSpec;
use windtunnel_scenarios::schema::ladder::{Climb, EvidenceSpec, LadderSpec, LevelSpec};

/// Levels, and who decides.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    levels: Vec<Level>,
    /// Log-odds of bad before any evidence.
    prior: f64,
    /// Log-odds of bad below which an answer is accepted.
    accept_below: f64,
    losses: Losses,
    climb: Climb,
    /// Most that the checks of an answer may cost on average, in nano-dollars.
    budget: Option<u64>,
    /// Answers that the first level was asked about, and what all levels have cost.
    answers: u64,
    spent: u128,
    streams: Streams,
}

#[derive(Clone, Debug)]
struct Level {
    check: Check,
    evidence: Evidence,
}

/// What the mistakes cost, in nano-dollars.
#[derive(Clone, Copy, Debug)]
struct Losses {
    bad_accepted: f64,
    good_rejected: f64,
}

impl Losses {
    /// Expected losses by accepting and by rejecting, the log-odds of bad being these.
    fn of_both(self, log_odds: f64) -> (f64, f64) {
        let bad = 1.0 / (1.0 + libm::exp(-log_odds));
        let good = 1.0 / (1.0 + libm::exp(log_odds));
        (self.bad_accepted * bad, self.good_rejected * good)
    }

    /// Log-odds of bad at which both mistakes cost the same.
    fn balance(self) -> f64 {
        libm::log(self.good_rejected / self.bad_accepted)
    }
}

#[derive(Clone, Copy, Debug)]
enum Evidence {
    Test { sensitivity: f64, specificity: f64 },
    Score { separation: f64 },
}

impl Evidence {
    fn new(spec: EvidenceSpec) -> Self {
        match spec {
            EvidenceSpec::Test {
                sensitivity,
                specificity,
            } => Self::Test {
                sensitivity,
                specificity,
            },
            score => Self::Score {
                separation: score.separation().unwrap_or_default(),
            },
        }
    }

    /// The log-likelihood ratio of what it shows of an answer.
    fn draw(self, rng: &mut Rng, good: bool) -> f64 {
        match self {
            Self::Test {
                sensitivity,
                specificity,
            } => {
                let fails = rng.f64() < if good { 1.0 - specificity } else { sensitivity };
                libm::log(match fails {
                    true => sensitivity / (1.0 - specificity),
                    false => (1.0 - sensitivity) / specificity,
                })
            }
            Self::Score { separation } => {
                let mean = if good { 0.0 } else { separation };
                let x = mean + standard_normal(rng);
                separation * x - separation * separation / 2.0
            }
        }
    }

    /// Expected loss by the better decision once this is known.
    fn loss_after(self, log_odds: f64, losses: Losses) -> f64 {
        let (accept, reject) = losses.of_both(log_odds);
        match self {
            Self::Test {
                sensitivity,
                specificity,
            } => {
                (accept * sensitivity).min(reject * (1.0 - specificity))
                    + (accept * (1.0 - sensitivity)).min(reject * specificity)
            }
            Self::Score { separation } => {
                let limit = (losses.balance() - log_odds) / separation + separation / 2.0;
                accept * normal_below(limit - separation) + reject * normal_below(-limit)
            }
        }
    }
}

/// Probability that a standard normal variable lies below `x`.
fn normal_below(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

impl Ladder {
    /// Of a checked scenario.
    pub(crate) fn new(ladder: &LadderSpec, spec: &VerificationSpec, streams: Streams) -> Self {
        let log_odds = |p: f64| libm::log(p) - libm::log1p(-p);
        let losses = Losses {
            bad_accepted: spec.false_accept_cost.0.0 as f64,
            good_rejected: spec.false_reject_cost.0.0 as f64,
        };
        let level = |level: &LevelSpec| Level {
            check: Check::new(level.latency, level.price, level.power),
            evidence: Evidence::new(level.evidence),
        };
        Self {
            levels: ladder.levels.iter().map(level).collect(),
            prior: log_odds(ladder.prior.unwrap_or(spec.error_rate)),
            accept_below: ladder.accept_below.map_or(losses.balance(), log_odds),
            losses,
            climb: ladder.climb,
            budget: ladder.budget.map(|budget| budget.per_answer()),
            answers: 0,
            spent: 0,
            streams,
        }
    }

    /// A level is asked; level 0 about an answer that none was asked about before.
    pub(crate) fn ask(&mut self, level: u8) -> Check {
        let check = self.levels[usize::from(level)].check;
        self.answers += u64::from(level == 0);
        self.spent += u128::from(check.price.0);
        check
    }

    /// What the policy says of an answer once a level and all below have spoken: whether it is accepted, or
    /// nothing, if the next level is to be asked. `may_climb`: there is somebody to ask.
    ///
    /// What a level shows is drawn from a stream of that level and answer, so it does not depend on who
    /// else is judged, nor on what the policy does with it.
    pub(crate) fn verdict(
        &self,
        level: u8,
        answer: AnswerId,
        good: bool,
        may_climb: bool,
    ) -> Option<bool> {
        let seen = self.levels[..=usize::from(level)].iter().enumerate();
        let evidence = seen.map(|(i, level)| {
            let mut rng = self.streams.stream("evidence", answer.of_level(i));
            level.evidence.draw(&mut rng, good)
        });
        let log_odds = self.prior + evidence.sum::<f64>();
        let next = self.levels.get(usize::from(level) + 1);
        if may_climb && next.is_some_and(|next| self.climbs(log_odds, next)) {
            return None;
        }
        Some(log_odds < self.accept_below)
    }

    fn climbs(&self, log_odds: f64, next: &Level) -> bool {
        let price = next.check.price.0;
        let affordable = self.budget.is_none_or(|each| {
            self.spent + u128::from(price) <= u128::from(each) * u128::from(self.answers)
        });
        affordable
            && match self.climb {
                Climb::Always => true,
                Climb::WorthIt => self.worth(log_odds, next.evidence) > price as f64,
            }
    }

    /// Expected loss that evidence removes, in nano-dollars.
    fn worth(&self, log_odds: f64, evidence: Evidence) -> f64 {
        let (accept, reject) = self.losses.of_both(log_odds);
        accept.min(reject) - evidence.loss_after(log_odds, self.losses)
    }
}

#[cfg(test)]
mod tests;
