//! What a replica is asked to do, and when it says something: requests come and go, steps begin and end.

use super::ContinuousBatching;
use super::sequence::Phase;
use crate::engine::{
    CacheEvent, Engine, EngineOutcome, EngineStats, Leaving, Onward, StepObserver,
};
use crate::execute::ExecutionError;
use crate::request::Submission;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::RequestId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;

impl Engine for ContinuousBatching {
    fn submit<O: StepObserver>(
        &mut self,
        now: SimTime,
        submission: &Submission<'_>,
        _observer: &mut O,
    ) -> Result<(), Refusal> {
        let request = &submission.request;
        let asked = request.max_output_tokens.unwrap_or(1).max(1);
        let limit = u64::from(self.common.rules.max_tokens);
        if u64::from(request.prompt_tokens) + u64::from(asked) > limit {
            return Err(Refusal::TooLong);
        }
        if self.waiting.len() >= self.common.rules.queue_limit {
            return Err(Refusal::QueueFull);
        }
        let room = self.common.rules.max_tokens - request.prompt_tokens;
        let asked = request.max_output_tokens.map_or(room, |m| m.max(1));
        let output = match &mut self.execution {
            Some(execution) => {
                execution.submit(submission);
                match submission.truth.task {
                    Some(_) => asked.min(room),
                    None => submission.truth.output_tokens.clamp(1, asked.min(room)),
                }
            }
            None => submission.truth.output_tokens.clamp(1, asked.min(room)),
        };
        let buckets = self.common.rules.buckets.as_ref();
        let slot = self.sequences.insert(now, submission, output, buckets);
        self.sequences[slot].foreseen = output == asked.min(room);
        self.pending_prompt_tokens += u64::from(request.prompt_tokens);
        self.waiting.arrive(slot);
        if self.common.rules.joins_at_boundary && self.newcomers_could_join() {
            self.run.stop_at(now);
        }
        if self.run.ends.len() > 1 && self.newcomers_could_join() {
            // The step after the one in progress is planned already where plans are made ahead.
            self.run
                .cut(now, usize::from(self.common.rules.plans_ahead));
        }
        Ok(())
    }

    fn cancel<O: StepObserver>(
        &mut self,
        now: SimTime,
        request: RequestId,
        _observer: &mut O,
    ) -> bool {
        let Some(slot) = self.sequences.find(request) else {
            return false;
        };
        match self.sequences[slot].phase {
            Phase::Waiting | Phase::Swapped => {
                // The room as it is when steps are taken one by one.
                let begun = self.run.begun(now);
                let seen = match (self.common.rules.plans_ahead, begun) {
                    (false, n) => self.run.start_of(n),
                    (true, 0 | 1) => self.last_begin,
                    (true, n) => self.run.start_of(n - 1),
                };
                self.waiting.let_in(seen, false, &mut self.sequences);
                if self.waiting.head(&self.sequences) == Some(slot) {
                    self.head_left = Some(now);
                    self.run.cut(now, 0);
                }
                let outcome = self.drop_waiting(slot);
                self.told_next.push(outcome);
            }
            Phase::Prefilling | Phase::Decoding | Phase::Paused => {
                if !self.sequences[slot].cancelled {
                    self.sequences[slot].cancelled = true;
                    self.cancels.push((request, now));
                    self.run.cut(now, 0);
                }
            }
            Phase::Leaving | Phase::Overrunning => return false,
        }
        true
    }

    fn next_event(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) -> Option<SimTime> {
        outcomes.append(&mut self.told_next);
        if self.failure().is_some() {
            return None;
        }
        if self.waiting.len() == 0 && !self.goes_on() {
            self.memory.tell_time(now);
            // Nobody waits for the slots and blocks of those who leave.
            self.release_leaving();
        }
        if self.run.end().is_none() && (!self.running.is_empty() || self.waiting.len() > 0) {
            self.start(now, outcomes);
        }
        self.run.end().or_else(|| self.wake())
    }

    fn advance<O: StepObserver>(
        &mut self,
        now: SimTime,
        outcomes: &mut Vec<EngineOutcome>,
        observer: &mut O,
    ) {
        if self.run.end().is_none() && self.wake() == Some(now) {
            return; // somebody's prompt is here: a step begins when it is asked what comes next
        }
        assert!(
            self.run.end() == Some(now),
            "no step ends at {now:?} but at {:?}",
            self.run.end()
        );
        self.commit(outcomes, observer);
    }

    fn stats(&self, now: SimTime) -> EngineStats {
        let begun = self.run.begun(now);
        self.stats_in_step(begun, self.decoding.growth(1, begun as u64))
    }

    fn stats_onward(&self, now: SimTime, onward: &mut Onward) -> EngineStats {
        while self.run.begins_before(onward.begun, now) {
            if onward.begun > 0 {
                onward.growth += self.decoding.blocks_needed(onward.begun as u64);
            }
            onward.begun += 1;
        }
        self.stats_in_step(onward.begun, onward.growth)
    }

    fn leaving(&self, now: SimTime) -> Leaving {
        self.leaving_after(now)
    }

    fn failure(&self) -> Option<&ExecutionError> {
        self.execution.as_ref()?.failure()
    }

    fn watch_cache(&mut self, on: bool) {
        self.watched = on;
    }

    fn cached_prefix_tokens(&self, prefix: &[Extent], prompt_tokens: u32) -> u32 {
        self.memory.lookup(prefix, prompt_tokens.saturating_sub(1))
    }

    fn record_cache_events(&mut self, on: bool) {
        self.memory.record_events(on);
    }

    fn take_cache_events(&mut self, events: &mut Vec<CacheEvent>) {
        self.memory.take_events(events);
    }
}
