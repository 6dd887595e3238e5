//! The contract of a replica.
//!
//! The caller owns time. It passes `now`, learns when the replica next has something to say
//! (`Engine::next_event`), and comes back then. Between two such instants the replica may run
//! many steps on its own (fast-forward); if the caller interferes earlier (`submit`, `cancel`),
//! the run is cut at the end of the step in progress, so that nothing differs from stepping one
//! by one. Reading `Engine::stats` never cuts a run.

use crate::batch::BatchShape;
use crate::execute::ExecutionError;
use crate::request::Submission;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, RequestId};
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::MicroJoules;

/// What a replica exports to telemetry, as of one instant. Changes take effect when a step ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineStats {
    /// Requests in the running batch.
    pub running: u32,
    /// Requests waiting inside the replica.
    pub waiting: u32,
    /// Prompt tokens waiting or not yet computed.
    pub pending_prompt_tokens: u64,
    /// KV blocks held by running requests.
    pub kv_held: u64,
    /// KV blocks holding reusable content that nobody runs on.
    pub kv_cached: u64,
    /// KV blocks in all; zero at a station.
    pub kv_total: u64,
}

/// How far into the steps in progress somebody has looked who reads a replica at several times in turn;
/// see [`Engine::stats_onward`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Onward {
    /// Steps that had begun at the last look.
    pub(crate) begun: usize,
    /// Blocks that those after the first of them took.
    pub(crate) growth: u64,
}

/// What leaves a replica at the end of the step in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaving {
    /// Running requests whose last token that step computes.
    pub requests: u32,
    /// KV blocks that those hold and nobody else does.
    pub kv_blocks: u64,
}

/// What happened to a request inside a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Admitted to the batch: prompt tokens found in the prefix cache.
    Started {
        /// Prompt tokens found in cache.
        cached_tokens: u32,
    },
    /// Its first output token came out.
    FirstToken,
    /// Thrown out of memory; will start again (recompute) or come back (swap).
    Preempted {
        /// Output tokens it had produced so far.
        generated: u32,
    },
    /// What came of it, as far as only computing it could show. Comes right before
    /// [`Self::Finished`], from engines that compute, for requests with a task, and from cascades
    /// for answers that a layer has spoiled.
    Answered {
        /// Output tokens.
        tokens: u32,
        /// Whether a verifier found the answer right.
        good: bool,
    },
    /// Its last token came out; it has left the replica.
    Finished,
    /// Cancelled by the caller; it has left the replica.
    Cancelled {
        /// Output tokens it had produced.
        generated: u32,
    },
}

/// One outcome. It happens at the `now` of the call that reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineOutcome {
    /// Whose.
    pub request: RequestId,
    /// What.
    pub outcome: Outcome,
}

/// A change of a replica's prefix cache, for routers that follow it. `chain` names a place in
/// the tree of prefixes; see [`crate::kv::chain`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheEvent {
    /// When it took effect.
    pub at: SimTime,
    /// Which stream at which place: made by [`crate::kv::chain`].
    pub chain: u64,
    /// How many tokens of that stream are resident here now; zero if none.
    pub tokens: u32,
}

/// Receives what an engine measures without a request to hang it on: gaps between tokens, and
/// the step's own figures. Implementations must not steer the run.
pub trait StepObserver {
    /// `count` requests of `class` each saw a gap of `gap` before the token at `at`.
    fn token_gap(&mut self, at: SimTime, class: ClassId, gap: SimDuration, count: u64);

    /// A step ran from `from` to `to`: its shape, its energy, and whether the cost model was
    /// outside its calibrated range.
    fn step(
        &mut self,
        from: SimTime,
        to: SimTime,
        shape: &BatchShape,
        energy: MicroJoules,
        extrapolated: bool,
    );
}

/// An observer that does not look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blind;

impl StepObserver for Blind {
    fn token_gap(&mut self, _: SimTime, _: ClassId, _: SimDuration, _: u64) {}
    fn step(&mut self, _: SimTime, _: SimTime, _: &BatchShape, _: MicroJoules, _: bool) {}
}

