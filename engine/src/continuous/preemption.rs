//! Throwing running requests out of memory: whom, and what becomes of them.

use super::{ContinuousBatching, Phase};
use crate::config::{PreemptionKind, PrefixVisibility, SchedulerKind};
use crate::engine::{EngineOutcome, Outcome};

impl ContinuousBatching {
    /// Place of the request to throw out: the last of the batch, or under priorities the latest
    /// to come of those with the worst priority (both as in vLLM V1).
    pub(super) fn victim(&self) -> usize {
        let last = self.running.len() - 1;
        if self.rules.kind != SchedulerKind::Priority {
            return last;
        }
        let rank = |place: usize| {
            let s = &self.sequences[self.running[place].1];
            (s.priority, s.age)
        };
        (0..=last).max_by_key(|&place| rank(place)).unwrap_or(last)
    }

    /// Throws out a request that the caller took from the batch. `served` are tokens that this
    /// step has already taken blocks for.
    pub(super) fn preempt(&mut self, slot: u32, served: u32, outcomes: &mut Vec<EngineOutcome>) {
        let last_end = self.last_end.unwrap_or_default();
        match self.sequences[slot].phase {
            Phase::Decoding => {
                self.decoding.leave(slot, &mut self.sequences, last_end);
            }
            Phase::Prefilling => self.prefilling.retain(|&s| s != slot),
            phase => debug_assert!(false, "{phase:?} requests hold no place in the batch"),
        }
        let s = &mut self.sequences[slot];
        let blocks = self.memory.blocks(s.computed);
        let swaps = self.rules.preemption == PreemptionKind::Swap
            && s.computed > 0
            && self.memory.swap_out(blocks);
        // As in vLLM, what was computed can be found again until others need its blocks: by the
        // request itself when it restarts, too.
        if !swaps && self.rules.visibility != PrefixVisibility::OnFinish {
            s.name_computed();
            let tokens = s.shareable.min(s.computed);
            self.memory.publish(&mut s.pages, &s.prefix, tokens);
        }
        self.memory
            .release(&mut s.pages, s.computed + served, served);
        if swaps {
            s.phase = Phase::Swapped;
            self.plan.swap_bytes += blocks * self.rules.block_bytes;
        } else {
            let before = s.prefill_left();
            s.phase = Phase::Waiting;
            s.target = s.prompt + s.generated;
            s.computed = 0;
            self.pending_prompt_tokens += u64::from(s.target - before);
        }
        outcomes.push(EngineOutcome {
            request: s.request,
            outcome: Outcome::Preempted {
                generated: s.generated,
            },
        });
        self.plan.preempted = true;
        self.waiting.give_back(slot, &mut self.sequences);
    }

    /// Forgets a waiting request.
    pub(super) fn drop_waiting(&mut self, slot: u32) -> EngineOutcome {
        let s = &mut self.sequences[slot];
        if s.phase == Phase::Swapped {
            let blocks = self.memory.blocks(s.computed);
            self.memory.swap_in(blocks);
        }
        let outcome = EngineOutcome {
            request: s.request,
            outcome: Outcome::Cancelled {
                generated: s.generated,
            },
        };
        self.pending_prompt_tokens -= u64::from(s.prefill_left());
        self.waiting.leave(slot, &mut self.sequences);
        self.sequences.remove(slot);
        outcome
    }
}
