//! What is asked: which requests ask the same as others, in the same words or in others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What requests ask. Questions are what stored answers and coalescing go by; without this table no
/// two requests ask the same. Prompts of the same words are the same prompt: their length and what
/// prefix caches see of them follow from the words.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuestionsSpec {
    /// Which collection the questions come from. Clients that name the same ask the same questions.
    #[serde(default)]
    pub collection: String,
    /// So many different questions; every request asks a new one if absent.
    pub distinct: Option<u64>,
    /// Popularity: Zipf exponent over the questions; 0 if absent (all equal).
    pub zipf: Option<f64>,
    /// Ask one question after the other, in turn, instead of drawing them.
    #[serde(default)]
    pub in_turn: bool,
    /// Wordings of each question, all equally likely. An exact key tells them apart, a semantic lookup
    /// goes by what is meant.
    #[serde(default = "one")]
    pub phrasings: u64,
    /// Sampling parameters, as a word (`temperature=0.2`): answers made with others do not count.
    #[serde(default)]
    pub sampling: String,
}

const fn one() -> u64 {
    1
}

impl Default for QuestionsSpec {
    fn default() -> Self {
        Self {
            collection: String::new(),
            distinct: None,
            zipf: None,
            in_turn: false,
            phrasings: 1,
            sampling: String::new(),
        }
    }
}
