//! Which pool serves a request: the frontier, or the kernel of its class; what becomes of a kernel's
//! requests when it is evicted; and how much of them may reach the frontier.
//!
//! Jittered degradation: a request of kernel `k`, evicted at `t0`, goes to the frontier with
//! probability `p(t) = clamp((t - t0 - J_k) / D, 0, 1)`, so that the frontier's load rises by at most
//! `lam_k / D` per second. Leakage control: a token bucket of rate `max(0, u_max * C_f - lam_reserved)`
//! and a burst of some seconds of it.
//!
//! Who is to wait is woken by what can let it go on: its kernel is back, its chance has risen enough
//! (which follows from the time of the eviction and its own luck), or the bucket holds a request (which
//! follows from those who came before). Nobody asks again in vain.

/// The bucket at the frontier's door.
mod leakage;
/// Who waits before their pool is chosen.
mod held;

pub use held::{Until, Waiter};

use held::Held;
use leakage::Leakage;
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::rng::Streams;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::gateway::PathTotals;
use windtunnel_scenarios::Names;
use windtunnel_scenarios::schema::FleetSpec;
use windtunnel_scenarios::schema::gateway::QueueOrder;
use windtunnel_scenarios::schema::paths::{Checked, EvictionSpec, Instead, OnReject, PathsSpec};

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// To a pool, by its number among [`Paths::pools`].
    Pool(u8),
    /// To the pool of a kernel that was evicted.
    Stale(u8),
    /// It is given an expired answer, or waits as with [`Self::Hold`] if there is none.
    StaleAnswer(Until),
    /// Nowhere yet.
    Hold(Until),
    /// It is turned away.
    Refuse,
}

/// How a request asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asks {
    /// For the first time.
    First,
    /// It waited, and something has changed.
    Again,
    /// It waited for room in the bucket, and it is its turn.
    InTurn,
}

/// The pools, and who goes where.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Ids of each pool's replicas; the first is the frontier.
    pools: Vec<Vec<u32>>,
    small: Option<u8>,
    kernels: Vec<Kernel>,
    /// The kernel of each class.
    by_class: Vec<Option<u8>>,
    eviction: EvictionSpec,
    leakage: Option<Leakage>,
    checked: Checked,
    on_reject: OnReject,
    held: Held,
    /// When the bucket holds a request for the first in line, at the earliest.
    room_at: Option<SimTime>,
    streams: Streams,
    totals: PathTotals,
}

#[derive(Clone, Debug)]
struct Kernel {
    name: String,
    pool: u8,
    /// When it was evicted, if it is.
    evicted: Option<SimTime>,
    /// For how many reasons.
    reasons: u32,
    /// One of them: it is suspected of having drifted.
    suspect: bool,
    /// Its own delay.
    delay: SimDuration,
    /// It is given this share of its class's requests; absent: all.
    offered: Option<f64>,
}

impl Paths {
    /// The pools that a checked scenario names. The frontier has all replicas that no kernel and no
    /// small model has, unless it is named. Who waits for room does so in this order, with these weights of
    /// tenants.
    pub fn new(
        spec: &PathsSpec,
        fleet: &FleetSpec,
        names: &Names,
        (order, weights): (QueueOrder, &[f64]),
        streams: Streams,
    ) -> Self {
        let ids = |name: &str| fleet.pool(name).map_or(Vec::new(), Iterator::collect);
        let others = || spec.kernels.iter().map(|k| &k.pool).chain(&spec.small);
        let frontier = match &spec.frontier {
            Some(name) => ids(name),
            None => {
                let taken: Vec<u32> = others().flat_map(|name| ids(name)).collect();
                let all = fleet.pools_by_id().flat_map(|(_, ids)| ids);
                all.filter(|id| !taken.contains(id)).collect()
            }
        };
        let mut pools = vec![frontier];
        let mut known: Vec<String> = vec![spec.frontier.clone().unwrap_or_default()];
        let mut number = |name: &str| -> u8 {
            let found = known.iter().position(|k| k == name);
            found.unwrap_or_else(|| {
                known.push(name.to_owned());
                pools.push(ids(name));
                known.len() - 1
            }) as u8
        };
        let mut kernels = Vec::new();
        let mut by_class = vec![None; names.classes.len()];
        for kernel in &spec.kernels {
            if let Some(class) = names.class(&kernel.class) {
                by_class[class.index()] = Some(kernels.len() as u8);
            }
            kernels.push(Kernel {
                name: kernel.name.clone(),
                pool: number(&kernel.pool),
                evicted: None,
                reasons: 0,
                suspect: false,
                delay: SimDuration::ZERO,
                offered: None,
            });
        }
        let small = spec.small.as_deref().map(number);
        let leakage = spec.leakage.as_ref().map(|s| Leakage::new(s, names));
        Self {
            pools,
            small,
            kernels,
            by_class,
            eviction: spec.eviction.clone(),
            leakage,
            checked: spec.checked,
            on_reject: spec.on_reject,
            held: Held::new(order, weights),
            room_at: None,
            streams,
            totals: PathTotals {
                fallbacks: (spec.on_reject == OnReject::Frontier).then_some(0),
                ..PathTotals::default()
            },
        }
    }

