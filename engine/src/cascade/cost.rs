//! The session cost model: what a turn costs, in seconds, by where the time goes.

use crate::config::{CascadeModel, CascadeSpec};

/// Seconds of a turn, by what they are spent on.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Parts {
    /// Reading the prompt: the bottleneck of repeated contexts.
    pub prefill: f64,
    /// Launches of decode steps.
    pub launch: f64,
    /// Decode steps limited by computing.
    pub compute: f64,
    /// Decode steps limited by memory.
    pub memory: f64,
    /// Looking at the state (L0).
    pub skip: f64,
    /// Verification (L4).
    pub verify: f64,
}

impl Parts {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.prefill + self.launch + self.compute + self.memory + self.skip + self.verify
    }

    /// Adds other parts.
    pub fn add(&mut self, more: &Self) {
        self.prefill += more.prefill;
        self.launch += more.launch;
        self.compute += more.compute;
        self.memory += more.memory;
        self.skip += more.skip;
        self.verify += more.verify;
    }
}

/// A turn that is run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TurnShape {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of them, those found in a kept context.
    pub cached_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Share of tokens that the frontier computes before they are given; 1 without L2.
    pub large_share: f64,
}

/// One step of one model: launches, then the longer of computing and moving.
struct Step {
    launch: f64,
    compute: f64,
    memory: f64,
}

impl Step {
    fn into_parts(self, times: f64) -> Parts {
        let (compute, memory) = if self.compute >= self.memory {
            (self.compute, 0.0)
        } else {
            (0.0, self.memory)
        };
        Parts {
            launch: times * self.launch,
            compute: times * compute,
            memory: times * memory,
            ..Parts::default()
        }
    }
}

impl CascadeSpec {
    /// Bits of a stored number of keys and values.
    pub fn kv_bits(&self) -> f64 {
        if self.layers.l3 {
            16.0 * self.evidence.anchors + 8.0 * (1.0 - self.evidence.anchors)
        } else {
            16.0
        }
    }

    /// Share of tokens that L2 sends to the frontier at a threshold: difficulty is uniform.
    pub fn large_share(&self, threshold: f64) -> f64 {
        1.0 - self.short_share(threshold)
    }

    /// The rest.
    pub fn short_share(&self, threshold: f64) -> f64 {
        let open = if self.route.severity_override {
            1.0 - self.world.critical
        } else {
            1.0
        };
        open * threshold.clamp(0.0, 1.0)
    }

    /// Mean of `d^4` over difficulties below the threshold.
    pub fn mean_error(&self, threshold: f64) -> f64 {
        let t = threshold.clamp(0.0, 1.0);
        t * t * t * t / 5.0
    }

    /// Share of critical tokens that take the short path.
    pub fn critical_short(&self, threshold: f64) -> f64 {
        if self.route.severity_override {
            0.0
        } else {
            threshold.clamp(0.0, 1.0)
        }
    }

    fn launches(&self, model: &CascadeModel) -> f64 {
        if let Some(graph) = self.spans.graph {
            return graph.0.as_secs_f64();
        }
        let coherent = self.spans.coherent.unwrap_or(self.device.batch);
        let shared = if self.layers.l1 {
            coherent.clamp(1, self.spans.max.max(1))
        } else {
            1
        };
        f64::from(model.kernels) * self.device.launch.0.as_secs_f64() / f64::from(shared)
    }

    /// A step of `tokens` tokens over sequences with `context` tokens in KV together.
    fn step(&self, model: &CascadeModel, tokens: f64, context: f64) -> Step {
        let kv = model.kv_per_token.0 as f64 * self.kv_bits() / 16.0;
        Step {
            launch: self.launches(model),
            compute: 2.0 * model.parameters * tokens / self.device.compute.0,
            memory: (2.0 * model.parameters + context * kv) / self.device.bandwidth.0,
        }
    }

    /// Seconds of a chunk of one sequence.
    fn chunk(&self, model: &CascadeModel, tokens: f64, context: f64) -> f64 {
        self.step(model, tokens, context).into_parts(1.0).total()
    }

    /// What a turn costs that is run.
    pub fn parts(&self, shape: &TurnShape) -> Parts {
        let device = &self.device;
        let fresh = f64::from(shape.prompt_tokens - shape.cached_tokens.min(shape.prompt_tokens));
        let (prompt, output) = (
            f64::from(shape.prompt_tokens),
            f64::from(shape.output_tokens),
        );
        let mut prefill = self.chunk(&device.frontier, fresh, prompt);
        let batch = f64::from(device.batch);
        // Contexts grow evenly, so that the mean over the answer is that of its middle; in a step
        // that goes over from one limit to the other this is a little less than the sum.
        let context = batch * (prompt + output / 2.0);
        let mut parts = Parts::default();
        if self.layers.l2 {
            // The light model drafts every token. Where any sequence of the step needs the frontier,
            // that computes its token and what it has not seen before it.
            prefill += self.chunk(&device.light, fresh, prompt);
            let light = self.step(&device.light, batch, context);
            parts.add(&light.into_parts(output));
            let runs = 1.0 - libm::pow(1.0 - shape.large_share.clamp(0.0, 1.0), batch);
            if runs > 0.0 {
                let frontier = self.step(&device.frontier, batch / runs, context);
                parts.add(&frontier.into_parts(output * runs));
            }
        } else {
            let frontier = self.step(&device.frontier, batch, context);
            parts.add(&frontier.into_parts(output));
        }
        parts.prefill = prefill;
        parts
    }

    /// Seconds of verifying an answer: all its tokens in one chunk.
    pub fn verification(&self, shape: &TurnShape) -> f64 {
        let model = if self.shadow.full {
            &self.device.frontier
        } else {
            &self.device.light
        };
        let context = f64::from(shape.prompt_tokens) + f64::from(shape.output_tokens);
        self.chunk(model, f64::from(shape.output_tokens), context)
    }
}
