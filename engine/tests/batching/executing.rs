//! What an executor is told: blocks hold what the scheduler says they hold, and who is told to
//! compute what the cost model prices cannot be told apart from the simulated replica.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use crate::equivalence::{
    calls, check_ends, costs, jobs, memories, memory_for, schedulers, script, spec,
};
use crate::harness::{Job, drive};
use proptest::prelude::*;
use std::collections::BTreeMap;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::RequestId;
use windtunnel_base::rng::mix64;
use windtunnel_engine::config::{EngineSpec, KvSpec, PreemptionKind};
use windtunnel_engine::engine::{Engine, Outcome};
use windtunnel_engine::execute::{Answer, ExecutionError, StepExecutor, StepPlan, StepTime};
use windtunnel_engine::replica::Replica;
use windtunnel_engine::request::Submission;

/// Writes down in which block which token of which context is, and checks it before it is read.
#[derive(Debug)]
struct Checker {
    block_size: usize,
    total: usize,
    blocks: BTreeMap<u32, Vec<Option<u64>>>,
    requests: BTreeMap<u32, Request>,
}

#[derive(Debug)]
struct Request {
    prompt: u32,
    prefix: Vec<Extent>,
    continues: bool,
    /// Where its answer ends, should it have a task.
    task_output: Option<u32>,
    finished: bool,
}

impl Checker {
    fn new(kv: &KvSpec) -> Self {
        Self {
            block_size: kv.block_size as usize,
            total: kv.blocks.unwrap() as usize,
            blocks: BTreeMap::new(),
            requests: BTreeMap::new(),
        }
    }
}

impl Request {
    /// The token at a position, by the stream it belongs to.
    fn token(&self, id: u32, position: u32) -> u64 {
        let mut begin = 0;
        for (i, extent) in self.prefix.iter().enumerate() {
            let endless = self.continues && i + 1 == self.prefix.len();
            if position < begin + extent.tokens || endless {
                return mix64(extent.key ^ u64::from(position - begin) << 32);
            }
            begin += extent.tokens;
        }
        mix64(mix64(u64::from(id) + 1_000_000) ^ u64::from(position))
    }

    /// What stands at each position once it is computed: a digest of all tokens up to there.
    fn contexts(&self, id: u32, tokens: u32) -> Vec<u64> {
        let mut digest = 7;
        (0..tokens)
            .map(|p| {
                digest = mix64(digest ^ self.token(id, p));
                digest
            })
            .collect()
    }
}

impl StepExecutor for Checker {
    fn submit(&mut self, s: &Submission<'_>) -> Result<(), ExecutionError> {
        let covered: u32 = s.request.prefix.iter().map(|e| e.tokens).sum();
        let request = Request {
            prompt: s.request.prompt_tokens,
            prefix: s.request.prefix.to_vec(),
            continues: s.truth.output_continues && covered == s.request.prompt_tokens,
            task_output: s.truth.task.map(|t| t as u32),
            finished: false,
        };
        assert!(
            self.requests.insert(s.request.id.0, request).is_none(),
            "submitted once"
        );
        Ok(())
    }

    fn step(
        &mut self,
        plan: &StepPlan<'_>,
        ended: &mut Vec<RequestId>,
    ) -> Result<StepTime, ExecutionError> {
        for &block in plan.fresh {
            self.blocks.insert(block, vec![None; self.block_size]);
        }
        let mut shape = (0, 0_u64);
        for work in plan.sequences {
            let request = &self.requests[&work.request.0];
            let end = work.start + work.tokens;
            let contexts = request.contexts(work.request.0, end);
            let blocks = &plan.blocks[work.first_block as usize..][..work.blocks as usize];
            assert_eq!(blocks.len(), (end as usize).div_ceil(self.block_size));
            for p in work.start..end {
                let block = blocks[p as usize / self.block_size];
                assert!((block as usize) < self.total);
                let cell = &mut self.blocks.get_mut(&block).unwrap()[p as usize % self.block_size];
                assert_eq!(*cell, None, "nothing is written over");
                *cell = Some(contexts[p as usize]);
            }
            shape.0 += u32::from(work.samples);
            shape.1 += u64::from(work.tokens);
            // The token drawn stands at `end`.
            let drawn = (end + 1).saturating_sub(request.prompt);
            if work.samples && !request.finished && request.task_output == Some(drawn) {
                ended.push(work.request);
            }
        }
        assert_eq!(shape, (plan.shape.sampled, plan.shape.tokens()));
        for work in plan.sequences {
            let request = &self.requests[&work.request.0];
            let blocks = &plan.blocks[work.first_block as usize..][..work.blocks as usize];
            let end = work.start + work.tokens;
            let contexts = request.contexts(work.request.0, end);
            for (p, context) in contexts.iter().enumerate() {
                let cell = self.blocks[&blocks[p / self.block_size]][p % self.block_size];
                assert_eq!(cell, Some(*context), "{work:?} at {p}");
            }
        }
        Ok(StepTime::Modelled)
    }

