//! What replicas that compute did over a run: counted work, and what layers have left out of it.

use serde::{Deserialize, Serialize};

/// Work of all devices, verification included.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputedTotals {
    /// Tokens of answers given out, those that nothing was computed for too.
    pub tokens: u64,
    /// Launches of kernels and products; a replayed graph is one.
    pub launches: u64,
    /// Floating-point operations of products and attention, two per multiply and add.
    pub operations: u64,
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of keys and values read.
    pub kv_read_bytes: u64,
    /// Bytes of keys and values written.
    pub kv_written_bytes: u64,
    /// Steps of all models.
    pub model_steps: u64,
    /// Sequences in those steps, one per sequence and step.
    pub model_sequences: u64,
    /// Bytes of keys and values in use, mean over steps, all replicas and models together.
    pub kv_mean_bytes: f64,
    /// Seconds that the work would take on the device model that counted work is priced by.
    pub counted_seconds: f64,
    /// What layers did, if any acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerTotals>,
}

impl ComputedTotals {
    /// Bytes moved in all.
    pub const fn moved_bytes(&self) -> u64 {
        self.weight_bytes + self.kv_read_bytes + self.kv_written_bytes
    }
}

/// What the layers of a cascade did, all replicas together.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerTotals {
    /// Which of L0 to L5 act on some replica.
    pub on: [bool; 6],
    /// L0: turns that were looked at.
    pub turns: u64,
    /// Of those, answered as before.
    pub skipped: u64,
    /// Of the skipped, those whose answer is not right.
    pub skipped_wrong: u64,
    /// Turns run for a danger marker.
    pub danger_runs: u64,
    /// Tokens of answers that were computed.
    pub computed_tokens: u64,
    /// L2: of those, tokens of the short path.
    pub short_tokens: u64,
    /// Of the short ones, tokens of critical severity.
    pub critical_short: u64,
    /// Drafts that the frontier verified.
    pub drafts: u64,
    /// Of those, drafts that stood.
    pub drafts_kept: u64,
    /// Steps that verified drafts.
    pub draft_steps: u64,
    /// L3: full blocks that kept 16 bits (anchors).
    pub f16: StoredTotals,
    /// In INT8.
    pub int8: StoredTotals,
    /// In FP8.
    pub fp8: StoredTotals,
    /// L4: answers that could have been verified.
    pub accepted: u64,
    /// Answers that were.
    pub checks: u64,
    /// Of those, answers that differed.
    pub mismatches: u64,
    /// Estimate of how many of `accepted` would differ, from how seldom each was checked.
    pub false_accepts: f64,
    /// Of `counted_seconds`, those of computing short answers again.
    pub checking_seconds: f64,
    /// Answers held against the frontier in full, after the run.
    pub compared: u64,
    /// Their tokens.
    pub compared_tokens: u64,
    /// Of those, tokens that the frontier would have chosen too, given the same tokens before.
    pub same_tokens: u64,
    /// Of the compared tokens, those whose distribution is known.
    pub drawn_tokens: u64,
    /// Sum over those of the divergence of their distribution, seen from the frontier's, in nats.
    pub divergence: f64,
    /// L5: publications.
    pub publications: u64,
    /// Of those, lost.
    pub lost_publications: u64,
    /// Risk, novelty, drift and confidence that were published last: means over replicas.
    pub signals: SignalTotals,
    /// Where the threshold of L0 ended, mean over replicas.
    pub skip_threshold: f64,
    /// Where the threshold of L2 ended, mean over replicas.
    pub route_threshold: f64,
}

/// Full blocks stored in one format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredTotals {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of their numbers; scales are not counted.
    pub bytes: u64,
}

/// What layers share, each between 0 and 1.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalTotals {
    /// Mean risk of tokens.
    pub risk: f64,
    /// Mean change of states.
    pub novelty: f64,
    /// How far what verification finds lately is above what it found before.
    pub drift: f64,
    /// Mean certainty of tokens.
    pub confidence: f64,
}
