//! Weights as they change in training, and AdamW over them. State is plain numbers in the order of
//! `weights::expected`, so that it can be written down and taken up again bit for bit.

use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::weights::expected;
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use rayon::prelude::*;
use std::collections::HashMap;
use windtunnel_base::rng::Streams;

/// Decay of the mean gradient.
const BETA1: f32 = 0.9;
/// Decay of the mean squared gradient: short memory, since training is short.
const BETA2: f32 = 0.99;
/// Added to the root of the latter.
const EPS: f32 = 1e-8;
/// Share of a weight matrix that a step at learning rate 1 takes away.
const WEIGHT_DECAY: f32 = 0.01;
/// Gradients longer than this are shortened to it.
const LONGEST_GRADIENT: f64 = 1.0;

/// One tensor.
#[derive(Debug)]
struct Slot {
    name: String,
    shape: Vec<usize>,
    var: Var,
    start: usize,
}

/// All weights, and the means that AdamW keeps of their gradients.
#[derive(Debug)]
pub struct Params {
    slots: Vec<Slot>,
    /// Weights.
    pub values: Vec<f32>,
    /// Mean gradients.
    pub first: Vec<f32>,
    /// Mean squared gradients.
    pub second: Vec<f32>,
}

impl Params {
    /// Weights drawn from a seed: normal, with deviation `1 / sqrt(inputs)`, and less for matrices that
    /// add to the residual stream; norms of one.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn random(config: &ModelConfig, seed: u64) -> Result<Self> {
        let streams = Streams::new(seed);
        let (mut slots, mut values) = (Vec::new(), Vec::new());
        // Small beside the embedding, so that at first every layer sees which token it is at.
        let residual = 0.2 / (2.0 * config.num_hidden_layers as f64).sqrt();
        for (i, (name, shape)) in expected(config).into_iter().enumerate() {
            let mut rng = streams.stream("initial weights", i as u64);
            let start = values.len();
            let count: usize = shape.iter().product();
            let deviation = match shape[..] {
                [_, inputs] if name.ends_with("o_proj.weight") => residual / (inputs as f64).sqrt(),
                [_, inputs] if name.ends_with("down_proj.weight") => {
                    residual / (inputs as f64).sqrt()
                }
                [_, inputs] => 1.0 / (inputs as f64).sqrt(),
                _ => 0.0,
            };
            values.extend((0..count).map(|_| {
                if deviation == 0.0 {
                    return 1.0;
                }
                // The sum of four uniforms, scaled: near enough to a normal, the same everywhere.
                let sum: f64 = (0..4).map(|_| rng.f64() - 0.5).sum();
                (sum * 3_f64.sqrt() * deviation) as f32
            }));
            let tensor = Tensor::from_slice(&values[start..], shape.clone(), &Device::Cpu)?;
            slots.push(Slot {
                name,
                shape,
                var: Var::from_tensor(&tensor)?,
                start,
            });
        }
        let zeros = vec![0.0; values.len()];
        Ok(Self {
            slots,
            values,
            first: zeros.clone(),
            second: zeros,
        })
    }

    /// Tensors by name, which follow the weights as they change.
    pub fn tensors(&self) -> HashMap<String, Tensor> {
        self.slots
            .iter()
            .map(|s| (s.name.clone(), s.var.as_tensor().clone()))
            .collect()
    }

    /// Puts the values into the tensors.
    ///
    /// # Errors
    /// If the device fails.
    pub fn publish(&self) -> Result<()> {
        for slot in &self.slots {
            let count: usize = slot.shape.iter().product();
            let numbers = &self.values[slot.start..slot.start + count];
            let tensor = Tensor::from_slice(numbers, slot.shape.clone(), &Device::Cpu)?;
            slot.var.set(&tensor)?;
        }
        Ok(())
    }

    /// Adds the gradients of a backward pass to `sum`, in the order of the values.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gather(&self, grads: &GradStore, sum: &mut [f32]) -> Result<()> {
        for slot in &self.slots {
            if let Some(grad) = grads.get(slot.var.as_tensor()) {
                let grad = grad.flatten_all()?.to_vec1::<f32>()?;
                for (s, g) in sum[slot.start..].iter_mut().zip(grad) {
                    *s += g;
                }
            }
        }
        Ok(())
    }

    /// One step of AdamW (Loshchilov and Hutter 2019) after `done` steps, with the gradient
    /// shortened if it is long.
    ///
    /// # Errors
    /// If the gradient is not a number, or the device fails.
    pub fn step(
        &mut self,
        gradient: &[f32],
        rate: f64,
        done: usize,
    ) -> std::result::Result<(), ReferenceError> {
        let square: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum();
        if !square.is_finite() {
            return Err(ReferenceError::Training {
                step: done,
                reason: "the gradient is not a number".into(),
                remedy: "train at a lower rate".into(),
            });
        }
        let shorten = (LONGEST_GRADIENT / square.sqrt()).min(1.0) as f32;
        let count = i32::try_from(done + 1).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - BETA1.powi(count), 1.0 - BETA2.powi(count));
        let rate = rate as f32;
        for slot in &self.slots {
            let count: usize = slot.shape.iter().product();
            let place = slot.start..slot.start + count;
            let decay = if slot.shape.len() > 1 {
                1.0 - rate * WEIGHT_DECAY
            } else {
                1.0
            };
            let chunk = 1 << 14;
            self.values[place.clone()]
                .par_chunks_mut(chunk)
                .zip(self.first[place.clone()].par_chunks_mut(chunk))
                .zip(self.second[place.clone()].par_chunks_mut(chunk))
                .zip(gradient[place].par_chunks(chunk))
                .for_each(|(((values, first), second), gradient)| {
                    for (((x, m), v), g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
                        let g = g * shorten;
                        *m = BETA1 * *m + (1.0 - BETA1) * g;
                        *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                        let step = (*m / bias1) / ((*v / bias2).sqrt() + EPS);
                        *x = *x * decay - rate * step;
                    }
                });
        }
        Ok(self.publish()?)
    }
}
