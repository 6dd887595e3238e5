//! How fetches end: with an answer that is kept and given to all who wait, with a failure, or because nobody
//! wants them any more.

use super::Stamped;
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::gateway::answers::{Answer, Key};
use crate::gateway::coalescing::Failed;
use crate::world::World;
use crate::world::requests::Place;
use windtunnel_base::refusal::Refusal;
use windtunnel_ledger::entry::{AnswerSource, Purpose};
use windtunnel_scenarios::schema::answers::OnFailure;

impl<M: Machine> World<'_, M> {
    /// The answer to a request was seen, and its verdict is awaited: those who wait have its tokens.
    pub(in crate::world) fn fetch_seen(&mut self, slot: u32) {
        let Some(desk) = &mut self.answers else {
            return;
        };
        if desk.flights.fetches(slot).is_some() {
            if let Some(fetch) = desk.fetches.get_mut(slot as usize) {
                fetch.seen = self.now;
            }
            let at = self.now + self.fleet.network.client;
            for follower in desk.flights.followers(slot) {
                let waits = self.requests.get_mut(follower);
                (waits.answer.first_token, waits.answer.last_token) = (at, at);
            }
        }
    }

    /// The answer to a request is complete, its verdict included: it is kept, and those who wait get it.
    pub(in crate::world) fn fetched(&mut self, slot: u32) {
        let Some(desk) = &mut self.answers else {
            return;
        };
        let Some(key) = desk.flights.fetches(slot) else {
            return;
        };
        let flight = *self.requests.get(slot);
        let Some(question) = flight.arrival.question else {
            return;
        };
        let mut waiting = std::mem::take(&mut desk.waiting);
        desk.flights.answered(slot, &mut waiting);
        let fetch = desk.end_fetch(slot);
        let seen = fetch.seen.min(self.now);
        desk.keep(
            (key, fetch.tells_of, (fetch.since, seen.since(fetch.since))),
            Answer {
                tenant: flight.arrival.tenant,
                question,
                output_tokens: flight.answer.output_tokens,
                good: flight.answer.good,
                judged: flight.answer.judged,
            },
            self.now,
        );
        for follower in waiting.drain(..) {
            self.stop_timer(follower);
            let sent = self.requests.get(follower).arrival.at;
            let at = seen.max(sent) + self.fleet.network.client;
            let stamped = Stamped::at_once(
                at,
                flight.answer.judged,
                flight.answer.output_tokens,
                flight.answer.good,
            );
            self.answered_elsewhere(follower, AnswerSource::Coalesced, &stamped);
        }
        if let Some(desk) = &mut self.answers {
            desk.waiting = waiting;
        }
        self.drop_unneeded(key);
        self.give_to_held();
    }

    /// Whether an expired answer is kept that may stand in for the one that a request was to fetch. A
    /// refresh is for nobody, so nothing can stand in for it.
    pub(in crate::world) fn has_spare(&self, slot: u32) -> bool {
        let Some(desk) = self.answers.as_ref().filter(|desk| desk.exact) else {
            return false;
        };
        let spare = |key| desk.store.as_ref()?.on_error(key, self.now);
        let refresh = self.requests.get(slot).purpose == Some(Purpose::Refresh);
        !refresh && desk.flights.fetches(slot).and_then(spare).is_some()
    }

    /// A request that was to fetch an answer failed. True if it got an expired answer instead.
    pub(in crate::world) fn fetch_failed(&mut self, slot: u32, reason: Refusal) -> bool {
        let now = self.now;
        let Some(desk) = &mut self.answers else {
            return false;
        };
        let Some(key) = desk.flights.fetches(slot) else {
            return false;
        };
        desk.end_fetch(slot);
        let mut waiting = std::mem::take(&mut desk.waiting);
        // What is the request's own fault is no error of whoever should have answered.
        let own_fault = matches!(reason, Refusal::TooLong | Refusal::Blocked);
        let exact = desk.store.as_ref().filter(|_| desk.exact && !own_fault);
        let spare = exact.and_then(|store| store.on_error(key, now));
        let rule = match &desk.coalescing {
            Some(spec) if !own_fault => spec.on_failure,
            _ => OnFailure::FanOut,
        };
        let rule = if spare.is_some() {
            OnFailure::FanOut
        } else {
            rule
        };
        if let Failed::Promoted(next) = desk.flights.failed(slot, rule, &mut waiting) {
            desk.promoted.push(next);
        }
        for follower in waiting.drain(..) {
            self.stop_timer(follower);
            if let Some(entry) = spare {
                self.gateway.totals.answers.stale_on_error += 1;
                self.give(follower, entry, AnswerSource::Stale);
            } else {
                self.gateway.totals.answers.failed_with_leader += 1;
                self.gone(follower);
                let delay = self.fleet.network.client;
                self.hop(follower, delay, Hop::RefusalDelivered(reason));
            }
        }
        if let Some(desk) = &mut self.answers {
            desk.waiting = waiting;
        }
        // Nobody is given an answer that is made anew for nobody.
        let refresh = self.requests.get(slot).purpose == Some(Purpose::Refresh);
        if let Some(entry) = spare.filter(|_| !refresh) {
            self.gateway.totals.answers.stale_on_error += 1;
            self.give(slot, entry, AnswerSource::Stale);
            return true;
        }
        false
    }

    /// A client takes its request back. True if that is all: it only waited, or others wait for it.
    pub(in crate::world) fn fetch_cancelled(&mut self, slot: u32) -> bool {
        let Some(desk) = &mut self.answers else {
            return false;
        };
        if desk.flights.leave(slot) {
            self.stop_timer(slot);
            self.gateway.totals.dropped += 1;
            let key = self.key_of(slot);
            self.gone(slot);
            if let Some(key) = key {
                self.drop_unneeded(key);
            }
            return true;
        }
        if desk.flights.is_needed(slot) {
            desk.flights.keep_on(slot);
            self.gateway.totals.answers.kept_on += 1;
            return true;
        }
        if desk.flights.fetches(slot).is_some() {
            // Others wait for another fetch, or nobody waits.
            desk.flights
                .failed(slot, OnFailure::FanOut, &mut desk.waiting);
            debug_assert!(desk.waiting.is_empty());
            desk.end_fetch(slot);
        }
        false
    }

    /// The key of what a request asks, if it asks something that others may ask too.
    fn key_of(&self, slot: u32) -> Option<Key> {
        let arrival = &self.requests.get(slot).arrival;
        let desk = self.answers.as_ref()?;
        Some(desk.keys.exact(arrival.tenant, &arrival.question?))
    }

    /// A fetch that went on for others alone is given up once nobody waits for it.
    fn drop_unneeded(&mut self, key: Key) {
        let desk = self.answers.as_ref();
        if let Some(slot) = desk.and_then(|desk| desk.flights.kept_for_nobody(key)) {
            self.cancel_at_gateway(slot);
        }
    }

    /// One who waits has waited long enough, and goes on alone.
    pub(in crate::world) fn follower_timeout(&mut self, slot: u32) {
        let Some(desk) = &mut self.answers else {
            return;
        };
        desk.take_timer(slot);
        if desk.flights.leave(slot) {
            self.gateway.totals.answers.follower_timeouts += 1;
            if let Some(key) = self.key_of(slot) {
                self.drop_unneeded(key);
                self.fetch(slot, key);
            }
            self.requests.get_mut(slot).place = Place::Processing;
            self.go_on_from_lookup(slot);
        }
    }

    /// Whether somebody was promoted in this instant and has not gone on yet.
    pub(in crate::world) fn somebody_is_promoted(&self) -> bool {
        let desk = self.answers.as_ref();
        desk.is_some_and(|desk| !desk.promoted.is_empty())
    }

    /// Those who were promoted in this instant go on.
    pub(in crate::world) fn promote(&mut self) {
        while let Some(slot) = self.answers.as_mut().and_then(|desk| desk.promoted.pop()) {
            self.gateway.totals.answers.promoted += 1;
            self.stop_timer(slot);
            self.requests.get_mut(slot).place = Place::Processing;
            self.go_on_from_lookup(slot);
        }
    }

    /// The requests that others wait for, and for nobody else.
    pub(in crate::world) fn leaders(&self) -> Vec<u32> {
        let desk = self.answers.as_ref();
        desk.map_or(Vec::new(), |desk| desk.flights.leaders())
    }

    pub(super) fn stop_timer(&mut self, slot: u32) {
        let timer = self.answers.as_mut().and_then(|desk| desk.take_timer(slot));
        if let Some(timer) = timer {
            self.queue.cancel(timer);
        }
    }
}
