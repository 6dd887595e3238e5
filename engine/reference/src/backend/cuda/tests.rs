//! The GPU backend against the CPU, on every device at hand: a GPU if there is one, and always the emulator,
//! which runs the same kernels through the host's C++ compiler.

use super::*;
use crate::backend::Sampling;
use crate::backend::cpu::Cpu;
use crate::weights::Weights;
use windtunnel_base::rng::Rng;

/// What the bench measures.
mod figures;
/// Kernels without a model.
mod kernels_alone;
/// What is refused, and a device that is lost.
mod refusals;
/// Steps against the CPU.
mod steps;

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
        .map(|_| backend.take_page().unwrap().unwrap())
        .collect()
}

/// Distance over size.
fn off(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut got.iter().zip(want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied())
}

/// Weights that are the same in 16 bits.
fn rounded(config: &ModelConfig) -> Weights {
    let random = Weights::random(config, 5).unwrap();
    let tensors = random.tensors().map(|(name, tensor)| {
        let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let numbers: Vec<f32> = numbers
            .into_iter()
            .map(|x| half::bf16::from_f32(x).to_f32())
            .collect();
        let device = &candle_core::Device::Cpu;
        let tensor = candle_core::Tensor::from_vec(numbers, tensor.dims(), device).unwrap();
        (name.to_owned(), tensor)
    });
    Weights::from_tensors(tensors.collect(), config).unwrap()
}
