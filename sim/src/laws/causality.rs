//! Causes before effects: entries come in order of time, and the facts of a request in an order in
//! which they can happen.

use super::facts::Facts;
use super::{Breach, Law, Violation};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;
use windtunnel_ledger::entry::{AnswerSource, Entry, Fact};

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    #[default]
    Nowhere,
    Sent,
    Dispatched,
    Accepted,
    /// In a batch, without output.
    Started,
    /// Thrown out of a batch before its first token.
    Waiting,
    /// In a batch, with output.
    Talking,
    /// Thrown out of a batch after its first token.
    Paused,
    Generated,
    Verified,
    /// It has an answer from elsewhere.
    Answered,
}

impl Stage {
    /// All of them, each at its own place.
    const ALL: [Self; 11] = [
        Self::Nowhere,
        Self::Sent,
        Self::Dispatched,
        Self::Accepted,
        Self::Started,
        Self::Waiting,
        Self::Talking,
        Self::Paused,
        Self::Generated,
        Self::Verified,
        Self::Answered,
    ];
}

/// Follows every request.
#[derive(Debug, Default)]
pub(crate) struct Causality {
    /// Time of the last fact, in ns.
    now: u64,
    stages: Vec<Stage>,
}

impl Causality {
    pub(crate) fn facts(&mut self, facts: &Facts) -> Breach {
        let slots = facts.slots_needed();
        if slots > self.stages.len() {
            self.stages.resize(slots, Stage::Nowhere);
        }
        let usual = match is_in_order(self.now, facts.times()) {
            true => self.usual(facts),
            false => 0,
        };
        if let Some(&last) = facts.times()[..usual].last() {
            self.now = last;
        }
        self.unusual(facts, usual)
    }

    /// Follows facts whose times are in order as far as each can follow on the one before, as nearly all
    /// do; says how many those were.
    fn usual(&mut self, facts: &Facts) -> usize {
        let columns = facts.slots().iter().zip(facts.kinds());
        for (i, (&slot, &kind)) in columns.enumerate() {
            let stage = &mut self.stages[slot as usize];
            let Some(next) = AFTER[usize::from(place(*stage, kind))] else {
                return i;
            };
            *stage = next;
        }
        facts.len()
    }

    /// Looks closely at the facts from this one on.
    fn unusual(&mut self, facts: &Facts, from: usize) -> Breach {
        for i in from..facts.len() {
            let (at, slot, kind) = (facts.times()[i], facts.slots()[i], facts.kinds()[i]);
            let stage = self.stages[slot as usize];
            let next = AFTER[usize::from(place(stage, kind))];
            match next {
                Some(next) if at >= self.now => {
                    self.now = at;
                    self.stages[slot as usize] = next;
                }
                _ => match lost(stage, &facts.entry(i)) {
                    Some(next) if at >= self.now => {
                        self.now = at;
                        self.stages[slot as usize] = next;
                    }
                    _ => return Some((i, self.breach(stage, &facts.entry(i)))),
                },
            }
        }
        None
    }

    #[cold]
    fn breach(&self, stage: Stage, entry: &Entry) -> Box<Violation> {
        let expected = if entry.at.as_nanos() < self.now {
            format!("nothing before {:?}", SimTime::from_nanos(self.now))
        } else {
            format!("what can follow on {stage:?}")
        };
        let found = format!("{:?}", entry.fact);
        Violation::new(Law::Causality, entry.at, expected, found).of(entry.request)
    }
}

/// Whether times never run back, from `now` on.
fn is_in_order(now: u64, times: &[u64]) -> bool {
    let pairs = times.iter().zip(times.iter().skip(1));
    let ordered = pairs.fold(true, |ordered, (a, b)| ordered & (a <= b));
    ordered && times.first().is_none_or(|&first| first >= now)
}

/// A table with room for sixteen stages and kinds, which any byte is a place in.
const TABLE: usize = 1 << 8;
const _: () = assert!(Stage::ALL.len() <= 16 && Fact::KINDS.len() <= 16);

/// Where [`AFTER`] says what comes of a fact of this kind.
#[inline]
const fn place(stage: Stage, kind: u8) -> u8 {
    (stage as u8) << 4 | kind & 0xf
}

/// [`after`], by stage and kind of fact.
const AFTER: [Option<Stage>; TABLE] = {
    let mut table = [None; TABLE];
    let mut stage = 0;
    while stage < Stage::ALL.len() {
        let mut kind = 0;
        while kind < Fact::KINDS.len() {
            let at = place(Stage::ALL[stage], kind as u8);
            table[at as usize] = after(Stage::ALL[stage], Fact::KINDS[kind]);
            kind += 1;
        }
        stage += 1;
    }
    table
};

