//! What the fleet asks of a replica besides serving: its price, its power at rest, and an account of
//! its memory.

use windtunnel_base::units::NanoUsd;
use windtunnel_engine::engine::Engine;

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

    /// Counts its memory anew and compares: held, cached and free must make up the total.
    ///
    /// # Errors
    /// What was expected and what was found.
    fn audit(&self) -> Result<(), Discrepancy>;
}

/// What a count should have been, and what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discrepancy {
    /// What should be so.
    pub expected: String,
    /// What is so.
    pub found: String,
}
