//! The clients' side of the world: they send, wait, give up, and learn how it ended.

use super::World;
use crate::event::{Event, Hop};
use crate::fleet::machine::Machine;
use crate::laws::{Law, Violation};
use crate::verification::Judgement;
use windtunnel_base::content::stream_key;
use windtunnel_base::ids::RequestId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::entry::Fact;
use windtunnel_ledger::result::Standing;
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::schema::ClassSpec;
use windtunnel_scenarios::schema::pipeline::Fail;
use windtunnel_scenarios::schema::verification::Unverified;

/// Namespace of what only one tenant says.
const TENANTS: u64 = 0x7465_6e61_6e74_7321;

/// What a class of service means to its clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassRules {
    priority: i32,
    patience: Option<SimDuration>,
    ttft: Option<SimDuration>,
    tpot: Option<SimDuration>,
    e2e: Option<SimDuration>,
    fail: Fail,
    unverified: Unverified,
}

impl ClassRules {
    pub(super) fn new(spec: &ClassSpec) -> Self {
        Self {
            priority: spec.priority,
            patience: spec.deadline.map(|s| s.0),
            ttft: spec.ttft.map(|s| s.0),
            tpot: spec.tpot.map(|s| s.0),
            e2e: spec.e2e.map(|s| s.0),
            fail: spec.fail,
            unverified: spec.unverified,
        }
    }

    /// What becomes of its requests when a check cannot be made in time.
    pub(super) const fn fail(&self) -> Fail {
        self.fail
    }

    /// What becomes of its answers while nobody checks them.
    pub(super) const fn unverified(&self) -> Unverified {
        self.unverified
    }

    /// Whether the verdict came within the limit on end-to-end latency, if there is one.
    fn verdict_in_time(&self, row: &Row) -> bool {
        let limit = self.e2e.map(SimDuration::as_nanos);
        limit.is_none_or(|limit| row.ended_ns - row.sent_ns <= limit)
    }

    /// Whether a request met every objective of its class. Times per output token are compared
    /// without rounding: `decode <= limit * (tokens - 1)`.
    fn met_by(&self, row: &Row) -> bool {
        let within = |ns: Option<u64>, limit: Option<SimDuration>| match limit {
            None => true,
            Some(limit) => ns.is_some_and(|ns| ns <= limit.as_nanos()),
        };
        let (Some(e2e), Some(ttft)) = (row.e2e_ns(), row.ttft_ns()) else {
            return false; // not finished
        };
        let gaps = u64::from(row.output_tokens.saturating_sub(1));
        let tpot = self.tpot.map(|limit| limit.saturating_mul(gaps));
        within(Some(e2e), self.e2e)
            && within(Some(ttft), self.ttft)
            && (gaps == 0 || within(Some(e2e - ttft), tpot))
    }
}

