//! Work that could run does run: no replica rests while requests wait in it, nobody waits at the
//! gateway while a replica has room, time goes on, and a request is not thrown out of memory for
//! ever without gaining a token.

use super::facts::Facts;
use super::{Breach, Law, Verdict, Violation};
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::SimTime;
use windtunnel_engine::engine::EngineStats;
use windtunnel_ledger::entry::{Entry, Fact, Purpose};

/// Events of one instant beyond those that its requests account for.
const SPARE_EVENTS: u64 = 10_000;
/// Events that one request may account for within one instant: every hop of its life, and some.
const EVENTS_PER_REQUEST: u64 = 32;
/// The kind of a preemption.
const PREEMPTED: u8 = Fact::Preempted { generated: 0 }.kind();
/// The kind of the beginning of work that is no request.
const BEGUN: u8 = Fact::Begun(Purpose::Attempt).kind();
/// Preemptions of one request in a row, without a token between them.
const BARREN_PREEMPTIONS: u32 = 10_000;

/// Watches for standstill.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    instant: SimTime,
    events: u64,
    /// By slot: output tokens at the last preemption, and preemptions since that number grew.
    preempted: Vec<(u32, u32)>,
}

impl Progress {
    /// An event is about to be handled, with so many requests in the system.
    #[inline]
    pub(crate) fn event(&mut self, at: SimTime, live: usize) -> Verdict {
        if at > self.instant {
            self.instant = at;
            self.events = 0;
        }
        self.events += 1;
        let bound = SPARE_EVENTS + EVENTS_PER_REQUEST * live as u64;
        if self.events > bound {
            return Err(Violation::new(
                Law::Progress,
                at,
                format!("time to go on within {bound} events"),
                format!("{} events at one instant", self.events),
            ));
        }
        Ok(())
    }
}

impl Progress {
    pub(crate) fn facts(&mut self, facts: &Facts) -> Breach {
        // Counted in bytes, which a block's facts fit in, sixteen at once.
        let of_kind = |wanted: u8| {
            let kinds = facts.kinds().iter();
            u64::from(kinds.map(|&kind| u8::from(kind == wanted)).sum::<u8>())
        };
        if self.preempted.is_empty() && of_kind(PREEMPTED) == 0 {
            // Mostly nobody was ever preempted: then only how many came counts, not where they are.
            let came = of_kind(Fact::Sent.kind()) + of_kind(BEGUN);
            self.events = self.events.saturating_sub(EVENTS_PER_REQUEST * came);
            return None;
        }
        for (i, (&slot, &kind)) in facts.slots().iter().zip(facts.kinds()).enumerate() {
            if kind == Fact::Sent.kind() || kind == BEGUN {
                self.sent(slot as usize);
            } else if kind == PREEMPTED
                && let Err(breach) = self.entry(slot, &facts.entry(i))
            {
                return Some((i, breach));
            }
        }
        None
    }

    #[inline]
    fn sent(&mut self, slot: usize) {
        // Every request of this instant pays for its own events.
        self.events = self.events.saturating_sub(EVENTS_PER_REQUEST);
        if let Some(p) = self.preempted.get_mut(slot) {
            *p = (0, 0);
        }
    }

    fn entry(&mut self, slot: u32, entry: &Entry) -> Verdict {
        let slot = slot as usize;
        match entry.fact {
            Fact::Preempted { generated } => {
                if slot >= self.preempted.len() {
                    self.preempted.resize(slot + 1, (0, 0));
                }
                let (before, times) = &mut self.preempted[slot];
                if generated > *before {
                    (*before, *times) = (generated, 0);
                }
                *times += 1;
                if *times <= BARREN_PREEMPTIONS {
                    return Ok(());
                }
                Err(Violation::new(
                    Law::Progress,
                    entry.at,
                    format!("a token within {BARREN_PREEMPTIONS} preemptions"),
                    format!("none after {times}, at {generated} tokens"),
                )
                .of(entry.request))
            }
            _ => Ok(()),
        }
    }

