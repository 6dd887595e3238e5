//! The engine of the simulator, computing: what its scheduler plans, a backend executes.
//!
//! The scheduler, the books of memory and the prefix cache are those of `windtunnel_engine`; so
//! blocks have their numbers from there, and a page of the backend stands behind each block that was
//! given out. Prompts are real tokens: those of a task, or drawn from the names of their streams.

/// What prompts say.
pub mod content;
/// What time a step takes.
pub mod clock;
/// Executors as scenarios ask for them.
pub mod build;

use crate::backend::{Backend, Sampled, Sampling, Span, Work};
use crate::cascade::DeviceModel;
use crate::error::ReferenceError;
use clock::Clock;
use content::Content;
use rustc_hash::FxHashMap;
use windtunnel_base::ids::RequestId;
use windtunnel_base::rng::mix64;
use windtunnel_engine::execute::{
    Answer, Executed, ExecutionError, SequenceWork, StepExecutor, StepPlan, StepTime,
};
use windtunnel_engine::request::Submission;
use windtunnel_tasks::tokenizer::EOS;

/// How tokens are drawn, sequence apart.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Drawing {
    /// Zero takes the most likely token.
    pub temperature: f32,
    /// Only the most likely tokens that together have this probability; 1 takes all.
    pub top_p: f32,
    /// Seed of the run; each request has its own from it.
    pub seed: u64,
}

impl Drawing {
    /// Seed of one request's sequence.
    pub(crate) const fn seed_of(&self, request: RequestId) -> u64 {
        mix64(self.seed ^ mix64(request.0 as u64))
    }
}

/// Told of a complete answer: whose it is, and its tokens.
pub type Listener = Box<dyn FnMut(RequestId, &[u32])>;

/// Executes the steps of one replica on a backend.
pub struct ReferenceExecutor {
    backend: Box<dyn Backend>,
    drawing: Drawing,
    clock: Clock,
    requests: FxHashMap<u32, Request>,
    /// The page behind each block, once it was given out.
    pages: Vec<Option<u32>>,
    buffers: Buffers,
    counts: Counts,
    /// Told of every answer as it is complete.
    listener: Option<Listener>,
}

#[derive(Debug)]
struct Request {
    content: Content,
    /// Tokens that came out, or that the stream of the prompt goes on with.
    generated: Vec<u32>,
    sampling: Sampling,
    finished: bool,
}

#[derive(Debug, Default)]
struct Buffers {
    tokens: Vec<u32>,
    pages: Vec<u32>,
    sampled: Vec<Sampled>,
}

/// What is counted beside the work of the device.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tokens: u64,
    steps: u64,
    sequences: u64,
    /// Bytes of keys and values in use, summed over steps.
    kv_bytes: u64,
    seconds: f64,
}

impl std::fmt::Debug for ReferenceExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReferenceExecutor")
            .field("device", &self.backend.device())
            .field("requests", &self.requests.len())
            .finish_non_exhaustive()
    }
}

impl ReferenceExecutor {
    /// Executes on a backend, none of whose pages is in use and which has a page per block.
    pub fn new(backend: Box<dyn Backend>, drawing: Drawing, clock: Clock) -> Self {
        Self {
            backend,
            drawing,
            clock,
            requests: FxHashMap::default(),
            pages: Vec::new(),
            buffers: Buffers::default(),
            counts: Counts::default(),
            listener: None,
        }
    }

