//! What one replica costs and draws, posted to the books in integers. Every nanosecond from the start
//! of the run to its end is paid once: by a step, or as idle time; except while a replica is off. Remainders of divisions are
//! carried, so that the postings of a replica sum to `floor(price * time)` exactly, however the
//! time was cut.
//!
//! An LLM engine reports its steps. A station has none: the world says when it begins and ceases to
//! serve anybody, its idle power is drawn all the time, and what it reports adds energy only.

use windtunnel_base::time::SimTime;
use windtunnel_base::units::MicroJoules;
use windtunnel_engine::batch::BatchShape;
use windtunnel_ledger::account::Account;
use windtunnel_ledger::result::{Collector, ReplicaTotals};

/// Nanoseconds of an hour: prices are per hour.
const HOUR_NS: u64 = 3_600_000_000_000;
/// Microwatts times nanoseconds over this are microjoules.
const SECOND_NS: u64 = 1_000_000_000;

/// The meter of one replica. In a large fleet it is not in the cache when its turn comes, so what a step
/// touches lies side by side, in the first two of its four lines of memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Meter {
    /// Everything before this is posted, pending or due.
    metered_to: SimTime,
    /// Steps are counted up to here.
    end: SimTime,
    station: bool,
    /// Nobody pays for it.
    off: bool,
    /// What time is paid as while no step claims it.
    resting: Account,
    pending: Pending,
    pub(crate) totals: ReplicaTotals,
    money_rest: u64,
    energy_rest: u64,
    /// Nano-dollars per hour.
    price: u64,
    idle_microwatts: u64,
    /// Steps that began before the one before them had ended; a broken law.
    overlaps: u64,
}

/// Sums of what falls into one segment of the ledger, not yet posted: a step costs a few additions, and
/// the ledger is touched once per segment.
#[derive(Debug)]
#[repr(C)]
struct Pending {
    from: SimTime,
    to: SimTime,
    /// Time that is paid as [`Self::due`], one step after the other, and what they drew. What an unbroken
    /// stretch costs is worked out once: remainders are carried, so it is what its parts would.
    due_ns: u64,
    due_energy: u64,
    due: Account,
    prompt_tokens: u64,
    output_tokens: u64,
    steps: u64,
    extrapolated: u64,
    decode_seqs: u64,
    /// Tokens that static batches had room for, and how many of them nobody needed.
    room: u64,
    padding: u64,
    money: [u64; PAID.len()],
    energy: [u64; PAID.len()],
}

/// Accounts that replicas pay to; their places follow that of [`Account::Source`].
const PAID: [Account; 5] = [
    Account::Prefill,
    Account::Decode,
    Account::Mixed,
    Account::Service,
    Account::Idle,
];

impl Default for Pending {
    fn default() -> Self {
        Self {
            from: SimTime::ZERO,
            to: SimTime::ZERO,
            due_ns: 0,
            due_energy: 0,
            due: Account::Idle,
            prompt_tokens: 0,
            output_tokens: 0,
            steps: 0,
            extrapolated: 0,
            decode_seqs: 0,
            room: 0,
            padding: 0,
            money: [0; PAID.len()],
            energy: [0; PAID.len()],
        }
    }
}

/// `rate * time / UNIT`, rounded down, with the remainder carried.
#[inline]
fn accrue<const UNIT: u64>(rate: u64, time: u64, rest: &mut u64) -> u64 {
    let exact = u128::from(rate) * u128::from(time) + u128::from(*rest);
    if let Ok(small) = u64::try_from(exact) {
        *rest = small % UNIT;
        return small / UNIT;
    }
    *rest = (exact % u128::from(UNIT)) as u64;
    (exact / u128::from(UNIT)) as u64
}

impl Meter {
    /// A meter at the start of a run.
    pub(crate) fn new(price: u64, idle_microwatts: u64, station: bool) -> Self {
        Self {
            metered_to: SimTime::ZERO,
            end: SimTime::MAX,
            station,
            off: false,
            resting: Account::Idle,
            pending: Pending::default(),
            totals: ReplicaTotals::default(),
            money_rest: 0,
            energy_rest: 0,
            price,
            idle_microwatts,
            overlaps: 0,
        }
    }

    /// Counts nothing after `end`; of a step that spans it, money and energy up to it.
    pub(crate) fn cut(&mut self, end: SimTime) {
        self.end = end;
    }

    /// Whether something at `at` still counts.
    pub(crate) fn counts(&self, at: SimTime) -> bool {
        at <= self.end
    }

    /// How many steps overlapped the one before them.
    pub(crate) const fn overlaps(&self) -> u64 {
        self.overlaps
    }

