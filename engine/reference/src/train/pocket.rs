//! The pocket models, from a seed to shipped files: the frontier learns from fresh tasks, the light
//! one from what the frontier was asked and verifiably answered right (the night cycle).

use super::files::{State, checkpoint_of, save_checkpoint, take_up, weights_file, write};
use super::run::{Settings, Source, Trainer};
use super::score::{Score, on_cpu, score, verified};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::machine::cpu_seconds;
use crate::models::{Model, Pocket};
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::Path;
use windtunnel_base::digest::RunDigest;
use windtunnel_base::rng::Streams;
use windtunnel_tasks::Task;

/// Steps between checkpoints.
const CHECKPOINT_STEPS: usize = 100;
/// Seed of the held-out tasks that cards report on.
pub const HELD_OUT_SEED: u64 = 20;
/// Held-out tasks per class that cards report on.
pub const HELD_OUT_PER_CLASS: usize = 500;
/// Tasks that the frontier is asked in the night.
pub const NIGHT_TASKS: usize = 24_000;
/// Of these, at once.
const NIGHT_PART: usize = 600;

/// How the light model's lessons came about.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Night {
    /// Digest of the frontier's weights, tensor by tensor.
    pub teacher: String,
    /// Tasks it was asked.
    pub asked: usize,
    /// Of these, answered right.
    pub verified: usize,
}

/// What is said of a trained model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Card {
    /// Its name.
    pub model: String,
    /// Version of Windtunnel that trained it.
    pub version: String,
    /// Numbers of all weights.
    pub parameters: usize,
    /// What it learnt from, in words.
    pub data: String,
    /// How it was trained.
    pub training: Settings,
    /// Steps done.
    pub steps: usize,
    /// Where its lessons came from, if not from fresh tasks.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub night: Option<Night>,
    /// CPU seconds of all threads that the training took, measurement of the model left out.
    pub cpu_seconds: f64,
    /// Digest of `model.safetensors`.
    pub weights: String,
    /// Seed of the held-out tasks.
    pub held_out_seed: u64,
    /// What the written files can do on tasks that no training sees.
    pub held_out: Score,
}

/// What training says of itself as it goes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Report {
    /// Taken up from a checkpoint after so many steps.
    TakenUp(usize),
    /// The frontier was asked so many more tasks.
    Asked(usize),
    /// One more step, with its loss in nats per token of an answer.
    Step(f64),
}

/// Who is told, and can stop a training; what is done stays in the checkpoint.
pub type Listener<'a> = dyn FnMut(Report) -> ControlFlow<()> + 'a;

/// How a model is trained unless told otherwise.
pub const fn settings(pocket: Pocket, seed: u64) -> Settings {
    match pocket {
        Pocket::Frontier => Settings {
            steps: 6_000,
            batch: 16,
            shard: 8,
            rate: 1.5e-3,
            warm_up: 100,
            prompt_weight: 0.0,
            seed,
        },
        Pocket::Light => Settings {
            steps: 1_500,
            batch: 32,
            shard: 8,
            rate: 3e-3,
            warm_up: 100,
            prompt_weight: 0.0,
            seed,
        },
    }
}

/// The digest of a file, as cards give it.
pub fn digest(bytes: &[u8]) -> String {
    let mut digest = RunDigest::default();
    digest.absorb_bytes(bytes);
    digest.hex()
}

/// How a model of any sizes is trained.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its sizes.
    pub config: ModelConfig,
    /// Steps, rates, seed.
    pub settings: Settings,
    /// Who teaches it, and how many tasks the teacher is asked; fresh tasks if nobody does.
    pub teacher: Option<(&'a Model, usize)>,
    /// Held-out tasks per class that the card reports on.
    pub held_out_per_class: usize,
}

impl<'a> Plan<'a> {
    /// How a pocket model is trained. The light one needs a teacher.
    pub fn pocket(pocket: Pocket, settings: Settings, teacher: Option<&'a Model>) -> Self {
        Self {
            name: pocket.name(),
            config: pocket.config(),
            settings,
            teacher: teacher.map(|t| (t, NIGHT_TASKS)),
            held_out_per_class: HELD_OUT_PER_CLASS,
        }
    }
}

