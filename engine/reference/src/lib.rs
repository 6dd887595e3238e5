//! The reference engine: a real decoder and the cascade layers, so that what the simulator assumes
//! can be measured.

/// Sizes of a decoder.
pub mod config;
/// What can go wrong.
pub mod error;
/// Weights from files, or from a seed.
pub mod weights;
/// Models by name or folder.
pub mod models;
/// From text to tokens and back.
pub mod tokenizer;
/// Keys and values as bytes.
pub mod kv;
/// From logits to a token.
pub mod sampling;
/// Whole answers, without a scheduler.
pub mod answer;
/// Devices that compute steps.
pub mod backend;
/// Where and when figures were measured.
pub mod machine;
/// Devices that are here.
pub mod devices;
/// What a device can do at best, and how near steps come.
pub mod floor;
/// Step times as a table for the simulator.
pub mod calibrate;
/// Steps of the simulator's engine, executed.
pub mod runtime;
/// Training of the pocket models.
pub mod train;
/// Layers that leave out work, and what they cost in quality.
pub mod cascade;
