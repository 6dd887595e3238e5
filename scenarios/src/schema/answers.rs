//! Answers that the gateway keeps and gives again, and requests that wait for the answer to another.
//! Both go by `traffic.questions`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windtunnel_base::eviction::EvictionKind;
use windtunnel_base::quantity::Span;
use windtunnel_base::time::SimDuration;

/// Stored answers. The key of an answer always holds the tenant, the model, the sampling parameters and
/// the version of what made it: no tenant is ever given another's answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnswersSpec {
    /// False switches all of this table off.
    pub enabled: bool,
    /// Give the same answer to the same words.
    pub exact: bool,
    /// How long an answer is fresh; absent: for ever.
    pub ttl: Option<Span>,
    /// Since when that counts.
    pub ttl_since: TtlSince,
    /// The time of each answer is drawn from `ttl * (1 - jitter)` to `ttl * (1 + jitter)`; 0 to 1.
    pub ttl_jitter: f64,
    /// Make an answer anew before it expires, by chance and the more likely the nearer the end is
    /// (XFetch: when `-early_refresh * delta * ln(U) >= time left`, `delta` being how long the answer took
    /// to make); absent: never. 1 is the usual value, more is earlier.
    pub early_refresh: Option<f64>,
    /// For so long after it expired, an answer is given all the same while it is made anew, once at a time
    /// (RFC 5861).
    pub stale_while_revalidate: Span,
    /// For so long after it expired, an answer is given where making it anew failed (RFC 5861).
    pub stale_if_error: Span,
    /// Answers that fit; absent: no limit.
    pub capacity: Option<u64>,
    /// Which one leaves when there is no room.
    pub eviction: EvictionKind,
    /// Keep answers too that the verifier rejected.
    pub keep_rejected: bool,
    /// Version of what makes answers (a kernel, a prompt, a model): part of every key.
    pub version: String,
    /// Give the answer to a similar question where there is none to the same words.
    pub semantic: Option<SemanticSpec>,
}

impl Default for AnswersSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            exact: true,
            ttl: None,
            ttl_since: TtlSince::Write,
            ttl_jitter: 0.0,
            early_refresh: None,
            stale_while_revalidate: Span::default(),
            stale_if_error: Span::default(),
            capacity: None,
            eviction: EvictionKind::Lru,
            keep_rejected: false,
            version: String::new(),
            semantic: None,
        }
    }
}

/// From when the time of an answer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TtlSince {
    /// From when it was stored.
    #[default]
    Write,
    /// From when it was last given, or stored.
    Use,
}

/// Semantic lookup. The nearest stored question of the tenant is the one that means the same, if there
/// is one, and else another; how similar the two are is drawn once for each two wordings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticSpec {
    /// False switches semantic lookup off.
    pub enabled: bool,
    /// When the answer to the nearest question is given.
    pub rule: SimilarityRule,
    /// Similarity of questions that mean the same.
    pub same: SimilaritySpec,
    /// Similarity of a question and the nearest one that means something else.
    pub other: SimilaritySpec,
}

impl Default for SemanticSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            rule: SimilarityRule::Threshold { at_least: 0.9 },
            same: SimilaritySpec {
                mean: 0.88,
                sigma: 0.05,
            },
            other: SimilaritySpec {
                mean: 0.70,
                sigma: 0.08,
            },
        }
    }
}

/// A normal distribution of similarities.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimilaritySpec {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub sigma: f64,
}

/// When a similar question is similar enough.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SimilarityRule {
    /// From one similarity on, for all stored answers alike.
    Threshold {
        /// The similarity.
        at_least: f64,
    },
    /// Each stored answer learns for itself from which similarity on it is right: it is given only where
    /// what was seen of it shows that it is right with a probability of `1 - max_error` or more; otherwise
    /// the request goes on, and its own answer tells whether the stored one would have been right (as
    /// in vCache).
    Learned {
        /// Share of wrong answers that is allowed, more than 0 and less than 1.
        max_error: f64,
        /// How sure that must be, more than 0 and less than 1.
        #[serde(default = "usual_confidence")]
        confidence: f64,
    },
}

const fn usual_confidence() -> f64 {
    0.95
}

/// Requests that ask, in the same words, what another is being answered just now wait for its answer
/// (singleflight).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CoalescingSpec {
    /// False switches coalescing off.
    pub enabled: bool,
    /// What becomes of those who wait when the request they wait for fails.
    pub on_failure: OnFailure,
    /// Who waited so long goes on alone; absent: nobody does.
    pub follower_timeout: Option<Span>,
}

impl Default for CoalescingSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            on_failure: OnFailure::Promote,
            follower_timeout: None,
        }
    }
}

/// What becomes of those who wait when the request they wait for fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The one that came first goes on in its place, and the others wait for that.
    #[default]
    Promote,
    /// All fail with it.
    FanOut,
}

impl AnswersSpec {
    /// The most time by which the answer of a store may be older than its last write (or use, where that
    /// counts); none where answers are fresh for ever.
    pub fn age_bound(&self) -> Option<SimDuration> {
        let fresh = self.ttl?.0.as_secs_f64() * (1.0 + self.ttl_jitter);
        let stale = self.stale_while_revalidate.max(self.stale_if_error).0;
        Some(SimDuration::from_secs_f64_saturating(fresh) + stale)
    }
}
