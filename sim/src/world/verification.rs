//! Answers before their verifier: who is asked, what that takes, and what becomes of a rejected one.

use super::World;
use super::requests::{Answer, NOT_YET, Place};
use crate::event::Hop;
use crate::fleet::machine::Machine;
use crate::verification::{Check, Judgement};
use windtunnel_ledger::entry::Fact;
use windtunnel_ledger::rows::End;

impl<M: Machine> World<'_, M> {
    /// Whether nobody is ever asked about an answer; if that is so although there is a verifier, it is trusted.
    pub(super) fn is_unchecked(&mut self, slot: u32) -> bool {
        if self.verifier.is_none() {
            return true;
        }
        let flight = self.requests.get_mut(slot);
        let paths = self.gateway.paths.as_ref();
        let trusted = paths.is_some_and(|paths| paths.leaves_unchecked(flight.lane));
        if trusted {
            flight.answer.judged = Judgement::Trusted;
        }
        trusted
    }

    /// The verifier begins to check an answer.
    pub(super) fn verify(&mut self, slot: u32) {
        let Some(verifier) = &mut self.verifier else {
            return;
        };
        if verifier.ladder.is_some() {
            return self.ask_level(slot, 0);
        }
        let check = verifier.check;
        self.pay_check(slot, 0, check);
        self.hop(slot, check.latency, Hop::Judged);
    }

    /// A level of the ladder begins to check an answer.
    fn ask_level(&mut self, slot: u32, level: u8) {
        let ladder = self.verifier.as_mut().and_then(|v| v.ladder.as_mut());
        if let Some(ladder) = ladder {
            let check = ladder.ask(level);
            self.pay_check(slot, usize::from(level), check);
            self.hop(slot, check.latency, Hop::Weighed(level));
        }
    }

    /// A verifier, by its place among the totals, is paid for a check.
    pub(super) fn pay_check(&mut self, slot: u32, place: usize, check: Check) {
        let class = self.requests.get(slot).arrival.class;
        self.recorder.check(self.now, class, check);
        let totals = self.verifier.as_mut().map(|v| &mut v.totals);
        if let Some(totals) = totals.and_then(|totals| totals.get_mut(place)) {
            totals.checks += 1;
            totals.price_nano_usd += check.price.0;
            totals.energy_microjoules += check.energy.0;
        }
    }

    /// A level of the ladder has spoken: the policy decides, or asks the next. While the verifier is out
    /// nobody else is asked, and what is known has to do.
    pub(super) fn weighed(&mut self, slot: u32, level: u8) {
        let answer = self.requests.judged_answer(slot);
        let good = self.requests.get(slot).answer.good;
        let may_climb = !self.verifier_is_out();
        let ladder = self.verifier.as_ref().and_then(|v| v.ladder.as_ref());
        let verdict = ladder.map(|l| l.verdict(level, answer, good, may_climb));
        match verdict {
            Some(Some(accepted)) => self.verdict(slot, usize::from(level), accepted),
            Some(None) => self.ask_level(slot, level + 1),
            None => {}
        }
    }

    /// The verifier, or who stands in for it, is done with an answer.
    pub(super) fn judged(&mut self, slot: u32, by_backup: bool) {
        let id = self.requests.judged_as(slot);
        let answer = self.requests.judged_answer(slot);
        let good = self.requests.get(slot).answer.good;
        let Some(verifier) = &self.verifier else {
            return;
        };
        let (judge, place) = match by_backup {
            true => (verifier.backup(id), verifier.place_of_backup()),
            false => (Some(verifier), 0),
        };
        if let Some(judge) = judge {
            let accepted = judge.accepts(answer, good);
            self.verdict(slot, place, accepted);
        }
    }

    /// There is a verdict on an answer, from the verifier at a place among the totals.
    fn verdict(&mut self, slot: u32, place: usize, accepted: bool) {
        let flight = self.requests.get_mut(slot);
        flight.answer.judged = accepted.into();
        let (class, lane, good) = (flight.arrival.class, flight.lane, flight.answer.good);
        self.fact(slot, Fact::Verified { accepted });
        let totals = self.verifier.as_mut().map(|v| &mut v.totals);
        if let Some(totals) = totals.and_then(|totals| totals.get_mut(place)) {
            totals.decided(accepted, good);
        }
        self.recorder.collector.count(self.now, class, |p| {
            let outcome = match (accepted, good) {
                (true, true) => &mut p.good_accepted,
                (true, false) => &mut p.bad_accepted,
                (false, true) => &mut p.good_rejected,
                (false, false) => &mut p.bad_caught,
            };
            *outcome += 1;
        });
        let paths = self.gateway.paths.as_mut();
        if !accepted && paths.is_some_and(|paths| paths.falls_back(lane)) {
            return self.fall_back(slot);
        }
        if self.answers.is_some() {
            self.fetched(slot);
        }
        self.hop(slot, self.fleet.network.client, Hop::AnswerDelivered);
    }

    /// A client has its whole answer, checked if it is: counts how long that took, and how long it would have
    /// taken had the first answer been delivered as it was.
    pub(super) fn count_verifier_delay(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        let (sent, class) = (flight.arrival.at, flight.arrival.class);
        let first = flight.answer.withdrawn.min(flight.answer.last_token);
        let (with, without) = (self.now.since(sent), first.min(self.now).since(sent));
        self.recorder.collector.count(sent, class, |p| {
            p.with_verifier.record(with.as_nanos(), 1);
            p.without_verifier.record(without.as_nanos(), 1);
        });
    }

    /// A rejected answer is withdrawn, and the frontier is asked in its place, as somebody who was admitted
    /// before. Who would not wait for that has left, unless others wait for the same answer.
    pub(super) fn fall_back(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        let overdue = flight.deadline.is_some_and(|deadline| deadline <= self.now);
        if overdue && !flight.ended && flight.purpose.is_none() {
            self.end(slot, End::Abandoned, Fact::Abandoned);
        }
        if self.requests.get(slot).ended && self.answers.is_none() {
            return;
        }
        let good = self.good_again(slot);
        self.fact(slot, Fact::FellBack);
        let flight = self.requests.get_mut(slot);
        let withdrawn = flight.answer.last_token.min(flight.answer.withdrawn);
        flight.arrival.truth.good = good;
        flight.answer = Answer {
            withdrawn,
            ..Answer::to_come(&flight.arrival.truth)
        };
        debug_assert!(withdrawn != NOT_YET, "it had an answer");
        flight.place = Place::Processing;
        flight.lane = 0;
        self.gateway.in_system += 1;
        self.enter_lane(slot);
    }

    /// Whether the answer in the place of a rejected one will be good; where pools differ in that, it is decided
    /// when a replica is given the request.
    fn good_again(&self, slot: u32) -> bool {
        let id = self.requests.judged_as(slot);
        let anywhere = self.verifier.as_ref().filter(|_| self.quality.is_none());
        anywhere.is_none_or(|verifier| verifier.good_again(id))
    }
}
