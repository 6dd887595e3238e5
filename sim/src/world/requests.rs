//! Requests under way, in reused slots: memory follows the most that were under way at once, not the
//! number that came.

use crate::verification::{AnswerId, Judgement};
use windtunnel_base::content::Extent;
use windtunnel_base::directory::Directory;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::queue::EventKey;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::config::FrontendSpec;
use windtunnel_engine::request::{RequestView, Submission, Truth};
use windtunnel_ledger::entry::{AnswerSource, Purpose};
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::workload::Arrival;

/// Not yet, and perhaps never.
pub(super) const NOT_YET: SimTime = SimTime::MAX;

/// Where a request is, as the gateway sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// On its way from the client.
    Coming,
    /// In the gateway's own stages.
    Processing,
    /// Held back before its pool is chosen.
    Held,
    /// Waiting for the answer to another that asks the same.
    Following,
    /// Waiting for what the state store says.
    Asking,
    /// Waiting for a replica with room.
    Waiting,
    /// Sent to a replica and not yet answered.
    Out,
    /// Answered, refused or dropped: the gateway has nothing more to do with it.
    Gone,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) id: RequestId,
    pub(super) arrival: Arrival,
    pub(super) deadline: Option<SimTime>,
    pub(super) priority: i32,
    pub(super) place: Place,
    /// Which of the gateway's lanes it is in.
    pub(super) lane: u8,
    /// Its story has ended for its client; the rest is tidying up.
    pub(super) ended: bool,
    /// A cancellation has reached its replica.
    pub(super) cancelled: bool,
    /// Its replica was told to drop it, and has not said yet that it did. Only of attempts.
    pub(super) leaving_replica: bool,
    /// The state store, if there is one, answered when it was asked about it.
    pub(super) answered: bool,
    /// It was sent where its prompt should still be cached.
    pub(super) expects_cached: bool,
    /// Messages about it in the event queue.
    pub(super) hops: u16,
    pub(super) timeout: Option<EventKey>,
    /// Its answer, as far as there is one yet.
    pub(super) answer: Answer,
    /// Of the tokens found when it starts next, those fetched from a shared cache.
    pub(super) fetched_tokens: u32,
    /// Set for work that is no request of a client's.
    pub(super) purpose: Option<Purpose>,
    /// The slot of the call that this work is done for, if it is for one. That slot is kept until all
    /// its works are closed.
    pub(super) call: Option<u32>,
    /// Of a probe: whose answer it is compared with.
    pub(super) probes: Option<RequestId>,
    /// Works of this call that are not closed yet.
    pub(super) works: u32,
    /// Attempts made so far, if its client makes several.
    pub(super) attempts: Option<u32>,
    /// Where its answer comes from, if from elsewhere.
    pub(super) source: Option<AnswerSource>,
}

impl Flight {
    fn new(id: RequestId, arrival: Arrival, deadline: Option<SimTime>, priority: i32) -> Self {
        Self {
            id,
            arrival,
            deadline,
            priority,
            place: Place::Coming,
            lane: 0,
            ended: false,
            cancelled: false,
            leaving_replica: false,
            answered: true,
            expects_cached: false,
            hops: 0,
            timeout: None,
            answer: Answer::to_come(&arrival.truth),
            fetched_tokens: 0,
            purpose: None,
            call: None,
            probes: None,
            works: 0,
            attempts: None,
            source: None,
        }
    }

    /// What its replica's frontend takes to bring out so many tokens.
    pub(super) fn frontend_time(&self, frontends: &[FrontendSpec], tokens: u32) -> SimDuration {
        self.answer.replica.map_or(SimDuration::ZERO, |replica| {
            let per_token = frontends[replica.index()].per_token.0;
            per_token.saturating_mul(u64::from(tokens))
        })
    }

    /// What its replica's frontend takes to bring out the whole answer.
    pub(super) fn answer_time(&self, frontends: &[FrontendSpec]) -> SimDuration {
        let tokens = self.answer.output_tokens.max(1);
        let completion = self
            .answer
            .replica
            .map(|r| frontends[r.index()].completion.0);
        self.frontend_time(frontends, tokens) + completion.unwrap_or_default()
    }

    /// Takes over an answer from elsewhere.
    pub(super) fn take_answer(&mut self, source: AnswerSource, answer: &Answer) {
        self.source = Some(source);
        self.answer = *answer;
    }

