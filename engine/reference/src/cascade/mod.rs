//! The cascade: six layers that each leave out work a decoder would do, and what that costs in
//! quality. Every layer decides in plain functions of its own (tested without a model) and is carried
//! out by `run` on real devices, so that time, bytes, launches and quality are those of a real
//! decoder.

/// L0: turns that changed nothing are not run again.
pub mod skip;
/// L1: what takes the same path shares launches.
pub mod spans;
/// L2: tokens of little risk take a short path.
pub mod route;
/// L2: drafts of the light model, verified by the frontier in one step.
pub mod speculate;
/// L3: precision per page, anchors, and prefixes kept.
pub mod evidence;
/// L4: a share of short answers is computed again, and thresholds follow what is found.
pub mod shadow;
/// L5: signals that the layers share, published now and then.
pub mod control;
/// Sessions of turns over a state that changes or does not.
pub mod sessions;
/// A device's pages by sequence, and steps over them.
mod lane;
/// One turn that is run.
mod job;
/// The turns of one session at a time, from prompt to answer.
mod turns;
/// What is kept from one turn to the next.
mod between;
/// Sessions through the layers.
pub mod run;
/// The layers under a scheduler: steps of a replica.
pub mod steps;
/// Figures per cell, and how the layers act together.
pub mod report;
/// What the layers are worth, over more than one kind of sessions.
pub mod study;

use crate::backend::Work;
use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};
use windtunnel_engine::config::{ComputedCascade, ComputedShort};

/// Which layers act.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(default, deny_unknown_fields)]
pub struct Switches {
    /// Turns that changed nothing are skipped.
    pub l0: bool,
    /// Spans share launches.
    pub l1: bool,
    /// Tokens of little risk take the short path.
    pub l2: bool,
    /// Pages are stored in small formats and kept for prefixes.
    pub l3: bool,
    /// A share of short answers is computed again.
    pub l4: bool,
    /// Thresholds follow published signals.
    pub l5: bool,
}

impl Switches {
    /// No layer.
    pub const NONE: Self = Self {
        l0: false,
        l1: false,
        l2: false,
        l3: false,
        l4: false,
        l5: false,
    };
    /// All layers.
    pub const ALL: Self = Self {
        l0: true,
        l1: true,
        l2: true,
        l3: true,
        l4: true,
        l5: true,
    };

    /// Layer `layer` alone.
    pub const fn only(layer: usize) -> Self {
        Self {
            l0: layer == 0,
            l1: layer == 1,
            l2: layer == 2,
            l3: layer == 3,
            l4: layer == 4,
            l5: layer == 5,
        }
    }

    /// Whether each acts, L0 first.
    pub const fn as_array(self) -> [bool; 6] {
        [self.l0, self.l1, self.l2, self.l3, self.l4, self.l5]
    }

    /// `l0+l2`, or `none`.
    pub fn name(self) -> String {
        let on: Vec<String> = (0..6)
            .filter(|&i| self.as_array()[i])
            .map(|i| format!("l{i}"))
            .collect();
        if on.is_empty() {
            "none".into()
        } else {
            on.join("+")
        }
    }
}

/// What counted work would take on a device: per step, launches one after another, and then the
/// longer of computing and moving bytes.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceModel {
    /// Seconds per launch.
    pub launch: f64,
    /// Floating-point operations per second.
    pub flops: f64,
    /// Bytes per second.
    pub bandwidth: f64,
}

impl Default for DeviceModel {
    /// A launch of 4 us, and rates at which the pocket models are limited by no one thing alone.
    fn default() -> Self {
        Self {
            launch: 4e-6,
            flops: 1e12,
            bandwidth: 5e10,
        }
    }
}

impl DeviceModel {
    /// Seconds of one step's work.
    pub fn seconds(&self, step: Work) -> f64 {
        let computing = step.flops as f64 / self.flops;
        let moving = step.bytes() as f64 / self.bandwidth;
        step.launches as f64 * self.launch + computing.max(moving)
    }
}

