//! Who gets in. Decided before routing, on what the gateway counts itself.

use super::buckets::Buckets;
use windtunnel_base::ids::TenantId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;
use windtunnel_scenarios::schema::policies::AdmissionSpec;

/// The admission rule of a run, with its state.
#[derive(Clone, Debug)]
pub struct Admission {
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Open,
    ConcurrencyLimit {
        limit: u32,
    },
    /// Priorities that classes have, most urgent first, and the limit of each.
    ByPriority {
        priorities: Vec<i32>,
        limits: Vec<u32>,
    },
    TokenBucket(Buckets),
}

impl Admission {
    /// The rule that a scenario names, whose classes have these priorities.
    pub fn new(spec: &AdmissionSpec, priorities: &[i32]) -> Self {
        let rule = match *spec {
            AdmissionSpec::Open => Rule::Open,
            AdmissionSpec::ConcurrencyLimit { limit } => Rule::ConcurrencyLimit { limit },
            AdmissionSpec::ShedByPriority { ref limits } => {
                let mut priorities = priorities.to_vec();
                priorities.sort_unstable();
                priorities.dedup();
                Rule::ByPriority {
                    priorities,
                    limits: limits.clone(),
                }
            }
            AdmissionSpec::TokenBucket { rate, burst } => {
                Rule::TokenBucket(Buckets::new(rate.0, burst.into()))
            }
        };
        Self { rule }
    }

    /// Lets a request of `tenant` in, or says why not; `priority` is that of its class. `in_system` counts the requests admitted
    /// earlier that have not left yet, at the gateway and at replicas.
    ///
    /// # Errors
    /// `Shed` at the limit on requests in the system, `RateLimited` when the tenant's bucket is empty.
    pub fn admit(
        &mut self,
        tenant: TenantId,
        priority: i32,
        in_system: u64,
        now: SimTime,
    ) -> Result<(), Refusal> {
        match &mut self.rule {
            Rule::Open => Ok(()),
            Rule::ConcurrencyLimit { limit } => {
                if in_system < u64::from(*limit) {
                    Ok(())
                } else {
                    Err(Refusal::Shed)
                }
            }
            Rule::ByPriority { priorities, limits } => {
                let rank = priorities.partition_point(|&p| p < priority);
                let limit = limits.get(rank).or(limits.last());
                if limit.is_none_or(|&limit| in_system < u64::from(limit)) {
                    Ok(())
                } else {
                    Err(Refusal::Shed)
                }
            }
            Rule::TokenBucket(buckets) => {
                if buckets.take(tenant, 1, now) {
                    Ok(())
                } else {
                    Err(Refusal::RateLimited)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use windtunnel_base::quantity::Rate;

    fn at(nanos: u64) -> SimTime {
        SimTime::from_nanos(nanos)
    }

    #[test]
    fn the_less_urgent_are_shed_first() {
        let spec = AdmissionSpec::ShedByPriority {
            limits: vec![10, 4],
        };
        let mut admission = Admission::new(&spec, &[7, 0, 3, 0]);
        let mut admit = |priority, inside| {
            let admitted = admission.admit(TenantId(0), priority, inside, at(0));
            assert!(admitted.is_ok() || admitted == Err(Refusal::Shed));
            admitted.is_ok()
        };
        // The second limit is that of the second rank and of all after it.
        for (priority, limit) in [(0, 10), (3, 4), (7, 4)] {
            assert!(admit(priority, limit - 1) && !admit(priority, limit));
        }
    }

    #[test]
    fn a_concurrency_limit_counts_those_inside() {
        let mut admission = Admission::new(&AdmissionSpec::ConcurrencyLimit { limit: 2 }, &[]);
        let mut admit = |inside| admission.admit(TenantId(0), 0, inside, at(0));
        assert_eq!(admit(1), Ok(()), "the second may enter");
        assert_eq!(admit(2), Err(Refusal::Shed), "the third may not");
    }

    #[test]
    fn a_bucket_refills_to_the_nanosecond_and_tenants_do_not_share() {
        let mut admission = Admission::new(
            &AdmissionSpec::TokenBucket {
                rate: Rate(1.0 / 3.0),
                burst: 2,
            },
            &[],
        );
        let (a, b) = (TenantId(0), TenantId(1));
        assert_eq!(admission.admit(a, 0, 0, at(0)), Ok(()));
        assert_eq!(admission.admit(a, 0, 0, at(0)), Ok(()), "a burst of two");
        let limited = Err(Refusal::RateLimited);
        assert_eq!(
            admission.admit(a, 0, 0, at(0)),
            limited,
            "the bucket is empty"
        );
        assert_eq!(
            admission.admit(b, 0, 0, at(0)),
            Ok(()),
            "b has its own bucket"
        );
        // One request per three seconds: a nanosecond early is early, and asking costs nothing.
        assert_eq!(admission.admit(a, 0, 0, at(2_999_999_999)), limited);
        assert_eq!(admission.admit(a, 0, 0, at(3_000_000_000)), Ok(()));
        assert_eq!(admission.admit(a, 0, 0, at(3_000_000_000)), limited);
        // A year of waiting fills the bucket to its burst and no further.
        let later = at(3_000_000_000 + 31_536_000_000_000_000);
        assert_eq!(admission.admit(a, 0, 0, later), Ok(()));
        assert_eq!(admission.admit(a, 0, 0, later), Ok(()));
        assert_eq!(admission.admit(a, 0, 0, later), limited);
    }

    #[test]
    fn extreme_rates_mean_what_they_say() {
        let rule = |rate, burst| {
            Admission::new(
                &AdmissionSpec::TokenBucket {
                    rate: Rate(rate),
                    burst,
                },
                &[],
            )
        };
        let mut endless = rule(f64::INFINITY, 1);
        assert!((0..9).all(|_| endless.admit(TenantId(0), 0, 0, at(0)).is_ok()));
        let mut never = rule(0.0, 1);
        assert!(never.admit(TenantId(0), 0, 0, at(0)).is_ok());
        assert!(never.admit(TenantId(0), 0, 0, at(u64::MAX)).is_err());
    }

    proptest! {
        /// Asked ever so often, a bucket lets in exactly `burst + floor(rate * time)` requests:
        /// nothing is lost between questions.
        #[test]
        fn no_drift(rate in 1_u32..1000, per in 1_u32..5000, gaps in prop::collection::vec(1_u64..50_000_000, 1..400)) {
            let mut admission = Admission::new(&AdmissionSpec::TokenBucket {
                rate: Rate(f64::from(rate) / f64::from(per)),
                burst: 3,
            }, &[]);
            let (mut now, mut taken) = (0_u64, 0_u128);
            while admission.admit(TenantId(0), 0, 0, at(now)).is_ok() { taken += 1; }
            for gap in gaps {
                now += gap;
                let due = 3 + u128::from(now) * u128::from(rate) / (u128::from(per) * 1_000_000_000);
                while admission.admit(TenantId(0), 0, 0, at(now)).is_ok() { taken += 1; }
                // The bucket overflows only if more than `burst` requests drip in between.
                if u128::from(gap) * u128::from(rate) < 2 * u128::from(per) * 1_000_000_000 {
                    prop_assert_eq!(taken, due);
                } else {
                    break;
                }
            }
        }
    }
}
