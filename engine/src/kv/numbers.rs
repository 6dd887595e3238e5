//! Numbers of blocks, for an engine that really stores what is in them. The books count; numbers
//! follow them. Each node of the tree has the numbers of its blocks, each sequence those of all its
//! tokens. What nobody can ask for again keeps no number, so numbers in use are never more than the
//! blocks that the books say are not empty.

/// Which blocks are in use, and for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    free: Vec<u32>,
    /// Nodes and sequences that have each block.
    users: Vec<u32>,
    /// Blocks of each node, by its slot.
    of_node: Vec<Vec<u32>>,
    /// Given out since somebody asked.
    issued: Vec<u32>,
}

impl Numbers {
    pub(super) fn new(blocks: u32) -> Self {
        Self {
            free: (0..blocks).rev().collect(),
            users: vec![0; blocks as usize],
            of_node: Vec::new(),
            issued: Vec::new(),
        }
    }

    /// Blocks in use.
    pub(super) fn in_use(&self) -> u64 {
        (self.users.len() - self.free.len()) as u64
    }

    /// Lengthens a sequence's list to so many blocks.
    pub(super) fn cover(&mut self, table: &mut Vec<u32>, blocks: usize) {
        while table.len() < blocks {
            let block = self.free.pop().expect("the books have counted this block");
            self.users[block as usize] = 1;
            self.issued.push(block);
            table.push(block);
        }
    }

    /// A sequence begins with the blocks of a node.
    pub(super) fn share(&mut self, slot: u32, table: &mut Vec<u32>) {
        for &block in self.of_node.get(slot as usize).into_iter().flatten() {
            self.users[block as usize] += 1;
            table.push(block);
        }
    }

    /// A sequence has its blocks no longer.
    pub(super) fn release(&mut self, table: &mut Vec<u32>) {
        // The end first, so that the beginning is given out first.
        for block in table.drain(..).rev() {
            drop_user(&mut self.users, &mut self.free, block);
        }
    }

    /// A node gets further blocks of a sequence.
    pub(super) fn extend(&mut self, slot: u32, blocks: &[u32]) {
        let slot = slot as usize;
        if slot >= self.of_node.len() {
            self.of_node.resize_with(slot + 1, Vec::new);
        }
        for &block in blocks {
            self.users[block as usize] += 1;
        }
        self.of_node[slot].extend_from_slice(blocks);
    }

    /// A node keeps its first `blocks` blocks only.
    pub(super) fn shorten(&mut self, slot: u32, blocks: usize) {
        if let Some(list) = self.of_node.get_mut(slot as usize) {
            for block in list.drain(blocks.min(list.len())..).rev() {
                drop_user(&mut self.users, &mut self.free, block);
            }
        }
    }

    /// The first `blocks` blocks of a node go to the node above it.
    pub(super) fn split(&mut self, slot: u32, upper: u32, blocks: usize) {
        let last = slot.max(upper) as usize;
        if last >= self.of_node.len() {
            self.of_node.resize_with(last + 1, Vec::new);
        }
        let rest = self.of_node[slot as usize].split_off(blocks);
        let first = std::mem::replace(&mut self.of_node[slot as usize], rest);
        self.of_node[upper as usize] = first;
    }

    /// Blocks of a node.
    pub(super) fn of(&self, slot: u32) -> usize {
        self.of_node.get(slot as usize).map_or(0, Vec::len)
    }

    /// Moves the blocks given out since the last call to `issued`.
    pub(super) fn take_issued(&mut self, issued: &mut Vec<u32>) {
        issued.append(&mut self.issued);
    }
}

fn drop_user(users: &mut [u32], free: &mut Vec<u32>, block: u32) {
    let users = &mut users[block as usize];
    *users -= 1;
    if *users == 0 {
        free.push(block);
    }
}
