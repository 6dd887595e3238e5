//! What is known of the traffic before it is played: for the header of a run and its manifest.

use serde::Serialize;
use windtunnel_base::time::SimDuration;

/// What is known of the traffic before it is played.
#[derive(Clone, PartialEq, Debug, Default, Serialize, serde::Deserialize)]
pub struct Facts {
    /// How many requests to expect: exact for a trace played as it is and for `num_prompts`
    /// of an endless source, a mean where requests are drawn, absent where answers decide.
    pub requests: Option<u64>,
    /// From the beginning until the last request is sent, in ns, as far as known before.
    pub span_ns: Option<u64>,
    /// Files that were read.
    pub files: Vec<FileFact>,
    /// Rows that were left out because they could not be used (`--skip-bad-rows`).
    pub skipped_rows: u64,
    /// The first few of them, as `file:line: reason`.
    pub skipped_examples: Vec<String>,
    /// What was done to a trace, in the order in which it was done.
    pub transformations: Vec<String>,
    /// What a reader of the results has to know: modelling choices and oddities of the data.
    pub notes: Vec<String>,
}

/// A file that was read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, serde::Deserialize)]
pub struct FileFact {
    /// Its path as the scenario names it.
    pub file: String,
    /// Its size in bytes, as stored.
    pub bytes: u64,
    /// XXH3-128 of its bytes as stored, in hexadecimal.
    pub xxh3: String,
    /// Rows read from it, bad ones included.
    pub rows: u64,
}

impl Facts {
    /// [`Self::span_ns`] as a duration.
    pub fn span(&self) -> Option<SimDuration> {
        self.span_ns.map(SimDuration::from_nanos)
    }
}
