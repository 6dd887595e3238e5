//! The replicas, how far away they are, and how old the gateway's picture of them is.

use super::scaling::ScalingSpec;
use super::shared_cache::SharedCacheSpec;
use super::token_prices::TokenPricesSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Span;
use windtunnel_engine::config::{ContinuousSpec, EngineSpec};

/// The replicas.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FleetSpec {
    /// How many replicas of `engine`; with `scaling`, at the start.
    pub replicas: u32,
    /// What each replica is.
    pub engine: EngineSpec,
    /// What these replicas are called where a pool is named.
    pub name: String,
    /// What their tokens cost, beside their hours.
    pub token_prices: Option<TokenPricesSpec>,
    /// Share of their answers that are bad in truth, 0 to 1; absent: `verification.error_rate`. A request that is
    /// bad at one pool is bad at every pool of a higher rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
    /// Further replicas of other kinds; their ids follow.
    pub pools: Vec<PoolSpec>,
    /// A cache of prompts that all replicas share, behind their own.
    pub shared_cache: Option<SharedCacheSpec>,
    /// Who orders more replicas and lets them go; absent: there are always the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// How long messages travel.
    pub network: NetworkSpec,
    /// How old the gateway's picture of the replicas is.
    pub telemetry: TelemetrySpec,
}

impl Default for FleetSpec {
    fn default() -> Self {
        Self {
            replicas: 1,
            engine: EngineSpec::Continuous(Box::<ContinuousSpec>::default()),
            name: "main".to_owned(),
            token_prices: None,
            error_rate: None,
            pools: Vec::new(),
            shared_cache: None,
            scaling: None,
            network: NetworkSpec::default(),
            telemetry: TelemetrySpec::default(),
        }
    }
}

impl FleetSpec {
    /// What the tokens of each replica cost, by id; empty if none of them are paid for by the token.
    pub fn token_prices(&self) -> Vec<Option<TokenPricesSpec>> {
        let pools = self.pools.iter().map(|pool| pool.token_prices);
        let by_pool = std::iter::once(self.token_prices).chain(pools);
        // Every id has a price, those included that are only kept for replicas to come.
        let priced = by_pool.zip(self.pools_by_id());
        let prices: Vec<_> = priced
            .flat_map(|(prices, (_, ids))| ids.map(move |_| prices))
            .collect();
        if prices.iter().any(Option::is_some) {
            return prices;
        }
        Vec::new()
    }

    /// Share of bad answers of each replica, by id, where its pool has one.
    pub fn error_rates(&self) -> Vec<Option<f64>> {
        let pools = self.pools.iter().map(|pool| pool.error_rate);
        let by_pool = std::iter::once(self.error_rate).chain(pools);
        let rated = by_pool.zip(self.pools_by_id());
        rated
            .flat_map(|(rate, (_, ids))| ids.map(move |_| rate))
            .collect()
    }

    /// The pools by name, each with the ids of its replicas: those of `engine` first, then `pools`.
    pub fn pools_by_id(&self) -> impl Iterator<Item = (&str, std::ops::Range<u32>)> {
        let mut from = 0;
        self.sizes().map(move |(name, _, most)| {
            let ids = from..from + most;
            from = ids.end;
            (name, ids)
        })
    }

    /// The pools in the same order: name, replicas at the start, and the most there ever can be. An id
    /// is kept for each of those.
    pub fn sizes(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        let scaled = self.scaling.as_ref().zip(self.scaled_pool());
        self.sizes_at_start()
            .enumerate()
            .map(move |(i, (name, replicas))| {
                let follows = scaled.filter(|&(_, pool)| pool == i);
                let most = follows.map_or(replicas, |(s, _)| s.max_replicas.max(replicas));
                (name, replicas, most)
            })
    }

    fn sizes_at_start(&self) -> impl Iterator<Item = (&str, u32)> {
        let first = std::iter::once((self.name.as_str(), self.replicas));
        first.chain(self.pools.iter().map(|p| (p.name.as_str(), p.replicas)))
    }

    /// Which pool follows its load, counted in their order.
    fn scaled_pool(&self) -> Option<usize> {
        match &self.scaling.as_ref()?.pool {
            None => Some(0),
            Some(pool) => self.sizes_at_start().position(|(name, _)| name == pool),
        }
    }

    /// The replicas whose number follows the load, and how many of them there are at the start.
    pub fn scaled(&self) -> Option<(std::ops::Range<u32>, u32)> {
        let pool = self.scaled_pool()?;
        let (_, ids) = self.pools_by_id().nth(pool)?;
        let (_, replicas) = self.sizes_at_start().nth(pool)?;
        Some((ids, replicas))
    }

    /// The ids of the replicas of a pool; none if it has none or there is no such pool.
    pub fn pool(&self, name: &str) -> Option<std::ops::Range<u32>> {
        let found = self
            .pools_by_id()
            .find(|(n, ids)| *n == name && !ids.is_empty());
        found.map(|(_, ids)| ids)
    }
}

/// Replicas of one more kind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// What they are called where a pool is named.
    #[serde(default)]
    pub name: String,
    /// How many; with `fleet.scaling` of this pool, at the start.
    pub replicas: u32,
    /// What each is.
    pub engine: EngineSpec,
    /// What their tokens cost, beside their hours.
    #[serde(default)]
    pub token_prices: Option<TokenPricesSpec>,
    /// Share of their answers that are bad in truth, 0 to 1; absent: `verification.error_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
}

/// One-way delays. The gateway sees an answer leave `gateway_to_replica` after the replica
/// gave it; the client, `client_to_gateway` after that.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSpec {
    /// Client to gateway, and back.
    pub client_to_gateway: Span,
    /// Gateway to replica, and back.
    pub gateway_to_replica: Span,
}

/// How replicas' statistics reach the gateway.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySpec {
    /// Time between two scrapes; `0s` reads live state at every decision (an oracle).
    pub period: Span,
    /// Time from a scrape, or a cache event, to the gateway knowing it.
    pub delay: Span,
    /// When replicas are read.
    pub refresh: TelemetryRefresh,
    /// With `refresh = "on_decision"`: time between two readings of what replicas have cached; `0s`
    /// reads the live caches.
    pub cache_period: Span,
    /// How long a request counts at its replica: in statistics and, for the policy, in flight.
    pub counted: Counted,
}

/// When replicas are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TelemetryRefresh {
    /// Every `period`, from time zero on.
    #[default]
    Timer,
    /// At a decision that finds the last reading at least `period` old; before the first one,
    /// everything reads zero as of time zero (BLIS).
    OnDecision,
}

/// How long a request counts at its replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// In statistics until its last step has ended, in flight until its answer has arrived.
    #[default]
    UntilAnswered,
    /// Until its last step begins, blocks of memory included (BLIS, which accounts for a step's
    /// results when it begins).
    UntilLastStep,
}
