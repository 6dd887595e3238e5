//! Calls whose clients make attempts. Each attempt, the first too, is a work of its own; the call is
//! answered by the first that brings a whole answer to the client, and fails when its client
//! makes no more.

use super::World;
use super::requests::{NOT_YET, Place};
use crate::clients::{Clients, Tries};
use crate::event::{Event, Hop};
use crate::fleet::machine::Machine;
use windtunnel_base::ids::ClassId;
use windtunnel_base::queue::EventKey;
use windtunnel_base::refusal::Refusal;
use windtunnel_ledger::entry::{AnswerSource, Fact, Purpose};
use windtunnel_ledger::result::Population;
use windtunnel_ledger::rows::End;

/// The clients, and what each call has under way.
#[derive(Debug)]
pub(super) struct Attempts {
    clients: Clients,
    /// By slot of the call.
    calls: Vec<Call>,
}

/// What a call has behind it, and under way.
#[derive(Debug, Default)]
struct Call {
    tries: Tries,
    /// Slots of attempts that its client waits for.
    open: Vec<u32>,
    /// The next retry.
    retry: Option<EventKey>,
    /// The next attempt beside one under way.
    hedge: Option<EventKey>,
}

impl Attempts {
    pub(super) const fn new(clients: Clients) -> Self {
        Self {
            clients,
            calls: Vec::new(),
        }
    }

    fn call(&mut self, slot: u32) -> &mut Call {
        let slot = slot as usize;
        if slot >= self.calls.len() {
            self.calls.resize_with(slot + 1, Call::default);
        }
        &mut self.calls[slot]
    }
}

