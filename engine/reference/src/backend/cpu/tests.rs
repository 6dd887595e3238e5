use super::*;
use crate::backend::{Sampling, greedy};
use crate::train::model::Decoder;
use candle_core::DType;
use candle_nn::VarBuilder;

fn config() -> ModelConfig {
    ModelConfig {
        num_hidden_layers: 3,
        tie_word_embeddings: false,
        ..ModelConfig::pocket_light()
    }
}

fn memory(filling: KvFormat) -> KvMemory {
    KvMemory {
        pages: 64,
        page_tokens: 16,
        filling,
    }
}

/// Logits of every position by the implementation that shares nothing with this one.
fn independent(weights: &Weights, config: &ModelConfig, tokens: &[u32]) -> Vec<Vec<f32>> {
    let tensors = weights
        .tensors()
        .map(|(n, t)| (n.to_owned(), t.clone()))
        .collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let model = Decoder::new(config, &vb).unwrap();
    let ids = Tensor::from_vec(tokens.to_vec(), (1, tokens.len()), &Device::Cpu).unwrap();
    model
        .forward(&ids)
        .unwrap()
        .get(0)
        .unwrap()
        .to_vec2()
        .unwrap()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .fold(0_f32, |m, (x, y)| m.max((x - y).abs()))
}

fn text(n: usize, seed: u64) -> Vec<u32> {
    let mut rng = windtunnel_base::rng::Rng::from_seed(seed);
    (0..n).map(|_| rng.below(258) as u32).collect()
}

fn pages(cpu: &mut Cpu, tokens: usize) -> Vec<u32> {
    (0..tokens.div_ceil(16))
        .map(|_| cpu.take_page().unwrap().unwrap())
        .collect()
}

#[test]
fn chunks_and_batches_give_the_logits_of_whole_sequences() {
    let config = config();
    let weights = Weights::random(&config, 5).unwrap();
    let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F32)).unwrap();
    let (a, b) = (text(61, 1), text(40, 2));
    let (want_a, want_b) = (
        independent(&weights, &config, &a),
        independent(&weights, &config, &b),
    );
    let (pages_a, pages_b) = (pages(&mut cpu, 61), pages(&mut cpu, 40));
    let mut sampled = Vec::new();
    // The prompts in unequal chunks, together; then the rest token by token, together.
    let cuts = [(0, 17, 0, 5), (17, 50, 5, 29)];
    for (a0, a1, b0, b1) in cuts {
        let spans = [
            greedy(&a[a0..a1], a0, &pages_a),
            greedy(&b[b0..b1], b0, &pages_b),
        ];
        cpu.step(&spans, &mut sampled).unwrap();
        let logits = cpu.logits().unwrap();
        assert!(worst(&logits[..258], &want_a[a1 - 1]) < 1e-4);
        assert!(worst(&logits[258..], &want_b[b1 - 1]) < 1e-4);
    }
    for i in 0..11 {
        let spans = [
            greedy(&b[29 + i..=29 + i], 29 + i, &pages_b),
            greedy(&a[50 + i..=50 + i], 50 + i, &pages_a),
        ];
        cpu.step(&spans, &mut sampled).unwrap();
        let logits = cpu.logits().unwrap();
        assert!(worst(&logits[..258], &want_b[29 + i]) < 1e-4);
        assert!(worst(&logits[258..], &want_a[50 + i]) < 1e-4);
        let best = want_a[50 + i]
            .iter()
            .enumerate()
            .max_by(|x, y| x.1.total_cmp(y.1))
            .unwrap()
            .0;
        assert_eq!(sampled[1].token as usize, best);
    }
}

