//! L3: what is kept of the past, and how exactly. Full pages are stored again in eight bits, but for
//! anchors: pages whose text is critical stay in 16 bits and are never evicted. Pages of finished
//! turns stay as prefixes of later ones until the memory is needed.

use super::{need, share};
use crate::error::ReferenceError;
use crate::kv::format::KvFormat;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Parameters of L3.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceSettings {
    /// Full pages change their format.
    pub quantise: bool,
    /// Pages are kept for turns that begin alike.
    pub prefix: bool,
    /// Share of pages that are anchors, of those with critical text.
    pub anchors: f64,
    /// Share of pages in INT8: those with the most critical text after the anchors, because the error
    /// of INT8 is 12 dB below that of FP8 where numbers share a scale. The rest is FP8.
    pub int8: f64,
}

impl Default for EvidenceSettings {
    fn default() -> Self {
        Self {
            quantise: true,
            prefix: true,
            anchors: 0.05,
            int8: 0.15,
        }
    }
}

impl EvidenceSettings {
    pub(super) fn check(&self) -> Result<(), ReferenceError> {
        share(self.anchors, "evidence.anchors")?;
        share(self.int8, "evidence.int8")?;
        need(
            self.anchors + self.int8 <= 1.0,
            "evidence.int8",
            "anchors and INT8 pages are more than all",
            "let both shares sum to 1 at most",
        )
    }
}

/// Pages by format so far: shares hold over all pages of a store, not per turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Mix {
    /// Anchors, in 16 bits.
    pub anchors: u64,
    /// In INT8.
    pub int8: u64,
    /// In FP8.
    pub fp8: u64,
}

impl Mix {
    /// All pages.
    pub const fn pages(self) -> u64 {
        self.anchors + self.int8 + self.fp8
    }

    /// Mean bits of a stored number, scales aside.
    pub fn bits(self) -> f64 {
        (16 * self.anchors + 8 * (self.int8 + self.fp8)) as f64 / self.pages().max(1) as f64
    }

    /// Formats for pages that have become full together, by how many of their tokens are critical:
    /// the most critical become anchors, and those after them INT8, so many that shares hold
    /// over all pages. A page without a critical token is no anchor.
    pub fn assign(&mut self, critical: &[usize], settings: &EvidenceSettings) -> Vec<KvFormat> {
        let total = (self.pages() + critical.len() as u64) as f64;
        let due = |share: f64, have: u64| ((share * total).round() as u64).saturating_sub(have);
        let mut anchors = due(settings.anchors, self.anchors);
        let mut int8 = due(settings.int8, self.int8);
        let mut order: Vec<usize> = (0..critical.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(critical[i]));
        let mut formats = vec![KvFormat::Fp8; critical.len()];
        for i in order {
            if anchors > 0 && critical[i] > 0 {
                anchors -= 1;
                self.anchors += 1;
                formats[i] = KvFormat::F16;
            } else if int8 > 0 {
                int8 -= 1;
                self.int8 += 1;
                formats[i] = KvFormat::Int8;
            } else {
                self.fp8 += 1;
            }
        }
        formats
    }
}

/// A page kept as part of a prefix.
#[derive(Clone, Debug)]
struct Node {
    page: u32,
    parent: u64,
    tokens: Box<[u32]>,
    anchor: bool,
    holders: usize,
    children: usize,
    used: u64,
}

/// Pages kept for prefixes: a tree, a page per node. A page is found by the page before it and
/// its own tokens, compared in full.
#[derive(Debug, Default)]
pub struct Prefixes {
    nodes: BTreeMap<u64, Node>,
    by_content: BTreeMap<(u64, Box<[u32]>), u64>,
    next: u64,
    clock: u64,
}

/// The root of [`Prefixes`].
const ROOT: u64 = 0;

impl Prefixes {
    /// Pages and nodes of the longest known beginning of `tokens` in whole pages of `size` tokens,
    /// which are then held. At least one token is left to compute.
    pub fn hold(&mut self, tokens: &[u32], size: usize) -> (Vec<u32>, Vec<u64>) {
        self.clock += 1;
        let (mut pages, mut path, mut at) = (Vec::new(), Vec::new(), ROOT);
        let usable = tokens.len().saturating_sub(1) / size * size;
        for chunk in tokens[..usable].chunks_exact(size) {
            let Some(&id) = self.by_content.get(&(at, Box::from(chunk))) else {
                break;
            };
            let Some(node) = self.nodes.get_mut(&id) else {
                break;
            };
            node.holders += 1;
            node.used = self.clock;
            pages.push(node.page);
            path.push(id);
            at = id;
        }
        (pages, path)
    }

    /// Lets go of what `hold` gave.
    pub fn release(&mut self, path: &[u64]) {
        for id in path {
            if let Some(node) = self.nodes.get_mut(id) {
                node.holders -= 1;
            }
        }
    }

