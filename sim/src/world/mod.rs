//! The world: all state of a run, and the one place that knows every stage. An event is taken, handed
//! to the side it concerns, and followed to the end of its instant; what takes no time takes no
//! event.

/// The state of a run at time zero.
mod begin;
/// How a run ends: what must hold, and its result.
mod finish;
/// Requests under way, in reused slots.
mod requests;
/// Where everything that happens is written down.
mod recorder;
/// The state of the system at equal distances.
mod sampling;
/// The clients' side.
mod client;
/// Work that is no request of a client's.
mod works;
/// Calls whose clients make attempts.
mod attempts;
/// The gateway's side.
mod gateway;
/// Where requests go.
mod dispatch;
/// What comes back.
mod returns;
/// Who is asked whether an answer is good.
mod verification;
/// The gateway's pools, rooms and policies.
mod lanes;
/// The gateway's stages.
mod stages;
/// Which pool a request goes to.
mod pools;
/// Kernels that are probed.
mod probing;
/// Kernels that come into use in stages.
mod rollout;
/// What goes wrong.
mod faults;
/// Replicas that fail one request after the other.
mod outliers;
/// Stored answers, and waiting for the answer to another.
mod answers;
/// How many replicas there are.
mod scaling;
/// What the gateway knows when it decides.
mod signals;
/// The store that gateways share.
mod store;
/// The cache of prompts that replicas share.
mod shared_cache;
/// What was computed.
mod computed;
/// Tokens that are paid for.
mod token_prices;
/// The replicas' side.
mod replica;

use crate::event::{Event, Hop, Source};
use crate::fleet::Fleet;
use crate::fleet::machine::Machine;
use crate::fleet::shared_cache::SharedCache;
use crate::laws::progress::Progress;
use crate::quality::Quality;
use crate::run::{Progress as Report, RunError, Step};
use crate::verification::Verifier;
use answers::Desk;
use attempts::Attempts;
use client::ClassRules;
use faults::Faults;
use gateway::Gateway;
use probing::Probes;
use recorder::Recorder;
use requests::Requests;
use rollout::Rollouts;
use sampling::{Sampler, Totals};
use scaling::Scaling;
use token_prices::TokenPrices;
use windtunnel_base::queue::EventQueue;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::{EngineOutcome, Onward};
use windtunnel_ledger::entry::Fact;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::Names;
use windtunnel_scenarios::workload::Workload;

/// Events between two reports of progress.
const EVENTS_PER_REPORT: u64 = 1 << 16;

/// A run under way.
pub(crate) struct World<'a, M> {
    now: SimTime,
    queue: EventQueue<Event>,
    /// Scrapes, faults and what scales the fleet, in the queue: they alone do not keep a run going.
    idle_events: usize,
    /// Of those, faults and replicas on order: while requests are in the system, something may still
    /// come of them.
    turns_left: usize,
    faults: Option<Box<Faults>>,
    workload: &'a mut dyn Workload,
    next_arrival: Option<SimTime>,
    /// The workload is told who leaves.
    heeds_departures: bool,
    order: [Source; 3],
    cut_at: SimTime,
    warm_up: Option<SimTime>,
    /// Prompts of different tenants are different content.
    isolates_tenants: bool,
    classes: Vec<ClassRules>,
    requests: Requests,
    /// Set if clients make attempts.
    attempts: Option<Box<Attempts>>,
    gateway: Gateway,
    /// Stored answers and who waits for whom, if anybody ever does.
    answers: Option<Box<Desk>>,
    fleet: Fleet<M>,
    /// The cache of prompts behind all replicas, if there is one.
    shared_cache: Option<Box<SharedCache>>,
    /// Who orders replicas and lets them go, if somebody does.
    scaling: Option<Box<Scaling>>,
    /// What tokens cost, if they do.
    token_prices: Option<Box<TokenPrices>>,
    verifier: Option<Verifier>,
    /// Whether answers are good, if that depends on who gives them.
    quality: Option<Box<Quality>>,
    /// Who probes kernels, if anybody does.
    probes: Option<Box<Probes>>,
    /// Kernels that come into use in stages, if any do.
    rollouts: Option<Box<Rollouts>>,
    recorder: Recorder,
    sampler: Sampler,
    sent: u32,
    /// Works begun that are no requests of clients', and those of them not closed yet.
    begun: u32,
    works: u32,
    /// Sent and not yet ended.
    in_system: u32,
    /// Integral of that over time, in request-nanoseconds, up to `in_system_since`.
    in_system_ns: u128,
    in_system_since: SimTime,
    events: u64,
    /// Slots that may have become free in this instant.
    leaving: Vec<u32>,
    /// Buffers, kept for their capacity.
    outcomes: Vec<EngineOutcome>,
    settling: Vec<u32>,
    /// A replica that computes could not go on.
    failure: Option<RunError>,
}