/// Trains a model into `folder`, taking up what a checkpoint there holds: `model.safetensors`,
/// `config.json` and `card.json`. Gives nothing if `listener` stopped it; what is done stays in the
/// checkpoint.
///
/// # Errors
/// If a file cannot be read or written, a checkpoint is of another training, or the device fails.
pub fn train(
    plan: &Plan<'_>,
    folder: &Path,
    listener: &mut Listener<'_>,
) -> Result<Option<Card>, ReferenceError> {
    std::fs::create_dir_all(folder).map_err(|error| ReferenceError::File {
        path: folder.to_owned(),
        error,
    })?;
    let begun = cpu_seconds();
    let settings = &plan.settings;
    let mut state = State {
        config: plan.config.clone(),
        settings: *settings,
        source: match plan.teacher {
            None => "fresh tasks".into(),
            Some((teacher, _)) => teacher.weights.digest()?,
        },
        done: 0,
        cpu_seconds: 0.0,
    };
    let file = checkpoint_of(folder);
    let mut trainer = Trainer::new(&plan.config, settings)?;
    // A checkpoint that is none should be told before the teacher has answered for minutes.
    let found = take_up(&file, &mut trainer, &state)?;
    if let Some(found) = &found
        && listener(Report::TakenUp(found.done)).is_break()
    {
        return Ok(None);
    }
    let lessons = match plan.teacher {
        None => None,
        Some((teacher, asked)) => match night(teacher, settings.seed, asked, listener)? {
            Some(night) => Some(night),
            None => return Ok(None),
        },
    };
    state.cpu_seconds = cpu_seconds() - begun;
    state = found.unwrap_or(state);
    let source = lessons
        .as_ref()
        .map_or(Source::Fresh, |p| Source::Pool(&p.0));
    let (before, started) = (state.cpu_seconds, cpu_seconds());
    let finished = trainer.run(source, &mut |trainer, loss| {
        state.done = trainer.done();
        state.cpu_seconds = before + cpu_seconds() - started;
        if state.done.is_multiple_of(CHECKPOINT_STEPS) || state.done == settings.steps {
            save_checkpoint(&file, trainer, &state)?;
        }
        Ok(listener(Report::Step(loss)))
    })?;
    if !finished {
        save_checkpoint(&file, &trainer, &state)?;
        return Ok(None);
    }
    let night = lessons.map(|l| l.1);
    let card = write_model(plan, &state, night, &trainer.params().values, folder)?;
    // What is left of the training is no longer of use; that it cannot be removed does no harm.
    let _ = std::fs::remove_file(&file);
    Ok(Some(card))
}

/// Writes the three files of a model as its weights are, and tries it on held-out tasks.
///
/// # Errors
/// If a file cannot be written, or the device fails.
pub fn write_model(
    plan: &Plan<'_>,
    state: &State,
    night: Option<Night>,
    values: &[f32],
    folder: &Path,
) -> Result<Card, ReferenceError> {
    let path = folder.join("model.safetensors");
    let bytes = weights_file(&plan.config, values, &path)?;
    // The card tells of the file as it is written, 16-bit floats and all.
    let weights = Weights::from_bytes(&bytes, &path, &plan.config)?;
    let held_out = score(
        &mut on_cpu(&plan.config, &weights)?,
        plan.held_out_per_class,
        HELD_OUT_SEED,
    )?;
    let data = if night.is_some() {
        "verified answers of the frontier to tasks that are not held out"
    } else {
        "fresh tasks of all classes, as likely as one another, without those held out"
    };
    let card = Card {
        model: plan.name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parameters: plan.config.parameters(),
        data: data.to_owned(),
        training: plan.settings,
        steps: state.done,
        night,
        cpu_seconds: state.cpu_seconds.round(),
        weights: digest(&bytes),
        held_out_seed: HELD_OUT_SEED,
        held_out,
    };
    write(&path, &bytes)?;
    write_json(&folder.join("config.json"), &plan.config)?;
    write_json(&folder.join("card.json"), &card)?;
    Ok(card)
}

fn write_json(file: &Path, what: &impl Serialize) -> Result<(), ReferenceError> {
    let text = serde_json::to_string_pretty(what).map_err(|e| ReferenceError::Malformed {
        path: file.to_owned(),
        reason: e.to_string(),
        remedy: "report this as a bug".into(),
    })?;
    write(file, (text + "\n").as_bytes())
}

/// Asks the teacher `count` tasks that are not held out, and keeps what it verifiably answered
/// right, in its own words. Nothing if the listener stopped it.
///
/// # Errors
/// If the device fails, or nothing at all was right.
pub fn night(
    teacher: &Model,
    seed: u64,
    count: usize,
    listener: &mut Listener<'_>,
) -> Result<Option<(Vec<Task>, Night)>, ReferenceError> {
    let streams = Streams::new(seed);
    let mut backend = on_cpu(&teacher.config, &teacher.weights)?;
    let mut lessons = Vec::new();
    for part in 0..count.div_ceil(NIGHT_PART) {
        let size = NIGHT_PART.min(count - part * NIGHT_PART);
        let tasks = super::data::draw(&mut streams.stream("night tasks", part as u64), size);
        lessons.extend(verified(&mut backend, &tasks)?.into_iter().flatten());
        if listener(Report::Asked(size)).is_break() {
            return Ok(None);
        }
    }
    if lessons.is_empty() {
        return Err(ReferenceError::Training {
            step: 0,
            reason: format!("none of {count} answers of the teacher was right"),
            remedy: "train the teacher longer".into(),
        });
    }
    let night = Night {
        teacher: teacher.weights.digest()?,
        asked: count,
        verified: lessons.len(),
    };
    Ok(Some((lessons, night)))
}
