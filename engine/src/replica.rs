//! A replica of either kind, built from what a scenario says.

/// Checks of specifications, and what follows from the catalogue.
mod build;
/// GPU and model of a replica.
mod runs_on;
/// Cost models made of files.
mod tables;
/// Replicas that stand still, or are slow.
mod warped;

use crate::config::{EngineSpec, FrontendSpec, StationSpec};
use crate::continuous::ContinuousBatching;
use crate::engine::{
    CacheEvent, Engine, EngineOutcome, EngineStats, Leaving, Onward, StepObserver,
};
use crate::execute::{Executed, ExecutionError, StepExecutor};
use crate::kv::{Imbalance, KvLayout};
use crate::refill::{Refill, RefillRules};
use crate::request::Submission;
use crate::station::Station;
use warped::{Inner, Warped};
use windtunnel_base::content::Extent;
use windtunnel_base::ids::RequestId;
use windtunnel_base::quantity::HourlyPrice;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;

/// Why a replica cannot be built. `field` is the path within the engine's table of the scenario.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{field}`: {reason}; {remedy}")]
pub struct EngineConfigError {
    /// Path of the field, such as `kv.blocks`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// What a replica is, whatever it does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ReplicaFacts {
    /// Price of an hour, all GPUs together.
    pub price: HourlyPrice,
    /// Watts while nothing runs, all GPUs together.
    pub idle_watts: f64,
    /// GPUs; none at a station.
    pub gpus: u32,
    /// Paged memory; none at a station.
    pub kv: Option<KvLayout>,
    /// Longest prompt plus output; no limit at a station.
    pub max_tokens_per_request: Option<u32>,
    /// Time on the way in and out; none at a station.
    pub frontend: FrontendSpec,
}

/// One replica.
#[derive(Debug)]
pub enum Replica {
    /// An LLM engine.
    Continuous(Box<ContinuousBatching>),
    /// A plain service station.
    Station(Box<Station>),
    /// Either of them, having stood still or been slow.
    Warped(Box<Warped>),
}

impl Replica {
    /// Builds a replica.
    ///
    /// # Errors
    /// Which field asks for something impossible, why, and what to do.
    pub fn build(spec: &EngineSpec) -> Result<Self, EngineConfigError> {
        Self::build_many(spec, 1).map(|mut one| one.swap_remove(0))
    }

    /// Builds `count` replicas of a kind; what they have in common is made once.
    ///
    /// # Errors
    /// Which field asks for something impossible, why, and what to do.
    pub fn build_many(spec: &EngineSpec, count: u32) -> Result<Vec<Self>, EngineConfigError> {
        match spec {
            EngineSpec::Continuous(llm) | EngineSpec::Reference(llm) => {
                if matches!(spec, EngineSpec::Reference(_)) {
                    build::check_reference(llm)?;
                }
                let engines = build::continuous(llm, count)?;
                let boxed = engines.into_iter().map(Box::new);
                Ok(boxed.map(Self::Continuous).collect())
            }
            EngineSpec::Station(spec) if spec.servers == 0 => Err(build::error(
                "servers",
                "a station needs a server",
                "set it to 1 or more",
            )),
            EngineSpec::Station(spec) => Ok((0..count)
                .map(|_| Self::Station(Box::new(Station::new(spec))))
                .collect()),
        }
    }

    /// What it is, whatever it does.
    pub fn facts(&self) -> &ReplicaFacts {
        match self {
            Self::Continuous(engine) => engine.facts(),
            Self::Station(station) => station.facts(),
            Self::Warped(warped) => match warped.inner() {
                Inner::Continuous(engine) => engine.facts(),
                Inner::Station(station) => station.facts(),
            },
        }
    }

    /// Lets an executor compute the steps from now on, if it is an LLM engine to which nothing was
    /// submitted yet. Memory must recompute what it throws out.
    pub fn execute_with(&mut self, executor: Box<dyn StepExecutor>) {
        match self {
            Self::Continuous(engine) => engine.execute_with(executor),
            Self::Station(_) => {}
            Self::Warped(warped) => {
                if let Inner::Continuous(engine) = warped.inner_mut() {
                    engine.execute_with(executor);
                }
            }
        }
    }

    /// Tells whoever computes its steps that the run is over.
    ///
    /// # Errors
    /// If what was put off until then fails.
    pub fn close(&mut self) -> Result<(), ExecutionError> {
        match self {
            Self::Continuous(engine) => engine.close(),
            Self::Station(_) => Ok(()),
            Self::Warped(warped) => match warped.inner_mut() {
                Inner::Continuous(engine) => engine.close(),
                Inner::Station(_) => Ok(()),
            },
        }
    }

