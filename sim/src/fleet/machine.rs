//! What the fleet asks of a replica besides serving: its price, its power at rest, and an account of
//! its memory.

use windtunnel_base::ids::RequestId;
use windtunnel_base::time::SimTime;
use windtunnel_base::units::{MicroJoules, NanoUsd};
use windtunnel_engine::config::FrontendSpec;
use windtunnel_engine::engine::Engine;
use windtunnel_engine::execute::{Executed, ExecutionError};
use windtunnel_engine::refill::{Refill, RefillRules};
use windtunnel_engine::replica::Replica;

/// An engine that somebody owns: what a run needs to know of a replica besides serving.
pub trait Machine: Engine {
    /// Price of an hour, in nano-dollars, used or not.
    fn hourly_price(&self) -> NanoUsd;

    /// Power while no step runs, in microwatts.
    fn idle_microwatts(&self) -> u64;

    /// Whether it is a plain service station, without prompts and tokens.
    fn is_station(&self) -> bool;

    /// Tokens per block of its prefix cache; 16 where there is none.
    fn block_tokens(&self) -> u32;

    /// Time on its way in and out that holds up no step.
    fn frontend(&self) -> FrontendSpec {
        FrontendSpec::default()
    }

    /// It stands still from `now` to `until`: nothing begins or ends, work in progress is frozen and goes on
    /// afterwards. See [`Replica::stall`].
    fn stall(&mut self, now: SimTime, until: SimTime);

    /// From `now` on everything takes `factor` times as long; 1 is full speed. See
    /// [`Replica::set_speed`].
    fn set_speed(&mut self, now: SimTime, factor: f64);

    /// Forgets everything that it has cached and nobody uses.
    fn forget_cache(&mut self) {}

    /// Lets it fetch prompts from a cache shared with others. See [`Replica::share_cache`].
    fn share_cache(&mut self, _rules: RefillRules) {}

    /// Says how many tokens of the prompt of a request that it has just taken the shared cache has, and
    /// whether they may be fetched ahead. See [`Replica::offer`].
    fn offer_shared(&mut self, _now: SimTime, _request: RequestId, _tokens: u32, _ahead: bool) {}

    /// Moves what was fetched for requests admitted since the last call to `refills`.
    fn take_refills(&mut self, _refills: &mut Vec<Refill>) {}

    /// Tokens fetched from a shared cache so far.
    fn fetched_tokens(&self) -> u64 {
        0
    }

    /// The run is over; see [`Replica::close`].
    ///
    /// # Errors
    /// If what was put off until then fails.
    fn close(&mut self) -> Result<(), ExecutionError> {
        Ok(())
    }

    /// What was computed for it so far; none where nothing computes.
    fn executed(&self) -> Option<Executed> {
        None
    }

    /// Checks that held, cached and free memory make up the total. Cheap, unless `thorough`: then it
    /// counts everything anew.
    ///
    /// # Errors
    /// What was expected and what was found.
    fn check_memory(&self, thorough: bool) -> Result<(), Discrepancy>;
}

impl Machine for Replica {
    fn hourly_price(&self) -> NanoUsd {
        self.price().0
    }

    fn idle_microwatts(&self) -> u64 {
        MicroJoules::from_f64(self.idle_power_watts() * 1e6).0
    }

    fn is_station(&self) -> bool {
        Self::is_station(self)
    }

    fn block_tokens(&self) -> u32 {
        self.kv_layout().map_or(16, |layout| layout.block_size)
    }

    fn frontend(&self) -> FrontendSpec {
        self.facts().frontend
    }

    fn stall(&mut self, now: SimTime, until: SimTime) {
        Self::stall(self, now, until);
    }

    fn set_speed(&mut self, now: SimTime, factor: f64) {
        Self::set_speed(self, now, factor);
    }

    fn forget_cache(&mut self) {
        Self::forget_cache(self);
    }

    fn share_cache(&mut self, rules: RefillRules) {
        Self::share_cache(self, rules);
    }

    fn offer_shared(&mut self, now: SimTime, request: RequestId, tokens: u32, ahead: bool) {
        self.offer(now, request, tokens, ahead);
    }

    fn take_refills(&mut self, refills: &mut Vec<Refill>) {
        Self::take_refills(self, refills);
    }

    fn fetched_tokens(&self) -> u64 {
        Self::fetched_tokens(self)
    }

    fn close(&mut self) -> Result<(), ExecutionError> {
        Self::close(self)
    }

    fn executed(&self) -> Option<Executed> {
        Self::executed(self)
    }

    fn check_memory(&self, thorough: bool) -> Result<(), Discrepancy> {
        Self::check_memory(self, thorough).map_err(|imbalance| Discrepancy {
            expected: "every block of memory accounted for once".into(),
            found: imbalance.to_string(),
        })
    }
}

/// What a count should have been, and what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discrepancy {
    /// What should be so.
    pub expected: String,
    /// What is so.
    pub found: String,
}
