//! A request's way down the tree of prefixes, in whole blocks.

use windtunnel_engine::kv::{ROOT_CHAIN, chain};
use windtunnel_engine::request::RequestView;

/// One stream of a prompt, and the blocks that end in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    /// Its place, named as engines name it.
    pub(crate) place: u64,
    /// Blocks above it.
    pub(crate) start: u32,
    /// One past its last block; more than `start`.
    pub(crate) end: u32,
}

/// Writes the streams of a request that end blocks of `block` tokens, as far as its first
/// `most` blocks go.
pub(crate) fn plan(request: &RequestView<'_>, block: u32, most: u32, steps: &mut Vec<Step>) {
    steps.clear();
    let total = u64::from((request.prompt_tokens / block).min(most));
    let (mut place, mut above, mut tokens, mut start) = (ROOT_CHAIN, 0, 0_u64, 0_u32);
    for extent in request.prefix {
        place = chain(place, above, extent.key);
        above = extent.tokens;
        tokens += u64::from(extent.tokens);
        let end = (tokens / u64::from(block)).min(total);
        if end > u64::from(start) {
            let end = end as u32;
            steps.push(Step { place, start, end });
            start = end;
        }
        if end == total {
            return;
        }
    }
}
