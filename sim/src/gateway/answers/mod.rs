//! Answers that the gateway keeps: a store with times and room, and a lookup by similarity. Plain state
//! machines; what happens in between is the world's affair.

/// Entries by key: time, room, who leaves.
mod store;
/// Which stored question is nearest, and when that is near enough.
mod semantic;
/// What is known of when an answer to a similar question is right.
mod evidence;

pub use evidence::{Evidence, LearnedRule};
pub use semantic::{Choice, Nearest, Rule, Similarity};
pub use store::{Entry, Found, State, Store};

use crate::verification::Judgement;
use windtunnel_base::content::{namespace, stream_key};
use windtunnel_base::ids::TenantId;
use windtunnel_base::rng::mix64;
use windtunnel_scenarios::workload::Question;

/// What an exact lookup goes by: tenant, model, sampling parameters, version and words, in 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u128);

/// Makes keys: what all requests of a run share is put in once.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    model: [u64; 2],
}

impl Keys {
    /// Keys of answers that `model`, in this `version`, makes.
    pub fn new(model: &str, version: &str) -> Self {
        let of = |salt| stream_key(stream_key(salt, namespace(model)), namespace(version));
        Self {
            model: [of(1), of(2)],
        }
    }

    /// What a tenant's answers with these sampling parameters have in common.
    fn scope(&self, tenant: TenantId, sampling: u64) -> [u64; 2] {
        let of = |salt| stream_key(stream_key(salt, u64::from(tenant.0)), sampling);
        self.model.map(of)
    }

    /// The key of a question in its words.
    pub fn exact(&self, tenant: TenantId, question: &Question) -> Key {
        join(self.scope(tenant, question.sampling), question.words)
    }

    /// The key of a question whatever its words.
    pub fn meaning(&self, tenant: TenantId, question: &Question) -> Key {
        // Never the key of words, even where there is one wording alone.
        let scope = self.scope(tenant, question.sampling).map(mix64);
        join(scope, question.about)
    }

    /// The key of all answers that a tenant may be given.
    pub fn all(&self, tenant: TenantId, question: &Question) -> u64 {
        self.scope(tenant, question.sampling)[0]
    }
}

fn join(scope: [u64; 2], id: u64) -> Key {
    let [high, low] = scope.map(|half| stream_key(half, id));
    Key(u128::from(high) << 64 | u128::from(low))
}

/// A stored answer: what a client gets, and what it is worth in truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whose it is; nobody else is given it.
    pub tenant: TenantId,
    /// What was asked.
    pub question: Question,
    /// Its length in tokens.
    pub output_tokens: u32,
    /// Hidden truth: whether it answers that question well.
    pub good: bool,
    /// What became of it at the verifier.
    pub judged: Judgement,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_everything_that_makes_an_answer() {
        let question = Question::plain(5);
        let keys = Keys::new("m", "1");
        let same = keys.exact(TenantId(1), &question);
        assert_eq!(same, Keys::new("m", "1").exact(TenantId(1), &question));
        let others = [
            keys.exact(TenantId(2), &question),
            Keys::new("n", "1").exact(TenantId(1), &question),
            Keys::new("m", "2").exact(TenantId(1), &question),
            keys.exact(
                TenantId(1),
                &Question {
                    sampling: 1,
                    ..question
                },
            ),
            keys.exact(
                TenantId(1),
                &Question {
                    words: 6,
                    ..question
                },
            ),
            keys.meaning(TenantId(1), &question),
        ];
        for other in others {
            assert_ne!(same, other);
            // Both halves say so: neither is a mere copy of the other.
            assert_ne!(same.0 as u64, other.0 as u64);
            assert_ne!(same.0 >> 64, other.0 >> 64);
        }
        let reworded = Question {
            words: 6,
            ..question
        };
        let meaning = |q| keys.meaning(TenantId(1), q);
        assert_eq!(meaning(&question), meaning(&reworded));
    }
}
