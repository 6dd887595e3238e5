//! What goes wrong, joined to the world. Faults begin and end as events; they alone do not keep a run
//! going.

use super::World;
use super::lanes::Gone;
use super::requests::{NOT_YET, Place};
use crate::event::{Event, Hop, Turn};
use crate::fleet::machine::Machine;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::schema::faults::{FaultSpec, Target};
use windtunnel_scenarios::schema::verification::Unverified;
use windtunnel_scenarios::schema::{FleetSpec, Scenario};

/// The faults of a run, and what of them holds now.
pub(super) struct Faults {
    all: Vec<FaultSpec>,
    /// Ids of the replicas that each strikes.
    struck: Vec<Vec<u32>>,
    /// Which have begun and not ended.
    under_way: Vec<bool>,
    /// By replica: how many faults have taken it away.
    lost: Vec<u8>,
    /// By replica: probability that a request fails there at once.
    errors: Vec<f64>,
    /// Faults that keep the verifier from working.
    verifier_out: u32,
    /// Answers that wait for it, in the order in which they came.
    unverified: Vec<(u32, RequestId)>,
    rng: Rng,
}

impl Faults {
    pub(super) fn new(scenario: &Scenario, replicas: usize, streams: Streams) -> Option<Box<Self>> {
        if scenario.faults.is_empty() {
            return None;
        }
        let strikes = |fault: &FaultSpec| {
            fault
                .target()
                .map_or(Vec::new(), |on| ids(on, &scenario.fleet, replicas as u32))
        };
        Some(Box::new(Self {
            struck: scenario.faults.iter().map(strikes).collect(),
            under_way: vec![false; scenario.faults.len()],
            all: scenario.faults.clone(),
            lost: vec![0; replicas],
            errors: vec![0.0; replicas],
            verifier_out: 0,
            unverified: Vec::new(),
            rng: streams.stream("origin errors", 0),
        }))
    }

    /// When each fault has its turns.
    pub(super) fn turns(&self) -> impl Iterator<Item = (SimTime, Event)> {
        // Drift shows in answers alone, and follows from the time.
        let turns = |fault: &&FaultSpec| !matches!(fault, FaultSpec::KernelDrift { .. });
        let all = self.all.iter().enumerate();
        let all = all.filter(move |(_, fault)| turns(fault));
        all.flat_map(|(index, fault)| {
            let begin = SimTime::ZERO + fault.at().0;
            let end = begin.saturating_add(fault.lasts().0);
            let detection = match fault {
                FaultSpec::ReplicaLoss { detection, .. } => Some(detection.0),
                _ => None,
            };
            let plain = [(begin, Turn::Begin), (end, Turn::End)];
            let noticed = detection.map(|after| {
                [
                    (begin.saturating_add(after), Turn::Noticed),
                    (end.saturating_add(after), Turn::Forgotten),
                ]
            });
            let turns = plain.into_iter().chain(noticed.into_iter().flatten());
            let index = index as u32;
            turns
                .map(move |(at, turn)| (at, Event::Fault { index, turn }))
                .collect::<Vec<_>>()
        })
    }

    /// Whether a replica is lost, whoever knows.
    pub(super) fn is_lost(&self, replica: ReplicaId) -> bool {
        self.lost[replica.index()] > 0
    }

    /// Whether any replica ever is.
    pub(super) fn lose_replicas(&self) -> bool {
        let lost = |fault: &FaultSpec| matches!(fault, FaultSpec::ReplicaLoss { .. });
        self.all.iter().any(lost)
    }

    /// The faults that strike a replica now.
    fn at(&self, replica: u32) -> impl Iterator<Item = &FaultSpec> {
        let all = self.all.iter().zip(&self.struck).zip(&self.under_way);
        let here = all.filter(move |((_, struck), now)| **now && struck.contains(&replica));
        here.map(|((fault, _), _)| fault)
    }

    /// Probability that a request fails at a replica at once: each fault that lasts has its own chance.
    fn errors_at(&self, replica: u32) -> f64 {
        self.at(replica).fold(0.0, |errors, fault| match fault {
            FaultSpec::OriginErrors { share, .. } if errors > 0.0 => {
                1.0 - (1.0 - errors) * (1.0 - share)
            }
            FaultSpec::OriginErrors { share, .. } => *share,
            _ => errors,
        })
    }

