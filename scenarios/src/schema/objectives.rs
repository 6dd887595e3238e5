//! Classes of service, tenants, and what they may expect.

use super::pipeline::Fail;
use super::verification::Unverified;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Span;

/// A class of service.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClassSpec {
    /// Lower goes first wherever priority counts, as in vLLM.
    pub priority: i32,
    /// The client gives up and cancels after so long.
    pub deadline: Option<Span>,
    /// What becomes of its requests when a check of the gateway cannot be made in time.
    pub fail: Fail,
    /// What becomes of its answers while the verifier is out.
    pub unverified: Unverified,
    /// Longest time to first token that counts towards goodput.
    pub ttft: Option<Span>,
    /// Longest time per output token that counts towards goodput.
    pub tpot: Option<Span>,
    /// Longest end-to-end latency that counts towards goodput.
    pub e2e: Option<Span>,
}

/// A tenant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantSpec {
    /// Share of capacity it is entitled to, relative to other tenants.
    pub weight: f64,
}

impl Default for TenantSpec {
    fn default() -> Self {
        Self { weight: 1.0 }
    }
}
