//! Moments, distribution functions, and fixed draws.

use super::*;
use crate::rng::Rng;

const DRAWS: usize = 200_000;

/// Checks mean and variance of `DRAWS` draws to five standard errors, the variance's from
/// `fourth`, the fourth central moment in units of the squared variance.
fn check_moments(
    what: &str,
    mean: f64,
    variance: f64,
    fourth: f64,
    draw: impl Fn(&mut Rng) -> f64,
) {
    let mut rng = Rng::from_seed(11);
    let n = DRAWS as f64;
    let draws: Vec<f64> = (0..DRAWS).map(|_| draw(&mut rng)).collect();
    let found_mean = draws.iter().sum::<f64>() / n;
    let found_variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let mean_error = (variance / n).sqrt();
    assert!(
        (found_mean - mean).abs() <= 5.0 * mean_error,
        "{what}: mean {found_mean}, not {mean}"
    );
    let variance_error = variance * ((fourth - 1.0) / n).sqrt();
    assert!(
        (found_variance - variance).abs() <= 5.0 * variance_error,
        "{what}: variance {found_variance}, not {variance}"
    );
}

/// Kolmogorov-Smirnov: the largest distance between the two distribution functions exceeds
/// `sqrt(ln(2 / a) / 2n)` with a probability of less than `a`; here a = 1e-6, 2.69 / sqrt(n).
fn check_distribution(what: &str, cdf: impl Fn(f64) -> f64, draw: impl Fn(&mut Rng) -> f64) {
    let mut rng = Rng::from_seed(12);
    let n = DRAWS as f64;
    let mut draws: Vec<f64> = (0..DRAWS).map(|_| draw(&mut rng)).collect();
    draws.sort_by(f64::total_cmp);
    let distance = draws
        .iter()
        .enumerate()
        .map(|(i, x)| {
            let f = cdf(*x);
            (f - i as f64 / n).max((i + 1) as f64 / n - f)
        })
        .fold(0.0, f64::max);
    let critical = 2.69 / n.sqrt();
    assert!(distance <= critical, "{what}: {distance} > {critical}");
}

#[test]
fn exponential() -> Result<(), SampleError> {
    let d = Exponential::new(3.0)?;
    check_moments("exponential", 3.0, 9.0, 9.0, |r| d.sample(r));
    check_distribution("exponential", |x| -libm::expm1(-x / 3.0), |r| d.sample(r));
    assert_eq!((d.mean(), d.variance()), (3.0, 9.0));
    Ok(())
}

#[test]
fn normal() -> Result<(), SampleError> {
    let d = Normal::new(-1.0, 2.0)?;
    check_moments("normal", -1.0, 4.0, 3.0, |r| d.sample(r));
    let cdf = |x: f64| 0.5 * libm::erfc(-(x + 1.0) / 2.0 / 2.0_f64.sqrt());
    check_distribution("normal", cdf, |r| d.sample(r));
    Ok(())
}

#[test]
fn the_normal_quantile_inverts_the_distribution_function() {
    // Through the tails and both sides of every seam (0.075, e^-25). `erfc` is good to 1 ulp
    // and the quantile to 1e-16 of itself, which moves p by about x^2 times as much.
    for p in [
        1e-300, 1e-50, 1e-12, 1.38e-11, 1.39e-11, 1e-6, 0.01, 0.0749, 0.0751, 0.2, 0.5,
    ] {
        let x = normal_quantile(p);
        let back = 0.5 * libm::erfc(-x / 2.0_f64.sqrt());
        let tolerance = (x * x + 4.0) * 4e-16;
        assert!((back / p - 1.0).abs() <= tolerance, "{p}: {x}, {back}");
        if p > 1e-3 {
            assert!((normal_quantile(1.0 - p) + x).abs() < 1e-13, "symmetric");
        }
    }
}

#[test]
fn lognormal() -> Result<(), SampleError> {
    let d = Lognormal::new(5.0, 0.5)?;
    let w = 0.25_f64.exp();
    let fourth = w.powi(4) + 2.0 * w.powi(3) + 3.0 * w.powi(2) - 3.0;
    let variance = 25.0 * (w - 1.0);
    assert!((d.variance() / variance - 1.0).abs() < 1e-12);
    check_moments("lognormal", 5.0, variance, fourth, |r| d.sample(r));
    let mu = 5.0_f64.ln() - 0.125;
    let cdf = |x: f64| 0.5 * libm::erfc(-(x.ln() - mu) / 0.5 / 2.0_f64.sqrt());
    check_distribution("lognormal", cdf, |r| d.sample(r));
    Ok(())
}

