//! The verifier: an environment model that sees whether an answer is good and errs at its own rates, or a
//! ladder of such, which a policy climbs by what they tell it. A check takes time and money of its own, so
//! it can never be free by omission.

/// Several verifiers, cheap ones first.
mod ladder;

pub(crate) use ladder::Ladder;

use windtunnel_base::ids::RequestId;
use windtunnel_base::quantity::{Money, Power, Span};
use windtunnel_base::rng::Streams;
use windtunnel_base::time::SimDuration;
use windtunnel_base::units::{MicroJoules, NanoUsd};
use windtunnel_ledger::verification::LevelTotals;
use windtunnel_scenarios::schema::VerificationSpec;

/// An answer as verifiers know it: whose it is, and whether it came in the place of a rejected one. What they
/// make of it follows from that and its truth, not from when they see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AnswerId(u64);

impl AnswerId {
    /// The answer to a request, or the one in the place of its rejected answer.
    pub(crate) fn new(request: RequestId, again: bool) -> Self {
        Self(u64::from(request.0) | u64::from(again) << 32)
    }

    /// A number of its own.
    pub(crate) const fn key(self) -> u64 {
        self.0
    }

    /// The same at one level of a ladder.
    fn of_level(self, level: usize) -> u64 {
        self.0 | (level as u64) << 40
    }
}

/// What became of an answer at the verifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Judgement {
    /// Nobody has looked, or there is nobody who could.
    #[default]
    Unjudged,
    /// There is a verifier, but it was not to be asked.
    Trusted,
    /// It is fit to be delivered, the verifier says.
    Accepted,
    /// It is not.
    Rejected,
}

impl Judgement {
    /// What the verifier said, if it looked.
    pub const fn verdict(self) -> Option<bool> {
        match self {
            Self::Unjudged | Self::Trusted => None,
            Self::Accepted => Some(true),
            Self::Rejected => Some(false),
        }
    }
}

impl From<bool> for Judgement {
    fn from(accepted: bool) -> Self {
        match accepted {
            true => Self::Accepted,
            false => Self::Rejected,
        }
    }
}

/// What one check takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Check {
    /// Its time.
    pub(crate) latency: SimDuration,
    /// Its price.
    pub(crate) price: NanoUsd,
    /// Its energy.
    pub(crate) energy: MicroJoules,
}

impl Check {
    fn new(latency: Span, price: Money, power: Power) -> Self {
        Self {
            latency: latency.0,
            price: price.0,
            energy: MicroJoules::from_f64(power.0 * latency.0.as_secs_f64() * 1e6),
        }
    }
}

/// Checks answers.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    sensitivity: f64,
    specificity: f64,
    /// One check.
    pub(crate) check: Check,
    /// Share of answers that are bad.
    error_rate: f64,
    streams: Streams,
    backup: Option<Backup>,
    /// Who checks in its place.
    pub(crate) ladder: Option<Ladder>,
    /// What each did: the levels of the ladder, or the only verifier; behind them the one that stands in.
    pub(crate) totals: Vec<LevelTotals>,
}

/// Who checks a sample while the verifier is out.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    share: f64,
    /// The one that checks.
    pub(crate) verifier: Box<Verifier>,
}

impl Verifier {
    pub(crate) fn new(spec: &VerificationSpec, streams: Streams) -> Self {
        let ladder = spec.ladder.as_ref();
        let mut totals: Vec<LevelTotals> = match ladder {
            Some(ladder) => {
                let levels = ladder.levels.iter();
                levels.map(|l| LevelTotals::named(&l.name)).collect()
            }
            None => vec![LevelTotals::named("verifier")],
        };
        totals.extend(spec.backup.iter().map(|_| LevelTotals::named("backup")));
        Self {
            sensitivity: spec.sensitivity,
            specificity: spec.specificity,
            check: Check::new(spec.latency, spec.price, spec.power),
            error_rate: spec.error_rate,
            streams,
            ladder: ladder.map(|ladder| Ladder::new(ladder, spec, streams)),
            backup: spec.backup.as_ref().map(|backup| Backup {
                share: backup.share,
                verifier: Box::new(Self {
                    sensitivity: backup.sensitivity,
                    specificity: backup.specificity,
                    check: Check::new(backup.latency, backup.price, Power::default()),
                    error_rate: spec.error_rate,
                    streams,
                    backup: None,
                    ladder: None,
                    totals: Vec::new(),
                }),
            }),
            totals,
        }
    }

    /// Who checks the answer to `request` while this one is out, if it is in the sample.
    pub(crate) fn backup(&self, request: RequestId) -> Option<&Self> {
        let backup = self.backup.as_ref()?;
        let luck = self.streams.stream("backup", u64::from(request.0)).f64();
        (luck < backup.share).then_some(&*backup.verifier)
    }

    /// The place of the one that stands in among [`Self::totals`].
    pub(crate) fn place_of_backup(&self) -> usize {
        self.totals.len().saturating_sub(1)
    }

    /// Whether it accepts an answer, which is good or bad in truth. One stream per
    /// request: the verdict does not depend on the order in which answers come, so two policies
    /// get the same verdicts on the same answers.
    pub(crate) fn accepts(&self, answer: AnswerId, good: bool) -> bool {
        let draw = self.streams.stream("verification", answer.0).f64();
        if good {
            draw < self.specificity
        } else {
            draw >= self.sensitivity
        }
    }

    /// Whether the answer that a request gets in the place of a rejected one is good.
    pub(crate) fn good_again(&self, request: RequestId) -> bool {
        let mut rng = self.streams.stream("answer again", u64::from(request.0));
        !rng.chance(self.error_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confusion_matrix_is_the_configured_one() {
        let spec = VerificationSpec {
            sensitivity: 0.95,
            specificity: 0.9,
            ..VerificationSpec::default()
        };
        let verifier = Verifier::new(&spec, Streams::new(5));
        let n = 100_000;
        let share = |good| {
            let accepted =
                (0..n).filter(|&i| verifier.accepts(AnswerId::new(RequestId(i), false), good));
            accepted.count() as f64 / f64::from(n)
        };
        // Four standard errors of a share: sqrt(p (1 - p) / n).
        let within = |p: f64| 4.0 * (p * (1.0 - p) / f64::from(n)).sqrt();
        assert!((share(true) - 0.9).abs() < within(0.9), "{}", share(true));
        assert!(
            (share(false) - 0.05).abs() < within(0.05),
            "{}",
            share(false)
        );
    }

    #[test]
    fn perfect_and_absent_minded_verifiers() {
        let verifier = |sensitivity, specificity| {
            let spec = VerificationSpec {
                sensitivity,
                specificity,
                ..VerificationSpec::default()
            };
            Verifier::new(&spec, Streams::new(1))
        };
        for i in 0..1000 {
            let id = AnswerId::new(RequestId(i), false);
            assert!(verifier(1.0, 1.0).accepts(id, true) && !verifier(1.0, 1.0).accepts(id, false));
            assert!(!verifier(0.0, 0.0).accepts(id, true) && verifier(0.0, 0.0).accepts(id, false));
        }
    }
}
