//! The verifier: an environment model that sees whether an answer is good and errs at its own rates.
//! A check takes time and money of its own, so it can never be free by omission.

use windtunnel_base::ids::RequestId;
use windtunnel_base::rng::Streams;
use windtunnel_base::time::SimDuration;
use windtunnel_base::units::NanoUsd;
use windtunnel_scenarios::schema::VerificationSpec;

/// Checks answers.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    sensitivity: f64,
    specificity: f64,
    /// Time of one check.
    pub(crate) latency: SimDuration,
    /// Price of one check.
    pub(crate) price: NanoUsd,
    streams: Streams,
    backup: Option<Backup>,
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
        Self {
            sensitivity: spec.sensitivity,
            specificity: spec.specificity,
            latency: spec.latency.0,
            price: spec.price.0,
            streams,
            backup: spec.backup.as_ref().map(|backup| Backup {
                share: backup.share,
                verifier: Box::new(Self {
                    sensitivity: backup.sensitivity,
                    specificity: backup.specificity,
                    latency: backup.latency.0,
                    price: backup.price.0,
                    streams,
                    backup: None,
                }),
            }),
        }
    }

    /// Who checks the answer to `request` while this one is out, if it is in the sample.
    pub(crate) fn backup(&self, request: RequestId) -> Option<&Self> {
        let backup = self.backup.as_ref()?;
        let luck = self.streams.stream("backup", u64::from(request.0)).f64();
        (luck < backup.share).then_some(&*backup.verifier)
    }

    /// Whether it accepts the answer to `request`, which is good or bad in truth. One stream per
    /// request: the verdict does not depend on the order in which answers come, so two policies
    /// get the same verdicts on the same answers.
    pub(crate) fn accepts(&self, request: RequestId, good: bool) -> bool {
        let draw = self
            .streams
            .stream("verification", u64::from(request.0))
            .f64();
        if good {
            draw < self.specificity
        } else {
            draw >= self.sensitivity
        }
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
            let accepted = (0..n).filter(|&i| verifier.accepts(RequestId(i), good));
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
            let id = RequestId(i);
            assert!(verifier(1.0, 1.0).accepts(id, true) && !verifier(1.0, 1.0).accepts(id, false));
            assert!(!verifier(0.0, 0.0).accepts(id, true) && verifier(0.0, 0.0).accepts(id, false));
        }
    }
}