    /// Tokens of prompt and output that its tenant has to pay: what was never sent to a replica is
    /// free, and of an answer that was broken off nobody knows how much was made.
    pub(super) fn used_tokens(&self) -> (u32, u32) {
        match (
            self.answer.dispatched == NOT_YET,
            self.answer.generated == NOT_YET,
        ) {
            (true, _) => (0, 0),
            (false, true) => (self.arrival.prompt_tokens, u32::MAX),
            (false, false) => (self.arrival.prompt_tokens, self.answer.output_tokens),
        }
    }

    /// Its row, having ended so at `now`. Objectives are not judged yet.
    pub(super) fn row(&self, end: End, now: SimTime) -> Row {
        let stamp = |at: SimTime| (at <= now).then_some(at.as_nanos());
        Row {
            request: self.id.0,
            session: self.arrival.session,
            turn: self.arrival.turn,
            tenant: self.arrival.tenant.0,
            class: self.arrival.class.0,
            replica: self.answer.replica.map(|r| r.0),
            end,
            measured: false,
            sent_ns: self.arrival.at.as_nanos(),
            dispatched_ns: stamp(self.answer.dispatched),
            accepted_ns: stamp(self.answer.accepted),
            started_ns: stamp(self.answer.started),
            first_token_ns: stamp(self.answer.first_token),
            generated_ns: stamp(self.answer.generated),
            last_token_ns: stamp(self.answer.last_token),
            ended_ns: now.as_nanos(),
            prompt_tokens: self.arrival.prompt_tokens,
            cached_tokens: self.answer.cached_tokens,
            output_tokens: if end == End::Finished {
                self.answer.output_tokens
            } else {
                0
            },
            preemptions: self.answer.preemptions,
            accepted_by_verifier: self.answer.judged.verdict(),
            good: self.answer.good,
            met_objectives: false,
            attempts: self.attempts,
            answer: self.source,
        }
    }
}

/// An answer with its stamps, as it passes from one request or work to another. What did not
/// happen, as for an answer that was stored, is [`NOT_YET`]; `first_token` and `last_token` are
/// when it reaches the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) replica: Option<ReplicaId>,
    pub(super) dispatched: SimTime,
    pub(super) accepted: SimTime,
    pub(super) started: SimTime,
    pub(super) first_token: SimTime,
    pub(super) generated: SimTime,
    pub(super) last_token: SimTime,
    pub(super) cached_tokens: u32,
    pub(super) preemptions: u32,
    pub(super) judged: Judgement,
    pub(super) output_tokens: u32,
    pub(super) good: bool,
    /// When the one before it would have been at the client, which was rejected and withdrawn.
    pub(super) withdrawn: SimTime,
    /// It is bad because its kernel has drifted.
    pub(super) drifted: bool,
    /// It is bad, and the frontier's would not be.
    pub(super) worse: bool,
    /// The stage of its kernel's rollout when the replica was given it.
    pub(super) stage: Option<u8>,
}

impl Answer {
    /// Nothing of it is there. What was drawn stands until something else comes.
    pub(super) const fn to_come(truth: &Truth) -> Self {
        Self::at_once(
            NOT_YET,
            Judgement::Unjudged,
            truth.output_tokens,
            truth.good,
        )
    }

    /// One that reaches the client at `at`, all at once, and that no replica made for this request.
    pub(super) const fn at_once(
        at: SimTime,
        judged: Judgement,
        output_tokens: u32,
        good: bool,
    ) -> Self {
        Self {
            replica: None,
            dispatched: NOT_YET,
            accepted: NOT_YET,
            started: NOT_YET,
            first_token: at,
            generated: NOT_YET,
            last_token: at,
            cached_tokens: 0,
            preemptions: 0,
            judged,
            output_tokens,
            good,
            withdrawn: NOT_YET,
            drifted: false,
            worse: false,
            stage: None,
        }
    }
}

/// The requests under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    flights: Vec<Flight>,
    /// What each prompt begins with; buffers are reused with their slots.
    prefixes: Vec<Vec<Extent>>,
    occupied: Vec<bool>,
    free: Vec<u32>,
    slots: Directory,
}

