use super::build::tiny;
use super::*;
use crate::backend::cpu::{Cpu, KvMemory};
use crate::config::ModelConfig;
use crate::kv::format::KvFormat;
use crate::weights::Weights;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::{ClassId, TenantId};
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_engine::config::{
    ContinuousSpec, EngineSpec, KvSpec, PrefixVisibility, SchedulerKind, SchedulerSpec,
};
use windtunnel_engine::engine::{Blind, Engine, EngineOutcome, Outcome};
use windtunnel_engine::replica::Replica;
use windtunnel_engine::request::{RequestView, Truth};
use windtunnel_tasks::{TaskClass, key_of, of_key};

pub(crate) const BLOCK: u32 = 8;
pub(crate) const BLOCKS: u64 = 24;

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) at: u64,
    pub(crate) prompt: u32,
    pub(crate) output: u32,
    pub(crate) prefix: Vec<Extent>,
    pub(crate) continues: bool,
    pub(crate) task: Option<u64>,
    pub(crate) max_output: Option<u32>,
    /// None is a conversation of its own.
    pub(crate) session: Option<u64>,
}

impl Job {
    fn lengths(prompt: u32, output: u32) -> Self {
        Self {
            at: 0,
            prompt,
            output,
            prefix: Vec::new(),
            continues: false,
            task: None,
            max_output: None,
            session: None,
        }
    }

    pub(crate) fn task(class: TaskClass, number: u64, max_output: u32) -> Self {
        let key = key_of(class, number);
        let prompt = of_key(key).prompt_tokens() as u32;
        Self {
            prefix: vec![Extent {
                key: key ^ 0x5555,
                tokens: prompt,
            }],
            task: Some(key),
            max_output: Some(max_output),
            ..Self::lengths(prompt, 1)
        }
    }
}

pub(crate) fn spec(scheduler: SchedulerSpec, kv: KvSpec) -> EngineSpec {
    EngineSpec::Continuous(Box::new(ContinuousSpec {
        scheduler,
        kv,
        ..ContinuousSpec::default()
    }))
}

/// Memory for one long request and little else.
pub(crate) fn small() -> KvSpec {
    KvSpec {
        block_size: BLOCK,
        blocks: Some(BLOCKS),
        ..KvSpec::default()
    }
}

pub(crate) fn cpu(config: &ModelConfig, weights: &Weights) -> Box<Cpu> {
    let memory = KvMemory {
        pages: BLOCKS as usize,
        page_tokens: BLOCK as usize,
        filling: KvFormat::F16,
    };
    Box::new(Cpu::new(config, weights, &memory).unwrap())
}

pub(crate) type Answers = BTreeMap<u32, Vec<u32>>;
pub(crate) type Played = (Answers, Vec<(SimTime, EngineOutcome)>, Replica);

pub(crate) const GREEDY: Drawing = Drawing {
    temperature: 0.0,
    top_p: 1.0,
    seed: 5,
};

/// Runs jobs to the end; their answers if they are computed, and all outcomes.
fn play(spec: &EngineSpec, weights: Option<&Weights>, jobs: &[(u32, Job)]) -> Played {
    let Some(weights) = weights else {
        return play_on(spec, None, jobs);
    };
    let make = |listener| -> Box<dyn StepExecutor> {
        let backend = cpu(&tiny(), weights);
        Box::new(ReferenceExecutor::new(backend, GREEDY, Clock::CostModel).listen(listener))
    };
    play_on(spec, Some(&make), jobs)
}

/// As [`play`], on the executor that `make` gives.
pub(crate) fn play_on(
    spec: &EngineSpec,
    make: Option<&dyn Fn(Listener) -> Box<dyn StepExecutor>>,
    jobs: &[(u32, Job)],
) -> Played {
    let mut engine = Replica::build(spec).unwrap();
    let answers = Rc::new(RefCell::new(Answers::new()));
    if let Some(make) = make {
        let heard = Rc::clone(&answers);
        engine.execute_with(make(Box::new(move |id, tokens| {
            heard.borrow_mut().insert(id.0, tokens.to_vec());
        })));
    }
    let (mut told, mut outcomes, mut now, mut next) = (Vec::new(), Vec::new(), 0, None);
    let mut jobs = jobs.iter().peekable();
    loop {
        let due = jobs.peek().map(|(_, job)| job.at.max(now));
        match (due, next) {
            (Some(at), n) if n.is_none_or(|n: SimTime| at <= n.as_nanos()) => {
                let (id, job) = jobs.next().unwrap();
                now = at;
                submit(&mut engine, *id, job, SimTime::from_nanos(now));
            }
            (_, Some(end)) => {
                now = end.as_nanos();
                engine.advance(end, &mut told, &mut Blind);
            }
            (_, None) => break,
        }
        let at = SimTime::from_nanos(now);
        next = engine.next_event(at, &mut told);
        outcomes.extend(told.drain(..).map(|o| (at, o)));
        engine.check_memory(true).unwrap();
    }
    let answers = answers.borrow().clone();
    (answers, outcomes, engine)
}

fn submit(engine: &mut Replica, id: u32, job: &Job, now: SimTime) {
    let submission = Submission {
        request: RequestView {
            id: RequestId(id),
            sent_at: now,
            deadline: None,
            prompt_tokens: job.prompt,
            max_output_tokens: job.max_output,
            predicted_output_tokens: None,
            tenant: TenantId(0),
            class: ClassId(0),
            priority: 0,
            session: job.session.unwrap_or_else(|| u64::from(id)),
            prefix: &job.prefix,
        },
        truth: Truth {
            output_tokens: job.output,
            service: SimDuration::ZERO,
            good: true,
            attack: false,
            output_continues: job.continues,
            task: job.task,
        },
    };
    engine.submit(now, &submission, &mut Blind).unwrap();
}