    /// What was computed for it so far; none where nothing computes.
    pub fn executed(&self) -> Option<Executed> {
        match self {
            Self::Continuous(engine) => engine.executed(),
            Self::Station(_) => None,
            Self::Warped(warped) => match warped.inner() {
                Inner::Continuous(engine) => engine.executed(),
                Inner::Station(_) => None,
            },
        }
    }

    /// Whether it is a plain service station.
    pub fn is_station(&self) -> bool {
        match self {
            Self::Continuous(_) => false,
            Self::Station(_) => true,
            Self::Warped(warped) => matches!(warped.inner(), Inner::Station(_)),
        }
    }

    /// It stands still from `now` to `until`: no step begins or ends. Work in progress is frozen and goes on
    /// afterwards, nothing is lost, and requests are still taken into the queue, cancelled there and
    /// refused where it is full. While it stands still, standing still for longer adds to that, and for
    /// less changes nothing. Energy of a step is what it would have been without. Whoever ends steps must
    /// ask [`Engine::next_event`] again.
    pub fn stall(&mut self, now: SimTime, until: SimTime) {
        self.warped().stall(now, until);
    }

    /// From `now` on, steps and services, also what is left of those in progress, take `factor` times as
    /// long as they would; a factor below 1, or that is no number, counts as 1, which is full speed again.
    /// Energy of a step stays what it would have been. Whoever ends steps must ask
    /// [`Engine::next_event`] again.
    pub fn set_speed(&mut self, now: SimTime, factor: f64) {
        self.warped().set_speed(now, factor);
    }

    /// Itself on a time of its own.
    fn warped(&mut self) -> &mut Warped {
        let nothing = || Self::Station(Box::new(Station::new(&StationSpec::default())));
        *self = match std::mem::replace(self, nothing()) {
            Self::Continuous(engine) => {
                Self::Warped(Box::new(Warped::new(Inner::Continuous(engine))))
            }
            Self::Station(station) => Self::Warped(Box::new(Warped::new(Inner::Station(station)))),
            warped @ Self::Warped(_) => warped,
        };
        match self {
            Self::Warped(warped) => warped,
            Self::Continuous(_) | Self::Station(_) => unreachable!("it was warped just now"),
        }
    }

    /// Checks that every KV block is accounted for once, at no cost; `thorough` counts everything
    /// again, which is slow.
    ///
    /// # Errors
    /// If not: a bug.
    pub fn check_memory(&self, thorough: bool) -> Result<(), Imbalance> {
        match self {
            Self::Continuous(engine) => engine.check_memory(thorough),
            Self::Station(_) => Ok(()),
            Self::Warped(warped) => match warped.inner() {
                Inner::Continuous(engine) => engine.check_memory(thorough),
                Inner::Station(_) => Ok(()),
            },
        }
    }

    /// Forgets all prompts that are cached and no request holds.
    pub fn forget_cache(&mut self) {
        match self {
            Self::Continuous(engine) => engine.forget_cache(),
            Self::Station(_) => {}
            Self::Warped(warped) => {
                if let Inner::Continuous(engine) = warped.inner_mut() {
                    engine.forget_cache();
                }
            }
        }
    }

    /// The LLM engine, on whatever time it lives; none at a station.
    fn llm_mut(&mut self) -> Option<&mut ContinuousBatching> {
        match self {
            Self::Continuous(engine) => Some(engine),
            Self::Station(_) => None,
            Self::Warped(warped) => match warped.inner_mut() {
                Inner::Continuous(engine) => Some(engine),
                Inner::Station(_) => None,
            },
        }
    }

    /// Lets it fetch prompts from a cache shared with others, if it is an LLM engine to which nothing was
    /// submitted yet.
    pub fn share_cache(&mut self, rules: RefillRules) {
        if let Some(engine) = self.llm_mut() {
            engine.share_cache(rules);
        }
    }

    /// Says how many tokens of the prompt of a request that was submitted at this very instant the shared
    /// cache has. `ahead`: they may be fetched at once; else only when the request comes up.
    pub fn offer(&mut self, now: SimTime, request: RequestId, tokens: u32, ahead: bool) {
        let now = match self {
            Self::Warped(warped) => warped.inside(now),
            _ => now,
        };
        if let Some(engine) = self.llm_mut() {
            engine.offer(now, request, tokens, ahead);
        }
    }

    /// Moves what was fetched for requests admitted since the last call to `refills`. Spans are on the
    /// replica's own time, which differs while it is slow or stands still.
    pub fn take_refills(&mut self, refills: &mut Vec<Refill>) {
        if let Some(engine) = self.llm_mut() {
            engine.take_refills(refills);
        }
    }

    /// Tokens fetched from a shared cache so far, for nothing or not.
    pub fn fetched_tokens(&self) -> u64 {
        match self {
            Self::Continuous(engine) => engine.fetched_tokens(),
            Self::Station(_) => 0,
            Self::Warped(warped) => match warped.inner() {
                Inner::Continuous(engine) => engine.fetched_tokens(),
                Inner::Station(_) => 0,
            },
        }
    }

