//! Hashing and balls in bins, V-L3 to V-L6: the gateway's hash ring and its policies.

use super::naive;
use super::theory;
use super::{Case, CaseError, Check, Param, Point, Sampled};
use rayon::prelude::*;
use windtunnel_scenarios::schema::policies::{LoadSignal, RoutingSpec};
use windtunnel_sim::gateway::experiments::{balls_in_bins, bounded_loads, moved_keys, ring_loads};
use windtunnel_sim::gateway::routing::{HashRing, bounded_load};

const VNODES: Param = Param {
    name: "vnodes",
    default: "100",
    doc: "points of each node on the ring",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-L3",
        title: "consistent hashing: keys on the busiest node over the mean",
        source: "mean of the largest of N gamma variables, of shape 1 / (1/v + N/keys)",
        params: &[
            Param {
                name: "nodes",
                default: "20",
                doc: "nodes, N",
            },
            VNODES,
            Param {
                name: "keys",
                default: "100000",
                doc: "keys",
            },
        ],
        points: &[
            &[("vnodes", "1")],
            &[("vnodes", "10")],
            &[("vnodes", "100")],
            &[("vnodes", "1000")],
        ],
        run: ring_balance,
    },
    Case {
        id: "V-L4",
        title: "consistent hashing with bounded loads: cap, keys that are not on their owner, points passed over",
        source: "Mirrokni, Thorup & Zadimoghaddam 2018; a ring of its own, searched in full",
        params: &[
            Param {
                name: "nodes",
                default: "100",
                doc: "nodes, N",
            },
            VNODES,
            Param {
                name: "keys",
                default: "10000",
                doc: "keys, K",
            },
            Param {
                name: "epsilon",
                default: "0.25",
                doc: "no node gets more than ceil((1 + epsilon) K / N)",
            },
        ],
        points: &[
            &[("vnodes", "1"), ("epsilon", "0.05")],
            &[("vnodes", "1"), ("epsilon", "0.1")],
            &[("vnodes", "1"), ("epsilon", "0.25")],
            &[("vnodes", "1"), ("epsilon", "0.5")],
            &[("vnodes", "1"), ("epsilon", "1")],
            &[("vnodes", "100"), ("epsilon", "0.05")],
            &[("vnodes", "100"), ("epsilon", "0.1")],
            &[("vnodes", "100"), ("epsilon", "0.25")],
            &[("vnodes", "100"), ("epsilon", "0.5")],
            &[("vnodes", "100"), ("epsilon", "1")],
        ],
        run: bounded,
    },
    Case {
        id: "V-L5",
        title: "a node is added: keys that move, on a ring and by hash modulo nodes",
        source: "1 / (N + 1) and N / (N + 1)",
        params: &[
            Param {
                name: "nodes",
                default: "8",
                doc: "nodes before, N",
            },
            VNODES,
        ],
        points: &[&[("nodes", "8")]],
        run: growth,
    },
    Case {
        id: "V-L6",
        title: "balls in bins: largest bin with d choices",
        source: "d = 1: coefficients of powers of cut Poisson series; else a plain array",
        params: &[
            Param {
                name: "bins",
                default: "1000",
                doc: "bins",
            },
            Param {
                name: "balls",
                default: "1000",
                doc: "balls",
            },
            Param {
                name: "choices",
                default: "2",
                doc: "bins looked at per ball, d; 1 is `random`, more are `power_of_two`",
            },
        ],
        points: &[&[("choices", "1")], &[("choices", "2")]],
        run: largest_bin,
    },
];

/// A figure of so many independent rings or throws.
fn over(seeds: std::ops::Range<u64>, one: impl Fn(u64) -> f64 + Sync) -> Sampled {
    Sampled::of(&seeds.into_par_iter().map(&one).collect::<Vec<_>>())
}

/// What a table of the catalogue says at these parameters, as an addition to a check's name.
fn printed(known: Option<f64>) -> String {
    known.map_or_else(String::new, |k| format!(" (catalogue: {k})"))
}

