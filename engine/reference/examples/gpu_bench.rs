//! Measures an 8B-shaped model (or `pocket`) on the first GPU, and prints the figures as JSON:
//! `gpu_bench DATE [8b|pocket]`.

use windtunnel_reference::backend::cpu::KvMemory;
use windtunnel_reference::backend::cuda::measure::{BenchPlan, bench};
use windtunnel_reference::backend::cuda::{CudaBackend, CudaOptions, Source};
use windtunnel_reference::config::ModelConfig;
use windtunnel_reference::kv::format::KvFormat;

#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let date = arguments
        .next()
        .ok_or("say the date, as in `gpu_bench 2026-11-21 8b`")?;
    let (config, plan) = match arguments.next().as_deref() {
        Some("pocket") => {
            let plan = BenchPlan {
                context: 256,
                prefills: vec![64, 256],
                ..BenchPlan::default()
            };
            (ModelConfig::pocket_frontier(), plan)
        }
        None | Some("8b") => (eight_billion(), BenchPlan::default()),
        Some(other) => return Err(format!("`{other}` is neither 8b nor pocket").into()),
    };
    let batch = plan.batches.iter().copied().max().unwrap_or(1);
    let memory = KvMemory {
        pages: batch * (plan.context.div_ceil(16) + 2),
        page_tokens: 16,
        filling: KvFormat::F16,
    };
    let options = CudaOptions::default();
    let mut gpu = CudaBackend::new(0, &config, Source::Seed(1), &memory, options)?;
    let figures = bench(&mut gpu, &plan, &date)?;
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}

/// The sizes of published 8B models of the Llama family.
fn eight_billion() -> ModelConfig {
    ModelConfig {
        hidden_size: 4_096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        vocab_size: 128_256,
        max_position_embeddings: 8_192,
        rope_theta: 500_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: false,
    }
}
