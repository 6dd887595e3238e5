//! Stored answers and coalescing in the world. A request that asks something meets, in this order: the
//! answers kept to the same words, those who are being answered the same just now, the answers kept to
//! similar questions. What none of them serves is a fetch: it goes on to a replica, and its answer
//! is kept and given to all who wait for it.

/// How fetches end.
mod fetches;

use super::World;
use super::requests::{Answer as Stamped, NOT_YET, Place};
use crate::event::{Event, Hop};
use crate::fleet::machine::Machine;
use crate::gateway::answers::{Answer, Choice, Key, Keys, Nearest, Rule, Similarity, State, Store};
use crate::gateway::coalescing::Flights;
use crate::laws::answers as laws;
use crate::verification::Judgement;
use windtunnel_base::queue::EventKey;
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::decision::AnswerTotals;
use windtunnel_ledger::entry::{AnswerSource, Purpose};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::answers::CoalescingSpec;
use windtunnel_scenarios::workload::Question;

/// One second, in which fetches are counted for their peak.
const SECOND: u64 = 1_000_000_000;

/// A request that goes to a replica for an answer that others may get too.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    since: SimTime,
    /// When its answer was seen, if it waits for the verdict.
    seen: SimTime,
    /// The stored answer that it will tell of: whether it would have been right.
    tells_of: Option<Nearest>,
}

const NO_FETCH: Fetch = Fetch {
    since: NOT_YET,
    seen: NOT_YET,
    tells_of: None,
};

/// Stored answers and flights of one run.
pub(super) struct Desk {
    keys: Keys,
    store: Option<Store>,
    exact: bool,
    semantic: Option<(Similarity, Rule)>,
    keep_rejected: bool,
    age_bound: Option<SimDuration>,
    coalescing: Option<CoalescingSpec>,
    flights: Flights,
    /// By slot.
    fetches: Vec<Fetch>,
    /// When those who wait lose patience, by slot.
    timers: Vec<Option<EventKey>>,
    /// Promoted in this instant, to go on at its end.
    promoted: Vec<u32>,
    /// A buffer, kept for its capacity.
    waiting: Vec<u32>,
    /// Fetches begun in the second that begins there.
    second: (u64, u64),
    /// Where peaks count from.
    counts_from: SimTime,
}

impl Desk {
    /// The desk of a scenario; none if nothing is kept and nobody waits for another.
    pub(super) fn new(scenario: &Scenario, streams: Streams, counts_from: SimTime) -> Option<Self> {
        let gateway = &scenario.gateway;
        let answers = gateway.answers.as_ref().filter(|spec| spec.enabled);
        let coalescing = gateway.coalescing.as_ref().filter(|spec| spec.enabled);
        // What is switched off is counted all the same, so that a control can be compared.
        if gateway.answers.is_none() && gateway.coalescing.is_none() {
            return None;
        }
        let model = scenario.fleet.engine.llm().map(|spec| spec.model.as_str());
        let version = answers.map(|spec| spec.version.as_str());
        let semantic = answers.and_then(|spec| spec.semantic.as_ref());
        let semantic = semantic.filter(|spec| spec.enabled).and_then(|spec| {
            // The check of the scenario has refused what is no distribution.
            let similarity = Similarity::new(spec, streams).ok()?;
            Some((similarity, Rule::new(&spec.rule)))
        });
        Some(Self {
            keys: Keys::new(model.unwrap_or_default(), version.unwrap_or_default()),
            store: answers.map(|spec| Store::new(spec, streams.stream("answers", 0))),
            exact: answers.is_some_and(|spec| spec.exact),
            semantic,
            keep_rejected: answers.is_some_and(|spec| spec.keep_rejected),
            age_bound: answers.and_then(|spec| spec.age_bound()),
            coalescing: coalescing.cloned(),
            flights: Flights::default(),
            fetches: Vec::new(),
            timers: Vec::new(),
            promoted: Vec::new(),
            waiting: Vec::new(),
            second: (0, 0),
            counts_from,
        })
    }

    /// A request goes on for an answer that others may get too.
    fn count_fetch(&mut self, totals: &mut AnswerTotals, slot: u32, fetch: Fetch) {
        let i = slot as usize;
        if i >= self.fetches.len() {
            self.fetches.resize(i + 1, NO_FETCH);
        }
        self.fetches[i] = fetch;
        totals.fetches += 1;
        if fetch.since < self.counts_from {
            return;
        }
        let second = fetch.since.as_nanos() / SECOND;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        totals.fetch_peak = totals.fetch_peak.max(self.second.1);
    }

