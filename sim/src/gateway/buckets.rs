//! Token buckets, one per tenant, in integers.

use windtunnel_base::ids::TenantId;
use windtunnel_base::time::SimTime;

/// Token buckets in integers. A refill of `p/q` units per second makes one unit cost `q * 1e9` grains,
/// of which `p` drip in every nanosecond: no rounding, so no drift over any run.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// Grains per nanosecond; none means that the buckets never empty.
    drip: Option<u64>,
    /// Grains of one unit.
    price: u128,
    /// Grains of a full bucket.
    full: u128,
    tenants: Vec<Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    grains: u128,
    at: SimTime,
}

impl Buckets {
    /// Buckets that are refilled by `rate` units per second and hold `burst` units; `rate` may be
    /// infinite. A tenant starts with a full bucket, whenever it first appears.
    pub fn new(rate: f64, burst: u64) -> Self {
        let (p, q) = if rate.is_finite() {
            simplest_fraction(rate)
        } else {
            (0, 1)
        };
        let price = u128::from(q) * 1_000_000_000;
        Self {
            drip: rate.is_finite().then_some(p),
            price,
            full: price * u128::from(burst),
            tenants: Vec::new(),
        }
    }

    /// Whether the tenant's bucket holds `amount` units now.
    pub fn holds(&mut self, tenant: TenantId, amount: u64, now: SimTime) -> bool {
        let price = u128::from(amount) * self.price;
        self.drip.is_none() || self.refilled(tenant, now).grains >= price
    }

    /// Takes `amount` units from the tenant's bucket if it holds them.
    pub fn take(&mut self, tenant: TenantId, amount: u64, now: SimTime) -> bool {
        if self.drip.is_none() {
            return true;
        }
        let price = u128::from(amount) * self.price;
        let bucket = self.refilled(tenant, now);
        if bucket.grains < price {
            return false;
        }
        bucket.grains -= price;
        true
    }

    /// Gives units back that were taken and not used; what the bucket does not hold is lost.
    pub fn give_back(&mut self, tenant: TenantId, amount: u64, now: SimTime) {
        if self.drip.is_none() {
            return;
        }
        let (grains, full) = (u128::from(amount) * self.price, self.full);
        let bucket = self.refilled(tenant, now);
        bucket.grains = (bucket.grains + grains).min(full);
    }

    fn refilled(&mut self, tenant: TenantId, now: SimTime) -> &mut Bucket {
        if tenant.index() >= self.tenants.len() {
            let full = Bucket {
                grains: self.full,
                at: now,
            };
            self.tenants.resize(tenant.index() + 1, full);
        }
        let bucket = &mut self.tenants[tenant.index()];
        let elapsed = now.since(bucket.at).as_nanos();
        let gained = u128::from(elapsed) * u128::from(self.drip.unwrap_or_default());
        bucket.grains = (bucket.grains + gained).min(self.full);
        bucket.at = now;
        bucket
    }
}

/// The fraction of least denominator within 1 part in 1e15 of `x` (continued fractions): gives
/// back what a user wrote (`1 req/min` is 1/60), not its binary neighbour. `x` is finite and
/// not negative.
pub(super) fn simplest_fraction(x: f64) -> (u64, u64) {
    let (mut p0, mut q0, mut p1, mut q1) = (0_u64, 1_u64, 1_u64, 0_u64);
    let mut rest = x;
    loop {
        let whole = rest.floor();
        let a = whole as u64;
        let next = (|| {
            Some((
                a.checked_mul(p1)?.checked_add(p0)?,
                a.checked_mul(q1)?.checked_add(q0)?,
            ))
        })();
        // Beyond 2^53 a float holds no further digits.
        let Some((p2, q2)) = next.filter(|&(_, q)| q < 1 << 53) else {
            return (p1, q1.max(1));
        };
        (p0, q0, p1, q1) = (p1, q1, p2, q2);
        let error = (p1 as f64 / q1 as f64 - x).abs();
        let part = rest - whole;
        if error <= x * 1e-15 || part <= 0.0 {
            return (p1, q1);
        }
        rest = 1.0 / part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_become_the_fractions_that_were_written() {
        assert_eq!(simplest_fraction(1.0 / 60.0), (1, 60));
        assert_eq!(simplest_fraction(90.0 / 60.0), (3, 2));
        assert_eq!(simplest_fraction(7.0 / 3600.0), (7, 3600));
        assert_eq!(simplest_fraction(0.1), (1, 10));
        assert_eq!(simplest_fraction(8.0), (8, 1));
        assert_eq!(simplest_fraction(0.0), (0, 1));
    }

    proptest! {
        /// What was taken and not given back never exceeds `burst + rate * time`, at any time.
        #[test]
        fn spending_stays_within_budget_and_burst(
            rate in 0_u32..2000, per in 1_u32..4000, burst in 1_u64..500,
            moves in prop::collection::vec((0_u64..3_000_000_000, 0_u64..300, 0_u64..300), 1..200),
        ) {
            let mut buckets = Buckets::new(f64::from(rate) / f64::from(per), burst);
            let (mut now, mut spent) = (0_u64, 0_u64);
            for (gap, amount, unused) in moves {
                now += gap;
                let at = SimTime::from_nanos(now);
                prop_assert_eq!(buckets.holds(TenantId(0), amount, at), buckets.clone().take(TenantId(0), amount, at));
                if buckets.take(TenantId(0), amount, at) {
                    let unused = unused.min(amount);
                    buckets.give_back(TenantId(0), unused, at);
                    spent += amount - unused;
                }
                let allowed = u128::from(burst) * u128::from(per) * 1_000_000_000 + u128::from(now) * u128::from(rate);
                prop_assert!(u128::from(spent) * u128::from(per) * 1_000_000_000 <= allowed);
            }
        }
    }
}