fn ring_balance(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let nodes = point.count("nodes", 2..=10_000)?;
    let vnodes = point.count("vnodes", 1..=10_000)?;
    let keys = point.count("keys", 1..=10_000_000)?;
    if nodes * vnodes > 2_000_000 {
        return Err(point.refuse("vnodes", "more than 2,000,000 points on a ring"));
    }
    if keys < 100 * nodes {
        let least = 100 * nodes;
        return Err(point.refuse("keys", format!("fewer than {least} say little of the ring")));
    }
    // The largest share deviates by about 0.6 / sqrt(v) of itself: rings for an error of 0.3 %,
    // within reason.
    let rings = point
        .length((40_000.0 / vnodes as f64).clamp(50.0, 3_000.0))
        .max(2);
    let peak = over(point.seed..point.seed + rings, |seed| {
        let ring = HashRing::new(nodes as u32, vnodes as u32, seed);
        let peak = ring_loads(&ring, keys, seed).into_iter().max();
        (peak.unwrap_or(0) * nodes) as f64 / keys as f64
    });
    // A node's arcs are gamma variables over their sum, of shape v; its keys scatter around
    // them, which adds N / keys to the squared coefficient of variation.
    let shape = 1.0 / (1.0 / vnodes as f64 + nodes as f64 / keys as f64);
    let known = [(1, 3.43), (10, 1.64), (100, 1.20), (1000, 1.065)];
    let known = known
        .iter()
        .find(|k| k.0 == vnodes && (nodes, keys) == (20, 100_000));
    let name = format!("busiest node over mean{}", printed(known.map(|k| k.1)));
    let expected = theory::largest_gamma(nodes as u32, shape);
    let mut checks = vec![Check::sampled(name, expected, &peak, 0.01)];
    // One ring in three thousand differs from another; the table's means are of 50.
    if let Some(&(_, table)) = known.filter(|k| k.0 > 1) {
        checks.push(Check::sampled(
            "the same, against the table",
            table,
            &peak,
            0.05,
        ));
    }
    Ok(checks)
}

/// The specification's table: epsilon, displaced share and points passed over at one point per
/// node, displaced share at a hundred.
const BOUNDED: [(f64, f64, f64, f64); 5] = [
    (0.05, 0.432, 3.6, 0.044),
    (0.1, 0.396, 2.8, 0.023),
    (0.25, 0.347, 1.4, 0.002),
    (0.5, 0.264, 0.59, 0.0),
    (1.0, 0.148, 0.27, 0.0),
];

fn bounded(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let nodes = point.count("nodes", 1..=2_000)?;
    let vnodes = point.count("vnodes", 1..=1_000)?;
    let keys = point.count("keys", 1..=200_000)?;
    let epsilon = point.number("epsilon", 0.0..=100.0)?;
    if nodes * vnodes > 200_000 {
        return Err(point.refuse("vnodes", "more than 200,000 points on a ring"));
    }
    let rings = point.length((4e6 / keys as f64).clamp(20.0, 400.0)).max(2);
    let seeds = point.seed..point.seed + rings;
    let cap = bounded_load(epsilon, keys - 1, nodes);
    let runs: Vec<_> = seeds
        .clone()
        .into_par_iter()
        .map(|seed| {
            let ring = HashRing::new(nodes as u32, vnodes as u32, seed);
            bounded_loads(&ring, keys, cap, seed)
        })
        .collect();
    let plain: Vec<_> = seeds
        .into_par_iter()
        .map(|seed| naive::bounded_loads(nodes as usize, vnodes as usize, keys, cap, seed))
        .collect();
    let of = |values: Vec<u64>| {
        Sampled::of(
            &values
                .iter()
                .map(|&v| v as f64 / keys as f64)
                .collect::<Vec<_>>(),
        )
    };
    let displaced = of(runs.iter().map(|r| r.displaced).collect());
    let hops = of(runs.iter().map(|r| r.hops).collect());
    let largest = runs.iter().flat_map(|r| r.loads.iter().copied()).max();
    let placed: u64 = runs.iter().map(|r| r.loads.iter().sum::<u64>()).sum();
    // The cap by its definition; what is whole up to rounding is whole.
    let limit = ((1.0 + epsilon) * keys as f64 / nodes as f64 * (1.0 - 1e-14)).ceil();
    let known = BOUNDED
        .iter()
        .find(|k| k.0 == epsilon && (nodes, keys) == (100, 10_000));
    let share = known.and_then(|k| [(1, k.1), (100, k.3)].into_iter().find(|s| s.0 == vnodes));
    let passed = known.filter(|_| vnodes == 1).map(|k| k.2);
    let naive_share = of(plain.iter().map(|p| p.0).collect());
    let naive_hops = of(plain.iter().map(|p| p.1).collect());
    let mut checks = vec![
        Check::at_most(
            "largest load, at most the cap",
            limit,
            largest.unwrap_or(0) as f64,
        ),
        Check::exact("keys placed", (keys * rings) as f64, placed as f64),
        Check::both_sampled(
            format!("share displaced{}", printed(share.map(|s| s.1))),
            &naive_share,
            &displaced,
            0.01,
        ),
        Check::both_sampled(
            format!("points passed over per key{}", printed(passed)),
            &naive_hops,
            &hops,
            0.01,
        ),
    ];
    if let Some((1, table)) = share {
        checks.push(Check::sampled(
            "share displaced, against the table",
            table,
            &displaced,
            0.05,
        ));
    }
    Ok(checks)
}