    /// A fetch is over, however it went.
    fn end_fetch(&mut self, slot: u32) -> Fetch {
        let fetch = self.fetches.get_mut(slot as usize);
        fetch.map_or(NO_FETCH, |fetch| std::mem::replace(fetch, NO_FETCH))
    }

    /// Keeps an answer, made since then in so much time; first it tells of the stored one that it was
    /// compared with.
    fn keep(
        &mut self,
        (key, tells_of, made): (Key, Option<Nearest>, (SimTime, SimDuration)),
        answer: Answer,
        now: SimTime,
    ) {
        let Some(store) = &mut self.store else {
            return;
        };
        if answer.judged == Judgement::Rejected && !self.keep_rejected {
            return;
        }
        if let Some(near) = tells_of
            && let Some(entry) = store.get_mut(near.slot)
            && entry.generation == near.generation
        {
            let right = entry.answer.question.about == answer.question.about;
            entry.evidence.saw(near.similarity, right);
            if right {
                // It was as good as used: evidence must not be lost to those that nobody asked about.
                store.use_at(near.slot, now);
                if store.slot(key).is_none() {
                    return; // the stored one stands for this wording too
                }
            }
        }
        let (tenant, question) = (answer.tenant, &answer.question);
        let keys = (
            key,
            self.keys.meaning(tenant, question),
            self.keys.all(tenant, question),
        );
        store.write(keys, answer, made, now);
    }

    /// Stored answers that left for want of room.
    pub(super) fn evictions(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.evictions)
    }

    /// The timer of one who waits, which is then no longer here.
    fn take_timer(&mut self, slot: u32) -> Option<EventKey> {
        self.timers.get_mut(slot as usize)?.take()
    }
}

