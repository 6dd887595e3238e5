//! Tokens that are paid for one by one.

use super::World;
use super::requests::NOT_YET;
use crate::fleet::machine::Machine;
use rustc_hash::FxHashMap;
use windtunnel_base::ids::{RequestId, TenantId};
use windtunnel_engine::engine::Outcome;
use windtunnel_scenarios::schema::FleetSpec;
use windtunnel_scenarios::schema::token_prices::TokenPricesSpec;

/// What tokens cost.
#[derive(Debug)]
pub(super) struct TokenPrices {
    by_replica: Vec<Option<TokenPricesSpec>>,
    /// Requests that their replicas were told to drop, whose they are, and the lengths of their whole answers,
    /// until the replicas say how far they came. By then their slots may belong to others.
    broken_off: FxHashMap<RequestId, (TenantId, u32)>,
}

impl TokenPrices {
    /// The prices of a fleet, if anything is paid for by the token.
    pub(super) fn new(fleet: &FleetSpec) -> Option<Box<Self>> {
        let by_replica = fleet.token_prices();
        let any = !by_replica.is_empty();
        any.then(|| {
            Box::new(Self {
                by_replica,
                broken_off: FxHashMap::default(),
            })
        })
    }

    /// A replica was told to drop a request.
    pub(super) fn broken_off(&mut self, request: RequestId, tenant: TenantId, whole: u32) {
        self.broken_off.insert(request, (tenant, whole));
    }
}

impl<M: Machine> World<'_, M> {
    /// Charges for what happened to a request inside a replica: for its prompt when it first starts, for
    /// its output when that is whole, or for as much of it as there is when it is broken off. To be told before
    /// anybody else notes it.
    pub(super) fn charge_tokens(&mut self, replica: usize, request: RequestId, outcome: Outcome) {
        let Some(all) = &mut self.token_prices else {
            return;
        };
        let Some(prices) = all.by_replica.get(replica).copied().flatten() else {
            return;
        };
        let slot = self.requests.slot(request);
        let broken_off = match outcome {
            Outcome::Finished | Outcome::Cancelled { .. } => all.broken_off.remove(&request),
            _ => None,
        };
        let amount = match outcome {
            Outcome::Started { cached_tokens } => {
                let first = |&slot: &u32| self.requests.get(slot).answer.started > self.now;
                let Some(slot) = slot.filter(first) else {
                    return;
                };
                let request = self.requests.view(slot);
                let shareable: u64 = request.prefix.iter().map(|e| u64::from(e.tokens)).sum();
                let prompt = request.prompt_tokens;
                let shareable = shareable.min(u64::from(prompt)) as u32;
                prices.prompt(prompt, shareable, cached_tokens)
            }
            Outcome::Answered { tokens, .. } => {
                if let Some((_, whole)) = all.broken_off.get_mut(&request) {
                    *whole = tokens;
                }
                return;
            }
            Outcome::Finished => match (broken_off, slot) {
                // It was told to stop, and its last token was faster.
                (Some((_, whole)), _) => prices.answer(whole),
                (None, Some(slot)) if self.requests.get(slot).answer.generated == NOT_YET => {
                    prices.answer(self.requests.get(slot).answer.output_tokens)
                }
                (None, _) => return,
            },
            Outcome::Cancelled { generated } => prices.answer(generated),
            Outcome::FirstToken | Outcome::Preempted { .. } => return,
        };
        let of_slot = || slot.map(|slot| self.requests.get(slot).arrival.tenant);
        let tenant = broken_off.map(|(tenant, _)| tenant).or_else(of_slot);
        let tenant = tenant.unwrap_or_default();
        self.recorder.pay_tokens(self.now, tenant, amount);
    }
}
