use super::super::route::{RouteSettings, ShortPath};
use super::super::shadow::ShadowSettings;
use super::super::{DeviceModel, Switches};
use super::*;
use crate::config::ModelConfig;
use crate::runtime::ReferenceExecutor;
use crate::runtime::build::tiny;
use crate::runtime::tests::{Answers, GREEDY, Job as Asked, cpu, play_on, small, spec};
use crate::weights::Weights;
use proptest::prelude::*;
use windtunnel_engine::config::{KvSpec, SchedulerKind, SchedulerSpec};
use windtunnel_engine::engine::{Engine, Outcome};
use windtunnel_engine::execute::Layers;
use windtunnel_tasks::CLASSES;

/// The light model: one layer of the frontier's width.
fn light() -> ModelConfig {
    ModelConfig {
        num_hidden_layers: 1,
        ..tiny()
    }
}

/// A world: what is asked, and by which scheduler it is served.
#[derive(Clone, Debug)]
struct World {
    asked: Vec<(u32, Asked)>,
    scheduler: SchedulerSpec,
    kv: KvSpec,
}

fn worlds() -> impl Strategy<Value = World> {
    let task = (0_usize..7, 0_u64..4, 1_u32..30, 0_u64..3, 0_u64..3)
        .prop_map(|(class, number, limit, gap, session)| Asked {
            at: gap * 20_000_000,
            session: Some(session),
            ..Asked::task(CLASSES[class], 8 * number, limit)
        })
        .prop_filter("fits the memory", |job| job.prompt < 150);
    let asked = prop::collection::vec(task, 1..8).prop_map(|mut asked| {
        asked.sort_by_key(|j| j.at);
        (0..).zip(asked).collect()
    });
    let kinds = prop_oneof![
        Just(SchedulerKind::Chunked),
        Just(SchedulerKind::PrefillFirst)
    ];
    (asked, 8_u32..64, kinds, any::<bool>(), any::<bool>()).prop_map(
        |(asked, token_budget, kind, prefix_cache, async_scheduling)| World {
            asked,
            scheduler: SchedulerSpec {
                kind,
                token_budget,
                max_num_seqs: 6,
                async_scheduling: async_scheduling && kind == SchedulerKind::Chunked,
                ..SchedulerSpec::default()
            },
            kv: KvSpec {
                prefix_cache,
                ..small()
            },
        },
    )
}

fn weights(config: &ModelConfig, seed: u64) -> Weights {
    Weights::random(config, seed).unwrap()
}

/// The engine without layers.
fn plain(world: &World, config: &ModelConfig, seed: u64) -> Answers {
    let weights = weights(config, seed);
    let make = |listener| -> Box<dyn StepExecutor> {
        let backend = cpu(config, &weights);
        Box::new(ReferenceExecutor::new(backend, GREEDY, Clock::CostModel).listen(listener))
    };
    let spec = spec(world.scheduler.clone(), world.kv.clone());
    let (answers, _, engine) = play_on(&spec, Some(&make), &world.asked);
    let done = engine.executed().unwrap();
    let given: usize = answers.values().map(Vec::len).sum();
    assert!(done.tokens as usize >= given && done.launches > 0 && done.layers.is_none());
    answers
}

/// More answers than any world here has.
const COMPARED: u32 = 32;

/// The engine with them; also when its last answer came.
fn layered(world: &World, settings: &Settings) -> (Answers, u64) {
    let (answers, end, _) = compared(world, settings);
    (answers, end)
}