#[test]
fn pages_can_be_shared_between_sequences() {
    let config = config();
    let weights = Weights::random(&config, 6).unwrap();
    let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F32)).unwrap();
    let common = text(32, 3);
    let ends = [text(9, 4), text(9, 5)];
    let shared = pages(&mut cpu, 32);
    let mut sampled = Vec::new();
    let first = Span {
        tokens: &common,
        start: 0,
        pages: &shared,
        sample: None,
        layers: None,
    };
    cpu.step(&[first], &mut sampled).unwrap();
    for end in &ends {
        let mut own = shared.clone();
        own.push(cpu.take_page().unwrap().unwrap());
        let span = Span {
            tokens: end,
            start: 32,
            pages: &own,
            sample: Some(Sampling::GREEDY),
            layers: None,
        };
        cpu.step(&[span], &mut sampled).unwrap();
        let whole: Vec<u32> = common.iter().chain(end).copied().collect();
        let want = independent(&weights, &config, &whole);
        assert!(worst(&cpu.logits().unwrap(), &want[40]) < 1e-4);
    }
}

#[test]
fn smaller_formats_change_logits_as_little_as_they_should() {
    let config = config();
    let weights = Weights::random(&config, 7).unwrap();
    let tokens = text(49, 6);
    let want = independent(&weights, &config, &tokens);
    let size = want[48].iter().map(|x| x * x).sum::<f32>().sqrt();
    let mut errors = Vec::new();
    for format in [KvFormat::F16, KvFormat::Int8, KvFormat::Fp8] {
        let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F16)).unwrap();
        let pages = pages(&mut cpu, 49);
        let mut sampled = Vec::new();
        let head = Span {
            tokens: &tokens[..48],
            start: 0,
            pages: &pages,
            sample: None,
            layers: None,
        };
        cpu.step(&[head], &mut sampled).unwrap();
        for &page in &pages[..3] {
            cpu.convert_page(page, format).unwrap();
        }
        let tail = Span {
            tokens: &tokens[48..],
            start: 48,
            sample: Some(Sampling::GREEDY),
            ..head
        };
        cpu.step(&[tail], &mut sampled).unwrap();
        let logits = cpu.logits().unwrap();
        let off = logits
            .iter()
            .zip(&want[48])
            .map(|(x, y)| (x - y).powi(2))
            .sum::<f32>()
            .sqrt();
        errors.push(off / size);
    }
    assert!(
        errors[0] < 2e-3 && errors[1] < 2e-2 && errors[2] < 8e-2,
        "{errors:?}"
    );
    assert!(errors[0] < errors[1] && errors[1] < errors[2], "{errors:?}");
}

#[test]
fn a_token_that_leaves_early_runs_fewer_layers_and_stays_visible() {
    let config = config();
    let weights = Weights::random(&config, 8).unwrap();
    let tokens = text(20, 7);
    let short = ModelConfig {
        num_hidden_layers: 2,
        ..config.clone()
    };
    let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F32)).unwrap();
    let pages = pages(&mut cpu, 24);
    let mut sampled = Vec::new();
    let span = Span {
        tokens: &tokens,
        start: 0,
        pages: &pages,
        sample: Some(Sampling::GREEDY),
        layers: Some(2),
    };
    cpu.step(&[span], &mut sampled).unwrap();
    // Its logits are those of a model with the first two layers alone.
    let want = independent(&weights, &short, &tokens);
    assert!(worst(&cpu.logits().unwrap(), &want[19]) < 1e-4);
    // A full token beside it in one step is not disturbed, and finds keys in every layer.
    let next = [9_u32];
    let full = Span {
        tokens: &next,
        start: 20,
        layers: None,
        ..span
    };
    cpu.step(&[full], &mut sampled).unwrap();
    assert!(cpu.logits().unwrap().iter().all(|x| x.is_finite()));
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let config = config();
    let mut tensors: std::collections::BTreeMap<String, Tensor> = Weights::random(&config, 9)
        .unwrap()
        .tensors()
        .map(|(n, t)| (n.to_owned(), t.clone()))
        .collect();
    let norm = tensors.get_mut("model.norm.weight").unwrap();
    *norm = (norm.clone() * f64::NAN).unwrap();
    let weights = Weights::from_tensors(tensors, &config).unwrap();
    let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F32)).unwrap();
    let pages = pages(&mut cpu, 4);
    let span = Span {
        tokens: &[1, 2],
        start: 0,
        pages: &pages,
        sample: Some(Sampling::GREEDY),
        layers: None,
    };
    let error = cpu.step(&[span], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("position 1"), "{error}");
}

