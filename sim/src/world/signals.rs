//! What the gateway knows of its replicas when it decides: statistics, caches, and what changed
//! since it decided last.

use super::World;
use super::gateway::Gateway;
use crate::event::Event;
use crate::fleet::Fleet;
use crate::fleet::machine::Machine;
use crate::fleet::telemetry::{Pace, Scrapes, Telemetry};
use crate::gateway::prefix_index::DelayedCacheView;
use crate::view::{CacheView, Found, News, Observed, ReplicaView, Signals};
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::{CacheEvent, EngineStats};
use windtunnel_engine::request::RequestView;
use windtunnel_scenarios::schema::fleet::{Counted, TelemetryRefresh, TelemetrySpec};

/// Live caches of so many replicas are followed by what changes in them.
const FOLLOWED: usize = 16;

/// How the gateway knows what is cached where.
pub(super) enum Cache {
    /// It does not ask.
    Blind,
    /// It sees the live caches (an oracle).
    Live,
    /// Reports of changes that take a while; and a buffer for them.
    Reported(DelayedCacheView, Vec<CacheEvent>),
    /// A copy of what was cached at the last reading; likewise.
    Copied(DelayedCacheView, Vec<CacheEvent>, Pace),
}

/// What is known of caches by those who know nothing.
pub(super) struct Nothing;

impl CacheView for Nothing {
    fn cached_tokens(&self, _: &RequestView<'_>, tokens: &mut Vec<u32>) {
        tokens.clear();
    }
}

/// The caches themselves.
pub(super) struct LiveCaches<'a, M>(pub(super) &'a [M]);

impl<M: Machine> CacheView for LiveCaches<'_, M> {
    fn cached_tokens(&self, request: &RequestView<'_>, tokens: &mut Vec<u32>) {
        tokens.clear();
        tokens.extend(
            self.0
                .iter()
                .map(|m| m.cached_prefix_tokens(request.prefix, request.prompt_tokens)),
        );
    }

    fn find(&self, request: &RequestView<'_>, replicas: usize, found: &mut Found) {
        found.clear_for(replicas.max(self.0.len()));
        for (replica, machine) in self.0.iter().enumerate() {
            let tokens = machine.cached_prefix_tokens(request.prefix, request.prompt_tokens);
            if tokens > 0 {
                found.reach(replica as u32, 0, tokens);
            }
        }
    }
}

/// The path of statistics for a policy with such signals. `shipped` is the period that the
/// system it stands for ships with, used where the scenario sets none.
pub(super) fn telemetry(
    spec: &TelemetrySpec,
    signals: Signals,
    shipped: Option<SimDuration>,
) -> Telemetry {
    let period = match (spec.period.0, spec.refresh) {
        (period, TelemetryRefresh::Timer) if period.is_zero() => shipped.unwrap_or_default(),
        (period, _) => period,
    };
    match (signals.stats, period.is_zero(), spec.refresh) {
        (false, ..) => Telemetry::Off,
        (true, true, _) => Telemetry::Live,
        (true, false, TelemetryRefresh::Timer) => {
            Telemetry::Scraped(Scrapes::new(period, spec.delay.0))
        }
        (true, false, TelemetryRefresh::OnDecision) => Telemetry::OnDecision(Pace::new(period)),
    }
}

/// The way in which a policy with such signals follows caches.
pub(super) fn cache<M: Machine>(
    spec: &TelemetrySpec,
    signals: Signals,
    machines: &mut [M],
) -> Cache {
    let on_decision = spec.refresh == TelemetryRefresh::OnDecision;
    let lag = if on_decision {
        spec.cache_period.0
    } else {
        spec.delay.0
    };
    if !signals.cache {
        return Cache::Blind;
    }
    // Asking every cache pays in small fleets only; hearing of every change at once is the same.
    if lag.is_zero() && machines.len() < FOLLOWED {
        machines.iter_mut().for_each(|m| m.watch_cache(true));
        return Cache::Live;
    }
    machines
        .iter_mut()
        .for_each(|m| m.record_cache_events(true));
    let blocks = machines.iter().map(Machine::block_tokens).collect();
    if on_decision && !lag.is_zero() {
        let view = DelayedCacheView::new(blocks, SimDuration::ZERO);
        Cache::Copied(view, Vec::new(), Pace::new(lag))
    } else {
        Cache::Reported(DelayedCacheView::new(blocks, lag), Vec::new())
    }
}

/// Replicas whose views changed since the policy was asked last.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// All of them may have.
    everything: bool,
    list: Vec<ReplicaId>,
    listed: Vec<bool>,
}

impl Changes {
    pub(super) fn new(replicas: usize) -> Self {
        Self {
            everything: true,
            list: Vec::new(),
            listed: vec![false; replicas],
        }
    }

    #[inline]
    pub(super) fn note(&mut self, replica: ReplicaId) {
        if !self.everything && !std::mem::replace(&mut self.listed[replica.index()], true) {
            self.list.push(replica);
        }
    }

    pub(super) fn note_everything(&mut self) {
        self.clear();
        self.everything = true;
    }

    pub(super) fn news(&self) -> News<'_> {
        if self.everything {
            News::Everything
        } else {
            News::Only(&self.list)
        }
    }

    /// The policy has been told.
    pub(super) fn clear(&mut self) {
        self.everything = false;
        for replica in self.list.drain(..) {
            self.listed[replica.index()] = false;
        }
    }
}