/// One replica.
pub trait Engine {
    /// Takes a request into the waiting queue. If the replica is idle, a step begins at `now`
    /// on the next call of [`Self::next_event`]; if a run of several steps is in progress that
    /// the newcomer could join, the run is cut at the end of the step in progress.
    ///
    /// A request that comes at the very instant a step ends does not join the step that begins
    /// then, unless that would be empty: whether the caller ends a step before or after telling
    /// of an arrival at the same time makes no difference.
    ///
    /// # Errors
    /// If it can never run here (`TooLong`) or the waiting queue is full (`QueueFull`).
    fn submit<O: StepObserver>(
        &mut self,
        now: SimTime,
        submission: &Submission<'_>,
        observer: &mut O,
    ) -> Result<(), Refusal>;

    /// Drops a request and frees what it holds: at once if waiting, else at the first end of a
    /// step after `now`. Either way a `Cancelled` outcome tells when: the next call of
    /// [`Self::next_event`], or of [`Self::advance`] then. Should its last token come out first, it
    /// finishes instead. `false` if it is not here (any more).
    fn cancel<O: StepObserver>(
        &mut self,
        now: SimTime,
        request: RequestId,
        observer: &mut O,
    ) -> bool;

    /// When the replica next has something to say, or `None` if it is idle. Starts the next step
    /// at `now` if none is in progress and there is work, and appends what that entails
    /// (`Started`, `Preempted`, `Cancelled`). Must be called after every `submit`, `cancel` and `advance`: the
    /// answer may have moved, earlier or later.
    fn next_event(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) -> Option<SimTime>;

    /// Ends the step or run of steps that ends at `now`, the time from [`Self::next_event`], and
    /// appends what happened at its end (`FirstToken`, `Finished`, `Cancelled`) in batch order.
    /// Does not start the next step.
    ///
    /// # Panics
    /// If nothing ends at `now`: the caller lost track, which no input can cause.
    fn advance<O: StepObserver>(
        &mut self,
        now: SimTime,
        outcomes: &mut Vec<EngineOutcome>,
        observer: &mut O,
    );

    /// What telemetry would read at `now`.
    fn stats(&self, now: SimTime) -> EngineStats;

    /// As [`Self::stats`], for one who reads it at times that do not go back, while nothing happens to
    /// the replica. `onward` is new at the first of them.
    fn stats_onward(&self, now: SimTime, onward: &mut Onward) -> EngineStats {
        let _ = onward;
        self.stats(now)
    }

    /// What is bound to leave at the end of the step that is in progress at `now`, having begun
    /// before: it is known from the step's beginning, because outputs end where the truth says.
    /// For systems that account for a step's results when it begins.
    fn leaving(&self, _now: SimTime) -> Leaving {
        Leaving::default()
    }

    /// Why it can compute no more, if so; it then says nothing any more. Only engines that
    /// compute can fail.
    fn failure(&self) -> Option<&ExecutionError> {
        None
    }

    /// Says that somebody will read the prefix cache between two events
    /// ([`Self::cached_prefix_tokens`]), so that it must be exact at every instant. Unwatched, a
    /// run of steps forgets what it evicts only when it ends, and so may be longer.
    /// [`Self::record_cache_events`] watches too.
    fn watch_cache(&mut self, on: bool);

    /// Prompt tokens of such a prefix that would be found in cache now, in whole blocks; zero
    /// where there is no prefix cache. Exact only while the cache is watched
    /// ([`Self::watch_cache`]).
    fn cached_prefix_tokens(&self, prefix: &[Extent], prompt_tokens: u32) -> u32;

    /// Records changes of the prefix cache from now on, for [`Self::take_cache_events`].
    fn record_cache_events(&mut self, on: bool);

    /// Moves the recorded changes to `events`, in order.
    fn take_cache_events(&mut self, events: &mut Vec<CacheEvent>);
}
