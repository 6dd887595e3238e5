//! L5: what the layers see is gathered, published now and then, and arrives a little later or not at
//! all; layers read what was published last. Signals: risk (of tokens), novelty (change of states),
//! drift (of what verification finds), confidence (certainty of tokens).

use super::{need, positive, share};
use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};
use windtunnel_base::rng::Rng;

/// Parameters of L5.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlSettings {
    /// Seconds between publications.
    pub period: f64,
    /// Seconds until a publication is read.
    pub delay: f64,
    /// Share of publications that are lost.
    pub loss: f64,
    /// Weight of a new observation in the running means.
    pub smoothing: f64,
    /// How strongly thresholds follow: at 1 they are between half and one and a half times their own.
    pub gain: f64,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self {
            period: 1.0,
            delay: 0.0,
            loss: 0.0,
            smoothing: 0.1,
            gain: 1.0,
        }
    }
}

impl ControlSettings {
    pub(super) fn check(&self) -> Result<(), ReferenceError> {
        positive(self.period, "control.period")?;
        need(
            self.delay >= 0.0 && self.delay.is_finite(),
            "control.delay",
            "nothing arrives before it is sent",
            "take 0 or more seconds",
        )?;
        share(self.loss, "control.loss")?;
        share(self.smoothing, "control.smoothing")?;
        share(self.gain, "control.gain")
    }
}

/// What the layers share, each between 0 and 1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Signals {
    /// Mean risk of tokens.
    pub risk: f64,
    /// Mean change of states.
    pub novelty: f64,
    /// How far what verification finds lately is above what it found before.
    pub drift: f64,
    /// Mean certainty of tokens.
    pub confidence: f64,
}

impl Signals {
    /// Neither calm nor alarmed: thresholds are their own.
    pub const NEUTRAL: Self = Self {
        risk: 0.5,
        novelty: 0.5,
        drift: 0.0,
        confidence: 0.5,
    };

    /// How careful to be, between 0 and 1: as the worst of the signals says.
    pub fn caution(&self) -> f64 {
        self.risk
            .max(self.novelty)
            .max(self.drift)
            .max(1.0 - self.confidence)
            .clamp(0.0, 1.0)
    }

    /// What a threshold of a short path is multiplied by: less when careful.
    pub fn factor(&self, gain: f64) -> f64 {
        1.0 + gain * (0.5 - self.caution())
    }
}

/// What one turn tells.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Observation {
    /// Mean risk of its tokens, if it was run.
    pub risk: Option<f64>,
    /// Change of its state, if there was one to compare with.
    pub novelty: Option<f64>,
    /// Mean certainty of its tokens, if it was run.
    pub confidence: Option<f64>,
    /// Share that differed, if it was verified.
    pub differed: Option<f64>,
}

/// Gathers, publishes, and is read.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    settings: ControlSettings,
    now: Signals,
    /// Slow mean of what verification finds.
    usual: f64,
    lately: f64,
    published: Signals,
    published_at: f64,
    on_the_way: Vec<(f64, Signals)>,
    next: f64,
    /// Publications sent and lost.
    sent: u64,
    lost: u64,
}

impl ControlPlane {
    /// Nothing seen yet: neutral signals at time zero.
    pub const fn new(settings: ControlSettings) -> Self {
        Self {
            settings,
            now: Signals::NEUTRAL,
            usual: 0.0,
            lately: 0.0,
            published: Signals::NEUTRAL,
            published_at: 0.0,
            on_the_way: Vec::new(),
            next: settings.period,
            sent: 0,
            lost: 0,
        }
    }

    /// Learns of a turn.
    pub fn observe(&mut self, seen: &Observation) {
        let weight = self.settings.smoothing;
        let toward = |mean: &mut f64, value: Option<f64>, weight: f64| {
            if let Some(value) = value {
                *mean += weight * (value.clamp(0.0, 1.0) - *mean);
            }
        };
        toward(&mut self.now.risk, seen.risk, weight);
        toward(&mut self.now.novelty, seen.novelty, weight);
        toward(&mut self.now.confidence, seen.confidence, weight);
        toward(&mut self.lately, seen.differed, weight);
        toward(&mut self.usual, seen.differed, weight / 10.0);
        self.now.drift = (self.lately - self.usual).max(0.0);
    }

