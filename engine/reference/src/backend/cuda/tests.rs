//! The GPU backend against the CPU, on every device at hand: a GPU if there is one, and always the emulator,
//! which runs the same kernels through the host's C++ compiler.

use super::*;
use crate::backend::Sampling;
use crate::backend::cpu::Cpu;
use crate::weights::Weights;
use windtunnel_base::rng::Rng;

mod kernels_alone;

fn config() -> ModelConfig {
    ModelConfig {
        num_hidden_layers: 3,
        num_attention_heads: 6,
        tie_word_embeddings: false,
        ..ModelConfig::pocket_light()
    }
}

/// Heads of 128 numbers, four to a key-value head; sizes that no tile divides.
fn wide() -> ModelConfig {
    ModelConfig {
        hidden_size: 200,
        intermediate_size: 328,
        num_hidden_layers: 2,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        head_dim: 128,
        vocab_size: 1_001,
        tie_word_embeddings: true,
        ..ModelConfig::pocket_light()
    }
}

const MEMORY: KvMemory = KvMemory {
    pages: 64,
    page_tokens: 16,
    filling: KvFormat::F16,
};

const OPTIONS: CudaOptions = CudaOptions {
    numbers: Numbers::F32,
    graphs: true,
    rows: 64,
    spans: 8,
    tune: false,
};

/// Devices at hand, with what is said about those that are not.
pub(super) fn devices() -> Vec<Device> {
    let folder = std::env::temp_dir().join("windtunnel-emulator");
    let mut all = Vec::new();
    for device in [Device::emulated(&folder), Device::gpu(0)] {
        match device {
            Ok(device) => all.push(device),
            Err(error) => println!("skipped: {error}"),
        }
    }
    all
}

fn text(n: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut rng = Rng::from_seed(seed);
    (0..n).map(|_| rng.below(vocab as u64) as u32).collect()
}

fn take(backend: &mut dyn Backend, tokens: usize) -> Vec<u32> {
    (0..tokens.div_ceil(16))
        .map(|_| backend.take_page().unwrap())
        .collect()
}

/// Distance over size.
fn off(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied())
}

/// Runs the same steps on both and compares logits; returns the largest distance.
fn play(cpu: &mut dyn Backend, gpu: &mut dyn Backend, vocab: usize) -> f32 {
    let hot = Sampling {
        temperature: 0.8,
        top_p: 0.9,
        seed: 11,
    };
    let (a, b, c) = (text(75, vocab, 1), text(60, vocab, 2), text(33, vocab, 3));
    let mut pages = Vec::new();
    for tokens in [90, 90, 40] {
        let (x, y) = (take(cpu, tokens), take(gpu, tokens));
        assert_eq!(x, y, "pages are given in the same order");
        pages.push(x);
    }
    let mut worst = 0_f32;
    let mut step = |cpu: &mut dyn Backend, gpu: &mut dyn Backend, spans: &[Span<'_>]| {
        let (mut want, mut got) = (Vec::new(), Vec::new());
        cpu.step(spans, &mut want).unwrap();
        gpu.step(spans, &mut got).unwrap();
        let (x, y) = (gpu.logits().unwrap(), cpu.logits().unwrap());
        if !y.is_empty() {
            worst = worst.max(off(&x, &y));
        }
        for (got, want) in got.iter().zip(&want) {
            assert!(
                (got.entropy - want.entropy).abs() < 0.05,
                "{got:?} {want:?}"
            );
            assert!((got.margin - want.margin).abs() < 0.05, "{got:?} {want:?}");
        }
    };
    let span = |tokens, start, pages, sample, layers| Span {
        tokens,
        start,
        pages,
        sample,
        layers,
    };
    let greedy = Some(Sampling::GREEDY);
    // Prompts in pieces; one leaves early; one of a single token beside them.
    let spans = [
        span(&a[..1], 0, &pages[0][..], greedy, None),
        span(&b[..40], 0, &pages[1][..], None, None),
        span(&c[..20], 0, &pages[2][..], greedy, Some(1)),
    ];
    step(cpu, gpu, &spans);
    let spans = [
        span(&c[20..33], 20, &pages[2][..], greedy, None),
        span(&a[1..64], 1, &pages[0][..], Some(hot), None),
        span(&b[40..41], 40, &pages[1][..], greedy, Some(1)),
    ];
    step(cpu, gpu, &spans);
    // Full pages in other formats.
    for (page, format) in [
        (pages[0][0], KvFormat::Fp8),
        (pages[0][1], KvFormat::Int8),
        (pages[0][2], KvFormat::Fp8),
        (pages[1][0], KvFormat::Int8),
    ] {
        cpu.convert_page(page, format).unwrap();
        gpu.convert_page(page, format).unwrap();
    }
    assert_eq!(cpu.kv_bytes(), gpu.kv_bytes());
    // Decoding, in a batch of three and of two: graphs, with rows that fill up.
    for i in 0..8 {
        let mut spans = vec![
            span(&a[64 + i..=64 + i], 64 + i, &pages[0][..], greedy, None),
            span(&b[41 + i..=41 + i], 41 + i, &pages[1][..], Some(hot), None),
        ];
        if i % 2 == 0 {
            spans.push(span(&c[i..=i], 33 + i / 2, &pages[2][..], None, None));
        }
        step(cpu, gpu, &spans);
    }
    worst
}

#[test]
fn steps_give_what_the_cpu_gives() {
    for device in devices() {
        for (config, numbers, bound) in [
            // Attention has 16-bit queries, keys and weights: 2^-11 of each number.
            (config(), Numbers::F32, 2e-3),
            (wide(), Numbers::F32, 2e-3),
            // Activations of 8 bits: 2^-9 of each number, through all layers.
            (config(), Numbers::Bf16, 3e-2),
            (wide(), Numbers::Bf16, 3e-2),
        ] {
            let weights = Weights::random(&config, 5).unwrap();
            let mut cpu = Cpu::new(&config, &weights, &MEMORY).unwrap();
            let options = CudaOptions { numbers, ..OPTIONS };
            let source = Source::Host(&weights);
            let mut gpu =
                CudaBackend::on(device.clone(), &config, source, &MEMORY, options).unwrap();
            let worst = play(&mut cpu, &mut gpu, config.vocab_size);
            println!("{}: {numbers:?} {worst}", device.info().name);
            assert!(worst < bound, "{numbers:?}: {worst} over {bound}");
        }
    }
}
