//! Tokens that are paid for one by one.

use super::World;
use super::requests::NOT_YET;
use crate::fleet::machine::Machine;
use windtunnel_engine::engine::Outcome;
use windtunnel_scenarios::schema::token_prices::TokenPricesSpec;

impl<M: Machine> World<'_, M> {
    /// What the tokens of a request's replica cost, if they do.
    fn prices_of(&self, slot: u32) -> Option<TokenPricesSpec> {
        let replica = self.requests.get(slot).answer.replica?;
        self.token_prices.get(replica.index()).copied().flatten()
    }

    /// Charges for what happened to a request inside its replica: for its prompt when it first starts, for
    /// its output when that is whole. To be told before anybody else notes it.
    pub(super) fn charge_tokens(&mut self, slot: u32, outcome: Outcome) {
        let Some(prices) = self.prices_of(slot) else {
            return;
        };
        let flight = self.requests.get(slot);
        let amount = match outcome {
            Outcome::Started { cached_tokens } if flight.answer.started > self.now => {
                let request = self.requests.view(slot);
                let shareable: u64 = request.prefix.iter().map(|e| u64::from(e.tokens)).sum();
                let prompt = request.prompt_tokens;
                let shareable = shareable.min(u64::from(prompt)) as u32;
                prices.prompt(prompt, shareable, cached_tokens)
            }
            Outcome::Finished if flight.answer.generated == NOT_YET => {
                prices.answer(flight.arrival.truth.output_tokens)
            }
            _ => return,
        };
        self.recorder.pay_tokens(self.now, amount);
    }
}
