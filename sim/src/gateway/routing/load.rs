//! Replicas compared by a load signal, in integers, so that ties are ties.

use crate::view::{FleetView, ReplicaView, Signals};
use windtunnel_base::time::SimTime;
use windtunnel_scenarios::schema::policies::LoadSignal;

/// Reads one signal.
#[derive(Clone, Debug)]
pub(super) struct LoadReader {
    signal: LoadSignal,
    /// Requests sent to each replica, by id, since the reading of that time. Only kept for
    /// `vllm_dp`.
    sent: Vec<(SimTime, u64)>,
}

impl LoadReader {
    pub(super) const fn new(signal: LoadSignal) -> Self {
        Self {
            signal,
            sent: Vec::new(),
        }
    }

    pub(super) const fn signals(&self) -> Signals {
        let counted = matches!(
            self.signal,
            LoadSignal::InFlight | LoadSignal::InFlightTokens | LoadSignal::TotalTokens
        );
        let passing = matches!(self.signal, LoadSignal::KvUtilization | LoadSignal::VllmDp);
        Signals {
            stats: !counted,
            passing,
            cache: false,
        }
    }

    /// The load of a replica: requests, tokens, or billionths of its KV blocks.
    #[inline]
    pub(super) fn load(&self, replica: &ReplicaView) -> u64 {
        let stats = &replica.stats.value;
        match self.signal {
            LoadSignal::InFlight => u64::from(replica.in_flight),
            LoadSignal::InFlightTokens => replica.in_flight_tokens,
            LoadSignal::TotalTokens => replica.total_tokens,
            LoadSignal::Waiting => u64::from(stats.waiting),
            LoadSignal::WaitingAndRunning => u64::from(stats.waiting) + u64::from(stats.running),
            LoadSignal::WaitingRunningInFlight => {
                u64::from(stats.waiting) + u64::from(stats.running) + u64::from(replica.in_flight)
            }
            LoadSignal::KvUtilization => {
                let billionths = u128::from(stats.kv_held) * 1_000_000_000;
                (billionths / u128::from(stats.kv_total.max(1))) as u64
            }
            LoadSignal::VllmDp => {
                let since = self.sent.get(replica.id.index());
                let sent = since.map_or(0, |&(read_at, sent)| {
                    if read_at == replica.stats.read_at {
                        sent
                    } else {
                        0
                    }
                });
                4 * (u64::from(stats.waiting) + sent) + u64::from(stats.running)
            }
        }
    }

    /// The place in the view of the first of the least loaded replicas, and how many they are.
    #[inline]
    pub(super) fn least(&self, fleet: &FleetView<'_>) -> (usize, usize) {
        let (mut first, mut least, mut ties) = (0, u64::MAX, 0);
        for (place, replica) in fleet.replicas.iter().enumerate() {
            let load = self.load(replica);
            if load < least {
                (first, least, ties) = (place, load, 0);
            }
            ties += usize::from(load == least);
        }
        (first, ties)
    }

    /// The place of the `rank`-th of those as loaded as the one at `place`, the first of them.
    pub(super) fn equal(&self, fleet: &FleetView<'_>, place: usize, rank: usize) -> usize {
        let load = self.load(&fleet.replicas[place]);
        let equal = |p: &usize| self.load(&fleet.replicas[*p]) == load;
        let mut places = (place..fleet.replicas.len()).filter(equal);
        places.nth(rank).unwrap_or(place)
    }

    /// Learns that a request goes to this replica.
    #[inline]
    pub(super) fn sent(&mut self, replica: &ReplicaView) {
        if self.signal != LoadSignal::VllmDp {
            return;
        }
        let id = replica.id.index();
        if id >= self.sent.len() {
            self.sent.resize(id + 1, (SimTime::ZERO, 0));
        }
        let (read_at, sent) = &mut self.sent[id];
        if *read_at != replica.stats.read_at {
            (*read_at, *sent) = (replica.stats.read_at, 0);
        }
        *sent += 1;
    }
}