fn jobs() -> impl Strategy<Value = Vec<(u32, Job)>> {
    let lengths = (
        (1_u32..60, 1_u32..50, 0_u64..3),
        (0_u64..3, 0_u32..40, any::<bool>()),
    )
        .prop_map(|((own, output, gap), (key, shared, continues))| {
            let prefix: Vec<_> = (shared > 0)
                .then_some(Extent {
                    key,
                    tokens: shared,
                })
                .into_iter()
                .collect();
            let continues = continues && shared > 0;
            let own = if continues { 0 } else { own };
            Job {
                at: gap * 20_000_000,
                prefix,
                continues,
                ..Job::lengths(shared + own, output)
            }
        });
    let task = (0_usize..7, 0_u64..4, 1_u32..30)
        .prop_map(|(class, number, limit)| {
            Job::task(windtunnel_tasks::CLASSES[class], 8 * number, limit)
        })
        .prop_filter("fits the memory", |job| job.prompt < 150);
    let job = prop_oneof![3 => lengths, 2 => task];
    prop::collection::vec(job, 1..9).prop_map(|mut jobs| {
        jobs.sort_by_key(|j| j.at);
        (0..).zip(jobs).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Batches, chunks, cached prefixes and preemption change no token of any answer.
    #[test]
    fn answers_are_those_of_one_request_at_a_time(
        jobs in jobs(),
        budget in 8_u32..64,
        kind in prop_oneof![Just(SchedulerKind::Chunked), Just(SchedulerKind::PrefillFirst)],
        visibility in prop_oneof![Just(PrefixVisibility::OnSchedule), Just(PrefixVisibility::OnComputed)],
    ) {
        let scheduler = SchedulerSpec {
            kind,
            token_budget: budget,
            max_num_seqs: 6,
            ..SchedulerSpec::default()
        };
        let weights = Weights::random(&tiny(), 3).unwrap();
        let spec = spec(scheduler, KvSpec { visibility, ..small() });
        let (together, ..) = play(&spec, Some(&weights), &jobs);
        prop_assert_eq!(together.len(), jobs.len());
        for one in &jobs {
            let (alone, ..) = play(&spec, Some(&weights), std::slice::from_ref(one));
            prop_assert_eq!(&alone[&one.0], &together[&one.0], "request {}", one.0);
        }
    }

    /// On the cost model's clock, lengths alone cannot be told from a simulation.
    #[test]
    fn without_tasks_it_is_the_simulation(jobs in jobs(), budget in 8_u32..64) {
        let jobs: Vec<_> = jobs.into_iter().filter(|(_, job)| job.task.is_none()).collect();
        let scheduler = SchedulerSpec {
            token_budget: budget,
            max_num_seqs: 6,
            ..SchedulerSpec::default()
        };
        let weights = Weights::random(&tiny(), 3).unwrap();
        let spec = spec(scheduler, small());
        let (_, computed, _) = play(&spec, Some(&weights), &jobs);
        let (_, simulated, _) = play(&spec, None, &jobs);
        prop_assert_eq!(computed, simulated);
    }
}

#[test]
fn an_answer_ends_where_the_model_ends_it_or_at_its_limit() {
    // A head that mostly says the end, after some other tokens.
    let config = tiny();
    let weights = Weights::random(&config, 8).unwrap();
    let jobs: Vec<_> = (0..6)
        .map(|i| (i, Job::task(TaskClass::Routing, 8 * u64::from(i), 40)))
        .collect();
    let kv = KvSpec {
        blocks: Some(BLOCKS),
        ..small()
    };
    let (answers, outcomes, _) = play(&spec(SchedulerSpec::default(), kv), Some(&weights), &jobs);
    for (id, answer) in &answers {
        let ended = answer.iter().position(|&t| t == EOS);
        assert!(
            ended.is_none_or(|at| at + 1 == answer.len()),
            "request {id}"
        );
        assert!(ended.is_some() || answer.len() == 40, "request {id}");
        let told = outcomes.iter().find_map(|(_, o)| match o.outcome {
            Outcome::Answered { tokens, good } if o.request.0 == *id => Some((tokens, good)),
            _ => None,
        });
        // Random weights answer nothing right.
        assert_eq!(told, Some((answer.len() as u32, false)), "request {id}");
    }
    assert_eq!(answers.len(), jobs.len());
}

#[test]
fn what_is_no_number_ends_the_run_with_its_place() {
    let config = tiny();
    let good = Weights::random(&config, 8).unwrap();
    let bad = good.tensors().map(|(name, tensor)| {
        let tensor = match name {
            "model.layers.1.mlp.down_proj.weight" => (tensor * f64::NAN).unwrap(),
            _ => tensor.clone(),
        };
        (name.to_owned(), tensor)
    });
    let bad = Weights::from_tensors(bad.collect(), &config).unwrap();
    let jobs = [(0, Job::lengths(20, 5))];
    let (answers, _, engine) = play(&spec(SchedulerSpec::default(), small()), Some(&bad), &jobs);
    assert!(answers.is_empty());
    let failure = engine.failure().unwrap().to_string();
    assert!(
        failure.contains("position 19") && failure.contains("not numbers"),
        "{failure}"
    );
}
