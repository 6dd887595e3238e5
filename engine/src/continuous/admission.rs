//! Filling a step from the waiting room: head by head, while slots, budget and blocks allow. The
//! first that does not fit holds up all behind it.

use super::{ContinuousBatching, Phase};
use crate::config::PrefixVisibility;
use crate::engine::{EngineOutcome, Outcome};

impl ContinuousBatching {
    /// Admits waiting requests into the step being formed.
    pub(super) fn admit(&mut self, budget: &mut u64, outcomes: &mut Vec<EngineOutcome>) {
        self.plan.longest = 0;
        if !self.common.rules.is_static() {
            self.fill(budget, outcomes);
        } else if self.running.is_empty() {
            self.waiting.open_bucket(&self.sequences);
            self.fill(budget, outcomes);
            self.waiting.close_bucket();
            self.batch = self.running.len() as u64;
        }
    }

    fn fill(&mut self, budget: &mut u64, outcomes: &mut Vec<EngineOutcome>) {
        while self.running.len() < self.common.rules.max_num_seqs as usize && *budget > 0 {
            let Some(slot) = self.waiting.head(&self.sequences) else {
                return;
            };
            let admitted = match self.sequences[slot].phase {
                Phase::Swapped => self.admit_swapped(slot, budget),
                _ => self.admit_waiting(slot, budget, outcomes),
            };
            if !admitted {
                return;
            }
        }
    }

    /// Blocks that admission must leave free: none if nobody runs, so that somebody always does.
    fn watermark(&self) -> u64 {
        if self.running.is_empty() {
            0
        } else {
            self.common.rules.watermark
        }
    }

    /// Admits the head of the waiting room, or lets it stand aside while its prompt is fetched; false if
    /// it does not fit, and holds up all behind it.
    fn admit_waiting(
        &mut self,
        slot: u32,
        budget: &mut u64,
        outcomes: &mut Vec<EngineOutcome>,
    ) -> bool {
        let watermark = self.watermark();
        let s = &self.sequences[slot];
        // One token at least is computed, or there would be nothing to sample from.
        let probe = self.memory.probe(&s.prefix, s.target - 1);
        let found = match self.refilling {
            Some(_) => self.with_refill(slot, probe.tokens),
            None => probe.tokens,
        };
        let s = &mut self.sequences[slot];
        let missing = s.target - found;
        let tokens = if self.common.rules.chunks() {
            u64::from(missing.min(self.common.rules.prefill_cap)).min(*budget) as u32
        } else {
            let (beside, budget) = (self.plan.chunks.len() as u64, *budget);
            let longest = u64::from(missing.max(self.plan.longest));
            let fits = match self.common.rules.padded_prompts {
                true => (beside + 1).saturating_mul(longest) <= budget,
                false => u64::from(missing) <= budget,
            };
            // One that is larger than the budget must run alone, or would never.
            if !fits && beside > 0 {
                return false;
            }
            missing
        };
        let cached = self.memory.blocks(probe.tokens);
        let whole = self.memory.blocks(s.target) - cached;
        let blocks = match self.common.rules.whole_prompt {
            true => whole,
            false => self.memory.blocks(found + tokens) - cached,
        };
        let asked = match self.common.rules.reserve_full_prompt {
            true => whole,
            false => blocks,
        };
        if asked + probe.idle + watermark > self.memory.available() {
            return false;
        }
        if found > probe.tokens && !self.has_refill(slot, probe.tokens) {
            return true; // others go before it
        }
        if self.refilling.is_some() {
            self.refilled(slot, probe.tokens, found);
        }
        let s = &mut self.sequences[slot];
        self.memory.acquire(&mut s.pages, &s.prefix, probe.tokens);
        self.memory.take(blocks);
        s.phase = Phase::Prefilling;
        s.computed = found;
        self.pending_prompt_tokens -= u64::from(found);
        outcomes.push(EngineOutcome {
            request: s.request,
            outcome: Outcome::Started {
                cached_tokens: found,
            },
        });
        if !self.common.rules.padded_prompts {
            *budget = budget.saturating_sub(u64::from(tokens));
        }
        self.plan.longest = self.plan.longest.max(tokens);
        self.enter_batch(slot);
        self.prefilling.push(slot);
        self.plan.chunks.push((slot, tokens));
        if self.common.rules.visibility == PrefixVisibility::OnSchedule {
            let s = &mut self.sequences[slot];
            self.memory.publish(
                &mut s.pages,
                &s.prefix,
                s.shareable.min(s.computed + tokens),
            );
        }
        true
    }

    /// Brings a request back from host memory, where it was.
    fn admit_swapped(&mut self, slot: u32, budget: &mut u64) -> bool {
        let watermark = self.watermark();
        let s = &mut self.sequences[slot];
        let prefill = s.prefill_left();
        let tokens = if prefill > 0 {
            u64::from(prefill.min(self.common.rules.prefill_cap)).min(*budget) as u32
        } else {
            1
        };
        let blocks = match prefill {
            // The step that decodes takes the block for its next token.
            0 if self.common.rules.prompts_alone() => self.memory.blocks(s.computed),
            1.. if self.common.rules.whole_prompt => self.memory.blocks(s.target),
            _ => self.memory.blocks(s.computed + tokens),
        };
        if blocks + watermark > self.memory.available() {
            return false;
        }
        let stored = self.memory.blocks(s.computed);
        self.memory.swap_in(stored);
        self.plan.swap_bytes += stored * self.common.rules.block_bytes;
        self.memory.take(blocks);
        *budget = budget.saturating_sub(u64::from(tokens));
        self.enter_batch(slot);
        if prefill > 0 {
            self.sequences[slot].phase = Phase::Prefilling;
            self.prefilling.push(slot);
            self.plan.chunks.push((slot, tokens));
        } else {
            self.join(slot);
        }
        true
    }

    /// Gives the head of the waiting room its place in the batch: the last, or where prompts have
    /// steps of their own (vLLM V0) that by its arrival.
    fn enter_batch(&mut self, slot: u32) {
        self.waiting.pop();
        self.admissions += 1;
        let s = &mut self.sequences[slot];
        if self.common.rules.prompts_alone() {
            s.admission = s.age;
            let place = self.running.partition_point(|&(a, _)| a < s.age);
            self.running.insert(place, (s.age, slot));
        } else {
            s.admission = self.admissions;
            self.running.push_back((self.admissions, slot));
        }
    }

    /// Shows others what the planned chunks will have computed, where that is the rule.
    pub(super) fn publish_plan(&mut self) {
        if self.common.rules.visibility != PrefixVisibility::OnSchedule {
            return;
        }
        for &(slot, tokens) in &self.plan.chunks {
            let s = &mut self.sequences[slot];
            self.memory.publish(
                &mut s.pages,
                &s.prefix,
                s.shareable.min(s.computed + tokens),
            );
        }
    }
}
