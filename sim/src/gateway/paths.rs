//! Which pool serves a request: the frontier, or the kernel of its class; what becomes of a kernel's
//! requests when it is evicted; and how much of them may reach the frontier.
//!
//! Jittered degradation: a request of kernel `k`, evicted at `t0`, goes to the frontier with
//! probability `p(t) = clamp((t - t0 - J_k) / D, 0, 1)`, so that the frontier's load rises by at most
//! `lam_k / D` per second. Leakage control: a token bucket of rate `max(0, u_max * C_f - lam_reserved)`
//! and a burst of some seconds of it.

use std::collections::VecDeque;
use windtunnel_base::ids::{ClassId, RequestId};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::gateway::PathTotals;
use windtunnel_scenarios::Names;
use windtunnel_scenarios::schema::FleetSpec;
use windtunnel_scenarios::schema::paths::{EvictionSpec, Instead, LeakageSpec, PathsSpec};

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// To a pool, by its number among [`Paths::pools`].
    Pool(u8),
    /// To the pool of a kernel that was evicted.
    Stale(u8),
    /// It is given an expired answer, or nothing yet as [`Self::Hold`] if there is none.
    StaleAnswer(SimTime),
    /// Nowhere yet: it is asked for again at this time, unless its client gives up.
    Hold(SimTime),
    /// It is turned away.
    Refuse,
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
    streams: Streams,
    totals: PathTotals,
}

#[derive(Clone, Debug)]
struct Kernel {
    name: String,
    pool: u8,
    /// When it was evicted, if it is.
    evicted: Option<SimTime>,
    /// Its own delay.
    delay: SimDuration,
}

impl Paths {
    /// The pools that a checked scenario names. The frontier has all replicas that no kernel and no
    /// small model has, unless it is named.
    pub fn new(spec: &PathsSpec, fleet: &FleetSpec, names: &Names, streams: Streams) -> Self {
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
                delay: SimDuration::ZERO,
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
            streams,
            totals: PathTotals::default(),
        }
    }

    /// Ids of each pool's replicas, by number; the first is the frontier.
    pub fn pools(&self) -> &[Vec<u32>] {
        &self.pools
    }

    /// What the choices came to.
    pub const fn totals(&self) -> PathTotals {
        self.totals
    }

    /// A kernel is evicted, or is back.
    pub fn evict(&mut self, kernel: &str, at: SimTime, evicted: bool) {
        let Some(index) = self.kernels.iter().position(|k| k.name == kernel) else {
            return;
        };
        let mut rng = self.streams.stream("eviction delay", index as u64);
        let kernel = &mut self.kernels[index];
        kernel.evicted = evicted.then_some(at);
        if let EvictionSpec::Jittered { jitter, .. } = self.eviction {
            let share = rng.f64();
            kernel.delay = SimDuration::from_secs_f64_saturating(jitter.0.as_secs_f64() * share);
        }
    }

    /// Where a request goes now. `again`: it was held back, and is counted already.
    pub fn choose(
        &mut self,
        request: RequestId,
        class: ClassId,
        now: SimTime,
        again: bool,
    ) -> Path {
        let kernel = self.by_class.get(class.index()).copied().flatten();
        let Some(kernel) = kernel.map(|k| &self.kernels[usize::from(k)]) else {
            if let Some(leakage) = &mut self.leakage {
                leakage.reserved(now);
            }
            self.totals.reserved += 1;
            return Path::Pool(0);
        };
        self.totals.eligible += u64::from(!again);
        let (pool, delay) = (kernel.pool, kernel.delay);
        let Some(since) = kernel.evicted else {
            self.totals.kernel += 1;
            return Path::Pool(pool);
        };
        if let EvictionSpec::Jittered {
            over, meanwhile, ..
        } = self.eviction
        {
            let rise = now.since(since).saturating_sub(delay).as_secs_f64();
            let p = (rise / over.0.as_secs_f64()).min(1.0);
            // The request's own luck: who is held back and asks again keeps it while `p` rises.
            let luck = self.luck(request).f64();
            if luck >= p {
                return self.instead(meanwhile, pool, now);
            }
        }
        if let Some(leakage) = &mut self.leakage
            && !leakage.take(now)
        {
            let (what, next) = (leakage.overflow(class), leakage.next(now));
            self.totals.overflow += u64::from(!again);
            return match what {
                Instead::Queue => Path::Hold(next),
                Instead::StaleAnswer => Path::StaleAnswer(next),
                what => self.instead(what, pool, now),
            };
        }
        self.totals.leaked += 1;
        Path::Pool(0)
    }

    /// Where a request goes for which nobody looked for a kernel: to the frontier.
    pub fn without_kernel(&mut self, class: ClassId, now: SimTime) -> Path {
        let eligible = self
            .by_class
            .get(class.index())
            .copied()
            .flatten()
            .is_some();
        if let (false, Some(leakage)) = (eligible, &mut self.leakage) {
            leakage.reserved(now);
        }
        self.totals.eligible += u64::from(eligible);
        self.totals.leaked += u64::from(eligible);
        self.totals.reserved += u64::from(!eligible);
        Path::Pool(0)
    }

    fn luck(&self, request: RequestId) -> Rng {
        self.streams.stream("eviction", u64::from(request.0))
    }

    /// A request is held back.
    pub fn held(&mut self) {
        self.totals.held += 1;
    }

    fn instead(&mut self, what: Instead, pool: u8, now: SimTime) -> Path {
        let later = now.saturating_add(SimDuration::from_secs(1));
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
            (Instead::Queue, _) => Path::Hold(later),
            (Instead::StaleAnswer, _) => Path::StaleAnswer(later),
            (Instead::Reject, _) => Path::Refuse,
        }
    }
}

