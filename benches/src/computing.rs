//! Runs whose steps are computed: engines of kind `reference` get the sizes of the model they compute,
//! and an executor each.

use std::sync::Arc;
use std::time::Duration;
use windtunnel_base::ids::ReplicaId;
use windtunnel_engine::config::{ClockSpec, ContinuousSpec, EngineSpec, ReferenceSpec};
use windtunnel_engine::execute::{ExecutionError, StepExecutor};
use windtunnel_reference::calibrate::Measured;
use windtunnel_reference::error::ReferenceError;
use windtunnel_reference::runtime::build::{Model, executor, fit, light, measure_steps};
use windtunnel_reference::runtime::clock::Epoch;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_sim::run::RunError;

/// A scenario with engines that compute, and the models they compute.
#[derive(Clone, Debug)]
pub struct Computing {
    /// The scenario with the sizes of its models.
    pub scenario: Arc<Scenario>,
    models: Vec<Model>,
}

fn engines(scenario: &Scenario) -> impl Iterator<Item = &EngineSpec> {
    let pools = scenario.fleet.pools.iter().map(|p| &p.engine);
    std::iter::once(&scenario.fleet.engine).chain(pools)
}

/// Whether some engine of a scenario computes.
pub fn computes(scenario: &Scenario) -> bool {
    engines(scenario).any(|e| matches!(e, EngineSpec::Reference(_)))
}

/// Whether what a run shows depends on how fast this machine computes.
pub fn measures(scenario: &Scenario) -> bool {
    engines(scenario).any(|engine| match engine {
        EngineSpec::Reference(spec) => {
            spec.reference.clone().unwrap_or_default().clock == ClockSpec::Measured
        }
        _ => false,
    })
}

impl Computing {
    /// Reads the models that a scenario computes; none if it computes nothing.
    ///
    /// # Errors
    /// If a model is missing or wrong.
    pub fn of(scenario: &Scenario) -> Result<Option<Self>, RunError> {
        if !computes(scenario) {
            return Ok(None);
        }
        let failed = |error: ReferenceError| RunError::Executor {
            replica: ReplicaId(0),
            error: ExecutionError(error.to_string()),
        };
        let mut scenario = scenario.clone();
        let mut models: Vec<Model> = Vec::new();
        let fleet = &mut scenario.fleet;
        let pools = fleet.pools.iter_mut().map(|p| &mut p.engine);
        for engine in std::iter::once(&mut fleet.engine).chain(pools) {
            let EngineSpec::Reference(spec) = engine else {
                continue;
            };
            fit(spec).map_err(failed)?;
            let reference = spec.reference.clone().unwrap_or_default();
            for named in std::iter::once(reference).chain(light(spec)) {
                if !models.iter().any(|m| m.is(&named)) {
                    models.push(Model::of(&named).map_err(failed)?);
                }
            }
        }
        Ok(Some(Self {
            scenario: Arc::new(scenario),
            models,
        }))
    }

    /// What computes the steps of one replica. `epoch` is the clock of a run in real time.
    ///
    /// # Errors
    /// If the device is not there, or has not the memory.
    pub fn executor(
        &self,
        spec: &ContinuousSpec,
        blocks: u64,
        seed: u64,
        epoch: Option<&Epoch>,
    ) -> Result<Box<dyn StepExecutor>, ExecutionError> {
        let light = match light(spec) {
            Some(named) => Some(self.named(&named)?),
            None => None,
        };
        let made = executor(spec, (self.model(spec)?, light), blocks, seed, epoch);
        made.map_err(|error| ExecutionError(error.to_string()))
    }

    /// Measures for about `budget` how long the steps of an engine take.
    ///
    /// # Errors
    /// If the device is not there, fails, or has not the memory.
    pub fn measure(
        &self,
        spec: &ContinuousSpec,
        budget: Duration,
        seed: u64,
    ) -> Result<Measured, ExecutionError> {
        let measured = measure_steps(spec, self.model(spec)?, budget, seed);
        measured.map_err(|error| ExecutionError(error.to_string()))
    }

    fn model(&self, spec: &ContinuousSpec) -> Result<&Model, ExecutionError> {
        self.named(&spec.reference.clone().unwrap_or_default())
    }

    fn named(&self, reference: &ReferenceSpec) -> Result<&Model, ExecutionError> {
        let model = self.models.iter().find(|m| m.is(reference));
        model.ok_or_else(|| ExecutionError("its model was not read".into()))
    }
}
