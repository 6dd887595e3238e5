//! Reference formulas. These are what the simulator is compared with; nothing here runs in it.

use statrs::distribution::{Continuous, ContinuousCDF, Normal};
use statrs::function::gamma::{gamma_lr, ln_gamma};

/// Erlang B: share of arrivals lost at `servers` without waiting room, offered load `a` in Erlang.
pub fn erlang_b(servers: u32, a: f64) -> f64 {
    (1..=servers).fold(1.0, |b, k| a * b / (f64::from(k) + a * b))
}

/// Erlang C: probability of waiting at `servers` with endless room, offered load `a < servers`.
pub fn erlang_c(servers: u32, a: f64) -> f64 {
    let (b, c) = (erlang_b(servers, a), f64::from(servers));
    c * b / (c - a * (1.0 - b))
}

/// Pollaczek-Khinchine: mean wait in M/G/1 with mean service 1 and squared coefficient of variation
/// `cs2`, in mean service times.
pub fn pollaczek_khinchine(rho: f64, cs2: f64) -> f64 {
    rho * (1.0 + cs2) / (2.0 * (1.0 - rho))
}

/// M/M/1/K: probability that an arrival finds the system full.
pub fn mm1k_blocking(rho: f64, k: u32) -> f64 {
    if (rho - 1.0).abs() < 1e-12 {
        return 1.0 / f64::from(k + 1);
    }
    (1.0 - rho) * rho.powi(k as i32) / (1.0 - rho.powi(k as i32 + 1))
}

/// Cobham: mean waits of two non-preemptive classes, from their loads and the mean residual work `r`.
pub fn cobham(rho1: f64, rho2: f64, r: f64) -> (f64, f64) {
    let rho = rho1 + rho2;
    (r / (1.0 - rho1), r / ((1.0 - rho1) * (1.0 - rho)))
}

/// Halfin and Whitt 1981: probability of waiting with `R + beta sqrt(R)` servers, many of them.
pub fn halfin_whitt(beta: f64) -> f64 {
    let normal = Normal::standard();
    1.0 / (1.0 + beta * normal.cdf(beta) / normal.pdf(beta))
}

/// Harmonic number: mean of the largest of `n` unit exponentials.
pub fn harmonic(n: u32) -> f64 {
    (1..=n).map(|k| 1.0 / f64::from(k)).sum()
}

/// Mean of the largest of `n` unit exponentials that all lie in the same of `buckets` equally likely
/// stretches, over the stretches: with `v` uniform, the largest is the quantile of
/// `(bucket + v^(1/n)) / buckets`.
pub fn largest_in_bucket(n: u32, buckets: u32) -> f64 {
    const STEPS: u32 = 100_000;
    let of = |bucket: u32| -> f64 {
        let at = |i: u32| {
            let v = (f64::from(i) + 0.5) / f64::from(STEPS);
            let share = (f64::from(bucket) + v.powf(1.0 / f64::from(n))) / f64::from(buckets);
            -(-share).ln_1p()
        };
        (0..STEPS).map(at).sum::<f64>() / f64::from(STEPS)
    };
    (0..buckets).map(of).sum::<f64>() / f64::from(buckets)
}

/// Mean of the largest of `n` lognormals with this `sigma`, over their mean:
/// `integral of 1 - F(x)^n dx / mean`, by Simpson's rule on the scale of the normal deviate.
pub fn largest_lognormal(n: u32, sigma: f64) -> f64 {
    // With x = exp(sigma z): E[max] = integral of exp(sigma z) d(Phi(z)^n).
    let normal = Normal::standard();
    let density = |z: f64| {
        (sigma * z).exp() * f64::from(n) * normal.cdf(z).powi(n as i32 - 1) * normal.pdf(z)
    };
    let (from, to, steps) = (-12.0, 12.0 + 2.0 * sigma, 20_000_usize);
    let h = (to - from) / steps as f64;
    let sum: f64 = (0..=steps)
        .map(|i| {
            let weight = if i == 0 || i == steps {
                1.0
            } else if i % 2 == 1 {
                4.0
            } else {
                2.0
            };
            weight * density(from + i as f64 * h)
        })
        .sum();
    sum * h / 3.0 / (sigma * sigma / 2.0).exp()
}

/// Mean of the largest of `n` independent gamma variables of this shape and mean one: the largest
/// arc share of `n` nodes with `shape` random points each on a ring, over the mean share. (Arcs are
/// gamma variables over their sum, and the sum is independent of the shares.)
pub fn largest_gamma(n: u32, shape: f64) -> f64 {
    // E[max] = integral of 1 - F(x)^n, by Simpson's rule up to where nothing is left.
    let deviation = 1.0 / shape.sqrt();
    let (to, steps) = (1.0 + 15.0 * deviation + 40.0 / shape, 20_000_usize);
    let h = to / steps as f64;
    let above = |x: f64| {
        let below = if x > 0.0 {
            gamma_lr(shape, shape * x)
        } else {
            0.0
        };
        1.0 - below.powi(n as i32)
    };
    let weight = |i: usize| match i {
        0 => 1.0,
        _ if i == steps => 1.0,
        _ if i % 2 == 1 => 4.0,
        _ => 2.0,
    };
    (0..=steps)
        .map(|i| weight(i) * above(i as f64 * h))
        .sum::<f64>()
        * h
        / 3.0
}

