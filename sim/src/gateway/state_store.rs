//! The store that gateways share, without a world: one server that takes one operation after the
//! other, a way there and back, and failures. Operations are told in the order in which they are
//! sent, so the queue at the server needs no events: an operation begins when it has come and the
//! one before it is done.

use std::collections::VecDeque;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::state_store::StoreTotals;
use windtunnel_scenarios::schema::state_store::{FailoverSpec, StateStoreSpec};

/// What a gateway learns from asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreAnswer {
    /// What the store holds.
    Known,
    /// That it has lost its contents, and nobody has told it anew.
    Empty,
    /// Nothing, for as long as it waited.
    Silent,
    /// Nothing, because it did not ask: there was no answer shortly before.
    Unasked,
}

/// The store, and what each gateway knows of it.
#[derive(Clone, Debug)]
pub struct StateStore {
    service: SimDuration,
    /// One way.
    way: SimDuration,
    batch: SimDuration,
    refresh: SimDuration,
    timeout: SimDuration,
    retry_after: SimDuration,
    persistent: bool,
    failover: Option<FailoverSpec>,
    /// When the server has done all that has come.
    free_at: SimTime,
    /// By their beginnings; none begins before another ends.
    outages: VecDeque<Outage>,
    /// Until then it holds nothing.
    empty_until: SimTime,
    /// It has lost its contents, and nobody asked since.
    lost: bool,
    counts: Counts,
    refreshes: u64,
    flushes: u64,
    totals: StoreTotals,
}

/// A time in which the store takes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outage {
    from: SimTime,
    until: SimTime,
    /// What it held is there afterwards.
    keeps: bool,
}

/// Requests in flight, by gateway and replica: as they are, as the store holds them, and as each
/// gateway read them last.
#[derive(Clone, Debug)]
struct Counts {
    gateways: usize,
    replicas: usize,
    /// By gateway, then replica; so are the next three.
    own: Vec<u32>,
    held: Vec<u32>,
    /// What the others had.
    others: Vec<u32>,
    /// Listed in `dirty`.
    listed: Vec<bool>,
    /// All gateways together, by replica.
    total: Vec<u32>,
    /// Written, and not yet to be seen by a gateway.
    log: VecDeque<Written>,
    /// By gateway: replicas whose count is to be written.
    dirty: Vec<Vec<u32>>,
    /// How many those are.
    changed: usize,
    asks_again: Vec<SimTime>,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    /// Answers that come now or later tell of it.
    seen_from: SimTime,
    place: usize,
    count: u32,
}

impl StateStore {
    /// The store of a specification, for so many replicas.
    pub fn new(spec: &StateStoreSpec, replicas: usize) -> Self {
        let gateways = spec.gateways.max(1) as usize;
        let places = gateways * replicas;
        Self {
            service: spec.service.0,
            way: SimDuration::from_nanos(spec.round_trip.0.as_nanos() / 2),
            batch: spec.write_batch.0,
            refresh: spec.refresh.0,
            timeout: spec.timeout.0,
            retry_after: spec.retry_after.0,
            persistent: spec.persistent,
            failover: spec.failover.clone(),
            free_at: SimTime::ZERO,
            outages: VecDeque::new(),
            empty_until: SimTime::ZERO,
            lost: false,
            counts: Counts {
                gateways,
                replicas,
                own: vec![0; places],
                held: vec![0; places],
                others: vec![0; places],
                listed: vec![false; places],
                total: vec![0; replicas],
                log: VecDeque::new(),
                dirty: vec![Vec::new(); gateways],
                changed: 0,
                asks_again: vec![SimTime::ZERO; gateways],
            },
            refreshes: 0,
            flushes: 0,
            totals: StoreTotals::default(),
        }
    }

    /// How many gateways there are.
    pub fn gateways(&self) -> usize {
        self.counts.gateways
    }

