//! Steps of a simulation that take what is said of them, and what happened to others meanwhile.

use super::tape::Tape;
use super::times::StepTimes;
use std::sync::Arc;
use windtunnel_base::ids::RequestId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::execute::{Answer, ExecutionError, StepExecutor, StepPlan, StepTime};
use windtunnel_engine::request::Submission;

/// Says what steps take, and computes nothing: answers have the lengths that are known of them.
#[derive(Clone, Debug)]
pub(super) struct Predicted {
    times: Arc<StepTimes>,
    tape: Tape,
    /// When the stretch begins that is judged: the tape begins with it.
    from: SimTime,
    within: bool,
    /// When the last step ended.
    end: Option<SimTime>,
}

impl Predicted {
    pub(super) const fn new(times: Arc<StepTimes>, tape: Tape, from: SimTime) -> Self {
        Self {
            times,
            tape,
            from,
            within: false,
            end: None,
        }
    }
}

impl StepExecutor for Predicted {
    fn submit(&mut self, _: &Submission<'_>) -> Result<(), ExecutionError> {
        Ok(())
    }

    fn step(
        &mut self,
        plan: &StepPlan<'_>,
        _: &mut Vec<RequestId>,
    ) -> Result<StepTime, ExecutionError> {
        if !self.within && plan.begin >= self.from {
            self.within = true;
            self.tape.rewind();
        }
        let rested = self.end != Some(plan.begin);
        let said = self.times.says(plan.shape, rested);
        let seconds = if rested {
            self.tape.after_rest(said)
        } else {
            self.tape.after_step(said)
        };
        let took = SimDuration::from_secs_f64_saturating(seconds);
        self.end = Some(plan.begin + took);
        Ok(StepTime::Measured(took))
    }

    fn finish(&mut self, _: RequestId) -> Option<Answer> {
        None
    }

    fn release(&mut self, _: RequestId) {}
}
