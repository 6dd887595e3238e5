//! Whole answers from a backend, for training and measurement: as many sequences at once as it has
//! pages for, greedy. Serving has a scheduler; this has none.

use crate::backend::{Backend, Sampled, Sampling, Span};
use crate::error::ReferenceError;
use windtunnel_tasks::Task;
use windtunnel_tasks::tokenizer::{BOS, EOS, decode, encode};

/// A sequence that is being answered.
#[derive(Debug)]
struct Open {
    task: usize,
    tokens: Vec<u32>,
    prompt: usize,
    /// Tokens whose keys and values are in the pages.
    stored: usize,
    pages: Vec<u32>,
}

/// What the model says to each task, at most `longest` tokens, `at_once` sequences at a time.
///
/// # Errors
/// If the device fails or a page cannot be had for a single sequence.
pub fn answers(
    backend: &mut dyn Backend,
    tasks: &[Task],
    longest: usize,
    at_once: usize,
) -> Result<Vec<String>, ReferenceError> {
    let size = backend.page_tokens();
    let mut answers = vec![String::new(); tasks.len()];
    let mut open: Vec<Open> = Vec::new();
    let mut next = 0;
    let mut sampled: Vec<Sampled> = Vec::new();
    while next < tasks.len() || !open.is_empty() {
        while next < tasks.len() && open.len() < at_once {
            let tokens: Vec<u32> = std::iter::once(BOS)
                .chain(encode(&tasks[next].prompt))
                .collect();
            let Some(pages) = take(backend, (tokens.len() + longest).div_ceil(size)) else {
                break;
            };
            let prompt = tokens.len();
            open.push(Open {
                task: next,
                tokens,
                prompt,
                stored: 0,
                pages,
            });
            next += 1;
        }
        if open.is_empty() {
            return Err(ReferenceError::Memory {
                what: "the pages of one answer".into(),
                needed: (tasks[next].prompt_tokens() + longest) as u64,
                available: 0,
                remedy: "give the backend more pages".into(),
            });
        }
        let spans: Vec<Span<'_>> = open
            .iter()
            .map(|o| Span {
                tokens: &o.tokens[o.stored..],
                start: o.stored,
                pages: &o.pages,
                sample: Some(Sampling::GREEDY),
                layers: None,
            })
            .collect();
        backend.step(&spans, &mut sampled)?;
        for (o, s) in open.iter_mut().zip(&sampled) {
            o.stored = o.tokens.len();
            o.tokens.push(s.token);
        }
        open.retain_mut(|o| {
            let said = &o.tokens[o.prompt..];
            let ends = said.last() == Some(&EOS) || said.len() >= longest;
            if ends {
                answers[o.task] = decode(said);
                for page in o.pages.drain(..) {
                    backend.give_back_page(page);
                }
            }
            !ends
        });
    }
    Ok(answers)
}

/// So many pages, or none at all.
fn take(backend: &mut dyn Backend, count: usize) -> Option<Vec<u32>> {
    let mut pages = Vec::with_capacity(count);
    for _ in 0..count {
        if let Some(page) = backend.take_page() {
            pages.push(page);
        } else {
            for page in pages {
                backend.give_back_page(page);
            }
            return None;
        }
    }
    Some(pages)
}