    /// Lets the store fail at `at`, for `lasts` if nobody takes over: with a failover, a copy serves
    /// once the store was silent for `down_after` and the copy is promoted. What had come before is
    /// still served.
    pub fn fail(&mut self, at: SimTime, lasts: SimDuration) {
        let (length, keeps) = match &self.failover {
            Some(rule) if lasts > rule.down_after.0 => (rule.down_after.0 + rule.promotion.0, true),
            _ => (lasts, self.persistent),
        };
        let new = Outage {
            from: at,
            until: at.saturating_add(length),
            keeps,
        };
        let place = self.outages.partition_point(|o| o.from <= at);
        self.outages.insert(place, new);
        // Those that touch are one, and keep something only if all do.
        let mut merged: VecDeque<Outage> = VecDeque::with_capacity(self.outages.len());
        for outage in self.outages.drain(..) {
            match merged.back_mut().filter(|last| outage.from <= last.until) {
                Some(last) => {
                    last.until = last.until.max(outage.until);
                    last.keeps &= outage.keeps;
                }
                None => merged.push_back(outage),
            }
        }
        self.outages = merged;
    }

    /// A gateway asks at `now`: how long until it knows, and what it will know. Tell it with
    /// [`Self::learn`] then.
    pub fn read(&mut self, gateway: usize, now: SimTime) -> (SimDuration, StoreAnswer) {
        self.catch_up(now);
        if now < self.counts.asks_again[gateway] {
            self.totals.unasked += 1;
            return (SimDuration::ZERO, StoreAnswer::Unasked);
        }
        self.totals.reads += 1;
        let back = self.operate(now).map(|done| (done, done + self.way));
        match back {
            Some((done, back)) if back.since(now) <= self.timeout => {
                let takes = back.since(now);
                self.totals.read.record(takes.as_nanos(), 1);
                let answer = match done < self.empty_until {
                    true => StoreAnswer::Empty,
                    false => StoreAnswer::Known,
                };
                (takes, answer)
            }
            _ => {
                self.totals.failed_reads += 1;
                (self.timeout, StoreAnswer::Silent)
            }
        }
    }

    /// A gateway learns at `now` what came of asking. True if the store has lost its contents since
    /// this was called last.
    pub fn learn(&mut self, gateway: usize, now: SimTime, answer: StoreAnswer) -> bool {
        match answer {
            StoreAnswer::Known if self.counts.gateways > 1 => self.counts.learn(gateway, now),
            StoreAnswer::Known => {}
            StoreAnswer::Silent => {
                let again = now.saturating_add(self.retry_after);
                self.counts.asks_again[gateway] = again;
                self.totals.blind += 1;
            }
            StoreAnswer::Empty | StoreAnswer::Unasked => self.totals.blind += 1,
        }
        std::mem::take(&mut self.lost)
    }

    /// A gateway sent a request to a replica, or (`more` false) has its answer.
    pub fn count(&mut self, gateway: usize, replica: usize, more: bool, now: SimTime) {
        self.catch_up(now);
        let place = gateway * self.counts.replicas + replica;
        let own = &mut self.counts.own[place];
        *own = if more {
            *own + 1
        } else {
            own.saturating_sub(1)
        };
        if self.batch.is_zero() {
            self.write_count(place, now);
        } else if !std::mem::replace(&mut self.counts.listed[place], true) {
            if self.counts.changed == 0 {
                self.flushes = self.flushes.max(self.first_flush_after(now));
            }
            self.counts.changed += 1;
            self.counts.dirty[gateway].push(replica as u32);
        }
    }

    /// Writes one entry, whatever it holds.
    pub fn write(&mut self, now: SimTime) {
        self.catch_up(now);
        self.send(now);
    }

    /// Requests in flight at a replica as a gateway knows it: its own, and what it read last of the
    /// others.
    pub fn in_flight(&self, gateway: usize, replica: usize) -> u32 {
        let place = gateway * self.counts.replicas + replica;
        self.counts.own[place] + self.counts.others[place]
    }

    /// What happened so far.
    pub fn totals(&self) -> &StoreTotals {
        &self.totals
    }

    /// Brings about what is due by itself up to `now`.
    pub fn catch_up(&mut self, now: SimTime) {
        loop {
            let refresh = match self.refresh.as_nanos() {
                0 => SimTime::MAX,
                period => SimTime::from_nanos(period.saturating_mul(self.refreshes + 1)),
            };
            let flush = match self.counts.changed {
                0 => SimTime::MAX,
                _ => self.flush_at(self.flushes),
            };
            if refresh.min(flush) > now {
                return;
            }
            if refresh <= flush {
                self.refreshes += 1;
                for _ in 0..self.counts.replicas {
                    self.send(refresh);
                }
            } else {
                let gateway = (self.flushes % self.counts.gateways as u64) as usize;
                self.flushes += 1;
                self.flush(gateway, flush);
            }
        }
    }

