//! The gateway's side of the world: what it is made of, who gets in, and who waits.

use super::lanes::Lanes;
use super::requests::Place;
use super::signals::{self, Cache, Changes};
use super::stages::Stages;
use super::store::Shared;
use super::{World, requests::Requests};
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::fleet::telemetry::Telemetry;
use crate::gateway::admission::Admission;
use crate::gateway::outliers::Outliers;
use crate::gateway::paths::{Asks, Paths};
use crate::gateway::routing::{self, FleetFacts};
use crate::laws::{Verdict, bounds};
use crate::view::{Feedback, Observed, ReplicaView, Signals};
use windtunnel_base::ids::{ReplicaId, TenantId};
use windtunnel_base::queue::EventKey;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::decision::{Decision, GatewayTotals};
use windtunnel_scenarios::Names;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::fleet::Counted;

/// The gateway and all it knows.
pub(super) struct Gateway {
    latency: SimDuration,
    latency_per_kilotoken: SimDuration,
    admission: Admission,
    pub(super) lanes: Lanes,
    /// Most requests in flight at one replica.
    pub(super) max_in_flight: u32,
    /// The policies keep an index that counts what it does.
    pub(super) has_index: bool,
    /// Requests sent where their prompt should be cached, and was not.
    pub(super) false_affinity: u64,
    /// The store that gateways share.
    pub(super) shared: Option<Box<Shared>>,
    /// There are several gateways, who know of each other by the store alone.
    pub(super) several: bool,
    pub(super) signals: Signals,
    pub(super) wants_feedback: bool,
    /// First tokens are told to somebody.
    pub(super) hears_tokens: bool,
    pub(super) rng: Rng,
    pub(super) views: Vec<ReplicaView>,
    /// The replicas that are not, while some are; or all, as the policy is to see them.
    pub(super) offered: Vec<ReplicaView>,
    /// Answers under way from each replica.
    pub(super) answering: Vec<u32>,
    pub(super) counted: Counted,
    pub(super) changes: Changes,
    /// What passes with time is not read: replicas that nothing happened to read as before.
    pub(super) follows_changes: bool,
    /// Those that something happened to since the last decision.
    pub(super) touched: Vec<u32>,
    pub(super) telemetry: Telemetry,
    pub(super) cache: Cache,
    /// Admitted and not yet answered or dropped.
    pub(super) in_system: u64,
    /// Which pool serves whom, if the scenario has pools.
    pub(super) paths: Option<Box<Paths>>,
    /// When the next of those may go on who wait before their pool is chosen.
    pub(super) held_alarm: Option<(SimTime, EventKey)>,
    /// Who is left alone for failing, if anybody ever is.
    pub(super) outliers: Option<Box<Outliers>>,
    /// The stages, if the scenario has them.
    pub(super) stages: Option<Box<Stages>>,
    pub(super) totals: GatewayTotals,
    pub(super) record_decisions: bool,
    pub(super) scores: Vec<f64>,
    pub(super) decisions: Vec<Decision>,
}

