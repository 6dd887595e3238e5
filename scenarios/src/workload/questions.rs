//! Which questions a client asks, and in which words. What is asked is part of the prompt, so the
//! gateway sees it; what the answer is worth is hidden truth and stands elsewhere.

use crate::schema::questions::QuestionsSpec;
use windtunnel_base::content::{Extent, namespace, stream_key};
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::Zipf;

/// What a request asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Question {
    /// What is meant: equal for all wordings of a question. Namespace included.
    pub about: u64,
    /// The words: equal if and only if the prompts are the same, letter by letter.
    pub words: u64,
    /// Name of the sampling parameters that the answer is to be made with.
    pub sampling: u64,
}

impl Question {
    /// A question that is asked in one wording, with no sampling parameters named.
    pub const fn plain(about: u64) -> Self {
        Self {
            about,
            words: about,
            sampling: 0,
        }
    }

    /// The same words after a beginning of this name.
    pub(crate) const fn after(self, beginning: u64) -> Self {
        Self {
            about: stream_key(self.about, beginning),
            words: stream_key(self.words, beginning),
            sampling: self.sampling,
        }
    }
}

/// The name of sampling parameters: a limit on the output is one of them.
pub(crate) fn sampling(named: &str, limit: Option<u32>) -> u64 {
    stream_key(namespace(named), u64::from(limit.unwrap_or(u32::MAX)))
}

/// Which questions a client asks.
#[derive(Clone, Debug)]
pub(crate) struct QuestionPlan {
    /// Names the collection.
    collection: u64,
    sampling: u64,
    distinct: Option<u64>,
    popularity: Option<Zipf>,
    in_turn: bool,
    phrasings: u64,
    /// Names the prompts' token streams.
    prompts: u64,
}

impl QuestionPlan {
    /// `limit` on the output is a sampling parameter too: with another, the answer may be another.
    pub(crate) fn new(spec: &QuestionsSpec, limit: Option<u32>) -> Result<Self, String> {
        let exponent = spec.zipf.unwrap_or(0.0);
        let zipf = spec.distinct.map(|n| Zipf::new(n, exponent)).transpose();
        let zipf = zipf.map_err(|e| format!("`zipf` and `distinct`: {e}"))?;
        if spec.phrasings == 0 {
            return Err("a question has at least one wording (`phrasings`)".into());
        }
        Ok(Self {
            collection: stream_key(namespace("questions"), namespace(&spec.collection)),
            sampling: sampling(&spec.sampling, limit),
            distinct: spec.distinct,
            popularity: zipf.filter(|_| exponent > 0.0),
            in_turn: spec.in_turn,
            phrasings: spec.phrasings,
            prompts: namespace("question"),
        })
    }

    /// What request `number` of the client named by `entity` asks.
    pub(crate) fn draw(&self, rng: &mut Rng, number: u64, entity: u64) -> Question {
        let about = match (self.distinct, &self.popularity) {
            // New ones are known by who asks them and when.
            (None, _) => stream_key(stream_key(!self.collection, entity), number),
            (Some(n), _) if self.in_turn => stream_key(self.collection, number % n.max(1)),
            (Some(_), Some(zipf)) => stream_key(self.collection, zipf.sample(rng) as u64),
            (Some(n), None) => stream_key(self.collection, rng.below(n.max(1))),
        };
        let wording = if self.phrasings > 1 {
            rng.below(self.phrasings)
        } else {
            0
        };
        Question {
            about,
            words: stream_key(about, wording),
            sampling: self.sampling,
        }
    }

    /// Where the length of a question's prompt is drawn from: the same words, the same length.
    pub(crate) fn length_stream(question: Question) -> Rng {
        Streams::new(question.words).stream("words", 0)
    }

    /// The prompt of a question, as prefix caches see it.
    pub(crate) fn extent(&self, question: Question, tokens: u32) -> Extent {
        Extent {
            key: stream_key(self.prompts, question.words),
            tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(spec: &QuestionsSpec, n: u64) -> Vec<Question> {
        let plan = QuestionPlan::new(spec, None).unwrap();
        let mut rng = Rng::from_seed(3);
        (0..n).map(|i| plan.draw(&mut rng, i, 7)).collect()
    }

    fn different<K: Ord>(all: &[Question], key: impl Fn(&Question) -> K) -> usize {
        all.iter()
            .map(key)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    }

    #[test]
    fn there_are_as_many_questions_and_wordings_as_said() {
        let spec = QuestionsSpec {
            distinct: Some(5),
            phrasings: 3,
            ..QuestionsSpec::default()
        };
        let all = drawn(&spec, 2_000);
        assert_eq!(different(&all, |q| q.about), 5);
        assert_eq!(different(&all, |q| q.words), 15);
        // Without a number every request asks something new.
        let all = drawn(&QuestionsSpec::default(), 2_000);
        assert_eq!(different(&all, |q| q.about), 2_000);
    }

    #[test]
    fn popularity_is_zipfs() {
        let spec = QuestionsSpec {
            distinct: Some(100),
            zipf: Some(1.0),
            ..QuestionsSpec::default()
        };
        let n = 100_000;
        let all = drawn(&spec, n);
        let first = stream_key(stream_key(namespace("questions"), namespace("")), 0);
        let asked = all.iter().filter(|q| q.about == first).count() as f64;
        let harmonic: f64 = (1..=100).map(|k| 1.0 / f64::from(k)).sum();
        let p = 1.0 / harmonic;
        // Four standard errors of a share.
        let error = 4.0 * (p * (1.0 - p) / n as f64).sqrt();
        assert!((asked / n as f64 - p).abs() < error);
    }

    #[test]
    fn in_turn_each_comes_once_a_round() {
        let spec = QuestionsSpec {
            distinct: Some(10),
            in_turn: true,
            ..QuestionsSpec::default()
        };
        let all = drawn(&spec, 30);
        assert_eq!(different(&all[..10], |q| q.about), 10);
        assert_eq!(all[..10], all[20..]);
    }

    #[test]
    fn collections_and_sampling_are_kept_apart() {
        let of = |collection: &str, sampling: &str| {
            let spec = QuestionsSpec {
                collection: collection.into(),
                sampling: sampling.into(),
                distinct: Some(1),
                ..QuestionsSpec::default()
            };
            drawn(&spec, 1)[0]
        };
        assert_eq!(of("a", "").about, of("a", "x").about);
        assert_ne!(of("a", "").sampling, of("a", "x").sampling);
        assert_ne!(of("a", "").about, of("b", "").about);
    }
}
