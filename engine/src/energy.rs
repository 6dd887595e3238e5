//! What a step draws, and what an idle replica draws. Energy is counted in whole micro-joules,
//! rounded once per step.

use crate::batch::BatchShape;
use crate::hardware::{Gpu, Model};
use windtunnel_base::time::SimDuration;
use windtunnel_base::units::MicroJoules;

/// Says what a step draws.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum EnergyFn {
    /// `idle + (peak - idle) * utilization` watts, of all GPUs of the replica together. The
    /// utilization of a step is the share of its time in which it would keep compute units busy at
    /// their peak, or memory, whichever is more.
    Power {
        /// Watts while nothing runs.
        idle: f64,
        /// Watts at full utilization.
        peak: f64,
        /// Steps' work in relation to the peaks.
        intensity: Intensity,
    },
    /// `per_step + per_token * tokens emitted` joules per step: a fit `at_infinity + per_batch / B`
    /// joules per token, times the `B` tokens of a step. It holds all the step draws; the idle
    /// power counts only between steps.
    PerToken {
        /// Joules per emitted token.
        per_token: f64,
        /// Joules per step.
        per_step: f64,
        /// Watts while nothing runs, of all GPUs together.
        idle: f64,
    },
}

/// What a step asks of the hardware, for its utilization.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Intensity {
    /// Seconds at peak compute per token.
    pub compute_per_token: f64,
    /// Seconds at peak compute per query-key pair of prefill attention.
    pub compute_per_pair: f64,
    /// Seconds at peak bandwidth per step: weights.
    pub memory_per_step: f64,
    /// Seconds at peak bandwidth per token in KV that decoding requests read.
    pub memory_per_context: f64,
}

impl Intensity {
    /// The peaks of so many GPUs against what the model asks of them.
    pub fn new(gpu: &Gpu, model: &Model, gpus: u32, kv_bytes_per_element: f64) -> Self {
        let compute = match gpu.compute_fp8 {
            Some(fp8) if model.bytes_per_weight == 1.0 => fp8,
            _ => gpu.compute,
        } * f64::from(gpus);
        let bandwidth = gpu.bandwidth * f64::from(gpus);
        let layers = model.layer_parameters() as f64;
        let query_width = f64::from(model.heads) * f64::from(model.head_dim);
        Self {
            compute_per_token: 2.0 * layers / compute,
            compute_per_pair: 4.0 * f64::from(model.layers) * query_width
                / (gpu.compute * f64::from(gpus)),
            memory_per_step: layers * model.bytes_per_weight / bandwidth,
            memory_per_context: model.kv_bytes_per_token(kv_bytes_per_element) / bandwidth,
        }
    }

    /// Share of `seconds` in which the busier of compute and memory works at its peak.
    pub fn utilization(&self, shape: &BatchShape, seconds: f64) -> f64 {
        self.share(self.compute(shape), shape, seconds)
    }

    /// Seconds at peak compute.
    #[inline]
    fn compute(&self, shape: &BatchShape) -> f64 {
        shape.tokens() as f64 * self.compute_per_token
            + shape.prefill_pairs as f64 * self.compute_per_pair
    }

    #[inline]
    fn share(&self, compute: f64, shape: &BatchShape, seconds: f64) -> f64 {
        let memory = self.memory_per_step + shape.decode_context as f64 * self.memory_per_context;
        (compute.max(memory) / seconds).min(1.0)
    }
}

/// Energy of steps that differ in the contexts of their decoding requests alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodeRun<'a> {
    energy: &'a EnergyFn,
    /// Seconds at peak compute, or joules if those say it all: what the steps have in common.
    common: f64,
}

impl DecodeRun<'_> {
    /// What [`EnergyFn::step`] says, to the last bit.
    #[inline]
    pub(crate) fn step(&self, shape: &BatchShape, time: SimDuration) -> MicroJoules {
        let joules = match self.energy {
            EnergyFn::Power {
                idle,
                peak,
                intensity,
            } => {
                let seconds = time.as_secs_f64();
                let utilization = intensity.share(self.common, shape, seconds);
                (idle + (peak - idle) * utilization) * seconds
            }
            EnergyFn::PerToken { .. } => self.common,
        };
        MicroJoules::from_f64(joules * 1e6)
    }
}

impl EnergyFn {
    /// Energy of one step.
    pub fn step(&self, shape: &BatchShape, time: SimDuration) -> MicroJoules {
        self.decode_run(shape).step(shape, time)
    }

    /// For steps like this one but for the contexts of decoding requests.
    #[inline]
    pub(crate) fn decode_run(&self, shape: &BatchShape) -> DecodeRun<'_> {
        let common = match self {
            Self::Power { intensity, .. } => intensity.compute(shape),
            Self::PerToken {
                per_token,
                per_step,
                ..
            } => per_step + per_token * f64::from(shape.sampled),
        };
        DecodeRun {
            energy: self,
            common,
        }
    }

    /// Watts while no step runs.
    pub fn idle_watts(&self) -> f64 {
        match self {
            Self::Power { idle, .. } | Self::PerToken { idle, .. } => *idle,
        }
    }
}

/// A measured fit of energy per output token.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EnergyFit {
    /// Name in scenario files.
    pub name: &'static str,
    /// Joules per token at an endless batch.
    pub at_infinity: f64,
    /// Joules per step.
    pub per_batch: f64,
    /// GPUs it was measured on.
    pub gpus: u32,
    /// Largest relative error of the fit.
    pub max_error: f64,
}

/// Fits to the measurements of the ML.ENERGY leaderboard (bf16 unless named otherwise), all batch
/// sizes. The data has no idle power.
pub const ENERGY_FITS: [EnergyFit; 5] = [
    EnergyFit {
        name: "h100-llama-3.1-8b",
        at_infinity: 0.0665,
        per_batch: 3.162,
        gpus: 1,
        max_error: 0.040,
    },
    EnergyFit {
        name: "h100-qwen3-8b",
        at_infinity: 0.0692,
        per_batch: 3.045,
        gpus: 1,
        max_error: 0.049,
    },
    EnergyFit {
        name: "2xh100-qwen3-32b",
        at_infinity: 0.1889,
        per_batch: 11.473,
        gpus: 2,
        max_error: 0.043,
    },
    EnergyFit {
        name: "4xh100-llama-3.1-70b",
        at_infinity: 0.3596,
        per_batch: 27.426,
        gpus: 4,
        max_error: 0.045,
    },
    EnergyFit {
        name: "8xh100-llama-3.1-405b-fp8",
        at_infinity: 1.680,
        per_batch: 96.06,
        gpus: 8,
        max_error: 0.033,
    },
];
