//! Requests that are real routine tasks. A number stands for each, from which engines and verifiers
//! draw it again.

use crate::schema::traffic::{TaskClass, TasksSpec};
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_tasks::{CLASSES, key_of, of_key};

/// Which tasks a client asks.
#[derive(Clone, Debug)]
pub(crate) struct TaskPlan {
    classes: Vec<TaskClass>,
    distinct: Option<u64>,
    no_change: f64,
    streams: u64,
}

/// One task, as a request carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TaskRequest {
    /// See [`windtunnel_engine::request::Truth::task`].
    pub(crate) key: u64,
    /// Tokens of its prompt.
    pub(crate) prompt_tokens: u32,
    /// Tokens of its right answer.
    pub(crate) answer_tokens: u32,
    /// Its prompt.
    pub(crate) extent: Extent,
}

impl TaskPlan {
    pub(crate) fn new(spec: &TasksSpec) -> Self {
        let classes = match spec.classes.as_slice() {
            [] => CLASSES.to_vec(),
            some => some.to_vec(),
        };
        Self {
            classes,
            distinct: spec.distinct,
            no_change: spec.no_change,
            streams: namespace("task"),
        }
    }

    /// The task of a conversation's turn, after the one asked `before`.
    pub(crate) fn turn(&self, before: Option<u64>, rng: &mut Rng, seed: u64) -> TaskRequest {
        match before {
            Some(key) if rng.chance(self.no_change) => self.request(key),
            _ => self.draw(rng, seed),
        }
    }

    fn request(&self, key: u64) -> TaskRequest {
        let task = of_key(key);
        let prompt_tokens = task.prompt_tokens() as u32;
        TaskRequest {
            key,
            prompt_tokens,
            answer_tokens: task.answer_tokens() as u32,
            extent: Extent {
                key: stream_key(self.streams, key),
                tokens: prompt_tokens,
            },
        }
    }

    /// Draws a task that no model was shown in training.
    pub(crate) fn draw(&self, rng: &mut Rng, seed: u64) -> TaskRequest {
        let mut rng = match self.distinct {
            // The same few tasks, whichever of them is drawn.
            Some(n) => Streams::new(seed).stream("one of the tasks", rng.below(n.max(1))),
            None => Streams::new(rng.next_u64()).stream("a new task", 0),
        };
        loop {
            let class = self.classes[rng.below(self.classes.len() as u64) as usize];
            let key = key_of(class, rng.next_u64());
            if of_key(key).held_out() {
                return self.request(key);
            }
        }
    }
}
