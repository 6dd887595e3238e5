//! Keys and values as bytes: formats, and the pages they lie in.

/// Eight-bit floats: four bits of exponent, three of mantissa.
pub mod e4m3;
/// Formats of a page, and what is lost in them.
pub mod format;
/// The pages of one device, in memory of the host.
pub mod pages;