/// As [`layered`], and what its layers did, the comparison with the frontier included.
fn compared(world: &World, settings: &Settings) -> (Answers, u64, Layers) {
    let (large, small) = (weights(&tiny(), 3), weights(&light(), 4));
    let make = |listener| -> Box<dyn StepExecutor> {
        let executor = LayeredExecutor::new(
            cpu(&tiny(), &large),
            cpu(&light(), &small),
            settings.clone(),
            (GREEDY, Clock::CountedWork),
            (usize::MAX, COMPARED),
        );
        Box::new(executor.listen(listener))
    };
    let spec = spec(world.scheduler.clone(), world.kv.clone());
    let (answers, outcomes, mut engine) = play_on(&spec, Some(&make), &world.asked);
    assert!(engine.failure().is_none(), "{:?}", engine.failure());
    assert_eq!(answers.len(), world.asked.len());
    let run = engine.executed().unwrap();
    check_counts(&run, &answers, settings.layers);
    engine.close().unwrap();
    let layers = check_compared(&run, &engine.executed().unwrap(), &answers);
    let end = outcomes.iter().filter_map(|(at, o)| match o.outcome {
        Outcome::Answered { tokens, .. } => {
            assert_eq!(tokens as usize, answers[&o.request.0].len());
            Some(at.as_nanos())
        }
        _ => None,
    });
    let end = end.max().unwrap();
    (answers, end, layers)
}

/// The comparison counts every token that was given, and nothing else: it is no work of the run.
fn check_compared(run: &Executed, closed: &Executed, answers: &Answers) -> Layers {
    let after = closed.layers.unwrap();
    let given: usize = answers.values().map(Vec::len).sum();
    assert_eq!(after.compared as usize, answers.len());
    assert_eq!(after.compared_tokens as usize, given);
    assert!(after.same_tokens <= after.compared_tokens);
    assert!(after.drawn_tokens <= after.compared_tokens && after.divergence >= 0.0);
    assert!(after.skipped > 0 || after.drawn_tokens == after.compared_tokens);
    let before = run.layers.unwrap();
    assert_eq!(before.compared, 0);
    let without = Layers {
        compared: 0,
        compared_tokens: 0,
        same_tokens: 0,
        drawn_tokens: 0,
        divergence: 0.0,
        ..after
    };
    let all = Executed {
        layers: Some(without),
        ..*closed
    };
    assert_eq!(all, *run);
    after
}

/// What is counted fits together, whatever the layers do.
fn check_counts(done: &Executed, answers: &Answers, on: Switches) {
    let given: usize = answers.values().map(Vec::len).sum();
    assert!(done.tokens as usize >= given, "{} < {given}", done.tokens);
    assert!(done.model_sequences >= done.model_steps && done.kv_mean_bytes > 0.0);
    assert!(done.launches > 0 && done.operations > 0 && done.counted_seconds > 0.0);
    let layers = done.layers.unwrap();
    assert_eq!(layers.on, on.as_array());
    assert!(layers.skipped_wrong <= layers.skipped);
    assert!(layers.skipped + layers.danger_runs <= layers.turns);
    assert!(layers.turns == if on.l0 { answers.len() as u64 } else { 0 });
    assert!(layers.critical_short <= layers.short_tokens);
    assert!(layers.short_tokens <= layers.computed_tokens);
    assert!(layers.mismatches <= layers.checks && layers.checks <= layers.accepted);
    assert!(layers.checking_seconds <= done.counted_seconds);
    let blocks = [layers.f16, layers.int8, layers.fp8].map(|s| s.blocks);
    assert!(on.l3 || blocks == [0; 3], "{blocks:?}");
}

fn with(layers: Switches, route: RouteSettings) -> Settings {
    Settings {
        layers,
        route,
        ..Settings::default()
    }
}

fn route(short: ShortPath, threshold: f64) -> RouteSettings {
    RouteSettings {
        short,
        threshold,
        severity_override: false,
        ..RouteSettings::default()
    }
}

