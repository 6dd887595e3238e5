//! How many replicas there are, joined to the world. Looks, orders that are ready and replicas that have
//! fallen silent are events; none of them keeps a run going, except an order while requests are in
//! the system.
//!
//! Routing knows replicas that are off, on order or on their way out as it knows lost ones: not at all.

use super::World;
use super::lanes::Gone;
use crate::event::{Event, ScalingTurn};
use crate::fleet::machine::Machine;
use crate::laws::{Law, Violation};
use crate::scaling::{Change, Pool, Scaler, Seen};
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::queue::EventKey;
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::scaling::ScalingTotals;
use windtunnel_scenarios::schema::Scenario;

/// The pool whose size follows its load, and who sees to it.
#[derive(Debug)]
pub(super) struct Scaling {
    scaler: Scaler,
    pool: Pool,
    ids: std::ops::Range<u32>,
    period: SimDuration,
    provisioning: SimDuration,
    /// The pool's lane, and whether there are others.
    lane: u8,
    others: bool,
    /// Requests that came and want a replica of the pool.
    arrivals: u64,
    /// By replica: when an order is ready.
    orders: Vec<Option<EventKey>>,
    /// By replica: nothing can reach it any more.
    silent: Vec<bool>,
    /// Buffers, kept for their capacity.
    loads: Vec<u32>,
    changes: Vec<Change>,
}

impl Scaling {
    /// The scaling of a scenario whose fleet has so many replicas, if it has any.
    pub(super) fn new(scenario: &Scenario, replicas: usize, streams: Streams) -> Option<Box<Self>> {
        let spec = scenario.fleet.scaling.as_ref()?;
        let (ids, start) = scenario.fleet.scaled()?;
        // Replicas of one's own may be fewer.
        let ids = ids.start..ids.end.min(replicas as u32);
        if ids.is_empty() {
            return None;
        }
        Some(Box::new(Self {
            scaler: Scaler::new(spec, start, streams.stream("scaling", 0)),
            pool: Pool::new(ids.clone(), start),
            ids,
            period: spec.period.0,
            provisioning: spec.provisioning.0,
            lane: 0,
            others: false,
            arrivals: 0,
            orders: vec![None; replicas],
            silent: vec![false; replicas],
            loads: Vec::new(),
            changes: Vec::new(),
        }))
    }

    /// Whether a replica is off, or on order.
    pub(super) fn is_out_of_service(&self, replica: usize) -> bool {
        self.pool.is_out_of_service(ReplicaId::from(replica))
    }

    /// A request comes: before it is let in (`None`), and to a lane. Those turned away count too, where
    /// all are for the same lane.
    #[inline]
    pub(super) fn somebody_comes(&mut self, lane: Option<u8>) {
        let counts = match lane {
            None => !self.others,
            Some(lane) => self.others && lane == self.lane,
        };
        self.arrivals += u64::from(counts);
    }

    /// What came of it. Time paid must be that of the books.
    pub(super) fn finish(
        self,
        end: SimTime,
        unpaid: &[u64],
    ) -> Result<ScalingTotals, Box<Violation>> {
        let ids = self.ids.start as usize..self.ids.end as usize;
        let paid = |unpaid: &u64| u128::from(end.as_nanos() - unpaid);
        let in_books: u128 = unpaid[ids].iter().map(paid).sum();
        let mut totals = self.pool.totals(end);
        totals.signal = self.scaler.moments();
        if totals.provisioned_ns == in_books {
            return Ok(totals);
        }
        Err(Violation::new(
            Law::Books,
            end,
            format!("{} replica-nanoseconds to be paid", totals.provisioned_ns),
            format!("{in_books}"),
        ))
    }
}

