//! How long a step takes, and what it draws. A cost model is a pure function of the step's
//! shape: an environment model, how the world *is*.

use crate::batch::BatchShape;
use windtunnel_base::time::SimDuration;

/// What a cost model says of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepCost {
    /// Duration; more than zero.
    pub time: SimDuration,
    /// Whether the shape lies outside the range the model was measured or fitted on.
    pub extrapolated: bool,
}

/// Says how long a step takes. A pure function, shared by all replicas of a kind.
pub trait CostModel {
    /// Duration of one step over `shape`; more than zero.
    fn step(&self, shape: &BatchShape) -> StepCost;

    /// Whether [`BatchShape::decode_context_max`] must be kept.
    fn needs_context_max(&self) -> bool {
        false
    }
}
