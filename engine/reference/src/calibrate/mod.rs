//! Measures how long an engine's steps take, and makes the table that the simulator reads.
//!
//! Steps over a designed grid (decoding sequences and their contexts, prompt tokens and what is in
//! KV before them) and steps drawn at random over the same ranges are measured in rounds, each
//! round all of them once in another order, so that a slow moment hits no step more than others. The
//! table is made of medians over the rounds of the grid; the random steps, of which the table knows
//! nothing, say how far off it is.

/// Which steps are measured.
pub mod plan;
/// Sequences whose keys and values are there already.
mod arena;
/// From times to a table and its errors.
mod fit;

use crate::backend::Backend;
use crate::error::ReferenceError;
use crate::models::Model;
use arena::Arena;
use plan::{Kind, Plan, Step};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use windtunnel_base::rng::Streams;
use windtunnel_engine::config::TableSpec;
use windtunnel_engine::config::calibration::{Calibration, FORMAT, HeldOut, Provenance};

/// Rounds that are made whatever they take: a median of fewer is none.
const FEWEST_ROUNDS: usize = 3;
/// Rounds after which more say nothing new.
const MOST_ROUNDS: usize = 101;

/// What was measured of one step.
#[derive(Clone, Debug)]
struct Timed {
    step: Step,
    kind: Kind,
    /// Milliseconds, one per round.
    ms: Vec<f64>,
}

/// Step times, and how well a table of them says the times of steps it was not made from.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// As a cost model.
    pub table: TableSpec,
    /// Times each step was measured; the table has medians.
    pub rounds: usize,
    /// Median over all steps of the distance of a single measurement from the step's median, as a
    /// share of it.
    pub noise: f64,
    /// Errors on steps that the table was not made from.
    pub held_out: HeldOut,
}

/// Measures `backend` by `plan`, about `plan.budget` long (at least three rounds). `listener` is told
/// the share done and can stop it; then nothing is given.
///
/// The backend needs free pages for the plan (`Plan::pages`); they are given back at the end. Run it
/// on an otherwise quiet machine, and in a release build.
///
/// # Errors
/// If the plan does not fit the model or the free pages, or the device fails.
pub fn measure(
    backend: &mut dyn Backend,
    plan: &Plan,
    listener: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Option<Measured>, ReferenceError> {
    plan.check(backend.config())?;
    let mut timed: Vec<Timed> = plan
        .steps()
        .into_iter()
        .map(|(kind, step)| Timed {
            step,
            kind,
            ms: Vec::new(),
        })
        .collect();
    let mut arena = Arena::fill(backend, plan)?;
    let measured = rounds(&mut arena, plan, &mut timed, listener);
    arena.give_back();
    let Some(rounds) = measured? else {
        return Ok(None);
    };
    let table = fit::table(&timed);
    Ok(Some(Measured {
        rounds,
        noise: fit::noise(&timed),
        held_out: fit::held_out(&table, &timed)?,
        table,
    }))
}

/// [`measure`], as the file that a scenario's `engine.cost = { kind = "table", file = ... }` reads;
/// `Calibration::table` is the same as a cost model in memory. `load` is how long the model took to
/// load. Layers of a cascade are measured apart (`cascade::study::layers`).
///
/// # Errors
/// As [`measure`].
pub fn calibrate(
    backend: &mut dyn Backend,
    model: &Model,
    plan: &Plan,
    load: Duration,
    listener: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Option<Calibration>, ReferenceError> {
    let provenance = provenance(backend, model);
    let Some(measured) = measure(backend, plan, listener)? else {
        return Ok(None);
    };
    let table = measured.table;
    Ok(Some(Calibration {
        format: FORMAT,
        provenance,
        load_ms: rounded(load.as_secs_f64() * 1e3),
        rounds: measured.rounds,
        noise: measured.noise,
        ranges: plan.ranges(),
        held_out: measured.held_out,
        extra_prompt_ms: table.extra_prompt_ms,
        mixed_saving_ms: table.mixed_saving_ms,
        decode: table.decode,
        prefill: table.prefill,
        layers: None,
    }))
}

/// Measures everything, round by round; gives their number, or nothing if told to stop.
fn rounds(
    arena: &mut Arena<'_>,
    plan: &Plan,
    timed: &mut [Timed],
    listener: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<Option<usize>, ReferenceError> {
    let streams = Streams::new(plan.seed);
    let begin = Instant::now();
    let mut round = 0;
    loop {
        let mut rng = streams.stream("order of a round", round as u64);
        let mut order: Vec<usize> = (0..timed.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i as u64 + 1) as usize);
        }
        for (i, &at) in order.iter().enumerate() {
            let ms = arena.run(&timed[at].step)?.as_secs_f64() * 1e3;
            // The first round fills caches and is not counted.
            if round > 0 {
                timed[at].ms.push(ms);
            }
            let spent = begin.elapsed().as_secs_f64() / plan.budget.as_secs_f64().max(1e-9);
            let part = (round as f64 + i as f64 / order.len() as f64) / (FEWEST_ROUNDS + 1) as f64;
            if i % 16 == 0 && listener(spent.min(part).min(1.0)).is_break() {
                return Ok(None);
            }
        }
        round += 1;
        let counted = round - 1;
        // Another round only if it is likely to end in time.
        let next = begin.elapsed().mul_f64((round + 1) as f64 / round as f64);
        if counted >= MOST_ROUNDS || (counted >= FEWEST_ROUNDS && next > plan.budget) {
            return Ok(Some(counted));
        }
    }
}

/// To a tenth of a microsecond, where figures are in milliseconds: less is noise.
fn rounded(ms: f64) -> f64 {
    (ms * 1e4).round() / 1e4
}

fn provenance(backend: &dyn Backend, model: &Model) -> Provenance {
    let machine = crate::machine::machine();
    let gpu = backend.hardware();
    let (hardware, driver) = gpu.unwrap_or((machine.cpu, machine.system));
    Provenance {
        model: model.name.clone(),
        parameters: model.config.parameters(),
        weights: model.digest.clone(),
        device: backend.device(),
        hardware,
        driver,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        date: crate::machine::today(),
        load: machine.load,
    }
}

#[cfg(test)]
mod tests;
