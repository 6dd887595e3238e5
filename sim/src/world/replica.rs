//! The replicas' side of the world: requests go in, steps end, outcomes come out. Replicas are settled
//! at the end of each instant, by ascending id: whether what happened in it is in time for the step
//! that begins then is the replica's to say, and does not depend on what was told first.

use super::World;
use super::requests::{NOT_YET, Place};
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::laws::{Law, Violation, memory::Memory, progress::Progress};
use crate::run::RunError;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;
use windtunnel_engine::engine::{EngineOutcome, Outcome};
use windtunnel_ledger::entry::Fact;
use windtunnel_ledger::rows::End;

/// Rounds in which a replica must come to rest once everything in it is cancelled.
const ROUNDS_TO_REST: usize = 64;

impl<M: Machine> World<'_, M> {
    /// A request reaches its replica.
    pub(super) fn submit(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        let Some(replica) = flight.answer.replica else {
            return;
        };
        if flight.cancelled {
            return; // its cancellation was faster
        }
        let r = replica.index();
        if let Some(faults) = &mut self.faults
            && faults.fails(replica)
        {
            if let Some(stale) = &mut self.gateway.totals.stale_routes {
                *stale += u64::from(faults.is_lost(replica));
            }
            let delay = self.fleet.network.replica;
            return self.hop(slot, delay, Hop::RefusalSeen(Refusal::Unavailable));
        }
        if self.quality.is_some() {
            self.draw_quality(slot, replica);
        }
        if self.rollouts.is_some() {
            self.mark_stage(slot);
        }
        self.sample_replica(r);
        let submission = self.requests.submission(slot);
        let mut listener = self.recorder.observer(r);
        let taken = self.fleet.machines[r].submit(self.now, &submission, &mut listener);
        self.fleet.touch(r);
        match taken {
            Ok(()) => {
                self.requests.get_mut(slot).answer.accepted = self.now;
                self.fact(slot, Fact::Accepted);
                if self.shared_cache.is_some() {
                    self.offer_shared(slot, r);
                }
            }
            Err(reason) => {
                let delay = self.fleet.network.replica;
                self.hop(slot, delay, Hop::RefusalSeen(reason));
            }
        }
    }

    /// A client's cancellation reaches the replica.
    pub(super) fn cancel_at_replica(&mut self, slot: u32) {
        let flight = self.requests.get_mut(slot);
        flight.cancelled = true;
        let (id, Some(replica)) = (flight.id, flight.answer.replica) else {
            return;
        };
        let r = replica.index();
        self.sample_replica(r);
        let mut listener = self.recorder.observer(r);
        // False if it is done, and its answer under way; whoever sees that will ignore it.
        let here = self.fleet.machines[r].cancel(self.now, id, &mut listener);
        self.fleet.touch(r);
        let flight = self.requests.get_mut(slot);
        if here && let Some(prices) = &mut self.token_prices {
            prices.broken_off(id, flight.arrival.tenant, flight.answer.output_tokens);
        }
        if here && flight.purpose.is_some() {
            // The replica will say what it had generated.
            flight.leaving_replica = true;
            flight.hops += 1;
        }
    }

    /// The step, or run of steps, that ends now at the replica first on the agenda.
    pub(super) fn end_step(&mut self) {
        let Some(replica) = self.fleet.agenda.next() else {
            return;
        };
        let r = replica.index();
        self.fleet.agenda.set(r, None);
        self.sample_replica(r);
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let mut listener = self.recorder.observer(r);
        self.fleet.machines[r].advance(self.now, &mut outcomes, &mut listener);
        let (now, machine) = (self.now, &self.fleet.machines[r]);
        self.recorder.step_left(|| machine.stats(now));
        self.fleet.touch(r);
        for &outcome in &outcomes {
            self.outcome(r, outcome);
        }
        outcomes.clear();
        self.outcomes = outcomes;
        if let Some(laws) = &mut self.recorder.laws
            && laws.memory.due()
        {
            self.look_at_memory(r, false);
        }
    }

    /// Begins the next steps of all replicas that something happened to at this instant.
    pub(super) fn settle(&mut self) {
        if let Some(replica) = self.fleet.take_only_unsettled() {
            return self.settle_one(replica as usize);
        }
        let mut list = std::mem::take(&mut self.settling);
        self.fleet.take_unsettled(&mut list);
        for &replica in &list {
            self.settle_one(replica as usize);
        }
        self.settling = list;
    }

    #[inline]
    fn settle_one(&mut self, r: usize) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        let next = self.fleet.machines[r].next_event(self.now, &mut outcomes);
        if self.shared_cache.is_some() {
            self.note_refills(r);
        }
        for &outcome in &outcomes {
            self.outcome(r, outcome);
        }
        outcomes.clear();
        self.outcomes = outcomes;
        if next.is_none()
            && let Some(error) = self.fleet.machines[r].failure()
        {
            self.failure = Some(RunError::Execution {
                replica: ReplicaId::from(r),
                at: self.now,
                error: error.clone(),
            });
            return;
        }
        self.fleet.agenda.set(r, next);
        self.recorder.serving(r, self.now, next.is_some());
        if next.is_none() && self.scaling.is_some() {
            self.came_to_rest(r);
        }
        if self.recorder.laws.is_some() {
            self.check_settled(r, next);
        }
    }

    /// A replica that rests has nothing to do; one that works is done later.
    fn check_settled(&mut self, replica: usize, next: Option<SimTime>) {
        let id = ReplicaId::from(replica);
        let verdict = match next {
            None => Progress::idle(self.now, id, &self.fleet.machines[replica].stats(self.now)),
            Some(at) if at < self.now => Err(Violation::new(
                Law::Causality,
                self.now,
                "a step that ends later than it begins",
                format!("an end at {at:?}"),
            )
            .on(id)),
            Some(_) => Ok(()),
        };
        self.recorder.judge(verdict);
    }

    fn look_at_memory(&mut self, replica: usize, thorough: bool) {
        let machine = &self.fleet.machines[replica];
        let stats = machine.stats(self.now);
        let id = ReplicaId::from(replica);
        let verdict = Memory::look(self.now, id, &stats, machine.check_memory(thorough));
        self.recorder.judge(verdict);
    }

    /// What happened to a request inside a replica.
    fn outcome(&mut self, replica: usize, EngineOutcome { request, outcome }: EngineOutcome) {
        if self.token_prices.is_some() {
            self.charge_tokens(replica, request, outcome);
        }
        // A request whose story is over may be gone from our books while the replica tidies up.
        let Some(slot) = self.requests.slot(request) else {
            return;
        };
        let now = self.now;
        let flight = self.requests.get_mut(slot);
        if flight.leaving_replica
            && let Outcome::Cancelled { .. } | Outcome::Finished = outcome
        {
            flight.leaving_replica = false;
            flight.hops -= 1;
            self.leaving.push(slot);
            let tokens = match outcome {
                Outcome::Cancelled { generated } => Some(generated),
                _ => None,
            };
            return self.waste(slot, tokens);
        }
        // It was lost, and answered from elsewhere: what the last step still brings is nobody's.
        if flight.cancelled && flight.source.is_some() {
            return;
        }
        if flight.answer.generated != NOT_YET {
            let twice = Violation::new(
                Law::Causality,
                now,
                "nothing of a replica after its last token",
                format!("{outcome:?}"),
            );
            return self.recorder.judge(Err(twice.of(request)));
        }
        match outcome {
            Outcome::Started { cached_tokens } => {
                let fetched = std::mem::take(&mut flight.fetched_tokens);
                let first = flight.answer.started > now;
                if first {
                    flight.answer.started = now;
                    flight.answer.cached_tokens = cached_tokens;
                    self.gateway.false_affinity +=
                        u64::from(flight.expects_cached && cached_tokens == fetched);
                }
                if let Some(shared) = &mut self.shared_cache {
                    let prompt = flight.arrival.prompt_tokens;
                    shared.started(first, prompt, cached_tokens, fetched);
                }
                self.recorder.cached(now, cached_tokens);
                self.fact(slot, Fact::Started { cached_tokens });
            }
            Outcome::FirstToken => {
                let out = flight.frontend_time(&self.fleet.frontends, 1);
                let way = self.fleet.network.all_the_way() + out;
                flight.answer.first_token = now.saturating_add(way);
                self.fact(slot, Fact::FirstToken);
                self.write_shared(slot, false);
                if self.gateway.hears_tokens {
                    self.hop(slot, self.fleet.network.replica + out, Hop::TokenSeen);
                }
            }
            Outcome::Preempted { generated } => {
                flight.answer.preemptions += 1;
                self.fact(slot, Fact::Preempted { generated });
            }
            Outcome::Answered { tokens, good } => {
                // What was drawn for the simulation is replaced by what came.
                flight.answer.output_tokens = tokens;
                flight.answer.good = good;
            }
            Outcome::Finished => {
                flight.answer.generated = now;
                let out = flight.answer_time(&self.fleet.frontends);
                if flight.place == Place::Out
                    && let Some(replica) = flight.answer.replica
                {
                    self.gateway.answering[replica.index()] += 1;
                }
                self.fact(slot, Fact::Generated);
                self.write_shared(slot, true);
                self.hop(slot, self.fleet.network.replica + out, Hop::AnswerSeen);
            }
            Outcome::Cancelled { .. } => {}
        }
    }

    /// Ends the run at `end`, whatever is under way: requests become unfinished, and replicas account
    /// for the part of their present steps that lies before the end.
    pub(super) fn cut_off(&mut self, end: SimTime) {
        self.now = end;
        self.recorder.cut(end);
        (0..self.fleet.machines.len()).for_each(|r| self.sample_replica(r));
        let slots = self.requests.in_order();
        for &slot in &slots {
            let flight = self.requests.get(slot);
            if flight.purpose.is_some() {
                self.close_work(slot);
            } else if !flight.ended {
                self.end(slot, End::Unfinished, Fact::Unfinished);
            }
        }
        for &slot in &slots {
            let flight = self.requests.get(slot);
            if let Some(replica) = flight.answer.replica {
                let r = replica.index();
                let mut listener = self.recorder.observer(r);
                self.fleet.machines[r].cancel(end, flight.id, &mut listener);
            }
        }
        let mut outcomes = Vec::new();
        for r in 0..self.fleet.machines.len() {
            let mut at = end;
            for _ in 0..ROUNDS_TO_REST {
                let machine = &mut self.fleet.machines[r];
                let Some(next) = machine.next_event(at, &mut outcomes) else {
                    break;
                };
                at = next;
                machine.advance(at, &mut outcomes, &mut self.recorder.observer(r));
            }
            outcomes.clear();
            self.fleet.agenda.set(r, None);
        }
    }

    /// At the end of a run, with laws: memory adds up and is empty.
    pub(super) fn check_replicas(&mut self) {
        if self.recorder.laws.is_none() {
            return;
        }
        for r in 0..self.fleet.machines.len() {
            self.look_at_memory(r, true);
            let stats = self.fleet.machines[r].stats(self.now);
            let verdict = Memory::finish(self.now, ReplicaId::from(r), &stats);
            self.recorder.judge(verdict);
        }
    }
}
