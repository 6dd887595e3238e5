//! Kernels that come into use in stages, joined to the world: who is served by them, what their answers are
//! compared with, and who withdraws them.

use super::World;
use super::probing::seen;
use crate::event::{Event, Hop, RolloutTurn};
use crate::fleet::machine::Machine;
use crate::gateway::rollout::{Next, Rollout};
use crate::verification::AnswerId;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::entry::Fact;
use windtunnel_ledger::rollout::RolloutTotals;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::rollout::RolloutStage;

/// The rollouts of a run.
#[derive(Debug)]
pub(super) struct Rollouts {
    /// By the kernel's number.
    kernels: Vec<Option<Rollout>>,
    /// What the frontier answered for each kernel's class, for replay.
    past: Vec<VecDeque<Past>>,
    /// Comparisons under way, by their works' ids.
    trials: FxHashMap<RequestId, Trial>,
    streams: Streams,
}

/// An answer of the frontier.
#[derive(Clone, Copy, Debug)]
struct Past {
    answer: AnswerId,
    attack: bool,
    good: bool,
}

/// A comparison under way.
#[derive(Clone, Copy, Debug)]
struct Trial {
    kernel: u8,
    stage: u8,
    /// Whether the answer to compare with is good, which the comparison alone may learn something of.
    good: bool,
    /// What decides whether the comparison errs.
    luck: f64,
    /// When the request came.
    since: SimTime,
}

impl Rollouts {
    /// Those of a checked scenario, if there are any.
    pub(super) fn new(scenario: &Scenario, streams: Streams) -> Option<Box<Self>> {
        let paths = scenario.gateway.paths.as_ref()?;
        if paths.rollouts.is_empty() {
            return None;
        }
        let rollout = |name: &str| {
            let spec = paths.rollouts.get(name)?;
            Some(Rollout::new(name, spec))
        };
        Some(Box::new(Self {
            kernels: paths.kernels.iter().map(|k| rollout(&k.name)).collect(),
            past: vec![VecDeque::new(); paths.kernels.len()],
            trials: FxHashMap::default(),
            streams,
        }))
    }

    fn get(&self, kernel: u8) -> Option<&Rollout> {
        self.kernels.get(usize::from(kernel))?.as_ref()
    }

    fn get_mut(&mut self, kernel: u8) -> Option<&mut Rollout> {
        self.kernels.get_mut(usize::from(kernel))?.as_mut()
    }

    /// A draw of a request's own, for one purpose.
    fn luck(&self, what: &str, key: u64) -> f64 {
        self.streams.stream(what, key).f64()
    }

    /// What became of each kernel.
    pub(super) fn totals(&self) -> Vec<RolloutTotals> {
        let all = self.kernels.iter().flatten();
        all.map(Rollout::totals).collect()
    }
}

/// What a comparison says of two answers, if it errs as luck will have it.
fn told(rollout: &Rollout, differs: bool, luck: f64) -> bool {
    let spec = rollout.spec();
    seen(differs, luck, (spec.sensitivity, spec.specificity))
}

