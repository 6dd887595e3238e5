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
        for i in 0..self.paused.len() {
            self.join(self.paused[i]);
        }
        self.paused.clear();
    }

    /// A running request starts (again) to decode.
    pub(super) fn join(&mut self, slot: u32) {
        self.decoding.join(slot, &mut self.sequences);
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

    /// Plans everybody at once if budget and blocks suffice: tokens, and blocks for all but the
    /// decode set.
    fn plan_together(&mut self, budget: u64) -> Option<(u64, u64)> {
        let (overruns, overrun_blocks) = self.overruns();
        let decodes = u64::from(self.decoding.count()) + overruns;
        // Where a block must be free for each, it is if one is left when all have theirs; else
        // it depends on the order.
        let spare = if decodes > 0 {
            self.common.rules.spare
        } else {
            0
        };
        let mut blocks = overrun_blocks;
        let mut left = match self.common.rules.chunks() {
            true if self.common.rules.decodes_first => budget.saturating_sub(decodes),
            true => budget.checked_sub(decodes)?,
            false if self.prefilling.is_empty() => budget.saturating_sub(decodes),
            false => return None,
        };
        for i in 0..self.prefilling.len() {
            let slot = self.prefilling[i];
            let s = &self.sequences[slot];
            let wanted = s.prefill_left().min(self.common.rules.prefill_cap);
            // Who is cut short is the last of the batch, as nobody is admitted behind him; unless
            // he was left out before, when the walk ended early.
            let cut = u64::from(wanted) > left;
            if cut && !self.common.rules.decodes_first && !self.is_last_to_go_on(slot) {
                return None;
            }
            let tokens = u64::from(wanted).min(left) as u32;
            if tokens == 0 {
                break;
            }
            left -= u64::from(tokens);
            blocks += self.growth(slot, tokens);
            self.plan.chunks.push((slot, tokens));
        }
        let fits = blocks + self.decoding.blocks_needed(0) + spare <= self.memory.available();
        if !fits {
            return None;
        }
        if self.common.rules.decodes_first {
            for (i, &slot) in self.prefilling.iter().enumerate() {
                self.sequences[slot].passed_over = i >= self.plan.chunks.len();
            }
        }
        if overruns > 0 {
            self.overrun();
        }
        Some((decodes + budget.saturating_sub(decodes) - left, blocks))
    }

    /// Whether nobody behind this request in the batch has anything left to compute.
    fn is_last_to_go_on(&self, slot: u32) -> bool {
        let leaves = |r: &&(u64, u32)| self.sequences[r.1].phase == Phase::Leaving;
        let last = self.running.iter().rev().find(|r| !leaves(r));
        last.is_some_and(|r| r.1 == slot)
    }

    /// Blocks that a request takes for its next `tokens` tokens.
    fn growth(&self, slot: u32, tokens: u32) -> u64 {
        let s = &self.sequences[slot];
        let computed = s.computed_at(self.decoding.steps());
        if s.phase == Phase::Prefilling && self.common.rules.whole_prompt {
            return 0; // it has them
        }
        self.memory.blocks(computed + tokens) - self.memory.blocks(computed)
    }

    /// Requests that run one step too many, because their end was not foreseen when it was
    /// planned, and blocks they take for it.
    fn overruns(&self) -> (u64, u64) {
        let unforeseen = |&&slot: &&u32| !self.sequences[slot].foreseen;
        let who = self.leaving.iter().filter(unforeseen);
        who.fold((0, 0), |(n, blocks), &slot| {
            (n + 1, blocks + self.growth(slot, 1))
        })
    }

    fn overrun(&mut self) {
        for &slot in &self.leaving {
            let s = &mut self.sequences[slot];
            if !s.foreseen {
                s.phase = Phase::Overrunning;
            }
        }
    }

    /// Plans one request after the other, preempting where a block is missing.
    fn plan_in_order(&mut self, budget: &mut u64, outcomes: &mut Vec<EngineOutcome>) -> u64 {
        let mut planned = std::mem::take(&mut self.plan.in_order);
        let (mut next, mut stopped) = (0, false);
        while next < self.running.len() && !stopped {
            let (_, slot) = self.running[next];
            if self.waits_its_turn(slot) {
                planned.push(Planned::nothing(slot));
                next += 1;
                continue;
            }
            let tokens = self.wanted(slot, *budget);
            if tokens == 0 {
                break;
            }
            let blocks = self.growth(slot, tokens);
            let needs = match self.sequences[slot].phase {
                Phase::Prefilling => blocks,
                _ => blocks.max(self.common.rules.spare),
            };
            while needs > self.memory.available() {
                let victim = self.victim(next);
                let Some((_, victim_slot)) = self.running.remove(victim) else {
                    break;
                };
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
                *budget = budget.saturating_sub(u64::from(tokens));
                planned.push(Planned {
                    slot,
                    tokens,
                    blocks,
                });
                if self.sequences[slot].phase == Phase::Leaving {
                    self.sequences[slot].phase = Phase::Overrunning;
                }
                next += 1;
            }
        }
        self.pause_from(next);
        let decode_blocks = self.share_out(&mut planned, budget);
        self.plan.in_order = planned;
        decode_blocks
    }

    /// Turns what the walk gave into chunks, prompts that waited for it included; returns the
    /// blocks of those who decode.
    fn share_out(&mut self, planned: &mut Vec<Planned>, budget: &mut u64) -> u64 {
        let mut decode_blocks = 0;
        for p in planned.drain(..) {
            match self.sequences[p.slot].phase {
                Phase::Decoding => decode_blocks += p.blocks,
                Phase::Prefilling => {
                    let mut tokens = p.tokens;
                    if self.common.rules.decodes_first {
                        tokens = self.wanted(p.slot, *budget);
                        *budget -= u64::from(tokens);
                        self.sequences[p.slot].passed_over = tokens == 0;
                    }
                    if tokens > 0 {
                        self.plan.chunks.push((p.slot, tokens));
                    }
                }
                _ => {}
            }
        }
        decode_blocks
    }

    /// Whether a request gets nothing as the batch is walked: it has left but in name, or goes
    /// after all who decode.
    fn waits_its_turn(&self, slot: u32) -> bool {
        let s = &self.sequences[slot];
        match s.phase {
            Phase::Leaving => s.foreseen,
            Phase::Prefilling => self.common.rules.decodes_first,
            _ => false,
        }
    }

    /// Tokens that a running request would compute, given what is left of the budget.
    fn wanted(&self, slot: u32, budget: u64) -> u32 {
        let s = &self.sequences[slot];
        let wanted = match s.phase {
            Phase::Prefilling => s.prefill_left().min(self.common.rules.prefill_cap),
            _ if self.common.rules.decodes_first => return 1,
            _ => 1,
        };
        if self.common.rules.chunks() {
            u64::from(wanted).min(budget) as u32
        } else {
            wanted
        }
    }

    /// Requests from this place on get nothing in this step.
    fn pause_from(&mut self, place: usize) {
        for i in place..self.running.len() {
            let (_, slot) = self.running[i];
            if self.sequences[slot].phase == Phase::Decoding {
                self.decoding.leave(slot, &mut self.sequences);
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

impl Planned {
    fn nothing(slot: u32) -> Self {
        Self {
            slot,
            tokens: 0,
            blocks: 0,
        }
    }
}
