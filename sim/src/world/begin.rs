//! The state of a run at time zero.

use super::World;
use super::answers::Desk;
use super::attempts::Attempts;
use super::client::ClassRules;
use super::faults::Faults;
use super::gateway::Gateway;
use super::probing::Probes;
use super::recorder::Recorder;
use super::requests::Requests;
use super::rollout::Rollouts;
use super::sampling::Sampler;
use super::scaling::Scaling;
use super::token_prices::TokenPrices;
use crate::clients::Clients;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::fleet::machine::Machine;
use crate::fleet::network::Network;
use crate::fleet::shared_cache::SharedCache;
use crate::quality::Quality;
use crate::run::RunOptions;
use crate::verification::Verifier;
use windtunnel_base::queue::EventQueue;
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::Names;
use windtunnel_scenarios::schema::traffic::ArrivalSpec;
use windtunnel_scenarios::schema::{Scenario, WarmUp};
use windtunnel_scenarios::workload::Workload;

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
        let pools = gateway.paths.as_ref().map(|paths| paths.pools());
        let frontier = pools.and_then(|pools| pools.first()?.first().copied());
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
            isolates_tenants: scenario.gateway.isolate_tenants,
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
            quality: Quality::new(scenario, frontier, streams),
            probes: Probes::new(scenario, streams),
            rollouts: Rollouts::new(scenario, streams),
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
        world.set_out(scenario, names);
        world
    }

    /// What is counted from the begin on, and what is ahead.
    fn set_out(&mut self, scenario: &Scenario, names: &Names) {
        if self.faults.as_ref().is_some_and(|f| f.lose_replicas()) {
            self.gateway.totals.stale_routes = Some(0);
        }
        if names.tenants.len() > 1 {
            self.recorder.collector.compare_tenants();
        }
        let instances = u64::from(scenario.gateway.instances.unwrap_or(1));
        self.recorder.gateway_hourly = scenario.gateway.price.0.0 * instances;
        if let Some(disturbance) = scenario.disturbance() {
            let begin = self.warm_up.unwrap_or(SimTime::ZERO);
            let stretch = [disturbance.from, disturbance.to].map(|at| SimTime::ZERO + at.0);
            let collector = &mut self.recorder.collector;
            collector.compare_phases(begin, stretch.into());
        }
        if self.gateway.scrape_period().is_some() {
            let event = Event::Scrape;
            self.queue.schedule(SimTime::ZERO, event.class(), event);
            self.idle_events = 1;
        }
        self.begin_scaling();
        self.announce_rollouts();
        if let Some(faults) = &self.faults {
            for (at, event) in faults.turns() {
                self.queue.schedule(at, event.class(), event);
                self.idle_events += 1;
                self.turns_left += 1;
            }
        }
    }
}