/// Where a request is led to that whoever had it lost, which can happen at any stage: it is refused, or given
/// an answer that was kept for such a case.
#[cold]
fn lost(stage: Stage, entry: &Entry) -> Option<Stage> {
    match (stage, entry.fact) {
        // An answer that is on its way from elsewhere is not lost.
        (Stage::Nowhere | Stage::Answered, _) => None,
        (_, Fact::Refused(Refusal::Unavailable)) => Some(Stage::Nowhere),
        (_, Fact::Answered(AnswerSource::Stale)) => Some(Stage::Answered),
        _ => None,
    }
}

/// Where a fact leads from a stage; `None` if it cannot happen there.
const fn after(stage: Stage, fact: Fact) -> Option<Stage> {
    use Stage::*;
    Some(match (stage, fact) {
        (Nowhere, Fact::Sent | Fact::Begun(_)) => Sent,
        (Sent, Fact::Dispatched(_)) => Dispatched,
        (Dispatched, Fact::Accepted) => Accepted,
        (Accepted | Waiting, Fact::Started { .. }) => Started,
        // A request that was swapped out comes back without a new start; one whose work is
        // repeated starts again.
        (Paused, Fact::Started { .. }) | (Started | Waiting, Fact::FirstToken) => Talking,
        (Started | Waiting, Fact::Preempted { .. }) => Waiting,
        (Talking | Paused, Fact::Preempted { .. }) => Paused,
        (Talking | Paused, Fact::Generated) => Generated,
        (Generated, Fact::Verified { .. }) => Verified,
        // Of a rejected answer nothing is left: somebody else is asked.
        (Verified, Fact::FellBack) => Sent,
        // A refusal is the gateway's or the replica's, never of a request that was accepted.
        (Sent | Dispatched, Fact::Refused(_)) => Nowhere,
        (Generated | Verified | Answered, Fact::Finished) => Nowhere,
        // An answer from elsewhere comes before its own, if that was ever begun.
        (Sent | Dispatched | Accepted | Started | Waiting, Fact::Answered(_)) => Answered,
        (Nowhere, _) => return None,
        (_, Fact::Abandoned | Fact::Unfinished | Fact::Closed) => Nowhere,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use windtunnel_base::ids::{ReplicaId, RequestId};
    use windtunnel_ledger::entry::Purpose;

    fn tell(facts: &[(u64, Fact)]) -> Verdict {
        let mut law = Causality::default();
        facts.iter().try_for_each(|&(at, fact)| {
            let entry = Entry {
                at: SimTime::from_nanos(at),
                request: RequestId(0),
                fact,
            };
            let breach = law.facts(&Facts::one(0, &entry));
            breach.map_or(Ok(()), |(_, breach)| Err(breach))
        })
    }

    #[test]
    fn only_who_was_lost_is_refused_while_it_runs() {
        let running = [
            (0, Fact::Sent),
            (1, Fact::Dispatched(ReplicaId(0))),
            (2, Fact::Accepted),
            (3, Fact::Started { cached_tokens: 0 }),
        ];
        let refused = |reason| [&running[..], &[(4, Fact::Refused(reason))]].concat();
        assert_eq!(tell(&refused(Refusal::Unavailable)), Ok(()));
        assert!(breaks(&refused(Refusal::QueueFull)));
        assert!(
            breaks(&[(0, Fact::Refused(Refusal::Unavailable))]),
            "nobody sent it"
        );
    }

    fn breaks(facts: &[(u64, Fact)]) -> bool {
        // Only the last fact is wrong.
        assert_eq!(tell(&facts[..facts.len() - 1]), Ok(()));
        tell(facts).is_err_and(|v| v.law == Law::Causality)
    }

    #[test]
    fn the_table_is_what_can_follow() {
        for (number, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, number);
            for fact in Fact::KINDS {
                let at = place(stage, fact.kind());
                assert_eq!(AFTER[usize::from(at)], after(stage, fact));
            }
        }
    }

    const TO: Fact = Fact::Dispatched(ReplicaId(0));
    const STARTED: Fact = Fact::Started { cached_tokens: 0 };
    const OUT: Fact = Fact::Preempted { generated: 0 };

    #[test]
    fn a_life_with_preemptions_passes() {
        let life = [
            (0, Fact::Sent),
            (1, TO),
            (1, Fact::Accepted),
            (1, STARTED),
            (2, OUT),
            (3, STARTED),
            (4, Fact::FirstToken),
            (5, OUT),
            (6, STARTED),
            (7, Fact::Generated),
            (8, Fact::Verified { accepted: true }),
            (8, Fact::Finished),
            (9, Fact::Sent), // the next in this place
        ];
        assert_eq!(tell(&life), Ok(()));
    }

    #[test]
    fn only_an_answer_that_was_judged_is_replaced() {
        let judged = [
            (0, Fact::Sent),
            (0, TO),
            (1, Fact::Accepted),
            (1, STARTED),
            (2, Fact::FirstToken),
            (3, Fact::Generated),
            (4, Fact::Verified { accepted: false }),
        ];
        let again = [(4, Fact::FellBack), (4, TO), (5, Fact::Accepted)];
        assert_eq!(tell(&[&judged[..], &again].concat()), Ok(()));
        let refused = Fact::Refused(Refusal::QueueFull);
        let turned_away = [(4, Fact::FellBack), (4, refused)];
        assert_eq!(tell(&[&judged[..], &turned_away].concat()), Ok(()));
        assert!(breaks(&[&judged[..], &[(5, TO)]].concat()));
        assert!(breaks(&[&judged[..6], &[(4, Fact::FellBack)]].concat()));
        assert!(breaks(
            &[&judged[..], &[(4, Fact::FellBack), (5, Fact::Finished)]].concat()
        ));
    }

    #[test]
    fn an_answer_from_elsewhere_comes_once_and_instead_of_ones_own() {
        use Fact::{Answered, Closed, Finished, Sent};
        let begun = Fact::Begun(Purpose::Attempt);
        let stored = Answered(AnswerSource::Stored);
        assert_eq!(tell(&[(0, Sent), (1, stored), (2, Finished)]), Ok(()));
        assert_eq!(
            tell(&[(0, Sent), (1, TO), (2, stored), (3, Finished)]),
            Ok(())
        );
        assert_eq!(tell(&[(0, begun), (1, TO), (2, Closed), (3, Sent)]), Ok(()));
        assert_eq!(tell(&[(0, begun), (1, stored), (2, Closed)]), Ok(()));
        assert!(breaks(&[(0, stored)]));
        assert!(breaks(&[(0, Closed)]));
        assert!(breaks(&[(0, Sent), (0, begun)]));
        assert!(breaks(&[(0, begun), (0, begun)]));
        assert!(breaks(&[(0, Sent), (1, stored), (2, stored)]));
        assert!(breaks(&[(0, Sent), (1, stored), (2, TO)]));
        let verified = Fact::Verified { accepted: true };
        assert!(breaks(&[(0, Sent), (1, stored), (2, verified)]));
        let refused = Fact::Refused(Refusal::Unavailable);
        assert!(breaks(&[(0, Sent), (1, stored), (2, refused)]));
        let own = [
            (0, Sent),
            (0, TO),
            (0, Fact::Accepted),
            (0, STARTED),
            (1, Fact::FirstToken),
        ];
        assert!(breaks(&[&own[..], &[(2, stored)]].concat()));
        // What was kept for the case that the rest never comes.
        let stale = Answered(AnswerSource::Stale);
        assert_eq!(
            tell(&[&own[..], &[(2, stale), (3, Finished)]].concat()),
            Ok(())
        );
        assert!(breaks(&[&own[..], &[(2, stale), (3, stale)]].concat()));
    }

    #[test]
    fn time_that_runs_back_shows() {
        assert!(breaks(&[(5, Fact::Sent), (4, TO)]));
    }

    #[test]
    fn effects_before_causes_show() {
        use Fact::{Accepted, Finished, FirstToken, Generated, Sent};
        assert!(breaks(&[(0, TO)]));
        assert!(breaks(&[(0, Sent), (0, Accepted)]));
        assert!(breaks(&[(0, Sent), (0, Finished)]));
        assert!(breaks(&[
            (0, Sent),
            (0, TO),
            (0, Accepted),
            (0, FirstToken)
        ]));
        // No second first token, after a preemption either.
        let talking = [
            (0, Sent),
            (0, TO),
            (0, Accepted),
            (0, STARTED),
            (1, FirstToken),
        ];
        let then = |more: &[(u64, Fact)]| breaks(&[&talking[..], more].concat());
        assert!(then(&[(2, FirstToken)]));
        assert!(then(&[(2, OUT), (3, STARTED), (4, FirstToken)]));
        // An accepted request is not refused, and a verdict needs an answer.
        assert!(then(&[(2, Fact::Refused(Refusal::QueueFull))]));
        assert!(then(&[(2, Fact::Verified { accepted: true })]));
        assert!(then(&[(2, Generated), (3, Finished), (4, Finished)]));
    }
}
