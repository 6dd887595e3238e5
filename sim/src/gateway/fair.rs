//! Waiting rooms that are fair between tenants: each tenant has a line of its own, and the rule says
//! whose turn it is.
//!
//! *Round robin*: in turn, a request each. *Virtual token counter* (Sheng et al., OSDI 2024): whoever has
//! been served the fewest tokens, prompts counting once and outputs twice, each over the tenant's
//! weight. A tenant that comes back after a while without requests is lifted to the least counter of
//! those who wait, or to that of the last one who left: what it did not ask for is not owed to it. At the
//! gateway prompts count when they are sent to a replica and outputs when they are there, so between
//! two tenants that always wait, service differs by no more than twice what one may have in flight.

use rustc_hash::FxHashMap;
use std::collections::{BTreeSet, VecDeque};
use windtunnel_base::ids::{RequestId, TenantId};

/// Counters are in tokens times this, so that weights divide them without much loss.
const SCALE: u128 = 1 << 20;
/// An output token counts as so many prompt tokens.
const OUTPUT: u128 = 2;

/// Whose turn it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// One request each.
    RoundRobin,
    /// Whoever has been served least.
    VirtualTokenCounter,
}

/// A waiting room with a line per tenant.
#[derive(Clone, Debug)]
pub struct FairRoom {
    rule: Turn,
    lines: Vec<Line>,
    /// Tenants that wait, by turn.
    turns: BTreeSet<(u128, u32)>,
    /// The line of each request that waits.
    waiting: FxHashMap<RequestId, u32>,
    /// The next turn to give, in round robin.
    next_turn: u128,
    /// Counter of the tenant that was the last to leave an empty room.
    last_left: u128,
}

#[derive(Clone, Debug)]
struct Line {
    /// Some of them may have left; those are not in `waiting` any more.
    requests: VecDeque<RequestId>,
    /// Requests that wait.
    len: usize,
    /// Turn, or counter.
    key: u128,
    /// What a token adds to the counter.
    step: u128,
}

impl FairRoom {
    /// An empty room; tenants have these weights, those beyond them 1.
    pub fn new(rule: Turn, weights: &[f64]) -> Self {
        let line = |&weight: &f64| Line::new(weight);
        Self {
            rule,
            lines: weights.iter().map(line).collect(),
            turns: BTreeSet::new(),
            waiting: FxHashMap::default(),
            next_turn: 0,
            last_left: 0,
        }
    }

    /// Lets a request wait.
    pub fn push(&mut self, request: RequestId, tenant: TenantId) {
        let t = tenant.index();
        if t >= self.lines.len() {
            self.lines.resize_with(t + 1, || Line::new(1.0));
        }
        if self.lines[t].len == 0 {
            let least = self.turns.first().map(|&(key, _)| key);
            let line = &mut self.lines[t];
            line.key = match self.rule {
                Turn::RoundRobin => {
                    self.next_turn += 1;
                    self.next_turn
                }
                Turn::VirtualTokenCounter => line.key.max(least.unwrap_or(self.last_left)),
            };
            line.requests.clear();
            self.turns.insert((line.key, tenant.0));
        }
        let line = &mut self.lines[t];
        line.requests.push_back(request);
        line.len += 1;
        self.waiting.insert(request, tenant.0);
    }

    /// Who goes next.
    pub fn peek(&self) -> Option<RequestId> {
        let &(_, tenant) = self.turns.first()?;
        let line = &self.lines[tenant as usize];
        let there = |r: &&RequestId| self.waiting.contains_key(r);
        line.requests.iter().find(there).copied()
    }

    /// Takes who goes next.
    pub fn pop(&mut self) -> Option<RequestId> {
        let request = self.peek()?;
        let &(_, tenant) = self.turns.first()?;
        let line = &mut self.lines[tenant as usize];
        while line.requests.front().is_some_and(|&r| r != request) {
            line.requests.pop_front();
        }
        line.requests.pop_front();
        let before = line.key;
        if self.rule == Turn::RoundRobin {
            self.next_turn += 1;
            line.key = self.next_turn;
        }
        self.leaves(request, tenant, before);
        Some(request)
    }

    /// Takes a request out of turn; `false` if it does not wait here.
    pub fn remove(&mut self, request: RequestId) -> bool {
        let Some(&tenant) = self.waiting.get(&request) else {
            return false;
        };
        let key = self.lines[tenant as usize].key;
        self.leaves(request, tenant, key);
        true
    }

    /// A request is gone from the line of a tenant whose turn was `before`.
    fn leaves(&mut self, request: RequestId, tenant: u32, before: u128) {
        self.waiting.remove(&request);
        let line = &mut self.lines[tenant as usize];
        line.len -= 1;
        self.turns.remove(&(before, tenant));
        if line.len > 0 {
            self.turns.insert((line.key, tenant));
        } else if self.turns.is_empty() {
            self.last_left = line.key;
        }
    }