    /// Tells `listener` of every answer when its last token is out: whose, and its tokens.
    #[must_use]
    pub fn listen(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Puts a page behind every block that was given out.
    fn provide(&mut self, fresh: &[u32]) -> Result<(), ReferenceError> {
        for &block in fresh {
            let block = block as usize;
            if block >= self.pages.len() {
                self.pages.resize(block + 1, None);
            }
            if self.pages[block].is_none() {
                let page = self.backend.take_page()?;
                self.pages[block] = Some(page.ok_or_else(|| ReferenceError::Memory {
                    what: format!("block {block} of keys and values"),
                    needed: 1,
                    available: 0,
                    remedy: "give the device as many pages as the scheduler has blocks".into(),
                })?);
            }
        }
        Ok(())
    }

    /// Runs the plan on the backend.
    fn compute(&mut self, plan: &StepPlan<'_>) -> Result<(), ReferenceError> {
        self.provide(plan.fresh)?;
        let Buffers {
            tokens,
            pages,
            sampled,
        } = &mut self.buffers;
        tokens.clear();
        pages.clear();
        let longest = self.backend.config().max_position_embeddings;
        for work in plan.sequences {
            let end = (work.start + work.tokens) as usize;
            let request =
                self.requests
                    .get(&work.request.0)
                    .ok_or_else(|| ReferenceError::Device {
                        device: self.backend.device(),
                        reason: format!(
                            "{:?} is computed without having been taken in",
                            work.request
                        ),
                    })?;
            if end > longest {
                return Err(ReferenceError::Config {
                    field: "max_position_embeddings".into(),
                    reason: format!("{:?} needs position {end} of {longest}", work.request),
                    remedy: "lower `max_model_len`".into(),
                });
            }
            tokens.extend((work.start..work.start + work.tokens).map(|p| request.token(p)));
        }
        pages.extend(
            plan.blocks
                .iter()
                .map(|&block| self.pages[block as usize].unwrap_or_default()),
        );
        let mut first = 0;
        let spans: Vec<Span<'_>> = plan
            .sequences
            .iter()
            .map(|work| {
                let from = first;
                first += work.tokens as usize;
                Span {
                    tokens: &tokens[from..first],
                    start: work.start as usize,
                    pages: &pages[work.first_block as usize..][..work.blocks as usize],
                    sample: sampling(&self.requests, work),
                    layers: None,
                }
            })
            .collect();
        self.backend.step(&spans, sampled)
    }

    /// Writes down what was drawn, and who ended with it.
    fn note(&mut self, plan: &StepPlan<'_>, ended: &mut Vec<RequestId>) {
        for (work, sampled) in plan.sequences.iter().zip(&self.buffers.sampled) {
            let Some(request) = self.requests.get_mut(&work.request.0) else {
                continue;
            };
            let position = work.start + work.tokens;
            let prompt = request.content.prompt_tokens();
            if !work.samples || position < prompt || request.finished {
                continue;
            }
            // Who computes its answer anew gets the same tokens again.
            request.generated.truncate((position - prompt) as usize);
            let token = request.content.continuation(position);
            request.generated.push(token.unwrap_or(sampled.token));
            self.counts.tokens += 1;
            if request.content.task().is_some() && sampled.token == EOS {
                ended.push(work.request);
            }
        }
    }
}

/// How the token after a sequence's work is drawn; none if nobody asks, or the prompt says it.
fn sampling(requests: &FxHashMap<u32, Request>, work: &SequenceWork) -> Option<Sampling> {
    let request = requests.get(&work.request.0)?;
    let answers = work.samples && work.start + work.tokens >= request.content.prompt_tokens();
    answers.then_some(request.sampling)
}

impl Request {
    fn token(&self, position: u32) -> u32 {
        match position.checked_sub(self.content.prompt_tokens()) {
            None => self.content.token(position),
            Some(i) => self.generated.get(i as usize).copied().unwrap_or(EOS),
        }
    }
}

impl StepExecutor for ReferenceExecutor {
    fn submit(&mut self, submission: &Submission<'_>) -> Result<(), ExecutionError> {
        let id = submission.request.id;
        let vocab = self.backend.config().vocab_size;
        let content = Content::of(submission, vocab).map_err(|reason| told(id, &reason))?;
        let request = Request {
            content,
            generated: Vec::new(),
            sampling: Sampling {
                temperature: self.drawing.temperature,
                top_p: self.drawing.top_p,
                seed: self.drawing.seed_of(id),
            },
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
        let before = self.backend.work();
        let computed = self.compute(plan);
        computed.map_err(|error| match error {
            ReferenceError::NotANumber { sequence, position } => ExecutionError(format!(
                "{}: the logits of request {} at position {position} are not numbers: weights or activations overflow on this device",
                self.backend.device(),
                plan.sequences
                    .get(sequence)
                    .map_or_else(String::new, |w| w.request.0.to_string()),
            )),
            other => ExecutionError(other.to_string()),
        })?;
        self.note(plan, ended);
        let work = self.backend.work().since(before);
        let counted = DeviceModel::default().seconds(work);
        self.counts.steps += 1;
        self.counts.sequences += plan.sequences.len() as u64;
        self.counts.kv_bytes += self.backend.kv_bytes() as u64;
        self.counts.seconds += counted;
        Ok(self.clock.stop(watch, plan.begin, counted))
    }

    fn finish(&mut self, request: RequestId) -> Option<Answer> {
        let state = self.requests.get_mut(&request.0)?;
        state.finished = true;
        if let Some(listener) = &mut self.listener {
            listener(request, &state.generated);
        }
        let good = state.content.is_right(&state.generated)?;
        Some(Answer { good })
    }

    fn release(&mut self, request: RequestId) {
        self.requests.remove(&request.0);
    }

    fn done(&self) -> Option<Executed> {
        let counts = self.counts;
        Some(Executed {
            tokens: counts.tokens,
            model_steps: counts.steps,
            model_sequences: counts.sequences,
            kv_mean_bytes: counts.kv_bytes as f64 / counts.steps.max(1) as f64,
            counted_seconds: counts.seconds,
            ..executed(self.backend.work())
        })
    }
}

/// Counted work, as it is told outside.
pub(crate) fn executed(work: Work) -> Executed {
    Executed {
        launches: work.launches,
        operations: work.flops,
        weight_bytes: work.weight_bytes,
        kv_read_bytes: work.kv_read_bytes,
        kv_written_bytes: work.kv_written_bytes,
        ..Executed::default()
    }
}

pub(crate) fn told(request: RequestId, reason: &str) -> ExecutionError {
    ExecutionError(format!("request {}: {reason}", request.0))
}

#[cfg(test)]
pub(crate) mod tests;