    /// A station serves somebody from `now` on, or nobody.
    pub(crate) fn serving(&mut self, collector: &mut Collector, now: SimTime, serving: bool) {
        let account = if serving {
            Account::Service
        } else {
            Account::Idle
        };
        if self.station && self.resting != account {
            self.rest_until(collector, now);
            self.resting = account;
        }
    }

    /// A step ran.
    #[inline]
    pub(crate) fn step(
        &mut self,
        collector: &mut Collector,
        (from, to): (SimTime, SimTime),
        shape: &BatchShape,
        energy: MicroJoules,
        extrapolated: bool,
    ) {
        // Mostly it follows on the one before, within the same segment.
        let plain = from == self.metered_to && to < self.pending.to && to <= self.end;
        if plain && !self.station {
            self.claim(shape, to.since(from).as_nanos(), energy.0);
            self.metered_to = to;
            self.count(shape, extrapolated);
        } else {
            self.any_step(collector, (from, to), shape, energy, extrapolated);
        }
    }

    /// [`Self::step`], whatever it is like.
    #[inline(never)]
    fn any_step(
        &mut self,
        collector: &mut Collector,
        (from, to): (SimTime, SimTime),
        shape: &BatchShape,
        energy: MicroJoules,
        extrapolated: bool,
    ) {
        if self.station {
            let books = &mut collector.segment(to.min(self.end)).books;
            books
                .energy
                .post(Account::Source, Account::Service, energy.0);
            return;
        }
        if from < self.metered_to || self.off {
            self.overlaps += 1;
        }
        let (from, whole) = (from.max(self.metered_to), to);
        let to = to.min(self.end);
        if from >= to && from < whole {
            return; // it began when the run was over
        }
        self.rest_until(collector, from);
        if to < self.pending.from || to >= self.pending.to {
            self.open_segment(collector, to);
        }
        let time = to.since(from).as_nanos();
        self.metered_to = to;
        if to < whole {
            // Its tokens come after the end of the run.
            let share = u128::from(energy.0) * u128::from(time);
            let share = share / u128::from(whole.since(from).as_nanos());
            return self.claim(shape, time, share as u64);
        }
        self.claim(shape, time, energy.0);
        self.count(shape, extrapolated);
    }

    /// A step like this claims so much time and energy.
    #[inline]
    fn claim(&mut self, shape: &BatchShape, time: u64, energy: u64) {
        let account = if shape.prefill_seqs == 0 {
            Account::Decode
        } else if shape.decode_seqs == 0 {
            Account::Prefill
        } else {
            Account::Mixed
        };
        self.pay(account, time, energy);
    }

    #[inline]
    fn pay(&mut self, account: Account, time: u64, energy: u64) {
        if self.pending.due != account {
            self.settle();
            self.pending.due = account;
        }
        self.pending.due_ns += time;
        self.pending.due_energy += energy;
    }

    /// Counts a step and its tokens.
    #[inline]
    fn count(&mut self, shape: &BatchShape, extrapolated: bool) {
        let p = &mut self.pending;
        p.prompt_tokens += shape.prefill_tokens;
        p.output_tokens += u64::from(shape.sampled);
        p.steps += 1;
        p.extrapolated += u64::from(extrapolated);
        p.decode_seqs += u64::from(shape.decode_seqs);
        p.room += shape.room;
        p.padding += shape.room.saturating_sub(shape.tokens());
    }

    /// Works out what the time that is due costs.
    fn settle(&mut self) {
        let p = &mut self.pending;
        let (place, time) = (p.due as usize - 1, std::mem::take(&mut p.due_ns));
        p.money[place] += accrue::<HOUR_NS>(self.price, time, &mut self.money_rest);
        p.energy[place] += std::mem::take(&mut p.due_energy);
        if p.due == Account::Idle || p.due == Account::Service {
            p.energy[place] +=
                accrue::<SECOND_NS>(self.idle_microwatts, time, &mut self.energy_rest);
        }
        if p.due != Account::Idle {
            self.totals.busy_ns += time;
        }
    }

    /// Pays time without a step up to `at`, each segment's part in that segment.
    fn rest_until(&mut self, collector: &mut Collector, at: SimTime) {
        if self.off {
            return;
        }
        while self.metered_to < at {
            let from = self.metered_to;
            if from < self.pending.from || from >= self.pending.to {
                self.open_segment(collector, from);
            }
            let to = at.min(self.pending.to);
            self.pay(self.resting, to.since(from).as_nanos(), 0);
            self.metered_to = to;
        }
    }

    /// Posts what is pending and begins anew in the segment of `at`.
    fn open_segment(&mut self, collector: &mut Collector, at: SimTime) {
        self.post(collector);
        collector.segment(at); // may lengthen the segments
        let length = collector.segment_ns();
        let from = at.as_nanos() / length * length;
        self.pending.from = SimTime::from_nanos(from);
        self.pending.to = SimTime::from_nanos(from.saturating_add(length));
    }

