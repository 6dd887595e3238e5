//! The gateway as a sequence of stages, each with its time, its price and its share of a latency budget.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::{HourlyPrice, Money, Rate, Span};

/// The stages, in their order. One that is absent takes no time and costs nothing; what it would do
/// (look up answers, limit rates) is for its own table to say. Without this table the gateway is one
/// stage of `gateway.latency`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PipelineSpec {
    /// Longest time in all stages together. A stage that may be left out is, when its share does not
    /// fit into what is left, and is broken off when what is left is over; then its class says
    /// (`classes.NAME.fail`) whether requests go on without it or are refused. Absent: no limit.
    pub budget: Option<Span>,
    /// Reading and validating the request.
    pub parse: Option<StageSpec>,
    /// A classifier that blocks prompt injections. May be left out.
    pub ingress_filter: Option<IngressFilterSpec>,
    /// Checking who asks.
    pub authenticate: Option<StageSpec>,
    /// Counting tokens: a time per token.
    pub tokenize: Option<TokenizeSpec>,
    /// Budgets per tenant in requests, tokens and dollars.
    pub rate_limit: Option<RateLimitSpec>,
    /// Looking for a stored answer under the exact key (`gateway.answers.exact`); and for a request
    /// under way that asks the same (`gateway.coalescing`). A hit ends the stages here.
    pub exact_lookup: Option<StageSpec>,
    /// Looking for a similar question (`gateway.answers.semantic`): embedding and search. May be left
    /// out.
    pub semantic_lookup: Option<StageSpec>,
    /// Looking for a kernel that serves such requests. May be left out: then there is none.
    pub kernel_lookup: Option<StageSpec>,
    /// Choosing the pool (`gateway.paths`).
    pub path_choice: Option<StageSpec>,
    /// Deciding who gets in (`gateway.admission`).
    pub admission: Option<StageSpec>,
    /// Choosing the replica (`gateway.routing`).
    pub routing: Option<StageSpec>,
}

/// One stage.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StageSpec {
    /// Mean time of one request in it.
    pub time: Span,
    /// Standard deviation of the logarithm of its time; 0 if it is always the same.
    pub sigma: f64,
    /// Price of one request in it.
    pub price: Money,
    /// Its share of `budget`: the time it should take at most. Longer ones are counted.
    pub share: Option<Span>,
}

/// Counting tokens.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizeSpec {
    /// Mean time of one request, beside that of its tokens.
    pub time: Span,
    /// Standard deviation of the logarithm of that time.
    pub sigma: f64,
    /// Time per prompt token.
    pub per_token: Span,
    /// Price of one request.
    pub price: Money,
    /// Its share of `budget`.
    pub share: Option<Span>,
}

/// A classifier that blocks prompt injections (`traffic.clients.attack`).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngressFilterSpec {
    /// Share of attacks that it blocks, 0 to 1.
    pub true_positive_rate: f64,
    /// Share of honest requests that it blocks, 0 to 1.
    pub false_positive_rate: f64,
    /// Mean time of one request in it.
    pub time: Span,
    /// Standard deviation of the logarithm of its time.
    pub sigma: f64,
    /// Price of one request in it.
    pub price: Money,
    /// Its share of `budget`.
    pub share: Option<Span>,
}

impl Default for IngressFilterSpec {
    fn default() -> Self {
        Self {
            true_positive_rate: 0.9,
            false_positive_rate: 0.01,
            time: Span(windtunnel_base::time::SimDuration::from_millis(2)),
            sigma: 0.0,
            price: Money::default(),
            share: None,
        }
    }
}

/// Budgets of each tenant: a request that one of them does not allow is refused (`rate_limited`) and
/// takes nothing from the others.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitSpec {
    /// Mean time of one request in this stage.
    pub time: Span,
    /// Standard deviation of the logarithm of its time.
    pub sigma: f64,
    /// Price of one request in it.
    pub price: Money,
    /// Its share of `budget`.
    pub share: Option<Span>,
    /// Requests.
    pub requests: Option<RequestBucketSpec>,
    /// Tokens: those of the prompt, and as many as the answer may have (`max_output_tokens`), of
    /// which those that it did not have are given back.
    pub tokens: Option<TokenBucketSpec>,
    /// Money, by the prices of tokens; taken and given back like tokens.
    pub spend: Option<SpendBucketSpec>,
}

/// A token bucket of requests.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestBucketSpec {
    /// Requests per second that refill it.
    pub rate: Rate,
    /// Requests that a full bucket holds.
    pub burst: u32,
}

/// A token bucket of tokens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBucketSpec {
    /// Tokens per second that refill it.
    pub per_second: f64,
    /// Tokens that a full bucket holds.
    pub burst: u64,
}

/// A token bucket of money.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpendBucketSpec {
    /// Money per hour that refills it.
    pub rate: HourlyPrice,
    /// Money that a full bucket holds.
    pub burst: Money,
    /// Price of a million prompt tokens.
    pub input_per_million: Money,
    /// Price of a million output tokens.
    pub output_per_million: Money,
}

/// What becomes of a request whose check could not be made in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fail {
    /// It goes on unchecked.
    #[default]
    Open,
    /// It is refused.
    Closed,
}
