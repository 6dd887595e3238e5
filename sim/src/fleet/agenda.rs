//! When each replica next has something to say. A tree of minima: setting a time is `O(log n)`, the
//! next replica is at the root, ties go to the lower id (and so do not depend on who spoke last),
//! and a replica that changes its mind leaves nothing behind.

use windtunnel_base::ids::ReplicaId;
use windtunnel_base::time::SimTime;

/// The next instant of every replica.
#[derive(Clone, Debug)]
pub(crate) struct Agenda {
    /// A complete binary tree; node `i` is the earlier of `2i` and `2i + 1`, leaves follow from
    /// `leaves` on.
    tree: Vec<SimTime>,
    leaves: usize,
}

impl Agenda {
    /// For so many replicas, none of which has anything to say.
    pub(crate) fn new(replicas: usize) -> Self {
        let leaves = replicas.next_power_of_two();
        Self {
            tree: vec![SimTime::MAX; 2 * leaves],
            leaves,
        }
    }

    /// Sets a replica's next instant; `None` if it is idle.
    #[inline]
    pub(crate) fn set(&mut self, replica: usize, at: Option<SimTime>) {
        let mut node = self.leaves + replica;
        self.tree[node] = at.unwrap_or(SimTime::MAX);
        while node > 1 {
            node /= 2;
            let earlier = self.tree[2 * node].min(self.tree[2 * node + 1]);
            if self.tree[node] == earlier {
                break;
            }
            self.tree[node] = earlier;
        }
    }

    /// A replica's next instant.
    #[cfg(test)]
    pub(crate) fn get(&self, replica: usize) -> Option<SimTime> {
        Some(self.tree[self.leaves + replica]).filter(|&at| at < SimTime::MAX)
    }

    /// The earliest instant of all; [`SimTime::MAX`] if there is none.
    #[inline]
    pub(crate) fn earliest(&self) -> SimTime {
        self.tree[1]
    }

    /// The earliest instant of all.
    #[inline]
    pub(crate) fn next_at(&self) -> Option<SimTime> {
        Some(self.earliest()).filter(|&at| at < SimTime::MAX)
    }

    /// Whose it is.
    #[inline]
    pub(crate) fn next(&self) -> Option<ReplicaId> {
        let at = self.next_at()?;
        let mut node = 1;
        while node < self.leaves {
            node = if self.tree[2 * node] == at {
                2 * node
            } else {
                2 * node + 1
            };
        }
        Some(ReplicaId((node - self.leaves) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list: the earliest time, of the lowest id.
        #[test]
        fn finds_the_earliest_of_the_lowest_id(
            replicas in 1_usize..20,
            changes in prop::collection::vec((0_usize..20, prop::option::of(0_u64..8)), 1..200),
        ) {
            let mut agenda = Agenda::new(replicas);
            let mut naive = vec![None; replicas];
            for (replica, at) in changes {
                let replica = replica % replicas;
                let at = at.map(SimTime::from_nanos);
                agenda.set(replica, at);
                naive[replica] = at;
                let expected = (0..replicas).filter_map(|r| naive[r].map(|at| (at, r))).min();
                prop_assert_eq!(agenda.next_at(), expected.map(|e| e.0));
                prop_assert_eq!(agenda.next(), expected.map(|e| ReplicaId(e.1 as u32)));
                prop_assert_eq!(agenda.get(replica), at);
            }
        }
    }
}
