//! A cascade of models behind a station, as scenario files say it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Bandwidth, Bytes, Compute, Span};

/// A cascade serves at the station: every request is a turn of a session, and its time of service is what
/// the session cost model says.
///
/// ```text
/// turn  = [L0: skip.cost] + prefill(prompt - hit) + sum over tokens of step, all that L4 verifies besides
/// step  = launch (L1) + max(compute (L2), bytes (L3) / bandwidth)
/// ```
///
/// Layers are what an operator switches; `world` says how the traffic is. All layers are off unless
/// switched on.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeSpec {
    /// A calibration (`windtunnel calibrate`) that gives the device and its models, what L0 costs and how it
    /// decides, and how many sequences share a step; a relative path starts at the scenario file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Digest of that file. Written when a scenario is loaded; where it is given, other contents are
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Which layers act.
    pub layers: CascadeLayers,
    /// The device, and the models on it.
    pub device: CascadeDevice,
    /// How sessions are: hidden from all layers.
    pub world: CascadeWorld,
    /// L0: turns that change nothing are skipped.
    pub skip: CascadeSkip,
    /// L1: coherent spans share launches.
    pub spans: CascadeSpans,
    /// L2: tokens of little risk go to the light model.
    pub route: CascadeRoute,
    /// L3: small formats for keys and values, and contexts kept between turns.
    pub evidence: CascadeEvidence,
    /// L4: a share of short answers is verified, and the threshold of L2 follows.
    pub shadow: CascadeShadow,
    /// L5: what is found is published, and the threshold of L2 follows that too.
    pub control: CascadeControl,
}

/// Which layers act.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeLayers {
    /// Turn skipping.
    pub l0: bool,
    /// Span-coherent launches.
    pub l1: bool,
    /// Token routing.
    pub l2: bool,
    /// Evidence KV.
    pub l3: bool,
    /// Shadow verification.
    pub l4: bool,
    /// Control plane.
    pub l5: bool,
}

impl CascadeLayers {
    /// Whether any layer acts.
    pub const fn any(self) -> bool {
        self.l0 || self.l1 || self.l2 || self.l3 || self.l4 || self.l5
    }
}

/// The device, and the models on it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeDevice {
    /// Operations per second that are reached.
    pub compute: Compute,
    /// Bytes per second that are reached.
    pub bandwidth: Bandwidth,
    /// Time of a launch.
    pub launch: Span,
    /// Sequences that share every step.
    pub batch: u32,
    /// Memory for contexts kept between turns.
    pub context_memory: Bytes,
    /// The model that answers.
    pub frontier: CascadeModel,
    /// The model that answers for less.
    pub light: CascadeModel,
}

/// Sizes of a model, with weights of two bytes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CascadeModel {
    /// Weights.
    pub parameters: f64,
    /// Bytes of keys and values per token, at 16 bits.
    pub kv_per_token: Bytes,
    /// Kernels of a step.
    pub kernels: u32,
}

impl Default for CascadeDevice {
    /// Models of 32 and 1.5 billion weights on one GPU.
    fn default() -> Self {
        Self {
            compute: Compute(5e14),
            bandwidth: Bandwidth(2.7e12),
            launch: Span(windtunnel_base::time::SimDuration::from_micros(4)),
            batch: 1,
            context_memory: Bytes(8 << 30),
            frontier: CascadeModel {
                parameters: 32e9,
                kv_per_token: Bytes(256 << 10),
                kernels: 300,
            },
            light: CascadeModel {
                parameters: 1.5e9,
                kv_per_token: Bytes(28 << 10),
                kernels: 140,
            },
        }
    }
}

