//! The training loop: AdamW with warm-up and cosine decay. What a step does follows from seed and
//! number of the step alone, so a run that is taken up again ends as one that never stopped.

use super::data::{self, Shard};
use super::model::Decoder;
use super::params::Params;
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use windtunnel_base::rng::Streams;
use windtunnel_tasks::Task;

/// Loss and gradient of a shard.
type Gradient = Result<(f64, Vec<f32>)>;

/// Whether training goes on.
pub type Told = std::result::Result<ControlFlow<()>, ReferenceError>;

/// How a model is trained.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Steps.
    pub steps: usize,
    /// Tasks per step.
    pub batch: usize,
    /// Tasks computed at once; the parts of a batch run side by side.
    pub shard: usize,
    /// Largest learning rate.
    pub rate: f64,
    /// Steps up to it.
    pub warm_up: usize,
    /// What a token of a prompt counts beside one of an answer.
    pub prompt_weight: f32,
    /// Seed of weights and tasks.
    pub seed: u64,
}

/// Where tasks to learn from come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Drawn as they are needed.
    Fresh,
    /// These, again and again in ever another order.
    Pool(&'a [Task]),
}

impl Source<'_> {
    /// The tasks of one step.
    fn batch(self, settings: &Settings, step: usize) -> Vec<Task> {
        let streams = Streams::new(settings.seed);
        match self {
            Self::Fresh => data::draw(
                &mut streams.stream("training tasks", step as u64),
                settings.batch,
            ),
            Self::Pool(tasks) => {
                let per_round = (tasks.len() / settings.batch).max(1);
                let (round, part) = (step / per_round, step % per_round);
                let mut rng = streams.stream("order of a round", round as u64);
                let mut order: Vec<usize> = (0..tasks.len()).collect();
                for i in (1..order.len()).rev() {
                    order.swap(i, rng.below(i as u64 + 1) as usize);
                }
                let mine = order.iter().skip(part * settings.batch);
                mine.take(settings.batch)
                    .map(|&i| tasks[i].clone())
                    .collect()
            }
        }
    }
}

/// The learning rate of a step.
fn rate(settings: &Settings, step: usize) -> f64 {
    let warm = (step + 1) as f64 / settings.warm_up.max(1) as f64;
    let progress = step as f64 / settings.steps.max(1) as f64;
    let decay = 0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
    settings.rate * warm.min(decay)
}

/// The loss in nats, summed over a shard's targets by their weights.
///
/// # Errors
/// If the device fails.
pub fn loss(model: &Decoder, shard: &Shard) -> Result<Tensor> {
    let logits = model.forward(&shard.inputs)?;
    let (b, l, v) = logits.dims3()?;
    let log_probs = candle_nn::ops::log_softmax(&logits.reshape((b * l, v))?, D::Minus1)?;
    let picked = log_probs
        .gather(&shard.targets.unsqueeze(1)?, 1)?
        .squeeze(1)?;
    (picked * &shard.weights)?.sum_all()?.neg()
}

/// A model in training.
#[derive(Debug)]
pub struct Trainer {
    settings: Settings,
    params: Params,
    model: Decoder,
    /// Steps done.
    done: usize,
    /// One thread each: a shard is computed by one, so that they share no work but the next shard.
    workers: Vec<ThreadPool>,
}

impl Trainer {
    /// A model at its beginning.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn new(
        config: &ModelConfig,
        settings: &Settings,
    ) -> std::result::Result<Self, ReferenceError> {
        let params = Params::random(config, settings.seed)?;
        let vb = VarBuilder::from_tensors(params.tensors(), DType::F32, &Device::Cpu);
        let model = Decoder::new(config, &vb)?;
        let mut workers = Vec::new();
        for _ in 0..rayon::current_num_threads() {
            let pool = ThreadPoolBuilder::new().num_threads(1).build();
            workers.push(pool.map_err(|e| ReferenceError::Device {
                device: "cpu".into(),
                reason: format!("no thread to train on: {e}"),
            })?);
        }
        Ok(Self {
            settings: *settings,
            params,
            model,
            done: 0,
            workers,
        })
    }

    /// Steps done.
    pub const fn done(&self) -> usize {
        self.done
    }

    /// How it is trained.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The model as it is.
    pub const fn model(&self) -> &Decoder {
        &self.model
    }

    /// Weights and what is kept of their gradients.
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// Takes up training after `done` steps.
    ///
    /// # Errors
    /// If the device fails.
    pub fn take_up(
        &mut self,
        done: usize,
        values: Vec<f32>,
        first: Vec<f32>,
        second: Vec<f32>,
    ) -> std::result::Result<(), ReferenceError> {
        self.done = done;
        self.params.values = values;
        self.params.first = first;
        self.params.second = second;
        Ok(self.params.publish()?)
    }

    /// One step; gives the loss in nats per unit of weight.
    ///
    /// # Errors
    /// If the gradient is not a number, or the device fails.
    pub fn step(&mut self, source: Source<'_>) -> std::result::Result<f64, ReferenceError> {
        let tasks = source.batch(&self.settings, self.done);
        let shards = data::shards(tasks, self.settings.shard, self.settings.prompt_weight)?;
        let weight: f64 = shards.iter().map(|s| s.weight).sum();
        let computed: Vec<Mutex<Option<Gradient>>> =
            shards.iter().map(|_| Mutex::new(None)).collect();
        // Longest first, so that nobody waits long for the last one.
        let next = AtomicUsize::new(shards.len());
        let (model, params) = (&self.model, &self.params);
        std::thread::scope(|scope| {
            for pool in &self.workers {
                let (shards, computed, next) = (&shards, &computed, &next);
                scope.spawn(move || {
                    pool.install(|| {
                        while let Ok(n) =
                            next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                                n.checked_sub(1)
                            })
                        {
                            let result = backward(model, params, &shards[n - 1], weight);
                            if let Ok(mut place) = computed[n - 1].lock() {
                                *place = Some(result);
                            }
                        }
                    });
                });
            }
        });
        let mut loss = 0.0;
        let mut gradient = vec![0_f32; self.params.values.len()];
        // In the order of the shards, whoever computed them.
        for place in computed {
            let result = place.into_inner().ok().flatten();
            let (part, grads) = result.ok_or_else(|| ReferenceError::Device {
                device: "cpu".into(),
                reason: "a thread of the training ended early".into(),
            })??;
            loss += part;
            for (sum, g) in gradient.iter_mut().zip(grads) {
                *sum += g;
            }
        }
        let rate = rate(&self.settings, self.done);
        self.params.step(&gradient, rate, self.done)?;
        self.done += 1;
        Ok(loss)
    }

    /// Steps to the end, or until `report` (told of steps done and the loss of the last one) breaks.
    /// Says whether the end was reached.
    ///
    /// # Errors
    /// As [`Trainer::step`], and what `report` returns.
    pub fn run(
        &mut self,
        source: Source<'_>,
        report: &mut dyn FnMut(&Self, f64) -> Told,
    ) -> std::result::Result<bool, ReferenceError> {
        while self.done < self.settings.steps {
            let loss = self.step(source)?;
            if report(self, loss)?.is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Loss of a shard and gradient of all weights, as shares of a batch of weight `weight`.
fn backward(
    model: &Decoder,
    params: &Params,
    shard: &Shard,
    weight: f64,
) -> Result<(f64, Vec<f32>)> {
    let loss = (loss(model, shard)? / weight)?;
    let grads = loss.backward()?;
    let mut gradient = vec![0_f32; params.values.len()];
    params.gather(&grads, &mut gradient)?;
    Ok((f64::from(loss.to_scalar::<f32>()?), gradient))
}
