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
            let Some(pages) = backend.take_pages((tokens.len() + longest).div_ceil(size))? else {
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

/// What a model says after a prompt: tokens drawn by `sampling`, to the first for which `ends` holds or to
/// `longest`.
///
/// # Errors
/// If the prompt has no tokens, prompt and answer do not fit the model or the pages, or the device fails.
pub fn answer(
    backend: &mut dyn Backend,
    prompt: &[u32],
    longest: usize,
    sampling: Sampling,
    ends: &dyn Fn(u32) -> bool,
) -> Result<Vec<u32>, ReferenceError> {
    let room = backend.config().max_position_embeddings;
    if prompt.is_empty() || prompt.len() + longest > room {
        return Err(ReferenceError::Config {
            field: "max_position_embeddings".into(),
            reason: format!(
                "a prompt of {} tokens and an answer of {longest} do not fit from 1 to {room}",
                prompt.len()
            ),
            remedy: "shorten the prompt or the answer".into(),
        });
    }
    let pages = (prompt.len() + longest).div_ceil(backend.page_tokens());
    let Some(pages) = backend.take_pages(pages)? else {
        return Err(ReferenceError::Memory {
            what: "the pages of one answer".into(),
            needed: pages as u64,
            available: 0,
            remedy: "give the backend more pages".into(),
        });
    };
    let mut tokens = prompt.to_vec();
    let (mut stored, mut sampled) = (0, Vec::new());
    let mut done = Ok(());
    while tokens.len() < prompt.len() + longest {
        let span = Span {
            tokens: &tokens[stored..],
            start: stored,
            pages: &pages,
            sample: Some(sampling),
            layers: None,
        };
        done = backend.step(&[span], &mut sampled);
        let Some(next) = sampled.first().filter(|_| done.is_ok()) else {
            break;
        };
        stored = tokens.len();
        tokens.push(next.token);
        if ends(next.token) {
            break;
        }
    }
    for page in pages {
        backend.give_back_page(page);
    }
    done.map(|()| tokens.split_off(prompt.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::{Cpu, KvMemory};
    use crate::config::ModelConfig;
    use crate::kv::format::KvFormat;
    use crate::weights::Weights;

    #[test]
    fn one_answer_is_that_of_many_and_its_pages_go_back() {
        let config = ModelConfig::pocket_light();
        let weights = Weights::random(&config, 3).unwrap();
        let memory = KvMemory {
            pages: 64,
            page_tokens: 16,
            filling: KvFormat::F16,
        };
        let mut cpu = Cpu::new(&config, &weights, &memory).unwrap();
        let mut rng = windtunnel_base::rng::Rng::from_seed(1);
        let task = windtunnel_tasks::CLASSES[0].generate(&mut rng);
        let many = answers(&mut cpu, std::slice::from_ref(&task), 9, 4).unwrap();
        let prompt: Vec<u32> = std::iter::once(BOS).chain(encode(&task.prompt)).collect();
        let is_end = |token| token == EOS;
        let one = answer(&mut cpu, &prompt, 9, Sampling::GREEDY, &is_end).unwrap();
        assert_eq!(decode(&one), many[0]);
        assert!(one.len() <= 9);
        assert_eq!(cpu.kv_bytes(), 0);
        let first = one[0];
        let short = answer(&mut cpu, &prompt, 9, Sampling::GREEDY, &|t| t == first).unwrap();
        assert_eq!(short, [first]);
        for (prompt, longest) in [(&[][..], 4), (&prompt, 600)] {
            let error = answer(&mut cpu, prompt, longest, Sampling::GREEDY, &is_end).unwrap_err();
            assert!(error.to_string().contains("do not fit"), "{error}");
        }
    }
}
