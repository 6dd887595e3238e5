//! The world: all state of a run, and the one place that knows every stage. An event is taken, handed
//! to the side it concerns, and followed to the end of its instant; what takes no time takes no
//! event.

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
/// The gateway's pools, rooms and policies.
mod lanes;
/// The gateway's stages.
mod stages;
/// Which pool a request goes to.
mod pools;
/// What goes wrong.
mod faults;
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

use crate::clients::Clients;
use crate::event::{Event, Hop, Source};
use crate::fleet::Fleet;
use crate::fleet::machine::Machine;
use crate::fleet::network::Network;
use crate::fleet::shared_cache::SharedCache;
use crate::laws::{Violation, books, progress::Progress};
use crate::run::{Progress as Report, RunError, RunOptions, Step};
use crate::verification::Verifier;
use answers::Desk;
use attempts::Attempts;
use client::ClassRules;
use faults::Faults;
use gateway::Gateway;
use recorder::Recorder;
use requests::Requests;
use sampling::{Sampler, Totals};
use scaling::Scaling;
use token_prices::TokenPrices;
use windtunnel_base::queue::EventQueue;
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::{EngineOutcome, Onward};
use windtunnel_ledger::entry::Fact;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::Names;
use windtunnel_scenarios::schema::traffic::ArrivalSpec;
use windtunnel_scenarios::schema::{Scenario, WarmUp};
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

/// About when the last request comes, as far as the scenario says; zero if it does not.
fn expected_end(scenario: &Scenario) -> SimTime {
    let traffic = &scenario.traffic;
    let steady = match traffic.arrivals {
        Some(
            ArrivalSpec::Diurnal { .. }
            | ArrivalSpec::Step { .. }
            | ArrivalSpec::Ramp { .. }
            | ArrivalSpec::FlashCrowd { .. },
        ) => false,
        _ => traffic.clients.is_empty() && traffic.session.is_none() && traffic.trace.is_none(),
    };
    let by_number = match (traffic.num_prompts, traffic.request_rate) {
        (Some(n), Some(rate)) if steady && rate.0 > 0.0 => Some(n as f64 / rate.0),
        _ => None,
    };
    let by_number = by_number.map(SimDuration::from_secs_f64_saturating);
    let by_time = traffic.duration.filter(|_| steady).map(|limit| limit.0);
    let cut_off = scenario.run.cut_off.map_or(SimDuration::MAX, |at| at.0);
    let known = by_number.into_iter().chain(by_time).min();
    SimTime::ZERO + known.map_or(SimDuration::ZERO, |end| end.min(cut_off))
}

