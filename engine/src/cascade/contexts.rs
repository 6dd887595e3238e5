//! Contexts of sessions between turns: those used longest ago leave when the memory is full.

use super::Arrival;
use crate::config::CascadeSpec;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(super) struct Contexts {
    /// Tokens that the memory holds.
    capacity: u64,
    held: u64,
    clock: u64,
    /// Session to when it was used and its tokens.
    sessions: BTreeMap<u64, (u64, u32)>,
    /// When it was used to session.
    order: BTreeMap<u64, u64>,
}

impl Contexts {
    pub(super) fn new(spec: &CascadeSpec) -> Self {
        let per_token = spec.device.frontier.kv_per_token.0 as f64 * spec.kv_bits() / 16.0;
        let tokens = spec.device.context_memory.0 as f64 / per_token.max(1.0);
        Self {
            capacity: tokens as u64,
            held: 0,
            clock: 0,
            sessions: BTreeMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// What is kept of the session before this turn, in tokens; none if nothing is. Afterwards
    /// prompt and answer of this turn are.
    pub(super) fn visit(&mut self, arrival: &Arrival) -> Option<u32> {
        self.clock += 1;
        let tokens = arrival.prompt_tokens.saturating_add(arrival.output_tokens);
        let before = self.sessions.insert(arrival.session, (self.clock, tokens));
        self.held += u64::from(tokens);
        if let Some((at, old)) = before {
            self.order.remove(&at);
            self.held -= u64::from(old);
        }
        self.order.insert(self.clock, arrival.session);
        while self.held > self.capacity {
            let Some((_, session)) = self.order.pop_first() else {
                break;
            };
            if let Some((_, tokens)) = self.sessions.remove(&session) {
                self.held -= u64::from(tokens);
            }
        }
        before.map(|(_, tokens)| tokens)
    }
}
