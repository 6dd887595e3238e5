//! Figures of one run, and of a grid of runs: what each layer is worth alone, what all are worth
//! together, and how far that is from the product.

use super::control::Signals;
use super::evidence::Mix;
use super::job::Job;
use super::lane::{Item, Lane, Sequence};
use super::route::token_severity;
use super::run::{Answers, Models, run};
use super::sessions::Turn;
use super::shadow::Found;
use super::{Settings, Switches};
use crate::backend::Work;
use crate::error::ReferenceError;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use windtunnel_tasks::Severity;

/// What answers lose against the frontier in full, given the same tokens before each.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Quality {
    /// Tokens compared.
    pub tokens: u64,
    /// Tokens that the frontier would have chosen too.
    pub same: u64,
    /// Of them, tokens that a model drew: others are from an answer that was known.
    pub drawn: u64,
    /// Sum over those of the divergence of the distribution they were drawn from, seen from the
    /// frontier's: KL(frontier || given), in nats.
    pub kl: f64,
    /// Tokens at which the frontier's choice is critical.
    pub critical: u64,
    /// Of them, those that took the short path.
    pub critical_missed: u64,
}

impl Quality {
    /// Mean divergence per token that a model drew, in nats.
    pub fn mean_kl(&self) -> f64 {
        self.kl / self.drawn.max(1) as f64
    }

    /// Share of tokens that the frontier would have chosen.
    pub fn same_share(&self) -> f64 {
        self.same as f64 / self.tokens.max(1) as f64
    }

    /// Compares one answer.
    pub(super) fn judge(
        &mut self,
        reference: &mut Lane<'_>,
        job: &Job,
    ) -> Result<(), ReferenceError> {
        let mut sequence: Sequence = reference.begin(&job.tokens[..job.prompt]);
        let mut items = [Item {
            sequence: &mut sequence,
            tokens: &job.tokens[..job.tokens.len() - 1],
            draws: job.marks.len(),
            sampling: job.sampling,
            layers: None,
            logits: true,
        }];
        let replies = reference.run(&mut items)?;
        for (i, reply) in replies.iter().flatten().enumerate() {
            self.tokens += 1;
            self.same += u64::from(reply.sampled.token == job.answer()[i]);
            if let Some(given) = job.logits.get(i) {
                self.drawn += 1;
                self.kl += divergence(&reply.logits, given);
            }
            if token_severity(reply.sampled.token) == Severity::Critical {
                self.critical += 1;
                self.critical_missed += u64::from(job.marks[i].short);
            }
        }
        reference.finish(sequence, &job.tokens)
    }
}

/// KL(p || q) in nats, of the distributions that two rows of logits mean.
pub fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let logs = |x: &[f32]| -> Vec<f64> {
        let top = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        let total: f64 = x.iter().map(|v| f64::from(v - top).exp()).sum();
        x.iter().map(|v| f64::from(v - top) - total.ln()).collect()
    };
    let sum: f64 = logs(p)
        .iter()
        .zip(logs(q))
        .map(|(p, q)| p.exp() * (p - q))
        .sum();
    sum.max(0.0)
}

/// Share of positions at which answers have the same token, over the longer of each pair.
pub fn agreement(a: &Answers, b: &Answers) -> f64 {
    let (mut same, mut all) = (0, 0);
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        same += a.iter().zip(b).filter(|(x, y)| x == y).count();
        all += a.len().max(b.len());
    }
    same as f64 / all.max(1) as f64
}

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Which layers acted.
    pub layers: Switches,
    /// Time measured on this machine, without the comparison with the reference.
    pub wall_seconds: f64,
    /// What the counted work would take by the device model.
    pub model_seconds: f64,
    /// Launches, operations and bytes, verification included.
    pub work: Work,
    /// Those of verification.
    pub shadow_work: Work,
    /// What verification would take by the device model.
    pub shadow_seconds: f64,
    /// Steps of both models.
    pub steps: u64,
    /// Sequences per step.
    pub span_mean: f64,
    /// Tokens of all answers given, those of skipped turns too.
    pub answer_tokens: u64,
    /// Tokens that were computed.
    pub computed_tokens: u64,
    /// Launches per token given.
    pub launches_per_token: f64,
    /// Most bytes of keys and values in use at once, of both models.
    pub kv_peak_bytes: u64,
    /// Bytes of keys and values in use, mean over the steps of each model.
    pub kv_mean_bytes: f64,
    /// Mean bits of a number in full pages; 0 if none changed its format.
    pub kv_bits: f64,
    /// Full pages by format.
    pub mix: Mix,
    /// Share of prompt tokens found in kept pages.
    pub prefix_hit_rate: f64,
    /// Turns.
    pub turns: u64,
    /// Turns run.
    pub turns_run: u64,
    /// Turns skipped.
    pub turns_skipped: u64,
    /// Turns run for a danger marker.
    pub danger_runs: u64,
    /// Turns skipped though their answer is another now.
    pub false_skips: u64,
    /// Turns run, with no danger, though their answer is the same.
    pub false_runs: u64,
    /// Share of computed tokens from the short path.
    pub short_share: f64,
    /// Tokens of critical severity from the short path.
    pub critical_short: u64,
    /// Share of drafts that stood.
    pub draft_acceptance: f64,
    /// Tokens per verifying step.
    pub tokens_per_draft_step: f64,
    /// What verification found of answers.
    pub verified: Found,
    /// What verification found of skipped turns.
    pub verified_skips: Found,
    /// Where the threshold of L0 ended.
    pub skip_threshold: f64,
    /// Where the threshold of L2 ended.
    pub route_threshold: f64,
    /// What was published last.
    pub signals: Signals,
    /// Share of turns whose given answer is exactly right.
    pub exact_match: f64,
    /// Share of tokens as without any layer.
    pub agreement: Option<f64>,
    /// Against the frontier, token by token.
    pub quality: Option<Quality>,
}