/// Waits until an instant is due, in runs that keep a pace.
#[inline]
fn wait(pace: &mut Option<&mut dyn FnMut(SimTime)>, at: SimTime) {
    if let Some(pace) = pace {
        pace(at);
    }
}

impl<'a, M: Machine> World<'a, M> {
    /// Runs to the end, or to a broken law.
    pub(crate) fn run(
        mut self,
        names: &Names,
        seed: u64,
        mut progress: Option<&mut dyn FnMut(Report)>,
        mut steps: Option<&mut dyn FnMut(&Step)>,
        mut pace: Option<&mut dyn FnMut(SimTime)>,
    ) -> Result<RunResult, RunError> {
        loop {
            let next = self.next();
            if self.fleet.is_unsettled() && next.is_none_or(|(at, _)| at > self.now) {
                self.settle();
                if let Some(failure) = self.failure.take() {
                    return Err(failure);
                }
                self.tidy();
                self.recorder.verdict()?;
                continue;
            }
            let Some((at, source)) = next else {
                break;
            };
            if at > self.cut_at {
                let end = self.cut_at;
                wait(&mut pace, end);
                self.sample_up_to(end);
                self.cut_off(end);
                self.tell_steps(&mut steps);
                self.close_replicas()?;
                return Ok(self.finish(names, seed)?);
            }
            if at > self.now {
                wait(&mut pace, at);
                self.sample_up_to(at);
                self.now = at;
            }
            self.handle(source);
            self.recorder.verdict()?;
            self.tell_steps(&mut steps);
            if self.events.is_multiple_of(EVENTS_PER_REPORT)
                && let Some(report) = &mut progress
            {
                report(Report {
                    now: self.now,
                    sent: u64::from(self.sent),
                    in_system: u64::from(self.in_system),
                    events: self.events,
                });
            }
        }
        self.check_quiet()?;
        self.tell_steps(&mut steps);
        self.close_replicas()?;
        Ok(self.finish(names, seed)?)
    }

    /// Tells of the steps that ended since it was last called.
    #[inline]
    fn tell_steps(&mut self, listener: &mut Option<&mut dyn FnMut(&Step)>) {
        if let (Some(steps), Some(tell)) = (&mut self.recorder.steps, listener) {
            steps.drain(..).for_each(|step| tell(&step));
        }
    }

    /// What is due next. Scrapes alone do not keep a run going.
    #[inline]
    fn next(&mut self) -> Option<(SimTime, Source)> {
        let arrival = self.next_arrival.unwrap_or(SimTime::MAX);
        let step = self.fleet.agenda.earliest();
        if self.queue.is_empty() && arrival != step {
            // Mostly nothing travels, and nothing is simultaneous.
            return Some(if arrival < step {
                (arrival, Source::Arrival)
            } else {
                (step, Source::Step)
            });
        }
        self.next_of_all()
    }

    /// [`Self::next`], whatever is due.
    fn next_of_all(&mut self) -> Option<(SimTime, Source)> {
        let mut first: Option<(SimTime, Source)> = None;
        for source in self.order {
            let at = match source {
                Source::Step => self.fleet.agenda.next_at(),
                Source::Queue => self.queue.next_time(),
                Source::Arrival => self.next_arrival,
            };
            if let Some(at) = at
                && first.is_none_or(|(earliest, _)| at < earliest)
            {
                first = Some((at, source));
            }
        }
        if let Some((at, Source::Queue)) = first
            && self.queue.len() == self.idle_events
            && (self.turns_left == 0 || self.in_system + self.works == 0)
            && self.next_arrival.is_none()
            && self.fleet.agenda.next_at().is_none()
            && !(self.fleet.is_unsettled() && at == self.now)
        {
            return None;
        }
        first
    }

