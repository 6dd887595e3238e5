//! Stored answers are given to their own tenant alone, and never past their time. Checked with laws off
//! as well: a leak between tenants is no figure of merit.

use super::{Law, Verdict, Violation};
use windtunnel_base::ids::{RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};

/// A stored answer is about to be given: whose it is, and who asks.
#[inline]
pub(crate) fn tenant(
    at: SimTime,
    request: RequestId,
    asks: TenantId,
    answers: TenantId,
) -> Verdict {
    if asks == answers {
        return Ok(());
    }
    Err(Violation::new(
        Law::Answers,
        at,
        format!("an answer stored for tenant {}", asks.0),
        format!("one stored for tenant {}", answers.0),
    )
    .of(request))
}

/// A stored answer is about to be given, whose time counts since `since`; `bound` is the most it may be
/// older by.
#[inline]
pub(crate) fn age(
    at: SimTime,
    request: RequestId,
    since: SimTime,
    bound: Option<SimDuration>,
) -> Verdict {
    let age = at.since(since);
    match bound {
        Some(bound) if age > bound => Err(Violation::new(
            Law::Answers,
            at,
            format!("no answer older than {} s", bound.as_secs_f64()),
            format!("one of {} s", age.as_secs_f64()),
        )
        .of(request)),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaks(verdict: Verdict) -> bool {
        verdict.is_err_and(|v| v.law == Law::Answers && v.request == Some(RequestId(3)))
    }

    #[test]
    fn a_forged_hit_shows() {
        let (now, request) = (SimTime::from_nanos(9), RequestId(3));
        assert_eq!(tenant(now, request, TenantId(1), TenantId(1)), Ok(()));
        assert!(breaks(tenant(now, request, TenantId(1), TenantId(2))));
    }

    #[test]
    fn an_answer_past_its_time_shows() {
        let (now, request) = (SimTime::from_nanos(9), RequestId(3));
        let given = |since, bound: Option<u64>| {
            let bound = bound.map(SimDuration::from_nanos);
            age(now, request, SimTime::from_nanos(since), bound)
        };
        assert_eq!(given(4, Some(5)), Ok(()));
        assert!(breaks(given(3, Some(5))));
        assert_eq!(given(0, None), Ok(()), "fresh for ever");
    }
}