#[test]
fn gamma() -> Result<(), SampleError> {
    for shape in [0.05, 0.5, 1.0, 3.0, 40.0] {
        let d = Gamma::with_mean(shape, 2.0)?;
        let variance = 4.0 / shape;
        assert!((d.mean() - 2.0).abs() < 1e-12 && (d.variance() / variance - 1.0).abs() < 1e-12);
        check_moments("gamma", 2.0, variance, 3.0 + 6.0 / shape, |r| d.sample(r));
    }
    // Shape 1/2 is half the square of a normal variable, shape 3 the third event of a Poisson
    // process.
    let half = Gamma::new(0.5, 1.0)?;
    check_distribution("gamma 1/2", |x| libm::erf(x.sqrt()), |r| half.sample(r));
    let three = Gamma::new(3.0, 1.0)?;
    let erlang = |x: f64| 1.0 - (-x).exp() * (1.0 + x + x * x / 2.0);
    check_distribution("gamma 3", erlang, |r| three.sample(r));
    Ok(())
}

#[test]
fn weibull() -> Result<(), SampleError> {
    let d = Weibull::with_mean(0.7, 2.0)?;
    // Moments of a Weibull variable are values of the gamma function.
    let m = |k: f64| libm::tgamma(1.0 + k / 0.7) * (2.0 / libm::tgamma(1.0 + 1.0 / 0.7)).powf(k);
    let variance = m(2.0) - 4.0;
    let fourth = m(4.0) - 8.0 * m(3.0) + 24.0 * m(2.0) - 48.0;
    check_moments("weibull", 2.0, variance, fourth / variance.powi(2), |r| {
        d.sample(r)
    });
    assert!((d.mean() - 2.0).abs() < 1e-12 && (d.variance() / variance - 1.0).abs() < 1e-12);
    let scale = 2.0 / libm::tgamma(1.0 + 1.0 / 0.7);
    let cdf = |x: f64| 1.0 - (-(x / scale).powf(0.7)).exp();
    check_distribution("weibull", cdf, |r| d.sample(r));
    Ok(())
}

#[test]
fn hyperexponential() -> Result<(), SampleError> {
    let d = Hyperexponential::new(2.0, 4.0)?;
    assert!((d.mean() - 2.0).abs() < 1e-12, "each phase brings half");
    assert!((d.variance() - 16.0).abs() < 1e-10, "cv2 * mean^2");
    let p = 0.5 * (1.0 + (3.0_f64 / 5.0).sqrt());
    let (short, long) = (1.0 / p, 1.0 / (1.0 - p));
    let raw = |k: i32, f: f64| f * (p * short.powi(k) + (1.0 - p) * long.powi(k));
    let fourth = raw(4, 24.0) - 8.0 * raw(3, 6.0) + 24.0 * raw(2, 2.0) - 48.0;
    check_moments("hyperexponential", 2.0, 16.0, fourth / 256.0, |r| {
        d.sample(r)
    });
    let cdf = |x: f64| 1.0 - p * (-x / short).exp() - (1.0 - p) * (-x / long).exp();
    check_distribution("hyperexponential", cdf, |r| d.sample(r));
    Ok(())
}

#[test]
fn two_point() -> Result<(), SampleError> {
    let d = TwoPoint::new(1.0, 11.0, 0.1)?;
    assert!((d.mean() - 2.0).abs() < 1e-12 && (d.variance() - 9.0).abs() < 1e-12);
    // Fourth central moment: 0.9 * 1^4 + 0.1 * 9^4 = 657.
    check_moments("two-point", 2.0, 9.0, 657.0 / 81.0, |r| d.sample(r));
    Ok(())
}

/// Pearson's chi-squared of `DRAWS` draws over few items, whose critical values at 1e-6 are
/// those of 9 degrees of freedom (46.9) or fewer.
fn check_counts(what: &str, p: &[f64], draw: impl Fn(&mut Rng) -> usize) {
    let mut rng = Rng::from_seed(13);
    let mut counts = vec![0.0; p.len()];
    for _ in 0..DRAWS {
        counts[draw(&mut rng)] += 1.0;
    }
    let mut statistic = 0.0;
    for (count, p) in counts.iter().zip(p) {
        let expected = p * DRAWS as f64;
        if expected > 0.0 {
            statistic += (count - expected) * (count - expected) / expected;
        } else {
            assert_eq!(*count, 0.0, "{what}: the impossible happened");
        }
    }
    assert!(p.len() <= 10 && statistic < 46.9, "{what}: {statistic}");
}

