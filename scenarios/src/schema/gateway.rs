//! What the gateway does with a request before a replica has it.

use super::answers::{AnswersSpec, CoalescingSpec};
use super::outliers::OutlierDetectionSpec;
use super::paths::PathsSpec;
use super::pipeline::PipelineSpec;
use super::policies::{AdmissionSpec, RoutingSpec};
use super::state_store::StateStoreSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{HourlyPrice, Span};

/// The gateway.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySpec {
    /// Time of every request in the gateway's own stages: parsing, authentication, tokenizing.
    pub latency: Span,
    /// Added per thousand prompt tokens (tokenizing).
    pub latency_per_kilotoken: Span,
    /// Its stages, one by one; `latency` and `latency_per_kilotoken` come on top.
    pub pipeline: Option<PipelineSpec>,
    /// Price of an hour of one gateway instance, used or not.
    pub price: HourlyPrice,
    /// Gateway instances that are paid for; 1 if absent.
    pub instances: Option<u32>,
    /// Which pool serves whom.
    pub paths: Option<PathsSpec>,
    /// Who gets in.
    pub admission: AdmissionSpec,
    /// Which replica answers.
    pub routing: RoutingSpec,
    /// Waiting at the gateway while every replica is full.
    pub queue: QueueSpec,
    /// What tenants say is never the same content: neither prompt caches nor routers take the prompt of one
    /// for that of another (vLLM `cache_salt`). Stored answers and affinity maps keep tenants apart anyway.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub isolate_tenants: bool,
    /// Leaving replicas alone that fail one request after the other; absent: the gateway waits until it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetectionSpec>,
    /// Answers that are kept and given again; absent: none.
    pub answers: Option<AnswersSpec>,
    /// Waiting for the answer to another request that asks the same; absent: nobody does.
    pub coalescing: Option<CoalescingSpec>,
    /// What gateways share, which every decision asks; absent: one gateway, which knows by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_store: Option<StateStoreSpec>,
}

/// Waiting at the gateway.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSpec {
    /// Requests in flight at one replica beyond which the gateway holds further ones back;
    /// absent: it never holds any.
    pub max_in_flight: Option<u32>,
    /// Requests that may wait here; further ones are refused. Absent: no limit.
    pub limit: Option<u32>,
    /// Who goes first.
    pub order: QueueOrder,
}

/// Who leaves the gateway's queue first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueOrder {
    /// First come, first served.
    #[default]
    Fcfs,
    /// By class priority (lower first), then first come.
    Priority,
    /// Last come, first served.
    Lifo,
    /// Tenants in turn, a request each.
    RoundRobin,
    /// The tenant that was served the fewest tokens, outputs counting twice, over its weight (virtual
    /// token counter).
    Vtc,
}