fn growth(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let nodes = point.count("nodes", 1..=2_000)?;
    let vnodes = point.count("vnodes", 1..=10_000)?;
    if nodes * vnodes > 2_000_000 {
        return Err(point.refuse("vnodes", "more than 2,000,000 points on a ring"));
    }
    let keys = 20_000;
    let rings = point.length(200.0).max(2);
    let moved: Vec<_> = (point.seed..point.seed + rings)
        .into_par_iter()
        .map(|seed| moved_keys(nodes as u32, vnodes as u32, keys, seed))
        .collect();
    let share = |pick: fn(&(u64, u64)) -> u64| {
        Sampled::of(
            &moved
                .iter()
                .map(|m| pick(m) as f64 / keys as f64)
                .collect::<Vec<_>>(),
        )
    };
    let n = nodes as f64;
    let (ring, modulo) = (share(|m| m.0), share(|m| m.1));
    Ok(vec![
        Check::within("share moved, ring", 1.0 / (n + 1.0), ring.mean, 0.01),
        Check::within("share moved, modulo", n / (n + 1.0), modulo.mean, 0.01),
    ])
}

fn largest_bin(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let bins = point.count("bins", 1..=2_000)?;
    let balls = point.count("balls", 1..=2_000)?;
    let choices = point.count("choices", 1..=100)?;
    let spec = if choices == 1 {
        RoutingSpec::Random
    } else {
        RoutingSpec::PowerOfTwo {
            load: LoadSignal::InFlight,
            choices: choices as u32,
        }
    };
    let throws = point.length(4_000.0).max(2);
    let seeds = point.seed..point.seed + throws;
    let largest = over(seeds.clone(), |seed| {
        let loads = balls_in_bins(&spec, bins as u32, balls as u32, seed);
        f64::from(loads.into_iter().max().unwrap_or(0))
    });
    let known = [(1, 5.61), (2, 3.00)];
    let known = known
        .iter()
        .find(|k| k.0 == choices && (bins, balls) == (1_000, 1_000));
    let name = format!("largest bin, mean{}", printed(known.map(|k| k.1)));
    if choices == 1 {
        let exact = theory::largest_of_bins(bins as usize, balls as usize);
        return Ok(vec![Check::sampled(name, exact, &largest, 0.005)]);
    }
    let plain = over(seeds, |seed| {
        f64::from(naive::largest_bin(bins as usize, balls, choices, seed))
    });
    let mut checks = vec![Check::both_sampled(name, &plain, &largest, 0.005)];
    if let Some(&(_, table)) = known {
        checks.push(Check::sampled(
            "the same, against the table",
            table,
            &largest,
            0.02,
        ));
    }
    Ok(checks)
}
