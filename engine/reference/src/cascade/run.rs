//! Sessions through the layers: what each turn costs, and what its answer is worth.

use super::control::{ControlPlane, Observation};
use super::lane::Lane;
use super::report::{Cell, Quality};
use super::sessions::Turn;
use super::shadow::{Adaptive, Found};
use super::skip::{self, Decision, Features};
use super::turns::{Decoding, Job};
use super::{Settings, Switches, need};
use crate::backend::Backend;
use crate::error::ReferenceError;
use std::time::{Duration, Instant};
use windtunnel_base::rng::{Rng, Streams};
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

/// What a session remembers between turns.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// State of the last turn that was run.
    state: Option<Features>,
    /// Its task, for the report.
    task: String,
    answer: Vec<u32>,
}

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
    let check = models.reference.is_some();
    let lane = |backend, check| {
        Lane::new(
            backend,
            settings.device,
            layers.l1.then_some(settings.spans),
            layers.l3.then_some(settings.evidence),
            check,
        )
    };
    let decoding = Decoding::new(
        lane(&mut *models.frontier, check),
        lane(&mut *models.light, check),
        settings,
    );
    let reference = models
        .reference
        .as_deref_mut()
        .map(|r| Lane::new(r, settings.device, None, None, true));
    let streams = Streams::new(settings.seed);
    let mut run = Run {
        settings,
        decoding,
        reference,
        memory: vec![Memory::default(); sessions.len()],
        skip_at: Adaptive::new(settings.skip.threshold, 2.0),
        control: ControlPlane::new(settings.control),
        skips: Found::default(),
        turns: Turns::default(),
        quality: Quality::default(),
        shadow_rng: streams.stream("cascade shadow", 0),
        control_rng: streams.stream("cascade control", 0),
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
    memory: Vec<Memory>,
    skip_at: Adaptive,
    control: ControlPlane,
    /// What verification found of skipped turns.
    skips: Found,
    turns: Turns,
    quality: Quality,
    shadow_rng: Rng,
    control_rng: Rng,
    /// Time spent on the report rather than on answers.
    checking: Duration,
}

