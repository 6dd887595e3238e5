//! The layers under the scheduler of a replica: what it plans, two models compute as the layers say.
//!
//! The scheduler and its books know nothing of layers. They give out blocks and expect one token per step
//! of everybody who decodes; here is known which tokens of a block each model has keys and values of, so
//! that a model that left tokens out computes them when it is needed next. Tokens that come several at a
//! time (drafts that stand, the answer of a turn that was skipped) are handed out one per step, in steps
//! that compute nothing for them.

use super::between::{Between, Look};
use super::evidence::EvidenceSettings;
use super::job::Job;
use super::lane::{Held, Lane, Sequence};
use super::route::ShortPath;
use super::skip::Decision;
use super::spans::SpanSettings;
use super::turns::Decoding;
use super::{Settings, need};
use crate::backend::{Backend, Sampling};
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use crate::runtime::clock::Clock;
use crate::runtime::content::Content;
use crate::runtime::{Drawing, Listener, executed, told};
use rustc_hash::FxHashMap;
use windtunnel_base::ids::RequestId;
use windtunnel_engine::execute::{
    Answer, Executed, ExecutionError, Layers, SequenceWork, Signals, StepExecutor, StepPlan,
    StepTime, Stored,
};
use windtunnel_engine::request::Submission;
use windtunnel_tasks::tokenizer::EOS;

/// Executes the steps of one replica through the layers of a cascade.
pub struct LayeredExecutor {
    decoding: Decoding<'static>,
    between: Between,
    drawing: Drawing,
    clock: Clock,
    /// Longest prompt plus answer.
    longest: usize,
    requests: FxHashMap<u32, Request>,
    frontier: Blocks,
    light: Blocks,
    turns: Turns,
    listener: Option<Listener>,
}

/// Counts of turns, and of tokens given out.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    looked_at: u64,
    skipped: u64,
    skipped_wrong: u64,
    danger: u64,
    tokens: u64,
}

