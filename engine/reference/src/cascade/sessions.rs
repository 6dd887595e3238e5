//! Sessions of turns: a state that changes or does not, and a task that follows from it.

use serde::{Deserialize, Serialize};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_tasks::{self as tasks, TaskClass};

/// What sessions are drawn.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workload {
    /// Sessions, all of which go on at once.
    pub sessions: usize,
    /// Turns of each.
    pub turns: usize,
    /// Probability that a turn changes nothing.
    pub no_change: f64,
    /// Share of changes that are of one figure alone.
    pub small_changes: f64,
    /// Share of turns whose state carries a danger marker.
    pub danger: f64,
    /// Class of all tasks; none draws one per session.
    pub class: Option<TaskClass>,
    /// Bytes of text before every task, the same in all sessions.
    pub preamble: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            sessions: 4,
            turns: 8,
            no_change: 0.3,
            small_changes: 0.3,
            danger: 0.02,
            class: None,
            preamble: 0,
            seed: 1,
        }
    }
}

/// One turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    /// What the agent sees: the task's facts, and words that mean nothing.
    pub state: String,
    /// What the model is asked, preamble included.
    pub prompt: String,
    /// The task within the prompt.
    pub task: String,
    /// Whether the right answer is another than at the turn before. Known to reports alone.
    pub changed: bool,
}

/// Words that come and go without meaning anything.
const IDLE: [&str; 5] = [
    "idle",
    "no news",
    "still waiting",
    "nothing new",
    "quiet so far",
];

/// Draws sessions.
pub fn draw(workload: &Workload) -> Vec<Vec<Turn>> {
    let streams = Streams::new(workload.seed);
    let mut words = streams.stream("cascade preamble", 0);
    let preamble: String = (0..workload.preamble)
        .map(|i| {
            if i % 8 == 7 {
                ' '
            } else {
                char::from(b'a' + words.below(26) as u8)
            }
        })
        .collect();
    (0..workload.sessions)
        .map(|s| {
            session(
                workload,
                &preamble,
                &mut streams.stream("cascade session", s as u64),
            )
        })
        .collect()
}

fn session(workload: &Workload, preamble: &str, rng: &mut Rng) -> Vec<Turn> {
    let class = workload
        .class
        .unwrap_or_else(|| tasks::CLASSES[rng.below(tasks::CLASSES.len() as u64) as usize]);
    let mut task = class.generate(rng);
    (0..workload.turns)
        .map(|turn| {
            let changed = turn == 0 || !rng.chance(workload.no_change);
            if changed && turn > 0 {
                let before = task.answer.clone();
                let small = rng
                    .chance(workload.small_changes)
                    .then(|| one_figure(&task.prompt, rng))
                    .flatten();
                while task.answer == before {
                    task = small.clone().unwrap_or_else(|| class.generate(rng));
                }
            }
            let idle = IDLE[rng.below(IDLE.len() as u64) as usize];
            let marker = if rng.chance(workload.danger) {
                "ALERT "
            } else {
                ""
            };
            Turn {
                state: format!("{marker}{}{idle}", task.prompt),
                prompt: format!("{preamble}{}", task.prompt),
                task: task.prompt.clone(),
                changed,
            }
        })
        .collect()
}

/// The task with one figure changed, if that gives another right answer.
fn one_figure(prompt: &str, rng: &mut Rng) -> Option<tasks::Task> {
    let figures: Vec<usize> = prompt
        .bytes()
        .enumerate()
        .filter(|(_, b)| b.is_ascii_digit())
        .map(|(i, _)| i)
        .collect();
    if figures.is_empty() {
        return None;
    }
    let at = figures[rng.below(figures.len() as u64) as usize];
    let mut bytes = prompt.as_bytes().to_vec();
    bytes[at] = b'0' + ((bytes[at] - b'0') + 1 + rng.below(8) as u8) % 10;
    let changed = String::from_utf8(bytes).ok()?;
    let (old, new) = (tasks::solve(prompt)?, tasks::solve(&changed)?);
    (old != new).then(|| tasks::Task {
        class: TaskClass::of_tag(prompt.chars().next().unwrap_or(' ')).unwrap_or(TaskClass::Tools),
        prompt: changed,
        answer: new,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_change_as_often_as_asked_and_only_then_the_answer() {
        let workload = Workload {
            sessions: 60,
            turns: 50,
            ..Workload::default()
        };
        let sessions = draw(&workload);
        assert_eq!(sessions, draw(&workload));
        let mut same = 0;
        for turns in &sessions {
            for pair in turns.windows(2) {
                let [a, b] = [0, 1].map(|i| tasks::solve(&pair[i].task).unwrap());
                assert_eq!(pair[1].changed, a != b);
                same += usize::from(!pair[1].changed);
            }
        }
        // Four standard errors of a share of 2,940.
        assert!((same as f64 / 2_940.0 - 0.3).abs() < 0.034, "{same}");
    }
}
