//! The gateway sends requests to replicas that exist and have room, and counts what is in flight
//! without ever going below zero. What a policy answers is checked with laws off as well: the run
//! could not go on.

use super::{Law, Verdict, Violation};
use crate::view::ReplicaView;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::time::SimTime;

/// Checks a routing decision against the replicas that were offered.
#[inline]
pub(crate) fn route(
    at: SimTime,
    request: RequestId,
    chosen: ReplicaId,
    offered: &[ReplicaView],
) -> Verdict {
    // Usually all replicas are offered, each in the place of its id.
    let found = offered.get(chosen.index()).is_some_and(|r| r.id == chosen)
        || offered.binary_search_by_key(&chosen, |r| r.id).is_ok();
    if found {
        return Ok(());
    }
    Err(not_offered(at, request, chosen, offered))
}

#[cold]
fn not_offered(
    at: SimTime,
    request: RequestId,
    chosen: ReplicaId,
    offered: &[ReplicaView],
) -> Box<Violation> {
    let ids: Vec<u32> = offered.iter().map(|r| r.id.0).collect();
    let expected = format!("one of the offered replicas {ids:?}");
    Violation::new(Law::Bounds, at, expected, format!("{}", chosen.0))
        .of(request)
        .on(chosen)
}

/// Checks the number in flight at a replica before a request is added to it.
#[inline]
pub(crate) fn room(at: SimTime, view: &ReplicaView, max_in_flight: u32) -> Verdict {
    if view.in_flight < max_in_flight {
        return Ok(());
    }
    Err(no_room(at, view, max_in_flight))
}

#[cold]
fn no_room(at: SimTime, view: &ReplicaView, max_in_flight: u32) -> Box<Violation> {
    let expected = format!("fewer than {max_in_flight} requests in flight before one more");
    Violation::new(Law::Bounds, at, expected, format!("{}", view.in_flight)).on(view.id)
}

/// Takes an answered request off what is in flight.
#[inline]
pub(crate) fn release(at: SimTime, view: &mut ReplicaView, prompt_tokens: u32) -> Verdict {
    let left = view
        .in_flight
        .checked_sub(1)
        .zip(view.in_flight_tokens.checked_sub(u64::from(prompt_tokens)));
    let Some((requests, tokens)) = left else {
        return Err(not_in_flight(at, view, prompt_tokens));
    };
    (view.in_flight, view.in_flight_tokens) = (requests, tokens);
    Ok(())
}

#[cold]
fn not_in_flight(at: SimTime, view: &ReplicaView, prompt_tokens: u32) -> Box<Violation> {
    let expected = format!("an answered request of {prompt_tokens} tokens among those in flight");
    let (requests, tokens) = (view.in_flight, view.in_flight_tokens);
    let found = format!("{requests} requests, {tokens} tokens");
    Violation::new(Law::Bounds, at, expected, found).on(view.id)
}

/// At the end of a run that nobody cut off: nothing is in flight any more.
pub(crate) fn finish(at: SimTime, views: &[ReplicaView], admitted: u64) -> Verdict {
    let busy = views
        .iter()
        .find(|v| v.in_flight > 0 || v.in_flight_tokens > 0);
    if let Some(view) = busy {
        return Err(Violation::new(
            Law::Bounds,
            at,
            "nothing in flight after the last request has left",
            format!(
                "{} requests, {} tokens",
                view.in_flight, view.in_flight_tokens
            ),
        )
        .on(view.id));
    }
    if admitted > 0 {
        return Err(Violation::new(
            Law::Bounds,
            at,
            "no admitted request inside after the last has left",
            format!("{admitted}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Observed;

    const T: SimTime = SimTime::ZERO;

    fn view(id: u32, in_flight: u32) -> ReplicaView {
        ReplicaView {
            id: ReplicaId(id),
            stats: Observed::default(),
            in_flight,
            in_flight_tokens: 10 * u64::from(in_flight),
            total_tokens: 0,
        }
    }

    fn breaks(verdict: Verdict) -> bool {
        verdict.is_err_and(|v| v.law == Law::Bounds)
    }

    #[test]
    fn a_replica_that_was_not_offered_shows() {
        let offered = [view(0, 0), view(2, 0)]; // replica 1 is full
        assert_eq!(route(T, RequestId(0), ReplicaId(2), &offered), Ok(()));
        assert!(breaks(route(T, RequestId(0), ReplicaId(1), &offered)));
        assert!(breaks(route(T, RequestId(0), ReplicaId(3), &offered)));
    }

    #[test]
    fn a_full_replica_shows() {
        assert_eq!(room(T, &view(0, 3), 4), Ok(()));
        assert!(breaks(room(T, &view(0, 4), 4)));
    }

    #[test]
    fn a_request_that_nobody_took_off_the_account_shows() {
        assert_eq!(finish(T, &[view(0, 0), view(1, 0)], 0), Ok(()));
        assert!(breaks(finish(T, &[view(0, 0), view(1, 1)], 0)));
        assert!(breaks(finish(T, &[view(0, 0)], 1)));
    }

    #[test]
    fn a_count_below_zero_shows() {
        let mut one = view(0, 1);
        assert!(
            breaks(release(T, &mut one, 11)),
            "more tokens than were sent"
        );
        assert_eq!(release(T, &mut one, 10), Ok(()));
        assert!(breaks(release(T, &mut one, 0)));
    }
}