    fn post(&mut self, collector: &mut Collector) {
        self.settle();
        let p = std::mem::take(&mut self.pending);
        if p.to == SimTime::ZERO {
            return; // nothing was ever pending
        }
        self.totals.output_tokens += p.output_tokens;
        let segment = collector.segment(p.from);
        for (i, account) in PAID.into_iter().enumerate() {
            segment
                .books
                .money
                .post(Account::Source, account, p.money[i]);
            segment
                .books
                .energy
                .post(Account::Source, account, p.energy[i]);
        }
        segment.books.prompt_tokens_computed += p.prompt_tokens;
        segment.books.output_tokens_generated += p.output_tokens;
        segment.books.batch_room += p.room;
        segment.books.batch_padding += p.padding;
        segment.steps += p.steps;
        segment.extrapolated_steps += p.extrapolated;
        segment.decode_seqs += p.decode_seqs;
    }

    /// It is off from `now` on: nothing of it runs, and nobody pays for it.
    pub(crate) fn pause(&mut self, collector: &mut Collector, now: SimTime) {
        self.rest_until(collector, now);
        // With nothing pending, a step in this time would go the long way, which sees it.
        self.post(collector);
        self.off = true;
    }

    /// It is paid again from `now` on; gives for how long it was not, ns.
    pub(crate) fn resume(&mut self, now: SimTime) -> u64 {
        if !std::mem::take(&mut self.off) {
            return 0;
        }
        let from = std::mem::replace(&mut self.metered_to, now);
        now.since(from).as_nanos()
    }

    /// Ends the run at `end`; gives for how long it was off just before that, ns.
    pub(crate) fn finish(&mut self, collector: &mut Collector, end: SimTime) -> u64 {
        let unpaid = self.resume(end);
        self.rest_until(collector, end);
        self.post(collector);
        unpaid
    }