impl<'a, M: Machine> World<'a, M> {
    /// The world of a scenario at time zero.
    pub(crate) fn new(
        scenario: &Scenario,
        names: &Names,
        mut machines: Vec<M>,
        workload: &'a mut dyn Workload,
        seed: u64,
        options: &RunOptions<'_>,
        log_steps: bool,
    ) -> Self {
        let streams = Streams::new(seed);
        let gateway = Gateway::new(
            scenario,
            names,
            &mut machines,
            streams,
            options.record_decisions,
        );
        let recorder = Recorder::new(
            &machines,
            names.classes.len(),
            options.laws,
            options.keep_rows,
            options.watch,
            log_steps,
        );
        let shared_cache = scenario.fleet.shared_cache.as_ref().map(|spec| {
            let rules = SharedCache::rules(spec);
            machines.iter_mut().for_each(|m| m.share_cache(rules));
            let block_tokens = machines.first().map_or(16, Machine::block_tokens);
            Box::new(SharedCache::new(spec, block_tokens))
        });
        let verification = scenario.verification.as_ref();
        let clients = scenario.clients.as_ref();
        let replicas = machines.len();
        let warm_up = match scenario.run.warm_up {
            WarmUp::Auto => None,
            WarmUp::Fixed(span) => Some(SimTime::ZERO + span.0),
        };
        let mut world = Self {
            now: SimTime::ZERO,
            queue: EventQueue::new(),
            idle_events: 0,
            turns_left: 0,
            faults: Faults::new(scenario, replicas, streams),
            next_arrival: workload.next_at(),
            heeds_departures: workload.heeds_departures(),
            workload,
            order: options.ties.sources(),
            cut_at: scenario
                .run
                .cut_off
                .map_or(SimTime::MAX, |s| SimTime::ZERO + s.0),
            warm_up,
            classes: names
                .classes
                .iter()
                .map(|(_, c)| ClassRules::new(c))
                .collect(),
            requests: Requests::default(),
            attempts: clients.map(|c| Box::new(Attempts::new(Clients::new(c, streams)))),
            gateway,
            answers: Desk::new(scenario, streams, warm_up.unwrap_or(SimTime::ZERO)).map(Box::new),
            shared_cache,
            token_prices: TokenPrices::new(&scenario.fleet),
            fleet: Fleet::new(machines, Network::new(&scenario.fleet.network)),
            scaling: Scaling::new(scenario, replicas, streams),
            verifier: verification.map(|spec| Verifier::new(spec, streams)),
            recorder,
            sampler: Sampler::new(options.samples, replicas, expected_end(scenario)),
            sent: 0,
            begun: 0,
            works: 0,
            in_system: 0,
            in_system_ns: 0,
            in_system_since: SimTime::ZERO,
            events: 0,
            leaving: Vec::new(),
            outcomes: Vec::new(),
            settling: Vec::new(),
            failure: None,
        };
        if world.faults.as_ref().is_some_and(|f| f.lose_replicas()) {
            world.gateway.totals.stale_routes = Some(0);
        }
        let instances = u64::from(scenario.gateway.instances.unwrap_or(1));
        world.recorder.gateway_hourly = scenario.gateway.price.0.0 * instances;
        if let Some(disturbance) = scenario.disturbance() {
            let begin = world.warm_up.unwrap_or(SimTime::ZERO);
            let stretch = [disturbance.from, disturbance.to].map(|at| SimTime::ZERO + at.0);
            let collector = &mut world.recorder.collector;
            collector.compare_phases(begin, stretch.into());
        }
        if world.gateway.scrape_period().is_some() {
            let event = Event::Scrape;
            world.queue.schedule(SimTime::ZERO, event.class(), event);
            world.idle_events = 1;
        }
        world.begin_scaling();
        if let Some(faults) = &world.faults {
            for (at, event) in faults.turns() {
                world.queue.schedule(at, event.class(), event);
                world.idle_events += 1;
                world.turns_left += 1;
            }
        }
        world
    }

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
        Ok(self.finish(names, seed)?)
    }

    /// Tells of the steps that ended since it was last called.
    #[inline]
    fn tell_steps(&mut self, listener: &mut Option<&mut dyn FnMut(&Step)>) {
        if let (Some(steps), Some(tell)) = (&mut self.recorder.steps, listener) {
            steps.drain(..).for_each(|step| tell(&step));
        }
    }

    /// Nothing is due any more. With laws, everybody must have left; without, who has not is
    /// unfinished.
    fn check_quiet(&mut self) -> Result<(), Box<Violation>> {
        if self.recorder.laws.is_some() {
            let waiting = self.gateway.lanes.waiting();
            let live = self.in_system + self.works;
            Progress::finish(self.now, live as usize, waiting)?;
            self.gateway.check_finished(self.now)?;
        }
        if self.in_system + self.works > 0 {
            self.cut_off(self.now);
        }
        Ok(())
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
    #[inline]
    fn tidy(&mut self) {
        if self.answers.is_some() {
            self.promote();
        }
        self.drain_room();
        // Who leaves the room may fail at once, and another go on in its place.
        while self.answers.is_some() && self.somebody_is_promoted() {
            self.promote();
            self.drain_room();
        }
        while let Some(slot) = self.leaving.pop() {
            self.requests.reap(slot);
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
            Hop::JudgedByBackup => self.judged(slot, true),
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

    /// Closes the books of a run.
    fn finish(mut self, names: &Names, seed: u64) -> Result<RunResult, Box<Violation>> {
        let end = self.now;
        (0..self.fleet.machines.len()).for_each(|r| self.sample_replica(r));
        self.check_replicas();
        let laws = self.recorder.laws.is_some();
        let shared_cache = self.shared_cache_totals();
        let computed = self.computed_totals();
        let mut record = self.recorder.finish(end)?;
        let scaling = match self.scaling.take() {
            Some(scaling) => Some(scaling.finish(end, &record.unpaid)?),
            None => None,
        };
        let phases = record.collector.take_phases(end);
        let evictions = self.answers.as_ref().map(|desk| desk.evictions());
        self.gateway.totals.answers.evictions = evictions.unwrap_or_default();
        let (segments, segment_ns, rows) = record.collector.finish();
        let (state_store, index) = self.gateway.shared_totals(end);
        if let Some(totals) = shared_cache.filter(|_| laws) {
            books::cached(end, segments.iter().map(|s| &s.books), totals.found())?;
        }
        Ok(RunResult {
            seed,
            digest: record.digest,
            end_ns: end.as_nanos(),
            class_names: names.classes.iter().map(|(name, _)| name.clone()).collect(),
            tenant_names: names.tenants.clone(),
            segment_ns,
            segments,
            phases,
            fixed_warm_up_ns: self.warm_up.map(SimTime::as_nanos),
            samples: self
                .sampler
                .finish(|r| self.fleet.machines[r].stats(end).kv_total),
            replicas: record.replicas,
            rows,
            pipeline: self.gateway.stages.map(|s| s.pipeline.totals().clone()),
            paths: self.gateway.paths.as_ref().map(|p| p.totals()),
            gateway: self.gateway.totals,
            state_store,
            index,
            shared_cache,
            computed,
            scaling,
            decisions: self.gateway.decisions,
            watched: record.watched,
            in_system_ns: self.in_system_ns,
            events: self.events,
            facts: record.facts,
        })
    }
}
