//! What clients decide about their own attempts: whether to make one, and when the next. Pure state
//! machines; draws come from streams of their own, one per call and attempt, so what one client does
//! moves no draw of another.

/// How long to wait before a retry.
mod backoff;
/// How many retries all may make.
mod budget;
/// Holding back while servers turn too much away.
mod throttle;

use backoff::Backoff;
use budget::Budget;
use throttle::Throttle;
use windtunnel_base::ids::{RequestId, TenantId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_scenarios::schema::clients::{ClientsSpec, CountedPer};

/// One of something for all tenants, or one for each.
#[derive(Clone, Debug)]
struct Per<T> {
    tenants: bool,
    fresh: T,
    made: Vec<T>,
}

impl<T: Clone> Per<T> {
    fn new(per: CountedPer, fresh: T) -> Self {
        Self {
            tenants: per == CountedPer::Tenant,
            fresh,
            made: Vec::new(),
        }
    }

    fn of(&mut self, tenant: TenantId) -> &mut T {
        let index = if self.tenants { tenant.index() } else { 0 };
        if index >= self.made.len() {
            self.made.resize(index + 1, self.fresh.clone());
        }
        &mut self.made[index]
    }
}

/// All clients of a run.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub(crate) timeout: Option<SimDuration>,
    pub(crate) cancel_dead_work: bool,
    max_retries: u32,
    retried: [bool; Refusal::ALL.len()],
    backoff: Backoff,
    budget: Option<Per<Budget>>,
    throttle: Option<Per<Throttle>>,
    hedge_after: SimDuration,
    max_hedges: u32,
    streams: Streams,
}

/// What a call has behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tries {
    /// Attempts, those included that were held back.
    pub(crate) attempts: u32,
    pub(crate) retries: u32,
    pub(crate) hedges: u32,
    /// The wait before the last retry.
    pub(crate) waited: SimDuration,
}

impl Clients {
    pub(crate) fn new(spec: &ClientsSpec, streams: Streams) -> Self {
        let mut retried = [false; Refusal::ALL.len()];
        for failure in &spec.retries.on {
            retried[failure.refusal() as usize] = true;
        }
        let budget = spec.retry_budget.as_ref();
        let throttling = spec.throttling.as_ref();
        let hedging = spec.hedging.as_ref();
        Self {
            timeout: spec.attempt_timeout.map(|t| t.0),
            cancel_dead_work: spec.cancel_dead_work,
            max_retries: spec.retries.max,
            retried,
            backoff: Backoff::new(&spec.retries),
            budget: budget.map(|b| Per::new(b.per, Budget::new(b.share, b.burst))),
            throttle: throttling.map(|t| Per::new(t.per, Throttle::new(t.k, t.window.0))),
            hedge_after: hedging.map_or(SimDuration::ZERO, |h| h.after.0),
            max_hedges: hedging.map_or(0, |h| h.max),
            streams,
        }
    }

    /// A request is made, whatever becomes of it.
    pub(crate) fn request(&mut self, tenant: TenantId) {
        if let Some(budget) = &mut self.budget {
            budget.of(tenant).request();
        }
    }

    /// Whether an attempt may be sent; counts it either way.
    pub(crate) fn sends(
        &mut self,
        now: SimTime,
        tenant: TenantId,
        call: RequestId,
        tries: &mut Tries,
    ) -> bool {
        let nth = tries.attempts;
        tries.attempts += 1;
        let Some(throttle) = &mut self.throttle else {
            return true;
        };
        let throttle = throttle.of(tenant);
        let chance = throttle.refusal(now);
        throttle.request(now);
        chance <= 0.0
            || self
                .streams
                .stream("clients.throttling", entity(call, nth))
                .f64()
                >= chance
    }

    /// An attempt was answered in time.
    pub(crate) fn accepted(&mut self, now: SimTime, tenant: TenantId) {
        if let Some(throttle) = &mut self.throttle {
            throttle.of(tenant).accepted(now);
        }
    }

    /// Whether and after which wait a call is tried again whose attempts have all failed, the last one
    /// for this reason; counts it if so.
    pub(crate) fn retry(
        &mut self,
        tenant: TenantId,
        call: RequestId,
        reason: Refusal,
        tries: &mut Tries,
    ) -> Option<SimDuration> {
        if tries.retries >= self.max_retries || !self.retried[reason as usize] {
            return None;
        }
        if let Some(budget) = &mut self.budget
            && !budget.of(tenant).take()
        {
            return None;
        }
        let draw = || {
            let entity = entity(call, tries.retries);
            self.streams.stream("clients.backoff", entity).f64()
        };
        let wait = self.backoff.wait(tries.retries, tries.waited, draw);
        tries.retries += 1;
        tries.waited = wait;
        Some(wait)
    }

    /// After which time a further attempt is made beside one just sent, if one may be.
    pub(crate) const fn next_hedge(&self, tries: &Tries) -> Option<SimDuration> {
        if tries.hedges < self.max_hedges {
            Some(self.hedge_after)
        } else {
            None
        }
    }

    /// Whether that attempt is made now that its time has come; counts it if so.
    pub(crate) fn hedge(&mut self, tenant: TenantId, tries: &mut Tries) -> bool {
        if tries.hedges >= self.max_hedges {
            return false;
        }
        if let Some(budget) = &mut self.budget
            && !budget.of(tenant).take()
        {
            return false;
        }
        tries.hedges += 1;
        true
    }
}

/// The stream of one draw.
fn entity(call: RequestId, nth: u32) -> u64 {
    u64::from(nth) << 32 | u64::from(call.0)
}
