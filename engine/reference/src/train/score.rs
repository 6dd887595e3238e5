//! What a model can do: exact match on tasks that are held out from training, by the engine's own
//! decoder.

use crate::answer::answers;
use crate::backend::Backend;
use crate::backend::cpu::{Cpu, KvMemory};
use crate::config::ModelConfig;
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use windtunnel_base::rng::Streams;
use windtunnel_tasks::{CLASSES, Task, TaskClass, verify};

/// No right answer is longer, in tokens.
pub const LONGEST_ANSWER: usize = 96;
/// Sequences at once.
const AT_ONCE: usize = 64;

/// Share of exactly right answers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Score {
    /// Held-out tasks tried per class.
    pub tasks_per_class: usize,
    /// Right answers by class.
    pub right: BTreeMap<String, usize>,
    /// Share over all.
    pub exact_match: f64,
}

/// A model on the CPU with pages for some sequences at once.
///
/// # Errors
/// If a weight is missing, or memory does not suffice.
pub fn on_cpu(config: &ModelConfig, weights: &Weights) -> Result<Cpu, ReferenceError> {
    let memory = KvMemory {
        pages: AT_ONCE * 256 / 16,
        page_tokens: 16,
        filling: KvFormat::F32,
    };
    Cpu::new(config, weights, &memory)
}

/// `count` held-out tasks of a class, from a seed.
pub fn held_out(class: TaskClass, count: usize, seed: u64) -> Vec<Task> {
    let mut rng = Streams::new(seed).stream("held-out tasks", class as u64);
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let task = class.generate(&mut rng);
        if task.held_out() {
            drawn.push(task);
        }
    }
    drawn
}

/// Tries a model on held-out tasks of all classes.
///
/// # Errors
/// If the device fails.
pub fn score(
    backend: &mut dyn Backend,
    per_class: usize,
    seed: u64,
) -> Result<Score, ReferenceError> {
    let mut tasks = Vec::new();
    for class in CLASSES {
        tasks.extend(held_out(class, per_class, seed));
    }
    let said = answers(backend, &tasks, LONGEST_ANSWER, AT_ONCE)?;
    let mut right: BTreeMap<String, usize> =
        CLASSES.iter().map(|c| (c.name().to_owned(), 0)).collect();
    for (task, answer) in tasks.iter().zip(&said) {
        if verify(&task.prompt, answer).is_ok() {
            *right.entry(task.class.name().to_owned()).or_default() += 1;
        }
    }
    let all: usize = right.values().sum();
    Ok(Score {
        tasks_per_class: per_class,
        right,
        exact_match: all as f64 / tasks.len().max(1) as f64,
    })
}

/// Answers of a model to tasks, with whether each is right.
///
/// # Errors
/// If the device fails.
pub fn verified(
    backend: &mut dyn Backend,
    tasks: &[Task],
) -> Result<Vec<Option<Task>>, ReferenceError> {
    let said = answers(backend, tasks, LONGEST_ANSWER, AT_ONCE)?;
    let answered = tasks.iter().zip(said).map(|(task, answer)| {
        verify(&task.prompt, &answer).is_ok().then(|| Task {
            answer,
            ..task.clone()
        })
    });
    Ok(answered.collect())
}
