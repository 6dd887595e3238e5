//! Executors as scenarios ask for them: which model, whose weights, on which device.

use super::clock::{Clock, Epoch};
use super::{Drawing, ReferenceExecutor};
use crate::backend::Backend;
use crate::backend::cpu::{Cpu, KvMemory};
use crate::backend::cuda::{CudaBackend, CudaOptions, Source};
use crate::calibrate::plan::Plan;
use crate::calibrate::{Measured, measure};
use crate::cascade::Settings;
use crate::cascade::steps::{LayeredExecutor, check};
use crate::config::ModelConfig;
use crate::devices::{first_that_fits, fits, ready};
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use crate::models::{self, Pocket};
use crate::weights::Weights;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use windtunnel_engine::config::{
    ClockSpec, ComputedCascade, ContinuousSpec, DeviceSpec, ModelSpec, ReferenceSpec, WeightsSpec,
};
use windtunnel_engine::execute::StepExecutor;

/// A model on the host, from which replicas are made.
#[derive(Clone, Debug)]
pub struct Model {
    /// What it was asked for as.
    asked: (String, WeightsSpec, u64),
    /// Its sizes.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Arc<Weights>,
}

/// Sizes of a decoder for tests: what it says means nothing.
pub fn tiny() -> ModelConfig {
    ModelConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        ..ModelConfig::pocket_light()
    }
}

impl Model {
    /// The model that a scenario names.
    ///
    /// # Errors
    /// If there is none of that name, or its files are missing or wrong.
    pub fn of(spec: &ReferenceSpec) -> Result<Self, ReferenceError> {
        let config = sizes(&spec.model)?;
        fits(&format!("the model {}", spec.model), config.host_bytes())?;
        let weights = match named(&spec.model) {
            Some(_) => named_weights(&spec.model, &config, spec)?,
            None => Weights::load(Path::new(&spec.model), &config)?,
        };
        Ok(Self {
            asked: asked(spec),
            config,
            weights: Arc::new(weights),
        })
    }

    /// Whether it is the model that a scenario names.
    pub fn is(&self, spec: &ReferenceSpec) -> bool {
        self.asked == asked(spec)
    }
}

/// What makes two models the same.
fn asked(spec: &ReferenceSpec) -> (String, WeightsSpec, u64) {
    (spec.model.clone(), spec.weights, spec.seed)
}

/// Sizes of a model with a name.
fn named(name: &str) -> Option<ModelConfig> {
    match name {
        "pocket_frontier" => Some(ModelConfig::pocket_frontier()),
        "pocket_light" => Some(ModelConfig::pocket_light()),
        "tiny" => Some(tiny()),
        _ => None,
    }
}

/// The weights of a model with a name.
fn named_weights(
    name: &str,
    config: &ModelConfig,
    spec: &ReferenceSpec,
) -> Result<Weights, ReferenceError> {
    let trained = Pocket::ALL.iter().any(|pocket| pocket.name() == name);
    match spec.weights {
        WeightsSpec::Auto if trained => models::load(name).map(|model| model.weights),
        WeightsSpec::Auto | WeightsSpec::Random => Weights::random(config, spec.seed),
    }
}

/// The sizes of the model that a scenario names, which need no weights.
///
/// # Errors
/// If there is none of that name, or its `config.json` is missing or wrong.
pub fn sizes(model: &str) -> Result<ModelConfig, ReferenceError> {
    if let Some(config) = named(model) {
        return Ok(config);
    }
    let folder = Path::new(model);
    if !folder.is_dir() {
        return Err(ReferenceError::Config {
            field: "model".into(),
            reason: format!("there is neither a model nor a folder `{model}`"),
            remedy: "name pocket_frontier, pocket_light, tiny, or a folder with config.json and safetensors"
                .into(),
        });
    }
    ModelConfig::read(folder)
}

/// Memory for keys and values where a scenario gives no `kv.blocks`.
const HOST_MEMORY: u64 = 1 << 30;

/// The cascade of an engine, if any of its layers acts.
fn layers(spec: &ContinuousSpec) -> Option<&ComputedCascade> {
    spec.cascade.as_deref().filter(|c| c.layers.any())
}

/// The light model of an engine's cascade, as models are named; none if no layer acts.
pub fn light(spec: &ContinuousSpec) -> Option<ReferenceSpec> {
    let reference = spec.reference.clone().unwrap_or_default();
    layers(spec).map(|cascade| ReferenceSpec {
        model: cascade.light.clone(),
        ..reference
    })
}