impl std::fmt::Debug for LayeredExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayeredExecutor")
            .field("decoding", &self.decoding)
            .field("requests", &self.requests.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Request {
    content: Content,
    session: u64,
    /// What L0 saw of it, from its first step to its end.
    look: Option<Look>,
    state: State,
    /// Tokens that came out.
    out: Vec<u32>,
    /// Answered as the turn before it was, whatever a check beside the traffic finds.
    skipped: bool,
    finished: bool,
}

/// How far a request is.
#[derive(Debug)]
enum State {
    /// No step of it was planned yet, or it is part of the step being computed.
    Elsewhere,
    Running(Box<Job>),
    /// The whole answer is known, though not all of it may have come out.
    Answered(Vec<u32>),
}

/// What one model has in the blocks of the scheduler.
#[derive(Debug, Default)]
struct Blocks(Vec<Block>);

#[derive(Clone, Debug, Default)]
struct Block {
    page: Option<u32>,
    /// Tokens from its beginning that have keys and values.
    filled: usize,
    /// Whether it is an anchor, once its format is settled.
    anchor: Option<bool>,
}

impl Blocks {
    /// Voids the blocks that were given out, and puts a page that can be written to behind each.
    fn provide(&mut self, fresh: &[u32], lane: &mut Lane<'_>) -> Result<(), ReferenceError> {
        for &number in fresh {
            let number = number as usize;
            if number >= self.0.len() {
                self.0.resize(number + 1, Block::default());
            }
            let block = &mut self.0[number];
            block.filled = 0;
            // What was stored again in a smaller format takes no more tokens.
            if let (Some(page), Some(_)) = (block.page, block.anchor.take()) {
                lane.give_back(page);
                block.page = None;
            }
            if block.page.is_none() {
                block.page = Some(lane.take_page()?);
            }
        }
        Ok(())
    }

    /// The past of a sequence as it is in these blocks, of which at most `most` tokens count.
    fn read(&self, numbers: &[u32], size: usize, most: usize, sequence: &mut Sequence) {
        let blocks = || numbers.iter().filter_map(|&n| self.0.get(n as usize));
        sequence.pages.clear();
        sequence.pages.extend(blocks().filter_map(|b| b.page));
        sequence.anchors.clear();
        sequence.anchors.extend(blocks().map_while(|b| b.anchor));
        let full = blocks().take_while(|b| b.filled == size).count();
        let rest = blocks().nth(full).map_or(0, |b| b.filled);
        sequence.done = (full * size + rest).min(most);
    }

    /// Notes what a sequence has added.
    fn write(&mut self, numbers: &[u32], size: usize, sequence: &Sequence) {
        for (i, &number) in numbers.iter().enumerate() {
            let Some(block) = self.0.get_mut(number as usize) else {
                continue;
            };
            // Others may be further.
            let here = sequence.done.saturating_sub(i * size).min(size);
            block.filled = block.filled.max(here);
            block.anchor = block.anchor.or(sequence.anchors.get(i).copied());
        }
    }
}

/// Checks that layers can act with these models.
///
/// # Errors
/// For the first setting that means nothing, or does not fit the models.
pub(crate) fn check(
    settings: &Settings,
    frontier: &crate::config::ModelConfig,
    light: &crate::config::ModelConfig,
) -> Result<(), ReferenceError> {
    settings.check()?;
    need(
        frontier.vocab_size == light.vocab_size,
        "light",
        "the light model has another vocabulary than the frontier",
        "take models of one tokenizer",
    )?;
    need(
        light.max_position_embeddings >= frontier.max_position_embeddings,
        "light",
        "the light model takes shorter sequences than the frontier",
        "take a light model of the same length",
    )?;
    match settings.route.short {
        ShortPath::EarlyExit { layers } => need(
            layers <= frontier.num_hidden_layers,
            "route.exit_layers",
            &format!("the frontier has {} layers", frontier.num_hidden_layers),
            "take that many at most",
        ),
        _ => Ok(()),
    }
}

impl LayeredExecutor {
    /// Executes on backends with a page per block each, none of which is in use. `longest` is the longest
    /// prompt plus answer that the scheduler takes.
    pub(crate) fn new(
        frontier: Box<dyn Backend>,
        light: Box<dyn Backend>,
        settings: Settings,
        (drawing, clock): (Drawing, Clock),
        longest: usize,
    ) -> Self {
        let layers = settings.layers;
        // The batch of the scheduler shares its launches with the layer or without.
        let spans = if layers.l1 {
            settings.spans
        } else {
            SpanSettings { max: usize::MAX }
        };
        let evidence = layers.l3.then_some(EvidenceSettings {
            // What is kept is for the scheduler's prefix cache to say.
            prefix: false,
            ..settings.evidence
        });
        let lane = |backend| {
            let device = settings.device;
            Lane::new(Held::Owned(backend), device, Some(spans), evidence, false)
        };
        Self {
            between: Between::new(&settings),
            decoding: Decoding::new(lane(frontier), lane(light), settings),
            drawing,
            clock,
            longest,
            requests: FxHashMap::default(),
            frontier: Blocks::default(),
            light: Blocks::default(),
            turns: Turns::default(),
            listener: None,
        }
    }

    /// Tells `listener` of every answer when its last token is out: whose, and its tokens.
    #[must_use]
    pub fn listen(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    fn compute(
        &mut self,
        plan: &StepPlan<'_>,
        ended: &mut Vec<RequestId>,
    ) -> Result<(), ReferenceError> {
        self.frontier
            .provide(plan.fresh, &mut self.decoding.frontier)?;
        self.light.provide(plan.fresh, &mut self.decoding.light)?;
        let now = plan.begin.as_secs_f64();
        self.between.advance(now, &mut self.decoding);
        let (mut works, mut jobs) = (Vec::new(), Vec::new());
        for work in plan.sequences {
            self.begin(work.request)?;
            if let Some(job) = self.planned(work, plan.blocks) {
                works.push(work);
                jobs.push(job);
            }
        }
        self.decoding.round(&mut jobs)?;
        for (work, job) in works.iter().zip(&jobs) {
            self.write(work, plan.blocks, job);
        }
        for (work, job) in works.iter().zip(jobs) {
            self.put_back(work, plan.blocks, job)?;
        }
        for work in plan.sequences {
            self.hand_out(work, ended);
        }
        Ok(())
    }

    /// At the first step of a request: whether it is run at all.
    fn begin(&mut self, id: RequestId) -> Result<(), ReferenceError> {
        let Some(request) = self.requests.get_mut(&id.0) else {
            return Err(ReferenceError::Device {
                device: "scheduler".into(),
                reason: format!("{id:?} is computed without having been taken in"),
            });
        };
        if request.look.is_some() {
            return Ok(());
        }
        let text = request.content.task().map_or("", |task| &task.prompt);
        let look = self
            .between
            .look(request.session, text, &mut self.decoding)?;
        request.skipped = look.known.is_some();
        self.turns.look(&look);
        request.state = match &look.known {
            Some(answer) if !look.runs() => State::Answered(answer.clone()),
            _ => {
                let prompt = request.content.prompt_tokens();
                let tokens: Vec<u32> = (0..prompt).map(|i| request.content.token(i)).collect();
                let room = self.longest.saturating_sub(tokens.len()).max(1);
                let most = request
                    .content
                    .limit()
                    .map_or(room, |m| room.min(m as usize));
                let sampling = Sampling {
                    temperature: self.drawing.temperature,
                    top_p: self.drawing.top_p,
                    seed: self.drawing.seed_of(id),
                };
                let job = Job::new(tokens, most, sampling);
                State::Running(Box::new(job))
            }
        };
        request.look = Some(look);
        Ok(())
    }

    /// The job of a request if it has something to compute in this step, on the blocks it has now.
    fn planned(&mut self, work: &SequenceWork, blocks: &[u32]) -> Option<Job> {
        let request = self.requests.get_mut(&work.request.0)?;
        let State::Running(job) = &mut request.state else {
            return None;
        };
        let (known, position) = (job.tokens.len(), (work.start + work.tokens) as usize);
        let draws = work.samples && position >= known;
        if work.samples && !draws {
            return None; // what follows has come already
        }
        job.reads = (!draws).then_some(position.min(known));
        let most = if draws { known - 1 } else { known };
        let size = self.decoding.frontier.page_tokens();
        let numbers = numbers(work, blocks);
        self.frontier.read(numbers, size, most, &mut job.frontier);
        let light = job.light.get_or_insert_default();
        self.light.read(numbers, size, most, light);
        job.room = numbers.len() * size;
        // Prompts are read by whoever answers first.
        let settings = &self.decoding.settings;
        let by_light = settings.layers.l2 && settings.route.short == ShortPath::SmallModel;
        let done = if by_light {
            light.done
        } else {
            job.frontier.done
        };
        if job.reads.is_some_and(|reads| done >= reads) {
            return None;
        }
        match std::mem::replace(&mut request.state, State::Elsewhere) {
            State::Running(job) => Some(*job),
            other => {
                request.state = other;
                None
            }
        }
    }

    /// Notes what a job has added to its blocks.
    fn write(&mut self, work: &SequenceWork, blocks: &[u32], job: &Job) {
        let size = self.decoding.frontier.page_tokens();
        let numbers = numbers(work, blocks);
        self.frontier.write(numbers, size, &job.frontier);
        if let Some(light) = &job.light {
            self.light.write(numbers, size, light);
        }
    }

    /// Settles formats of a prompt that was read, and concludes a turn whose answer is complete. Blocks
    /// may be shared, so each job looks at what those before it have left there.
    fn put_back(
        &mut self,
        work: &SequenceWork,
        blocks: &[u32],
        mut job: Job,
    ) -> Result<(), ReferenceError> {
        let size = self.decoding.frontier.page_tokens();
        let (numbers, known) = (numbers(work, blocks), job.tokens.len());
        self.frontier.read(numbers, size, known, &mut job.frontier);
        let light = job.light.get_or_insert_default();
        self.light.read(numbers, size, known, light);
        job.settled = [false; 2];
        self.decoding.settle_prompt(&mut job)?;
        let Some(request) = self.requests.get_mut(&work.request.0) else {
            return Ok(());
        };
        if job.open {
            self.write(work, blocks, &job);
            if let Some(request) = self.requests.get_mut(&work.request.0) {
                request.state = State::Running(Box::new(job));
            }
            return Ok(());
        }
        let look = request.look.replace(Look::default()).unwrap_or_default();
        let answer = look.known.clone().unwrap_or_else(|| job.answer().to_vec());
        request.state = State::Answered(answer);
        let session = request.session;
        self.decoding.count(&job);
        self.between
            .conclude(session, look, &mut job, &mut self.decoding)?;
        self.decoding.settle_all(&mut job)?;
        self.write(work, blocks, &job);
        Ok(())
    }

    /// The token that the scheduler expects of a request, if it expects one.
    fn hand_out(&mut self, work: &SequenceWork, ended: &mut Vec<RequestId>) {
        let Some(request) = self.requests.get_mut(&work.request.0) else {
            return;
        };
        let position = work.start + work.tokens;
        let Some(at) = position.checked_sub(request.content.prompt_tokens()) else {
            return;
        };
        if !work.samples || request.finished {
            return;
        }
        let checked = request.look.as_ref().and_then(|look| look.known.as_ref());
        let answer = match (&request.state, checked) {
            (_, Some(known)) => known,
            (State::Answered(answer), None) => answer,
            (State::Running(job), None) => job.answer(),
            (State::Elsewhere, None) => &[][..],
        };
        let token = answer.get(at as usize).copied().unwrap_or(EOS);
        // Who computes its answer anew gets the same tokens again.
        request.out.truncate(at as usize);
        request.out.push(token);
        self.turns.tokens += 1;
        if token == EOS {
            ended.push(work.request);
        }
    }
}

impl LayeredExecutor {
    fn layers_done(&self) -> Layers {
        let (turns, tokens, between) = (self.turns, self.decoding.tokens, &self.between);
        let [answers, skips] = [self.decoding.found, between.skips];
        let (signals, _) = between.control.read();
        let (publications, lost_publications) = between.control.publications();
        let stored = |format| {
            let lanes = [&self.decoding.frontier, &self.decoding.light];
            let mut all = Stored::default();
            lanes.iter().for_each(|lane| all += lane.stored(format));
            all
        };
        Layers {
            on: self.decoding.settings.layers.as_array(),
            turns: turns.looked_at,
            skipped: turns.skipped,
            skipped_wrong: turns.skipped_wrong,
            danger_runs: turns.danger,
            computed_tokens: tokens.all,
            short_tokens: tokens.short,
            critical_short: tokens.critical_short,
            drafts: tokens.drafted,
            drafts_kept: tokens.drafts_kept,
            draft_steps: tokens.draft_steps,
            f16: stored(KvFormat::F16),
            int8: stored(KvFormat::Int8),
            fp8: stored(KvFormat::Fp8),
            accepted: answers.accepted + skips.accepted,
            checks: answers.verified + skips.verified,
            mismatches: answers.mismatches + skips.mismatches,
            false_accepts: answers.weighted + skips.weighted,
            checking_seconds: self.decoding.shadow.1,
            publications,
            lost_publications,
            signals: Signals {
                risk: signals.risk,
                novelty: signals.novelty,
                drift: signals.drift,
                confidence: signals.confidence,
            },
            skip_threshold: between.skip_at.value(),
            route_threshold: self.decoding.threshold.value(),
        }
    }
}

impl Turns {
    fn look(&mut self, look: &Look) {
        let Some(decision) = look.decision else {
            return;
        };
        self.looked_at += 1;
        self.skipped += u64::from(matches!(decision, Decision::Skip(_)));
        self.danger += u64::from(decision == Decision::Danger);
    }
}

/// The blocks of a sequence.
fn numbers<'p>(work: &SequenceWork, blocks: &'p [u32]) -> &'p [u32] {
    &blocks[work.first_block as usize..][..work.blocks as usize]
}