const L2: Switches = Switches::only(2);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Spans, drafts, verification, and short paths that are never or always taken, or that leave out
    /// nothing: answers are those of one model alone, whatever is cached, cut, shared or preempted.
    #[test]
    fn layers_that_change_nothing_change_no_answer(world in worlds(), span in 1_usize..4, drafts in 1_usize..6) {
        let alone = plain(&world, &tiny(), 3);
        let usual = RouteSettings::default();
        let spans = Settings {
            spans: SpanSettings { max: span },
            ..with(Switches::only(1), usual)
        };
        let verified = Settings {
            shadow: ShadowSettings { q_min: 1.0, ..ShadowSettings::default() },
            ..with(Switches { l4: true, l5: true, ..L2 }, route(ShortPath::SmallModel, 0.0))
        };
        for settings in [
            spans,
            verified,
            with(Switches::only(4), usual),
            with(L2, route(ShortPath::Speculative { drafts }, 0.5)),
            with(L2, route(ShortPath::EarlyExit { layers: 2 }, 2.0)),
        ] {
            let (answers, _, layers) = compared(&world, &settings);
            prop_assert_eq!(&alone, &answers, "{:?}", settings);
            prop_assert_eq!(layers.same_tokens, layers.compared_tokens);
            // Products of other shapes round otherwise.
            prop_assert!(layers.divergence < 1e-6 * layers.drawn_tokens as f64, "{:?}", layers);
        }
        let always = with(L2, route(ShortPath::SmallModel, 2.0));
        let (answers, _, layers) = compared(&world, &always);
        prop_assert_eq!(plain(&world, &light(), 4), answers);
        // Random models agree by chance only.
        prop_assert!(layers.divergence > 0.01 * layers.drawn_tokens as f64, "{:?}", layers);
    }

    /// Layers that may change answers come to an end with every scheduler, and repeat.
    #[test]
    fn all_layers_together_answer_everything_and_repeat(world in worlds(), theta in 0.0_f64..1.0) {
        for short in [
            ShortPath::SmallModel,
            ShortPath::EarlyExit { layers: 1 },
            ShortPath::Speculative { drafts: 3 },
        ] {
            let settings = with(Switches::ALL, route(short, theta));
            prop_assert_eq!(layered(&world, &settings), layered(&world, &settings));
        }
    }
}

/// One conversation, each turn after the one before has been answered.
fn conversation(numbers: &[u64]) -> World {
    let turn = |(i, &number): (usize, &u64)| {
        let asked = Asked {
            at: i as u64 * 10_000_000_000,
            session: Some(7),
            ..Asked::task(CLASSES[2], 8 * number, 20)
        };
        (i as u32, asked)
    };
    World {
        asked: numbers.iter().enumerate().map(turn).collect(),
        scheduler: SchedulerSpec::default(),
        kv: small(),
    }
}

/// What a step took, and of which request it was.
#[derive(Clone, Copy, Debug)]
struct Taken {
    request: u32,
    seconds: f64,
    drafted: u64,
    kept: u64,
}

type Log = std::rc::Rc<std::cell::RefCell<Vec<Taken>>>;

/// Notes every step.
#[derive(Debug)]
struct Watched {
    inner: LayeredExecutor,
    log: Log,
}

impl StepExecutor for Watched {
    fn submit(&mut self, submission: &Submission<'_>) -> Result<(), ExecutionError> {
        self.inner.submit(submission)
    }

    fn step(
        &mut self,
        plan: &StepPlan<'_>,
        ended: &mut Vec<RequestId>,
    ) -> Result<StepTime, ExecutionError> {
        let before = (self.inner.decoding.spent().1, self.inner.decoding.tokens);
        let time = self.inner.step(plan, ended)?;
        let after = (self.inner.decoding.spent().1, self.inner.decoding.tokens);
        self.log.borrow_mut().push(Taken {
            request: plan.sequences[0].request.0,
            seconds: after.0 - before.0,
            drafted: after.1.drafted - before.1.drafted,
            kept: after.1.drafts_kept - before.1.drafts_kept,
        });
        Ok(time)
    }

    fn finish(&mut self, request: RequestId) -> Option<Answer> {
        self.inner.finish(request)
    }

    fn release(&mut self, request: RequestId) {
        self.inner.release(request);
    }
}

