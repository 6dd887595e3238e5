//! Probing kernels: a share of what they serve is answered by a reference too, and compared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{Money, Span};

/// Who looks after the kernels' quality, and how. Once a kernel has answered, its request may be drawn as a
/// probe: a reference answers it too, and whether the two differ goes into a detector of the kernel's own. When
/// that raises an alarm, the kernel's requests go the way of an evicted kernel's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbingSpec {
    /// Share of the kernels' answers that are compared, 0 to 1; each request draws for itself.
    pub share: f64,
    /// Who answers a probe.
    #[serde(default)]
    pub reference: ReferenceSpec,
    /// Price of a probe: of the comparison, or of the verifier's check. The frontier's work for it is paid
    /// as any other.
    #[serde(default)]
    pub price: Money,
    /// Share of the differences that the comparison finds, 0 to 1.
    #[serde(default = "one")]
    pub sensitivity: f64,
    /// Share of the others that it takes for the same, 0 to 1.
    #[serde(default = "one")]
    pub specificity: f64,
    /// What raises an alarm.
    #[serde(default)]
    pub detector: DetectorSpec,
    /// How long it takes after an alarm until the kernel is built anew, without what it had drifted; absent:
    /// it stays away.
    #[serde(default)]
    pub rebuild: Option<Span>,
}

const fn one() -> f64 {
    1.0
}

/// Who answers a probe.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReferenceSpec {
    /// The frontier, as work beside its own. Its answer may be bad too: two answers differ if one of them is
    /// good and the other is not.
    #[default]
    Frontier,
    /// A verifier that checks in full, and loads nobody.
    Verifier {
        /// Time of one check.
        #[serde(default)]
        latency: Span,
    },
}

/// A one-sided cumulative sum per kernel, `S = max(0, S + step)`, from the outcomes of its probes (1 if the
/// answers differ); it raises an alarm when `S` is more than `h`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DetectorSpec {
    /// The step is the log-likelihood ratio: `ln(p1 / p0)` if the answers differ, else
    /// `ln((1 - p1) / (1 - p0))`.
    LogLikelihood {
        /// Share of probes that differ while all is well.
        #[serde(default = "p0")]
        p0: f64,
        /// The share to find.
        #[serde(default = "p1")]
        p1: f64,
        /// What the sum has to exceed.
        #[serde(default = "h")]
        h: f64,
    },
    /// The step is `(outcome - p0) / sqrt(p0 (1 - p0)) - k`.
    Standardised {
        /// Share of probes that differ while all is well.
        #[serde(default = "p0")]
        p0: f64,
        /// What is allowed for, in standard deviations.
        #[serde(default = "half")]
        k: f64,
        /// What the sum has to exceed, in standard deviations.
        #[serde(default = "five")]
        h: f64,
    },
}

impl Default for DetectorSpec {
    fn default() -> Self {
        Self::LogLikelihood {
            p0: p0(),
            p1: p1(),
            h: h(),
        }
    }
}

const fn p0() -> f64 {
    0.05
}
const fn p1() -> f64 {
    0.25
}
const fn h() -> f64 {
    4.6
}
const fn half() -> f64 {
    0.5
}
const fn five() -> f64 {
    5.0
}
