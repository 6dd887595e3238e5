//! Every request that was sent ends, once: `sent = finished + refused + abandoned + unfinished`. And
//! Little's law on the sample path: the integral over time of the number of requests in the
//! system equals the sum of their times in it, to the nanosecond. Work that is no request of a client's
//! (attempts, refreshed answers) has ids of its own, and every piece that began is closed, once.

use super::facts::Facts;
use super::{Breach, Law, Verdict, Violation};
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::SimTime;
use windtunnel_ledger::entry::{Entry, Fact, Purpose};
use windtunnel_ledger::result::Population;

/// Nobody lives in this slot: the number of a piece of work that no run comes to.
const NOBODY: u32 = u32::MAX;

const SENT: u8 = Fact::Sent.kind();
const BEGUN: u8 = Fact::Begun(Purpose::Attempt).kind();
const CLOSED: u8 = Fact::Closed.kind();

/// Kinds of facts with which a request comes or goes, a bit each.
const TURNS: u32 = {
    let (mut turns, mut kind) = (0, 0);
    while kind < Fact::KINDS.len() {
        if kind == SENT as usize || kind == BEGUN as usize || Fact::KINDS[kind].is_end() {
            turns |= 1 << kind;
        }
        kind += 1;
    }
    turns
};

/// Counts beginnings and ends.
#[derive(Debug, Default)]
pub(crate) struct Conservation {
    /// Who lives in each slot.
    who: Vec<u32>,
    /// Since when. A list of its own: of most facts only the first is asked.
    since: Vec<SimTime>,
    alive: u64,
    sent: u64,
    finished: u64,
    refused: u64,
    abandoned: u64,
    unfinished: u64,
    /// Pieces of work that are no request: begun, and closed.
    begun: u64,
    closed: u64,
    /// Integral of the number in the system, in request-nanoseconds, up to `last`.
    area: u128,
    last: SimTime,
    /// Sum of the times in the system of those that ended.
    sojourns: u128,
}

impl Conservation {
    pub(crate) fn facts(&mut self, facts: &Facts) -> Breach {
        let slots = facts.slots_needed();
        if slots > self.who.len() {
            self.who.resize(slots, NOBODY);
            self.since.resize(slots, SimTime::ZERO);
        }
        let columns = facts.slots().iter().zip(facts.requests());
        for (i, ((&slot, &request), &kind)) in columns.zip(facts.kinds()).enumerate() {
            let known = self.who[slot as usize] == request;
            if known && TURNS >> kind & 1 == 0 {
                continue;
            }
            let at = SimTime::from_nanos(facts.times()[i]);
            if let Err(breach) = self.turn(slot as usize, (at, request, kind), || facts.entry(i)) {
                return Some((i, breach));
            }
        }
        None
    }

    /// Somebody comes or goes, or a stranger appears.
    fn turn(
        &mut self,
        slot: usize,
        (at, request, kind): (SimTime, u32, u8),
        entry: impl Fn() -> Entry,
    ) -> Verdict {
        let lives = &mut self.who[slot];
        let known = *lives == request;
        let begins = kind == SENT || kind == BEGUN;
        if !begins && !known {
            return Err(stranger(&entry()));
        }
        let work = RequestId(request).is_work();
        if work != (kind == BEGUN || kind == CLOSED) {
            let found = format!("{:?}", entry().fact);
            let expected = "requests to be sent and to end, and other work to begin and be closed";
            return Err(breach(&entry(), expected, found));
        }
        self.area += u128::from(self.alive) * u128::from(at.since(self.last).as_nanos());
        self.last = self.last.max(at);
        if begins {
            if *lives != NOBODY {
                let found = format!("it took the place of request {lives}");
                let expected = "a request sent once, in a place of its own";
                return Err(breach(&entry(), expected, found));
            }
            *lives = request;
            self.since[slot] = at;
            if work {
                self.begun += 1;
                return Ok(());
            }
            self.sent += 1;
            self.alive += 1;
            return Ok(());
        }
        *lives = NOBODY;
        if work {
            self.closed += 1;
            return Ok(());
        }
        self.sojourns += u128::from(at.since(self.since[slot]).as_nanos());
        self.alive -= 1;
        if kind == Fact::Finished.kind() {
            self.finished += 1;
            return Ok(());
        }
        match entry().fact {
            Fact::Refused(_) => self.refused += 1,
            Fact::Abandoned => self.abandoned += 1,
            _ => self.unfinished += 1,
        }
        Ok(())
    }

    /// At the end of a run: nobody is left, and the ledger counted the same.
    pub(crate) fn finish(&self, at: SimTime, counted: &Population) -> Verdict {
        let fail = |expected: String, found: String| {
            Err(Violation::new(Law::Conservation, at, expected, found))
        };
        let ended = self.finished + self.refused + self.abandoned + self.unfinished;
        if self.alive != 0 || self.sent != ended {
            return fail(
                format!("{} requests sent, as many ended", self.sent),
                format!("{ended} ended, {} left over", self.alive),
            );
        }
        if self.begun != self.closed {
            return fail(
                format!("{} pieces of work begun, as many closed", self.begun),
                format!("{} closed", self.closed),
            );
        }
        let mine = (
            self.sent,
            self.finished,
            self.refused,
            self.abandoned,
            self.unfinished,
        );
        let theirs = (
            counted.sent,
            counted.finished,
            counted.refused.iter().sum(),
            counted.abandoned,
            counted.unfinished,
        );
        if mine != theirs {
            return fail(
                format!(
                    "the ledger to count (sent, finished, refused, abandoned, unfinished) = {mine:?}"
                ),
                format!("{theirs:?}"),
            );
        }
        if self.area != self.sojourns {
            return fail(
                format!("times in the system to sum to the area {} ns", self.area),
                format!("{} ns", self.sojourns),
            );
        }
        Ok(())
    }
}

