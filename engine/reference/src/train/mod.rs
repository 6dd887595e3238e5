//! Training of the pocket models on tasks that are drawn as they are needed.

/// The decoder as candle can differentiate it.
pub mod model;
/// Batches of tasks.
pub mod data;
/// The loop.
pub mod run;
