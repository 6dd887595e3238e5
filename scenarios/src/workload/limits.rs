//! When clients stop, and how many of their requests they have under way at once.

use super::{Arrival, Workload};
use windtunnel_base::content::Extent;
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::SimTime;

/// The stops of `[traffic]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Limits {
    /// Stop after so many requests.
    pub(crate) num_prompts: Option<u64>,
    /// Send nothing after this time.
    pub(crate) until: Option<SimTime>,
    /// Requests under way beyond which clients wait.
    pub(crate) max_concurrency: Option<u32>,
}

/// A workload within limits.
///
/// A request that is held back because `max_concurrency` others are under way is sent when the
/// first of them has left, in the order in which they were due, as with vLLM's benchmark client;
/// its life begins then.
#[derive(Debug)]
pub(crate) struct Limited<W> {
    inner: W,
    limits: Limits,
    taken: u64,
    under_way: u32,
    /// When a place last became free.
    freed_at: SimTime,
}

impl<W: Workload> Limited<W> {
    /// `inner` within `limits`.
    pub(crate) fn new(inner: W, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            taken: 0,
            under_way: 0,
            freed_at: SimTime::ZERO,
        }
    }
}

impl<W: Workload> Workload for Limited<W> {
    #[inline]
    fn next_at(&mut self) -> Option<SimTime> {
        let limits = &self.limits;
        if limits.num_prompts.is_some_and(|n| self.taken >= n)
            || limits.max_concurrency.is_some_and(|n| self.under_way >= n)
        {
            return None;
        }
        let at = self.inner.next_at()?.max(self.freed_at);
        limits.until.is_none_or(|until| at <= until).then_some(at)
    }

    fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
        let mut arrival = self.inner.take(prefix);
        arrival.at = arrival.at.max(self.freed_at);
        self.taken += 1;
        self.under_way += 1;
        arrival
    }

    fn departed(&mut self, request: RequestId, at: SimTime, finished: bool) {
        if self
            .limits
            .max_concurrency
            .is_some_and(|n| self.under_way >= n)
        {
            self.freed_at = at;
        }
        self.under_way = self.under_way.saturating_sub(1);
        self.inner.departed(request, at, finished);
    }

    fn heeds_departures(&self) -> bool {
        self.limits.max_concurrency.is_some() || self.inner.heeds_departures()
    }
}
