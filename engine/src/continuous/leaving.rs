//! Who leaves when the step in progress ends. Known when it begins; told to those who ask then.

use super::ContinuousBatching;
use crate::engine::Leaving;
use windtunnel_base::time::SimTime;

impl ContinuousBatching {
    /// What leaves at the end of the step in progress at `now`. Only the last step of a run lets
    /// anybody go. Takes time in proportion to those who leave.
    pub(super) fn leaving_after(&self, now: SimTime) -> Leaving {
        let begun = self.run.begun(now);
        if begun == 0 || begun < self.run.ends.len() {
            return Leaving::default();
        }
        let at = self.decoding.steps() + begun as u64;
        let decoding = self.decoding.finishing_at(at, &self.sequences);
        // In a step of prompts alone nobody decodes.
        let decoding = decoding.filter(|_| !self.plan.decodes_rest);
        let mut slots: Vec<u32> = decoding.collect();
        // Who left the set and joined it again within a step is there twice.
        slots.sort_unstable();
        slots.dedup();
        let of_chunks = self.plan.chunks.iter().filter_map(|&(slot, tokens)| {
            let s = &self.sequences[slot];
            let last = s.computed + tokens == s.target && s.generated + 1 == s.output;
            last.then_some((slot, s.target))
        });
        let leaving: Vec<_> = slots
            .into_iter()
            .map(|slot| (slot, self.sequences[slot].computed_at(at)))
            .chain(of_chunks)
            .map(|(slot, tokens)| (&self.sequences[slot].pages, tokens))
            .collect();
        Leaving {
            requests: leaving.len() as u32,
            kv_blocks: self.memory.held_alone(&leaving),
        }
    }
}