/// Statistics as of `now`, counted as long as the scenario says.
fn read<M: Machine>(machine: &M, now: SimTime, counted: Counted) -> EngineStats {
    let mut stats = machine.stats(now);
    if counted == Counted::UntilLastStep {
        let leaving = machine.leaving(now);
        stats.running -= leaving.requests;
        stats.kv_held -= leaving.kv_blocks;
    }
    stats
}

impl<M: Machine> World<'_, M> {
    /// Brings what the policy reads up to date.
    pub(super) fn read_signals(&mut self, lane: u8) {
        let (gateway, fleet, now) = (&mut self.gateway, &mut self.fleet, self.now);
        let counted = gateway.counted;
        if gateway.signals.stats || gateway.signals.cache {
            fleet.take_touched(&mut gateway.touched);
        }
        match &mut gateway.telemetry {
            Telemetry::Off => {}
            Telemetry::Live if gateway.follows_changes => {
                for &replica in &gateway.touched {
                    let stats = read(&fleet.machines[replica as usize], now, counted);
                    let view = &mut gateway.views[replica as usize];
                    if view.stats.value != stats {
                        view.stats.value = stats;
                        gateway.changes.note(view.id);
                    }
                }
            }
            Telemetry::Live => {
                for (view, machine) in gateway.views.iter_mut().zip(&fleet.machines) {
                    let value = read(machine, now, counted);
                    let read_at = now;
                    view.stats = Observed { value, read_at };
                }
                gateway.changes.note_everything();
            }
            Telemetry::Scraped(scrapes) => scrapes.arrived(now, |read_at, stats| {
                for (view, &value) in gateway.views.iter_mut().zip(stats) {
                    view.stats = Observed { value, read_at };
                }
                gateway.changes.note_everything();
            }),
            Telemetry::OnDecision(pace) => {
                if pace.is_due(now) {
                    for (view, machine) in gateway.views.iter_mut().zip(&fleet.machines) {
                        let value = read(machine, now, counted);
                        let read_at = now;
                        view.stats = Observed { value, read_at };
                    }
                    gateway.changes.note_everything();
                }
            }
        }
        self.read_caches();
        if counted == Counted::UntilLastStep {
            self.offer_unfinished(lane);
        }
    }

    fn read_caches(&mut self) {
        let (gateway, fleet, now) = (&mut self.gateway, &mut self.fleet, self.now);
        match &mut gateway.cache {
            Cache::Blind | Cache::Live => {}
            Cache::Reported(view, buffer) => {
                take_reports(fleet, &gateway.touched, view, buffer);
                view.advance(now);
            }
            Cache::Copied(view, buffer, pace) => {
                if pace.is_due(now) {
                    let all: Vec<u32> = (0..fleet.machines.len() as u32).collect();
                    take_reports(fleet, &all, view, buffer);
                    view.advance(now);
                }
            }
        }
        debug_assert!(
            gateway.signals.cache == !matches!(gateway.cache, Cache::Blind),
            "a policy changed its signals"
        );
    }

    /// Writes down views in which what is in its last step, or on its way back, is not in flight.
    fn offer_unfinished(&mut self, lane: u8) {
        let (gateway, now) = (&mut self.gateway, self.now);
        gateway.offered.clear();
        for (view, machine) in gateway.views.iter().zip(&self.fleet.machines) {
            if view.in_flight == gateway.max_in_flight || !gateway.lanes.offers(lane, view.id) {
                continue;
            }
            let answering = gateway.answering[view.id.index()];
            let done = answering + machine.leaving(now).requests;
            gateway.offered.push(ReplicaView {
                in_flight: view.in_flight.saturating_sub(done),
                ..*view
            });
        }
        gateway.changes.note_everything();
    }

    /// Telemetry reads every replica, and will again.
    pub(super) fn scrape(&mut self) {
        let counted = self.gateway.counted;
        if let Telemetry::Scraped(scrapes) = &mut self.gateway.telemetry {
            let now = self.now;
            let machines = self.fleet.machines.iter();
            scrapes.read(now, machines.map(|m| read(m, now, counted)));
            let next = now.saturating_add(scrapes.period());
            self.queue
                .schedule(next, Event::Scrape.class(), Event::Scrape);
        }
    }
}

/// Moves what these replicas' caches report to the gateway's view.
fn take_reports<M: Machine>(
    fleet: &mut Fleet<M>,
    replicas: &[u32],
    view: &mut DelayedCacheView,
    buffer: &mut Vec<CacheEvent>,
) {
    for &replica in replicas {
        fleet.machines[replica as usize].take_cache_events(buffer);
        view.record(ReplicaId(replica), buffer);
        buffer.clear();
    }
}

impl Gateway {
    /// Whether the policy sees all replicas as they are.
    pub(super) fn offers_all(&self) -> bool {
        self.lanes.is_one_and_open() && self.counted == Counted::UntilAnswered && !self.several
    }

    /// Writes down the replicas of a lane that take requests.
    pub(super) fn leave_out_full(&mut self, lane: u8) {
        if self.counted == Counted::UntilLastStep {
            return; // they are written down already
        }
        let (lanes, offered) = (&self.lanes, &mut self.offered);
        lanes.open(lane, &self.views, self.max_in_flight, offered);
    }

    /// The policy has been asked; `all` if it was shown all replicas as they are.
    pub(super) fn told(&mut self, all: bool) {
        if all {
            self.changes.clear();
        } else {
            self.changes.note_everything();
        }
    }
}
