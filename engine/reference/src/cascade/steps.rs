//! The layers under the scheduler of a replica: what it plans, two models compute as the layers say.
//!
//! The scheduler and its books know nothing of layers. They give out blocks and expect one token per step
//! of everybody who decodes; here is known which tokens of a block each model has keys and values of, so
//! that a model that left tokens out computes them when it is needed next. Tokens that come several at a
//! time (drafts that stand, the answer of a turn that was skipped) are handed out one per step, in steps
//! that compute nothing for them.

/// Blocks as one model has filled them.
mod blocks;
/// Answers held against the frontier in full.
mod compared;
/// What is counted.
mod counts;

use self::blocks::Blocks;
use self::compared::Compared;
use self::counts::Turns;
use super::between::{Between, Look};
use super::evidence::EvidenceSettings;
use super::job::Job;
use super::lane::{Held, Lane};
use super::route::ShortPath;
use super::spans::SpanSettings;
use super::turns::Decoding;
use super::{Settings, need};
use crate::backend::{Backend, Sampling};
use crate::error::ReferenceError;
use crate::runtime::clock::Clock;
use crate::runtime::content::Content;
use crate::runtime::{Drawing, Listener, told};
use rustc_hash::FxHashMap;
use windtunnel_base::ids::RequestId;
use windtunnel_engine::execute::{
    Answer, Executed, ExecutionError, SequenceWork, StepExecutor, StepPlan, StepTime,
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
    compared: Compared,
    /// What was done in the run, once it is over.
    done: Option<Executed>,
    listener: Option<Listener>,
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
    id: RequestId,
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
    /// prompt plus answer that the scheduler takes; `compared` answers are held against the frontier in
    /// full when the run is over.
    pub(crate) fn new(
        frontier: Box<dyn Backend>,
        light: Box<dyn Backend>,
        settings: Settings,
        (drawing, clock): (Drawing, Clock),
        (longest, compared): (usize, u32),
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
            Lane::new(Held::Owned(backend), device, Some(spans), evidence)
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
            compared: Compared::new(compared, drawing.seed),
            done: None,
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
        let mut job = request.job(self.longest, &self.drawing);
        let chosen = self.compared.choose(id);
        request.state = match &look.known {
            Some(answer) if !look.runs() => State::Answered(answer.clone()),
            known => {
                let vocabulary = self.decoding.frontier.vocab();
                // What is given is the answer that was known, if there was one.
                let computed = chosen && known.is_none();
                job.keeps_logits = computed && self.compared.has_room(job.most, vocabulary);
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
        if look.known.is_none() {
            self.compared.keep(work.request, &mut job);
        }
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

impl Request {
    /// What is to be computed of it, when nothing is yet.
    fn job(&self, longest: usize, drawing: &Drawing) -> Job {
        let prompt = self.content.prompt_tokens();
        let tokens: Vec<u32> = (0..prompt).map(|i| self.content.token(i)).collect();
        let room = longest.saturating_sub(tokens.len()).max(1);
        let limit = self.content.limit();
        let most = limit.map_or(room, |m| room.min(m as usize));
        let sampling = Sampling {
            temperature: drawing.temperature,
            top_p: drawing.top_p,
            seed: drawing.seed_of(self.id),
        };
        Job::new(tokens, most, sampling)
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
            id,
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
        if state.skipped {
            let asked = || state.job(self.longest, &self.drawing);
            self.compared.keep_known(request, asked, &state.out);
        }
        let good = state.content.is_right(&state.out)?;
        self.turns.skipped_wrong += u64::from(state.skipped && !good);
        Some(Answer { good })
    }

    fn release(&mut self, request: RequestId) {
        self.requests.remove(&request.0);
    }

    fn close(&mut self) -> Result<(), ExecutionError> {
        self.done = Some(self.executed());
        // Nobody reads what is stored any more, so there is room.
        self.frontier.clear(&mut self.decoding.frontier);
        let judged = self.compared.judge(&mut self.decoding.frontier);
        judged.map_err(|error| ExecutionError(error.to_string()))
    }

    fn done(&self) -> Option<Executed> {
        let mut done = self.done.unwrap_or_else(|| self.executed());
        if let Some(layers) = &mut done.layers {
            let quality = self.compared.quality;
            layers.compared = self.compared.answers;
            layers.compared_tokens = quality.tokens;
            layers.same_tokens = quality.same;
            layers.drawn_tokens = quality.drawn;
            layers.divergence = quality.kl;
        }
        Some(done)
    }
}

#[cfg(test)]
mod tests;