/// All steps of a world, computed by the frontier and a light model of these sizes and seed.
fn watched(
    world: &World,
    settings: &Settings,
    light: (&ModelConfig, u64),
) -> (Answers, Vec<Taken>) {
    let (large, small) = (weights(&tiny(), 3), weights(light.0, light.1));
    let log = Log::default();
    let make = |listener| -> Box<dyn StepExecutor> {
        let executor = LayeredExecutor::new(
            cpu(&tiny(), &large),
            cpu(light.0, &small),
            settings.clone(),
            (GREEDY, Clock::CountedWork),
            (usize::MAX, COMPARED),
        );
        Box::new(Watched {
            inner: executor.listen(listener),
            log: log.clone(),
        })
    };
    let spec = spec(world.scheduler.clone(), world.kv.clone());
    let (answers, ..) = play_on(&spec, Some(&make), &world.asked);
    let steps = log.borrow().clone();
    (answers, steps)
}

#[test]
fn a_turn_that_changes_nothing_is_answered_as_before_for_the_price_of_a_look() {
    let world = conversation(&[1, 1, 2]);
    let settings = with(Switches::only(0), RouteSettings::default());
    let (answers, steps) = watched(&world, &settings, (&light(), 4));
    assert_eq!(answers, plain(&world, &tiny(), 3));
    let of = |id: u32| -> f64 {
        let its = steps.iter().filter(|s| s.request == id);
        its.map(|s| s.seconds).sum()
    };
    // Two kernels, and the rows of the embedding.
    let launches = 2.0 * DeviceModel::default().launch;
    assert!(of(1) >= launches && of(1) < 1.5 * launches, "{}", of(1));
    assert!(of(0) > 20.0 * of(1) && of(2) > 20.0 * of(1));
}

#[test]
fn drafts_of_the_model_itself_all_stand_up_to_the_end_of_a_block() {
    let world = conversation(&[3]);
    let settings = with(L2, route(ShortPath::Speculative { drafts: 4 }, 0.5));
    // A light model with the frontier's weights says what the frontier says.
    let (answers, steps) = watched(&world, &settings, (&tiny(), 3));
    assert_eq!(answers, plain(&world, &tiny(), 3));
    let drafted: u64 = steps.iter().map(|s| s.drafted).sum();
    let kept: u64 = steps.iter().map(|s| s.kept).sum();
    assert!(drafted > 0 && drafted == kept, "{kept} of {drafted}");
    // Tokens that came with others take steps in which nothing is computed.
    let idle = steps.iter().filter(|s| s.seconds == 0.0).count() as u64;
    assert_eq!(idle, kept);
}

#[test]
fn small_formats_are_read_and_blocks_are_written_anew_when_they_come_back() {
    let world = conversation(&[1, 2, 3, 1, 2, 3, 1, 2]);
    let settings = with(Switches::only(3), RouteSettings::default());
    let ((answers, fast), (_, slow)) = (
        layered(&world, &settings),
        layered(&world, &with(Switches::NONE, RouteSettings::default())),
    );
    // What was said twice is said in the same words, in blocks that others had meanwhile.
    assert_eq!(answers[&0], answers[&3]);
    assert!(
        fast != slow,
        "eight bits are fewer bytes, and storing them takes launches"
    );
}

#[test]
fn settings_that_mean_nothing_are_named() {
    let refused = |settings: &Settings, light: &ModelConfig, word: &str| {
        let error = check(settings, &tiny(), light).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    let good = with(Switches::ALL, RouteSettings::default());
    check(&good, &tiny(), &light()).unwrap();
    let other = ModelConfig {
        vocab_size: 100,
        ..light()
    };
    refused(&good, &other, "vocabulary");
    let short = ModelConfig {
        max_position_embeddings: 64,
        ..light()
    };
    refused(&good, &short, "shorter sequences");
    let deep = with(L2, route(ShortPath::EarlyExit { layers: 9 }, 0.5));
    refused(&deep, &light(), "cascade.route.exit_layers");
}
