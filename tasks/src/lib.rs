//! Routine tasks with exact verifiers: one class per workload that the cluster-kernel literature
//! names as high-frequency, stable, bounded and verifiable.
//!
//! A task is a line of text whose right answer follows from it by a rule. Generators draw names
//! from syllables, so that no model can know them by heart and must copy them; verifiers read
//! nothing but the prompt, and share no code with the generators beyond the words of the trade.

/// Author, title and year of a publication, as a record.
mod metadata;
/// A letter filled in from fields.
mod documents;
/// The team a message is for.
mod routing;
/// A skeleton for a signature.
mod scaffolding;
/// A sentence on a repository from its facts.
mod descriptions;
/// A record in another notation.
mod schemas;
/// A call for a request.
mod tools;
/// Words and names.
mod words;

/// The byte-level tokenizer they are read with.
pub mod tokenizer;

use windtunnel_base::rng::{Rng, Streams, mix64};

/// A class of tasks.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskClass {
    /// Metadata extraction.
    Metadata,
    /// Document templates.
    Documents,
    /// Support routing.
    Routing,
    /// Code scaffolding.
    Scaffolding,
    /// Repository descriptions.
    Descriptions,
    /// Schema transforms.
    Schemas,
    /// Tool calls.
    Tools,
}

/// All classes, in the order of their tags.
pub const CLASSES: [TaskClass; 7] = [
    TaskClass::Metadata,
    TaskClass::Documents,
    TaskClass::Routing,
    TaskClass::Scaffolding,
    TaskClass::Descriptions,
    TaskClass::Schemas,
    TaskClass::Tools,
];

/// One task: what is asked, and the one right answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// Its class.
    pub class: TaskClass,
    /// What is asked, class tag included, up to and with the line end after which the answer begins.
    pub prompt: String,
    /// The right answer.
    pub answer: String,
}

/// Why an answer is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Wrong {
    /// No task of any class reads so.
    #[error("the prompt is no task: {0:?}")]
    NoTask(String),
    /// The answer is not what the rule gives.
    #[error("expected {expected:?}")]
    Differs {
        /// What the rule gives.
        expected: String,
    },
}

impl TaskClass {
    /// The letter that begins its prompts.
    pub const fn tag(self) -> char {
        match self {
            Self::Metadata => 'M',
            Self::Documents => 'D',
            Self::Routing => 'R',
            Self::Scaffolding => 'C',
            Self::Descriptions => 'P',
            Self::Schemas => 'S',
            Self::Tools => 'T',
        }
    }

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Documents => "documents",
            Self::Routing => "routing",
            Self::Scaffolding => "scaffolding",
            Self::Descriptions => "descriptions",
            Self::Schemas => "schemas",
            Self::Tools => "tools",
        }
    }

    /// The class whose prompts begin so.
    pub fn of_tag(tag: char) -> Option<Self> {
        CLASSES.into_iter().find(|c| c.tag() == tag)
    }

    /// The task of this class that a number stands for: the same one whenever it is asked.
    pub fn of_key(self, key: u64) -> Task {
        self.generate(&mut Streams::new(key).stream("task", self as u64))
    }

    /// Draws a task.
    pub fn generate(self, rng: &mut Rng) -> Task {
        let (body, answer) = match self {
            Self::Metadata => metadata::generate(rng),
            Self::Documents => documents::generate(rng),
            Self::Routing => routing::generate(rng),
            Self::Scaffolding => scaffolding::generate(rng),
            Self::Descriptions => descriptions::generate(rng),
            Self::Schemas => schemas::generate(rng),
            Self::Tools => tools::generate(rng),
        };
        Task {
            class: self,
            prompt: format!("{} {body}\n", self.tag()),
            answer,
        }
    }
}

impl Task {
    /// Tokens of the prompt as a model reads it, the one before every text included.
    pub const fn prompt_tokens(&self) -> usize {
        1 + self.prompt.len()
    }

    /// Tokens of the right answer, the one after every answer included.
    pub const fn answer_tokens(&self) -> usize {
        self.answer.len() + 1
    }

    /// Whether the task is kept from training. One task in eight is, by a hash of its prompt, so
    /// that what a model is tried on was never shown to it, wherever either was drawn.
    pub fn held_out(&self) -> bool {
        let hash = self
            .prompt
            .bytes()
            .fold(0_u64, |hash, byte| mix64(hash ^ u64::from(byte)));
        hash.is_multiple_of(8)
    }
}

/// Draws a task of any class, each as likely as the others.
pub fn generate(rng: &mut Rng) -> Task {
    CLASSES[rng.below(CLASSES.len() as u64) as usize].generate(rng)
}

/// Names a task of a class by one number, for [`of_key`]: the same for the same `number`.
pub fn key_of(class: TaskClass, number: u64) -> u64 {
    let classes = CLASSES.len() as u64;
    let place = CLASSES.iter().position(|&c| c == class).unwrap_or_default();
    (number >> 3) * classes + place as u64
}

/// The task that a number stands for: the same one whenever it is asked.
pub fn of_key(key: u64) -> Task {
    CLASSES[(key % CLASSES.len() as u64) as usize].of_key(key)
}

/// Whether `answer` is right for `prompt`, from the prompt alone.
///
/// # Errors
/// If the prompt is no task, or the answer is not what the rule of its class gives.
pub fn verify(prompt: &str, answer: &str) -> Result<(), Wrong> {
    let expected = solve(prompt).ok_or_else(|| Wrong::NoTask(prompt.to_owned()))?;
    if answer == expected {
        Ok(())
    } else {
        Err(Wrong::Differs { expected })
    }
}

/// What the rule of its class gives for a prompt; none if it is no task.
pub fn solve(prompt: &str) -> Option<String> {
    let line = prompt.strip_suffix('\n')?;
    let mut letters = line.chars();
    let class = TaskClass::of_tag(letters.next()?)?;
    let body = letters.as_str().strip_prefix(' ')?;
    match class {
        TaskClass::Metadata => metadata::solve(body),
        TaskClass::Documents => documents::solve(body),
        TaskClass::Routing => routing::solve(body),
        TaskClass::Scaffolding => scaffolding::solve(body),
        TaskClass::Descriptions => descriptions::solve(body),
        TaskClass::Schemas => schemas::solve(body),
        TaskClass::Tools => tools::solve(body),
    }
}

/// How much harm a wrong byte of an answer does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Wording.
    Low,
    /// Structure that a machine reads: quotes, braces, separators.
    High,
    /// Figures: amounts, identifiers, times.
    Critical,
}

/// The severity of a byte, as a danger marker would tag it.
pub const fn severity(byte: u8) -> Severity {
    match byte {
        b'0'..=b'9' => Severity::Critical,
        b'"' | b'{' | b'}' | b'(' | b')' | b'=' | b':' | b',' | b';' => Severity::High,
        _ => Severity::Low,
    }
}

#[cfg(test)]
mod tests;
