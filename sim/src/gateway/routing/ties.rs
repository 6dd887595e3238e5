//! Who among equals.

use crate::view::PolicyCx;
use windtunnel_base::go_rand::{GoRand, fnv1a};

/// The generator from which BLIS draws among equally good replicas.
#[derive(Clone, Debug)]
pub(super) struct GoTies(GoRand);

impl GoTies {
    /// As BLIS seeds it in a run of this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(GoRand::new((seed ^ fnv1a("router")) as i64))
    }

    /// One of `ties`, drawn only if there are several.
    pub(super) fn nth(&mut self, ties: usize) -> usize {
        if ties > 1 {
            self.0.below(ties as u32) as usize
        } else {
            0
        }
    }
}

/// One of `ties`, from the routing stream, drawn only if there are several.
pub(super) fn nth(cx: &mut PolicyCx<'_>, ties: usize) -> usize {
    if ties > 1 {
        cx.rng.below(ties as u64) as usize
    } else {
        0
    }
}