    /// Ids of each pool's replicas, by number; the first is the frontier.
    pub fn pools(&self) -> &[Vec<u32>] {
        &self.pools
    }

    /// Whether answers of a pool are delivered as they are, although there is a verifier.
    pub fn leaves_unchecked(&self, pool: u8) -> bool {
        pool == 0 && self.checked == Checked::Kernels
    }

    /// An answer of a pool was rejected. Says whether the frontier is asked in its place.
    pub fn falls_back(&mut self, pool: u8) -> bool {
        let falls = pool != 0 && self.on_reject == OnReject::Frontier;
        if let Some(fallbacks) = &mut self.totals.fallbacks {
            *fallbacks += u64::from(falls);
        }
        falls
    }

    /// What the choices came to.
    pub const fn totals(&self) -> PathTotals {
        self.totals
    }

    /// A kernel is evicted, or is back. Says who waited for it, in the order in which they came: all of them
    /// are to ask again.
    pub fn evict(&mut self, kernel: &str, at: SimTime, evicted: bool) -> Vec<RequestId> {
        match self.kernels.iter().position(|k| k.name == kernel) {
            Some(index) => self.take_away(index, at, evicted),
            None => Vec::new(),
        }
    }

    /// A kernel, by its number, is suspected of having drifted, or is so no more; then as [`Self::evict`].
    pub fn suspect(&mut self, kernel: u8, at: SimTime, suspect: bool) -> Vec<RequestId> {
        let index = usize::from(kernel);
        self.kernels[index].suspect = suspect;
        self.take_away(index, at, suspect)
    }

    /// One more reason why a kernel is not there, or one less.
    fn take_away(&mut self, index: usize, at: SimTime, evicted: bool) -> Vec<RequestId> {
        let kernel = &mut self.kernels[index];
        let before = kernel.reasons > 0;
        kernel.reasons = match evicted {
            true => kernel.reasons + 1,
            false => kernel.reasons.saturating_sub(1),
        };
        if before == (kernel.reasons > 0) {
            return Vec::new(); // for one more reason, or one less
        }
        kernel.evicted = evicted.then_some(at);
        let mut rng = self.streams.stream("eviction delay", index as u64);
        if let EvictionSpec::Jittered { jitter, .. } = self.eviction {
            let share = rng.f64();
            kernel.delay = SimDuration::from_secs_f64_saturating(jitter.0.as_secs_f64() * share);
        }
        let waited = self.held.take_all_of(index as u8);
        self.line_moved(at);
        waited
    }

    /// Where a request goes now.
    pub fn choose(&mut self, request: RequestId, class: ClassId, now: SimTime, asks: Asks) -> Path {
        let Some(index) = self.kernel_of(class) else {
            if let Some(leakage) = &mut self.leakage {
                leakage.reserved(now);
            }
            self.totals.reserved += 1;
            return Path::Pool(0);
        };
        self.totals.eligible += u64::from(asks == Asks::First);
        if !self.is_offered(index, request) {
            if let Some(leakage) = &mut self.leakage {
                leakage.reserved(now);
            }
            self.totals.kept += 1;
            return Path::Pool(0);
        }
        let kernel = &self.kernels[usize::from(index)];
        self.totals.quarantined += u64::from(asks == Asks::First && kernel.suspect);
        let pool = kernel.pool;
        let Some(since) = kernel.evicted else {
            self.totals.kernel += 1;
            return Path::Pool(pool);
        };
        if let EvictionSpec::Jittered {
            over, meanwhile, ..
        } = self.eviction
        {
            let risen = self.risen_at(request, since.saturating_add(kernel.delay), over.0);
            if now < risen {
                return self.instead(meanwhile, pool, Until::Then(risen));
            }
        }
        if let Some(leakage) = &mut self.leakage {
            // Who waits for room comes first.
            let may = asks == Asks::InTurn || self.held.line_is_empty();
            if !(may && leakage.take(now)) {
                let what = leakage.overflow(class);
                self.totals.overflow += 1;
                return self.instead(what, pool, Until::Room);
            }
        }
        self.totals.leaked += 1;
        Path::Pool(0)
    }

    /// A kernel is given a share of its class's requests from now on, or all of them. Who is in a smaller share
    /// is in a larger one.
    pub fn offer(&mut self, kernel: u8, share: Option<f64>) {
        self.kernels[usize::from(kernel)].offered = share;
    }

    fn is_offered(&self, kernel: u8, request: RequestId) -> bool {
        let Some(share) = self.kernels[usize::from(kernel)].offered else {
            return true;
        };
        let mut rng = self.streams.stream("rollout", u64::from(request.0));
        rng.f64() < share
    }

