//! How replicas' statistics reach the gateway: read on the spot, or scraped and delivered late.

use std::collections::VecDeque;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::engine::EngineStats;

/// The path of statistics from replicas to the gateway.
#[derive(Debug)]
pub(crate) enum Telemetry {
    /// Nobody asks.
    Off,
    /// The gateway sees the live state (an oracle).
    Live,
    /// Scrapes that arrive later.
    Scraped(Scrapes),
    /// The gateway reads for itself when it needs to know and its last reading is so old.
    OnDecision(Pace),
}

/// Readings that are taken when somebody asks and the last one is `period` old. Time zero counts as
/// the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    period: SimDuration,
    last: SimTime,
}

impl Pace {
    pub(crate) const fn new(period: SimDuration) -> Self {
        Self {
            period,
            last: SimTime::ZERO,
        }
    }

    /// Whether somebody who asks at `now` takes a reading.
    pub(crate) fn is_due(&mut self, now: SimTime) -> bool {
        let due = now.since(self.last) >= self.period;
        if due {
            self.last = now;
        }
        due
    }
}

/// Scrapes under way to the gateway.
#[derive(Debug)]
pub(crate) struct Scrapes {
    period: SimDuration,
    delay: SimDuration,
    under_way: VecDeque<Scrape>,
    spare: Vec<Vec<EngineStats>>,
}

#[derive(Debug)]
struct Scrape {
    read_at: SimTime,
    stats: Vec<EngineStats>,
}

impl Scrapes {
    /// A scrape every `period`, known to the gateway `delay` later.
    pub(crate) const fn new(period: SimDuration, delay: SimDuration) -> Self {
        Self {
            period,
            delay,
            under_way: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Time between two scrapes.
    pub(crate) const fn period(&self) -> SimDuration {
        self.period
    }

    /// Reads all replicas at `now`.
    pub(crate) fn read(&mut self, now: SimTime, stats: impl Iterator<Item = EngineStats>) {
        // Of scrapes that have arrived, only the last one matters.
        while self.under_way.len() > 1 && self.under_way[1].read_at + self.delay <= now {
            if let Some(old) = self.under_way.pop_front() {
                self.spare.push(old.stats);
            }
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend(stats);
        self.under_way.push_back(Scrape {
            read_at: now,
            stats: buffer,
        });
    }

    /// The last scrape that has arrived by `now`, if it is newer than the one this gave before.
    pub(crate) fn arrived(
        &mut self,
        now: SimTime,
        mut receive: impl FnMut(SimTime, &[EngineStats]),
    ) {
        let due = |s: &Scrape| s.read_at + self.delay <= now;
        let arrived = self.under_way.iter().take_while(|s| due(s)).count();
        for i in 0..arrived {
            if let Some(scrape) = self.under_way.pop_front() {
                if i + 1 == arrived {
                    receive(scrape.read_at, &scrape.stats);
                }
                self.spare.push(scrape.stats);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_known_after_its_delay_and_only_once() {
        // Every 10 ns, 25 ns under way: up to three scrapes travel at once.
        let mut scrapes = Scrapes::new(SimDuration::from_nanos(10), SimDuration::from_nanos(25));
        let t = SimTime::from_nanos;
        let mut seen = Vec::new();
        for now in 0..=60 {
            if now % 10 == 0 {
                let stats = EngineStats {
                    running: now as u32,
                    ..EngineStats::default()
                };
                scrapes.read(t(now), std::iter::once(stats));
            }
            scrapes.arrived(t(now), |read_at, stats| {
                assert_eq!(read_at, t(u64::from(stats[0].running)));
                seen.push((now, stats[0].running));
            });
        }
        assert_eq!(seen, [(25, 0), (35, 10), (45, 20), (55, 30)]);
    }

    #[test]
    fn what_nobody_reads_does_not_pile_up() {
        let mut scrapes = Scrapes::new(SimDuration::from_nanos(1), SimDuration::from_nanos(3));
        for now in 0..1000 {
            scrapes.read(SimTime::from_nanos(now), std::iter::empty());
        }
        assert!(scrapes.under_way.len() <= 5, "{}", scrapes.under_way.len());
    }
}
