//! Filling a step from the running requests, which go before the waiting ones.
//!
//! The rule is that of vLLM V1: in batch order, each running request gets one token if it decodes,
//! or as much of its prompt as cap and budget allow; where a block is missing, somebody is
//! preempted. As long as budget and blocks suffice for all, the order does not show, and the
//! decoding requests are served as one sum.

use super::{ContinuousBatching, Phase};
use crate::engine::EngineOutcome;

impl ContinuousBatching {
    /// Requests that the last step had no tokens for decode again.
    pub(super) fn resume_paused(&mut self) {
        let last_end = self.last_end.unwrap_or_default();
        for i in 0..self.paused.len() {
            self.join(self.paused[i], last_end);
        }
        self.paused.clear();
    }

    /// A running request starts (again) to decode.
    pub(super) fn join(&mut self, slot: u32, last_step_end: super::SimTime) {
        self.decoding.join(slot, &mut self.sequences, last_step_end);
    }

    /// Plans the running requests and takes their blocks; returns how many of those are for
    /// decoding requests.
    pub(super) fn schedule_running(
        &mut self,
        budget: &mut u64,
        outcomes: &mut Vec<EngineOutcome>,
    ) -> u64 {
        match self.plan_together(*budget) {
            Some((tokens, prompt_blocks)) => {
                let decode_blocks = self.decoding.blocks_needed(0);
                self.memory.take(prompt_blocks);
                self.run.first_evicted = decode_blocks.saturating_sub(self.memory.empty());
                self.memory.take(decode_blocks);
                *budget = budget.saturating_sub(tokens);
                self.publish_plan();
                decode_blocks
            }
            None => {
                self.plan.chunks.clear();
                self.run.first_evicted = 0;
                let decode_blocks = self.plan_in_order(budget, outcomes);
                self.publish_plan();
                decode_blocks
            }
        }
    }

    /// Plans everybody at once if budget and blocks suffice: tokens, and blocks for prompts.
    fn plan_together(&mut self, budget: u64) -> Option<(u64, u64)> {
        let decodes = u64::from(self.decoding.count());
        if !self.rules.chunks() {
            let fits = self.decoding.blocks_needed(0) <= self.memory.available();
            return (self.prefilling.is_empty() && fits).then_some((decodes, 0));
        }
        let mut left = budget.checked_sub(decodes)?;
        let mut blocks = 0;
        for i in 0..self.prefilling.len() {
            let slot = self.prefilling[i];
            let s = &self.sequences[slot];
            let wanted = s.prefill_left().min(self.rules.prefill_cap);
            // Nobody is admitted behind a prompt that the budget cuts short, and nobody wants more
            // than he had; so only the last of the batch can be cut, and the order is kept.
            debug_assert!(
                u64::from(wanted) <= left || self.running.last().is_some_and(|r| r.1 == slot)
            );
            let tokens = u64::from(wanted).min(left) as u32;
            if tokens == 0 {
                break;
            }
            left -= u64::from(tokens);
            let computed = s.computed;
            blocks += self.memory.blocks(computed + tokens) - self.memory.blocks(computed);
            self.plan.chunks.push((slot, tokens));
        }
        let fits = blocks + self.decoding.blocks_needed(0) <= self.memory.available();
        fits.then_some((budget - left, blocks))
    }

    /// Plans one request after the other, preempting where a block is missing.
    fn plan_in_order(&mut self, budget: &mut u64, outcomes: &mut Vec<EngineOutcome>) -> u64 {
        let mut planned = std::mem::take(&mut self.plan.in_order);
        let (mut next, mut stopped) = (0, false);
        while next < self.running.len() && !stopped {
            let (_, slot) = self.running[next];
            let tokens = self.wanted(slot, *budget);
            if tokens == 0 {
                break;
            }
            let computed = self.sequences[slot].computed_at(self.decoding.steps());
            let blocks = self.memory.blocks(computed + tokens) - self.memory.blocks(computed);
            while blocks > self.memory.available() {
                let victim = self.victim();
                let (_, victim_slot) = self.running.remove(victim);
                let served = if victim < next {
                    next -= 1;
                    let served = planned.remove(victim);
                    *budget = budget.saturating_add(u64::from(served.tokens));
                    served.tokens
                } else {
                    0
                };
                self.preempt(victim_slot, served, outcomes);
                if victim_slot == slot {
                    stopped = true;
                    break;
                }
            }
            if !stopped {
                self.memory.take(blocks);
                *budget -= u64::from(tokens);
                planned.push(Planned {
                    slot,
                    tokens,
                    blocks,
                });
                next += 1;
            }
        }
        self.pause_from(next);
        let mut decode_blocks = 0;
        for p in planned.drain(..) {
            if self.sequences[p.slot].phase == Phase::Decoding {
                decode_blocks += p.blocks;
            } else {
                self.plan.chunks.push((p.slot, p.tokens));
            }
        }
        self.plan.in_order = planned;
        decode_blocks
    }

    /// Tokens that a running request would compute, given what is left of the budget.
    fn wanted(&self, slot: u32, budget: u64) -> u32 {
        let s = &self.sequences[slot];
        let wanted = match s.phase {
            Phase::Decoding => 1,
            _ => s.prefill_left().min(self.rules.prefill_cap),
        };
        if self.rules.chunks() {
            u64::from(wanted).min(budget) as u32
        } else {
            wanted
        }
    }

    /// Requests from this place on get nothing in this step.
    fn pause_from(&mut self, place: usize) {
        let last_end = self.last_end.unwrap_or_default();
        for i in place..self.running.len() {
            let (_, slot) = self.running[i];
            if self.sequences[slot].phase == Phase::Decoding {
                self.decoding.leave(slot, &mut self.sequences, last_end);
                self.paused.push(slot);
            }
        }
    }
}

/// What one running request was given in this step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    slot: u32,
    tokens: u32,
    blocks: u64,
}
