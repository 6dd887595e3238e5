//! Turns of sessions through a cascade of models: what each costs, and whether its answer survives.
//! An environment model with a few decisions of an operator in it; a station serves by it.

/// What a turn costs.
pub mod cost;
/// Contexts kept between turns.
mod contexts;

use crate::config::CascadeSpec;
use contexts::Contexts;
use cost::{Parts, TurnShape};
use windtunnel_base::rng::{Rng, mix64};
use windtunnel_base::time::{SimDuration, SimTime};

/// What becomes of one turn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Turn {
    /// How long it is served.
    pub time: SimDuration,
    /// Where that time goes.
    pub parts: Parts,
    /// Prompt tokens found in a kept context.
    pub cached_tokens: u32,
    /// It was skipped.
    pub skipped: bool,
    /// Its answer is bad because of a layer, whatever it would have been.
    pub spoiled: bool,
    /// It was verified beside the traffic.
    pub verified: bool,
    /// Verification held its answer for bad, rightly or not.
    pub flagged: bool,
}

/// A turn as it arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// When.
    pub now: SimTime,
    /// Of which session.
    pub session: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
}

/// Draws of one turn, all made whether they are needed or not.
struct Draws {
    unchanged: bool,
    detected: f64,
    wrong: f64,
    sampled: f64,
    seen: f64,
}

/// A cascade with its state.
#[derive(Clone, Debug)]
pub struct Cascade {
    spec: CascadeSpec,
    contexts: Contexts,
    /// The threshold of L2 as L4 has moved it.
    threshold: f64,
    /// Bad answers found lately, as a share, corrected for the verifier's errors.
    found: f64,
    /// What was published last, and what is on its way.
    published: f64,
    on_the_way: std::collections::VecDeque<(SimTime, f64)>,
    next_publication: SimTime,
    publications: u64,
}

/// Weight of the newest verification in the mean that is published.
const SMOOTHING: f64 = 0.05;

/// Below this threshold nothing would be short any more, and above it everything.
const THRESHOLDS: (f64, f64) = (0.0, 0.99);

impl Cascade {
    /// A cascade that has seen nothing.
    pub fn new(spec: &CascadeSpec) -> Self {
        Self {
            contexts: Contexts::new(spec),
            threshold: spec.route.threshold,
            found: spec.shadow.target,
            published: spec.shadow.target,
            on_the_way: std::collections::VecDeque::new(),
            next_publication: SimTime::ZERO.saturating_add(spec.control.period.0),
            publications: 0,
            spec: spec.clone(),
        }
    }

    /// The threshold of L2 that holds now.
    pub fn threshold(&self) -> f64 {
        if !self.spec.layers.l5 {
            return self.threshold;
        }
        // At the target nothing changes; at none the threshold rises, at twice the target it falls.
        let caution = (self.published / (2.0 * self.spec.shadow.target)).clamp(0.0, 1.0);
        let factor = 1.0 + self.spec.control.gain * (0.5 - caution);
        (self.threshold * factor).clamp(THRESHOLDS.0, THRESHOLDS.1)
    }

    /// Takes a turn. Turns come in order of time.
    pub fn turn(&mut self, arrival: &Arrival) -> Turn {
        self.publish(arrival.now);
        let layers = self.spec.layers;
        let draws = self.draws(arrival);
        let context = self.contexts.visit(arrival);
        let mut parts = Parts::default();
        if layers.l0 {
            parts.skip = self.spec.skip.cost.0.as_secs_f64();
            let skips = if draws.unchanged {
                draws.detected < self.spec.skip.tpr
            } else {
                draws.detected < self.spec.skip.fpr
            };
            // A first turn has no answer to repeat.
            if context.is_some() && skips {
                return Turn {
                    time: seconds(parts.total()),
                    parts,
                    cached_tokens: arrival.prompt_tokens,
                    skipped: true,
                    spoiled: !draws.unchanged,
                    verified: false,
                    flagged: false,
                };
            }
        }
        let keeps = layers.l3 && self.spec.evidence.prefix;
        let cached = context.filter(|_| keeps).unwrap_or(0);
        let cached_tokens = cached.min(arrival.prompt_tokens.saturating_sub(1));
        let threshold = self.threshold();
        let shape = TurnShape {
            prompt_tokens: arrival.prompt_tokens,
            cached_tokens,
            output_tokens: arrival.output_tokens,
            large_share: if layers.l2 {
                self.spec.large_share(threshold)
            } else {
                1.0
            },
        };
        parts.add(&self.spec.parts(&shape));
        let spoiled = layers.l2 && draws.wrong < self.wrong(arrival, threshold);
        let verified = layers.l2 && layers.l4 && draws.sampled < self.probability(&shape);
        let mut flagged = false;
        if verified {
            parts.verify = self.spec.verification(&shape);
            flagged = self.learn(spoiled, draws.seen);
        }
        Turn {
            time: seconds(parts.total()),
            parts,
            cached_tokens,
            skipped: false,
            spoiled,
            verified,
            flagged,
        }
    }

