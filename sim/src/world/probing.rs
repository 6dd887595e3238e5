//! Kernels that are probed: which of their answers a reference gives too, what the comparison shows, and what
//! becomes of a kernel after an alarm. Here too answers get the quality of whoever gives them.

use super::World;
use super::requests::Place;
use crate::event::{Event, Hop};
use crate::fleet::machine::Machine;
use crate::gateway::probing::Probing;
use rustc_hash::FxHashMap;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::NanoUsd;
use windtunnel_ledger::entry::Purpose;
use windtunnel_ledger::gateway::{PathTotals, ProbeTotals};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::probing::ReferenceSpec;

/// Who probes kernels.
#[derive(Debug)]
pub(super) struct Probes {
    detectors: Probing,
    reference: ReferenceSpec,
    price: NanoUsd,
    sensitivity: f64,
    specificity: f64,
    rebuild: Option<SimDuration>,
    /// By their works' ids.
    under_way: FxHashMap<RequestId, Probe>,
    streams: Streams,
    totals: ProbeTotals,
}

/// A probe under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    kernel: u8,
    /// Of the kernel.
    version: u32,
    /// Whether the kernel's answer is good, which the comparison alone may learn something of.
    good: bool,
    /// What decides whether the comparison errs.
    luck: f64,
}

impl Probes {
    /// Those of a checked scenario, if anybody probes.
    pub(super) fn new(scenario: &Scenario, streams: Streams) -> Option<Box<Self>> {
        let paths = scenario.gateway.paths.as_ref()?;
        let spec = paths.probing.as_ref()?;
        let kernels = paths.kernels.len();
        Some(Box::new(Self {
            detectors: Probing::new(spec.share, &spec.detector, kernels, streams),
            reference: spec.reference,
            price: spec.price.0,
            sensitivity: spec.sensitivity,
            specificity: spec.specificity,
            rebuild: spec.rebuild.map(|span| span.0),
            under_way: FxHashMap::default(),
            streams,
            totals: ProbeTotals::default(),
        }))
    }
}

/// What a comparison of that sensitivity and specificity says of answers that differ in truth, or do not.
pub(super) fn seen(differs: bool, luck: f64, (sensitivity, specificity): (f64, f64)) -> bool {
    match differs {
        true => luck < sensitivity,
        false => luck >= specificity,
    }
}