    /// Keeps a page after the node `parent` (none: at the beginning). Gives the node, and whether the
    /// page was taken: if another with these tokens is kept already, it is not.
    pub fn keep(
        &mut self,
        parent: Option<u64>,
        tokens: &[u32],
        page: u32,
        anchor: bool,
    ) -> (u64, bool) {
        let parent = parent.unwrap_or(ROOT);
        let key = (parent, Box::from(tokens));
        if let Some(&id) = self.by_content.get(&key) {
            return (id, false);
        }
        self.next += 1;
        let id = self.next;
        if let Some(above) = self.nodes.get_mut(&parent) {
            above.children += 1;
        }
        let node = Node {
            page,
            parent,
            tokens: key.1.clone(),
            anchor,
            holders: 0,
            children: 0,
            used: self.clock,
        };
        self.nodes.insert(id, node);
        self.by_content.insert(key, id);
        (id, true)
    }

    /// Gives up the page that was used least recently, of those that nobody holds, that no other page
    /// follows, and that are no anchor; none if there is none.
    pub fn evict(&mut self) -> Option<u32> {
        let (&id, _) = self
            .nodes
            .iter()
            .filter(|(_, n)| n.holders == 0 && n.children == 0 && !n.anchor)
            .min_by_key(|(id, n)| (n.used, **id))?;
        let node = self.nodes.remove(&id)?;
        self.by_content.remove(&(node.parent, node.tokens));
        if let Some(above) = self.nodes.get_mut(&node.parent) {
            above.children -= 1;
        }
        Some(node.page)
    }

    /// Pages kept, and how many of them are anchors.
    pub fn kept(&self) -> (usize, usize) {
        let anchors = self.nodes.values().filter(|n| n.anchor).count();
        (self.nodes.len(), anchors)
    }

    /// Forgets everything; gives the pages, anchors too.
    pub fn clear(&mut self) -> Vec<u32> {
        self.by_content.clear();
        std::mem::take(&mut self.nodes)
            .into_values()
            .map(|n| n.page)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Rng;

    #[test]
    fn shares_hold_over_all_pages_and_the_most_critical_are_anchors() {
        let settings = EvidenceSettings::default();
        let mut mix = Mix::default();
        let critical: Vec<usize> = (0..20).map(|i| (i * 7) % 20).collect();
        let formats = mix.assign(&critical, &settings);
        assert_eq!((mix.anchors, mix.int8, mix.fp8), (1, 3, 16));
        // V-Q3: 80/15/5 is 8.4 bits.
        assert!((mix.bits() - 8.4).abs() < 1e-12);
        let of = |f| critical.iter().zip(&formats).filter(move |(_, g)| **g == f);
        assert!(of(KvFormat::F16).all(|(c, _)| *c == 19));
        assert!(of(KvFormat::Int8).all(|(c, _)| (16..19).contains(c)));
        // One at a time the same shares are reached.
        let mut rng = Rng::from_seed(1);
        let mut mix = Mix::default();
        for _ in 0..2_000 {
            mix.assign(&[rng.below(5) as usize], &settings);
        }
        assert!(
            mix.anchors.abs_diff(100) <= 1 && mix.int8.abs_diff(300) <= 1,
            "{mix:?}"
        );
        // Nothing critical, no anchor.
        let mut mix = Mix::default();
        mix.assign(&[0; 40], &settings);
        assert_eq!(mix.anchors, 0);
    }

    #[test]
    fn prefixes_are_those_of_a_plain_search_and_anchors_are_never_evicted() {
        let mut rng = Rng::from_seed(5);
        let size = 2;
        for _ in 0..200 {
            let mut prefixes = Prefixes::default();
            // All kept sequences in whole pages, page by page, as a plain list.
            let mut plain: BTreeMap<Vec<u32>, (u32, bool)> = BTreeMap::new();
            let mut page = 0;
            for _ in 0..30 {
                let tokens: Vec<u32> = (0..rng.below(9)).map(|_| rng.below(2) as u32).collect();
                let (pages, path) = prefixes.hold(&tokens, size);
                let usable = tokens.len().saturating_sub(1) / size;
                let want: Vec<u32> = (1..=usable)
                    .map_while(|i| plain.get(&tokens[..i * size]).map(|p| p.0))
                    .collect();
                assert_eq!(pages, want);
                let mut parent = None;
                for i in 0..tokens.len() / size {
                    let chunk = &tokens[i * size..(i + 1) * size];
                    let anchor = rng.chance(0.2);
                    let (id, taken) = prefixes.keep(parent, chunk, page, anchor);
                    let key = tokens[..(i + 1) * size].to_vec();
                    assert_eq!(taken, !plain.contains_key(&key));
                    if taken {
                        plain.insert(key, (page, anchor));
                        page += 1;
                    }
                    parent = Some(id);
                }
                prefixes.release(&path);
                if rng.chance(0.5)
                    && let Some(gone) = prefixes.evict()
                {
                    let key = plain.iter().find(|(_, p)| p.0 == gone).unwrap().0.clone();
                    assert!(!plain[&key].1, "an anchor left");
                    assert!(
                        !plain
                            .keys()
                            .any(|k| k.len() > key.len() && k.starts_with(&key)),
                        "a page left before those after it"
                    );
                    plain.remove(&key);
                }
            }
            while prefixes.evict().is_some() {}
            let (kept, anchors) = prefixes.kept();
            assert_eq!(anchors, plain.values().filter(|p| p.1).count());
            // What is left is anchors and the pages before them.
            assert!(kept >= anchors && (anchors > 0 || kept == 0));
        }
    }
}
