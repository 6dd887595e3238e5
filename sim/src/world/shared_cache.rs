//! The cache of prompts that replicas share, joined to the world.

use super::World;
use crate::fleet::machine::Machine;
use windtunnel_ledger::shared_cache::SharedCacheTotals;

impl<M: Machine> World<'_, M> {
    /// A replica that has just taken a request learns what the shared cache has of its prompt.
    pub(super) fn offer_shared(&mut self, slot: u32, replica: usize) {
        let Some(shared) = &self.shared_cache else {
            return;
        };
        let request = self.requests.view(slot);
        let tokens = shared.lookup(request.prefix, request.prompt_tokens);
        let ahead = shared.reads_ahead(self.requests.get(slot).expects_cached);
        self.fleet.machines[replica].offer_shared(self.now, request.id, tokens, ahead);
    }

    /// Notes what a replica has fetched for requests that it is about to say have started.
    pub(super) fn note_refills(&mut self, replica: usize) {
        let Some(shared) = &mut self.shared_cache else {
            return;
        };
        let mut refills = std::mem::take(&mut shared.refills);
        self.fleet.machines[replica].take_refills(&mut refills);
        for refill in refills.drain(..) {
            shared.refilled(&refill);
            if let Some(slot) = self.requests.slot(refill.request) {
                self.requests.get_mut(slot).fetched_tokens = refill.tokens;
            }
        }
        shared.refills = refills;
    }

    /// A prompt is computed, or with `answered` its answer too: the shared cache has it from now on.
    #[inline(always)]
    pub(super) fn write_shared(&mut self, slot: u32, answered: bool) {
        if self.shared_cache.is_some() {
            self.write_to_shared(slot, answered);
        }
    }

    fn write_to_shared(&mut self, slot: u32, answered: bool) {
        let Some(shared) = &mut self.shared_cache else {
            return;
        };
        let request = self.requests.view(slot);
        let flight = self.requests.get(slot);
        if !answered {
            return shared.write(request.prefix, 0);
        }
        let named: u64 = request.prefix.iter().map(|e| u64::from(e.tokens)).sum();
        if flight.arrival.truth.output_continues && named == u64::from(request.prompt_tokens) {
            let most = request.max_output_tokens.unwrap_or(u32::MAX);
            // The last token is not in memory when the answer ends.
            let output = flight.answer.output_tokens.min(most).saturating_sub(1);
            shared.write(request.prefix, output);
        }
    }

    /// What came of the shared cache, if there is one.
    pub(super) fn shared_cache_totals(&self) -> Option<SharedCacheTotals> {
        let shared = self.shared_cache.as_ref()?;
        let fetched = self.fleet.machines.iter().map(M::fetched_tokens).sum();
        Some(shared.totals(fetched))
    }
}