impl Requests {
    /// A slot for the next request, and its empty buffer for the prefix.
    pub(super) fn reserve(&mut self) -> (u32, &mut Vec<Extent>) {
        let slot = self.free.pop().unwrap_or(self.occupied.len() as u32);
        let i = slot as usize;
        if i == self.occupied.len() {
            self.occupied.push(false);
            self.prefixes.push(Vec::new());
        }
        self.prefixes[i].clear();
        (slot, &mut self.prefixes[i])
    }

    /// Moves a request into the slot reserved for it.
    pub(super) fn occupy(
        &mut self,
        slot: u32,
        id: RequestId,
        arrival: Arrival,
        deadline: Option<SimTime>,
        priority: i32,
    ) {
        let flight = Flight::new(id, arrival, deadline, priority);
        match self.flights.get_mut(slot as usize) {
            Some(place) => *place = flight,
            None => self.flights.push(flight),
        }
        self.occupied[slot as usize] = true;
        self.slots.insert(id.0, slot);
    }

    /// A slot for work that asks the same as the request or work in slot `like`, sent at `now`.
    pub(super) fn occupy_like(&mut self, like: u32, id: RequestId, now: SimTime) -> u32 {
        let slot = self.reserve().0;
        let prefix = std::mem::take(&mut self.prefixes[like as usize]);
        self.prefixes[slot as usize].extend_from_slice(&prefix);
        self.prefixes[like as usize] = prefix;
        let (arrival, deadline, priority) = {
            let model = &self.flights[like as usize];
            (model.arrival, model.deadline, model.priority)
        };
        let arrival = Arrival { at: now, ..arrival };
        self.occupy(slot, id, arrival, deadline, priority);
        slot
    }

    /// Gives a slot back if nothing refers to it any more.
    pub(super) fn reap(&mut self, slot: u32) {
        let i = slot as usize;
        let f = &self.flights[i];
        if self.occupied[i] && f.ended && f.place == Place::Gone && f.hops == 0 && f.works == 0 {
            self.occupied[i] = false;
            self.slots.remove(f.id.0);
            self.free.push(slot);
        }
    }

    /// Where a request is kept, if it still is.
    #[inline]
    pub(super) fn slot(&self, id: RequestId) -> Option<u32> {
        self.slots.get(id.0)
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> &Flight {
        &self.flights[slot as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Flight {
        &mut self.flights[slot as usize]
    }

    /// What policies and schedulers see of a request.
    #[inline]
    pub(super) fn view(&self, slot: u32) -> RequestView<'_> {
        let f = &self.flights[slot as usize];
        let a = &f.arrival;
        RequestView {
            id: f.id,
            sent_at: a.at,
            deadline: f.deadline,
            prompt_tokens: a.prompt_tokens,
            max_output_tokens: a.max_output_tokens,
            predicted_output_tokens: a.predicted_output_tokens,
            tenant: a.tenant,
            class: a.class,
            priority: f.priority,
            session: a.session,
            prefix: &self.prefixes[slot as usize],
        }
    }

    /// What a replica is given.
    #[inline]
    pub(super) fn submission(&self, slot: u32) -> Submission<'_> {
        Submission {
            request: self.view(slot),
            truth: self.flights[slot as usize].arrival.truth,
        }
    }

    /// As what a verifier knows an answer.
    pub(super) fn judged_answer(&self, slot: u32) -> AnswerId {
        let again = self.get(slot).answer.withdrawn != NOT_YET;
        AnswerId::new(self.judged_as(slot), again)
    }

    /// As whom a verifier knows a request: attempts of one call get one verdict, whichever of them is
    /// answered. A probe is as hard to answer as what it is compared with.
    pub(super) fn judged_as(&self, slot: u32) -> RequestId {
        let flight = self.get(slot);
        if let Some(original) = flight.probes {
            return original;
        }
        flight.call.map_or(flight.id, |call| self.get(call).id)
    }

    /// How many are kept, those included whose clients have gone.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slots of requests that were sent to a replica and are not answered, by ascending request.
    pub(super) fn at_replica(&self, replica: ReplicaId) -> Vec<u32> {
        let mut slots = self.in_order();
        slots.retain(|&s| {
            let f = &self.flights[s as usize];
            f.place == Place::Out && f.answer.replica == Some(replica)
        });
        slots
    }

    /// The slots in use, by ascending request.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = (0..self.flights.len() as u32)
            .filter(|&s| self.occupied[s as usize])
            .collect();
        slots.sort_unstable_by_key(|&s| self.flights[s as usize].id);
        slots
    }
}
