//! A tree of extents. A node covers a stretch of one stream at one place, and the whole blocks
//! that end inside it; a stream that was cut is a row of nodes, each the continuation of the one
//! before. Stretches of content that nobody can ask for are nodes outside the tree.

use super::{ROOT_CHAIN, chain};
use rustc_hash::FxHashMap;
use std::ops::{Index, IndexMut};
use windtunnel_base::content::Extent;
use windtunnel_base::rng::mix64;

/// The node before every prompt's first token.
pub(super) const ROOT: u32 = 0;
/// No node.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(super) struct Node {
    /// What comes before; [`NONE`] for a stretch outside the tree.
    pub(super) parent: u32,
    first_child: u32,
    previous_sibling: u32,
    next_sibling: u32,
    /// The child that continues the same stream.
    pub(super) continuation: u32,
    /// Sequences whose path goes through here.
    pub(super) refs: u32,
    /// Tokens of the prompt before this node.
    pub(super) start: u32,
    /// Tokens covered.
    pub(super) tokens: u32,
    /// Tokens of the same stream before this node.
    pub(super) offset: u32,
    /// Whole blocks that end in this node.
    pub(super) blocks: u64,
    key: u64,
    /// Names the stream and its place; see [`chain`].
    pub(super) chain: u64,
    /// Never idle so far: still wholly the work of the sequence that computes it.
    pub(super) fresh: bool,
}

impl Node {
    pub(super) const fn end(&self) -> u32 {
        self.start + self.tokens
    }

    pub(super) const fn is_leaf(&self) -> bool {
        self.first_child == NONE
    }

    /// Identifies the content for good, whoever holds it in whatever slot.
    pub(super) const fn name(&self) -> u64 {
        mix64(self.chain ^ self.offset as u64)
    }
}

#[derive(Clone, Debug)]
pub(super) struct PrefixTree {
    nodes: Vec<Node>,
    vacant: Vec<u32>,
    /// First node of each stream by what it follows.
    streams: FxHashMap<(u32, u64), u32>,
    block_size: u32,
    stretches: u64,
    changes: Option<Vec<(u64, u32)>>,
}

impl Index<u32> for PrefixTree {
    type Output = Node;
    #[inline]
    fn index(&self, slot: u32) -> &Node {
        &self.nodes[slot as usize]
    }
}

impl IndexMut<u32> for PrefixTree {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Node {
        &mut self.nodes[slot as usize]
    }
}

const VACANT: Node = Node {
    parent: NONE,
    first_child: NONE,
    previous_sibling: NONE,
    next_sibling: NONE,
    continuation: NONE,
    refs: 0,
    start: 0,
    tokens: 0,
    offset: 0,
    blocks: 0,
    key: 0,
    chain: ROOT_CHAIN,
    fresh: true,
};

impl PrefixTree {
    pub(super) fn new(block_size: u32) -> Self {
        Self {
            nodes: vec![VACANT],
            vacant: Vec::new(),
            streams: FxHashMap::default(),
            block_size,
            stretches: 0,
            changes: None,
        }
    }

    // --- finding -------------------------------------------------------------------------

    /// How far the tree follows a prompt, but no further than `most` tokens, and the deepest
    /// node on the way; the match may end inside it.
    pub(super) fn descend(&self, prefix: &[Extent], most: u32) -> (u32, u32) {
        let (mut node, mut matched) = (ROOT, 0_u32);
        for extent in prefix {
            let mut left = extent.tokens;
            let mut next = self.stream(node, extent.key);
            while left > 0 {
                if next == NONE || matched >= most {
                    return (node, matched.min(most));
                }
                node = next;
                let covered = self[node].tokens;
                if covered > left {
                    return (node, matched.saturating_add(left).min(most));
                }
                matched = matched.saturating_add(covered);
                left -= covered;
                next = self[node].continuation;
            }
        }
        (node, matched.min(most))
    }

    /// The first node of a stream that begins where `parent` ends, or [`NONE`].
    pub(super) fn stream(&self, parent: u32, key: u64) -> u32 {
        self.streams.get(&(parent, key)).copied().unwrap_or(NONE)
    }

    /// Some leaf at or below a node.
    pub(super) fn leaf_below(&self, mut slot: u32) -> u32 {
        while !self[slot].is_leaf() {
            slot = self[slot].first_child;
        }
        slot
    }

    const fn blocks_between(&self, start: u32, end: u32) -> u64 {
        (end / self.block_size - start / self.block_size) as u64
    }

    // --- changing ------------------------------------------------------------------------

    /// Adds a node held by one sequence: the first part of stream `key` after `parent` if
    /// `offset` is zero, else the continuation of `parent`.
    pub(super) fn add(&mut self, parent: u32, key: u64, offset: u32, tokens: u32) -> u32 {
        let start = self[parent].end();
        let above = &self[parent];
        let name = if offset == 0 {
            chain(above.chain, above.offset + above.tokens, key)
        } else {
            debug_assert!(above.key == key && above.offset + above.tokens == offset);
            above.chain
        };
        let slot = self.occupy(Node {
            parent,
            refs: 1,
            start,
            tokens,
            offset,
            blocks: self.blocks_between(start, start + tokens),
            key,
            chain: name,
            ..VACANT
        });
        self.link(parent, slot);
        if offset == 0 {
            self.streams.insert((parent, key), slot);
        } else {
            self[parent].continuation = slot;
        }
        self.note(name, offset + tokens);
        slot
    }

