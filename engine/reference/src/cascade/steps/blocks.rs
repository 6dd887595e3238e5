//! The blocks of a scheduler, as one model has filled them.

use crate::cascade::lane::{Lane, Sequence};
use crate::error::ReferenceError;

/// What one model has in the blocks of the scheduler.
#[derive(Debug, Default)]
pub(super) struct Blocks(Vec<Block>);

#[derive(Clone, Debug, Default)]
struct Block {
    page: Option<u32>,
    /// Tokens from its beginning that have keys and values.
    filled: usize,
    /// Whether it is an anchor, once its format is settled.
    anchor: Option<bool>,
}

impl Blocks {
    /// Voids the blocks that were given out, and puts a page that can be written to behind each.
    pub(super) fn provide(
        &mut self,
        fresh: &[u32],
        lane: &mut Lane<'_>,
    ) -> Result<(), ReferenceError> {
        for &number in fresh {
            let number = number as usize;
            if number >= self.0.len() {
                self.0.resize(number + 1, Block::default());
            }
            let block = &mut self.0[number];
            block.filled = 0;
            // What was stored again in a smaller format takes no more tokens.
            if let (Some(page), Some(_)) = (block.page, block.anchor.take()) {
                lane.give_back(page);
                block.page = None;
            }
            if block.page.is_none() {
                block.page = Some(lane.take_page()?);
            }
        }
        Ok(())
    }

    /// The past of a sequence as it is in these blocks, of which at most `most` tokens count.
    pub(super) fn read(&self, numbers: &[u32], size: usize, most: usize, sequence: &mut Sequence) {
        let blocks = || numbers.iter().filter_map(|&n| self.0.get(n as usize));
        sequence.pages.clear();
        sequence.pages.extend(blocks().filter_map(|b| b.page));
        sequence.anchors.clear();
        sequence.anchors.extend(blocks().map_while(|b| b.anchor));
        let full = blocks().take_while(|b| b.filled == size).count();
        let rest = blocks().nth(full).map_or(0, |b| b.filled);
        sequence.done = (full * size + rest).min(most);
    }

    /// Notes what a sequence has added.
    pub(super) fn write(&mut self, numbers: &[u32], size: usize, sequence: &Sequence) {
        for (i, &number) in numbers.iter().enumerate() {
            let Some(block) = self.0.get_mut(number as usize) else {
                continue;
            };
            // Others may be further.
            let here = sequence.done.saturating_sub(i * size).min(size);
            block.filled = block.filled.max(here);
            block.anchor = block.anchor.or(sequence.anchors.get(i).copied());
        }
    }

    /// Gives all pages back: nobody reads what is stored any more.
    pub(super) fn clear(&mut self, lane: &mut Lane<'_>) {
        for block in self.0.drain(..) {
            if let Some(page) = block.page {
                lane.give_back(page);
            }
        }
    }
}