/// Mean of the fullest of `bins` after `balls` balls, each in a bin drawn at random. Loads are
/// independent Poisson variables given their sum, so `P(max <= k)` is the probability that `bins`
/// Poisson variables, each cut at `k`, sum to `balls`, over that without the cut.
pub fn largest_of_bins(bins: usize, balls: usize) -> f64 {
    let mean = balls as f64 / bins as f64;
    let poisson = |rate: f64, k: usize| {
        let k = k as f64;
        (k * rate.ln() - rate - ln_gamma(k + 1.0)).exp()
    };
    let all = poisson(balls as f64, balls);
    let mut expected = 0.0;
    // E[max] = sum of P(max > k).
    for k in 0..balls {
        let mut one = vec![0.0; balls + 1];
        (0..=k).for_each(|j| one[j] = poisson(mean, j));
        let above = 1.0 - power(&one, bins)[balls] / all;
        expected += above.clamp(0.0, 1.0);
        if above < 1e-12 {
            break;
        }
    }
    expected
}

/// A polynomial to a power, up to its own number of coefficients.
fn power(polynomial: &[f64], mut exponent: usize) -> Vec<f64> {
    let times = |a: &[f64], b: &[f64]| {
        let mut product = vec![0.0; a.len()];
        for (i, x) in a.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            for (sum, y) in product[i..].iter_mut().zip(b) {
                *sum += x * y;
            }
        }
        product
    };
    let mut result = vec![0.0; polynomial.len()];
    result[0] = 1.0;
    let mut square = polynomial.to_vec();
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = times(&result, &square);
        }
        exponent /= 2;
        if exponent > 0 {
            square = times(&square, &square);
        }
    }
    result
}

/// Zipf probabilities over `n` items.
pub fn zipf(n: usize, alpha: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=n).map(|i| (i as f64).powf(-alpha)).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

/// Solves `f(t) = target` for an increasing `f` by bisection on a logarithmic scale.
fn solve(f: impl Fn(f64) -> f64, target: f64) -> f64 {
    let (mut low, mut high) = (1e-9_f64, 1e15_f64);
    for _ in 0..200 {
        let middle = (low * high).sqrt();
        if f(middle) < target {
            low = middle
        } else {
            high = middle
        }
    }
    (low * high).sqrt()
}

/// Che, Tung and Wang 2002: references until LRU forgets what is not asked for again.
pub fn che_time(p: &[f64], capacity: f64) -> f64 {
    solve(|t| p.iter().map(|&q| 1.0 - (-q * t).exp()).sum(), capacity)
}

/// Che, Tung and Wang 2002: hit ratio of LRU under independent references.
pub fn che_lru(p: &[f64], capacity: f64) -> f64 {
    let t = che_time(p, capacity);
    p.iter().map(|&q| q * (1.0 - (-q * t).exp())).sum()
}

/// The same for FIFO and random replacement (Fricker, Robert and Roberts 2012).
pub fn che_fifo(p: &[f64], capacity: f64) -> f64 {
    let t = solve(|t| p.iter().map(|&q| q * t / (1.0 + q * t)).sum(), capacity);
    p.iter().map(|&q| q * q * t / (1.0 + q * t)).sum()
}

/// Supermarket model: mean time in system with `d` choices at load `rho`, mean service 1, endless
/// servers (Mitzenmacher 1996; Vvedenskaya, Dobrushin and Karpelevich 1996).
pub fn supermarket(rho: f64, d: u32) -> f64 {
    if d == 1 {
        return 1.0 / (1.0 - rho);
    }
    let d = f64::from(d);
    (1..60)
        .map(|i| rho.powf((d.powi(i) - d) / (d - 1.0)))
        .take_while(|&x| x > 1e-16)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, digits: i32) {
        assert!(
            (a - b).abs() < 0.6 * 10_f64.powi(-digits),
            "{a} against {b}"
        );
    }

    #[test]
    fn formulas_give_the_published_numbers() {
        near(erlang_c(2, 1.6), 0.7111, 4);
        near(erlang_c(100, 95.0), 0.5065, 4);
        near(erlang_b(8, 6.4), 0.1444, 4);
        near(pollaczek_khinchine(0.7, 9.0), 11.667, 3);
        near(mm1k_blocking(0.9, 10), 0.0508, 4);
        near(mm1k_blocking(1.2, 10), 0.1926, 4);
        near(cobham(0.3, 0.5, 0.8).1, 5.7143, 4);
        near(halfin_whitt(1.0), 0.2234, 4);
        near(harmonic(16), 3.381, 3);
        near(largest_lognormal(8, 0.5), 1.887, 2);
        near(largest_lognormal(64, 1.0), 7.064, 1);
        near(che_lru(&zipf(1000, 1.0), 100.0), 0.5765, 4);
        near(che_fifo(&zipf(1000, 0.8), 100.0), 0.3337, 4);
        near(supermarket(0.9, 2), 2.614, 3);
        near(supermarket(0.99, 3), 3.858, 3);
        // The largest of n unit exponentials, and of 20 normals (1.8675 deviations above).
        near(largest_gamma(20, 1.0), harmonic(20), 4);
        near(largest_gamma(20, 1e6), 1.0 + 1.8675e-3, 5);
        // Two balls in two bins meet half of the time.
        near(largest_of_bins(2, 2), 1.5, 9);
        near(largest_of_bins(1, 7), 7.0, 9);
        near(largest_of_bins(1000, 1000), 5.514, 3);
    }
}
