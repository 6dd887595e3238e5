//! Which replicas of a pool come and go: off, ordered, ready, on their way out, off again.

use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::SimTime;
use windtunnel_ledger::scaling::{ScalingChange, ScalingStep, ScalingTotals};

/// What a replica is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nobody pays for it.
    Off,
    /// On order.
    Booting,
    /// It serves.
    Ready,
    /// It ends what it has.
    Draining,
}

/// What is to be done with a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Order it.
    Order(ReplicaId),
    /// Take its order back.
    Cancel(ReplicaId),
    /// Send it no more requests.
    Drain(ReplicaId),
}

/// The replicas of a pool.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Id of the first.
    first: u32,
    states: Vec<State>,
    /// When each came to be what it is: who came last goes first.
    since: Vec<SimTime>,
    ready: u32,
    booting: u32,
    draining: u32,
    /// Integrals reach up to here.
    counted_to: SimTime,
    /// Requests have been waiting since this look.
    need: Option<SimTime>,
    totals: ScalingTotals,
}

impl Pool {
    /// Replicas of these ids, the first `start` of which are ready.
    pub(crate) fn new(ids: std::ops::Range<u32>, start: u32) -> Self {
        let state = |i| if i < start { State::Ready } else { State::Off };
        let size = ids.end - ids.start;
        Self {
            first: ids.start,
            states: (0..size).map(state).collect(),
            since: vec![SimTime::ZERO; size as usize],
            ready: start.min(size),
            booting: 0,
            draining: 0,
            counted_to: SimTime::ZERO,
            need: None,
            totals: ScalingTotals {
                peak: start.min(size),
                ..ScalingTotals::default()
            },
        }
    }

    /// Replicas that serve.
    pub(crate) const fn ready(&self) -> u32 {
        self.ready
    }

    /// Replicas that serve or will.
    pub(crate) const fn ordered(&self) -> u32 {
        self.ready + self.booting
    }

    /// Ids of the replicas that are not paid for.
    pub(crate) fn off(&self) -> impl Iterator<Item = ReplicaId> {
        self.with(State::Off)
    }

    /// Ids of the replicas that serve.
    pub(crate) fn serving(&self) -> impl Iterator<Item = ReplicaId> {
        self.with(State::Ready)
    }

    /// Whether a replica of this pool does not serve: it is off, or on order.
    pub(crate) fn is_out_of_service(&self, replica: ReplicaId) -> bool {
        let place = self.place(replica);
        let idle = |place: usize| matches!(self.states[place], State::Off | State::Booting);
        place.is_some_and(idle)
    }

    fn with(&self, state: State) -> impl Iterator<Item = ReplicaId> {
        let ids = (self.first..).map(ReplicaId).zip(&self.states);
        ids.filter(move |&(_, s)| *s == state).map(|(id, _)| id)
    }

    fn place(&self, replica: ReplicaId) -> Option<usize> {
        let place = replica.0.checked_sub(self.first)? as usize;
        (place < self.states.len()).then_some(place)
    }

    /// Whether a replica is on its way out.
    pub(crate) fn is_draining(&self, replica: ReplicaId) -> bool {
        let place = self.place(replica);
        place.is_some_and(|place| self.states[place] == State::Draining)
    }

    /// Goes to so many that serve or will: orders those of the lowest ids, as far as there are any;
    /// takes orders back before it lets ready ones go, of each who came last.
    pub(crate) fn change_to(&mut self, now: SimTime, wanted: u32, changes: &mut Vec<Change>) {
        while self.ordered() < wanted {
            let Some(place) = self.states.iter().position(|&s| s == State::Off) else {
                break;
            };
            changes.push(Change::Order(self.turn(now, place, State::Booting)));
            self.totals.orders += 1;
        }
        while self.ordered() > wanted {
            if let Some(place) = self.youngest(State::Booting) {
                changes.push(Change::Cancel(self.turn(now, place, State::Off)));
                self.totals.cancelled += 1;
            } else if let Some(place) = self.youngest(State::Ready) {
                changes.push(Change::Drain(self.turn(now, place, State::Draining)));
                self.totals.drains += 1;
            } else {
                break;
            }
        }
    }

    /// Who of a state came to it last; of equals the highest id.
    fn youngest(&self, state: State) -> Option<usize> {
        let those = (0..self.states.len()).filter(|&place| self.states[place] == state);
        those.max_by_key(|&place| (self.since[place], place))
    }

    /// An order is ready.
    pub(crate) fn becomes_ready(&mut self, now: SimTime, replica: ReplicaId) {
        if let Some(place) = self.place(replica) {
            self.turn(now, place, State::Ready);
        }
        if let Some(since) = self.need.take() {
            let waited = now.since(since).as_nanos();
            self.totals.time_to_capacity.record(waited, 1);
        }
    }

    /// A replica on its way out has ended all it had.
    pub(crate) fn release(&mut self, now: SimTime, replica: ReplicaId) {
        if let Some(place) = self.place(replica) {
            self.turn(now, place, State::Off);
        }
    }

    fn turn(&mut self, now: SimTime, place: usize, to: State) -> ReplicaId {
        self.count_to(now);
        for (state, change) in [(self.states[place], -1), (to, 1)] {
            let counter = match state {
                State::Off => continue,
                State::Booting => &mut self.booting,
                State::Ready => &mut self.ready,
                State::Draining => &mut self.draining,
            };
            *counter = counter.wrapping_add_signed(change);
        }
        (self.states[place], self.since[place]) = (to, now);
        let paid = self.ready + self.booting + self.draining;
        self.totals.peak = self.totals.peak.max(paid);
        let replica = self.first + place as u32;
        self.totals.note(ScalingChange {
            at_ns: now.as_nanos(),
            replica,
            step: match to {
                State::Off => ScalingStep::Released,
                State::Booting => ScalingStep::Ordered,
                State::Ready => ScalingStep::Ready,
                State::Draining => ScalingStep::Draining,
            },
        });
        ReplicaId(replica)
    }

    /// Somebody looked, and found so many requests waiting.
    pub(crate) fn looked(&mut self, now: SimTime, waiting: u64) {
        self.totals.checks += 1;
        self.totals.short_checks += u64::from(waiting > 0);
        self.need = match self.need {
            _ if waiting == 0 => None,
            None => Some(now),
            since => since,
        };
    }

    fn count_to(&mut self, now: SimTime) {
        let time = u128::from(now.since(self.counted_to).as_nanos());
        let paid = self.ready + self.booting + self.draining;
        self.totals.provisioned_ns += u128::from(paid) * time;
        self.totals.ready_ns += u128::from(self.ready) * time;
        self.counted_to = now;
    }

    /// What came of it, at the end of a run.
    pub(crate) fn totals(mut self, end: SimTime) -> ScalingTotals {
        self.count_to(end);
        self.totals
    }
}