impl<M: Machine> World<'_, M> {
    /// One more request in the system, or one less.
    fn count_in_system(&mut self, change: i32) {
        let held = self.now.since(self.in_system_since).as_nanos();
        self.in_system_ns += u128::from(self.in_system) * u128::from(held);
        self.in_system_since = self.now;
        self.in_system = self.in_system.wrapping_add_signed(change);
    }

    /// A client sends the request that is due now.
    pub(super) fn arrive(&mut self) {
        let (slot, prefix) = self.requests.reserve();
        let arrival = self.workload.take(prefix);
        if self.isolates_tenants
            && let Some(first) = prefix.first_mut()
        {
            // What comes after another beginning is other content, whatever it says.
            first.key = stream_key(stream_key(TENANTS, u64::from(arrival.tenant.0)), first.key);
        }
        let id = RequestId(self.sent);
        self.sent += 1;
        let rules = &self.classes[arrival.class.index()];
        let patience = match (arrival.patience, rules.patience) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let deadline = patience.map(|p| self.now.saturating_add(p));
        if arrival.at != self.now {
            let late = Violation::new(
                Law::Causality,
                self.now,
                "a request sent when the workload said it was due",
                format!("one sent at {:?}", arrival.at),
            );
            self.recorder.judge(Err(late.of(id)));
        }
        self.requests
            .occupy(slot, id, arrival, deadline, rules.priority);
        self.count_in_system(1);
        self.fact(slot, Fact::Sent);
        if let Some(deadline) = deadline {
            let event = Event::Timeout { slot };
            let key = self.queue.schedule(deadline, event.class(), event);
            self.requests.get_mut(slot).timeout = Some(key);
        }
        self.next_arrival = self.workload.next_at();
        if self.attempts.is_some() {
            return self.begin_call(slot);
        }
        self.hop(slot, self.fleet.network.client, Hop::ToGateway);
    }

    /// A client's patience ends.
    pub(super) fn give_up(&mut self, slot: u32) {
        if self.requests.get(slot).purpose.is_some() {
            return self.attempt_timed_out(slot);
        }
        let flight = self.requests.get_mut(slot);
        flight.timeout = None;
        if flight.answer.last_token <= self.now || self.has_every_token(slot) {
            return; // it has every token, and only waits for the verdict
        }
        self.end(slot, End::Abandoned, Fact::Abandoned);
        if self.attempts.is_some() {
            return; // its attempts were given up
        }
        self.hop(slot, self.fleet.network.client, Hop::CancelAtGateway);
    }

    /// A client has the whole answer.
    pub(super) fn answer_delivered(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        if flight.ended {
            return;
        }
        if flight.purpose.is_some() {
            return self.work_answered(slot);
        }
        self.end(slot, End::Finished, Fact::Finished);
    }

    /// A client learns that its request was refused.
    pub(super) fn refusal_delivered(&mut self, slot: u32, reason: Refusal) {
        let flight = self.requests.get(slot);
        if flight.ended {
            return;
        }
        if flight.purpose.is_some() {
            return self.work_refused(slot, reason);
        }
        self.end(slot, End::Refused(reason), Fact::Refused(reason));
    }

    /// A request's story ends for its client.
    pub(super) fn end(&mut self, slot: u32, end: End, fact: Fact) {
        self.fact(slot, fact);
        let flight = self.requests.get_mut(slot);
        flight.ended = true;
        if let Some(timer) = flight.timeout.take() {
            self.queue.cancel(timer);
        }
        let (id, answer) = (flight.id, flight.answer);
        let mut row = flight.row(end, self.now);
        row.met_objectives = self.classes[row.class as usize].met_by(&row);
        row.measured = end != End::Unfinished
            && SimTime::from_nanos(row.sent_ns) >= self.warm_up.unwrap_or(SimTime::ZERO);
        // Useful: accepted or trusted, good in truth, within the objectives of its class, the verdict too.
        let trusted = answer.judged == Judgement::Trusted;
        let useful = (trusted || answer.judged == Judgement::Accepted)
            && answer.good
            && row.met_objectives
            && self.classes[row.class as usize].verdict_in_time(&row);
        let standing = Standing { trusted, useful };
        self.recorder.collector.row(&row, standing);
        if self.verifier.is_some() && end == End::Finished {
            self.count_verifier_delay(slot);
        }
        if answer.drifted && end == End::Finished && answer.judged != Judgement::Rejected {
            self.drift_came_through();
        }
        if let (Some(stage), End::Finished) = (answer.stage, end)
            && answer.judged != Judgement::Rejected
        {
            self.reached_user(slot, stage);
        }
        self.count_in_system(-1);
        self.leaving.push(slot);
        if self.attempts.is_some() {
            self.end_attempts(slot, end == End::Unfinished);
        }
        if end != End::Unfinished && self.heeds_departures {
            self.workload.departed(id, self.now, end == End::Finished);
            self.next_arrival = self.workload.next_at();
        }
    }
}
