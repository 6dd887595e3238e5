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
use windtunnel_scenarios::schema::clients::{ClientsSpec, CountedPer, MOST_LAYERS};

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
    /// Callers above one another, the lowest first.
    layers: u32,
    /// A budget for each of them, if they have any.
    budgets: Vec<Per<Budget>>,
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
    /// Retries of all callers together.
    pub(crate) retries: u32,
    pub(crate) hedges: u32,
    /// Of each caller since it was last asked, the lowest first.
    layers: [Retried; MOST_LAYERS as usize],
}

/// What one caller has done for what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Retried {
    times: u32,
    /// The wait before the last time.
    waited: SimDuration,
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
            layers: spec.retries.layers,
            budgets: budget.map_or(Vec::new(), |b| {
                let fresh = Per::new(b.per, Budget::new(b.share, b.burst));
                vec![fresh; spec.retries.layers as usize]
            }),
            throttle: throttling.map(|t| Per::new(t.per, Throttle::new(t.k, t.window.0))),
            hedge_after: hedging.map_or(SimDuration::ZERO, |h| h.after.0),
            max_hedges: hedging.map_or(0, |h| h.max),
            streams,
        }
    }

    /// A request is made, whatever becomes of it.
    pub(crate) fn request(&mut self, tenant: TenantId) {
        for budget in &mut self.budgets {
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
        if !self.retried[reason as usize] {
            return None;
        }
        // The lowest caller that has a try left makes it.
        let layer = (0..self.layers as usize).find(|&layer| {
            tries.layers[layer].times < self.max_retries && self.take(layer, tenant)
        })?;
        let retried = &mut tries.layers[layer];
        let entity = entity(call, tries.retries);
        let draw = || self.streams.stream("clients.backoff", entity).f64();
        let wait = self.backoff.wait(retried.times, retried.waited, draw);
        retried.times += 1;
        retried.waited = wait;
        tries.retries += 1;
        // For those below it this is a request like any other.
        tries.layers[..layer].fill(Retried::default());
        for budget in self.budgets.iter_mut().take(layer) {
            budget.of(tenant).request();
        }
        Some(wait)
    }

    /// Takes a retry out of a caller's budget; true if there was one, or it has none.
    fn take(&mut self, layer: usize, tenant: TenantId) -> bool {
        let budget = self.budgets.get_mut(layer);
        budget.is_none_or(|budget| budget.of(tenant).take())
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
        if tries.hedges >= self.max_hedges || !self.take(0, tenant) {
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
