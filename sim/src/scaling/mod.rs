//! How many replicas of a pool there should be: a policy says how many are needed, rules hold it
//! back, and the pool says which replicas come and go. Knows no world and no events.

/// Kubernetes' arithmetic on a signal.
mod reactive;
/// Forecasts of arrivals.
mod forecast;
/// How fast the number changes.
mod rules;
/// Which replicas come and go.
mod pool;

pub(crate) use pool::{Change, Pool};

use forecast::Predictive;
use reactive::Reactive;
use rules::Rules;
use windtunnel_base::rng::Rng;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::scaling::Moments;
use windtunnel_scenarios::schema::scaling::{ScalingPolicySpec, ScalingSpec, ScheduledReplicas};

/// What is seen of a pool at a look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// When.
    pub(crate) now: SimTime,
    /// Requests that wait, at the gateway and at ready replicas.
    pub(crate) waiting: u64,
    /// Requests in running batches of ready replicas.
    pub(crate) running: u64,
    /// Requests sent to ready replicas and not yet answered, and those that wait at the gateway.
    pub(crate) concurrency: u64,
    /// Sum over ready replicas of the share of their KV memory that running requests hold.
    pub(crate) kv_shares: f64,
    /// Requests at each ready replica, running or waiting.
    pub(crate) loads: &'a [u32],
    /// Requests that have come so far and want a replica of the pool.
    pub(crate) arrivals: u64,
    /// Replicas that serve.
    pub(crate) ready: u32,
    /// Replicas that serve or will.
    pub(crate) ordered: u32,
}

/// Says how many replicas there should be.
#[derive(Debug)]
pub(crate) struct Scaler {
    policy: Policy,
    rules: Rules,
    limits: (u32, u32),
}

#[derive(Debug)]
enum Policy {
    Reactive(Reactive),
    Predictive(Predictive),
    Scheduled(Schedule),
}

impl Scaler {
    /// The scaler of a pool that starts with so many replicas; `rng` is its own.
    pub(crate) fn new(spec: &ScalingSpec, start: u32, rng: Rng) -> Self {
        let policy = match &spec.policy {
            ScalingPolicySpec::Reactive { signal, window } => {
                Policy::Reactive(Reactive::new(signal, window.0, spec.tolerance, rng))
            }
            ScalingPolicySpec::Predictive { .. } => Policy::Predictive(Predictive::new(spec)),
            ScalingPolicySpec::Scheduled { at, every } => Policy::Scheduled(Schedule {
                at: at.clone(),
                every: every.map(|span| span.0),
                start,
                lead: spec.provisioning.0,
            }),
        };
        Self {
            policy,
            rules: Rules::new(&spec.scale_up, &spec.scale_down, start),
            limits: (spec.min_replicas, spec.max_replicas),
        }
    }

    /// How many replicas there should be now, of those that serve or will.
    pub(crate) fn look(&mut self, seen: &Seen<'_>) -> u32 {
        let wanted = match &mut self.policy {
            Policy::Reactive(policy) => policy.wants(seen),
            Policy::Predictive(policy) => policy.wants(seen),
            Policy::Scheduled(schedule) => schedule.wants(seen.now),
        };
        let (least, most) = self.limits;
        let wanted = wanted.clamp(least, most);
        self.rules
            .hold_back(seen.now, seen.ordered, wanted)
            .clamp(least, most)
    }

    /// Whether it wants to know when first tokens come.
    pub(crate) const fn hears_first_tokens(&self) -> bool {
        match &self.policy {
            Policy::Reactive(policy) => policy.hears_first_tokens(),
            Policy::Predictive(_) | Policy::Scheduled(_) => false,
        }
    }

    /// A first token came to the gateway so long after its request.
    pub(crate) fn first_token(&mut self, now: SimTime, after: SimDuration) {
        if let Policy::Reactive(policy) = &mut self.policy {
            policy.first_token(now, after);
        }
    }

    /// How the signal went with the requests at replicas, where it is one of processors.
    pub(crate) fn moments(&self) -> Moments {
        match &self.policy {
            Policy::Reactive(policy) => policy.moments(),
            Policy::Predictive(_) | Policy::Scheduled(_) => Moments::default(),
        }
    }
}

/// A timetable, followed ahead of time.
#[derive(Debug)]
struct Schedule {
    at: Vec<ScheduledReplicas>,
    every: Option<SimDuration>,
    start: u32,
    lead: SimDuration,
}

impl Schedule {
    /// What is in the timetable for a time.
    fn at(&self, time: SimTime) -> u32 {
        let (ns, again) = match self.every {
            Some(every) => (
                time.as_nanos() % every.as_nanos(),
                time.as_nanos() >= every.as_nanos(),
            ),
            None => (time.as_nanos(), false),
        };
        let past = self.at.partition_point(|e| e.from.0.as_nanos() <= ns);
        let last = match past.checked_sub(1) {
            Some(last) => self.at.get(last),
            // Before the first time of a later round, the last of the round before still holds.
            None if again => self.at.last(),
            None => None,
        };
        last.map_or(self.start, |entry| entry.replicas)
    }

    /// What is needed when an order placed now is ready, and no fewer than now.
    fn wants(&self, now: SimTime) -> u32 {
        self.at(now).max(self.at(now.saturating_add(self.lead)))
    }
}

#[cfg(test)]
mod tests;
