//! One run: a scenario, its workload and a seed go in, a result comes out. Equal inputs give equal
//! results, bit by bit, whatever the options.

pub use crate::event::TieOrder;
pub use crate::fleet::machine::{Discrepancy, Machine};
pub use crate::laws::{Law, Violation};

use crate::world::World;
use windtunnel_base::ids::{ReplicaId, RequestId};
use windtunnel_base::time::SimTime;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{ContinuousSpec, EngineSpec};
use windtunnel_engine::engine::EngineStats;
use windtunnel_engine::execute::{ExecutionError, StepExecutor};
use windtunnel_engine::replica::{EngineConfigError, Replica};
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::Names;
use windtunnel_scenarios::schema::{FleetSpec, Scenario};
use windtunnel_scenarios::workload::Workload;

/// What to keep of a run, and how closely to watch it. Nothing here changes what happens, except
/// `ties`.
pub struct RunOptions<'a> {
    /// Check the laws of the simulation.
    pub laws: bool,
    /// Keep one row per request.
    pub keep_rows: bool,
    /// Keep every entry of this request, and its routing decision.
    pub watch: Option<RequestId>,
    /// Keep every routing decision with the policy's scores.
    pub record_decisions: bool,
    /// Samples of the system's state: at most so many, at least half of it in long runs; zero takes
    /// none. From 164 replicas on it is fewer, down to 128, so that states of replicas stay below 131,072.
    pub samples: usize,
    /// What goes first among things due at the same nanosecond.
    pub ties: TieOrder,
    /// Names of classes and tenants by id, if the workload knows more than the scenario (a trace
    /// with tenants of its own).
    pub names: Option<&'a Names>,
    /// Told now and then how far the run is.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
    /// Told of every step of every replica, in the order in which they end (equal ends by the
    /// order of events). [`run`] then takes steps one by one, so that each comes with its
    /// state after it; the result is the same.
    pub steps: Option<&'a mut dyn FnMut(&Step)>,
    /// Makes what computes the steps of a replica whose `engine.kind` is `reference`; asked once per
    /// such replica by [`run`], in order of their ids.
    pub executors: Option<&'a mut ExecutorFactory<'a>>,
    /// Told of each instant before anything happens in it, and returns when it is due. For runs in
    /// real time: what happens does not depend on how long that takes.
    pub pace: Option<&'a mut dyn FnMut(SimTime)>,
}

/// Makes what computes the steps of one replica, of which it is told the id, the engine and how many
/// blocks of memory it has.
pub type ExecutorFactory<'a> = dyn FnMut(ReplicaId, &ContinuousSpec, u64) -> Result<Box<dyn StepExecutor>, ExecutionError>
    + 'a;

/// One step of a replica, as it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Whose.
    pub replica: ReplicaId,
    /// When it began.
    pub from: SimTime,
    /// When it ended.
    pub to: SimTime,
    /// What it computed.
    pub shape: BatchShape,
    /// Whether the cost model was outside its calibrated range.
    pub extrapolated: bool,
    /// The replica right after it: who finished has left, nobody has joined yet. `None` for a
    /// step that was told together with later ones (fast-forward with replicas of one's own).
    pub after: Option<EngineStats>,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        Self {
            laws: true,
            keep_rows: true,
            watch: None,
            record_decisions: false,
            samples: 800,
            ties: TieOrder::default(),
            names: None,
            progress: None,
            steps: None,
            executors: None,
            pace: None,
        }
    }
}

impl std::fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunOptions")
            .field("laws", &self.laws)
            .field("keep_rows", &self.keep_rows)
            .field("watch", &self.watch)
            .field("record_decisions", &self.record_decisions)
            .field("samples", &self.samples)
            .field("ties", &self.ties)
            .finish_non_exhaustive()
    }
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Simulated time.
    pub now: SimTime,
    /// Requests sent so far.
    pub sent: u64,
    /// Of those, not yet ended.
    pub in_system: u64,
    /// Events handled so far.
    pub events: u64,
}

/// Why there is no result.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A law was broken: a bug of the simulator or of a policy.
    #[error(transparent)]
    Law(Box<Violation>),
    /// A replica cannot be built as the scenario says.
    #[error("`fleet.{table}.{}`: {}; {}", .error.field, .error.reason, .error.remedy)]
    Engine {
        /// Which table of `fleet`: `engine`, or `pools.N.engine`.
        table: String,
        /// What is wrong with it.
        error: EngineConfigError,
    },
    /// There is nobody to serve.
    #[error("the fleet has no replicas")]
    NoReplicas,
    /// What computes a replica's steps cannot be made as the scenario says.
    #[error("replica {} cannot compute: {error}", .replica.0)]
    Executor {
        /// Whose.
        replica: ReplicaId,
        /// Why.
        error: ExecutionError,
    },
    /// What computes a replica's steps failed in the middle of the run.
    #[error("replica {} failed at {at:?}: {error}", .replica.0)]
    Execution {
        /// Whose.
        replica: ReplicaId,
        /// When, in the run.
        at: SimTime,
        /// What it says.
        error: ExecutionError,
    },
}

