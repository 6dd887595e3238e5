//! Tensor parallelism: two all-reduces of the activations per layer.

/// Time of the collective calls of one step.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct AllReduce {
    /// Seconds per step, whatever it computes.
    pub per_step: f64,
    /// Seconds per token of the step.
    pub per_token: f64,
}

impl AllReduce {
    /// Ring all-reduce over `gpus` GPUs: each of the `2 * layers` calls of a step moves
    /// `2 (p - 1) / p` times the activations (`hidden * bytes` per token) over every link.
    pub fn new(gpus: u32, layers: u32, bytes_per_token: f64, bandwidth: f64, latency: f64) -> Self {
        if gpus < 2 {
            return Self::default();
        }
        let p = f64::from(gpus);
        let calls = 2.0 * f64::from(layers);
        Self {
            per_step: calls * latency,
            per_token: calls * 2.0 * (p - 1.0) / p * bytes_per_token / bandwidth,
        }
    }

    /// Seconds for a step over so many tokens.
    pub fn seconds(&self, tokens: u64) -> f64 {
        self.per_step + self.per_token * tokens as f64
    }
}