    /// Gateways write in turn, at equal distances.
    fn flush_at(&self, number: u64) -> SimTime {
        let (batch, gateways) = (u128::from(self.batch.as_nanos()), self.counts.gateways);
        let at = batch * u128::from(number) / gateways as u128;
        SimTime::from_nanos(u64::try_from(at).unwrap_or(u64::MAX))
    }

    fn first_flush_after(&self, now: SimTime) -> u64 {
        let (batch, gateways) = (u128::from(self.batch.as_nanos()), self.counts.gateways);
        let number = u128::from(now.as_nanos()) * gateways as u128 / batch;
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        // Rounding may have put this one before `now`, never the next.
        number + u64::from(self.flush_at(number) <= now)
    }

    fn flush(&mut self, gateway: usize, at: SimTime) {
        let mut list = std::mem::take(&mut self.counts.dirty[gateway]);
        list.retain(|&replica| {
            let place = gateway * self.counts.replicas + replica as usize;
            let lost = !self.write_count(place, at);
            // What the store did not take is written again.
            self.counts.listed[place] = lost;
            self.counts.changed -= usize::from(!lost);
            lost
        });
        self.counts.dirty[gateway] = list;
    }

    /// Writes a gateway's own count; whether it got there.
    fn write_count(&mut self, place: usize, now: SimTime) -> bool {
        let Some(done) = self.send(now) else {
            return false;
        };
        if self.counts.gateways > 1 {
            self.counts.log.push_back(Written {
                seen_from: done + self.way,
                place,
                count: self.counts.own[place],
            });
        }
        true
    }

    /// Sends a write; when it is done, if ever.
    fn send(&mut self, now: SimTime) -> Option<SimTime> {
        self.totals.writes += 1;
        let done = self.operate(now);
        self.totals.lost_writes += u64::from(done.is_none());
        done
    }

    /// An operation sent at `now`: when it is done, if the store takes it.
    fn operate(&mut self, now: SimTime) -> Option<SimTime> {
        let comes = now.saturating_add(self.way);
        while let Some(&outage) = self.outages.front() {
            if comes < outage.from {
                break;
            }
            if comes < outage.until {
                return None;
            }
            self.outages.pop_front();
            self.come_back(outage);
        }
        let begins = comes.max(self.free_at);
        self.totals.served += 1;
        // A store that is asked a thousand times what it can do lets millions wait for hours.
        let waited = begins.since(comes).as_nanos();
        self.totals.waited_ns = self.totals.waited_ns.saturating_add(waited);
        self.free_at = begins.saturating_add(self.service);
        Some(self.free_at)
    }

    fn come_back(&mut self, outage: Outage) {
        self.free_at = self.free_at.max(outage.until);
        if outage.keeps {
            return;
        }
        self.lost = true;
        self.totals.wiped += 1;
        self.counts.held.fill(0);
        self.counts.total.fill(0);
        self.counts.log.clear();
        self.empty_until = match self.refresh.as_nanos() {
            0 => outage.until,
            period => {
                let ticks = outage.until.as_nanos().div_ceil(period);
                SimTime::from_nanos(period.saturating_mul(ticks))
            }
        };
    }
}

impl Counts {
    /// What an answer that comes at `now` says of the others.
    fn learn(&mut self, gateway: usize, now: SimTime) {
        while let Some(&written) = self.log.front().filter(|w| w.seen_from <= now) {
            self.log.pop_front();
            let held = std::mem::replace(&mut self.held[written.place], written.count);
            let total = &mut self.total[written.place % self.replicas];
            *total = *total - held + written.count;
        }
        let first = gateway * self.replicas;
        for (replica, total) in self.total.iter().enumerate() {
            let place = first + replica;
            self.others[place] = total - self.held[place];
        }
    }
}

#[cfg(test)]
mod tests;