#[test]
fn zipf_has_its_exact_probabilities() -> Result<(), SampleError> {
    for exponent in [0.0, 0.5, 0.999_999_999, 1.0, 1.000_000_001, 2.0, 6.0] {
        let d = Zipf::new(10, exponent)?;
        let p = d.probabilities();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((p[0] / p[9] / 10.0_f64.powf(exponent) - 1.0).abs() < 1e-9);
        if exponent < 3.0 {
            check_counts("zipf", &p, |r| d.sample(r));
        }
    }
    assert_eq!(Zipf::new(1, 1.2)?.sample(&mut Rng::from_seed(1)), 0);
    Ok(())
}

#[test]
fn zipf_over_many_items_keeps_its_share_at_the_top() -> Result<(), SampleError> {
    let n = 10_000_000;
    let d = Zipf::new(n, 1.0)?;
    // Harmonic numbers by their expansion: ln n + gamma + 1/2n.
    let harmonic = |n: f64| n.ln() + 0.577_215_664_901_532_9 + 0.5 / n;
    let share = harmonic(1000.0) / harmonic(n as f64);
    let mut rng = Rng::from_seed(14);
    let top = (0..DRAWS).filter(|_| d.sample(&mut rng) < 1000).count() as f64 / DRAWS as f64;
    let error = (share * (1.0 - share) / DRAWS as f64).sqrt();
    assert!((top - share).abs() < 5.0 * error, "{top}, not {share}");
    Ok(())
}

#[test]
fn empirical_follows_its_weights() -> Result<(), SampleError> {
    let weights = [0.0, 3.0, 1.0, 0.5, 0.0, 10.0, 0.001];
    let d = Empirical::new(&weights)?;
    let p: Vec<f64> = (0..weights.len()).map(|i| d.probability(i)).collect();
    assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((p[1] - 3.0 / 14.501).abs() < 1e-12);
    check_counts("empirical", &p, |r| d.sample(r));
    assert_eq!(Empirical::new(&[7.0])?.sample(&mut Rng::from_seed(1)), 0);
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let refused = |e: SampleError| e.to_string();
    assert_eq!(
        Exponential::new(0.0).map_err(refused),
        Err("exponential: mean must be more than zero and finite, not 0".into())
    );
    assert_eq!(
        Hyperexponential::new(1.0, 0.5).map_err(refused),
        Err("hyperexponential: cv2 must be at least 1, not 0.5".into())
    );
    assert!(Gamma::new(f64::NAN, 1.0).is_err());
    assert!(Gamma::new(1.0, f64::INFINITY).is_err());
    assert!(Weibull::new(-1.0, 1.0).is_err());
    assert!(Weibull::with_mean(1e-3, 1.0).is_err(), "its scale vanishes");
    assert!(Normal::new(0.0, -1.0).is_err());
    assert!(Lognormal::new(-1.0, 1.0).is_err());
    assert!(TwoPoint::new(0.0, 1.0, 1.5).is_err());
    assert!(Zipf::new(0, 1.0).is_err());
    assert!(Zipf::new(5, -0.1).is_err());
    assert!(Empirical::new(&[]).is_err());
    assert!(Empirical::new(&[0.0, 0.0]).is_err());
    assert!(Empirical::new(&[1.0, -1.0]).is_err());
}

/// Draws are part of the contract: the same stream gives the same bits on every platform and in
/// every version. If this fails, published runs cannot be repeated.
#[test]
fn draws_are_fixed() -> Result<(), SampleError> {
    let mut rng = Rng::from_seed(2024);
    let r = &mut rng;
    let draws = [
        Exponential::new(1.0)?.sample(r),
        Normal::new(0.0, 1.0)?.sample(r),
        Lognormal::new(1.0, 1.0)?.sample(r),
        Gamma::new(0.5, 1.0)?.sample(r),
        Gamma::new(4.0, 1.0)?.sample(r),
        Weibull::new(0.5, 1.0)?.sample(r),
        Hyperexponential::new(1.0, 9.0)?.sample(r),
        TwoPoint::new(1.0, 2.0, 0.5)?.sample(r),
    ];
    assert_eq!(draws, GOLDEN);
    let zipf = Zipf::new(1000, 0.9)?;
    let empirical = Empirical::new(&[1.0, 2.0, 3.0, 4.0])?;
    let ranks: [usize; 6] = std::array::from_fn(|_| zipf.sample(r));
    let items: [usize; 6] = std::array::from_fn(|_| empirical.sample(r));
    assert_eq!(ranks, [600, 0, 9, 145, 199, 14]);
    assert_eq!(items, [0, 3, 3, 3, 1, 1]);
    Ok(())
}

const GOLDEN: [f64; 8] = [
    2.7749175074791665,
    -0.0469281179073487,
    0.0963957767102027,
    1.3078854790987606,
    4.241096082100846,
    15.483391488956853,
    0.032243739511669305,
    2.0,
];
