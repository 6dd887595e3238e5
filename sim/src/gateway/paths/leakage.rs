//! The bucket at the frontier's door, in integers: between two events its rate is constant, so the
//! nanosecond at which it holds a request again follows from what is known.

use crate::gateway::buckets::simplest_fraction;
use std::collections::VecDeque;
use windtunnel_base::ids::ClassId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::Names;
use windtunnel_scenarios::schema::paths::{Instead, LeakageSpec};

const SECOND: u128 = 1_000_000_000;

/// A bucket of requests whose rate is what others leave of what is usable: with `p/q` requests per second
/// usable and `n` of others within the window of `W` seconds, `max(0, p/q - n/W)`. A request costs
/// `q * W` grains (`W` in nanoseconds, times 1e9), so that a whole number of them drips in every nanosecond.
#[derive(Clone, Debug)]
pub(super) struct Leakage {
    /// Grains of one request.
    price: u128,
    /// Grains that drip in a nanosecond while nobody else is there.
    drip: u128,
    /// What each of the others takes of that.
    each_takes: u128,
    /// Nanoseconds of the rate that a full bucket holds.
    burst: u128,
    window: SimDuration,
    overflow: Vec<Instead>,
    /// When requests of others came, within the window.
    others: VecDeque<SimTime>,
    /// Grains in the bucket.
    level: u128,
    /// As of this time.
    at: SimTime,
}

impl Leakage {
    pub(super) fn new(spec: &LeakageSpec, names: &Names) -> Self {
        let of = |name: &String| spec.overflow_by_class.get(name).copied();
        let classes = names.classes.iter();
        let (p, q) = simplest_fraction(spec.u_max * spec.capacity.0);
        let window = u128::from(spec.window.0.as_nanos());
        // Of a rate that is more than none, however little, something drips.
        let drip = u128::from(p.max(1)) * window;
        let mut new = Self {
            price: u128::from(q) * SECOND * window,
            drip,
            each_takes: u128::from(q) * SECOND,
            burst: spec.burst.0.as_nanos().into(),
            window: spec.window.0,
            overflow: classes
                .map(|(name, _)| of(name).unwrap_or(spec.overflow))
                .collect(),
            others: VecDeque::new(),
            level: 0,
            at: SimTime::ZERO,
        };
        new.level = new.full();
        new
    }

    /// What becomes of a request that the bucket does not allow.
    pub(super) fn overflow(&self, class: ClassId) -> Instead {
        let own = self.overflow.get(class.index()).copied();
        own.unwrap_or_default()
    }

    /// A request of somebody else goes to the frontier.
    pub(super) fn reserved(&mut self, now: SimTime) {
        self.refill(now);
        self.others.push_back(now);
    }

    /// Takes a request out of the bucket, if it holds one.
    pub(super) fn take(&mut self, now: SimTime) -> bool {
        self.refill(now);
        let holds = self.level >= self.price;
        if holds {
            self.level -= self.price;
        }
        holds
    }

    /// When the bucket holds a request if nobody else comes until then: `now`, or later. Who comes makes it
    /// later, and nothing makes it earlier.
    pub(super) fn holds_at(&mut self, now: SimTime) -> SimTime {
        self.refill(now);
        let (mut level, mut at) = (self.level, now);
        let mut others = self.others.len();
        let mut leaving = self.others.iter();
        loop {
            let drip = self.drip_beside(others);
            let missing = self.price.saturating_sub(level);
            let wait = match drip {
                _ if missing == 0 => 0,
                0 => u128::MAX,
                drip => missing.div_ceil(drip),
            };
            let wait = SimDuration::from_nanos(wait.try_into().unwrap_or(u64::MAX));
            let full = at.saturating_add(wait);
            // Others leave the window, the earliest first.
            match leaving.next().map(|came| came.saturating_add(self.window)) {
                Some(gone) if gone < full => {
                    let elapsed = u128::from(gone.since(at).as_nanos());
                    level = level.saturating_add(elapsed.saturating_mul(drip));
                    at = gone;
                    others -= 1;
                }
                _ => return full,
            }
        }
    }

    /// Grains that drip in a nanosecond while so many others are within the window.
    fn drip_beside(&self, others: usize) -> u128 {
        let taken = self.each_takes.saturating_mul(others as u128);
        self.drip.saturating_sub(taken)
    }

    /// Grains of a full bucket. One that cannot hold one request would never let one through.
    fn full(&self) -> u128 {
        let drip = self.drip_beside(self.others.len());
        drip.saturating_mul(self.burst).max(self.price)
    }

    fn refill(&mut self, now: SimTime) {
        while let Some(&came) = self.others.front() {
            let gone = came.saturating_add(self.window);
            if gone > now {
                break;
            }
            self.flow(gone);
            self.others.pop_front();
        }
        self.flow(now);
    }

    /// What drips until then, at the rate of now.
    fn flow(&mut self, until: SimTime) {
        let elapsed = u128::from(until.since(self.at).as_nanos());
        let gained = elapsed.saturating_mul(self.drip_beside(self.others.len()));
        self.level = self.level.saturating_add(gained).min(self.full());
        self.at = until;
    }
}
