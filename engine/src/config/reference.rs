//! The engine that computes: its model, weights, device and clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reference engine: which model it computes, where, and on which clock.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReferenceSpec {
    /// The model it computes: `pocket_frontier`, `pocket_light`, `tiny` (for tests), or a folder
    /// with `config.json` and safetensors; a relative path starts at the working folder. Lengths and
    /// memory per token are those of this model; GPU and `model` of the engine give price, power
    /// and the modelled time of steps.
    pub model: String,
    /// Where the weights of a model with a name come from.
    pub weights: WeightsSpec,
    /// Seed of random weights.
    pub seed: u64,
    /// Where it computes.
    pub device: DeviceSpec,
    /// What time a step takes.
    pub clock: ClockSpec,
    /// Sampling temperature; 0 takes the most likely token.
    pub temperature: f64,
    /// Sample from the most likely tokens that together have this probability.
    pub top_p: f64,
}

impl Default for ReferenceSpec {
    fn default() -> Self {
        Self {
            model: "pocket_frontier".into(),
            weights: WeightsSpec::default(),
            seed: 1,
            device: DeviceSpec::default(),
            clock: ClockSpec::default(),
            temperature: 0.0,
            top_p: 1.0,
        }
    }
}

/// Where the weights of a named model come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightsSpec {
    /// Trained ones, where the program has them; else random.
    #[default]
    Auto,
    /// Drawn from `seed`.
    Random,
}

/// Where the reference engine computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceSpec {
    /// A GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU.
    Cuda,
}

/// What time a computed step takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClockSpec {
    /// What was measured around it.
    #[default]
    Measured,
    /// What the cost model says: answers are real, and runs repeat byte for byte. What layers of a
    /// cascade save does not show.
    CostModel,
    /// What the work that was done would take on a small device: 4 us per launch, and then the longer
    /// of computing at 1 TFLOPS and moving bytes at 50 GB/s. Answers are real, runs repeat byte for
    /// byte, and what layers of a cascade save shows.
    CountedWork,
}