impl<M: Machine> World<'_, M> {
    /// A replica is about to be given a request: its answer will be as good as the replica's are by now.
    pub(super) fn draw_quality(&mut self, slot: u32, replica: ReplicaId) {
        let answer = self.requests.judged_answer(slot);
        let flight = self.requests.get_mut(slot);
        let paths = self.gateway.paths.as_ref();
        let kernel = paths.and_then(|p| p.serving(flight.arrival.class, flight.lane));
        if let Some(quality) = &mut self.quality {
            let attack = flight.arrival.truth.attack;
            let goodness = quality.of((answer, attack), replica, kernel, self.now);
            flight.arrival.truth.good = goodness.good;
            flight.answer.good = goodness.good;
            flight.answer.drifted = goodness.drifted;
            flight.answer.worse = goodness.worse;
        }
    }

    /// An answer came to a client that was bad for drift alone.
    #[cold]
    pub(super) fn drift_came_through(&mut self) {
        if let Some(quality) = &mut self.quality {
            quality.came_through();
        }
    }

    /// The gateway has seen a whole answer, and may look after the quality of whoever gave it. True if nobody
    /// waits for it, being to a probe, or if a human is to see it first.
    pub(super) fn looked_after(&mut self, slot: u32) -> bool {
        let flight = self.requests.get(slot);
        if flight.purpose == Some(Purpose::Probe) {
            let (id, good) = (flight.id, flight.answer.good);
            self.close_work(slot);
            self.compared(id, good);
            self.tried(id, good);
            return true;
        }
        if self.probes.is_some() {
            self.probe(slot);
        }
        self.rollouts.is_some() && self.try_out(slot)
    }

    /// Asks the reference what a kernel has just answered, if the request is drawn.
    fn probe(&mut self, slot: u32) {
        let request = self.requests.judged_as(slot);
        let flight = self.requests.get(slot);
        let (Some(paths), Some(probes)) = (&self.gateway.paths, &mut self.probes) else {
            return;
        };
        let (good, serving) = (
            flight.answer.good,
            paths.serving(flight.arrival.class, flight.lane),
        );
        let present = serving.filter(|&kernel| !paths.is_evicted(kernel));
        let Some(kernel) = present.filter(|&kernel| probes.detectors.wants(kernel, request)) else {
            return;
        };
        let mut luck = probes.streams.stream("comparison", u64::from(request.0));
        let probe = Probe {
            kernel,
            version: probes.detectors.version(kernel),
            good,
            luck: luck.f64(),
        };
        let (reference, price) = (probes.reference, probes.price);
        probes.totals.probes += 1;
        probes.totals.price_nano_usd += price.0;
        let (work, id) = self.begin_probe(slot, price);
        if let Some(probes) = &mut self.probes {
            probes.under_way.insert(id, probe);
        }
        self.ask_reference(work, reference);
    }

    /// Begins a work that answers what another has answered, for a price beside the work itself. The caller
    /// notes what it is compared with, by its id, and only then sends it on its way.
    pub(super) fn begin_probe(&mut self, slot: u32, price: NanoUsd) -> (u32, RequestId) {
        let request = self.requests.judged_as(slot);
        self.recorder.probe(self.now, price);
        let work = self.begin_work(Purpose::Probe, slot, None);
        let flight = self.requests.get_mut(work);
        flight.probes = Some(request);
        (work, flight.id)
    }

    /// Sends a probe to whoever answers it.
    pub(super) fn ask_reference(&mut self, work: u32, reference: ReferenceSpec) {
        match reference {
            ReferenceSpec::Frontier => self.probe_in_lane(work, 0),
            ReferenceSpec::Verifier { latency } => {
                // No replica has anything to do with it.
                self.requests.get_mut(work).place = Place::Gone;
                self.hop(work, latency.0, Hop::Probed);
            }
        }
    }

    /// Sends a probe to a pool.
    pub(super) fn probe_in_lane(&mut self, work: u32, lane: u8) {
        let flight = self.requests.get_mut(work);
        flight.place = Place::Processing;
        flight.lane = lane;
        self.gateway.in_system += 1;
        self.enter_lane(work);
    }

    /// A kernel's answer was checked: a verifier that checks in full knows what is good.
    pub(super) fn probe_checked(&mut self, slot: u32) {
        let id = self.requests.get(slot).id;
        self.close_work(slot);
        self.compared(id, true);
        self.tried(id, true);
    }

    /// A work that was for nobody in particular came to nothing: if a probe, it will tell nothing.
    pub(super) fn probe_failed(&mut self, slot: u32) {
        let id = self.requests.get(slot).id;
        if let Some(probes) = &mut self.probes {
            probes.under_way.remove(&id);
        }
        self.trial_failed(id);
    }

    /// A probe is answered too, well or badly.
    fn compared(&mut self, id: RequestId, good: bool) {
        let Some(probes) = &mut self.probes else {
            return;
        };
        let Some(probe) = probes.under_way.remove(&id) else {
            return;
        };
        let errs = (probes.sensitivity, probes.specificity);
        let seen = seen(probe.good != good, probe.luck, errs);
        let outcome = probes.detectors.outcome(probe.kernel, probe.version, seen);
        let Some(alarm) = outcome else {
            return;
        };
        probes.totals.compared += 1;
        probes.totals.differed += u64::from(seen);
        if alarm {
            self.alarm(probe.kernel);
        }
    }

    /// A kernel is suspected of having drifted: its requests go where those of an evicted one go.
    fn alarm(&mut self, kernel: u8) {
        let quality = self.quality.as_mut();
        let drifted = quality.is_some_and(|quality| quality.alarm(kernel, self.now));
        let Some(probes) = &mut self.probes else {
            return;
        };
        probes.totals.alarms += 1;
        probes.totals.false_alarms += u64::from(!drifted);
        if let Some(rebuild) = probes.rebuild {
            let event = Event::Rebuilt { kernel };
            let at = self.now.saturating_add(rebuild);
            self.queue.schedule(at, event.class(), event);
            self.idle_events += 1;
            self.turns_left += 1;
        }
        self.suspect_kernel(kernel, true);
    }

    /// A kernel that was suspected is built anew.
    pub(super) fn kernel_rebuilt(&mut self, kernel: u8) {
        self.idle_events -= 1;
        self.turns_left -= 1;
        if let Some(quality) = &mut self.quality {
            quality.rebuilt(kernel, self.now);
        }
        if let Some(probes) = &mut self.probes {
            probes.detectors.rebuilt(kernel);
        }
        self.suspect_kernel(kernel, false);
    }

    /// What the choice of pools did, with probes and drift, by the end of the run.
    pub(super) fn path_totals(&mut self, end: SimTime) -> Option<PathTotals> {
        let paths = self.gateway.paths.as_ref()?;
        let drift = self.quality.as_mut().and_then(|q| q.finish(end));
        Some(PathTotals {
            probing: self.probes.as_ref().map(|probes| probes.totals),
            drift,
            ..paths.totals()
        })
    }
}
