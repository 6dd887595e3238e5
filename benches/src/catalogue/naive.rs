//! The plainest programs for what the simulator does cleverly, where no formula is known. They
//! share no code with it but the generator of random numbers.

use super::Sampled;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use windtunnel_base::rng::Streams;

/// Bounded loads on a ring of uniformly random points: every key goes clockwise, point by point, to
/// the first node below `cap`. Gives the keys not on the node of their first point, and the points
/// passed over.
pub(super) fn bounded_loads(
    nodes: usize,
    points: usize,
    keys: u64,
    cap: u64,
    seed: u64,
) -> (u64, u64) {
    let mut rng = Streams::new(seed).stream("naive ring", 0);
    let mut ring: Vec<(u64, usize)> = (0..nodes * points)
        .map(|i| (rng.below(u64::MAX), i % nodes))
        .collect();
    ring.sort_unstable();
    let mut loads = vec![0_u64; nodes];
    let (mut displaced, mut passed) = (0, 0);
    for _ in 0..keys {
        let key = rng.below(u64::MAX);
        let first = ring.partition_point(|&(at, _)| at < key) % ring.len();
        let owner = ring[first].1;
        for step in 0..ring.len() {
            let node = ring[(first + step) % ring.len()].1;
            if loads[node] < cap {
                loads[node] += 1;
                passed += step as u64;
                displaced += u64::from(node != owner);
                break;
            }
        }
    }
    (displaced, passed)
}

/// Balls in bins: the fullest of `bins` when each ball goes to the least full of `choices` drawn.
pub(super) fn largest_bin(bins: usize, balls: u64, choices: u64, seed: u64) -> u32 {
    let mut rng = Streams::new(seed).stream("naive bins", 0);
    let mut full = vec![0_u32; bins];
    for _ in 0..balls {
        let drawn = (0..choices).map(|_| rng.below(bins as u64) as usize);
        if let Some(least) = drawn.min_by_key(|&bin| full[bin]) {
            full[least] += 1;
        }
    }
    full.into_iter().max().unwrap_or(0)
}

/// Share of blocks found by an LRU list of `limit` blocks. A prompt finds its blocks up to the
/// first that is missing; all of it is then used, the last block first.
pub(super) fn lru(prompts: &[Vec<u32>], limit: usize) -> f64 {
    let mut used = BTreeMap::new();
    let mut by_use = BTreeMap::new();
    let (mut clock, mut found, mut all) = (0_u64, 0_u64, 0_u64);
    for ids in prompts {
        all += ids.len() as u64;
        found += ids.iter().take_while(|id| used.contains_key(*id)).count() as u64;
        for id in ids.iter().rev() {
            clock += 1;
            if let Some(old) = used.insert(*id, clock) {
                by_use.remove(&old);
            }
            by_use.insert(clock, *id);
        }
        while used.len() > limit {
            if let Some((_, id)) = by_use.pop_first() {
                used.remove(&id);
            }
        }
    }
    found as f64 / all.max(1) as f64
}

/// Hits of an LFU list after the first `warm_up` references: whoever was asked for least often
/// since it came leaves, among equals whoever was not asked for longest.
pub(super) fn lfu(items: impl Iterator<Item = u64>, limit: usize, warm_up: u64) -> u64 {
    let mut held: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut order = BTreeSet::new();
    let mut hits = 0;
    for (clock, item) in (0_u64..).zip(items) {
        let count = match held.remove(&item) {
            Some((count, at)) => {
                order.remove(&(count, at, item));
                hits += u64::from(clock >= warm_up);
                count + 1
            }
            None => 0,
        };
        if held.len() == limit
            && let Some((_, _, least)) = order.pop_first()
        {
            held.remove(&least);
        }
        held.insert(item, (count, clock));
        order.insert((count, clock, item));
    }
    hits
}

/// Servers behind a board that shows how many are at each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Board {
    /// Single servers with unit exponential service.
    pub(super) servers: usize,
    /// Load of each.
    pub(super) rho: f64,
    /// Time between readings; at zero it is looked at live.
    pub(super) period: f64,
}

/// Who is sent to by a board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// The first of the least loaded.
    FirstLeast,
    /// Any of the least loaded.
    AnyLeast,
    /// The least loaded of so many drawn with replacement, the first if they are equal.
    LeastOf(u32),
}

/// Mean time in system of `arrivals` requests behind a board. The first twentieth is left out.
pub(super) fn stale_board(board: &Board, choice: Choice, arrivals: u64, seed: u64) -> f64 {
    let &Board {
        servers,
        rho,
        period,
    } = board;
    let mut rng = Streams::new(seed).stream("naive board", 0);
    let mut coin = Streams::new(seed).stream("naive choice", 0);
    let mut unit = move || -(1.0 - rng.f64()).ln();
    // First come, first served at one server: only the times of departures matter.
    let mut leaves: Vec<VecDeque<f64>> = vec![VecDeque::new(); servers];
    let mut shown = vec![0; servers];
    let (mut now, mut next, mut total) = (0.0, 0.0, 0.0);
    let warm_up = arrivals / 20;
    for i in 0..arrivals {
        now += unit() / (rho * servers as f64);
        if period == 0.0 || now >= next {
            // As of the last reading; nobody came between it and now.
            let read = if period == 0.0 {
                now
            } else {
                (now / period).floor() * period
            };
            for (shown, queue) in shown.iter_mut().zip(&mut leaves) {
                while queue.front().is_some_and(|&end| end <= read) {
                    queue.pop_front();
                }
                *shown = queue.len();
            }
            next = read + period;
        }
        let mut draw = |n: usize| coin.below(n as u64) as usize;
        let to = if let Choice::LeastOf(drawn) = choice {
            let drawn = (0..drawn).map(|_| draw(servers));
            drawn.min_by_key(|&s| shown[s]).unwrap_or(0)
        } else {
            let least = shown.iter().copied().min().unwrap_or(0);
            let mut equals = (0..servers).filter(|&s| shown[s] == least);
            let rank = match choice {
                Choice::AnyLeast => draw(equals.clone().count()),
                _ => 0,
            };
            equals.nth(rank).unwrap_or(0)
        };
        let end = leaves[to].back().copied().unwrap_or(0.0).max(now) + unit();
        leaves[to].push_back(end);
        if i >= warm_up {
            total += end - now;
        }
    }
    total / (arrivals - warm_up) as f64
}

/// Run lengths of a one-sided cumulative sum of log-likelihood ratios of outcomes that are one with probability
/// `p`, from zero to the first sum above `h`: `p0` while all is well, `p1` to be found.
pub(super) fn bernoulli_cusum(
    p: f64,
    (p0, p1): (f64, f64),
    h: f64,
    runs: u64,
    seed: u64,
) -> Sampled {
    let mut rng = Streams::new(seed).stream("plain cusum", 0);
    let lengths: Vec<f64> = (0..runs.max(2))
        .map(|_| {
            let (mut sum, mut n) = (0.0_f64, 0.0);
            while sum <= h {
                let one = rng.chance(p);
                let ratio = if one {
                    p1 / p0
                } else {
                    (1.0 - p1) / (1.0 - p0)
                };
                sum = (sum + ratio.ln()).max(0.0);
                n += 1.0;
            }
            n
        })
        .collect();
    Sampled::of(&lengths)
}