    /// A tenant was served so many tokens.
    pub fn served(&mut self, tenant: TenantId, prompt: u32, output: u32) {
        if self.rule == Turn::RoundRobin {
            return;
        }
        let t = tenant.index();
        if t >= self.lines.len() {
            self.lines.resize_with(t + 1, || Line::new(1.0));
        }
        let line = &mut self.lines[t];
        let before = line.key;
        line.key += (u128::from(prompt) + OUTPUT * u128::from(output)) * line.step;
        if self.turns.remove(&(before, tenant.0)) {
            self.turns.insert((line.key, tenant.0));
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Line {
    fn new(weight: f64) -> Self {
        // Weights of checked scenarios are more than zero.
        let step = (SCALE as f64 / weight.max(1e-6)).round().max(1.0);
        Self {
            requests: VecDeque::new(),
            len: 0,
            key: 0,
            step: step as u128,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(room: &mut FairRoom) -> Vec<u32> {
        std::iter::from_fn(|| room.pop()).map(|r| r.0).collect()
    }

    fn filled(rule: Turn, weights: &[f64]) -> FairRoom {
        let mut room = FairRoom::new(rule, weights);
        // A sends four before B sends two.
        for (request, tenant) in [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 1)] {
            room.push(RequestId(request), TenantId(tenant));
        }
        room
    }

    #[test]
    fn tenants_take_turns() {
        assert_eq!(
            order(&mut filled(Turn::RoundRobin, &[])),
            [0, 4, 1, 5, 2, 3]
        );
    }

    #[test]
    fn whoever_was_served_least_goes_first() {
        let mut room = filled(Turn::VirtualTokenCounter, &[]);
        let mut went = Vec::new();
        while let Some(request) = room.pop() {
            went.push(request.0);
            let tenant = TenantId(u32::from(request.0 >= 4));
            // B's prompts are three times as long.
            room.served(tenant, if tenant.0 == 0 { 100 } else { 300 }, 0);
        }
        assert_eq!(went, [0, 4, 1, 2, 3, 5]);
        // Outputs count twice, weights divide.
        let mut room = FairRoom::new(Turn::VirtualTokenCounter, &[1.0, 4.0]);
        room.served(TenantId(0), 0, 50);
        room.served(TenantId(1), 399, 0);
        room.push(RequestId(0), TenantId(0));
        room.push(RequestId(1), TenantId(1));
        // B is lifted to A's 100, because A waited when it came: a tie, and the lower id goes first.
        assert_eq!(order(&mut room), [0, 1]);
    }

    #[test]
    fn who_was_away_is_owed_nothing() {
        let mut room = FairRoom::new(Turn::VirtualTokenCounter, &[]);
        for i in 0..10 {
            room.push(RequestId(i), TenantId(0));
            room.pop();
            room.served(TenantId(0), 1_000, 0);
        }
        room.push(RequestId(10), TenantId(0));
        // B was never served, and is lifted to A's counter: from now on they share.
        for i in 11..15 {
            room.push(RequestId(i), TenantId(1));
        }
        room.push(RequestId(15), TenantId(0));
        let mut went = Vec::new();
        while let Some(request) = room.pop() {
            let tenant = u32::from((11..15).contains(&request.0));
            room.served(TenantId(tenant), 1_000, 0);
            went.push(tenant);
        }
        assert_eq!(went, [0, 1, 0, 1, 1, 1]);
    }

    proptest! {
        /// Whatever comes and goes: each request leaves once, those of one tenant in their order, and
        /// nobody who was removed leaves.
        #[test]
        fn nobody_is_lost(
            vtc in any::<bool>(),
            moves in prop::collection::vec((0_u8..5, 0_u32..4, 0_u32..60), 1..200),
        ) {
            let rule = if vtc { Turn::VirtualTokenCounter } else { Turn::RoundRobin };
            let mut room = FairRoom::new(rule, &[1.0, 2.0]);
            let mut lines: Vec<VecDeque<u32>> = vec![VecDeque::new(); 4];
            let mut next = 0;
            for (what, tenant, pick) in moves {
                match what {
                    0 | 1 => {
                        room.push(RequestId(next), TenantId(tenant));
                        lines[tenant as usize].push_back(next);
                        next += 1;
                    }
                    2 => {
                        let (peeked, popped) = (room.peek(), room.pop());
                        prop_assert_eq!(peeked, popped);
                        match popped {
                            None => prop_assert!(lines.iter().all(VecDeque::is_empty)),
                            Some(r) => {
                                let line = lines.iter_mut().find(|l| l.front() == Some(&r.0));
                                prop_assert!(line.is_some(), "{:?} was not first in a line", r);
                                if let Some(line) = line { line.pop_front(); }
                            }
                        }
                    }
                    3 => room.served(TenantId(tenant), pick * 10, pick),
                    _ => {
                        let there = lines.iter_mut().find_map(|l| {
                            let at = l.iter().position(|&r| r == pick)?;
                            l.remove(at)
                        });
                        prop_assert_eq!(room.remove(RequestId(pick)), there.is_some());
                    }
                }
                prop_assert_eq!(room.len(), lines.iter().map(VecDeque::len).sum::<usize>());
            }
        }

        /// Two tenants that always wait are served alike, up to one request of either.
        #[test]
        fn service_is_even(seed in 0_u64..1000) {
            let mut rng = windtunnel_base::rng::Rng::from_seed(seed);
            let mut room = FairRoom::new(Turn::VirtualTokenCounter, &[]);
            let mut served = [0_u64; 2];
            for i in 0..400 {
                room.push(RequestId(i), TenantId(i % 2));
            }
            for _ in 0..300 {
                let Some(request) = room.pop() else { break };
                let tokens = 1 + rng.below(500);
                served[(request.0 % 2) as usize] += tokens;
                room.served(TenantId(request.0 % 2), tokens as u32, 0);
                // Once one of them has no more, there is nothing to share.
                let waiting = [0, 1].map(|t| room.lines[t].len);
                if waiting.contains(&0) { break; }
                prop_assert!(served[0].abs_diff(served[1]) <= 500, "{:?}", served);
            }
        }
    }
}
