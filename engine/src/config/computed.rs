//! A cascade of models whose steps are computed, as scenario files say it.

use super::CascadeLayers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;

/// Layers that leave out work of the reference engine (`kind = "reference"`): the model of `reference`
/// is the frontier, and every answer is what the layers really give. Needs `traffic.tasks`, so that answers
/// have ends and can be verified. All layers are off unless switched on; where all are off, or this table
/// is absent, steps are those of the engine without it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedCascade {
    /// Which layers act.
    pub layers: CascadeLayers,
    /// The model that answers for less, by name or folder, of the frontier's vocabulary. It has keys and
    /// values of its own, as many blocks as `kv` gives the frontier, and beside them.
    pub light: String,
    /// L0: turns of a conversation that change nothing are answered as before.
    pub skip: ComputedSkip,
    /// L1: sequences on one path share launches.
    pub spans: ComputedSpans,
    /// L2: tokens of little risk take the short path.
    pub route: ComputedRoute,
    /// L3: full blocks are stored in eight bits. What is kept for later prompts is for
    /// `kv.prefix_cache` and its eviction to say, so anchors keep their bits but not their place.
    pub evidence: ComputedEvidence,
    /// L4: a share of short answers is computed again, and thresholds follow what is found.
    pub shadow: ComputedShadow,
    /// L5: what the layers see is published, and thresholds follow that too.
    pub control: ComputedControl,
    /// Answers of each replica, drawn evenly over the run, that are held against the frontier in full once
    /// it is over: token agreement and divergence. They take no time of the run; 0 compares none.
    /// Divergence is left out where the distributions of so many answers would take more than 256 MiB.
    pub compared: u32,
}

impl Default for ComputedCascade {
    fn default() -> Self {
        Self {
            layers: CascadeLayers::default(),
            light: "pocket_light".into(),
            skip: ComputedSkip::default(),
            spans: ComputedSpans::default(),
            route: ComputedRoute::default(),
            evidence: ComputedEvidence::default(),
            shadow: ComputedShadow::default(),
            control: ComputedControl::default(),
            compared: 32,
        }
    }
}

/// Parameters of L0.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedSkip {
    /// Changes of a prompt below this are none, 0 to 2.
    pub threshold: f64,
    /// A prompt that contains one of these is always run.
    pub markers: Vec<String>,
}

impl Default for ComputedSkip {
    fn default() -> Self {
        Self {
            threshold: 0.12,
            markers: ["URGENT", "ERROR", "ALERT"].map(String::from).to_vec(),
        }
    }
}

/// Parameters of L1.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedSpans {
    /// Most sequences that share launches. The engine's batch shares them anyway, so L1 alone changes
    /// nothing if this is absent; 1 shows what that sharing is worth.
    pub max: Option<u32>,
}

/// Parameters of L2.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedRoute {
    /// The short path.
    pub short: ComputedShort,
    /// With `early_exit`: layers of the frontier that are run.
    pub exit_layers: u32,
    /// With `speculative`: most drafts per step. None goes beyond the block that is being filled.
    pub drafts: u32,
    /// Tokens of this risk or more go to the frontier, 0 to 1.
    pub threshold: f64,
    /// What is left of a risk one token later.
    pub gamma: f64,
    /// Critical tokens go to the frontier however sure the light model is.
    pub severity_override: bool,
}

impl Default for ComputedRoute {
    fn default() -> Self {
        Self {
            short: ComputedShort::default(),
            exit_layers: 2,
            drafts: 4,
            threshold: 0.5,
            gamma: 0.9,
            severity_override: true,
        }
    }
}

/// How a token is computed when its risk is small.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComputedShort {
    /// By the light model.
    #[default]
    SmallModel,
    /// By the first layers of the frontier.
    EarlyExit,
    /// By the light model as drafts that the frontier verifies: answers are the frontier's own.
    Speculative,
}

/// Parameters of L3. What is neither anchor nor INT8 is FP8.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedEvidence {
    /// Share of blocks kept in 16 bits: those with the most critical tokens.
    pub anchors: f64,
    /// Share of blocks in INT8.
    pub int8: f64,
}

impl Default for ComputedEvidence {
    fn default() -> Self {
        Self {
            anchors: 0.05,
            int8: 0.15,
        }
    }
}

/// Parameters of L4.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedShadow {
    /// Least share of short answers that is verified.
    pub q_min: f64,
    /// Share more per unit of risk.
    pub k: f64,
    /// False accepts to aim at, as a share.
    pub target: f64,
    /// How far one verification moves a threshold.
    pub eta: f64,
    /// Early exits are verified by the whole frontier instead of the light model.
    pub full: bool,
}

impl Default for ComputedShadow {
    fn default() -> Self {
        Self {
            q_min: 0.02,
            k: 0.5,
            target: 0.01,
            eta: 0.01,
            full: true,
        }
    }
}

/// Parameters of L5.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedControl {
    /// Time between publications.
    pub period: Span,
    /// Time until one is read.
    pub delay: Span,
    /// Share of publications that are lost.
    pub loss: f64,
    /// How strongly thresholds follow, 0 to 1.
    pub gain: f64,
}

impl Default for ComputedControl {
    fn default() -> Self {
        Self {
            period: Span(SimDuration::from_secs(1)),
            delay: Span::default(),
            loss: 0.0,
            gain: 1.0,
        }
    }
}