impl StepExecutor for LayeredExecutor {
    fn submit(&mut self, submission: &Submission<'_>) -> Result<(), ExecutionError> {
        let id = submission.request.id;
        let content = Content::of(submission, self.decoding.frontier.vocab());
        let content = content.map_err(|reason| told(id, &reason))?;
        if content.task().is_none() {
            return Err(told(
                id,
                "layers of a cascade need answers that have an end and can be verified; give `traffic.tasks`, or switch `fleet.engine.cascade.layers` off",
            ));
        }
        let request = Request {
            content,
            session: submission.request.session,
            look: None,
            state: State::Elsewhere,
            out: Vec::new(),
            skipped: false,
            finished: false,
        };
        self.requests.insert(id.0, request);
        Ok(())
    }

    fn step(
        &mut self,
        plan: &StepPlan<'_>,
        ended: &mut Vec<RequestId>,
    ) -> Result<StepTime, ExecutionError> {
        let watch = self.clock.start();
        let before = self.decoding.spent().1;
        self.compute(plan, ended).map_err(|error| match error {
            // Which model it was, and whose sequence, is not known here.
            ReferenceError::NotANumber { .. } => {
                ExecutionError(format!("{}: {error}", self.decoding.frontier.device()))
            }
            other => ExecutionError(other.to_string()),
        })?;
        let counted = self.decoding.spent().1 - before;
        Ok(self.clock.stop(watch, plan.begin, counted))
    }

    fn finish(&mut self, request: RequestId) -> Option<Answer> {
        let state = self.requests.get_mut(&request.0)?;
        state.finished = true;
        if let Some(listener) = &mut self.listener {
            listener(request, &state.out);
        }
        let good = state.content.is_right(&state.out)?;
        self.turns.skipped_wrong += u64::from(state.skipped && !good);
        Some(Answer { good })
    }

    fn release(&mut self, request: RequestId) {
        self.requests.remove(&request.0);
    }

    fn done(&self) -> Option<Executed> {
        let (work, seconds) = self.decoding.spent();
        let lanes = [&self.decoding.frontier, &self.decoding.light];
        Some(Executed {
            tokens: self.turns.tokens,
            model_steps: lanes.iter().map(|l| l.tally.steps).sum(),
            model_sequences: lanes.iter().map(|l| l.tally.members).sum(),
            kv_mean_bytes: lanes.iter().map(|l| l.tally.kv_mean()).sum(),
            counted_seconds: seconds,
            layers: Some(self.layers_done()),
            ..executed(work)
        })
    }
}

#[cfg(test)]
mod tests;
