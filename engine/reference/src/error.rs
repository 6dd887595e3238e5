//! What can go wrong with models and devices, in words that name the tensor or the limit.

use std::path::PathBuf;

/// Why a model cannot be used, or a step was not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is there but is not what its name says.
    #[error("{}: {reason}; {remedy}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A tensor is missing, or is another than the configuration says.
    #[error("tensor `{name}`: {reason}; {remedy}")]
    Tensor {
        /// Which.
        name: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A configuration describes no decoder.
    #[error("`{field}`: {reason}; {remedy}")]
    Config {
        /// Which field of `config.json`.
        field: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Memory does not suffice.
    #[error("{what} needs {needed} bytes and {available} are free; {remedy}")]
    Memory {
        /// What was to be stored.
        what: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes there are.
        available: u64,
        /// What to do.
        remedy: String,
    },
    /// Training cannot go on.
    #[error("step {step} of training: {reason}; {remedy}")]
    Training {
        /// Steps done before.
        step: usize,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A computation gave no numbers.
    #[error(
        "the logits of sequence {sequence} at position {position} are not numbers: weights or activations overflow on this device"
    )]
    NotANumber {
        /// Which of the step's sequences.
        sequence: usize,
        /// Position of its last token.
        position: usize,
    },
    /// The device failed.
    #[error("{device}: {reason}")]
    Device {
        /// Which.
        device: String,
        /// What it says.
        reason: String,
    },
}

impl From<candle_core::Error> for ReferenceError {
    fn from(error: candle_core::Error) -> Self {
        // What follows is where in candle it happened.
        let told = error.to_string();
        Self::Device {
            device: "cpu".into(),
            reason: told.lines().next().unwrap_or_default().to_owned(),
        }
    }
}
