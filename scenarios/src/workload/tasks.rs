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
            streams: namespace("task"),
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
            let task = of_key(key);
            if !task.held_out() {
                continue;
            }
            let prompt_tokens = task.prompt_tokens() as u32;
            return TaskRequest {
                key,
                prompt_tokens,
                answer_tokens: task.answer_tokens() as u32,
                extent: Extent {
                    key: stream_key(self.streams, key),
                    tokens: prompt_tokens,
                },
            };
        }
    }
}
