//! Calls and works. A call is what a client wants: it has a row and one life. A work is a request as
//! gateway and replicas see it. Mostly a call is its own only work; where clients make attempts, or
//! the gateway does something for nobody in particular, works have slots of their own, ids of their
//! own, and no row.

use super::World;
use super::requests::Answer;
use crate::fleet::machine::Machine;
use windtunnel_base::ids::{FIRST_WORK, RequestId};
use windtunnel_base::refusal::Refusal;
use windtunnel_ledger::entry::{AnswerSource, Fact, Purpose};

impl<M: Machine> World<'_, M> {
    /// Begins a work that asks the same as whoever is in slot `like`, for the call in slot `call`, if for
    /// one; says where it is kept. The caller sends it on its way: `Hop::ToGateway` from a client, or
    /// what comes next of the gateway's own stages.
    pub(super) fn begin_work(&mut self, purpose: Purpose, like: u32, call: Option<u32>) -> u32 {
        let id = RequestId(FIRST_WORK | self.begun);
        self.begun += 1;
        self.works += 1;
        let slot = self.requests.occupy_like(like, id, self.now);
        let work = self.requests.get_mut(slot);
        work.purpose = Some(purpose);
        work.call = call;
        if let Some(call) = call {
            let call = self.requests.get_mut(call);
            call.works += 1;
            self.recorder.follow(call.id, id);
        }
        self.fact(slot, Fact::Begun(purpose));
        slot
    }

    /// Ends a work, however it ended; does nothing if it was closed before. What the gateway and
    /// replicas still do for it goes on, unseen.
    pub(super) fn close_work(&mut self, slot: u32) {
        if self.requests.get(slot).ended {
            return;
        }
        self.fact(slot, Fact::Closed);
        let work = self.requests.get_mut(slot);
        work.ended = true;
        let call = work.call;
        if let Some(timer) = work.timeout.take() {
            self.queue.cancel(timer);
        }
        self.works -= 1;
        self.leaving.push(slot);
        if let Some(call) = call {
            self.requests.get_mut(call).works -= 1;
            self.leaving.push(call);
        }
    }

    /// Gives a call, or a work, an answer from elsewhere: stamps, verdict and goodness are those of `from`,
    /// whose `first_token` and `last_token` say when it reaches the client. The caller sends it on
    /// its way by `Hop::AnswerDelivered`.
    pub(super) fn answer_call(&mut self, slot: u32, source: AnswerSource, from: &Answer) {
        self.fact(slot, Fact::Answered(source));
        self.requests.get_mut(slot).take_answer(source, from);
    }

    /// Whoever a work was done for has its whole answer.
    pub(super) fn work_answered(&mut self, slot: u32) {
        match self.requests.get(slot).call {
            Some(call) => self.attempt_answered(call, slot),
            None => self.close_work(slot),
        }
    }

    /// Whoever a work was done for learns that it was refused.
    pub(super) fn work_refused(&mut self, slot: u32, reason: Refusal) {
        match self.requests.get(slot).call {
            Some(call) => self.attempt_refused(call, slot, reason),
            None => {
                self.probe_failed(slot);
                self.close_work(slot);
            }
        }
    }
}