    /// A replica says that it is idle.
    pub(crate) fn idle(at: SimTime, replica: ReplicaId, stats: &EngineStats) -> Verdict {
        if stats.running == 0 && stats.waiting == 0 {
            return Ok(());
        }
        Err(Violation::new(
            Law::Progress,
            at,
            "a replica with work to run it",
            format!(
                "rest, with {} running and {} waiting",
                stats.running, stats.waiting
            ),
        )
        .on(replica))
    }

    /// An instant is over, with so many requests waiting at the gateway.
    #[inline]
    pub(crate) fn instant(at: SimTime, waiting: usize, full: bool) -> Verdict {
        if waiting == 0 || full {
            return Ok(());
        }
        Err(Violation::new(
            Law::Progress,
            at,
            "nobody to wait at the gateway while a replica has room",
            format!("{waiting} waiting"),
        ))
    }

    /// Nothing is due any more, and nobody cut the run off.
    pub(crate) fn finish(at: SimTime, live: usize, at_gateway: usize) -> Verdict {
        if live == 0 {
            return Ok(());
        }
        Err(Violation::new(
            Law::Progress,
            at,
            "every request to end before the run does",
            format!(
                "{live} under way with nothing due, {at_gateway} of them waiting at the gateway"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::ids::RequestId;

    fn breaks(verdict: Verdict) -> bool {
        verdict.is_err_and(|v| v.law == Law::Progress)
    }

    fn t(ns: u64) -> SimTime {
        SimTime::from_nanos(ns)
    }

    #[test]
    fn a_standstill_shows() {
        let mut law = Progress::default();
        // Time goes on: any number of events is fine.
        for ns in 0..3 * SPARE_EVENTS {
            assert_eq!(law.event(t(ns), 0), Ok(()));
        }
        let now = t(3 * SPARE_EVENTS);
        let bound = SPARE_EVENTS + EVENTS_PER_REQUEST;
        assert!((0..bound).all(|_| law.event(now, 1).is_ok()));
        assert!(breaks(law.event(now, 1)));
    }

    #[test]
    fn a_great_crowd_at_one_instant_is_no_standstill() {
        let mut law = Progress::default();
        for request in 0..2 * SPARE_EVENTS as u32 {
            assert_eq!(law.event(t(0), 0), Ok(()));
            let sent = Entry {
                at: t(0),
                request: RequestId(request),
                fact: Fact::Sent,
            };
            assert_eq!(law.facts(&Facts::one(0, &sent)), None);
        }
    }

    #[test]
    fn endless_preemption_shows_and_a_token_in_between_forgives() {
        let mut law = Progress::default();
        let mut preempt = |generated| {
            let entry = Entry {
                at: t(1),
                request: RequestId(0),
                fact: Fact::Preempted { generated },
            };
            let breach = law.facts(&Facts::one(0, &entry));
            breach.map_or(Ok(()), |(_, breach)| Err(breach))
        };
        assert!((0..BARREN_PREEMPTIONS).all(|_| preempt(5).is_ok()));
        assert!((0..BARREN_PREEMPTIONS).all(|_| preempt(6).is_ok()));
        assert!(breaks(preempt(6)));
    }

    #[test]
    fn a_lazy_replica_and_a_stuck_run_show() {
        let waiting = EngineStats {
            waiting: 2,
            ..EngineStats::default()
        };
        assert!(breaks(Progress::idle(t(1), ReplicaId(0), &waiting)));
        assert_eq!(
            Progress::idle(t(1), ReplicaId(0), &EngineStats::default()),
            Ok(())
        );
        assert!(breaks(Progress::instant(t(1), 1, false)));
        assert_eq!(Progress::instant(t(1), 1, true), Ok(()));
        assert_eq!(Progress::instant(t(1), 0, false), Ok(()));
        assert!(breaks(Progress::finish(t(1), 2, 2)));
        assert_eq!(Progress::finish(t(1), 0, 0), Ok(()));
    }
}