#[test]
fn drafts_are_verified_by_spans_that_continue_each_other() {
    let config = config();
    let weights = Weights::random(&config, 8).unwrap();
    let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F32)).unwrap();
    let tokens = text(23, 9);
    let want = independent(&weights, &config, &tokens);
    let own = pages(&mut cpu, 23);
    let span = |from: usize, to: usize| Span {
        tokens: &tokens[from..to],
        start: from,
        pages: &own,
        sample: Some(Sampling::GREEDY),
        layers: None,
    };
    let spans: Vec<Span<'_>> = std::iter::once(span(0, 18))
        .chain((18..23).map(|i| span(i, i + 1)))
        .collect();
    cpu.step(&spans, &mut Vec::new()).unwrap();
    let logits = cpu.logits().unwrap();
    for (i, logits) in logits.chunks_exact(258).enumerate() {
        assert!(worst(logits, &want[17 + i]) < 1e-4, "position {}", 17 + i);
    }
}

#[test]
fn work_is_counted_exactly() {
    let config = config();
    let (h, f, v) = (
        config.hidden_size,
        config.intermediate_size,
        config.vocab_size,
    );
    let (q, kv) = (4 * 64, 2 * 2 * 64);
    let weights = Weights::random(&config, 8).unwrap();
    let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F16)).unwrap();
    let tokens = text(20, 9);
    let own = pages(&mut cpu, 20);
    let span = Span {
        tokens: &tokens,
        start: 0,
        pages: &own,
        sample: Some(Sampling::GREEDY),
        layers: None,
    };
    cpu.step(&[span], &mut Vec::new()).unwrap();
    let whole = cpu.work();
    let matrices = h * (q + kv) + q * h + 3 * h * f;
    let attention = 4 * (20 * 21 / 2) * q;
    assert_eq!(
        whole.flops as usize,
        3 * (2 * 20 * matrices + attention) + 2 * h * v
    );
    assert_eq!(
        whole.weight_bytes as usize,
        4 * (3 * matrices + h * v + 20 * h)
    );
    assert_eq!(whole.kv_written_bytes as usize, 3 * 20 * kv * 2);
    assert_eq!(whole.kv_read_bytes as usize, 3 * 20 * kv * 2);
    assert_eq!(whole.launches, 1 + 3 * 11 + 4);
    // A token that leaves after one layer of three costs less of everything but launches, and an
    // eight-bit page is read at half the bytes, scales besides.
    cpu.convert_page(own[0], KvFormat::Int8).unwrap();
    let before = cpu.work();
    let exit = Span {
        tokens: &tokens[..1],
        start: 20,
        pages: &own,
        sample: Some(Sampling::GREEDY),
        layers: Some(1),
    };
    cpu.step(&[exit], &mut Vec::new()).unwrap();
    let short = cpu.work().since(before);
    assert_eq!(
        short.kv_read_bytes as usize,
        16 * kv + 4 * 2 * config.num_key_value_heads + 5 * kv * 2
    );
    assert_eq!(
        short.flops as usize,
        2 * matrices + 4 * 21 * q + 2 * 2 * h * kv + 2 * h * v
    );
    assert_eq!(short.launches, 1 + 11 + 2 * 3 + 4);
}

#[test]
fn an_embedding_is_the_mean_of_its_rows() {
    let config = config();
    let weights = Weights::random(&config, 8).unwrap();
    let mut cpu = Cpu::new(&config, &weights, &memory(KvFormat::F16)).unwrap();
    let rows: Vec<Vec<f32>> = weights
        .get("model.embed_tokens.weight")
        .unwrap()
        .to_vec2()
        .unwrap();
    let mean = cpu.embed(&[7, 7, 250]).unwrap();
    for (i, x) in mean.iter().enumerate() {
        assert!((x - (2.0 * rows[7][i] + rows[250][i]) / 3.0).abs() < 1e-6);
    }
    assert!(cpu.embed(&[]).unwrap().iter().all(|x| *x == 0.0));
}