impl Gateway {
    /// The gateway of a scenario, in front of these replicas.
    pub(super) fn new<M: Machine>(
        scenario: &Scenario,
        names: &Names,
        machines: &mut [M],
        streams: Streams,
        record_decisions: bool,
    ) -> Self {
        let spec = &scenario.gateway;
        let priorities: Vec<i32> = scenario.classes.values().map(|c| c.priority).collect();
        let weight = |name: &String| scenario.tenants.get(name).map_or(1.0, |t| t.weight);
        let weights: Vec<f64> = names.tenants.iter().map(weight).collect();
        let order = (spec.queue.order, &weights[..]);
        let paths = spec.paths.as_ref().map(|paths| {
            let paths = Paths::new(paths, &scenario.fleet, names, order, streams);
            Box::new(paths)
        });
        let detection = spec.outlier_detection.as_ref();
        let outliers = detection.filter(|spec| spec.enabled);
        let outliers = outliers.map(|spec| Box::new(Outliers::new(spec, machines.len())));
        let facts = FleetFacts {
            replicas: machines.len(),
            block_tokens: machines.first().map_or(16, Machine::block_tokens),
            seed: streams.seed(),
        };
        let shared = Shared::new(scenario, machines.len());
        let pools = paths.as_ref().map_or(&[][..], |paths| paths.pools());
        let lanes = Lanes::new(spec, &facts, pools, &weights);
        let (signals, wants_feedback, has_index) = {
            let policy = &lanes.get(0).policy;
            (
                policy.signals(),
                policy.wants_feedback(),
                policy.index().is_some(),
            )
        };
        let spec_of_telemetry = &scenario.fleet.telemetry;
        // A system that is modelled as shipped brings its own pace, unless the scenario sets one.
        let shipped = routing::expand(&spec.routing).1.map(|period| period.0);
        let counted = spec_of_telemetry.counted;
        let telemetry = signals::telemetry(spec_of_telemetry, signals, shipped);
        let cache = signals::cache(spec_of_telemetry, signals, machines);
        let view = |id: usize| ReplicaView {
            id: ReplicaId::from(id),
            stats: Observed::default(),
            in_flight: 0,
            in_flight_tokens: 0,
            total_tokens: 0,
        };
        Self {
            latency: spec.latency.0,
            latency_per_kilotoken: spec.latency_per_kilotoken.0,
            admission: Admission::new(&spec.admission, &priorities),
            lanes,
            paths,
            held_alarm: None,
            outliers,
            stages: spec
                .pipeline
                .as_ref()
                .map(|s| Box::new(Stages::new(s, streams))),
            max_in_flight: spec.queue.max_in_flight.unwrap_or(u32::MAX),
            wants_feedback,
            hears_tokens: wants_feedback,
            has_index,
            false_affinity: 0,
            several: shared.as_ref().is_some_and(|s| s.store.gateways() > 1),
            shared,
            signals,
            rng: streams.stream("routing", 0),
            views: (0..machines.len()).map(view).collect(),
            offered: Vec::new(),
            answering: vec![0; machines.len()],
            counted,
            changes: Changes::new(machines.len()),
            follows_changes: !signals.passing && counted == Counted::UntilAnswered,
            touched: Vec::new(),
            telemetry,
            cache,
            in_system: 0,
            totals: GatewayTotals {
                ejections: detection.map(|_| 0),
                ..GatewayTotals::default()
            },
            record_decisions,
            scores: Vec::new(),
            decisions: Vec::new(),
        }
    }

    /// Time of the gateway's own stages.
    fn processing(&self, prompt_tokens: u32) -> SimDuration {
        let per_token = self
            .latency_per_kilotoken
            .saturating_mul(u64::from(prompt_tokens));
        self.latency + SimDuration::from_nanos(per_token.as_nanos() / 1000)
    }

    /// A tenant was served so many tokens in a lane, which some orders of waiting count.
    #[inline]
    pub(super) fn served(&mut self, lane: u8, tenant: TenantId, prompt: u32, output: u32) {
        let room = &mut self.lanes.get_mut(lane).room;
        room.served(tenant, prompt, output);
        if lane == 0
            && let Some(paths) = &mut self.paths
        {
            paths.served(tenant, prompt, output);
        }
    }

    /// Whether a replica has as many requests in flight as it may.
    pub(super) fn is_full(&self, replica: ReplicaId) -> bool {
        self.views[replica.index()].in_flight == self.max_in_flight
    }

    /// At the end of a run that nobody cut off.
    pub(super) fn check_finished(&self, at: SimTime) -> Verdict {
        bounds::finish(at, &self.views, self.in_system)
    }

    /// Whether scrapes have to be read.
    pub(super) const fn scrape_period(&self) -> Option<SimDuration> {
        match &self.telemetry {
            Telemetry::Scraped(scrapes) => Some(scrapes.period()),
            Telemetry::Off | Telemetry::Live | Telemetry::OnDecision(_) => None,
        }
    }

    /// Tells the policy what came of a decision.
    pub(super) fn feedback(
        &mut self,
        requests: &Requests,
        slot: u32,
        feedback: Feedback,
        now: SimTime,
    ) {
        if self.wants_feedback
            && let Some(replica) = requests.get(slot).answer.replica
        {
            let request = requests.view(slot);
            let policy = &mut self.lanes.of_mut(replica).policy;
            policy.observe(&request, replica, feedback, now);
        }
    }
}

