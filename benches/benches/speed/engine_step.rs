//! One engine step by size of the batch: decode steps in fast-forward, decode steps one by one, and
//! mixed steps, in which part of a long prompt is computed beside the decodes. Decoding requests are
//! kept as sums, so a step should cost the same for one request as for a thousand.

use criterion::{BenchmarkId, Criterion, Throughput};
use std::time::{Duration, Instant};
use windtunnel_base::ids::{ClassId, RequestId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_base::units::MicroJoules;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::config::{ContinuousSpec, EngineSpec, SchedulerSpec};
use windtunnel_engine::engine::{Engine as _, EngineOutcome, Outcome, StepObserver};
use windtunnel_engine::replica::Replica;
use windtunnel_engine::request::{RequestView, Submission, Truth};

/// Tokens that each decoding request emits, and those of a prompt that is computed beside them.
const LONG: u32 = 100_000;
/// Tokens of one step.
const BUDGET: u32 = 2048;

/// Counts steps.
#[derive(Default)]
struct Count(u64);

impl StepObserver for Count {
    fn token_gap(&mut self, _: SimTime, _: ClassId, _: SimDuration, _: u64) {}

    fn step(&mut self, _: SimTime, _: SimTime, _: &BatchShape, _: MicroJoules, _: bool) {
        self.0 += 1;
    }
}

/// A replica that is kept at a batch of constant size.
struct Driven {
    replica: Replica,
    now: SimTime,
    sent: u32,
    outcomes: Vec<EngineOutcome>,
    steps: Count,
    /// The long prompt that is computed beside the decodes, if any.
    prompt: Option<RequestId>,
}

impl Driven {
    fn new(decoding: u32, prefilling: bool, fast_forward: bool) -> Self {
        let mut spec = ContinuousSpec {
            fast_forward,
            scheduler: SchedulerSpec {
                token_budget: BUDGET,
                max_num_seqs: BUDGET,
                ..SchedulerSpec::default()
            },
            ..ContinuousSpec::default()
        };
        spec.kv.blocks = Some(1 << 30); // memory is no concern here
        let replica = match Replica::build(&EngineSpec::Continuous(Box::new(spec))) {
            Ok(replica) => replica,
            Err(error) => panic!("{error}"),
        };
        let mut driven = Self {
            replica,
            now: SimTime::ZERO,
            sent: 0,
            outcomes: Vec::new(),
            steps: Count::default(),
            prompt: None,
        };
        for _ in 0..decoding {
            driven.submit(1, LONG);
        }
        if prefilling {
            driven.submit_prompt();
        }
        // Past the prompts of those who decode.
        driven.run(u64::from(decoding));
        driven
    }

    fn submit(&mut self, prompt_tokens: u32, output_tokens: u32) {
        let request = RequestView {
            id: RequestId(self.sent),
            sent_at: self.now,
            deadline: None,
            prompt_tokens,
            max_output_tokens: Some(output_tokens),
            predicted_output_tokens: None,
            tenant: TenantId(0),
            class: ClassId(0),
            priority: 0,
            session: 0,
            prefix: &[],
        };
        let truth = Truth {
            output_tokens,
            service: SimDuration::ZERO,
            good: true,
            attack: false,
            output_continues: false,
            task: None,
        };
        self.sent += 1;
        let taken = self
            .replica
            .submit(self.now, &Submission { request, truth }, &mut self.steps);
        assert!(taken.is_ok(), "refused: {taken:?}");
    }

    fn submit_prompt(&mut self) {
        self.prompt = Some(RequestId(self.sent));
        self.submit(LONG, 1);
    }

    /// Runs at least so many steps; says how many.
    fn run(&mut self, steps: u64) -> u64 {
        self.steps.0 = 0;
        while self.steps.0 < steps {
            let Some(next) = self.replica.next_event(self.now, &mut self.outcomes) else {
                panic!("a full batch rests");
            };
            self.now = next;
            self.replica
                .advance(next, &mut self.outcomes, &mut self.steps);
            // Who has finished is replaced by one of its kind.
            for i in 0..self.outcomes.len() {
                let EngineOutcome { request, outcome } = self.outcomes[i];
                match outcome {
                    Outcome::Finished if self.prompt == Some(request) => self.submit_prompt(),
                    Outcome::Finished => self.submit(1, LONG),
                    _ => {}
                }
            }
            self.outcomes.clear();
        }
        self.steps.0
    }
}

/// Time of `iterations` steps. Fast-forward runs as many at once as it likes, so more are measured.
fn time(driven: &mut Driven, iterations: u64) -> Duration {
    let begun = Instant::now();
    let steps = driven.run(iterations);
    begun.elapsed().mul_f64(iterations as f64 / steps as f64)
}

pub(crate) fn benches(c: &mut Criterion) {
    for (name, prefilling, fast_forward) in [
        ("decode", false, true),
        ("decode_one_by_one", false, false),
        ("mixed", true, true),
    ] {
        let mut group = c.benchmark_group(format!("engine_step/{name}"));
        group.throughput(Throughput::Elements(1));
        for batch in [1, 64, 256, 1024] {
            group.bench_function(BenchmarkId::from_parameter(batch), |b| {
                let mut driven = Driven::new(batch, prefilling, fast_forward);
                b.iter_custom(|iterations| time(&mut driven, iterations));
            });
        }
        group.finish();
    }
}