    /// When the chance of a request to go to the frontier, which rises evenly over that time, is more than its
    /// own luck. Who waits and asks again keeps it.
    fn risen_at(&self, request: RequestId, from: SimTime, over: SimDuration) -> SimTime {
        let mut rng = self.streams.stream("eviction", u64::from(request.0));
        let short_of = (rng.f64() * over.as_nanos() as f64) as u64;
        from.saturating_add(SimDuration::from_nanos(short_of.saturating_add(1)))
    }

    /// The kernel for a class, by its number, if there is one.
    pub fn kernel_of(&self, class: ClassId) -> Option<u8> {
        self.by_class.get(class.index()).copied().flatten()
    }

    /// The kernel that serves a class, by its number, if it has one in the pool of that number; `None` for those
    /// that are sent elsewhere.
    pub fn serving(&self, class: ClassId, pool: u8) -> Option<u8> {
        let kernel = self.kernel_of(class)?;
        (self.kernels[usize::from(kernel)].pool == pool).then_some(kernel)
    }

    /// The number of a kernel's pool.
    pub fn pool_of(&self, kernel: u8) -> u8 {
        self.kernels[usize::from(kernel)].pool
    }

    /// Whether a kernel is not there for those it should serve.
    pub fn is_evicted(&self, kernel: u8) -> bool {
        self.kernels[usize::from(kernel)].reasons > 0
    }

    /// Where a request goes for which nobody looked for a kernel: to the frontier.
    pub fn without_kernel(&mut self, class: ClassId, now: SimTime) -> Path {
        let eligible = self.kernel_of(class).is_some();
        if let (false, Some(leakage)) = (eligible, &mut self.leakage) {
            leakage.reserved(now);
        }
        self.totals.eligible += u64::from(eligible);
        self.totals.leaked += u64::from(eligible);
        self.totals.reserved += u64::from(!eligible);
        Path::Pool(0)
    }

    fn instead(&mut self, what: Instead, pool: u8, until: Until) -> Path {
        match (what, self.small) {
            (Instead::Small, Some(small)) => {
                self.totals.small += 1;
                Path::Pool(small)
            }
            (Instead::StaleKernel | Instead::Small, _) => {
                self.totals.kernel += 1;
                self.totals.stale_kernel += 1;
                Path::Stale(pool)
            }
            (Instead::Queue, _) => Path::Hold(until),
            (Instead::StaleAnswer, _) => Path::StaleAnswer(until),
            (Instead::Reject, _) => Path::Refuse,
        }
    }

    /// A request waits, as [`Self::choose`] said when it asked so; `takes_expired`: it would take an expired
    /// answer.
    pub fn hold(
        &mut self,
        who: Waiter,
        asked: Asks,
        until: Until,
        takes_expired: bool,
        now: SimTime,
    ) {
        self.totals.held += u64::from(asked == Asks::First);
        let kernel = self.kernel_of(who.class).unwrap_or_default();
        self.held.push(who, kernel, until, takes_expired);
        self.line_moved(now);
    }

    /// A request that waited leaves; `false` if it did not wait.
    pub fn leaves(&mut self, request: RequestId, now: SimTime) -> bool {
        let waited = self.held.remove(request);
        self.line_moved(now);
        waited
    }

    /// When the next of those who wait may go on, or a little earlier: others who come meanwhile make it later.
    pub fn next_due(&self) -> Option<SimTime> {
        let times = self.held.first_time().into_iter().chain(self.room_at);
        times.min()
    }

    /// Who may go on now, one at a time, and how it is to ask.
    pub fn due(&mut self, now: SimTime) -> Option<(RequestId, Asks)> {
        if let Some(request) = self.held.pop_timed(now) {
            return Some((request, Asks::Again));
        }
        if self.room_at.is_none_or(|at| at > now) {
            return None;
        }
        self.room_at = self.leakage.as_mut().map(|l| l.holds_at(now));
        if self.room_at.is_none_or(|at| at > now) {
            return None;
        }
        let first = self.held.pop_line();
        if self.held.line_is_empty() {
            self.room_at = None;
        }
        first.map(|request| (request, Asks::InTurn))
    }

    /// Those who wait and would take an expired answer, in the order in which they came.
    pub fn takers_of_expired(&self) -> Vec<RequestId> {
        self.held.takers_of_expired()
    }

    /// The frontier served a tenant so many tokens, which some orders count.
    pub fn served(&mut self, tenant: TenantId, prompt: u32, output: u32) {
        self.held.served(tenant, prompt, output);
    }

    /// The line for room may have become empty, or be so no more.
    fn line_moved(&mut self, now: SimTime) {
        if self.held.line_is_empty() {
            self.room_at = None;
        } else if self.room_at.is_none() {
            self.room_at = self.leakage.as_mut().map(|l| l.holds_at(now));
        }
    }
}

#[cfg(test)]
mod tests;
