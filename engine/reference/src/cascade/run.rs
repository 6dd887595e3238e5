//! Sessions through the layers: what each turn costs, and what its answer is worth.

use super::between::{Between, Look};
use super::job::Job;
use super::lane::{Held, Lane};
use super::report::{Cell, Quality};
use super::sessions::Turn;
use super::skip::Decision;
use super::turns::Decoding;
use super::{Settings, Switches, need};
use crate::backend::Backend;
use crate::error::ReferenceError;
use std::time::{Duration, Instant};
use windtunnel_tasks::tokenizer::{BOS, decode, encode};

/// The models of a cascade, each on a device of its own.
pub struct Models<'a> {
    /// Answers in full.
    pub frontier: &'a mut dyn Backend,
    /// Answers for less.
    pub light: &'a mut dyn Backend,
    /// The frontier's weights again, with pages of its own: what answers are held against. Its work is
    /// not counted. Without it there are no divergences in the report.
    pub reference: Option<&'a mut dyn Backend>,
}

impl std::fmt::Debug for Models<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Models")
            .field("frontier", &self.frontier.device())
            .field("light", &self.light.device())
            .finish_non_exhaustive()
    }
}

/// Tokens of all answers given, by session and turn, ends included.
pub type Answers = Vec<Vec<Vec<u32>>>;

/// Counts of turns.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    all: u64,
    run: u64,
    skipped: u64,
    false_skips: u64,
    false_runs: u64,
    danger: u64,
    exact: u64,
}

/// Runs all sessions, turn by turn at once, with the layers that `settings` switch on. `baseline` are
/// the answers without any layer; agreement is with them.
///
/// # Errors
/// If a setting means nothing, prompts do not fit the models, or a device fails. All pages go back
/// whatever happens.
pub fn run(
    models: &mut Models<'_>,
    sessions: &[Vec<Turn>],
    settings: &Settings,
    baseline: Option<&Answers>,
) -> Result<(Cell, Answers), ReferenceError> {
    settings.check()?;
    fit(models, sessions, settings)?;
    let layers = settings.layers;
    let lane = |backend| {
        Lane::new(
            backend,
            settings.device,
            layers.l1.then_some(settings.spans),
            layers.l3.then_some(settings.evidence),
        )
    };
    let decoding = Decoding::new(
        lane(Held::Lent(&mut *models.frontier)),
        lane(Held::Lent(&mut *models.light)),
        settings.clone(),
    );
    let reference = models
        .reference
        .as_deref_mut()
        .map(|r| Lane::new(Held::Lent(r), settings.device, None, None));
    let mut run = Run {
        settings,
        decoding,
        reference,
        between: Between::new(settings),
        asked: vec![String::new(); sessions.len()],
        turns: Turns::default(),
        quality: Quality::default(),
        checking: Duration::ZERO,
    };
    let begin = Instant::now();
    let mut answers: Answers = vec![Vec::new(); sessions.len()];
    let longest = sessions.iter().map(Vec::len).max().unwrap_or(0);
    for turn in 0..longest {
        run.round(sessions, turn, &mut answers)?;
    }
    let wall = begin.elapsed().saturating_sub(run.checking);
    let cell = run.report(wall, &answers, baseline);
    Ok((cell, answers))
}

/// Whether all prompts and answers have room.
fn fit(
    models: &Models<'_>,
    sessions: &[Vec<Turn>],
    settings: &Settings,
) -> Result<(), ReferenceError> {
    let (f, l) = (models.frontier.config(), models.light.config());
    need(
        f.vocab_size == l.vocab_size,
        "light",
        "the light model has another vocabulary than the frontier",
        "take models of one tokenizer",
    )?;
    let prompt = sessions.iter().flatten().map(|t| t.prompt.len() + 1).max();
    let room = f.max_position_embeddings.min(l.max_position_embeddings);
    let longest = prompt.unwrap_or(0) + settings.max_new_tokens;
    need(
        longest <= room,
        "max_new_tokens",
        &format!("prompt and answer can be {longest} tokens, and the models take {room}"),
        "shorten the preamble or the answers",
    )?;
    if let super::route::ShortPath::EarlyExit { layers } = settings.route.short {
        need(
            layers <= f.num_hidden_layers,
            "route.short.early_exit.layers",
            &format!("the frontier has {} layers", f.num_hidden_layers),
            "take that many at most",
        )?;
    }
    Ok(())
}

struct Run<'a> {
    settings: &'a Settings,
    decoding: Decoding<'a>,
    reference: Option<Lane<'a>>,
    between: Between,
    /// Task of each session's last turn that was run.
    asked: Vec<String>,
    turns: Turns,
    quality: Quality,
    /// Time spent on the report rather than on answers.
    checking: Duration,
}

