//! Prices by the token, as providers of models ask them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::quantity::Money;

/// What a provider asks per million tokens, beside what replicas cost by the hour: a frontier model behind
/// an interface is a station whose hours are free and whose tokens are not. A request pays for its prompt when
/// it first starts, and for its output when that is whole or broken off: by its client, by a faster attempt, by a
/// timeout, or because the replica is lost. Then as much is paid as there is of it when the replica drops it.
/// What is under way when the run is cut off is not over, and not paid yet.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenPricesSpec {
    /// A million prompt tokens that were not found in a prompt cache.
    pub input: Money,
    /// Those of them that others may ask for again, so that they are written to the prompt cache (1.25
    /// times `input` at one provider); absent: as `input`.
    pub cache_write: Option<Money>,
    /// A million prompt tokens that were found in a prompt cache (a tenth of `input` at the same one);
    /// absent: as `input`.
    pub cached_input: Option<Money>,
    /// A million output tokens.
    pub output: Money,
}

impl TokenPricesSpec {
    /// What a prompt costs, in millionths of a nano-dollar: `tokens` in all, of which `cached` were found in
    /// cache, and `shareable` may be found there by others.
    pub fn prompt(&self, tokens: u32, shareable: u32, cached: u32) -> u128 {
        let written = shareable.saturating_sub(cached);
        let plain = tokens.saturating_sub(cached).saturating_sub(written);
        let price = |own: Option<Money>| u128::from(own.unwrap_or(self.input).0.0);
        u128::from(plain) * price(None)
            + u128::from(written) * price(self.cache_write)
            + u128::from(cached) * price(self.cached_input)
    }

    /// What so many output tokens cost, in millionths of a nano-dollar.
    pub fn answer(&self, tokens: u32) -> u128 {
        u128::from(tokens) * u128::from(self.output.0.0)
    }
}
