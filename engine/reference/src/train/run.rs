//! The training loop: AdamW with warm-up and cosine decay.

use super::data::{self, Batch};
use super::model::Decoder;
use crate::config::ModelConfig;
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_tasks::tokenizer::{BOS, EOS, decode, encode};
use windtunnel_tasks::{self as tasks, CLASSES, Task};

/// How a model is trained.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Steps.
    pub steps: usize,
    /// Tasks per step.
    pub batch: usize,
    /// Largest learning rate.
    pub rate: f64,
    /// Steps up to it.
    pub warm_up: usize,
    /// Seed of weights and tasks.
    pub seed: u64,
}

/// What a model can do.
#[derive(Clone, PartialEq, Debug)]
pub struct Score {
    /// Share of exactly right answers, by class.
    pub exact: Vec<(&'static str, f64)>,
    /// Share over all.
    pub mean: f64,
}

/// The mean loss in nats per answer token.
///
/// # Errors
/// If the device fails.
pub fn loss(model: &Decoder, batch: &Batch) -> Result<Tensor> {
    let logits = model.forward(&batch.inputs)?;
    let (b, l, v) = logits.dims3()?;
    let log_probs = candle_nn::ops::log_softmax(&logits.reshape((b * l, v))?, D::Minus1)?;
    let picked = log_probs
        .gather(&batch.targets.unsqueeze(1)?, 1)?
        .squeeze(1)?;
    (picked * &batch.counts)?.sum_all()?.neg()? / batch.answer_tokens as f64
}

/// Trains a model from random weights; `report` is told of step and loss now and then.
///
/// # Errors
/// If the device fails.
pub fn train(
    config: &ModelConfig,
    settings: &Settings,
    report: &mut dyn FnMut(usize, f32, &Decoder),
) -> Result<VarMap> {
    let device = Device::Cpu;
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &device);
    let model = Decoder::new(config, &vb)?;
    let mut rng = Streams::new(settings.seed).stream("training tasks", 0);
    let params = ParamsAdamW {
        lr: settings.rate,
        weight_decay: 0.01,
        beta2: 0.99,
        ..ParamsAdamW::default()
    };
    let mut optimizer = AdamW::new(vars.all_vars(), params)?;
    for step in 0..settings.steps {
        let warm = (step + 1) as f64 / settings.warm_up as f64;
        let progress = step as f64 / settings.steps as f64;
        let decay = 0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        optimizer.set_learning_rate(settings.rate * warm.min(decay));
        let batch = data::batch(&mut rng, settings.batch, &device)?;
        let loss = loss(&model, &batch)?;
        optimizer.backward_step(&loss)?;
        if step % 20 == 0 || step + 1 == settings.steps {
            report(step, loss.to_scalar::<f32>()?, &model);
        }
    }
    Ok(vars)
}

/// Greedy answers to tasks, all at once.
///
/// # Errors
/// If the device fails.
pub fn answers(model: &Decoder, tasks: &[Task], longest: usize) -> Result<Vec<String>> {
    let device = Device::Cpu;
    let mut texts: Vec<Vec<u32>> = tasks
        .iter()
        .map(|t| std::iter::once(BOS).chain(encode(&t.prompt)).collect())
        .collect();
    let prompts: Vec<usize> = texts.iter().map(Vec::len).collect();
    for _ in 0..longest {
        let open: Vec<usize> = (0..texts.len())
            .filter(|&i| texts[i].last() != Some(&EOS))
            .collect();
        if open.is_empty() {
            break;
        }
        let len = open.iter().map(|&i| texts[i].len()).max().unwrap_or(0);
        let mut inputs = Vec::new();
        for &i in &open {
            inputs.extend((0..len).map(|p| texts[i].get(p).copied().unwrap_or(EOS)));
        }
        let logits = model.forward(&Tensor::from_vec(inputs, (open.len(), len), &device)?)?;
        for (row, &i) in open.iter().enumerate() {
            let last = logits.get(row)?.get(texts[i].len() - 1)?;
            texts[i].push(last.argmax(D::Minus1)?.to_scalar::<u32>()?);
        }
    }
    Ok(texts
        .iter()
        .zip(prompts)
        .map(|(t, p)| decode(&t[p..]))
        .collect())
}

/// Tries a model on tasks it was not trained on.
///
/// # Errors
/// If the device fails.
pub fn score(model: &Decoder, per_class: usize, seed: u64) -> Result<Score> {
    let mut exact = Vec::new();
    for (i, class) in CLASSES.into_iter().enumerate() {
        let mut rng: Rng = Streams::new(seed).stream("held-out tasks", i as u64);
        let drawn: Vec<Task> = (0..per_class).map(|_| class.generate(&mut rng)).collect();
        let answers = answers(model, &drawn, 96)?;
        let right = drawn
            .iter()
            .zip(&answers)
            .filter(|(t, a)| tasks::verify(&t.prompt, a).is_ok())
            .count();
        exact.push((class.name(), right as f64 / per_class as f64));
    }
    let mean = exact.iter().map(|e| e.1).sum::<f64>() / exact.len() as f64;
    Ok(Score { exact, mean })
}
