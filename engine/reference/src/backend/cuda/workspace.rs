//! Memory for what a step computes, taken once for a largest step and again only if one is larger.

use super::layout::{SAMPLED, Sizes};
use super::plan::most_bytes;
use windtunnel_cuda::{Buffer, CudaError, Device, Numbers};

/// How large a step may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// New tokens.
    pub(super) rows: usize,
    /// Spans that ask for a token.
    pub(super) asked: usize,
    /// Entries of the list of pages.
    pub(super) pages: usize,
}

impl Room {
    pub(super) fn holds(&self, other: &Self) -> bool {
        self.rows >= other.rows && self.asked >= other.asked && self.pages >= other.pages
    }

    /// Room for both, in powers of two so that it seldom grows.
    pub(super) fn grown(&self, other: &Self) -> Self {
        let larger = |a: usize, b: usize| if b > a { b.next_power_of_two() } else { a };
        Self {
            rows: larger(self.rows, other.rows),
            asked: larger(self.asked, other.asked),
            pages: larger(self.pages, other.pages),
        }
    }
}

/// The buffers.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) room: Room,
    /// Packed tables of a step.
    pub(super) tables: Buffer,
    /// The residual stream, 32-bit.
    pub(super) x: Buffer,
    pub(super) normed: Buffer,
    pub(super) qkv: Buffer,
    /// 16-bit floats.
    pub(super) queries: Buffer,
    pub(super) attended: Buffer,
    pub(super) gate_up: Buffer,
    pub(super) gated: Buffer,
    /// 32-bit.
    pub(super) logits: Buffer,
    pub(super) sampled: Buffer,
    /// Of decodes that are split: outputs and sums of each block.
    pub(super) partial: Buffer,
    pub(super) sums: Buffer,
}

/// Sizes of the buffers, in their order.
fn sizes_of(sizes: &Sizes, numbers: Numbers, room: &Room, blocks: usize) -> [usize; 12] {
    let (r, e) = (room.rows, numbers.bytes());
    let states = r.max(room.asked) * sizes.hidden;
    [
        most_bytes(r, room.pages),
        4 * r * sizes.hidden,
        e * states,
        e * r * sizes.qkv_width(),
        2 * r * sizes.query_width(),
        e * r * sizes.query_width(),
        e * r * 2 * sizes.ffn,
        e * r * sizes.ffn,
        4 * room.asked * sizes.vocab,
        SAMPLED * room.asked,
        4 * blocks * sizes.group() * sizes.dim,
        8 * blocks * sizes.group(),
    ]
}

/// Bytes of all of them.
pub(super) fn bytes(sizes: &Sizes, numbers: Numbers, room: &Room, blocks: usize) -> usize {
    sizes_of(sizes, numbers, room, blocks).iter().sum()
}

impl Workspace {
    pub(super) fn new(
        device: &Device,
        sizes: &Sizes,
        numbers: Numbers,
        room: Room,
        blocks: usize,
    ) -> Result<Self, CudaError> {
        let [
            tables,
            x,
            normed,
            qkv,
            queries,
            attended,
            gate_up,
            gated,
            logits,
            sampled,
            partial,
            sums,
        ] = sizes_of(sizes, numbers, &room, blocks);
        let take = |bytes| device.allocate(bytes);
        Ok(Self {
            room,
            tables: take(tables)?,
            x: take(x)?,
            normed: take(normed)?,
            qkv: take(qkv)?,
            queries: take(queries)?,
            attended: take(attended)?,
            gate_up: take(gate_up)?,
            gated: take(gated)?,
            logits: take(logits)?,
            sampled: take(sampled)?,
            partial: take(partial)?,
            sums: take(sums)?,
        })
    }
}