impl<M: Machine> World<'_, M> {
    /// A request looks for an answer that is there or under way; true if it goes no further. The one place
    /// where requests meet stored answers: before admission, after the gateway's own stages.
    pub(super) fn ask(&mut self, slot: u32) -> bool {
        let flight = self.requests.get(slot);
        let (tenant, asked) = (flight.arrival.tenant, flight.arrival.question);
        let (Some(desk), Some(question)) = (&mut self.answers, asked) else {
            return false;
        };
        self.gateway.totals.answers.asked += 1;
        let key = desk.keys.exact(tenant, &question);
        let exact = desk.store.as_mut().filter(|_| desk.exact);
        let found = exact.and_then(|store| store.look_up(key, self.now));
        if let Some(found) = found
            && found.state != State::Spare
        {
            self.found(slot, key, found.slot, found.state);
            return true;
        }
        if self.join(slot, key) {
            return true;
        }
        self.fetch(slot, key);
        false
    }

    /// A request is to go to a replica; others may wait for it from now on.
    fn fetch(&mut self, slot: u32, key: Key) {
        if let Some(desk) = &mut self.answers {
            let first = desk.flights.fetch(slot, key);
            self.gateway.totals.answers.flights += u64::from(first);
        }
    }

    /// A request that is to go to a replica looks for the answer to a similar question; true if it goes no
    /// further, and those who wait for it neither.
    pub(super) fn ask_similar(&mut self, slot: u32) -> bool {
        let skipped = self.skipped_semantic(slot);
        let flight = self.requests.get(slot);
        let (refresh, question) = (
            flight.purpose == Some(Purpose::Refresh),
            flight.arrival.question,
        );
        let fetches = self.answers.as_ref().and_then(|d| d.flights.fetches(slot));
        let (Some(question), Some(_)) = (question, fetches) else {
            return false;
        };
        let choice = match skipped || refresh {
            true => Choice::GoOn(None),
            false => self.nearest(slot, &question),
        };
        let Some(desk) = &mut self.answers else {
            return false;
        };
        let near = match choice {
            Choice::GoOn(tells_of) => {
                let fetch = Fetch {
                    since: self.now,
                    tells_of,
                    ..NO_FETCH
                };
                desk.count_fetch(&mut self.gateway.totals.answers, slot, fetch);
                return false;
            }
            Choice::Give(near) => near,
        };
        let mut waiting = std::mem::take(&mut desk.waiting);
        desk.flights.answered(slot, &mut waiting);
        waiting.insert(0, slot);
        for slot in waiting.drain(..) {
            self.stop_timer(slot);
            self.give(slot, near.slot, AnswerSource::Similar);
        }
        if let Some(desk) = &mut self.answers {
            desk.waiting = waiting;
        }
        true
    }

    /// A stored answer to the same words is there: it is given, and made anew if it is time.
    fn found(&mut self, slot: u32, key: Key, entry: u32, state: State) {
        let Some(desk) = &self.answers else {
            return;
        };
        let under_way = desk.flights.under_way(key);
        let anew = match state {
            // Everybody's chance is their own, unless requests are coalesced anyway.
            State::Early => !under_way || desk.coalescing.is_none(),
            State::Stale => !under_way,
            State::Fresh | State::Spare => false,
        };
        // First: it copies what this request is like, which the answer changes.
        let work = anew.then(|| self.begin_work(Purpose::Refresh, slot, None));
        let source = match state {
            State::Stale => AnswerSource::Stale,
            State::Fresh | State::Early | State::Spare => AnswerSource::Stored,
        };
        self.give(slot, entry, source);
        if let Some(work) = work {
            self.gateway.totals.answers.refreshes += 1;
            self.requests.get_mut(work).place = Place::Processing;
            self.fetch(work, key);
            self.go_on_from_lookup(work);
        }
    }

    /// A request waits for another, if one is under way and requests are coalesced.
    fn join(&mut self, slot: u32, key: Key) -> bool {
        let Some(desk) = &mut self.answers else {
            return false;
        };
        let Some(spec) = &desk.coalescing else {
            return false;
        };
        if !desk.flights.follow(slot, key) {
            return false;
        }
        let timeout = spec.follower_timeout;
        self.gateway.totals.answers.coalesced += 1;
        self.requests.get_mut(slot).place = Place::Following;
        if let Some(timeout) = timeout {
            let event = Event::FollowerTimeout { slot };
            let at = self.now.saturating_add(timeout.0);
            let timer = self.queue.schedule(at, event.class(), event);
            let i = slot as usize;
            if i >= desk.timers.len() {
                desk.timers.resize(i + 1, None);
            }
            desk.timers[i] = Some(timer);
        }
        true
    }

    /// What semantic lookup says.
    fn nearest(&self, slot: u32, question: &Question) -> Choice {
        let tenant = self.requests.get(slot).arrival.tenant;
        let Some(desk) = &self.answers else {
            return Choice::GoOn(None);
        };
        let (Some(store), Some((similarity, rule))) = (&desk.store, &desk.semantic) else {
            return Choice::GoOn(None);
        };
        let keys = (
            desk.keys.meaning(tenant, question),
            desk.keys.all(tenant, question),
        );
        let nearest = similarity.nearest(store, keys, question, self.now);
        rule.choose(store, nearest)
    }

    /// Gives a stored answer to a request, which has nothing more to do with the gateway.
    fn give(&mut self, slot: u32, entry: u32, source: AnswerSource) {
        let flight = self.requests.get(slot);
        let (id, tenant, asked) = (flight.id, flight.arrival.tenant, flight.arrival.question);
        let Some(desk) = &mut self.answers else {
            return;
        };
        let Some(store) = &mut desk.store else {
            return;
        };
        if source == AnswerSource::Similar {
            store.use_at(entry, self.now);
        }
        let Some(entry) = store.get(entry) else {
            return;
        };
        let lawful = laws::tenant(self.now, id, tenant, entry.answer.tenant)
            .and_then(|()| laws::age(self.now, id, entry.since, desk.age_bound));
        let answer = &entry.answer;
        let right = asked.is_some_and(|asked| asked.about == answer.question.about);
        let at = self.now + self.fleet.network.client;
        let stamped = Stamped::at_once(
            at,
            answer.judged,
            answer.output_tokens,
            answer.good && right,
        );
        let totals = &mut self.gateway.totals.answers;
        match source {
            AnswerSource::Stale => totals.stale += 1,
            AnswerSource::Similar => totals.similar += 1,
            _ => totals.exact += 1,
        }
        totals.wrong += u64::from(!right);
        self.recorder.judge(lawful);
        self.answered_elsewhere(slot, source, &stamped);
    }

    /// An answer from elsewhere goes to the client.
    fn answered_elsewhere(&mut self, slot: u32, source: AnswerSource, answer: &Stamped) {
        if !self.requests.get(slot).ended {
            self.answer_call(slot, source, answer);
        }
        if self.requests.get(slot).place != Place::Gone {
            self.gone(slot);
        }
        self.hop(slot, self.fleet.network.client, Hop::AnswerDelivered);
    }
}