    /// What it must have cost by `end`, in nano-dollars, if it was not paid for so many nanoseconds of
    /// that time.
    pub(crate) fn owed(&self, end: SimTime, unpaid: u64) -> u64 {
        let paid = end.as_nanos() - unpaid;
        (u128::from(self.price) * u128::from(paid) / u128::from(HOUR_NS)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use windtunnel_base::time::SimDuration;
    use windtunnel_ledger::account::Books;

    fn t(ns: u64) -> SimTime {
        SimTime::from_nanos(ns)
    }

    fn decode() -> BatchShape {
        BatchShape {
            decode_seqs: 2,
            sampled: 2,
            ..BatchShape::default()
        }
    }

    fn books(collector: Collector) -> Books {
        let mut all = Books::default();
        for segment in collector.finish().0 {
            all.merge(&segment.books);
        }
        all
    }

    #[test]
    fn busy_and_idle_time_are_paid_at_the_same_price() {
        // $3.6e-3 per hour is 1 nano-dollar per ms; 10 W at rest is 10 uJ per us.
        let mut collector = Collector::new(1, SimDuration::from_millis(4), false);
        let mut meter = Meter::new(3_600_000, 10_000_000, false);
        let ms = 1_000_000;
        meter.step(
            &mut collector,
            (t(2 * ms), t(5 * ms)),
            &decode(),
            MicroJoules(70),
            true,
        );
        meter.finish(&mut collector, t(9 * ms));
        assert_eq!(meter.totals.busy_ns, 3 * ms);
        let (segments, length, _) = collector.finish();
        assert_eq!(length, 4 * ms);
        // 0..4 ms: 2 ms idle. 4..8 ms: the step ended here, 3 ms; then 3 ms idle. 8..9 ms: 1 ms idle.
        let money = |i: usize, a| segments[i].books.money.received(a);
        assert_eq!((money(0, Account::Idle), money(0, Account::Decode)), (2, 0));
        assert_eq!((money(1, Account::Idle), money(1, Account::Decode)), (3, 3));
        assert_eq!((money(2, Account::Idle), money(2, Account::Decode)), (1, 0));
        assert_eq!(segments[1].books.energy.received(Account::Idle), 30_000);
        assert_eq!(segments[1].books.energy.received(Account::Decode), 70);
        assert_eq!((segments[1].steps, segments[1].extrapolated_steps), (1, 1));
    }

    #[test]
    fn a_step_across_the_end_counts_up_to_it() {
        let mut collector = Collector::new(1, SimDuration::from_secs(1), false);
        let mut meter = Meter::new(HOUR_NS, 0, false);
        meter.cut(t(10));
        meter.step(
            &mut collector,
            (t(6), t(14)),
            &decode(),
            MicroJoules(80),
            false,
        );
        meter.step(
            &mut collector,
            (t(14), t(16)),
            &decode(),
            MicroJoules(80),
            false,
        );
        meter.finish(&mut collector, t(10));
        let books = books(collector);
        // Half of the first step lies before the end: 4 of 8 ns. Its tokens do not.
        assert_eq!(books.money.received(Account::Decode), 4);
        assert_eq!(books.money.received(Account::Idle), 6);
        assert_eq!(books.energy.received(Account::Decode), 40);
        assert_eq!(books.output_tokens_generated, 0);
    }

    #[test]
    fn a_station_serves_or_rests_at_one_price_and_adds_its_servers_power() {
        let mut collector = Collector::new(1, SimDuration::from_secs(1), false);
        let mut meter = Meter::new(HOUR_NS, 1_000_000_000, true); // 1 nano-dollar, 1 uJ per ns
        meter.serving(&mut collector, t(3), true);
        meter.serving(&mut collector, t(5), true); // a second request: still serving
        // Two requests overlap; each reports what its server drew.
        meter.step(
            &mut collector,
            (t(3), t(6)),
            &BatchShape::default(),
            MicroJoules(7),
            false,
        );
        meter.step(
            &mut collector,
            (t(5), t(9)),
            &BatchShape::default(),
            MicroJoules(8),
            false,
        );
        meter.serving(&mut collector, t(9), false);
        meter.finish(&mut collector, t(10));
        assert_eq!((meter.totals.busy_ns, meter.overlaps()), (6, 0));
        let books = books(collector);
        assert_eq!(books.money.received(Account::Service), 6);
        assert_eq!(books.money.received(Account::Idle), 4);
        assert_eq!(books.energy.received(Account::Service), 6 + 15);
        assert_eq!(books.energy.received(Account::Idle), 4);
    }

    #[test]
    fn time_off_costs_nothing_and_a_step_in_it_shows() {
        let mut collector = Collector::new(1, SimDuration::from_nanos(4), false);
        let mut meter = Meter::new(HOUR_NS, 1_000_000_000, false); // 1 nano-dollar, 1 uJ per ns
        let step = |meter: &mut Meter, collector: &mut Collector, from, to| {
            meter.step(
                collector,
                (t(from), t(to)),
                &decode(),
                MicroJoules(7),
                false,
            );
        };
        step(&mut meter, &mut collector, 0, 3);
        meter.pause(&mut collector, t(5)); // 2 ns idle
        assert_eq!(meter.resume(t(21)), 16);
        assert_eq!(meter.resume(t(21)), 0, "it is on already");
        step(&mut meter, &mut collector, 22, 23); // 1 ns idle before it
        meter.pause(&mut collector, t(23));
        let mut off = 16 + meter.resume(t(30));
        meter.pause(&mut collector, t(31)); // 1 ns idle
        off += meter.finish(&mut collector, t(40));
        assert_eq!((off, meter.overlaps()), (32, 0));
        let all = books(collector);
        assert_eq!(all.money.received(Account::Idle), 2 + 1 + 1);
        assert_eq!(all.money.received(Account::Decode), 3 + 1);
        assert_eq!(all.energy.received(Account::Idle), 2 + 1 + 1);
        assert_eq!(all.money.total(), meter.owed(t(40), off));

        for from in [5, 9] {
            let mut collector = Collector::new(1, SimDuration::from_nanos(100), false);
            let mut meter = Meter::new(HOUR_NS, 0, false);
            meter.pause(&mut collector, t(5));
            step(&mut meter, &mut collector, from, 11);
            assert_eq!(meter.overlaps(), 1, "a step while it is off");
        }
    }

    proptest! {
        /// However time is cut into steps, the total is the price times the time, rounded once, and
        /// longer segments hold exactly what the shorter ones held.
        #[test]
        fn nothing_is_lost_in_rounding(
            price in 0_u64..40_000_000_000,
            idle in 0_u64..1_000_000_000,
            gaps in prop::collection::vec((0_u64..3_000_000_000, 1_u64..200_000_000_000), 1..60),
        ) {
            let mut totals = Vec::new();
            for first_segment in [1_000_000, 3_000_000_000_000] {
                let mut collector =
                    Collector::new(1, SimDuration::from_nanos(first_segment), false);
                let mut meter = Meter::new(price, idle, false);
                let mut now = 0;
                for &(gap, length) in &gaps {
                    let (from, to) = (now + gap, now + gap + length);
                    meter.step(&mut collector, (t(from), t(to)), &decode(), MicroJoules(7), false);
                    now = to;
                }
                meter.finish(&mut collector, t(now + 12_345));
                let books = books(collector);
                prop_assert_eq!(books.money.total(), meter.owed(t(now + 12_345), 0));
                prop_assert!(books.money.balanced() && books.energy.balanced());
                totals.push(books);
            }
            prop_assert_eq!(&totals[0], &totals[1]);
        }
    }
}
