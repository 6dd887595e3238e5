//! Training of the pocket models on tasks that are drawn as they are needed.

/// The decoder as candle can differentiate it.
pub mod model;
/// Tasks as sequences to learn from.
pub mod data;
/// Weights in training, and AdamW.
pub mod params;
/// Held-out exact match.
pub mod score;
/// The loop.
pub mod run;
/// Checkpoints and files.
pub mod files;
/// The pocket models, from a seed to files.
pub mod pocket;

#[cfg(test)]
mod tests;
