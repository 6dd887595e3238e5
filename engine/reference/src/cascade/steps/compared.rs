//! Answers held against the frontier in full when a run is over: what the layers cost in tokens and
//! distributions. They are an even sample of the run, so the effort is the same however long it was.

use crate::cascade::job::{Job, Mark};
use crate::cascade::lane::Lane;
use crate::cascade::report::Quality;
use crate::error::ReferenceError;
use windtunnel_base::ids::RequestId;
use windtunnel_base::rng::{Rng, Streams};

/// Bytes that the distributions of all compared answers may take; beyond, only their tokens are compared.
const DISTRIBUTIONS: usize = 256 << 20;

/// The sample, and what came of it.
#[derive(Debug)]
pub(super) struct Compared {
    most: usize,
    rng: Rng,
    /// Answers begun so far.
    begun: u64,
    chosen: Vec<Chosen>,
    pub(super) answers: u64,
    pub(super) quality: Quality,
}

/// One answer of the sample.
#[derive(Debug)]
struct Chosen {
    request: RequestId,
    /// Once it is complete.
    answer: Option<Job>,
}

impl Compared {
    pub(super) fn new(most: u32, seed: u64) -> Self {
        Self {
            most: most as usize,
            rng: Streams::new(seed).stream("cascade compared", 0),
            begun: 0,
            chosen: Vec::new(),
            answers: 0,
            quality: Quality::default(),
        }
    }

    /// An answer begins. Says whether it is of the sample: each of those begun so far is with the same
    /// chance, and one that was gives way.
    pub(super) fn choose(&mut self, request: RequestId) -> bool {
        self.begun += 1;
        let one = Chosen {
            request,
            answer: None,
        };
        if self.chosen.len() < self.most {
            self.chosen.push(one);
            return true;
        }
        let place = self.rng.below(self.begun) as usize;
        let Some(before) = self.chosen.get_mut(place) else {
            return false;
        };
        *before = one;
        true
    }

    /// Whether there is room for the distributions of an answer of so many tokens.
    pub(super) fn has_room(&self, tokens: usize, vocabulary: usize) -> bool {
        let each = tokens.saturating_mul(vocabulary * size_of::<f32>());
        each.saturating_mul(self.most) <= DISTRIBUTIONS
    }

    /// A computed answer is complete.
    pub(super) fn keep(&mut self, request: RequestId, job: &mut Job) {
        if let Some(chosen) = self.chosen.iter_mut().find(|c| c.request == request) {
            chosen.answer = Some(Job {
                prompt: job.prompt,
                marks: job.marks.clone(),
                logits: std::mem::take(&mut job.logits),
                ..Job::new(job.tokens.clone(), job.most, job.sampling)
            });
        }
    }

    /// An answer that was known without computing it is given; `asked` is what it answers.
    pub(super) fn keep_known(
        &mut self,
        request: RequestId,
        asked: impl FnOnce() -> Job,
        answer: &[u32],
    ) {
        let Some(chosen) = self.chosen.iter_mut().find(|c| c.request == request) else {
            return;
        };
        let mark = Mark {
            short: false,
            risk: 0.0,
            unsure: 0.0,
        };
        let mut asked = asked();
        asked.tokens.extend_from_slice(answer);
        asked.marks = vec![mark; answer.len()];
        chosen.answer = Some(asked);
    }

    /// Holds the complete ones against the frontier.
    pub(super) fn judge(&mut self, frontier: &mut Lane<'_>) -> Result<(), ReferenceError> {
        for chosen in self.chosen.drain(..) {
            if let Some(job) = chosen.answer.filter(|job| !job.marks.is_empty()) {
                self.quality.judge(frontier, &job)?;
                self.answers += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 40 answers, each is one of a sample of 8 with a chance of a fifth. Over 2,000 samples a share
    /// has a deviation of 0.009; five of them and every place is as likely as any other.
    #[test]
    fn early_and_late_answers_are_as_likely() {
        let mut counts = [0_u32; 40];
        for seed in 0..2_000 {
            let mut sample = Compared::new(8, seed);
            (0..40).for_each(|id| {
                sample.choose(RequestId(id));
            });
            assert_eq!(sample.chosen.len(), 8);
            for chosen in &sample.chosen {
                counts[chosen.request.0 as usize] += 1;
            }
        }
        for (id, &count) in counts.iter().enumerate() {
            let share = f64::from(count) / 2_000.0;
            assert!((share - 0.2).abs() < 0.045, "{id}: {share}");
        }
        let mut none = Compared::new(0, 1);
        assert!(!none.choose(RequestId(0)));
    }

    #[test]
    fn distributions_of_large_vocabularies_are_not_kept() {
        let sample = Compared::new(32, 1);
        assert!(sample.has_room(128, 258));
        assert!(!sample.has_room(128, 128_256));
        assert!(!sample.has_room(usize::MAX, 258));
    }
}