impl<M: Machine> World<'_, M> {
    /// At time zero: some replicas are off, and the first look is ahead.
    pub(super) fn begin_scaling(&mut self) {
        let Some(scaling) = &mut self.scaling else {
            return;
        };
        let first = ReplicaId(scaling.ids.start);
        scaling.lane = self.gateway.lanes.lane_of(first);
        scaling.others = self.gateway.lanes.numbers().len() > 1;
        self.gateway.hears_tokens |= scaling.scaler.hears_first_tokens();
        for replica in scaling.pool.off() {
            let lanes = &mut self.gateway.lanes;
            lanes.set_gone(replica, Gone::Off, true, false);
            self.recorder.pay(replica.index(), SimTime::ZERO, false);
        }
        let period = scaling.period;
        self.schedule_scaling(period, ScalingTurn::Look);
    }

    fn schedule_scaling(&mut self, after: SimDuration, turn: ScalingTurn) -> EventKey {
        let event = Event::Scaling(turn);
        self.idle_events += 1;
        let at = self.now.saturating_add(after);
        self.queue.schedule(at, event.class(), event)
    }

    /// Something about how many replicas there are.
    pub(super) fn scale(&mut self, turn: ScalingTurn) {
        self.idle_events -= 1;
        match turn {
            ScalingTurn::Look => self.look(),
            ScalingTurn::Ready(replica) => self.replica_ready(replica),
            ScalingTurn::Silent(replica) => self.replica_silent(replica),
        }
    }

    /// The scaler looks, and replicas come or go.
    fn look(&mut self) {
        let Some(mut scaling) = self.scaling.take() else {
            return;
        };
        let now = self.now;
        let mut loads = std::mem::take(&mut scaling.loads);
        loads.clear();
        let seen = self.seen(&scaling, &mut loads);
        scaling.pool.looked(now, seen.waiting);
        let wanted = scaling.scaler.look(&seen);
        scaling.loads = loads;
        let mut changes = std::mem::take(&mut scaling.changes);
        scaling.pool.change_to(now, wanted, &mut changes);
        let (period, provisioning) = (scaling.period, scaling.provisioning);
        self.scaling = Some(scaling);
        for change in changes.drain(..) {
            match change {
                Change::Order(replica) => self.order_replica(replica, provisioning),
                Change::Cancel(replica) => self.cancel_order(replica),
                Change::Drain(replica) => self.drain_replica(replica),
            }
        }
        if let Some(scaling) = &mut self.scaling {
            scaling.changes = changes;
        }
        self.schedule_scaling(period, ScalingTurn::Look);
    }

    /// What there is to see of the pool.
    fn seen<'l>(&self, scaling: &Scaling, loads: &'l mut Vec<u32>) -> Seen<'l> {
        let at_gateway = self.gateway.lanes.get(scaling.lane).room.len() as u64;
        let (mut waiting, mut running, mut kv_shares) = (at_gateway, 0, 0.0);
        let mut concurrency = at_gateway;
        for replica in scaling.pool.serving() {
            let stats = self.fleet.machines[replica.index()].stats(self.now);
            waiting += u64::from(stats.waiting);
            running += u64::from(stats.running);
            concurrency += u64::from(self.gateway.views[replica.index()].in_flight);
            if stats.kv_total > 0 {
                kv_shares += stats.kv_held as f64 / stats.kv_total as f64;
            }
            loads.push(stats.running + stats.waiting);
        }
        Seen {
            now: self.now,
            waiting,
            running,
            concurrency,
            kv_shares,
            loads,
            arrivals: scaling.arrivals,
            ready: scaling.pool.ready(),
            ordered: scaling.pool.ordered(),
        }
    }

    /// A replica is ordered, and paid from now on.
    fn order_replica(&mut self, replica: ReplicaId, provisioning: SimDuration) {
        self.recorder.pay(replica.index(), self.now, true);
        let key = self.schedule_scaling(provisioning, ScalingTurn::Ready(replica));
        self.turns_left += 1;
        if let Some(scaling) = &mut self.scaling {
            scaling.orders[replica.index()] = Some(key);
        }
    }

    /// An order is taken back; nothing was ever sent there.
    fn cancel_order(&mut self, replica: ReplicaId) {
        let orders = self.scaling.as_mut().map(|s| &mut s.orders);
        if let Some(key) = orders.and_then(|orders| orders[replica.index()].take()) {
            self.queue.cancel(key);
            self.idle_events -= 1;
            self.turns_left -= 1;
        }
        self.recorder.pay(replica.index(), self.now, false);
    }

    /// An ordered replica serves from now on, with empty caches.
    fn replica_ready(&mut self, replica: ReplicaId) {
        self.turns_left -= 1;
        self.sample_replica(replica.index());
        if let Some(scaling) = &mut self.scaling {
            scaling.orders[replica.index()] = None;
            scaling.pool.becomes_ready(self.now, replica);
        }
        self.open_to_requests(replica, true);
    }

    fn open_to_requests(&mut self, replica: ReplicaId, open: bool) {
        let full = self.gateway.is_full(replica);
        let lanes = &mut self.gateway.lanes;
        lanes.set_gone(replica, Gone::Off, !open, full);
        self.gateway.changes.note_everything();
    }

    /// A replica gets no more requests.
    fn drain_replica(&mut self, replica: ReplicaId) {
        self.open_to_requests(replica, false);
        if self.gateway.views[replica.index()].in_flight == 0 {
            self.has_nothing_in_flight(replica);
        }
    }

    /// The gateway waits for nothing more from a replica. If that is on its way out, messages about
    /// requests that were cancelled may still be on their way to it.
    #[cold]
    pub(super) fn has_nothing_in_flight(&mut self, replica: ReplicaId) {
        let scaling = self.scaling.as_ref();
        if scaling.is_some_and(|s| s.pool.is_draining(replica)) {
            let frontend = self.fleet.frontends[replica.index()].input.0;
            let last_message = self.fleet.network.replica + frontend;
            self.schedule_scaling(last_message, ScalingTurn::Silent(replica));
        }
    }

    /// A replica on its way out hears nothing any more, and may be released once it rests.
    fn replica_silent(&mut self, replica: ReplicaId) {
        if let Some(scaling) = &mut self.scaling {
            scaling.silent[replica.index()] = true;
            self.fleet.touch(replica.index());
        }
    }

    /// A replica has nothing to do: if it was on its way out, it is released, with all it had cached.
    #[cold]
    pub(super) fn came_to_rest(&mut self, r: usize) {
        let Some(scaling) = &mut self.scaling else {
            return;
        };
        if !std::mem::take(&mut scaling.silent[r]) {
            return;
        }
        self.sample_replica(r);
        let replica = ReplicaId::from(r);
        if let Some(scaling) = &mut self.scaling {
            scaling.pool.release(self.now, replica);
        }
        self.recorder.pay(r, self.now, false);
        self.fleet.machines[r].forget_cache();
        self.fleet.touch(r);
        self.gateway.lanes.forget(replica);
    }

    /// The gateway sees the first token of an answer.
    pub(super) fn hear_first_token(&mut self, slot: u32) {
        let flight = self.requests.get(slot);
        let came = flight.arrival.at.saturating_add(self.fleet.network.client);
        let replica = flight.answer.replica;
        if let Some(scaling) = &mut self.scaling
            && replica.is_some_and(|r| scaling.ids.contains(&r.0))
        {
            let after = self.now.since(came);
            scaling.scaler.first_token(self.now, after);
        }
    }
}
