//! The reference engine: a real decoder and the cascade layers, so that what the simulator assumes
//! can be measured.

/// Routine tasks with exact verifiers, one generator per class.
pub mod tasks;
/// Text to tokens and back.
pub mod tokenizer;
/// Sizes of a decoder.
pub mod config;
/// Training of the pocket models.
pub mod train;
