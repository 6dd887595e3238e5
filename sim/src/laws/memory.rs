//! Memory adds up: held, cached and free blocks make up the total at every look, and nothing is held
//! when the last request has left. Looks come every so many steps; at the end everything is counted
//! anew.

use super::{Law, Verdict, Violation};
use crate::fleet::machine::Discrepancy;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::SimTime;
use windtunnel_engine::engine::EngineStats;

/// Ends of steps between two looks at a replica.
const STRIDE: u32 = 256;

/// Looks at replicas' memory now and then.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    ends: u32,
}

impl Memory {
    /// Whether this end of a step is one to look at.
    #[inline]
    pub(crate) fn due(&mut self) -> bool {
        self.ends = self.ends.wrapping_add(1);
        self.ends.is_multiple_of(STRIDE)
    }

    /// Judges what a replica says of itself.
    pub(crate) fn look(
        at: SimTime,
        replica: ReplicaId,
        stats: &EngineStats,
        audit: Result<(), Discrepancy>,
    ) -> Verdict {
        if let Err(d) = audit {
            return Err(Violation::new(Law::Memory, at, d.expected, d.found).on(replica));
        }
        if stats.kv_held + stats.kv_cached > stats.kv_total {
            return Err(Violation::new(
                Law::Memory,
                at,
                format!("held and cached blocks within {}", stats.kv_total),
                format!("{} held, {} cached", stats.kv_held, stats.kv_cached),
            )
            .on(replica));
        }
        Ok(())
    }

    /// At the end, when every request has left: nothing runs, waits or is held.
    pub(crate) fn finish(at: SimTime, replica: ReplicaId, stats: &EngineStats) -> Verdict {
        if stats.running != 0 || stats.waiting != 0 || stats.kv_held != 0 {
            return Err(Violation::new(
                Law::Memory,
                at,
                "an empty replica after the last request has left",
                format!(
                    "{} running, {} waiting, {} blocks held",
                    stats.running, stats.waiting, stats.kv_held
                ),
            )
            .on(replica));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: SimTime = SimTime::ZERO;
    const R: ReplicaId = ReplicaId(3);

    fn breaks(verdict: Verdict) -> bool {
        verdict.is_err_and(|v| v.law == Law::Memory && v.replica == Some(R))
    }

    fn stats(kv_held: u64, kv_cached: u64) -> EngineStats {
        EngineStats {
            kv_held,
            kv_cached,
            kv_total: 10,
            ..EngineStats::default()
        }
    }

    #[test]
    fn more_blocks_than_there_are_show() {
        assert_eq!(Memory::look(T, R, &stats(4, 6), Ok(())), Ok(()));
        assert!(breaks(Memory::look(T, R, &stats(5, 6), Ok(()))));
    }

    #[test]
    fn a_count_that_does_not_add_up_shows() {
        let leak = Discrepancy {
            expected: "10 blocks".into(),
            found: "9".into(),
        };
        assert!(breaks(Memory::look(T, R, &stats(1, 1), Err(leak))));
    }

    #[test]
    fn memory_that_nobody_gives_back_shows() {
        assert_eq!(Memory::finish(T, R, &stats(0, 6)), Ok(()));
        assert!(breaks(Memory::finish(T, R, &stats(1, 6))));
    }

    #[test]
    fn looks_come_at_a_steady_pace() {
        let mut law = Memory::default();
        assert_eq!((0..10 * STRIDE).filter(|_| law.due()).count(), 10);
    }
}