    /// Share of its speed that is left to a replica: each fault that lasts takes its own.
    fn speed_at(&self, replica: u32) -> f64 {
        self.at(replica).fold(1.0, |speed, fault| match fault {
            FaultSpec::Slowdown { speed: left, .. } => speed * left,
            _ => speed,
        })
    }

    /// Whether a request that reaches this replica fails at once.
    pub(super) fn fails(&mut self, replica: ReplicaId) -> bool {
        let r = replica.index();
        self.lost[r] > 0 || (self.errors[r] > 0.0 && self.rng.chance(self.errors[r]))
    }
}

/// The replicas of a target.
fn ids(target: &Target, fleet: &FleetSpec, replicas: u32) -> Vec<u32> {
    let all = match &target.pool {
        None => 0..replicas,
        Some(name) => fleet.pool(name).unwrap_or_default(),
    };
    if target.replicas.is_empty() {
        return all.collect();
    }
    target.replicas.iter().map(|r| all.start + r).collect()
}

impl<M: Machine> World<'_, M> {
    /// A fault has a turn.
    pub(super) fn fault(&mut self, index: u32, turn: Turn) {
        self.idle_events -= 1;
        self.turns_left -= 1;
        let Some(mut faults) = self.faults.take() else {
            return;
        };
        let i = index as usize;
        let begins = turn == Turn::Begin;
        if begins || turn == Turn::End {
            faults.under_way[i] = begins;
        }
        match (&faults.all[i], turn) {
            (FaultSpec::Stall { lasts, .. }, Turn::Begin) => {
                let until = self.now.saturating_add(lasts.0);
                self.strike(&faults.struck[i], |world, r| world.stall(r, until));
            }
            (FaultSpec::Slowdown { .. }, Turn::Begin | Turn::End) => {
                self.strike(&faults.struck[i], |world, r| {
                    world.set_speed(r, faults.speed_at(r as u32));
                });
            }
            (FaultSpec::ReplicaLoss { .. }, turn) => {
                let struck = std::mem::take(&mut faults.struck[i]);
                for &replica in &struck {
                    let lost = &mut faults.lost[replica as usize];
                    match turn {
                        Turn::Begin => *lost += 1,
                        Turn::End => *lost -= 1,
                        Turn::Noticed | Turn::Forgotten => {}
                    }
                }
                self.faults = Some(faults);
                self.strike(&struck, |world, r| world.lose(r, turn));
                if let Some(faults) = &mut self.faults {
                    faults.struck[i] = struck;
                }
                return;
            }
            (FaultSpec::OriginErrors { .. }, Turn::Begin | Turn::End) => {
                for r in faults.struck[i].clone() {
                    faults.errors[r as usize] = faults.errors_at(r);
                }
            }
            (FaultSpec::VerifierOutage { .. }, turn) => match turn {
                Turn::Begin => faults.verifier_out += 1,
                _ => {
                    faults.verifier_out -= 1;
                    if faults.verifier_out == 0 {
                        self.verifier_is_back(std::mem::take(&mut faults.unverified));
                    }
                }
            },
            (FaultSpec::KernelEvicted { kernel, .. }, Turn::Begin | Turn::End) => {
                let kernel = kernel.clone();
                self.faults = Some(faults);
                return self.evict_kernel(&kernel, begins);
            }
            (FaultSpec::StoreBlackout { lasts, .. }, Turn::Begin) => self.black_out(lasts.0),
            (FaultSpec::LeaderCrash { .. }, Turn::Begin) => self.crash_leaders(),
            _ => {}
        }
        self.faults = Some(faults);
    }

    fn strike(&mut self, replicas: &[u32], mut what: impl FnMut(&mut Self, usize)) {
        for &replica in replicas {
            what(self, replica as usize);
        }
    }

    /// A replica stops for a while.
    fn stall(&mut self, r: usize, until: SimTime) {
        self.sample_replica(r);
        self.fleet.machines[r].stall(self.now, until);
        self.fleet.touch(r);
    }

    /// A replica gets slower, or as fast as it was.
    fn set_speed(&mut self, r: usize, speed: f64) {
        self.sample_replica(r);
        self.fleet.machines[r].set_speed(self.now, speed.recip());
        self.fleet.touch(r);
    }

    /// A replica is lost with all it was doing, or noticed to be, or back.
    fn lose(&mut self, r: usize, turn: Turn) {
        let id = ReplicaId::from(r);
        match turn {
            Turn::Begin => {
                for slot in self.requests.at_replica(id) {
                    self.fail_at_replica(slot);
                }
            }
            Turn::Noticed | Turn::Forgotten => {
                let gone = turn == Turn::Noticed;
                let full = self.gateway.is_full(id);
                self.gateway.lanes.set_gone(id, Gone::Lost, gone, full);
                if gone {
                    self.gateway.lanes.forget(id);
                }
                self.gateway.changes.note_everything();
            }
            // By now nothing runs there, and nothing is left of what did.
            Turn::End => {
                self.sample_replica(r);
                self.fleet.machines[r].forget_cache();
                self.fleet.touch(r);
            }
        }
    }

    /// What a replica was doing for a request is lost; the gateway learns of it.
    pub(super) fn fail_at_replica(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        // An answer that has left already is on its way.
        let left = flight.answer.generated != NOT_YET;
        if flight.place != Place::Out || flight.cancelled || left {
            return;
        }
        self.cancel_at_replica(slot);
        let delay = self.fleet.network.replica;
        self.hop(slot, delay, Hop::RefusalSeen(Refusal::Unavailable));
    }

    /// Whether nobody checks answers now.
    pub(super) fn verifier_is_out(&self) -> bool {
        let faults = self.faults.as_ref();
        faults.is_some_and(|faults| faults.verifier_out > 0)
    }

    /// What becomes of an answer while nobody checks it.
    pub(super) fn unverified_answer(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        let (id, class) = (self.requests.judged_as(slot), flight.arrival.class);
        let client = self.fleet.network.client;
        match self.classes[class.index()].unverified() {
            Unverified::Release => {
                let verifier = self.verifier.as_ref();
                let backup = verifier.and_then(|v| Some((v.place_of_backup(), v.backup(id)?)));
                match backup.map(|(place, b)| (place, b.check)) {
                    Some((place, check)) => {
                        self.pay_check(slot, place, check);
                        self.hop(slot, check.latency, Hop::JudgedByBackup);
                    }
                    None => {
                        if self.answers.is_some() {
                            self.fetched(slot);
                        }
                        self.hop(slot, client, Hop::AnswerDelivered);
                    }
                }
            }
            Unverified::Hold => {
                // It is kept until the verifier is back; a hop that nobody makes keeps its slot.
                let flight = self.requests.get_mut(slot);
                flight.hops += 1;
                let held = (slot, flight.id);
                if let Some(faults) = &mut self.faults {
                    faults.unverified.push(held);
                }
            }
            Unverified::Refuse => {
                let reason = Refusal::Unavailable;
                if self.answers.is_some() && self.fetch_failed(slot, reason) {
                    return;
                }
                self.hop(slot, client, Hop::RefusalDelivered(Refusal::Unavailable));
            }
        }
    }

    /// Answers that waited for the verifier are checked.
    fn verifier_is_back(&mut self, waiting: Vec<(u32, RequestId)>) {
        for (slot, id) in waiting {
            let flight = self.requests.get_mut(slot);
            debug_assert_eq!(flight.id, id, "its hop kept its slot");
            flight.hops -= 1;
            self.leaving.push(slot);
            self.verify(slot);
        }
    }

    /// The state store answers nobody for a while.
    fn black_out(&mut self, lasts: SimDuration) {
        if let Some(shared) = &mut self.gateway.shared {
            shared.store.fail(self.now, lasts);
        }
    }

    /// Requests that others wait for fail at their replicas.
    fn crash_leaders(&mut self) {
        for slot in self.leaders() {
            self.fail_at_replica(slot);
        }
    }
}