/// How sessions are run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which layers act.
    pub layers: Switches,
    /// L0.
    pub skip: skip::SkipSettings,
    /// L1.
    pub spans: spans::SpanSettings,
    /// L2.
    pub route: route::RouteSettings,
    /// L3.
    pub evidence: evidence::EvidenceSettings,
    /// L4.
    pub shadow: shadow::ShadowSettings,
    /// L5.
    pub control: control::ControlSettings,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Seconds between the turns of a session: what the control plane's period is held against.
    pub turn_gap: f64,
    /// What counted work takes.
    pub device: DeviceModel,
    /// Seed of what is sampled for shadow verification.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            layers: Switches::ALL,
            skip: skip::SkipSettings::default(),
            spans: spans::SpanSettings::default(),
            route: route::RouteSettings::default(),
            evidence: evidence::EvidenceSettings::default(),
            shadow: shadow::ShadowSettings::default(),
            control: control::ControlSettings::default(),
            max_new_tokens: 96,
            turn_gap: 1.0,
            device: DeviceModel::default(),
            seed: 1,
        }
    }
}

impl Settings {
    /// As a scenario says it.
    pub fn of(spec: &ComputedCascade, seed: u64) -> Self {
        let on = spec.layers;
        let usual = Self::default();
        let route = &spec.route;
        Self {
            layers: Switches {
                l0: on.l0,
                l1: on.l1,
                l2: on.l2,
                l3: on.l3,
                l4: on.l4,
                l5: on.l5,
            },
            skip: skip::SkipSettings {
                threshold: spec.skip.threshold,
                markers: spec.skip.markers.clone(),
                ..usual.skip
            },
            spans: spans::SpanSettings {
                max: spec.spans.max.map_or(usize::MAX, |max| max as usize),
            },
            route: route::RouteSettings {
                short: match route.short {
                    ComputedShort::SmallModel => route::ShortPath::SmallModel,
                    ComputedShort::EarlyExit => route::ShortPath::EarlyExit {
                        layers: route.exit_layers as usize,
                    },
                    ComputedShort::Speculative => route::ShortPath::Speculative {
                        drafts: route.drafts as usize,
                    },
                },
                threshold: route.threshold,
                gamma: route.gamma,
                severity_override: route.severity_override,
                ..usual.route
            },
            evidence: evidence::EvidenceSettings {
                anchors: spec.evidence.anchors,
                int8: spec.evidence.int8,
                ..usual.evidence
            },
            shadow: shadow::ShadowSettings::from(&spec.shadow),
            control: control::ControlSettings {
                period: spec.control.period.0.as_secs_f64(),
                delay: spec.control.delay.0.as_secs_f64(),
                loss: spec.control.loss,
                gain: spec.control.gain,
                ..usual.control
            },
            seed,
            ..usual
        }
    }

    /// Finds values that mean nothing.
    ///
    /// # Errors
    /// For the first of them, with its name, what is wrong, and what to write instead.
    pub fn check(&self) -> Result<(), ReferenceError> {
        self.skip.check()?;
        self.route.check()?;
        self.evidence.check()?;
        self.shadow.check()?;
        self.control.check()?;
        need(
            self.spans.max > 0,
            "spans.max",
            "no span can be empty",
            "take 1 or more",
        )?;
        need(
            self.max_new_tokens > 0,
            "max_new_tokens",
            "an answer has at least its end",
            "take 1 or more",
        )?;
        positive(self.turn_gap, "turn_gap")?;
        need(
            self.device.launch >= 0.0,
            "device.launch",
            "a launch takes no negative time",
            "take 0 or more",
        )?;
        positive(self.device.flops, "device.flops")?;
        positive(self.device.bandwidth, "device.bandwidth")
    }
}

/// An error unless `holds`.
fn need(holds: bool, field: &str, reason: &str, remedy: &str) -> Result<(), ReferenceError> {
    if holds {
        return Ok(());
    }
    Err(ReferenceError::Config {
        field: format!("cascade.{field}"),
        reason: reason.into(),
        remedy: remedy.into(),
    })
}

fn share(value: f64, field: &str) -> Result<(), ReferenceError> {
    need(
        (0.0..=1.0).contains(&value),
        field,
        "it is a share",
        "take a number between 0 and 1",
    )
}

fn positive(value: f64, field: &str) -> Result<(), ReferenceError> {
    need(
        value > 0.0 && value.is_finite(),
        field,
        "it must be above zero",
        "take a positive number",
    )
}
