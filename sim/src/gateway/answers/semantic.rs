//! The nearest stored question of a tenant, how similar it is, and whether that is near enough.
//!
//! The nearest is one that means the same, if one is stored, and else another. Their similarity is drawn
//! from the normal distribution of its kind, once for each two wordings, so asking again gives the
//! same and no policy moves it.

use super::{Answer, Key, LearnedRule, State, Store};
use windtunnel_base::content::stream_key;
use windtunnel_base::rng::Streams;
use windtunnel_base::sample::{Normal, SampleError};
use windtunnel_base::time::SimTime;
use windtunnel_scenarios::schema::answers::{SemanticSpec, SimilarityRule, SimilaritySpec};
use windtunnel_scenarios::workload::Question;

/// How similar questions are.
#[derive(Clone, Debug)]
pub struct Similarity {
    same: Normal,
    other: Normal,
    streams: Streams,
}

/// When a similar question is similar enough.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rule {
    /// From here on.
    Threshold(f64),
    /// As each answer learned for itself.
    Learned(LearnedRule),
}

/// The nearest stored question.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Nearest {
    /// Where its answer is.
    pub slot: u32,
    /// The generation of that place.
    pub generation: u32,
    /// How similar the questions are.
    pub similarity: f64,
}

/// What is done with it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Choice {
    /// Its answer is given.
    Give(Nearest),
    /// The request goes on; where the rule learns, its answer will tell of this one.
    GoOn(Option<Nearest>),
}

impl Rule {
    /// The rule of a scenario.
    pub fn new(spec: &SimilarityRule) -> Self {
        match *spec {
            SimilarityRule::Threshold { at_least } => Self::Threshold(at_least),
            SimilarityRule::Learned {
                max_error,
                confidence,
            } => Self::Learned(LearnedRule::new(max_error, confidence)),
        }
    }
}

impl Similarity {
    /// As a scenario has it.
    ///
    /// # Errors
    /// If there is no such distribution.
    pub fn new(spec: &SemanticSpec, streams: Streams) -> Result<Self, SampleError> {
        let normal = |spec: SimilaritySpec| Normal::new(spec.mean, spec.sigma);
        Ok(Self {
            same: normal(spec.same)?,
            other: normal(spec.other)?,
            streams: Streams::new(streams.stream("similarity", 0).next_u64()),
        })
    }

    /// How similar a question is to a stored one.
    pub fn between(&self, asked: &Question, stored: &Answer) -> f64 {
        let pair = stream_key(asked.words, stored.question.words);
        let mut rng = self.streams.stream("pair", pair);
        if asked.about == stored.question.about {
            self.same.sample(&mut rng)
        } else {
            self.other.sample(&mut rng)
        }
    }

    /// The nearest fresh entry of a tenant.
    pub fn nearest(
        &self,
        store: &Store,
        (meaning, all): (Key, u64),
        asked: &Question,
        now: SimTime,
    ) -> Option<Nearest> {
        let fresh = |&slot: &u32| store.state(slot, now) == Some(State::Fresh);
        let slot = store.of_meaning(meaning).find(fresh).or_else(|| {
            // Which of the others it is depends on the question alone, as long as they stay.
            let list = store.of_all(all);
            let at = stream_key(asked.words, 1) % (list.len() as u64).max(1);
            list.get(at as usize).copied().filter(fresh)
        })?;
        let entry = store.get(slot)?;
        Some(Nearest {
            slot,
            generation: entry.generation,
            similarity: self.between(asked, &entry.answer),
        })
    }
}

impl Rule {
    /// What is done with the nearest question.
    pub fn choose(&self, store: &Store, nearest: Option<Nearest>) -> Choice {
        let Some(near) = nearest else {
            return Choice::GoOn(None);
        };
        match self {
            Self::Threshold(least) if near.similarity >= *least => Choice::Give(near),
            Self::Threshold(_) => Choice::GoOn(None),
            Self::Learned(rule) => {
                let entry = store.get(near.slot);
                if entry.is_some_and(|e| e.evidence.shows(rule, near.similarity)) {
                    Choice::Give(near)
                } else {
                    Choice::GoOn(Some(near))
                }
            }
        }
    }
}
