//! What comes back to the gateway: tokens, answers, verdicts, refusals, and clients who take their
//! requests back.

use super::World;
use super::requests::{NOT_YET, Place};
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::laws::bounds;
use crate::view::Feedback;
use windtunnel_base::refusal::Refusal;

impl<M: Machine> World<'_, M> {
    /// Takes an answered, refused or cancelled request off its replica's account.
    fn release(&mut self, slot: u32, feedback: Feedback) {
        let flight = self.requests.get(slot);
        let Some(replica) = flight.answer.replica else {
            return;
        };
        let gateway = &mut self.gateway;
        let view = &mut gateway.views[replica.index()];
        if view.in_flight == gateway.max_in_flight {
            gateway.lanes.filled(replica, false);
        }
        let lawful = bounds::release(self.now, view, flight.arrival.prompt_tokens);
        self.recorder.judge(lawful);
        gateway.changes.note(replica);
        gateway.answering[replica.index()] -= u32::from(flight.answer.generated != NOT_YET);
        gateway.in_system -= 1;
        gateway.count_shared(flight.id, replica, false, self.now);
        gateway.feedback(&self.requests, slot, feedback, self.now);
        let empty = gateway.views[replica.index()].in_flight == 0;
        self.gone(slot);
        if empty && self.scaling.is_some() {
            self.has_nothing_in_flight(replica);
        }
    }

    /// The gateway sees the first token of an answer.
    pub(super) fn token_seen(&mut self, slot: u32) {
        if self.requests.get(slot).place == Place::Out {
            let now = self.now;
            self.gateway
                .feedback(&self.requests, slot, Feedback::FirstToken, now);
            if self.scaling.is_some() {
                self.hear_first_token(slot);
            }
        }
    }

    /// The gateway has a whole answer. Its tokens went on to the client as they came; the last
    /// message, that the answer is whole and checked, waits for the verdict.
    pub(super) fn answer_seen(&mut self, slot: u32) {
        if self.requests.get(slot).place != Place::Out {
            return; // cancelled
        }
        self.release(slot, Feedback::Finished);
        let flight = self.requests.get_mut(slot);
        let replica = flight.answer.replica;
        flight.answer.last_token = self.now + self.fleet.network.client;
        let (lane, tenant) = (flight.lane, flight.arrival.tenant);
        let output = flight.answer.output_tokens;
        self.gateway.served(lane, tenant, 0, output);
        self.replica_answered(replica);
        if (self.probes.is_some() || self.rollouts.is_some()) && self.looked_after(slot) {
            return;
        }
        if self.is_unchecked(slot) {
            if self.answers.is_some() {
                self.fetched(slot);
            }
            return self.hop(slot, self.fleet.network.client, Hop::AnswerDelivered);
        }
        if self.answers.is_some() {
            self.fetch_seen(slot);
        }
        if self.verifier_is_out() {
            return self.unverified_answer(slot);
        }
        self.verify(slot);
    }

    /// The gateway learns that a replica refused.
    pub(super) fn refusal_seen(&mut self, slot: u32, reason: Refusal) {
        if self.requests.get(slot).place != Place::Out {
            return; // cancelled
        }
        self.release(slot, Feedback::Failed);
        // What a replica refuses because it is full, or for good reasons of its own, is no failure.
        if reason == Refusal::Unavailable {
            self.replica_failed(self.requests.get(slot).answer.replica);
        }
        if self.answers.is_some() && self.fetch_failed(slot, reason) {
            return;
        }
        let delay = self.fleet.network.client;
        self.hop(slot, delay, Hop::RefusalDelivered(reason));
    }

    /// A client's cancellation reaches the gateway.
    pub(super) fn cancel_at_gateway(&mut self, slot: u32) {
        if self.answers.is_some() && self.fetch_cancelled(slot) {
            return;
        }
        let flight = self.requests.get(slot);
        match flight.place {
            // Who followed another was taken care of.
            Place::Coming | Place::Processing | Place::Following => {
                self.gateway.totals.dropped += 1;
                self.gone(slot);
            }
            Place::Asking | Place::Held => {
                if flight.place == Place::Held {
                    self.leave_held(slot);
                }
                self.gateway.in_system -= 1;
                self.gateway.totals.dropped += 1;
                self.gone(slot);
            }
            Place::Waiting => {
                let waited = self
                    .gateway
                    .lanes
                    .get_mut(flight.lane)
                    .room
                    .remove(flight.id);
                debug_assert!(waited, "{:?} waits in no room", flight.id);
                self.gateway.in_system -= 1;
                self.gateway.totals.dropped += 1;
                self.gone(slot);
            }
            Place::Out => {
                self.gateway.totals.cancelled += 1;
                self.release(slot, Feedback::Failed);
                self.hop(slot, self.fleet.network.replica, Hop::CancelAtReplica);
            }
            Place::Gone => {} // answered meanwhile
        }
    }

    /// The gateway has nothing more to do with a request.
    pub(super) fn gone(&mut self, slot: u32) {
        self.settle_charge(slot);
        self.requests.get_mut(slot).place = Place::Gone;
        self.leaving.push(slot);
    }
}