/// Runs of the same sessions with different layers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Grid {
    /// The first is without layers.
    pub cells: Vec<Cell>,
}

/// None, each alone, all but L5, and all together.
pub fn usual_cells() -> Vec<Switches> {
    let mut cells = vec![Switches::NONE];
    cells.extend((0..6).map(Switches::only));
    cells.push(Switches {
        l5: false,
        ..Switches::ALL
    });
    cells.push(Switches::ALL);
    cells
}

/// Runs the sessions once without layers, and once with each of `cells` that has some.
///
/// # Errors
/// As `run`.
pub fn grid(
    models: &mut Models<'_>,
    sessions: &[Vec<Turn>],
    settings: &Settings,
    cells: &[Switches],
) -> Result<Grid, ReferenceError> {
    let with = |layers| Settings {
        layers,
        ..settings.clone()
    };
    let (first, baseline) = run(models, sessions, &with(Switches::NONE), None)?;
    let mut all = vec![Cell {
        agreement: Some(1.0),
        ..first
    }];
    for &layers in cells.iter().filter(|c| **c != Switches::NONE) {
        all.push(run(models, sessions, &with(layers), Some(&baseline))?.0);
    }
    Ok(Grid { cells: all })
}

impl Grid {
    fn cell(&self, layers: Switches) -> Option<&Cell> {
        self.cells.iter().find(|c| c.layers == layers)
    }

    /// How many times less a cell takes than no layer: `time` reads a cell.
    pub fn speedup(&self, layers: Switches, time: fn(&Cell) -> f64) -> Option<f64> {
        Some(time(self.cell(Switches::NONE)?) / time(self.cell(layers)?))
    }

    /// `S_all` over the product of what each layer that acts in `layers` gives alone; 1 if they act
    /// independently.
    pub fn interaction(&self, layers: Switches, time: fn(&Cell) -> f64) -> Option<f64> {
        let alone = (0..6)
            .filter(|&i| layers.as_array()[i])
            .map(|i| self.speedup(Switches::only(i), time))
            .try_fold(1.0, |product, s| Some(product * s?))?;
        Some(self.speedup(layers, time)? / alone)
    }

    /// A row per cell.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "layers               model ms  wall ms     S   launches/token  MB moved  KV KiB  \
             skip  short  verified  agree        KL  exact\n",
        );
        for cell in &self.cells {
            let speedup = self.speedup(cell.layers, |c| c.model_seconds);
            let quality = cell.quality.unwrap_or_default();
            let _ = writeln!(
                text,
                "{:<20} {:>8.2} {:>8.1} {:>5.2} {:>16.1} {:>9.1} {:>7.0} {:>5.2} {:>6.2} {:>9} \
                 {:>6.3} {:>9.6} {:>6.2}",
                cell.layers.name(),
                cell.model_seconds * 1e3,
                cell.wall_seconds * 1e3,
                speedup.unwrap_or(1.0),
                cell.launches_per_token,
                cell.work.bytes() as f64 / 1e6,
                cell.kv_mean_bytes / 1024.0,
                cell.turns_skipped as f64 / cell.turns.max(1) as f64,
                cell.short_share,
                cell.verified.verified + cell.verified_skips.verified,
                cell.agreement.unwrap_or(1.0),
                quality.mean_kl(),
                cell.exact_match,
            );
        }
        if let Some(i) = self.interaction(Switches::ALL, |c| c.model_seconds) {
            let _ = writeln!(text, "interaction factor of all layers: {i:.2}");
        }
        text
    }
}