    /// Adds content that nobody can ask for.
    pub(super) fn add_stretch(&mut self, blocks: u64) -> u32 {
        self.stretches += 1;
        let name = self.stretches;
        self.occupy(Node {
            blocks,
            chain: mix64(!name),
            ..VACANT
        })
    }

    /// Lengthens a leaf; returns the blocks it gained.
    pub(super) fn grow(&mut self, slot: u32, tokens: u32) -> u64 {
        debug_assert!(self[slot].is_leaf(), "what follows a node cannot move");
        let end = self[slot].end();
        let gained = self.blocks_between(end, end + tokens);
        let node = &mut self[slot];
        node.tokens += tokens;
        node.blocks += gained;
        let (name, resident) = (node.chain, node.offset + node.tokens);
        self.note(name, resident);
        gained
    }

    /// Cuts a node after `keep` tokens. The first part gets a new slot, which is returned; the
    /// rest keeps the slot, all that follows, and those who hold it. Both count their holders.
    pub(super) fn split(&mut self, slot: u32, keep: u32) -> u32 {
        debug_assert!(keep > 0 && keep < self[slot].tokens);
        let whole = self[slot].clone();
        let upper = self.occupy(Node {
            parent: whole.parent,
            refs: whole.refs,
            start: whole.start,
            tokens: keep,
            offset: whole.offset,
            blocks: self.blocks_between(whole.start, whole.start + keep),
            key: whole.key,
            chain: whole.chain,
            fresh: whole.fresh,
            ..VACANT
        });
        self.unlink(slot);
        self.link(whole.parent, upper);
        if whole.offset == 0 {
            self.streams.insert((whole.parent, whole.key), upper);
        } else {
            self[whole.parent].continuation = upper;
        }
        let moved = self[upper].blocks;
        let lower = &mut self[slot];
        lower.parent = upper;
        lower.start += keep;
        lower.tokens -= keep;
        lower.offset += keep;
        lower.blocks -= moved;
        self.link(upper, slot);
        self[upper].continuation = slot;
        upper
    }

    /// Takes blocks from the end of a leaf, but not all of them.
    pub(super) fn shorten(&mut self, slot: u32, blocks: u64) {
        let block_size = self.block_size;
        let node = &mut self[slot];
        debug_assert!(node.is_leaf() && blocks > 0 && blocks < node.blocks);
        node.blocks -= blocks;
        if node.parent == NONE {
            return;
        }
        // In blocks from the beginning of the prompt; fits, for it is less than what was there.
        node.tokens = (node.start / block_size + node.blocks as u32) * block_size - node.start;
        let (name, resident) = (node.chain, node.offset + node.tokens);
        self.note(name, resident);
    }

    /// Removes a leaf; returns what it followed.
    pub(super) fn remove(&mut self, slot: u32) -> u32 {
        debug_assert!(self[slot].is_leaf() && self[slot].refs == 0 && slot != ROOT);
        let node = self[slot].clone();
        if node.parent != NONE {
            self.unlink(slot);
            if node.offset == 0 {
                self.streams.remove(&(node.parent, node.key));
            } else {
                self[node.parent].continuation = NONE;
            }
            self.note(node.chain, node.offset);
        }
        self[slot] = VACANT;
        self.vacant.push(slot);
        node.parent
    }

    fn occupy(&mut self, node: Node) -> u32 {
        if let Some(slot) = self.vacant.pop() {
            self[slot] = node;
            return slot;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn link(&mut self, parent: u32, child: u32) {
        let next = std::mem::replace(&mut self[parent].first_child, child);
        self[child].previous_sibling = NONE;
        self[child].next_sibling = next;
        if next != NONE {
            self[next].previous_sibling = child;
        }
    }

    fn unlink(&mut self, child: u32) {
        let node = &self[child];
        let (parent, previous, next) = (node.parent, node.previous_sibling, node.next_sibling);
        match previous {
            NONE => self[parent].first_child = next,
            _ => self[previous].next_sibling = next,
        }
        if next != NONE {
            self[next].previous_sibling = previous;
        }
    }

    // --- telling -------------------------------------------------------------------------

    pub(super) fn record_changes(&mut self, on: bool) {
        self.changes = on.then(Vec::new);
    }

    pub(super) fn changes(&mut self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.changes.iter_mut().flat_map(|c| c.drain(..))
    }

    fn note(&mut self, name: u64, resident: u32) {
        let Some(changes) = &mut self.changes else {
            return;
        };
        match changes.last_mut() {
            // Growing or shrinking block by block is one change to who reads them later.
            Some((last, tokens)) if *last == name => *tokens = resident,
            _ => changes.push((name, resident)),
        }
    }

    // --- checking ------------------------------------------------------------------------

    /// Slots with content, the root not among them, in no meaningful order.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let mut there = vec![true; self.nodes.len()];
        there[ROOT as usize] = false;
        for slot in &self.vacant {
            there[*slot as usize] = false;
        }
        (0..self.nodes.len() as u32).filter(move |slot| there[*slot as usize])
    }

    /// Streams that begin somewhere in the tree.
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }
}
