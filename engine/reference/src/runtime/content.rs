//! What prompts say. A request with a task says the task; one of which only lengths are known says
//! what the names of its streams stand for, the same wherever they occur: so prompts with a common
//! beginning have it in tokens too.

use windtunnel_base::content::Extent;
use windtunnel_base::rng::mix64;
use windtunnel_engine::request::Submission;
use windtunnel_tasks::tokenizer::{self, BOS, EOS, VOCAB, encode};
use windtunnel_tasks::{Task, verify};

/// The tokens of one prompt, and of what its stream goes on with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    prompt: Vec<u32>,
    task: Option<Task>,
    /// The stream that the answer continues, and where in the prompt it begins.
    continues: Option<(u64, u32)>,
    alphabet: u32,
    /// The client's own limit on the answer.
    limit: Option<u32>,
}

impl Content {
    /// What a request says to a model with so many different tokens.
    ///
    /// # Errors
    /// If the model cannot read it, in words.
    pub fn of(submission: &Submission<'_>, vocab: usize) -> Result<Self, String> {
        let tokens = submission.request.prompt_tokens;
        // Bytes only, so that no token means the end.
        let alphabet = (vocab as u32).min(256);
        let Some(key) = submission.truth.task else {
            let (prompt, continues) = drawn(submission, alphabet);
            return Ok(Self {
                prompt,
                task: None,
                continues,
                alphabet,
                limit: submission.request.max_output_tokens,
            });
        };
        if vocab != VOCAB as usize {
            return Err(format!(
                "tasks are read byte by byte with {VOCAB} tokens, and this model has {vocab}; take a model with that vocabulary"
            ));
        }
        let task = windtunnel_tasks::of_key(key);
        let mut prompt = vec![BOS];
        prompt.extend(encode(&task.prompt));
        if prompt.len() != tokens as usize {
            return Err(format!(
                "its task has {} tokens, and it says {tokens}; a prefix or a history cannot stand before a task",
                prompt.len()
            ));
        }
        Ok(Self {
            prompt,
            task: Some(task),
            continues: None,
            alphabet,
            limit: submission.request.max_output_tokens,
        })
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> u32 {
        self.prompt.len() as u32
    }

    /// The client's own limit on the answer, in tokens.
    pub const fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// The task, if it is one.
    pub fn task(&self) -> Option<&Task> {
        self.task.as_ref()
    }

    /// A token of the prompt.
    pub fn token(&self, position: u32) -> u32 {
        self.prompt.get(position as usize).copied().unwrap_or(EOS)
    }

    /// What stands at a position after the prompt whatever a model says: the next prompt of this
    /// conversation repeats it.
    pub fn continuation(&self, position: u32) -> Option<u32> {
        let (key, begin) = self.continues?;
        Some(stream_token(key, position - begin, self.alphabet))
    }

    /// Whether an answer is right; none if nobody can tell.
    pub fn is_right(&self, answer: &[u32]) -> Option<bool> {
        let task = self.task.as_ref()?;
        let ended = answer.last() == Some(&EOS);
        Some(ended && verify(&task.prompt, &tokenizer::decode(answer)).is_ok())
    }
}

/// A token of a named stream.
fn stream_token(key: u64, i: u32, alphabet: u32) -> u32 {
    (mix64(key ^ mix64(u64::from(i) + 1)) % u64::from(alphabet)) as u32
}

/// A prompt by the names of its streams; what no stream covers is its own. Also the stream that its
/// answer continues, and where that begins.
fn drawn(submission: &Submission<'_>, alphabet: u32) -> (Vec<u32>, Option<(u64, u32)>) {
    let request = &submission.request;
    let mut prompt = Vec::with_capacity(request.prompt_tokens as usize);
    let mut last = None;
    for &Extent { key, tokens } in request.prefix {
        let left = request.prompt_tokens - prompt.len() as u32;
        last = Some((key, prompt.len() as u32));
        prompt.extend((0..tokens.min(left)).map(|i| stream_token(key, i, alphabet)));
    }
    let covered = prompt.len() as u32;
    let own = mix64(0x6f77_6e20_7072_6f6d ^ u64::from(request.id.0));
    prompt.extend((covered..request.prompt_tokens).map(|i| stream_token(own, i, alphabet)));
    let continues = submission.truth.output_continues && covered == request.prompt_tokens;
    (prompt, last.filter(|_| continues))
}