impl<M: Machine> World<'_, M> {
    /// A request reaches the gateway.
    pub(super) fn received(&mut self, slot: u32) {
        self.gateway.totals.received += 1;
        let flight = self.requests.get_mut(slot);
        if flight.place == Place::Gone {
            return; // its cancellation was faster
        }
        flight.place = Place::Processing;
        let processing = self.gateway.processing(flight.arrival.prompt_tokens);
        if self.gateway.stages.is_some() {
            return self.first_stages(slot, processing);
        }
        self.hop(slot, processing, Hop::Ready);
    }

    /// The gateway's own stages are done with a request: it is answered from what is there, or goes on.
    pub(super) fn ready(&mut self, slot: u32) {
        if self.requests.get(slot).place == Place::Gone {
            return;
        }
        // With stages, it has looked for an answer between them.
        if self.answers.is_some() && self.gateway.stages.is_none() && self.ask(slot) {
            return;
        }
        self.after_lookup(slot);
    }

    /// A request that found no answer to the same words goes on.
    pub(super) fn after_lookup(&mut self, slot: u32) {
        if self.answers.is_some() && self.ask_similar(slot) {
            return;
        }
        if let Some(scaling) = &mut self.scaling {
            scaling.somebody_comes(None);
        }
        let flight = self.requests.get(slot);
        let (tenant, priority) = (flight.arrival.tenant, flight.priority);
        let (in_system, now) = (self.gateway.in_system, self.now);
        let admission = &mut self.gateway.admission;
        if let Err(reason) = admission.admit(tenant, priority, in_system, now) {
            return self.refuse(slot, reason);
        }
        self.gateway.in_system += 1;
        if self.gateway.shared.is_some() {
            return self.ask_store(slot);
        }
        self.admitted(slot);
    }

    /// The gateway has all it needs to know about an admitted request.
    pub(super) fn admitted(&mut self, slot: u32) {
        if self.gateway.paths.is_some() {
            return self.choose_path(slot, Asks::First);
        }
        self.enter_lane(slot);
    }

    /// A request goes to a replica of its lane, or waits for one.
    pub(super) fn enter_lane(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        let (lane, waiting) = (
            flight.lane,
            (flight.id, flight.arrival.tenant, flight.priority),
        );
        if let Some(scaling) = &mut self.scaling {
            scaling.somebody_comes(Some(lane));
        }
        if !self.gateway.lanes.get(lane).is_full() {
            return self.route(slot);
        }
        if self.gateway.lanes.get(lane).is_gone() {
            return self.turn_away(slot, Refusal::NoReplica);
        }
        let (id, tenant, priority) = waiting;
        let room = &mut self.gateway.lanes.get_mut(lane).room;
        match room.push(id, tenant, priority) {
            Ok(()) => {
                self.requests.get_mut(slot).place = Place::Waiting;
                let waiting = self.gateway.lanes.waiting() as u64;
                let totals = &mut self.gateway.totals;
                totals.queued += 1;
                totals.queue_peak = totals.queue_peak.max(waiting);
            }
            Err(reason) => self.turn_away(slot, reason),
        }
    }

    /// Turns away a request that had been admitted.
    pub(super) fn turn_away(&mut self, slot: u32, reason: Refusal) {
        self.gateway.in_system -= 1;
        // Not admitted any more: what the refusal sets off may cancel it in this very moment.
        self.requests.get_mut(slot).place = Place::Processing;
        self.refuse(slot, reason);
    }

    /// Routes waiting requests while some replica has room.
    #[inline(always)]
    pub(super) fn drain_room(&mut self) {
        // Asked after every event, and mostly nobody waits.
        if self.gateway.lanes.waiting() > 0 {
            self.drain_waiting();
        }
    }

    fn drain_waiting(&mut self) {
        for lane in self.gateway.lanes.numbers() {
            while !self.gateway.lanes.get(lane).is_full() {
                let Some(id) = self.gateway.lanes.get_mut(lane).room.pop() else {
                    break;
                };
                if let Some(slot) = self.requests.slot(id) {
                    self.route(slot);
                }
            }
        }
    }

    /// Turns a request away at the gateway, which has nothing of it.
    pub(super) fn refuse(&mut self, slot: u32, reason: Refusal) {
        if self.answers.is_some() && self.fetch_failed(slot, reason) {
            return;
        }
        self.gone(slot);
        let delay = self.fleet.network.client;
        self.hop(slot, delay, Hop::RefusalDelivered(reason));
    }
}
