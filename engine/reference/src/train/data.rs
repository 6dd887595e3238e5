//! Batches of tasks, padded to the longest.

use candle_core::{Device, Result, Tensor};
use windtunnel_base::rng::Rng;
use windtunnel_tasks::tokenizer::{BOS, EOS, encode};
use windtunnel_tasks::{self as tasks, Task};

/// Tokens in, tokens out, and which of the latter count.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, len]`.
    pub inputs: Tensor,
    /// `[batch * len]`.
    pub targets: Tensor,
    /// `[batch * len]`: 1 where an answer's token is to be predicted, else 0.
    pub counts: Tensor,
    /// How many count.
    pub answer_tokens: usize,
}

/// Draws `size` tasks and lays them out.
///
/// # Errors
/// If the device has no memory for them.
pub fn batch(rng: &mut Rng, size: usize, device: &Device) -> Result<Batch> {
    let drawn: Vec<Task> = (0..size).map(|_| tasks::generate(rng)).collect();
    of_tasks(&drawn, device)
}

/// Lays tasks out.
///
/// # Errors
/// If the device has no memory for them.
pub fn of_tasks(drawn: &[Task], device: &Device) -> Result<Batch> {
    let texts: Vec<(Vec<u32>, usize)> = drawn
        .iter()
        .map(|task| {
            let mut tokens = vec![BOS];
            tokens.extend(encode(&task.prompt));
            let prompt = tokens.len();
            tokens.extend(encode(&task.answer));
            tokens.push(EOS);
            (tokens, prompt)
        })
        .collect();
    let len = texts.iter().map(|t| t.0.len() - 1).max().unwrap_or(0);
    let (mut inputs, mut targets, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for (tokens, prompt) in &texts {
        for i in 0..len {
            let last = tokens.len() - 1;
            inputs.push(tokens[i.min(last)]);
            targets.push(tokens[(i + 1).min(last)]);
            counts.push(if i + 1 >= *prompt && i < last {
                1_f32
            } else {
                0.0
            });
        }
    }
    let answer_tokens = counts.iter().filter(|c| **c > 0.0).count();
    let all = drawn.len() * len;
    Ok(Batch {
        inputs: Tensor::from_vec(inputs, (drawn.len(), len), device)?,
        targets: Tensor::from_vec(targets, all, device)?,
        counts: Tensor::from_vec(counts, all, device)?,
        answer_tokens,
    })
}
