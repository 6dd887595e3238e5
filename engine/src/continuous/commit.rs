//! Ending steps: tokens come out, requests finish, leave, or start to decode.

use super::{ContinuousBatching, Phase};
use crate::config::PrefixVisibility;
use crate::cost::CostModel;
use crate::engine::{EngineOutcome, Outcome, StepObserver};
use windtunnel_base::ids::ClassId;
use windtunnel_base::time::SimTime;

impl ContinuousBatching {
    /// Ends the run in progress.
    pub(super) fn commit<O: StepObserver>(
        &mut self,
        outcomes: &mut Vec<EngineOutcome>,
        observer: &mut O,
    ) {
        let steps = self.run.ends.len() as u64;
        self.report_steps(observer);
        let Some(last) = self.run.ends.last() else {
            return;
        };
        let end = last.at();
        self.memory.tell_time(end);
        self.clock = last.fine();
        self.memory.take(self.decoding.growth(1, steps));
        if self.decoding.count() > 0 && !self.plan.decodes_rest {
            self.decoding.advance(steps, end);
        }
        while let Some(slot) = self.decoding.pop_finished(&mut self.sequences) {
            self.finish(slot);
        }
        self.end_chunks(end, observer);
        self.last_begin = self.run.start_of(steps as usize);
        self.last_end = Some(end);
        self.run.clear();
        self.drop_cancelled(end);
        self.memory.date_events(end);
        self.ended.sort_by_key(|&(place, _)| place);
        outcomes.extend(self.ended.drain(..).map(|(_, outcome)| outcome));
    }

    /// Tells the observer of every step: gaps of the decoding requests, then the step.
    fn report_steps<O: StepObserver>(&mut self, observer: &mut O) {
        let mut shape = self.run.shape;
        let mut from = self.run.start;
        let spread = self.common.cost.needs_spread();
        let energy = self.common.energy.decode_run(&shape);
        let mut last_token = self.decoding.last_token();
        let (classes, mut late) = match self.plan.decodes_rest {
            false => (self.decoding.by_class(), self.decoding.late()),
            true => (&[][..], &[][..]),
        };
        for step in &self.run.ends {
            let at = step.at();
            let gap = at.since(last_token);
            for (class, &count) in classes.iter().enumerate() {
                let class = ClassId::from(class);
                let late = late.iter().filter(|l| l.0 == class).count() as u32;
                if count > late {
                    observer.token_gap(at, class, gap, u64::from(count - late));
                }
            }
            for &(class, since) in late {
                observer.token_gap(at, class, at.since(since), 1);
            }
            late = &[]; // from the second step on, nobody is
            let energy = energy.step(&shape, at.since(from));
            observer.step(from, at, &shape, energy, step.extrapolated);
            shape.pass(1, spread);
            from = at;
            last_token = at;
        }
    }

    /// The planned prompt tokens are computed: whose prompt is complete emits a token.
    fn end_chunks<O: StepObserver>(&mut self, end: SimTime, observer: &mut O) {
        let chunks = std::mem::take(&mut self.plan.chunks);
        for &(slot, tokens) in &chunks {
            let s = &mut self.sequences[slot];
            s.computed += tokens;
            self.pending_prompt_tokens -= u64::from(tokens);
            if self.common.rules.visibility == PrefixVisibility::OnComputed {
                self.memory
                    .publish(&mut s.pages, &s.prefix, s.shareable.min(s.computed));
            }
            if s.computed < s.target {
                continue;
            }
            s.generated += 1;
            if !s.talking {
                s.talking = true;
                let outcome = EngineOutcome {
                    request: s.request,
                    outcome: Outcome::FirstToken,
                };
                self.ended.push((s.admission, outcome));
            } else {
                observer.token_gap(end, s.class, end.since(s.last_token), 1);
            }
            s.last_token = end;
            let done = s.generated == s.output;
            self.prefilling.retain(|&p| p != slot);
            if done {
                self.finish(slot);
            } else {
                self.join(slot);
            }
        }
        self.plan.chunks = chunks;
    }