/// Gives an engine the sizes of the model it computes, so that lengths and memory are that model's;
/// without `kv.blocks` it gets those of 1 GiB.
///
/// # Errors
/// If there is none of that name, its `config.json` is missing or wrong, or its layers do not fit it.
pub fn fit(spec: &mut ContinuousSpec) -> Result<(), ReferenceError> {
    let reference = spec.reference.clone().unwrap_or_default();
    let config = sizes(&reference.model)?;
    if let Some(cascade) = layers(spec) {
        check(&Settings::of(cascade, 0), &config, &sizes(&cascade.light)?)?;
    }
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let max_len = small(config.max_position_embeddings);
    spec.custom_model = Some(ModelSpec {
        layers: small(config.num_hidden_layers),
        hidden: small(config.hidden_size),
        ffn: small(config.intermediate_size),
        heads: small(config.num_attention_heads),
        kv_heads: small(config.num_key_value_heads),
        head_dim: small(config.head_dim),
        vocab: small(config.vocab_size),
        bytes_per_weight: 2.0,
        max_len,
    });
    spec.max_model_len = spec.max_model_len.map(|len| len.min(max_len));
    if spec.kv.blocks.is_none() {
        let block = config
            .kv_numbers()
            .saturating_mul(2 * u64::from(spec.kv.block_size));
        spec.kv.blocks = Some((HOST_MEMORY / block.max(1)).max(1));
    }
    spec.reference = Some(reference);
    Ok(())
}

/// An executor for an engine with so many blocks of memory, computing `model`, and `light` beside it where
/// layers of a cascade act. `epoch` is the clock of a run in real time; none if time is simulated.
///
/// # Errors
/// If the device is not there, or has not the memory.
pub fn executor(
    spec: &ContinuousSpec,
    (model, light): (&Model, Option<&Model>),
    blocks: u64,
    seed: u64,
    epoch: Option<&Epoch>,
) -> Result<Box<dyn StepExecutor>, ReferenceError> {
    let reference = spec.reference.clone().unwrap_or_default();
    let clock = match (reference.clock, epoch) {
        (_, Some(epoch)) => Clock::Wall(epoch.clone()),
        (ClockSpec::CostModel, None) => Clock::CostModel,
        (ClockSpec::CountedWork, None) => Clock::CountedWork,
        (ClockSpec::Measured, None) => Clock::Measured,
    };
    let drawing = Drawing {
        temperature: reference.temperature as f32,
        top_p: reference.top_p as f32,
        seed,
    };
    let memory = KvMemory {
        pages: usize::try_from(blocks).unwrap_or(usize::MAX),
        page_tokens: spec.kv.block_size as usize,
        filling: KvFormat::F16,
    };
    let frontier = backend(reference.device, model, &memory)?;
    let (Some(cascade), Some(light)) = (layers(spec), light) else {
        return Ok(Box::new(ReferenceExecutor::new(frontier, drawing, clock)));
    };
    let light = backend(reference.device, light, &memory)?;
    let settings = Settings::of(cascade, seed);
    let own = model.config.max_position_embeddings;
    let longest = spec.max_model_len.map_or(own, |len| own.min(len as usize));
    let ways = (drawing, clock);
    let layered =
        LayeredExecutor::new(frontier, light, settings, ways, (longest, cascade.compared));
    Ok(Box::new(layered))
}

/// Measures for about `budget` how long the steps take that an engine's scheduler may ask of `model`, on
/// the device where the engine computes.
///
/// # Errors
/// If the device is not there, fails, or has not the memory.
pub fn measure_steps(
    spec: &ContinuousSpec,
    model: &Model,
    budget: Duration,
    seed: u64,
) -> Result<Measured, ReferenceError> {
    let reference = spec.reference.clone().unwrap_or_default();
    let usual = Plan::new(
        &model.config,
        spec.scheduler.max_num_seqs as usize,
        spec.scheduler.token_budget as usize,
    );
    let longest = spec.max_model_len.map_or(usize::MAX, |len| len as usize);
    let plan = Plan {
        max_context: usual.max_context.min(longest),
        budget,
        seed,
        ..usual
    };
    plan.check(&model.config)?;
    let page_tokens = spec.kv.block_size as usize;
    let memory = KvMemory {
        pages: plan.pages(page_tokens),
        page_tokens,
        filling: KvFormat::F16,
    };
    let mut backend = backend(reference.device, model, &memory)?;
    let measured = measure(backend.as_mut(), &plan, &mut |_| ControlFlow::Continue(()))?;
    measured.ok_or_else(|| ReferenceError::Device {
        device: backend.device(),
        reason: "nothing was measured".into(),
    })
}

fn backend(
    device: DeviceSpec,
    model: &Model,
    memory: &KvMemory,
) -> Result<Box<dyn Backend>, ReferenceError> {
    let cpu = || -> Result<Box<dyn Backend>, ReferenceError> {
        let what = format!(
            "the model {} on the CPU with `kv.blocks` of {} blocks",
            model.asked.0, memory.pages
        );
        fits(&what, Cpu::bytes(&model.config, memory))?;
        Ok(ready(Box::new(Cpu::new(
            &model.config,
            &model.weights,
            memory,
        )?)))
    };
    let cuda = || -> Result<Box<dyn Backend>, ReferenceError> {
        let source = Source::Host(&model.weights);
        let options = CudaOptions::default();
        let gpu = CudaBackend::new(0, &model.config, source, memory, options)?;
        Ok(ready(Box::new(gpu)))
    };
    match device {
        DeviceSpec::Cpu => cpu(),
        DeviceSpec::Cuda => cuda(),
        DeviceSpec::Auto => first_that_fits(cuda, cpu),
    }
}