/// A turn that is run: to be answered, or to see whether it was right to skip it.
struct Running {
    job: Job,
    state: Option<Features>,
    change: Option<f64>,
    /// The probability that a skip is verified with.
    skipped: Option<f64>,
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
        if self.layers().l5 {
            let now = turn as f64 * self.settings.turn_gap;
            self.control.advance(now, &mut self.control_rng);
            self.decoding.factor = self.control.factor();
            self.decoding.more = self.control.read().0.drift * self.settings.control.gain;
        }
        let (mut jobs, mut rest) = (Vec::new(), Vec::new());
        let here = || sessions.iter().map(|s| s.get(turn)).enumerate();
        for (s, turn) in here() {
            let Some(turn) = turn else {
                continue;
            };
            self.turns.all += 1;
            if let Some(running) = self.admit(s, turn)? {
                jobs.push(running.job);
                rest.push((running.state, running.change, running.skipped));
            }
        }
        self.decoding.advance(&mut jobs)?;
        // A skipped turn is answered with what was known, whatever verification finds.
        let mut given: Vec<Vec<u32>> = self.memory.iter().map(|m| m.answer.clone()).collect();
        for (job, (state, change, skipped)) in jobs.into_iter().zip(rest) {
            let running = Running {
                job,
                state,
                change,
                skipped,
            };
            let session = running.job.session;
            let task = sessions[session].get(turn).map_or("", |t| t.task.as_str());
            if let Some(answer) = self.conclude(running, task)? {
                given[session] = answer;
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

    /// L0: whether a turn is run. One that is skipped may be run beside the traffic.
    fn admit(&mut self, session: usize, turn: &Turn) -> Result<Option<Running>, ReferenceError> {
        let mut tokens = vec![BOS];
        tokens.extend(encode(&turn.prompt));
        let (mut state, mut change, mut skipped) = (None, None, None);
        if self.layers().l0 {
            let bytes: Vec<u32> = encode(&turn.state).collect();
            let embedding = self.decoding.light.embed(&bytes)?;
            let now = skip::features(&embedding, turn.state.as_bytes(), &self.settings.skip);
            let memory = &self.memory[session];
            let threshold = self.skip_at.value() * self.decoding.factor;
            let before = memory.state.as_ref();
            let decision = skip::decide(before, &now, &turn.state, threshold, &self.settings.skip);
            state = Some(now);
            let same = windtunnel_tasks::solve(&memory.task) == windtunnel_tasks::solve(&turn.task);
            match decision {
                Decision::Danger => self.turns.danger += 1,
                Decision::Run(delta) => {
                    change = delta;
                    self.turns.false_runs += u64::from(delta.is_some() && same);
                }
                Decision::Skip(delta) => {
                    change = Some(delta);
                    self.turns.skipped += 1;
                    self.turns.false_skips += u64::from(!same);
                    let shadow = &self.settings.shadow;
                    // The nearer to the threshold, the riskier.
                    let risk = delta / threshold.max(f64::MIN_POSITIVE);
                    let probability = shadow.probability(risk);
                    if !self.layers().l4 || !self.shadow_rng.chance(probability) {
                        self.skips.count(None);
                        self.tell(change, None, None);
                        return Ok(None);
                    }
                    skipped = Some(probability);
                }
            }
        }
        Ok(Some(Running {
            job: self.decoding.begin(session, tokens),
            state,
            change,
            skipped,
        }))
    }

    /// L4, the report and the memory of a turn that was run. Gives its answer, unless it was skipped.
    fn conclude(
        &mut self,
        running: Running,
        task: &str,
    ) -> Result<Option<Vec<u32>>, ReferenceError> {
        let mut job = running.job;
        let mut differed = None;
        if self.layers().l4 {
            differed = self.decoding.verify(&mut job, &mut self.shadow_rng)?;
        }
        let memory = &mut self.memory[job.session];
        if let Some(probability) = running.skipped {
            let wrong = f64::from(u8::from(memory.answer != job.answer()));
            self.skips.count(Some((probability, wrong)));
            self.skip_at.learn(wrong, &self.settings.shadow);
            differed = Some(wrong);
        } else {
            self.turns.run += 1;
        }
        memory.state = running.state;
        task.clone_into(&mut memory.task);
        memory.answer = job.answer().to_vec();
        self.tell(running.change, differed, Some(&job));
        if running.skipped.is_none() {
            let begin = Instant::now();
            if let Some(reference) = &mut self.reference {
                self.quality.judge(reference, &job)?;
            }
            self.checking += begin.elapsed();
        }
        let answer = running.skipped.is_none().then(|| job.answer().to_vec());
        self.decoding.finish(job)?;
        Ok(answer)
    }

    /// Tells the control plane of a turn.
    fn tell(&mut self, change: Option<f64>, differed: Option<f64>, job: Option<&Job>) {
        let mean = |of: fn(&super::turns::Mark) -> f64| {
            let marks = &job?.marks;
            Some(marks.iter().map(of).sum::<f64>() / marks.len().max(1) as f64)
        };
        self.control.observe(&Observation {
            risk: mean(|m| m.risk),
            novelty: change,
            confidence: mean(|m| 1.0 - m.unsure),
            differed,
        });
    }

    /// The figures of the run.
    fn report(&self, wall: Duration, answers: &Answers, baseline: Option<&Answers>) -> Cell {
        let d = &self.decoding;
        let (work, seconds) = d.spent();
        let (f, l) = (&d.frontier.tally, &d.light.tally);
        let given: usize = answers.iter().flatten().map(Vec::len).sum();
        let rate = |n: u64, of: u64| n as f64 / of.max(1) as f64;
        let (signals, _) = self.control.read();
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
            kv_mean_bytes: rate(f.kv_sum, f.steps) + rate(l.kv_sum, l.steps),
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
            verified_skips: self.skips,
            skip_threshold: self.skip_at.value(),
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
