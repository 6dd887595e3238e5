//! Tasks as sequences to learn from: drawn without those that are held out, in shards of about the
//! same length, so that little of what is computed is padding.

use candle_core::{Device, Result, Tensor};
use windtunnel_base::rng::Rng;
use windtunnel_tasks::tokenizer::{BOS, EOS, encode};
use windtunnel_tasks::{self as tasks, Task};

/// Sequences of one shard, padded to the longest of them.
#[derive(Debug)]
pub struct Shard {
    /// `[sequences, len]`.
    pub inputs: Tensor,
    /// `[sequences * len]`.
    pub targets: Tensor,
    /// `[sequences * len]`: what a target counts; 1 for tokens of answers.
    pub weights: Tensor,
    /// Sum of the weights.
    pub weight: f64,
}

/// Draws tasks of all classes that are not held out.
pub fn draw(rng: &mut Rng, count: usize) -> Vec<Task> {
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let task = tasks::generate(rng);
        if !task.held_out() {
            drawn.push(task);
        }
    }
    drawn
}

/// Lays tasks out in shards of `size`, the shortest tasks first. Tokens of prompts count `prompt`.
///
/// # Errors
/// If the device has no memory for them.
pub fn shards(mut drawn: Vec<Task>, size: usize, prompt: f32) -> Result<Vec<Shard>> {
    drawn.sort_by_key(|t| t.prompt.len() + t.answer.len());
    drawn
        .chunks(size.max(1))
        .map(|tasks| shard(tasks, prompt))
        .collect()
}

fn shard(drawn: &[Task], prompt_weight: f32) -> Result<Shard> {
    let device = Device::Cpu;
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
    let (mut inputs, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (tokens, prompt) in &texts {
        let last = tokens.len() - 1;
        for i in 0..len {
            inputs.push(tokens[i.min(last)]);
            targets.push(tokens[(i + 1).min(last)]);
            weights.push(match i {
                _ if i >= last => 0.0,
                _ if i + 1 >= *prompt => 1.0,
                _ => prompt_weight,
            });
        }
    }
    let weight = weights.iter().map(|&w| f64::from(w)).sum();
    let all = drawn.len() * len;
    Ok(Shard {
        inputs: Tensor::from_vec(inputs, (drawn.len(), len), &device)?,
        targets: Tensor::from_vec(targets, all, &device)?,
        weights: Tensor::from_vec(weights, all, &device)?,
        weight,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_and_padding_does_not() {
        let drawn = draw(&mut Rng::from_seed(5), 12);
        assert!(drawn.iter().all(|t| !t.held_out()));
        let answers: usize = drawn.iter().map(Task::answer_tokens).sum();
        let prompts: usize = drawn.iter().map(|t| t.prompt_tokens() - 1).sum();
        let shards = shards(drawn, 5, 0.5).unwrap();
        assert_eq!(shards.len(), 3);
        let weight: f64 = shards.iter().map(|s| s.weight).sum();
        assert!((weight - (answers as f64 + 0.5 * prompts as f64)).abs() < 1e-6);
        let widths: Vec<usize> = shards.iter().map(|s| s.inputs.dims()[1]).collect();
        assert!(widths.is_sorted(), "{widths:?}");
        // The last token of an answer is predicted, and nothing after it.
        for shard in &shards {
            let targets = shard.targets.to_vec1::<u32>().unwrap();
            let weights = shard.weights.to_vec1::<f32>().unwrap();
            let ends = targets
                .iter()
                .zip(&weights)
                .filter(|(t, w)| **t == EOS && **w > 0.0)
                .count();
            assert_eq!(ends, shard.inputs.dims()[0]);
        }
    }
}
