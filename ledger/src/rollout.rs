//! What became of kernels that were rolled out in stages.

use serde::{Deserialize, Serialize};

/// How a rollout stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutOutcome {
    /// It has not begun, or a test is under way.
    #[default]
    UnderWay,
    /// The kernel has passed every test, and serves its class, or as much of it as its last stage says.
    Full,
    /// It failed a test, and was withdrawn.
    RolledBack,
    /// The next stage would have been too great a risk, and the kernel was withdrawn.
    TooRisky,
}

/// One stage of a rollout, as far as it came.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutStageTotals {
    /// What kind of stage, as in the scenario.
    pub kind: String,
    /// Share of the class's requests that the kernel answers for users.
    pub exposure: f64,
    /// When it began, ns.
    pub from_ns: u64,
    /// When it ended, ns; absent: it had not by the end of the run.
    pub to_ns: Option<u64>,
    /// Comparisons that its test was told.
    pub compared: u64,
    /// Of those, found to differ.
    pub differed: u64,
    /// Answers of the kernel that were sent in this stage and reached users.
    pub exposed: u64,
    /// Of those, bad where the frontier's would have been good, as only the world knows; each counts as much as
    /// the scenario says.
    pub harm: f64,
    /// Pilot risk magnitude: the harm to expect of a kernel that is as bad as the test is to find; absent where
    /// nothing is tested.
    pub risk: Option<f64>,
}

/// A kernel's rollout.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutTotals {
    /// The kernel.
    pub kernel: String,
    /// How it stands at the end.
    pub outcome: RolloutOutcome,
    /// When that was decided, ns; absent while it is under way.
    pub decided_at_ns: Option<u64>,
    /// The stages that it came to, in order.
    pub stages: Vec<RolloutStageTotals>,
}

impl RolloutTotals {
    /// From the beginning of the first stage until that was decided, ns; if it was.
    pub fn decided_ns(&self) -> Option<u64> {
        self.decided_at_ns?
            .checked_sub(self.stages.first()?.from_ns)
    }
}