    fn finish(&mut self, request: RequestId) -> Option<Answer> {
        let request = self.requests.get_mut(&request.0).unwrap();
        request.finished = true;
        request.task_output.map(|_| Answer { good: false })
    }

    fn release(&mut self, request: RequestId) {
        assert!(
            self.requests.remove(&request.0).is_some(),
            "released once, after all else"
        );
    }
}

/// The jobs with a task where the mask says so: the truth then does not say where they end.
fn with_tasks(jobs: &[Job], mask: u32) -> Vec<Job> {
    let jobs = jobs.iter().enumerate().map(|(i, job)| {
        let mut job = job.clone();
        if mask >> i & 1 == 1 && !job.continues {
            job.task = Some(u64::from(job.output));
            job.output = 1;
        }
        job
    });
    jobs.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_computed_is_what_is_simulated(
        scheduler in schedulers(),
        kv in memories(),
        cost in costs(),
        jobs in jobs(),
        calls in calls(),
        gap in prop_oneof![Just(500_u64), Just(1000), Just(1500), Just(7300)],
        tasks in any::<u32>(),
    ) {
        let kv = memory_for(&scheduler, kv);
        let kv = KvSpec { preemption: PreemptionKind::Recompute, ..kv };
        let script = script(&jobs, &calls, gap, true);
        let spec = |fast| -> EngineSpec { spec(scheduler.clone(), kv.clone(), cost.clone(), fast) };
        let mut simulated = Replica::build(&spec(true)).unwrap();
        simulated.watch_cache(true);
        let expected = drive(&mut simulated, &jobs, &script, true);
        let mut computed = Replica::build(&spec(true)).unwrap();
        computed.watch_cache(true);
        computed.execute_with(Box::new(Checker::new(&kv)));
        let jobs = with_tasks(&jobs, tasks);
        let mut log = drive(&mut computed, &jobs, &script, true);
        check_ends(&log, &jobs, &computed);
        prop_assert_eq!(computed.failure(), None);
        let answers = log.outcomes.iter().filter(|o| matches!(o.2, Outcome::Answered { .. }));
        let finished = log.outcomes.iter().filter(|o| {
            o.2 == Outcome::Finished && jobs[o.1 as usize].task.is_some()
        });
        prop_assert_eq!(answers.count(), finished.count());
        log.outcomes.retain(|o| !matches!(o.2, Outcome::Answered { .. }));
        prop_assert_eq!(expected, log);
    }
}

/// An executor that fails at its third step.
#[derive(Debug)]
struct Failing(u32);

impl StepExecutor for Failing {
    fn submit(&mut self, _: &Submission<'_>) -> Result<(), ExecutionError> {
        Ok(())
    }

    fn step(
        &mut self,
        _: &StepPlan<'_>,
        _: &mut Vec<RequestId>,
    ) -> Result<StepTime, ExecutionError> {
        self.0 += 1;
        match self.0 {
            3 => Err(ExecutionError("the device is gone".into())),
            _ => Ok(StepTime::Modelled),
        }
    }

    fn finish(&mut self, _: RequestId) -> Option<Answer> {
        None
    }

    fn release(&mut self, _: RequestId) {}
}

#[test]
fn a_failure_is_told_and_nothing_more() {
    let mut engine = Replica::build(&EngineSpec::Continuous(Box::default())).unwrap();
    engine.execute_with(Box::new(Failing(0)));
    let calls = [(0, crate::harness::Call::Submit(0))];
    let log = drive(&mut engine, &[Job::new(10, 10)], &calls, true);
    assert_eq!(log.steps.len(), 2);
    assert_eq!(log.finished(0), None);
    assert_eq!(
        engine.failure().map(ToString::to_string).as_deref(),
        Some("the device is gone")
    );
}