    /// Moves to `now` seconds: publishes what is due, and reads what has arrived.
    pub fn advance(&mut self, now: f64, rng: &mut Rng) {
        while self.next <= now {
            let lost = rng.chance(self.settings.loss);
            self.sent += 1;
            self.lost += u64::from(lost);
            if !lost {
                self.on_the_way.push((self.next, self.now));
            }
            self.next += self.settings.period;
        }
        let delay = self.settings.delay;
        let arrived = self.on_the_way.partition_point(|p| p.0 + delay <= now);
        if let Some((at, signals)) = self.on_the_way.drain(..arrived).next_back() {
            (self.published_at, self.published) = (at, signals);
        }
    }

    /// What was published last, and when.
    pub const fn read(&self) -> (Signals, f64) {
        (self.published, self.published_at)
    }

    /// Publications sent and lost.
    pub const fn publications(&self) -> (u64, u64) {
        (self.sent, self.lost)
    }

    /// What a threshold is multiplied by now.
    pub fn factor(&self) -> f64 {
        self.published.factor(self.settings.gain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean of |published - true| risk over a world whose risk jumps every 20 s; a turn each 0.1 s.
    fn regret(period: f64, loss: f64) -> f64 {
        let settings = ControlSettings {
            period,
            loss,
            smoothing: 0.5,
            ..ControlSettings::default()
        };
        let mut plane = ControlPlane::new(settings);
        let mut rng = Rng::from_seed(1);
        let mut total = 0.0;
        for i in 0..40_000 {
            let now = f64::from(i) * 0.1;
            let risk = if (i / 200) % 2 == 0 { 0.1 } else { 0.9 };
            plane.advance(now, &mut rng);
            total += (plane.read().0.risk - risk).abs();
            plane.observe(&Observation {
                risk: Some(risk),
                ..Observation::default()
            });
        }
        total / 40_000.0
    }

    #[test]
    fn regret_grows_with_the_period_and_with_loss() {
        let regrets: Vec<f64> = [0.1, 1.0, 3.0, 7.0].map(|p| regret(p, 0.0)).to_vec();
        assert!(regrets.windows(2).all(|w| w[0] < w[1]), "{regrets:?}");
        assert!(regret(1.0, 0.0) < regret(1.0, 0.3));
    }

    #[test]
    fn a_loop_through_stale_signals_stays_bounded() {
        // The worst case: full gain, and what is seen is the opposite of what was published.
        for period in [0.1, 1.0, 10.0] {
            let mut plane = ControlPlane::new(ControlSettings {
                period,
                delay: period,
                smoothing: 1.0,
                ..ControlSettings::default()
            });
            let mut rng = Rng::from_seed(1);
            let mut threshold = 0.5_f64;
            for i in 0..5_000 {
                plane.advance(f64::from(i) * 0.1, &mut rng);
                threshold = 0.5 * plane.factor();
                assert!((0.25..=0.75).contains(&threshold));
                let risk = (threshold - 0.25) * 2.0;
                plane.observe(&Observation {
                    risk: Some(risk),
                    novelty: Some(0.0),
                    confidence: Some(1.0),
                    differed: None,
                });
            }
            assert!(threshold.is_finite());
        }
    }

    #[test]
    fn layers_read_what_was_published_and_no_more() {
        let mut plane = ControlPlane::new(ControlSettings {
            delay: 0.5,
            smoothing: 1.0,
            ..ControlSettings::default()
        });
        let mut rng = Rng::from_seed(1);
        plane.observe(&Observation {
            risk: Some(0.9),
            ..Observation::default()
        });
        plane.advance(1.4, &mut rng);
        assert_eq!(plane.read(), (Signals::NEUTRAL, 0.0));
        plane.advance(1.5, &mut rng);
        let (signals, at) = plane.read();
        assert!((signals.risk - 0.9).abs() < 1e-12 && (at - 1.0).abs() < 1e-12);
        assert!((plane.factor() - 0.6).abs() < 1e-12);
    }
}
