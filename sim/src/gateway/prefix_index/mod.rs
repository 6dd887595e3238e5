//! Which replica has how much of a prompt, as far as the gateway knows. Two sources, one shape:
//! places in the tree of prefixes are named by a fold over extents, and each place lists the
//! replicas that hold tokens of it, so that one walk over a request's extents finds the match
//! of every replica at once. Work per request is proportional to its extents and to the
//! replicas that match, never to its blocks.

/// A request's way down the tree of prefixes.
pub(super) mod walk;
/// What the gateway itself routed: approximate, because a replica may have forgotten it.
pub mod routed;
/// What replicas report: precise, but late.
pub mod reported;

pub use crate::view::Found;
pub use reported::{DelayedCacheView, ReportedIndex};
pub use routed::{RoutedIndex, RoutedLimits};