impl From<Box<Violation>> for RunError {
    fn from(violation: Box<Violation>) -> Self {
        Self::Law(violation)
    }
}

/// Runs `workload` in the world of `scenario`, to its end.
///
/// # Errors
/// If a replica cannot be built as the scenario says, or a law is broken (with
/// [`RunOptions::laws`]; what a policy answers is always checked).
pub fn run(
    scenario: &Scenario,
    workload: &mut dyn Workload,
    seed: u64,
    mut options: RunOptions<'_>,
) -> Result<RunResult, RunError> {
    let mut replicas = if options.steps.is_some() {
        replicas(&step_by_step(&scenario.fleet))?
    } else {
        replicas(&scenario.fleet)?
    };
    equip(&scenario.fleet, &mut replicas, options.executors.take())?;
    run_on(scenario, replicas, workload, seed, options)
}

/// The engine of every replica of a fleet, by id.
fn engines(fleet: &FleetSpec) -> impl Iterator<Item = &EngineSpec> {
    let kinds = std::iter::once(&fleet.engine).chain(fleet.pools.iter().map(|p| &p.engine));
    kinds
        .zip(fleet.sizes())
        .flat_map(|(engine, (_, _, most))| std::iter::repeat_n(engine, most as usize))
}

/// Gives those replicas that compute what computes their steps.
fn equip(
    fleet: &FleetSpec,
    replicas: &mut [Replica],
    mut factory: Option<&mut ExecutorFactory<'_>>,
) -> Result<(), RunError> {
    for (id, (engine, replica)) in engines(fleet).zip(replicas).enumerate() {
        let EngineSpec::Reference(spec) = engine else {
            continue;
        };
        let id = ReplicaId::from(id);
        let made = match &mut factory {
            Some(factory) => {
                let blocks = replica.kv_layout().map_or(0, |kv| kv.total_blocks);
                factory(id, spec, blocks)
            }
            None => Err(ExecutionError(
                "`engine.kind` is \"reference\", and nothing that computes was brought along; set it to \"continuous\"".into(),
            )),
        };
        let executor = made.map_err(|error| RunError::Executor { replica: id, error })?;
        replica.execute_with(executor);
    }
    Ok(())
}

/// The same fleet without fast-forward.
fn step_by_step(fleet: &FleetSpec) -> FleetSpec {
    let mut fleet = fleet.clone();
    let pools = fleet.pools.iter_mut().map(|pool| &mut pool.engine);
    for engine in pools.chain([&mut fleet.engine]) {
        if let Some(spec) = engine.llm_mut() {
            spec.fast_forward = false;
        }
    }
    fleet
}

/// Builds the replicas that a fleet is made of, by id: first those of `engine`, then each pool's; of
/// a pool whose size follows its load, as many as there ever can be.
///
/// # Errors
/// If one cannot be built.
pub fn replicas(fleet: &FleetSpec) -> Result<Vec<Replica>, RunError> {
    let mut replicas = Vec::new();
    let mut build = |table: String, count: u32, spec: &EngineSpec| {
        let more = Replica::build_many(spec, count);
        replicas.extend(more.map_err(|error| RunError::Engine { table, error })?);
        Ok::<(), RunError>(())
    };
    let kinds = std::iter::once(&fleet.engine).chain(fleet.pools.iter().map(|p| &p.engine));
    for (i, (engine, (_, _, most))) in kinds.zip(fleet.sizes()).enumerate() {
        let table = match i {
            0 => "engine".to_owned(),
            i => format!("pools.{}.engine", i - 1),
        };
        build(table, most, engine)?;
    }
    Ok(replicas)
}

/// Runs `workload` on these replicas in the world of `scenario`, to its end; `scenario.fleet` is
/// asked for network and telemetry only. For engines of one's own; [`run`] builds the replicas
/// that the scenario names.
///
/// # Errors
/// If a law is broken (with [`RunOptions::laws`]; what a policy answers is always checked), or there
/// are no replicas.
pub fn run_on<M: Machine>(
    scenario: &Scenario,
    machines: Vec<M>,
    workload: &mut dyn Workload,
    seed: u64,
    mut options: RunOptions<'_>,
) -> Result<RunResult, RunError> {
    if machines.is_empty() {
        return Err(RunError::NoReplicas);
    }
    let own = Names::of(scenario);
    let names = options.names.unwrap_or(&own);
    let progress = options.progress.take();
    let steps = options.steps.take();
    let pace = options.pace.take();
    let log = steps.is_some();
    let world = World::new(scenario, names, machines, workload, seed, &options, log);
    world.run(names, seed, progress, steps, pace)
}