impl<M: Machine> World<'_, M> {
    /// Sets the beginning of every rollout; until then nobody is served by its kernel.
    pub(super) fn announce_rollouts(&mut self) {
        let Some(rollouts) = &self.rollouts else {
            return;
        };
        let kernels = (0_u8..).zip(&rollouts.kernels);
        let begins = kernels.filter_map(|(kernel, r)| Some((kernel, r.as_ref()?.spec().at.0)));
        for (kernel, at) in begins.collect::<Vec<_>>() {
            self.offer_kernel(kernel, Some(0.0));
            self.schedule_rollout(kernel, at, RolloutTurn::Begin);
        }
    }

    fn offer_kernel(&mut self, kernel: u8, share: Option<f64>) {
        if let Some(paths) = &mut self.gateway.paths {
            paths.offer(kernel, share);
        }
    }

    /// Like a fault, it does not keep a run going when nobody is left.
    fn schedule_rollout(&mut self, kernel: u8, after: SimDuration, turn: RolloutTurn) {
        let event = Event::Rollout { kernel, turn };
        let at = self.now.saturating_add(after);
        self.queue.schedule(at, event.class(), event);
        self.idle_events += 1;
        self.turns_left += 1;
    }

    /// A kernel's rollout has a turn.
    pub(super) fn roll_out(&mut self, kernel: u8, turn: RolloutTurn) {
        self.idle_events -= 1;
        self.turns_left -= 1;
        match turn {
            RolloutTurn::Begin => {
                let now = self.now;
                let rollout = self.rollouts.as_mut().and_then(|r| r.get_mut(kernel));
                let next = rollout.map(|rollout| rollout.begin(now));
                self.go_on(kernel, next);
            }
            RolloutTurn::Replayed => self.replayed(kernel),
            RolloutTurn::Withdrawn => self.offer_kernel(kernel, Some(0.0)),
        }
    }

    /// What a rollout comes to next begins.
    fn go_on(&mut self, kernel: u8, next: Option<Next>) {
        let Some(rollouts) = &mut self.rollouts else {
            return;
        };
        match next {
            None | Some(Next::Stay) => {}
            Some(Next::Stage(stage)) => {
                rollouts.past[usize::from(kernel)].clear();
                let share = match stage {
                    RolloutStage::Full {} => None,
                    _ => Some(stage.exposure()),
                };
                self.offer_kernel(kernel, share);
                if let RolloutStage::Replay { lasts, .. } = stage {
                    self.schedule_rollout(kernel, lasts.0, RolloutTurn::Replayed);
                }
            }
            Some(Next::Withdraw) => {
                let longest = rollouts.get(kernel).map(|r| r.spec().propagation.0);
                let share = rollouts.luck("withdrawal", u64::from(kernel));
                let seconds = longest.unwrap_or_default().as_secs_f64() * share;
                let delay = SimDuration::from_secs_f64_saturating(seconds);
                self.schedule_rollout(kernel, delay, RolloutTurn::Withdrawn);
            }
        }
    }

    /// A replica is given a request: if it is a kernel's, in which stage of its rollout.
    pub(super) fn mark_stage(&mut self, slot: u32) {
        let flight = self.requests.get_mut(slot);
        let paths = self.gateway.paths.as_ref();
        let kernel = paths.and_then(|p| p.serving(flight.arrival.class, flight.lane));
        let rollouts = self.rollouts.as_ref();
        let rollout = kernel.zip(rollouts).and_then(|(k, r)| r.get(k));
        flight.answer.stage = rollout.map(Rollout::number);
    }

    /// The gateway has seen a whole answer to a request of a class whose kernel is rolled out: it may be compared
    /// with another. True if a human is to see it first.
    pub(super) fn try_out(&mut self, slot: u32) -> bool {
        let flight = self.requests.get(slot);
        let (class, lane, marked) = (flight.arrival.class, flight.lane, flight.answer.stage);
        let paths = self.gateway.paths.as_ref();
        let kernel = paths.and_then(|paths| paths.kernel_of(class));
        let rollouts = self.rollouts.as_mut();
        let found = kernel.zip(rollouts);
        let Some((kernel, rollout)) = found.and_then(|(k, r)| Some((k, r.get_mut(k)?))) else {
            return false;
        };
        rollout.request();
        let (now_in, number) = (rollout.stage().copied(), rollout.number());
        match (marked, now_in) {
            (Some(stage), _) => {
                let given_in = rollout.spec().stages.get(usize::from(stage)).copied();
                if now_in.is_some() && stage == number {
                    self.check_answer(slot, kernel, stage);
                }
                return self.suggest(slot, given_in);
            }
            (None, Some(RolloutStage::Shadow { share })) if lane == 0 => {
                self.shadow(slot, kernel, share);
            }
            (None, Some(RolloutStage::Replay { samples, .. })) if lane == 0 => {
                self.keep_for_replay(slot, kernel, samples);
            }
            _ => {}
        }
        false
    }

    /// Asks the reference what a kernel has answered to a user, if the request is drawn and a test is under way.
    fn check_answer(&mut self, slot: u32, kernel: u8, stage: u8) {
        let request = u64::from(self.requests.judged_as(slot).0);
        let Some(rollouts) = &self.rollouts else {
            return;
        };
        let drawn = rollouts.luck("rollout check", request);
        let Some(rollout) = rollouts.get(kernel) else {
            return;
        };
        let tested = !matches!(rollout.stage(), Some(RolloutStage::Full {}));
        if !tested || drawn >= rollout.spec().checked {
            return;
        }
        let (reference, price) = (rollout.spec().reference, rollout.spec().price.0);
        let work = self.begin_trial(slot, (kernel, stage), price);
        self.ask_reference(work, reference);
    }

    /// The kernel answers a copy of what the frontier has answered.
    fn shadow(&mut self, slot: u32, kernel: u8, share: f64) {
        let request = u64::from(self.requests.judged_as(slot).0);
        let (Some(rollouts), Some(paths)) = (&self.rollouts, &self.gateway.paths) else {
            return;
        };
        let Some(rollout) = rollouts.get(kernel) else {
            return;
        };
        if rollouts.luck("rollout check", request) >= share {
            return;
        }
        let (pool, stage, price) = (
            paths.pool_of(kernel),
            rollout.number(),
            rollout.spec().price.0,
        );
        let work = self.begin_trial(slot, (kernel, stage), price);
        self.probe_in_lane(work, pool);
    }

    /// Begins the work whose answer an answer is compared with.
    fn begin_trial(&mut self, slot: u32, (kernel, stage): (u8, u8), price: NanoUsd) -> u32 {
        let request = u64::from(self.requests.judged_as(slot).0);
        let flight = self.requests.get(slot);
        let (good, since) = (flight.answer.good, flight.arrival.at);
        let (work, id) = self.begin_probe(slot, price);
        if let Some(rollouts) = &mut self.rollouts {
            let trial = Trial {
                kernel,
                stage,
                good,
                luck: rollouts.luck("rollout comparison", request),
                since,
            };
            rollouts.trials.insert(id, trial);
        }
        work
    }

    fn keep_for_replay(&mut self, slot: u32, kernel: u8, samples: u64) {
        let answer = self.requests.judged_answer(slot);
        let flight = self.requests.get(slot);
        let past = Past {
            answer,
            attack: flight.arrival.truth.attack,
            good: flight.answer.good,
        };
        if let Some(rollouts) = &mut self.rollouts {
            let kept = &mut rollouts.past[usize::from(kernel)];
            while kept.len() as u64 >= samples {
                kept.pop_front();
            }
            kept.push_back(past);
        }
    }

    /// A kernel has answered requests of the past; if the test has not come to an end, it does so again.
    fn replayed(&mut self, kernel: u8) {
        let Some(rollouts) = &mut self.rollouts else {
            return;
        };
        let past = std::mem::take(&mut rollouts.past[usize::from(kernel)]);
        for past in past {
            let differs = self.answers_otherwise(kernel, past);
            let Some(rollouts) = &mut self.rollouts else {
                return;
            };
            let luck = rollouts.luck("rollout comparison", past.answer.key());
            let Some(rollout) = rollouts.get_mut(kernel) else {
                return;
            };
            self.recorder.probe(self.now, rollout.spec().price.0);
            let told = told(rollout, differs, luck);
            if let Some(next) = rollout.outcome(rollout.number(), told, self.now) {
                return self.go_on(kernel, Some(next));
            }
        }
        let rollout = self.rollouts.as_ref().and_then(|r| r.get(kernel));
        if let Some(RolloutStage::Replay { lasts, .. }) = rollout.and_then(Rollout::stage) {
            self.schedule_rollout(kernel, lasts.0, RolloutTurn::Replayed);
        }
    }

    /// Whether a kernel answers a request of the past otherwise than the frontier did.
    fn answers_otherwise(&mut self, kernel: u8, past: Past) -> bool {
        let (Some(quality), Some(paths)) = (&mut self.quality, &self.gateway.paths) else {
            return false;
        };
        let pool = usize::from(paths.pool_of(kernel));
        let Some(&replica) = paths.pools().get(pool).and_then(|ids| ids.first()) else {
            return false;
        };
        let request = (past.answer, past.attack);
        let answer = quality.of(request, ReplicaId(replica), Some(kernel), self.now);
        answer.good != past.good
    }

    /// A comparison's other answer is there, well or badly.
    pub(super) fn tried(&mut self, id: RequestId, good: bool) {
        let Some(rollouts) = &mut self.rollouts else {
            return;
        };
        let Some(trial) = rollouts.trials.remove(&id) else {
            return;
        };
        let Some(rollout) = rollouts.get_mut(trial.kernel) else {
            return;
        };
        rollout.told_after(self.now.since(trial.since));
        let told = told(rollout, trial.good != good, trial.luck);
        let next = rollout.outcome(trial.stage, told, self.now);
        self.go_on(trial.kernel, next);
    }

    /// A comparison came to nothing.
    pub(super) fn trial_failed(&mut self, id: RequestId) {
        if let Some(rollouts) = &mut self.rollouts {
            rollouts.trials.remove(&id);
        }
    }

    /// A kernel's answer may be a suggestion only: then a human sees it before anybody else.
    fn suggest(&mut self, slot: u32, stage: Option<RolloutStage>) -> bool {
        let Some(RolloutStage::Assist { latency, price, .. }) = stage else {
            return false;
        };
        self.recorder.probe(self.now, price.0);
        self.hop(slot, latency.0, Hop::Suggested);
        true
    }

    /// A human has decided about a suggestion: it is delivered, or the frontier answers.
    pub(super) fn suggested(&mut self, slot: u32) {
        let answer = self.requests.judged_answer(slot);
        let flight = self.requests.get(slot);
        let (class, good) = (flight.arrival.class, flight.answer.good);
        let stage = flight.answer.stage.map(usize::from);
        let kernel = self.gateway.paths.as_ref().and_then(|p| p.kernel_of(class));
        let (Some(rollouts), Some(kernel)) = (&self.rollouts, kernel) else {
            return;
        };
        let spec = rollouts.get(kernel).map(Rollout::spec);
        let stage = spec.zip(stage).and_then(|(spec, i)| spec.stages.get(i));
        let Some(RolloutStage::Assist {
            accept_bad,
            accept_good,
            ..
        }) = stage
        else {
            return;
        };
        let share = if good { accept_good } else { accept_bad };
        let accepted = rollouts.luck("assist", answer.key()) < *share;
        self.requests.get_mut(slot).answer.judged = accepted.into();
        self.fact(slot, Fact::Verified { accepted });
        if !accepted {
            return self.fall_back(slot);
        }
        if self.answers.is_some() {
            self.fetched(slot);
        }
        self.hop(slot, self.fleet.network.client, Hop::AnswerDelivered);
    }

    /// An answer that a kernel gave in a stage of its rollout has reached its user.
    pub(super) fn reached_user(&mut self, slot: u32, stage: u8) {
        let flight = self.requests.get(slot);
        let (class, worse) = (flight.arrival.class, flight.answer.worse);
        let kernel = self.gateway.paths.as_ref().and_then(|p| p.kernel_of(class));
        let rollouts = self.rollouts.as_mut();
        if let Some(rollout) = kernel.zip(rollouts).and_then(|(k, r)| r.get_mut(k)) {
            rollout.reached(stage, worse);
        }
    }
}