    /// Handles one event.
    #[inline]
    fn handle(&mut self, source: Source) {
        self.events += 1;
        if let Some(laws) = &mut self.recorder.laws {
            let verdict = laws.progress.event(self.now, self.requests.len());
            self.recorder.judge(verdict);
        }
        match source {
            Source::Step => self.end_step(),
            Source::Arrival => self.arrive(),
            Source::Queue => match self.queue.pop() {
                Some((_, Event::Hop { slot, hop })) => {
                    self.requests.get_mut(slot).hops -= 1;
                    self.arrived(slot, hop);
                    self.leaving.push(slot);
                }
                Some((_, Event::Timeout { slot })) => self.give_up(slot),
                Some((_, Event::FollowerTimeout { slot })) => self.follower_timeout(slot),
                Some((_, Event::Retry { slot })) => self.retry(slot),
                Some((_, Event::Hedge { slot })) => self.hedge(slot),
                Some((_, Event::HeldDue)) => self.held_due(),
                Some((_, Event::Rebuilt { kernel })) => self.kernel_rebuilt(kernel),
                Some((_, Event::Rollout { kernel, turn })) => self.roll_out(kernel, turn),
                Some((_, Event::EjectionOver { replica })) => self.ejection_over(replica),
                Some((_, Event::Scrape)) => self.scrape(),
                Some((_, Event::Scaling(turn))) => self.scale(turn),
                Some((_, Event::Fault { index, turn })) => self.fault(index, turn),
                None => {}
            },
        }
        self.tidy();
        if self.recorder.laws.is_some() && self.gateway.lanes.waiting() > 0 {
            self.look_at_waiting();
        }
    }

    /// With laws, while requests wait: no replica has room for them.
    #[cold]
    fn look_at_waiting(&mut self) {
        let lanes = &self.gateway.lanes;
        let verdict = Progress::instant(self.now, lanes.waiting(), lanes.are_drained());
        self.recorder.judge(verdict);
    }

    /// Uses room that was made, and frees slots that nothing refers to any more.
    #[inline(always)]
    fn tidy(&mut self) {
        if self.answers.is_some() {
            self.tidy_answers();
        } else {
            self.drain_room();
        }
        while let Some(slot) = self.leaving.pop() {
            self.requests.reap(slot);
        }
    }

    fn tidy_answers(&mut self) {
        self.promote();
        self.drain_room();
        // Who leaves the room may fail at once, and another go on in its place.
        while self.somebody_is_promoted() {
            self.promote();
            self.drain_room();
        }
    }

    /// Sends something about a request on its way; what takes no time happens now. Inlined, because
    /// callers know what it is, and one call of the right function is left.
    #[inline(always)]
    fn hop(&mut self, slot: u32, delay: SimDuration, hop: Hop) {
        if delay.is_zero() {
            return self.arrived(slot, hop);
        }
        self.requests.get_mut(slot).hops += 1;
        let event = Event::Hop { slot, hop };
        let at = self.now.saturating_add(delay);
        self.queue.schedule(at, event.class(), event);
    }

    /// Something about a request reaches its next place.
    #[inline(always)]
    fn arrived(&mut self, slot: u32, hop: Hop) {
        match hop {
            Hop::ToGateway => self.received(slot),
            Hop::Looked => self.looked(slot),
            Hop::TurnedAway(reason) => self.turned_away(slot, reason),
            Hop::Ready => self.ready(slot),
            Hop::StoreSeen(answer) => self.store_seen(slot, answer),
            Hop::ToReplica => self.submit(slot),
            Hop::TokenSeen => self.token_seen(slot),
            Hop::AnswerSeen => self.answer_seen(slot),
            Hop::RefusalSeen(reason) => self.refusal_seen(slot, reason),
            Hop::Judged => self.judged(slot, false),
            Hop::Weighed(level) => self.weighed(slot, level),
            Hop::JudgedByBackup => self.judged(slot, true),
            Hop::Probed => self.probe_checked(slot),
            Hop::Suggested => self.suggested(slot),
            Hop::AnswerDelivered => self.answer_delivered(slot),
            Hop::RefusalDelivered(reason) => self.refusal_delivered(slot, reason),
            Hop::CancelAtGateway => self.cancel_at_gateway(slot),
            Hop::CancelAtReplica => self.cancel_at_replica(slot),
        }
    }

    /// Writes down a fact about a request, unless its story is over. Inlined, because callers know of
    /// what kind it is.
    #[inline(always)]
    fn fact(&mut self, slot: u32, fact: Fact) {
        let flight = self.requests.get(slot);
        if !flight.ended {
            self.recorder.fact(slot, self.now, flight.id, fact);
        }
    }

    /// Takes the samples due before `until`.
    #[inline]
    fn sample_up_to(&mut self, until: SimTime) {
        let (gateway, in_system) = (&self.gateway, self.in_system);
        self.sampler.up_to(until, |at| Totals {
            at_ns: at.as_nanos(),
            gateway_waiting: gateway.lanes.waiting() as u32,
            in_system,
        });
    }

    /// Completes a replica's part of the samples taken, before something happens to it.
    #[inline]
    fn sample_replica(&mut self, replica: usize) {
        let machine = &self.fleet.machines[replica];
        let scaling = self.scaling.as_ref();
        let off = || scaling.is_some_and(|s| s.is_out_of_service(replica));
        let mut onward = Onward::default();
        self.sampler
            .read(replica, off, |at| machine.stats_onward(at, &mut onward));
    }
}