impl Run<'_> {
    const fn layers(&self) -> Switches {
        self.settings.layers
    }

    /// One turn of every session that has one.
    fn round(
        &mut self,
        sessions: &[Vec<Turn>],
        turn: usize,
        answers: &mut Answers,
    ) -> Result<(), ReferenceError> {
        let now = turn as f64 * self.settings.turn_gap;
        self.between.advance(now, &mut self.decoding);
        let (mut jobs, mut rest) = (Vec::new(), Vec::new());
        // A skipped turn is answered with what was known, whatever verification finds.
        let mut given: Vec<Vec<u32>> = vec![Vec::new(); sessions.len()];
        let here = || sessions.iter().map(|s| s.get(turn)).enumerate();
        for (s, turn) in here() {
            let Some(turn) = turn else {
                continue;
            };
            let look = self.admit(s, turn)?;
            given[s] = look.known.clone().unwrap_or_default();
            if look.runs() {
                let mut tokens = vec![BOS];
                tokens.extend(encode(&turn.prompt));
                let mut job = self.decoding.begin(tokens);
                job.keeps_logits = self.reference.is_some();
                jobs.push(job);
                rest.push((s, turn, look));
            }
        }
        self.decoding.advance(&mut jobs)?;
        for (job, (s, turn, look)) in jobs.into_iter().zip(rest) {
            if let Some(answer) = self.conclude(s, turn, look, job)? {
                given[s] = answer;
            }
        }
        for (s, turn) in here() {
            let Some(turn) = turn else {
                continue;
            };
            let answer = std::mem::take(&mut given[s]);
            let right = windtunnel_tasks::verify(&turn.task, &decode(&answer)).is_ok();
            self.turns.exact += u64::from(right);
            answers[s].push(answer);
        }
        Ok(())
    }

    /// L0, and whether it was right.
    fn admit(&mut self, session: usize, turn: &Turn) -> Result<Look, ReferenceError> {
        self.turns.all += 1;
        let look = self
            .between
            .look(session as u64, &turn.state, &mut self.decoding)?;
        let same = || {
            let [before, now] =
                [&self.asked[session], &turn.task].map(|t| windtunnel_tasks::solve(t));
            before == now
        };
        match look.decision {
            None => {}
            Some(Decision::Danger) => self.turns.danger += 1,
            Some(Decision::Run(change)) => {
                self.turns.false_runs += u64::from(change.is_some() && same());
            }
            Some(Decision::Skip(_)) => {
                self.turns.skipped += 1;
                self.turns.false_skips += u64::from(!same());
            }
        }
        Ok(look)
    }

    /// L4, the report and the memory of a turn that was run. Gives its answer, unless it was skipped.
    fn conclude(
        &mut self,
        session: usize,
        turn: &Turn,
        look: Look,
        mut job: Job,
    ) -> Result<Option<Vec<u32>>, ReferenceError> {
        let skipped = look.known.is_some();
        self.between
            .conclude(session as u64, look, &mut job, &mut self.decoding)?;
        turn.task.clone_into(&mut self.asked[session]);
        if !skipped {
            self.turns.run += 1;
            let begin = Instant::now();
            if let Some(reference) = &mut self.reference {
                self.quality.judge(reference, &job)?;
            }
            self.checking += begin.elapsed();
        }
        let answer = (!skipped).then(|| job.answer().to_vec());
        self.decoding.finish(job)?;
        Ok(answer)
    }

    /// The figures of the run.
    fn report(&self, wall: Duration, answers: &Answers, baseline: Option<&Answers>) -> Cell {
        let d = &self.decoding;
        let (work, seconds) = d.spent();
        let (f, l) = (&d.frontier.tally, &d.light.tally);
        let given: usize = answers.iter().flatten().map(Vec::len).sum();
        let rate = |n: u64, of: u64| n as f64 / of.max(1) as f64;
        let (signals, _) = self.between.control.read();
        Cell {
            layers: self.layers(),
            wall_seconds: wall.as_secs_f64(),
            model_seconds: seconds,
            work,
            shadow_work: d.shadow.0,
            shadow_seconds: d.shadow.1,
            steps: f.steps + l.steps,
            span_mean: rate(f.members + l.members, f.steps + l.steps),
            answer_tokens: given as u64,
            computed_tokens: d.tokens.all,
            launches_per_token: work.launches as f64 / given.max(1) as f64,
            kv_peak_bytes: (f.kv_peak + l.kv_peak) as u64,
            kv_mean_bytes: f.kv_mean() + l.kv_mean(),
            kv_bits: d.mix().bits(),
            mix: d.mix(),
            prefix_hit_rate: rate(
                f.prefix_tokens + l.prefix_tokens,
                f.prompt_tokens + l.prompt_tokens,
            ),
            turns: self.turns.all,
            turns_run: self.turns.run,
            turns_skipped: self.turns.skipped,
            danger_runs: self.turns.danger,
            false_skips: self.turns.false_skips,
            false_runs: self.turns.false_runs,
            short_share: rate(d.tokens.short, d.tokens.all),
            critical_short: d.tokens.critical_short,
            draft_acceptance: rate(d.tokens.drafts_kept, d.tokens.drafted),
            tokens_per_draft_step: rate(
                d.tokens.drafts_kept + d.tokens.draft_steps,
                d.tokens.draft_steps,
            ),
            verified: d.found,
            verified_skips: self.between.skips,
            skip_threshold: self.between.skip_at.value(),
            route_threshold: d.threshold.value(),
            signals,
            exact_match: rate(self.turns.exact, self.turns.all),
            agreement: baseline.map(|b| super::report::agreement(answers, b)),
            quality: self.reference.is_some().then_some(self.quality),
        }
    }
}

#[cfg(test)]
mod tests;