    /// The share of answers like this that is verified.
    fn probability(&self, shape: &TurnShape) -> f64 {
        let shadow = &self.spec.shadow;
        (shadow.q_min + shadow.k * shape.large_share).clamp(0.0, 1.0)
    }

    /// The probability that an answer has a wrong token of the light model.
    fn wrong(&self, arrival: &Arrival, threshold: f64) -> f64 {
        let world = &self.spec.world;
        let drifted = world
            .drift_at
            .is_some_and(|at| arrival.now.as_nanos() >= at.0.as_nanos());
        let factor = if drifted { world.drift_factor } else { 1.0 };
        let short = self.spec.short_share(threshold) * f64::from(arrival.output_tokens);
        let error = (world.error * factor).min(1.0) * self.spec.mean_error(threshold);
        1.0 - libm::pow(1.0 - error.min(1.0), short)
    }

    /// L4: what one verification saw moves the threshold and the mean that L5 publishes. Gives what it
    /// held the answer for.
    fn learn(&mut self, spoiled: bool, seen: f64) -> bool {
        let shadow = &self.spec.shadow;
        let flagged = if spoiled {
            seen < shadow.sensitivity
        } else {
            seen >= shadow.specificity
        };
        // Without bias for the verifier's own errors (Rogan and Gladen 1978).
        let alarms = 1.0 - shadow.specificity;
        let power = shadow.sensitivity - alarms;
        let bad = (f64::from(u8::from(flagged)) - alarms) / power;
        let step = shadow.eta * (shadow.target - bad);
        self.threshold = (self.threshold + step).clamp(THRESHOLDS.0, THRESHOLDS.1);
        self.found += SMOOTHING * (bad - self.found);
        flagged
    }

    /// L5: publishes what is due and reads what has arrived.
    fn publish(&mut self, now: SimTime) {
        let control = &self.spec.control;
        if !self.spec.layers.l5 {
            return;
        }
        while self.next_publication <= now {
            let at = self.next_publication;
            self.publications += 1;
            let lost = uniform(mix64(self.publications ^ 0x7075_626c_6973_6864)) < control.loss;
            if !lost {
                let read = at.saturating_add(control.delay.0);
                self.on_the_way.push_back((read, self.found));
            }
            // Long silences publish the same over and over: once is enough.
            let period = control.period.0.as_nanos().max(1);
            let missed = now.since(at).as_nanos() / period;
            let next = period.saturating_mul(missed.max(1));
            self.next_publication = at.saturating_add(SimDuration::from_nanos(next));
        }
        while let Some(&(read, value)) = self.on_the_way.front() {
            if read > now {
                break;
            }
            self.published = value.max(0.0);
            self.on_the_way.pop_front();
        }
    }

    /// What chance holds for a turn: by session and lengths, which are the same whatever the
    /// layers do.
    fn draws(&self, arrival: &Arrival) -> Draws {
        let lengths = u64::from(arrival.prompt_tokens) << 32 | u64::from(arrival.output_tokens);
        let mut rng = Rng::from_seed(mix64(mix64(arrival.session) ^ lengths));
        Draws {
            unchanged: rng.chance(self.spec.world.no_change),
            detected: rng.f64(),
            wrong: rng.f64(),
            sampled: rng.f64(),
            seen: rng.f64(),
        }
    }
}

fn uniform(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

fn seconds(s: f64) -> SimDuration {
    SimDuration::from_secs_f64(s).unwrap_or(SimDuration::from_nanos(u64::MAX >> 8))
}

#[cfg(test)]
mod tests;
