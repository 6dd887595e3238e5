//! What is kept from one turn to the next: the last state and answer of every session (L0), what
//! verification has found (L4), and the signals that the layers share (L5).

use super::Settings;
use super::control::{ControlPlane, Observation};
use super::job::{Job, Mark};
use super::shadow::{Adaptive, Found};
use super::skip::{self, Decision, Features};
use super::turns::Decoding;
use crate::error::ReferenceError;
use std::collections::BTreeMap;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_tasks::tokenizer::encode;

/// The last turn of a session that was run.
#[derive(Clone, Debug, Default)]
struct Memory {
    state: Option<Features>,
    answer: Vec<u32>,
}

/// What L0 saw of a turn, and what becomes of it.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// None without L0.
    pub(super) decision: Option<Decision>,
    state: Option<Features>,
    change: Option<f64>,
    /// The answer to give, if the turn is skipped.
    pub(super) known: Option<Vec<u32>>,
    /// With which probability a skipped turn was chosen to be run all the same, for a check.
    pub(super) checked: Option<f64>,
}

impl Look {
    /// Whether models have to compute anything.
    pub(super) const fn runs(&self) -> bool {
        self.known.is_none() || self.checked.is_some()
    }
}

/// Layers that act on whole turns.
#[derive(Debug)]
pub(super) struct Between {
    sessions: BTreeMap<u64, Memory>,
    pub(super) skip_at: Adaptive,
    pub(super) control: ControlPlane,
    /// What verification found of skipped turns.
    pub(super) skips: Found,
    shadow_rng: Rng,
    control_rng: Rng,
}

impl Between {
    pub(super) fn new(settings: &Settings) -> Self {
        let streams = Streams::new(settings.seed);
        Self {
            sessions: BTreeMap::new(),
            skip_at: Adaptive::new(settings.skip.threshold, 2.0),
            control: ControlPlane::new(settings.control),
            skips: Found::default(),
            shadow_rng: streams.stream("cascade shadow", 0),
            control_rng: streams.stream("cascade control", 0),
        }
    }

    /// The answer that a session was given last by a turn that was run.
    pub(super) fn answer(&self, session: u64) -> &[u32] {
        self.sessions.get(&session).map_or(&[], |m| &m.answer)
    }

    /// L5: it is `now` seconds; thresholds follow what has arrived.
    pub(super) fn advance(&mut self, now: f64, decoding: &mut Decoding<'_>) {
        if decoding.settings.layers.l5 {
            self.control.advance(now, &mut self.control_rng);
            decoding.factor = self.control.factor();
            decoding.more = self.control.read().0.drift * decoding.settings.control.gain;
        }
    }

    /// L0: whether a turn over `state` is run. One that is skipped may be run beside the traffic.
    pub(super) fn look(
        &mut self,
        session: u64,
        state: &str,
        decoding: &mut Decoding<'_>,
    ) -> Result<Look, ReferenceError> {
        if !decoding.settings.layers.l0 {
            return Ok(Look::default());
        }
        let bytes: Vec<u32> = encode(state).collect();
        let embedding = decoding.light.embed(&bytes)?;
        let settings = &decoding.settings;
        let now = skip::features(&embedding, state.as_bytes(), &settings.skip);
        let memory = self.sessions.get(&session);
        let before = memory.and_then(|m| m.state.as_ref());
        let threshold = self.skip_at.value() * decoding.factor;
        let decision = skip::decide(before, &now, state, threshold, &settings.skip);
        let mut look = Look {
            decision: Some(decision),
            state: Some(now),
            ..Look::default()
        };
        match decision {
            Decision::Danger => {}
            Decision::Run(change) => look.change = change,
            Decision::Skip(change) => {
                look.change = Some(change);
                look.known = Some(self.answer(session).to_vec());
                // The nearer to the threshold, the riskier.
                let risk = change / threshold.max(f64::MIN_POSITIVE);
                let probability = settings.shadow.probability(risk);
                if settings.layers.l4 && self.shadow_rng.chance(probability) {
                    look.checked = Some(probability);
                } else {
                    self.skips.count(None);
                    self.tell(look.change, None, None);
                }
            }
        }
        Ok(look)
    }

    /// L4 and L5 of a turn that was run, and what its session remembers of it.
    pub(super) fn conclude(
        &mut self,
        session: u64,
        look: Look,
        job: &mut Job,
        decoding: &mut Decoding<'_>,
    ) -> Result<(), ReferenceError> {
        let mut differed = None;
        if decoding.settings.layers.l4 {
            differed = decoding.verify(job, &mut self.shadow_rng)?;
        }
        if let (Some(probability), Some(given)) = (look.checked, &look.known) {
            let wrong = f64::from(u8::from(given != job.answer()));
            self.skips.count(Some((probability, wrong)));
            self.skip_at.learn(wrong, &decoding.settings.shadow);
            differed = Some(wrong);
        }
        if decoding.settings.layers.l0 {
            let memory = self.sessions.entry(session).or_default();
            memory.state = look.state;
            memory.answer = job.answer().to_vec();
        }
        self.tell(look.change, differed, Some(job));
        Ok(())
    }

    /// Tells the control plane of a turn.
    fn tell(&mut self, change: Option<f64>, differed: Option<f64>, job: Option<&Job>) {
        let mean = |of: fn(&Mark) -> f64| {
            let marks = &job?.marks;
            Some(marks.iter().map(of).sum::<f64>() / marks.len().max(1) as f64)
        };
        self.control.observe(&Observation {
            risk: mean(|m| m.risk),
            novelty: change,
            confidence: mean(|m| 1.0 - m.unsure),
            differed,
        });
    }
}
