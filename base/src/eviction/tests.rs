//! Every policy against a model of a few lines, as a cache of unit objects without use that
//! lasts; and what holds of all policies when use lasts.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A cache of at most `capacity` names over a policy. Returns what each reference evicted.
fn evictions(kind: EvictionKind, capacity: usize, references: &[u64]) -> Vec<Option<u64>> {
    let mut policy = Policy::new(kind);
    let mut slots: BTreeMap<u64, u32> = BTreeMap::new();
    let mut names: Vec<u64> = Vec::new();
    let mut vacant: Vec<u32> = Vec::new();
    let mut evicted = Vec::new();
    for name in references {
        let mut victim = None;
        if let Some(slot) = slots.get(name) {
            policy.reuse(*slot);
            policy.insert(*slot, *name);
        } else {
            if slots.len() == capacity {
                let slot = policy.evict().expect("the cache is full");
                victim = Some(names[slot as usize]);
                slots.remove(&names[slot as usize]);
                vacant.push(slot);
            }
            let slot = vacant.pop().unwrap_or(names.len() as u32);
            if slot as usize == names.len() {
                names.push(0);
            }
            names[slot as usize] = *name;
            slots.insert(*name, slot);
            policy.insert(slot, *name);
        }
        assert_eq!(policy.len(), slots.len());
        evicted.push(victim);
    }
    evicted
}

// --- models ------------------------------------------------------------------------------

/// A model: all it knows is a list of names, oldest first, with a count each.
#[derive(Default)]
struct Model {
    list: Vec<(u64, u32)>,
    main: Vec<(u64, u32)>,
    ghost: VecDeque<u64>,
    hand: usize,
}

impl Model {
    fn run(kind: EvictionKind, capacity: usize, references: &[u64]) -> Vec<Option<u64>> {
        let mut model = Self::default();
        let step = |name: &u64| model.reference(kind, capacity, *name);
        references.iter().map(step).collect()
    }

    fn reference(&mut self, kind: EvictionKind, capacity: usize, name: u64) -> Option<u64> {
        let queues = self.list.iter_mut().chain(&mut self.main);
        if let Some((_, count)) = queues.into_iter().find(|(n, _)| *n == name) {
            *count += 1;
            if matches!(kind, EvictionKind::Lru | EvictionKind::Lfu) {
                let at = self
                    .list
                    .iter()
                    .position(|(n, _)| *n == name)
                    .expect("there");
                let entry = self.list.remove(at);
                self.list.push(entry);
            }
            return None;
        }
        let full = self.list.len() + self.main.len() == capacity;
        let victim = full.then(|| match kind {
            EvictionKind::Lru | EvictionKind::Fifo => self.list.remove(0).0,
            EvictionKind::Lfu => self.least_hits(),
            EvictionKind::Sieve => self.sieve(),
            EvictionKind::S3fifo => self.s3(),
        });
        if let Some(at) = self.ghost.iter().position(|n| *n == name) {
            self.ghost.remove(at);
            self.main.push((name, 0));
        } else {
            self.list.push((name, 0));
        }
        victim
    }

    fn least_hits(&mut self) -> u64 {
        let least = self.list.iter().map(|(_, c)| *c).min().expect("full");
        let at = self.list.iter().position(|(_, c)| *c == least).expect("it");
        self.list.remove(at).0
    }

    fn sieve(&mut self) -> u64 {
        while self.list[self.hand % self.list.len()].1 > 0 {
            self.hand %= self.list.len();
            self.list[self.hand].1 = 0;
            self.hand += 1;
        }
        self.hand %= self.list.len();
        let victim = self.list.remove(self.hand).0;
        // Past the newest the hand begins again with the oldest, whatever comes meanwhile.
        self.hand %= self.list.len().max(1);
        victim
    }

    fn s3(&mut self) -> u64 {
        if self.list.len() * 10 >= self.list.len() + self.main.len() {
            while !self.list.is_empty() {
                let (name, count) = self.list.remove(0);
                if count > 1 {
                    self.main.push((name, 0));
                    continue;
                }
                self.ghost.push_back(name);
                while self.ghost.len() > self.main.len().max(1) {
                    self.ghost.pop_front();
                }
                return name;
            }
        }
        loop {
            let (name, count) = self.main.remove(0);
            match count.min(3) {
                0 => return name,
                more => self.main.push((name, more - 1)),
            }
        }
    }
}

fn kinds() -> impl Strategy<Value = EvictionKind> {
    prop_oneof![
        Just(EvictionKind::Lru),
        Just(EvictionKind::Fifo),
        Just(EvictionKind::Lfu),
        Just(EvictionKind::Sieve),
        Just(EvictionKind::S3fifo),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn each_policy_does_what_its_model_does(
        kind in kinds(),
        capacity in 1_usize..24,
        references in prop::collection::vec((0_u64..8, 0_u64..8), 0..300),
    ) {
        // Sums of two make some names more popular than others.
        let references: Vec<u64> = references.iter().map(|(a, b)| a * 3 + b).collect();
        let found = evictions(kind, capacity, &references);
        prop_assert_eq!(found, Model::run(kind, capacity, &references));
    }

    /// Mattson, Gecsei, Slutz and Traiger (1970): what a smaller LRU cache holds, a larger holds
    /// too, so more memory never costs a hit.
    #[test]
    fn a_larger_lru_includes_a_smaller(
        capacity in 1_usize..12,
        references in prop::collection::vec(0_u64..16, 0..200),
    ) {
        let small = evictions(EvictionKind::Lru, capacity, &references);
        let large = evictions(EvictionKind::Lru, capacity + 1, &references);
        let (mut in_small, mut in_large) = (BTreeSet::new(), BTreeSet::new());
        for ((name, s), l) in references.iter().zip(small).zip(large) {
            in_small.insert(*name);
            in_large.insert(*name);
            s.map(|s| in_small.remove(&s));
            l.map(|l| in_large.remove(&l));
            prop_assert!(in_small.is_subset(&in_large));
        }
    }

    /// With use that lasts, splits and objects that go: nobody in use leaves, everybody idle
    /// does in the end, and nobody else.
    #[test]
    fn only_idle_slots_leave_and_all_of_them_do(
        kind in kinds(),
        ops in prop::collection::vec((0_u8..6, 0_u32..12), 0..200),
    ) {
        let mut policy = Policy::new(kind);
        let (mut idle, mut in_use) = (BTreeSet::new(), BTreeSet::new());
        for (op, slot) in ops {
            let known = idle.contains(&slot) || in_use.contains(&slot);
            match op {
                0 | 1 if !idle.contains(&slot) => {
                    policy.insert(slot, u64::from(slot % 5));
                    in_use.remove(&slot);
                    idle.insert(slot);
                }
                2 => {
                    policy.reuse(slot);
                    idle.remove(&slot);
                    in_use.insert(slot);
                }
                3 => {
                    policy.forget(slot);
                    idle.remove(&slot);
                    in_use.remove(&slot);
                }
                4 if known => {
                    let upper = slot + 12;
                    if !idle.contains(&upper) && !in_use.contains(&upper) {
                        policy.split(slot, upper);
                        in_use.insert(upper);
                    }
                }
                5 => match policy.evict() {
                    Some(victim) => prop_assert!(idle.remove(&victim), "{} left", victim),
                    None => prop_assert!(idle.is_empty()),
                },
                _ => {}
            }
            prop_assert_eq!(policy.len(), idle.len());
        }
        while let Some(victim) = policy.evict() {
            prop_assert!(idle.remove(&victim), "{} left", victim);
        }
        prop_assert!(idle.is_empty());
    }
}
