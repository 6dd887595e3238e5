//! An order of the replicas that is kept, not made anew for every decision: a tree of minima over
//! integer keys, with how many share each minimum, so that the best replica, the number of its
//! equals and any of them by rank are found in the logarithm of the fleet.

use crate::view::{FleetView, News, ReplicaView};

/// Fleets smaller than this are faster looked at whole.
const SMALL: usize = 32;

/// Replicas by ascending key.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    /// A complete binary tree; node `i` is above `2i` and `2i + 1`, and leaves follow from `leaves`
    /// on. Places beyond the last replica have the greatest key and count for none.
    tree: Vec<Node>,
    leaves: usize,
    replicas: usize,
    /// It says what the views said at the last question.
    current: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Node {
    least: u64,
    ties: u32,
}

impl Node {
    const NOBODY: Self = Self {
        least: u64::MAX,
        ties: 0,
    };

    #[inline]
    fn above(a: Self, b: Self) -> Self {
        match a.least.cmp(&b.least) {
            std::cmp::Ordering::Less => a,
            std::cmp::Ordering::Greater => b,
            std::cmp::Ordering::Equal => Self {
                least: a.least,
                ties: a.ties + b.ties,
            },
        }
    }
}

impl Order {
    /// Follows the fleet if that pays, and says whether the order holds for it now. `key` is a
    /// replica's; `same` says that nothing has changed behind the back of the news.
    #[inline]
    pub(super) fn follow(
        &mut self,
        fleet: &FleetView<'_>,
        same: bool,
        key: impl Fn(&ReplicaView) -> u64,
    ) -> bool {
        let News::Only(changed) = fleet.news else {
            self.current = false;
            return false;
        };
        if fleet.replicas.len() < SMALL {
            return false;
        }
        if self.current && same && self.replicas == fleet.replicas.len() {
            for id in changed {
                self.set(id.index(), key(&fleet.replicas[id.index()]));
            }
        } else {
            self.build(fleet.replicas.iter().map(key));
        }
        true
    }

    fn build(&mut self, keys: impl ExactSizeIterator<Item = u64>) {
        self.replicas = keys.len();
        self.leaves = self.replicas.next_power_of_two();
        self.tree.clear();
        self.tree.resize(self.leaves, Node::NOBODY);
        self.tree.extend(keys.map(|least| Node { least, ties: 1 }));
        self.tree.resize(2 * self.leaves, Node::NOBODY);
        for node in (1..self.leaves).rev() {
            self.tree[node] = Node::above(self.tree[2 * node], self.tree[2 * node + 1]);
        }
        self.current = true;
    }

    /// Sets a replica's key, if the order is kept.
    #[inline]
    pub(super) fn set(&mut self, place: usize, key: u64) {
        if !self.current {
            return;
        }
        let mut node = self.leaves + place;
        if self.tree[node].least == key {
            return;
        }
        self.tree[node].least = key;
        while node > 1 {
            node /= 2;
            let above = Node::above(self.tree[2 * node], self.tree[2 * node + 1]);
            if self.tree[node] == above {
                break;
            }
            self.tree[node] = above;
        }
    }

    /// The key of a place.
    #[inline]
    pub(super) fn key(&self, place: usize) -> u64 {
        self.tree[self.leaves + place].least
    }

    /// The least key, and how many have it.
    #[inline]
    pub(super) fn least(&self) -> (u64, usize) {
        let Node { least, ties } = self.tree[1];
        (least, ties as usize)
    }

    /// The place of the `rank`-th of those with the least key, by place.
    #[inline]
    pub(super) fn place_of(&self, rank: usize) -> usize {
        let least = self.tree[1].least;
        let (mut node, mut rank) = (1, rank as u32);
        while node < self.leaves {
            let left = self.tree[2 * node];
            let here = if left.least == least { left.ties } else { 0 };
            node = 2 * node + usize::from(rank >= here);
            rank -= if rank >= here { here } else { 0 };
        }
        node - self.leaves
    }

    /// How many with the least key stand before a place.
    pub(super) fn ties_before(&self, place: usize) -> usize {
        let least = self.tree[1].least;
        let (mut node, mut before) = (self.leaves + place, 0);
        while node > 1 {
            let sibling = self.tree[node ^ 1];
            if node & 1 == 1 && sibling.least == least {
                before += sibling.ties as usize;
            }
            node /= 2;
        }
        before
    }

    /// The `rank`-th place, by place, of a set: those with the least key, and `others` besides,
    /// which are sorted and have other keys.
    pub(super) fn place_among(&self, rank: usize, others: &[u32]) -> usize {
        let mut passed = 0;
        for &other in others {
            let other_rank = self.ties_before(other as usize) + passed;
            match other_rank.cmp(&rank) {
                std::cmp::Ordering::Less => passed += 1,
                std::cmp::Ordering::Equal => return other as usize,
                std::cmp::Ordering::Greater => break,
            }
        }
        self.place_of(rank - passed)
    }
}

/// The requests in flight at all replicas together, kept likewise.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight {
    total: u64,
    /// By place, as of the last question; empty if it does not hold any more.
    seen: Vec<u32>,
}

impl InFlight {
    /// The sum over the fleet.
    pub(super) fn follow(&mut self, fleet: &FleetView<'_>) -> u64 {
        let replicas = fleet.replicas;
        match fleet.news {
            News::Only(changed) if self.seen.len() == replicas.len() => {
                for id in changed {
                    let seen = &mut self.seen[id.index()];
                    let now = replicas[id.index()].in_flight;
                    self.total += u64::from(now);
                    self.total -= u64::from(std::mem::replace(seen, now));
                }
            }
            News::Only(_) => {
                self.seen.clear();
                self.seen.extend(replicas.iter().map(|r| r.in_flight));
                self.total = self.seen.iter().map(|&n| u64::from(n)).sum();
            }
            News::Everything => {
                self.seen.clear();
                self.total = replicas.iter().map(|r| u64::from(r.in_flight)).sum();
            }
        }
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list: the least key, who has it, and who has it before whom.
        #[test]
        fn knows_the_least_and_their_ranks(
            mut keys in prop::collection::vec(0_u64..4, 1..80),
            changes in prop::collection::vec((0_usize..80, 0_u64..4), 0..60),
            others in prop::collection::btree_set(0_u32..80, 0..6),
        ) {
            let mut order = Order::default();
            order.build(keys.iter().copied());
            for (place, key) in changes {
                let place = place % keys.len();
                keys[place] = key;
                order.set(place, key);
            }
            let least = *keys.iter().min().unwrap();
            let of_least: Vec<usize> = (0..keys.len()).filter(|&p| keys[p] == least).collect();
            prop_assert_eq!(order.least(), (least, of_least.len()));
            for (rank, &place) in of_least.iter().enumerate() {
                prop_assert_eq!(order.place_of(rank), place);
            }
            for place in 0..keys.len() {
                let before = of_least.iter().filter(|&&p| p < place).count();
                prop_assert_eq!(order.ties_before(place), before);
            }
            let others: Vec<u32> = others
                .into_iter()
                .filter(|&o| keys.get(o as usize).is_some_and(|&k| k != least))
                .collect();
            let mut both: Vec<usize> = of_least;
            both.extend(others.iter().map(|&o| o as usize));
            both.sort_unstable();
            for (rank, &place) in both.iter().enumerate() {
                prop_assert_eq!(order.place_among(rank, &others), place);
            }
        }
    }
}
