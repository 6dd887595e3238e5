//! Consistent hashing (Karger and others 1997): nodes own points on a ring, and a key belongs
//! to the node of the first point at or after its hash.

use windtunnel_base::rng::mix64;

/// A ring of hash points.
#[derive(Clone, Debug)]
pub struct HashRing {
    salt: u64,
    points_per_node: u32,
    nodes: u32,
    /// Sorted by hash, then node.
    points: Vec<(u64, u32)>,
}

impl HashRing {
    /// The ring of nodes `0..nodes` with `points_per_node` points each (virtual nodes; at least
    /// one). Rings of different salts are independent.
    pub fn new(nodes: u32, points_per_node: u32, salt: u64) -> Self {
        let mut ring = Self {
            salt,
            points_per_node: points_per_node.max(1),
            nodes: 0,
            points: Vec::new(),
        };
        ring.grow(nodes);
        ring
    }

    /// Adds nodes until there are `nodes`. Points of earlier nodes stay where they are.
    pub fn grow(&mut self, nodes: u32) {
        for node in self.nodes..nodes {
            for point in 0..self.points_per_node {
                // Two bijective mixes: no two points of a ring share an input.
                let word = (u64::from(node) << 32) | u64::from(point);
                self.points.push((mix64(mix64(self.salt) ^ word), node));
            }
        }
        self.nodes = self.nodes.max(nodes);
        self.points.sort_unstable();
    }

    /// How many nodes there are.
    pub const fn nodes(&self) -> u32 {
        self.nodes
    }

    /// The nodes of the points clockwise from a hash, once around; nodes recur.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let first = self.points.partition_point(|&(point, _)| point < hash);
        let (before, after) = self.points.split_at(first);
        after.iter().chain(before).map(|&(_, node)| node)
    }

    /// The node that owns a hash, if there is any.
    pub fn owner(&self, hash: u64) -> Option<u32> {
        self.walk(hash).next()
    }

    /// The first node clockwise from a hash that `fits`, and how many points were passed over.
    pub fn first_fit(&self, hash: u64, mut fits: impl FnMut(u32) -> bool) -> Option<(u32, u32)> {
        self.walk(hash)
            .enumerate()
            .find(|&(_, node)| fits(node))
            .map(|(hops, node)| (node, hops as u32))
    }
}

/// The most that a node may have under bounded loads when one more request comes:
/// `ceil((1 + epsilon) * (in all + 1) / nodes)` (Mirrokni, Thorup and Zadimoghaddam 2018).
pub fn bounded_load(epsilon: f64, total: u64, nodes: u64) -> u64 {
    let fair = (1.0 + epsilon.max(0.0)) * (total + 1) as f64 / nodes.max(1) as f64;
    // What is whole up to rounding is whole: 1.1 * 10 / 11 must not become 2.
    let whole = libm::round(fair);
    if (fair - whole).abs() <= fair * 4.0 * f64::EPSILON {
        whole as u64
    } else {
        libm::ceil(fair) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The owner of a hash among nodes that are there: of all their points the first at or after it.
    fn naive(ring: &HashRing, there: &BTreeSet<u32>, hash: u64) -> Option<u32> {
        let points = || ring.points.iter().filter(|p| there.contains(&p.1));
        let after = points().filter(|p| p.0 >= hash).min();
        after.or_else(|| points().min()).map(|p| p.1)
    }

    proptest! {
        /// E07: nodes that leave and come back, against a ring of only those that are there. When a node
        /// leaves, its keys move and no others; when it comes back it gets its own keys again.
        #[test]
        fn keys_move_with_their_nodes_and_come_home(
            nodes in 2_u32..10,
            points in 1_u32..30,
            turns in prop::collection::vec(0_u32..10, 1..12),
            keys in prop::collection::vec(any::<u64>(), 1..60),
        ) {
            let ring = HashRing::new(nodes, points, 7);
            let mut there: BTreeSet<u32> = (0..nodes).collect();
            let owner = |there: &BTreeSet<u32>, key: u64| {
                ring.first_fit(key, |node| there.contains(&node)).map(|(node, _)| node)
            };
            for node in turns.into_iter().map(|t| t % nodes) {
                let before = there.clone();
                if !there.remove(&node) {
                    there.insert(node);
                }
                for &key in &keys {
                    let (was, is) = (owner(&before, key), owner(&there, key));
                    prop_assert_eq!(is, naive(&ring, &there, key));
                    // From or to the node in question; nothing else changes.
                    prop_assert!(was == is || was == Some(node) || is == Some(node));
                }
            }
            let all: BTreeSet<u32> = (0..nodes).collect();
            for &key in &keys {
                prop_assert_eq!(owner(&all, key), ring.owner(key));
            }
        }
    }
}