/// How sessions are. Draws depend on the turn alone, so that all switches face the same turns.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeWorld {
    /// Share of turns, after the first of a session, that change nothing.
    pub no_change: f64,
    /// Share of tokens of critical severity.
    pub critical: f64,
    /// Probability that the light model is wrong at the hardest token. Difficulty is uniform between
    /// 0 and 1, and at difficulty `d` it is `error * d^4`.
    pub error: f64,
    /// From this time on `error` is `drift_factor` times as large.
    pub drift_at: Option<Span>,
    /// How many times.
    pub drift_factor: f64,
}

impl Default for CascadeWorld {
    fn default() -> Self {
        Self {
            no_change: 0.3,
            critical: 0.0,
            error: 0.001,
            drift_at: None,
            drift_factor: 1.0,
        }
    }
}

/// Parameters of L0.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeSkip {
    /// Share of unchanged turns that are skipped.
    pub tpr: f64,
    /// Share of changed turns that are skipped, and so answered wrongly.
    pub fpr: f64,
    /// What looking at the state costs, at every turn.
    pub cost: Span,
}

impl Default for CascadeSkip {
    fn default() -> Self {
        Self {
            tpr: 0.9,
            fpr: 0.02,
            cost: Span(windtunnel_base::time::SimDuration::from_millis(5)),
        }
    }
}

/// Parameters of L1.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeSpans {
    /// Most sequences, or tokens, of a span.
    pub max: u32,
    /// Steps are replayed graphs: launches take this, however many kernels there are, and L1 has
    /// nothing left to save.
    pub graph: Option<Span>,
    /// Sequences or tokens that are coherent on average; the sequences of a step if absent.
    pub coherent: Option<u32>,
}

impl Default for CascadeSpans {
    fn default() -> Self {
        Self {
            max: 4,
            graph: None,
            coherent: None,
        }
    }
}

/// Parameters of L2.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeRoute {
    /// Tokens of this difficulty or more go to the frontier, 0 to 1.
    pub threshold: f64,
    /// Critical tokens go to the frontier however easy they are.
    pub severity_override: bool,
}

impl Default for CascadeRoute {
    /// A large share of 0.13.
    fn default() -> Self {
        Self {
            threshold: 0.87,
            severity_override: true,
        }
    }
}

/// Parameters of L3. What is neither anchor nor INT8 is FP8.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeEvidence {
    /// Share of blocks kept in 16 bits, and never evicted.
    pub anchors: f64,
    /// Share of blocks in INT8.
    pub int8: f64,
    /// Contexts are kept between turns.
    pub prefix: bool,
}

impl Default for CascadeEvidence {
    fn default() -> Self {
        Self {
            anchors: 0.05,
            int8: 0.15,
            prefix: true,
        }
    }
}

/// Parameters of L4.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeShadow {
    /// Least share of answers with short tokens that is verified.
    pub q_min: f64,
    /// Share more per unit of risk, which is the share of tokens beyond the threshold.
    pub k: f64,
    /// Bad answers to aim at, as a share.
    pub target: f64,
    /// How far one verification moves the threshold.
    pub eta: f64,
    /// Verification is done by the frontier model instead of the light one.
    pub full: bool,
    /// Share of bad answers that verification finds.
    pub sensitivity: f64,
    /// Share of good answers that verification passes.
    pub specificity: f64,
}

impl Default for CascadeShadow {
    fn default() -> Self {
        Self {
            q_min: 0.02,
            k: 0.5,
            target: 0.01,
            eta: 0.01,
            full: false,
            sensitivity: 0.8,
            specificity: 0.95,
        }
    }
}

/// Parameters of L5.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CascadeControl {
    /// Time between publications.
    pub period: Span,
    /// Time until one is read.
    pub delay: Span,
    /// Share of publications that are lost.
    pub loss: f64,
    /// How strongly the threshold follows, 0 to 1.
    pub gain: f64,
}

impl Default for CascadeControl {
    fn default() -> Self {
        Self {
            period: Span(windtunnel_base::time::SimDuration::from_secs(1)),
            delay: Span::default(),
            loss: 0.0,
            gain: 1.0,
        }
    }
}