impl<M: Machine> World<'_, M> {
    /// Counts something of a call or attempt in the segment of now.
    fn count_of(&mut self, slot: u32, add: impl Fn(&mut Population)) {
        let class: ClassId = self.requests.get(slot).arrival.class;
        self.recorder.collector.count(self.now, class, add);
    }

    /// A client that makes attempts has a request: it makes the first.
    pub(super) fn begin_call(&mut self, slot: u32) {
        let call = self.requests.get_mut(slot);
        call.place = Place::Gone; // what the gateway sees are its attempts
        call.attempts = Some(0);
        let tenant = call.arrival.tenant;
        if let Some(attempts) = &mut self.attempts {
            attempts.call(slot).tries = Tries::default();
            attempts.clients.request(tenant);
        }
        self.attempt(slot, Purpose::Attempt);
    }

    /// A client makes an attempt, or holds it back.
    fn attempt(&mut self, call: u32, purpose: Purpose) {
        let Some(attempts) = &mut self.attempts else {
            return;
        };
        let flight = self.requests.get_mut(call);
        let (id, tenant) = (flight.id, flight.arrival.tenant);
        let tries = &mut attempts.call(call).tries;
        let mut counted = *tries;
        let sent = attempts.clients.sends(self.now, tenant, id, &mut counted);
        attempts.call(call).tries = counted;
        if !sent {
            self.count_of(call, |p| p.throttled += 1);
            return self.attempt_failed(call, Refusal::Throttled);
        }
        flight.attempts = Some(flight.attempts.unwrap_or(0) + 1);
        let timeout = attempts.clients.timeout;
        let work = self.begin_work(purpose, call, Some(call));
        if let Some(attempts) = &mut self.attempts {
            attempts.call(call).open.push(work);
        }
        self.count_of(call, |p| {
            p.attempts += 1;
            p.retries += u64::from(purpose == Purpose::Retry);
            p.hedges += u64::from(purpose == Purpose::Hedge);
        });
        if let Some(timeout) = timeout {
            let event = Event::Timeout { slot: work };
            let at = self.now.saturating_add(timeout);
            let key = self.queue.schedule(at, event.class(), event);
            self.requests.get_mut(work).timeout = Some(key);
        }
        self.await_hedge(call);
        self.hop(work, self.fleet.network.client, Hop::ToGateway);
    }

    /// Sets the time of the next attempt beside the one just made, if there may be one.
    fn await_hedge(&mut self, slot: u32) {
        let Some(attempts) = &mut self.attempts else {
            return;
        };
        let call = &mut attempts.calls[slot as usize];
        if let Some(old) = call.hedge.take() {
            self.queue.cancel(old);
        }
        if let Some(after) = attempts.clients.next_hedge(&call.tries) {
            let event = Event::Hedge { slot };
            let at = self.now.saturating_add(after);
            call.hedge = Some(self.queue.schedule(at, event.class(), event));
        }
    }

    /// The time has come for an attempt beside those under way.
    pub(super) fn hedge(&mut self, slot: u32) {
        let tenant = self.requests.get(slot).arrival.tenant;
        let Some(attempts) = &mut self.attempts else {
            return;
        };
        let call = &mut attempts.calls[slot as usize];
        call.hedge = None;
        // If all have failed, the next is a retry's matter.
        if !call.open.is_empty() && attempts.clients.hedge(tenant, &mut call.tries) {
            self.attempt(slot, Purpose::Hedge);
        }
    }

    /// A client has waited long enough to try again.
    pub(super) fn retry(&mut self, slot: u32) {
        if let Some(attempts) = &mut self.attempts {
            attempts.calls[slot as usize].retry = None;
            self.attempt(slot, Purpose::Retry);
        }
    }

    /// The client takes an attempt off those that it waits for; `false` if it waited for it no more.
    fn settle_attempt(&mut self, call: u32, work: u32) -> bool {
        let Some(attempts) = &mut self.attempts else {
            return false;
        };
        let open = &mut attempts.call(call).open;
        let place = open.iter().position(|&slot| slot == work);
        place.map(|i| open.remove(i)).is_some()
    }

    /// An attempt, the last one under way or not, has failed.
    fn attempt_failed(&mut self, slot: u32, reason: Refusal) {
        let flight = self.requests.get(slot);
        let (id, tenant) = (flight.id, flight.arrival.tenant);
        let Some(attempts) = &mut self.attempts else {
            return;
        };
        let call = &mut attempts.calls[slot as usize];
        if flight.ended || !call.open.is_empty() {
            return;
        }
        if let Some(timer) = call.hedge.take() {
            self.queue.cancel(timer);
        }
        match attempts.clients.retry(tenant, id, reason, &mut call.tries) {
            None => self.end(slot, End::Refused(reason), Fact::Refused(reason)),
            Some(wait) if wait.is_zero() => self.attempt(slot, Purpose::Retry),
            Some(wait) => {
                let event = Event::Retry { slot };
                let at = self.now.saturating_add(wait);
                call.retry = Some(self.queue.schedule(at, event.class(), event));
            }
        }
    }

    /// An attempt has taken too long.
    pub(super) fn attempt_timed_out(&mut self, work: u32) {
        let flight = self.requests.get_mut(work);
        flight.timeout = None;
        let (Some(call), false) = (flight.call, flight.answer.last_token <= self.now) else {
            return; // its client has every token, and only waits for the verdict
        };
        if self.settle_attempt(call, work) {
            self.give_up_attempt(work);
            self.attempt_failed(call, Refusal::TimedOut);
        }
    }

    /// Nobody waits for an attempt any more: it is cancelled, or its work is done all the same.
    fn give_up_attempt(&mut self, work: u32) {
        let flight = self.requests.get_mut(work);
        if let Some(timer) = flight.timeout.take() {
            self.queue.cancel(timer);
        }
        let cancels = self
            .attempts
            .as_ref()
            .is_some_and(|a| a.clients.cancel_dead_work);
        if !cancels {
            return;
        }
        if flight.answer.generated != NOT_YET {
            self.waste(work, None);
        }
        self.close_work(work);
        self.hop(work, self.fleet.network.client, Hop::CancelAtGateway);
    }

    /// What was generated for an attempt was for nothing: so many tokens, or its whole answer.
    pub(super) fn waste(&mut self, work: u32, tokens: Option<u32>) {
        let whole = self.requests.get(work).answer.output_tokens;
        let tokens = u64::from(tokens.unwrap_or(whole));
        self.count_of(work, |p| p.wasted_tokens += tokens);
    }

    /// The answer to an attempt has reached its client.
    pub(super) fn attempt_answered(&mut self, call: u32, work: u32) {
        let flight = self.requests.get(work);
        let (answer, tenant) = (flight.answer, flight.arrival.tenant);
        let source = flight.source.unwrap_or(AnswerSource::Attempt);
        if !self.settle_attempt(call, work) {
            if source == AnswerSource::Attempt {
                self.waste(work, None);
            }
            return self.close_work(work);
        }
        if let Some(attempts) = &mut self.attempts {
            attempts.clients.accepted(self.now, tenant);
        }
        self.close_work(work);
        self.answer_call(call, source, &answer);
        self.end(call, End::Finished, Fact::Finished);
    }

    /// A client learns that an attempt was refused.
    pub(super) fn attempt_refused(&mut self, call: u32, work: u32, reason: Refusal) {
        let awaited = self.settle_attempt(call, work);
        self.close_work(work);
        if awaited {
            self.attempt_failed(call, reason);
        }
    }

    /// Whether the client has every token of some attempt, and waits for the verdict alone.
    pub(super) fn has_every_token(&self, call: u32) -> bool {
        let Some(attempts) = &self.attempts else {
            return false;
        };
        let open = attempts.calls.get(call as usize).map(|c| &c.open);
        open.is_some_and(|open| {
            let mut open = open.iter();
            open.any(|&work| self.requests.get(work).answer.last_token <= self.now)
        })
    }

    /// A call has ended: its client makes no more attempts, and waits for none. When the run is cut off,
    /// nobody is told.
    pub(super) fn end_attempts(&mut self, slot: u32, cut_off: bool) {
        let Some(attempts) = &mut self.attempts else {
            return;
        };
        let call = attempts.call(slot);
        let timers = [call.retry.take(), call.hedge.take()];
        let mut open = std::mem::take(&mut call.open);
        for timer in timers.into_iter().flatten() {
            self.queue.cancel(timer);
        }
        if !cut_off {
            open.iter().for_each(|&work| self.give_up_attempt(work));
        }
        open.clear();
        if let Some(attempts) = &mut self.attempts {
            attempts.call(slot).open = open; // for its capacity
        }
    }
}
