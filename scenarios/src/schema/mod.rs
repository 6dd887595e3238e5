//! The file format. Every type here is the format, its JSON schema and its manual at once:
//! unknown keys are errors, quantities carry units, policies are tables with a `kind`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use traffic::ArrivalSpec;
use windtunnel_base::quantity::Span;

/// Hardware, replicas, network, telemetry.
pub mod fleet;
/// How many replicas there are.
pub mod scaling;
/// What the gateway does with a request.
pub mod gateway;
/// The gateway's stages.
pub mod pipeline;
/// Replicas that fail one request after the other.
pub mod outliers;
/// Pools by class, kernels, leakage.
pub mod paths;
/// Stored answers, and waiting for the answer to another.
pub mod answers;
/// What several gateways share.
pub mod state_store;
/// The cache of prompts that replicas share.
pub mod shared_cache;
/// Prices by the token.
pub mod token_prices;
/// Probing kernels.
pub mod probing;
/// Safe rollout of kernels.
pub mod rollout;
/// One enum per policy family: its variants are the policies there are.
pub mod policies;
/// Where requests come from.
pub mod traffic;
/// What is asked.
pub mod questions;
/// What clients do when an answer does not come.
pub mod clients;
/// Classes, objectives and thresholds.
pub mod objectives;
/// Whether answers are good, and who checks them.
pub mod verification;
/// Verifiers that are asked one after the other.
pub mod ladder;
/// What goes wrong, and when.
pub mod faults;

pub use clients::ClientsSpec;
pub use faults::FaultSpec;
pub use fleet::FleetSpec;
pub use gateway::GatewaySpec;
pub use objectives::{ClassSpec, TenantSpec};
pub use traffic::TrafficSpec;
pub use verification::VerificationSpec;

/// A scenario: a world, its traffic, and the policies that serve it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Version of this format; 1.
    pub version: u32,
    /// Short name, for folders and reports; the file's name if absent.
    pub name: String,
    /// What the scenario is for, in one line.
    pub purpose: String,
    /// Another scenario that this one changes: `library:NAME` or a path relative to this file.
    pub extends: Option<String>,
    /// When a run ends, what is measured, and the default seed.
    pub run: RunSpec,
    /// The replicas.
    pub fleet: FleetSpec,
    /// What happens before a request reaches a replica.
    pub gateway: GatewaySpec,
    /// Where requests come from.
    pub traffic: TrafficSpec,
    /// What clients do when an answer does not come; absent: each request is its own only attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientsSpec>,
    /// Classes of service by name, each with objectives; `default` exists if none is given.
    pub classes: BTreeMap<String, ClassSpec>,
    /// Tenants by name; those that clients name exist without being listed here.
    pub tenants: BTreeMap<String, TenantSpec>,
    /// Whether answers are good and who checks them.
    pub verification: Option<VerificationSpec>,
    /// What goes wrong, and when.
    pub faults: Vec<FaultSpec>,
    /// Conditions on metrics that the run must meet, such as `p99(ttft) <= 200ms`,
    /// `goodput >= 0.95`, or of one class: `p99(ttft{class=interactive}) <= 200ms`.
    pub thresholds: Vec<String>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            version: 1,
            name: String::new(),
            purpose: String::new(),
            extends: None,
            run: RunSpec::default(),
            fleet: FleetSpec::default(),
            gateway: GatewaySpec::default(),
            traffic: TrafficSpec::default(),
            clients: None,
            classes: BTreeMap::new(),
            tenants: BTreeMap::new(),
            verification: None,
            faults: Vec::new(),
            thresholds: Vec::new(),
        }
    }
}

/// When a run ends, and what of it is measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunSpec {
    /// Seed if none is given on the command line.
    pub seed: u64,
    /// What to leave out at the beginning: `auto` (detected and reported) or a time such as
    /// `60s`; `0s` measures everything.
    pub warm_up: WarmUp,
    /// Cut the run off at this time; absent: when the last request has ended.
    pub cut_off: Option<Span>,
    /// What is compared before, during and after; absent: the time of `faults`, or of a flash crowd.
    pub disturbance: Option<DisturbanceSpec>,
    /// Write one row per request.
    pub rows: bool,
    /// Check the laws of the simulation while it runs.
    pub laws: bool,
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            seed: 1,
            warm_up: WarmUp::Auto,
            cut_off: None,
            disturbance: None,
            rows: true,
            laws: true,
        }
    }
}

/// A stretch of time whose requests are compared with those before and those after.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisturbanceSpec {
    /// Its begin.
    pub from: Span,
    /// Its end.
    pub to: Span,
}

impl Scenario {
    /// The stretch of time that is compared with what is before and after it: as said; else from the
    /// first fault to the end of the last; else that of the flash crowds and jumps of the traffic.
    pub fn disturbance(&self) -> Option<DisturbanceSpec> {
        let crowds = || {
            let own = self.traffic.arrivals.iter();
            let clients = self
                .traffic
                .clients
                .iter()
                .filter_map(|c| c.arrivals.as_ref());
            own.chain(clients).filter_map(ArrivalSpec::disturbance)
        };
        // What has no end has no time after it.
        let ends = |fault: &&FaultSpec| fault.lasts().0 < windtunnel_base::time::SimDuration::MAX;
        let faults = self.faults.iter().filter(ends).map(|fault| {
            let from = fault.at();
            let to = Span(from.0 + fault.lasts().0);
            DisturbanceSpec { from, to }
        });
        let join = |a: DisturbanceSpec, b: DisturbanceSpec| DisturbanceSpec {
            from: a.from.min(b.from),
            to: a.to.max(b.to),
        };
        self.run
            .disturbance
            .or_else(|| faults.reduce(join))
            .or_else(|| crowds().reduce(join))
    }
}

/// What to leave out at the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WarmUp {
    /// Detected from the run itself.
    #[default]
    Auto,
    /// A fixed time.
    Fixed(Span),
}

impl Serialize for WarmUp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => s.serialize_str("auto"),
            Self::Fixed(span) => s.collect_str(span),
        }
    }
}

impl<'de> Deserialize<'de> for WarmUp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse()
            .map(Self::Fixed)
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for WarmUp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WarmUp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "format": "wt-auto-or-duration",
            "description": "`auto`, or a length of time with its unit",
            "examples": ["auto", "60s"]
        })
    }
}