/// The bucket at the frontier's door.
#[derive(Clone, Debug)]
struct Leakage {
    /// Requests per second that may be in use at the frontier.
    usable: f64,
    burst: f64,
    window: SimDuration,
    overflow: Vec<Instead>,
    /// When requests of others came, within the window.
    reserved: VecDeque<SimTime>,
    /// Requests that the bucket holds.
    level: f64,
    at: SimTime,
}

impl Leakage {
    fn new(spec: &LeakageSpec, names: &Names) -> Self {
        let of = |name: &String| spec.overflow_by_class.get(name).copied();
        let classes = names.classes.iter();
        let usable = spec.u_max * spec.capacity.0;
        let burst = spec.burst.0.as_secs_f64();
        Self {
            usable,
            burst,
            window: spec.window.0,
            overflow: classes
                .map(|(name, _)| of(name).unwrap_or(spec.overflow))
                .collect(),
            reserved: VecDeque::new(),
            level: usable * burst,
            at: SimTime::ZERO,
        }
    }

    fn overflow(&self, class: ClassId) -> Instead {
        self.overflow
            .get(class.index())
            .copied()
            .unwrap_or_default()
    }

    /// A request of somebody else goes to the frontier.
    fn reserved(&mut self, now: SimTime) {
        self.refill(now);
        self.reserved.push_back(now);
    }

    /// The bucket's rate: what the others leave of what is usable.
    fn rate(&self) -> f64 {
        let others = self.reserved.len() as f64 / self.window.as_secs_f64();
        (self.usable - others).max(0.0)
    }

    fn refill(&mut self, now: SimTime) {
        let rate = self.rate();
        let gained = rate * now.since(self.at).as_secs_f64();
        self.at = now;
        while self
            .reserved
            .front()
            .is_some_and(|&t| now.since(t) >= self.window)
        {
            self.reserved.pop_front();
        }
        // A bucket that cannot hold one request would never let one through.
        let full = (self.rate() * self.burst).max(1.0);
        self.level = (self.level + gained).min(full);
    }

    fn take(&mut self, now: SimTime) -> bool {
        self.refill(now);
        let holds = self.level >= 1.0;
        if holds {
            self.level -= 1.0;
        }
        holds
    }

    /// When the bucket may hold a request again: at the earliest a hundredth of a second from now, so
    /// that a queue of those who wait does not ask without end.
    fn next(&self, now: SimTime) -> SimTime {
        let rate = self.rate();
        let missing = (1.0 - self.level).max(0.0);
        let seconds = if rate > 0.0 { missing / rate } else { 1.0 };
        now.saturating_add(SimDuration::from_secs_f64_saturating(
            seconds.clamp(0.01, 1.0),
        ))
    }
}

#[cfg(test)]
mod tests;