    /// Price of an hour, all GPUs together.
    pub fn price(&self) -> HourlyPrice {
        self.facts().price
    }

    /// Watts while nothing runs, all GPUs together.
    pub fn idle_power_watts(&self) -> f64 {
        self.facts().idle_watts
    }

    /// GPUs; none at a station.
    pub fn gpus(&self) -> u32 {
        self.facts().gpus
    }

    /// Paged memory; none at a station.
    pub fn kv_layout(&self) -> Option<&KvLayout> {
        self.facts().kv.as_ref()
    }

    /// Longest prompt plus output; no limit at a station.
    pub fn max_tokens_per_request(&self) -> Option<u32> {
        self.facts().max_tokens_per_request
    }
}

impl Engine for Replica {
    #[inline]
    fn submit<O: StepObserver>(
        &mut self,
        now: SimTime,
        submission: &Submission<'_>,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        match self {
            Self::Continuous(engine) => engine.submit(now, submission, observer),
            Self::Station(station) => station.submit(now, submission, observer),
            Self::Warped(warped) => warped.submit(now, submission, observer),
        }
    }

    #[inline]
    fn cancel<O: StepObserver>(
        &mut self,
        now: SimTime,
        request: RequestId,
        observer: &mut O,
    ) -> bool {
        match self {
            Self::Continuous(engine) => engine.cancel(now, request, observer),
            Self::Station(station) => station.cancel(now, request, observer),
            Self::Warped(warped) => warped.cancel(now, request, observer),
        }
    }

    #[inline]
    fn next_event(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) -> Option<SimTime> {
        match self {
            Self::Continuous(engine) => engine.next_event(now, outcomes),
            Self::Station(station) => station.next_event(now, outcomes),
            Self::Warped(warped) => warped.next_event(now, outcomes),
        }
    }

    #[inline]
    fn advance<O: StepObserver>(
        &mut self,
        now: SimTime,
        outcomes: &mut Vec<EngineOutcome>,
        observer: &mut O,
    ) {
        match self {
            Self::Continuous(engine) => engine.advance(now, outcomes, observer),
            Self::Station(station) => station.advance(now, outcomes, observer),
            Self::Warped(warped) => warped.advance(now, outcomes, observer),
        }
    }

    #[inline]
    fn stats(&self, now: SimTime) -> EngineStats {
        match self {
            Self::Continuous(engine) => engine.stats(now),
            Self::Station(station) => station.stats(now),
            Self::Warped(warped) => warped.stats(now),
        }
    }

    #[inline]
    fn stats_onward(&self, now: SimTime, onward: &mut Onward) -> EngineStats {
        match self {
            Self::Continuous(engine) => engine.stats_onward(now, onward),
            Self::Station(station) => station.stats(now),
            Self::Warped(warped) => warped.stats_onward(now, onward),
        }
    }

    fn leaving(&self, now: SimTime) -> Leaving {
        match self {
            Self::Continuous(engine) => engine.leaving(now),
            Self::Station(station) => station.leaving(now),
            Self::Warped(warped) => warped.leaving(now),
        }
    }

    fn failure(&self) -> Option<&ExecutionError> {
        match self {
            Self::Continuous(engine) => engine.failure(),
            Self::Station(_) => None,
            Self::Warped(warped) => match warped.inner() {
                Inner::Continuous(engine) => engine.failure(),
                Inner::Station(_) => None,
            },
        }
    }

    fn watch_cache(&mut self, on: bool) {
        match self {
            Self::Continuous(engine) => engine.watch_cache(on),
            Self::Station(station) => station.watch_cache(on),
            Self::Warped(warped) => warped.watch_cache(on),
        }
    }

    fn cached_prefix_tokens(&self, prefix: &[Extent], prompt_tokens: u32) -> u32 {
        match self {
            Self::Continuous(engine) => engine.cached_prefix_tokens(prefix, prompt_tokens),
            Self::Station(station) => station.cached_prefix_tokens(prefix, prompt_tokens),
            Self::Warped(warped) => warped.cached_prefix_tokens(prefix, prompt_tokens),
        }
    }

    fn record_cache_events(&mut self, on: bool) {
        match self {
            Self::Continuous(engine) => engine.record_cache_events(on),
            Self::Station(station) => station.record_cache_events(on),
            Self::Warped(warped) => warped.record_cache_events(on),
        }
    }

    fn take_cache_events(&mut self, events: &mut Vec<CacheEvent>) {
        match self {
            Self::Continuous(engine) => engine.take_cache_events(events),
            Self::Station(station) => station.take_cache_events(events),
            Self::Warped(warped) => warped.take_cache_events(events),
        }
    }
}
