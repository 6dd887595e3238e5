//! Throwing running requests out of memory: whom, and what becomes of them.

use super::{ContinuousBatching, Phase};
use crate::config::{PreemptionKind, PrefixVisibility, RestartKind, SchedulerKind};
use crate::continuous::sequence::Sequence;
use crate::engine::{EngineOutcome, Outcome};

impl ContinuousBatching {
    /// Place of the request to throw out so that the one at `place` can go on: the last of the
    /// batch, or under priorities the latest to come of those with the worst priority (both as
    /// in vLLM V1). Where decodes go first, a prompt that got nothing in the last step has been
    /// passed before any of them and is spared.
    pub(super) fn victim(&self, place: usize) -> usize {
        let last = self.running.len() - 1;
        if self.common.rules.kind != SchedulerKind::Priority {
            let spared = |p: &usize| self.sequences[self.running[*p].1].passed_over;
            return match self.common.rules.decodes_first {
                true => (place..=last).rev().find(|p| !spared(p)).unwrap_or(place),
                false => last,
            };
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
        self.plan.preempted = true;
        let prefilling = match self.sequences[slot].phase {
            Phase::Decoding => {
                self.decoding.leave(slot, &mut self.sequences);
                false
            }
            Phase::Leaving | Phase::Overrunning => {
                // Its end is told; all that is taken from it is what it kept so far.
                self.leaving.retain(|&s| s != slot);
                self.forget(slot);
                return;
            }
            phase => {
                debug_assert!(phase == Phase::Prefilling, "{phase:?} in the batch");
                self.prefilling.retain(|&s| s != slot);
                true
            }
        };
        let restart = match self.common.rules.restart {
            // Who is in nobody's way but his own would come to the same point again and again.
            RestartKind::Scratch if self.running.is_empty() => RestartKind::Everything,
            rule => rule,
        };
        let s = &mut self.sequences[slot];
        let blocks = self.memory.blocks(s.computed);
        let swaps = self.common.rules.preemption == PreemptionKind::Swap
            && s.computed > 0
            && self.memory.swap_out(blocks);
        // As in vLLM, what was computed can be found again until others need its blocks: by the
        // request itself when it restarts, too.
        if !swaps && self.common.rules.visibility != PrefixVisibility::OnFinish {
            s.name_computed();
            let tokens = s.shareable.min(s.computed);
            self.memory.publish(&mut s.pages, &s.prefix, tokens);
        }
        let (tokens, unused) = match prefilling && self.common.rules.whole_prompt {
            true => (s.target, s.prefill_left()),
            false => (s.computed + served, served),
        };
        self.memory.release(&mut s.pages, tokens, unused);
        s.passed_over = false;
        let told = s.generated;
        if swaps {
            s.phase = Phase::Swapped;
            self.plan.swap_bytes += blocks * self.common.rules.block_bytes;
        } else {
            self.pending_prompt_tokens -= u64::from(s.prefill_left());
            s.phase = Phase::Waiting;
            start_over(s, prefilling, restart);
            self.pending_prompt_tokens += u64::from(s.target);
        }
        outcomes.push(EngineOutcome {
            request: s.request,
            outcome: Outcome::Preempted { generated: told },
        });
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
        self.drop_refill(slot);
        self.remove(slot);
        outcome
    }
}

/// What a request without its blocks has to compute before its next token comes out.
fn start_over(s: &mut Sequence, prefilling: bool, restart: RestartKind) {
    match restart {
        RestartKind::Scratch => {
            s.target = s.prompt;
            s.generated = 0;
        }
        // A decoding request has all in KV but the token that came out last.
        _ if !prefilling => s.target = s.computed + 1,
        // One that has nothing would be left without a prompt.
        RestartKind::Computed if s.computed > 0 => {
            s.output += s.prefill_left();
            s.target = s.computed;
        }
        RestartKind::Computed | RestartKind::Everything => {}
    }
    s.computed = 0;
}