fn breach(entry: &Entry, expected: &str, found: String) -> Box<Violation> {
    Violation::new(Law::Conservation, entry.at, expected, found).of(entry.request)
}

fn stranger(entry: &Entry) -> Box<Violation> {
    breach(
        entry,
        "facts of requests that were sent and have not ended",
        format!("{:?}", entry.fact),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::ids::FIRST_WORK;

    fn entry(at: u64, request: u32, fact: Fact) -> Entry {
        Entry {
            at: SimTime::from_nanos(at),
            request: RequestId(request),
            fact,
        }
    }

    fn tell(law: &mut Conservation, slot: u32, entry: Entry) -> Verdict {
        let breach = law.facts(&Facts::one(slot, &entry));
        breach.map_or(Ok(()), |(_, breach)| Err(breach))
    }

    fn ledger(sent: u64, finished: u64, abandoned: u64) -> Population {
        Population {
            sent,
            finished,
            abandoned,
            ..Population::default()
        }
    }

    fn breaks(verdict: Verdict) -> bool {
        verdict.is_err_and(|v| v.law == Law::Conservation)
    }

    /// Two requests overlap: areas and sojourns agree (1..9 and 3..5).
    fn two_lives() -> Conservation {
        let mut law = Conservation::default();
        for (slot, e) in [
            (0, entry(1, 0, Fact::Sent)),
            (1, entry(3, 1, Fact::Sent)),
            (1, entry(5, 1, Fact::Abandoned)),
            (0, entry(9, 0, Fact::Finished)),
        ] {
            assert_eq!(tell(&mut law, slot, e), Ok(()));
        }
        law
    }

    #[test]
    fn a_whole_life_passes() {
        let law = two_lives();
        assert_eq!((law.area, law.sojourns), (10, 10));
        assert_eq!(law.finish(SimTime::from_nanos(9), &ledger(2, 1, 1)), Ok(()));
    }

    #[test]
    fn a_request_that_ends_twice_shows() {
        let mut law = two_lives();
        assert!(breaks(tell(&mut law, 0, entry(9, 0, Fact::Abandoned))));
    }

    #[test]
    fn a_fact_after_the_end_shows() {
        let mut law = two_lives();
        assert!(breaks(tell(&mut law, 0, entry(9, 0, Fact::FirstToken))));
    }

    #[test]
    fn a_request_sent_into_an_occupied_place_shows() {
        let mut law = Conservation::default();
        assert_eq!(tell(&mut law, 0, entry(1, 0, Fact::Sent)), Ok(()));
        assert!(breaks(tell(&mut law, 0, entry(2, 1, Fact::Sent))));
    }

    /// A request and the work on it, which goes on after its client has gone.
    #[test]
    fn work_that_is_no_request_is_counted_apart() {
        let mut law = Conservation::default();
        for (slot, e) in [
            (0, entry(1, 0, Fact::Sent)),
            (1, entry(2, FIRST_WORK, Fact::Begun(Purpose::Attempt))),
            (0, entry(5, 0, Fact::Abandoned)),
            (1, entry(9, FIRST_WORK, Fact::Closed)),
        ] {
            assert_eq!(tell(&mut law, slot, e), Ok(()));
        }
        assert_eq!((law.area, law.sojourns), (4, 4));
        assert_eq!(law.finish(SimTime::from_nanos(9), &ledger(1, 0, 1)), Ok(()));
    }

    #[test]
    fn work_that_is_not_closed_shows_at_the_end() {
        let mut law = two_lives();
        let begun = entry(9, FIRST_WORK, Fact::Begun(Purpose::Refresh));
        assert_eq!(tell(&mut law, 1, begun), Ok(()));
        assert!(breaks(law.finish(SimTime::from_nanos(9), &ledger(2, 1, 1))));
    }

    #[test]
    fn work_that_poses_as_a_request_shows() {
        let begun = Fact::Begun(Purpose::Retry);
        for (id, begin, end) in [
            (0, begun, None),
            (FIRST_WORK, Fact::Sent, None),
            (0, Fact::Sent, Some(Fact::Closed)),
            (FIRST_WORK, begun, Some(Fact::Finished)),
        ] {
            let mut law = Conservation::default();
            let begins = tell(&mut law, 0, entry(1, id, begin));
            match end {
                None => assert!(breaks(begins)),
                Some(end) => {
                    assert_eq!(begins, Ok(()));
                    assert!(breaks(tell(&mut law, 0, entry(2, id, end))));
                }
            }
        }
    }

    #[test]
    fn a_lost_request_shows_at_the_end() {
        let mut law = two_lives();
        assert_eq!(tell(&mut law, 1, entry(9, 2, Fact::Sent)), Ok(()));
        assert!(breaks(law.finish(SimTime::from_nanos(9), &ledger(3, 1, 1))));
    }

    #[test]
    fn a_ledger_that_counts_otherwise_shows() {
        assert!(breaks(
            two_lives().finish(SimTime::from_nanos(9), &ledger(2, 2, 0))
        ));
    }

    #[test]
    fn time_in_the_system_that_does_not_add_up_shows() {
        let mut law = two_lives();
        law.sojourns += 1;
        assert!(breaks(law.finish(SimTime::from_nanos(9), &ledger(2, 1, 1))));
    }
}
