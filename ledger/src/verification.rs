//! What verifiers did over a run.

use serde::{Deserialize, Serialize};

/// What one level of a ladder did, or the only verifier, or the one that stands in for it. Counts are of
/// the whole run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelTotals {
    /// Its name.
    pub name: String,
    /// Answers that it was asked about.
    pub checks: u64,
    /// What that cost, in nano-dollars.
    pub price_nano_usd: u64,
    /// What that took, in micro-joules.
    pub energy_microjoules: u64,
    /// Answers accepted after it, that is, without asking the next.
    pub accepted: u64,
    /// Of those, bad ones: they escaped.
    pub bad_accepted: u64,
    /// Answers rejected after it.
    pub rejected: u64,
    /// Of those, good ones.
    pub good_rejected: u64,
}

impl LevelTotals {
    /// Of a level that has done nothing yet.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// It had the last word about an answer.
    pub fn decided(&mut self, accepted: bool, good: bool) {
        match accepted {
            true => {
                self.accepted += 1;
                self.bad_accepted += u64::from(!good);
            }
            false => {
                self.rejected += 1;
                self.good_rejected += u64::from(good);
            }
        }
    }
}
