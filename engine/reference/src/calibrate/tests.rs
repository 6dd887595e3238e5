use super::*;
use crate::backend::{Sampled, Span, Work};
use crate::config::ModelConfig;
use crate::kv::format::KvFormat;
use crate::weights::Weights;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::cost::table::Table;

/// A device whose steps take what a formula says: it sleeps.
struct Clockwork {
    config: ModelConfig,
    free: u32,
}

impl Clockwork {
    /// Milliseconds of a step: half a one for the step, then by parts.
    fn ms(decode: usize, context: usize, prompts: usize, tokens: usize) -> f64 {
        let base = 0.5;
        let decode = 0.2 * decode as f64 + 0.002 * context as f64;
        base + decode + 0.1 * prompts as f64 + 0.02 * tokens as f64
    }
}

impl Backend for Clockwork {
    fn device(&self) -> String {
        "clockwork".into()
    }
    fn config(&self) -> &ModelConfig {
        &self.config
    }
    fn take_page(&mut self) -> Result<Option<u32>, ReferenceError> {
        let left = self.free.checked_sub(1);
        self.free = left.unwrap_or(self.free);
        Ok(left)
    }
    fn give_back_page(&mut self, _: u32) {
        self.free += 1;
    }
    fn page_tokens(&self) -> usize {
        16
    }
    fn convert_page(&mut self, _: u32, _: KvFormat) -> Result<(), ReferenceError> {
        Ok(())
    }
    fn kv_bytes(&self) -> usize {
        0
    }
    fn step(&mut self, spans: &[Span<'_>], _: &mut Vec<Sampled>) -> Result<(), ReferenceError> {
        if spans.iter().all(|s| s.sample.is_none()) {
            return Ok(());
        }
        let one = |s: &&Span<'_>| s.tokens.len() == 1;
        let decode = spans.iter().filter(one).count();
        let context = spans.iter().filter(one).map(|s| s.start).sum();
        let prompts = spans.len() - decode;
        let tokens = spans.iter().map(|s| s.tokens.len()).sum::<usize>() - decode;
        let ms = Self::ms(decode, context, prompts, tokens);
        let end = Instant::now() + Duration::from_secs_f64(ms * 1e-3);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        Ok(())
    }
    fn logits(&mut self) -> Result<Vec<f32>, ReferenceError> {
        Ok(Vec::new())
    }
    fn embed(&mut self, _: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        Ok(Vec::new())
    }
    fn work(&self) -> Work {
        Work::default()
    }
}

fn clockwork(pages: u32) -> (Clockwork, Model) {
    let config = ModelConfig {
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        head_dim: 8,
        max_position_embeddings: 128,
        ..ModelConfig::pocket_light()
    };
    let model = Model {
        name: "clockwork".into(),
        weights: Weights::random(&config, 1).unwrap(),
        config: config.clone(),
        digest: String::new(),
    };
    (
        Clockwork {
            config,
            free: pages,
        },
        model,
    )
}

fn plan(config: &ModelConfig) -> Plan {
    Plan {
        budget: Duration::from_millis(1),
        ..Plan::new(config, 6, 48)
    }
}

/// The steps of a plan with the times that the formula gives, without any clock.
fn by_formula(plan: &Plan) -> Vec<Timed> {
    let timed = |(kind, step): (Kind, Step)| {
        let context = step.decode.iter().sum();
        let tokens = step.prefill.iter().map(|p| p.0).sum();
        let ms = Clockwork::ms(step.decode.len(), context, step.prefill.len(), tokens);
        Timed {
            step,
            kind,
            // One slow moment of three is no part of a median.
            ms: vec![ms, 40.0 * ms, ms],
        }
    };
    plan.steps().into_iter().map(timed).collect()
}

#[test]
fn a_table_says_what_a_device_of_known_times_takes() {
    let (_, model) = clockwork(0);
    let timed = by_formula(&plan(&model.config));
    let spec = fit::table(&timed);
    let table = Table::new(&spec).unwrap();
    let shapes: [(u32, u64, u32, u64); 5] = [
        (1, 10, 0, 0),
        (5, 400, 0, 0),
        (0, 0, 1, 40),
        (0, 0, 3, 40),
        (3, 90, 1, 30),
    ];
    for (decode, context, prompts, tokens) in shapes {
        let shape = BatchShape {
            decode_seqs: decode,
            decode_context: context,
            prefill_seqs: prompts,
            prefill_tokens: tokens,
            ..BatchShape::default()
        };
        let says = table.seconds(&shape).0 * 1e3;
        let parts = (decode as usize, context as usize);
        let takes = Clockwork::ms(parts.0, parts.1, prompts as usize, tokens as usize);
        // The formula is linear; what is left is rounding to a tenth of a microsecond.
        assert!((says / takes - 1.0).abs() < 1e-3, "{says} against {takes}");
    }
    let errors = fit::held_out(&spec, &timed).unwrap();
    for kind in [errors.decode, errors.prefill, errors.mixed] {
        assert_eq!(kind.steps, 16);
        assert!(kind.p90 < 1e-3, "{errors:?}");
    }
    assert_eq!(fit::noise(&timed), 0.0);
}

#[test]
fn a_calibration_gives_pages_back_and_survives_the_round_trip() {
    let (mut device, model) = clockwork(200);
    let plan = plan(&model.config);
    let measured = calibrate(&mut device, &model, &plan, Duration::ZERO, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap()
    .unwrap();
    assert_eq!(device.free, 200, "all pages are given back");
    assert_eq!(measured.rounds, FEWEST_ROUNDS);
    assert!(Table::new(&measured.table()).is_ok());
    let json = serde_json::to_string(&measured).unwrap();
    let back: Calibration = serde_json::from_str(&json).unwrap();
    assert_eq!(back, measured);
}

#[test]
fn a_calibration_stops_when_told_and_gives_pages_back() {
    let (mut device, model) = clockwork(200);
    let plan = plan(&model.config);
    let stopped = calibrate(&mut device, &model, &plan, Duration::ZERO, &mut |_| {
        ControlFlow::Break(())
    });
    assert!(stopped.unwrap().is_none());
    assert_eq!(device.free, 200);
    // Too few pages are said to be, and are given back too.
    let (mut small, model) = clockwork(20);
    let error = calibrate(&mut small, &model, &plan, Duration::ZERO, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap_err();
    assert!(error.to_string().contains("pages"), "{error}");
    assert_eq!(small.free, 20);
}

#[test]
fn steps_are_within_their_ranges_and_no_held_out_one_is_of_the_grid() {
    let config = ModelConfig::pocket_frontier();
    let plan = Plan::new(&config, 32, 256);
    let ranges = plan.ranges();
    assert_eq!(ranges.decode_seqs, (1, 32));
    assert_eq!(ranges.decode_context, (1, 511));
    assert_eq!(ranges.prefill_tokens, (1, 256));
    let steps = plan.steps();
    for (kind, step) in &steps {
        let shape = step.shape();
        assert!(step.decode.len() + step.prefill.len() <= plan.sequences());
        assert!(shape.prefill_tokens <= 256 && shape.decode_seqs <= 32);
        for &(tokens, context) in &step.prefill {
            assert!(
                tokens > 0 && tokens + context <= plan.max_context,
                "{kind:?}"
            );
        }
        assert!(step.decode.iter().all(|&c| c < plan.max_context));
    }
    let held: Vec<&Step> = steps
        .iter()
        .filter(|s| s.0 == Kind::HeldOut)
        .map(|s| &s.1)
        .collect();
    assert_eq!(held.len(), 48);
    let of_the_grid = steps
        .iter()
        .filter(|s| s.0 != Kind::HeldOut && held.contains(&&s.1))
        .count();
    assert_eq!(of_the_grid, 0);
}