    /// A request has all its tokens: it leaves.
    fn finish(&mut self, slot: u32) {
        if let Some(outcome) = self.answer(slot) {
            self.tell_end(slot, outcome);
        }
        let s = &mut self.sequences[slot];
        let computed = s.computed;
        if s.output_continues {
            // What follows the prompt in KV belongs to the same stream as its last extent.
            if let Some(last) = s.prefix.last_mut() {
                last.tokens += computed - s.shareable;
                self.memory.publish(&mut s.pages, &s.prefix, computed);
            }
        } else if self.common.rules.visibility == PrefixVisibility::OnFinish {
            self.memory
                .publish(&mut s.pages, &s.prefix, s.shareable.min(computed));
        }
        if self.common.rules.plans_ahead {
            // The next step is planned already, with its slot and blocks in use.
            let s = &mut self.sequences[slot];
            s.phase = Phase::Leaving;
            self.leaving.push(slot);
            self.tell_end(slot, Outcome::Finished);
        } else {
            self.leave_batch(slot, Outcome::Finished);
        }
    }

    /// Requests whose end was told before go for good, now that the step after it is planned.
    pub(super) fn release_leaving(&mut self) {
        for i in 0..self.leaving.len() {
            let slot = self.leaving[i];
            let place = self.place(slot);
            self.running.remove(place);
            self.forget(slot);
        }
        self.leaving.clear();
    }

    /// Frees what a request that left the batch holds.
    pub(super) fn forget(&mut self, slot: u32) {
        let s = &mut self.sequences[slot];
        let (tokens, unused) = match s.phase {
            Phase::Overrunning => (s.computed + 1, 1),
            Phase::Prefilling if self.common.rules.whole_prompt => (s.target, s.prefill_left()),
            _ => (s.computed, 0),
        };
        self.memory.release(&mut s.pages, tokens, unused);
        self.remove(slot);
    }

    /// Forgets a request that holds nothing any more.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(execution) = &mut self.execution {
            execution.release(self.sequences[slot].request);
        }
        self.sequences.remove(slot);
    }

    fn tell_end(&mut self, slot: u32, outcome: Outcome) {
        let s = &self.sequences[slot];
        let outcome = EngineOutcome {
            request: s.request,
            outcome,
        };
        self.ended.push((s.admission, outcome));
    }

    /// Frees what a running request holds and reports its end.
    fn leave_batch(&mut self, slot: u32, outcome: Outcome) {
        let place = self.place(slot);
        self.running.remove(place);
        self.tell_end(slot, outcome);
        self.forget(slot);
    }

    /// Drops the requests that were cancelled before `end` and are still here.
    fn drop_cancelled(&mut self, end: SimTime) {
        if self.cancels.is_empty() {
            return;
        }
        let mut cancels = std::mem::take(&mut self.cancels);
        cancels.retain(|&(request, at)| {
            let Some(slot) = self.sequences.find(request) else {
                return false; // it finished
            };
            if at >= end {
                return true;
            }
            self.drop_running(slot);
            false
        });
        self.cancels = cancels;
    }

    fn drop_running(&mut self, slot: u32) {
        match self.sequences[slot].phase {
            Phase::Waiting | Phase::Swapped => {
                let place = self.sequences[slot].admission;
                let outcome = self.drop_waiting(slot);
                self.ended.push((place, outcome));
                return;
            }
            Phase::Decoding => self.decoding.leave(slot, &mut self.sequences),
            Phase::Prefilling => self.prefilling.retain(|&p| p != slot),
            Phase::Paused => self.paused.retain(|&p| p != slot),
            Phase::Leaving | Phase::Overrunning => return, // it finished
        }
        let s = &self.sequences[slot];
        let generated = s.generated;
        self.pending_prompt_tokens -= u64::from(s.prefill_left());
        self.leave_batch(slot, Outcome::Cancelled { generated });
    }
}
