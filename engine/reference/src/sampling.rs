//! From logits to a token, with the figures that risk is read from.

use crate::backend::{Sampled, Sampling};
use windtunnel_base::rng::{Rng, mix64};

/// Draws the token that follows position `position`; none if a logit is not a number.
pub fn sample(logits: &[f32], sampling: &Sampling, position: usize) -> Option<Sampled> {
    let (mut best, mut second) = (0, f32::NEG_INFINITY);
    for (i, &x) in logits.iter().enumerate() {
        if !x.is_finite() {
            return None;
        }
        if x > logits[best] {
            second = logits[best];
            best = i;
        } else if i != best && x > second {
            second = x;
        }
    }
    let top = logits[best];
    let (mut total, mut weighted) = (0_f64, 0_f64);
    for &x in logits {
        let shifted = f64::from(x - top);
        let weight = shifted.exp();
        total += weight;
        weighted += weight * shifted;
    }
    let log_total = total.ln();
    let token = if sampling.temperature > 0.0 {
        draw(logits, top, sampling, position)
    } else {
        best
    };
    Some(Sampled {
        token: token as u32,
        entropy: (log_total - weighted / total).max(0.0) as f32,
        margin: ((1.0 - f64::from(second - top).exp()) / total) as f32,
        log_probability: (f64::from(logits[token] - top) - log_total) as f32,
    })
}

/// The random number on [0, 1) that decides the token after a position: the same on every device.
pub(crate) fn uniform(sampling: &Sampling, position: usize) -> f64 {
    Rng::from_seed(mix64(sampling.seed) ^ position as u64).f64()
}

/// Inverts the distribution at temperature, over the most likely tokens that have `top_p` together.
fn draw(logits: &[f32], top: f32, sampling: &Sampling, position: usize) -> usize {
    let weight = |x: f32| (f64::from(x - top) / f64::from(sampling.temperature)).exp();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let total: f64 = logits.iter().map(|&x| weight(x)).sum();
    let mut kept = 0;
    let mut mass = 0.0;
    for &i in &order {
        mass += weight(logits[i]);
        kept += 1;
        if mass >= f64::from(sampling.top_p) * total {
            break;
        }
    }
    let mut left = uniform(sampling, position) * mass;
    for &i in &order[..kept] {
        left -= weight(logits[i]);
        if left < 0.0 {
            return i;
        }
    }
    order[kept - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_and_margin_are_those_of_the_distribution() {
        let s = sample(&[0.0, 0.0, 0.0, 0.0], &Sampling::GREEDY, 0).unwrap();
        assert!((s.entropy - 4_f32.ln()).abs() < 1e-6 && s.margin.abs() < 1e-6 && s.token == 0);
        let logits = [0.6_f32.ln(), 0.3_f32.ln(), 0.1_f32.ln()];
        let s = sample(&logits, &Sampling::GREEDY, 0).unwrap();
        let entropy = -(0.6 * 0.6_f32.ln() + 0.3 * 0.3_f32.ln() + 0.1 * 0.1_f32.ln());
        assert!((s.entropy - entropy).abs() < 1e-6);
        assert!((s.margin - 0.3).abs() < 1e-6);
        assert!((s.log_probability - 0.6_f32.ln()).abs() < 1e-6);
        assert!(sample(&[0.0, f32::NAN], &Sampling::GREEDY, 0).is_none());
    }

    #[test]
    fn draws_follow_the_distribution_and_repeat_with_the_seed() {
        let logits = [0.5_f32.ln(), 0.3_f32.ln(), 0.2_f32.ln()];
        let hot = Sampling {
            temperature: 1.0,
            top_p: 1.0,
            seed: 9,
        };
        let mut counts = [0_u32; 3];
        for position in 0..30_000 {
            let s = sample(&logits, &hot, position).unwrap();
            assert_eq!(Some(s), sample(&logits, &hot, position));
            counts[s.token as usize] += 1;
        }
        for (count, share) in counts.iter().zip([0.5, 0.3, 0.2]) {
            // Four standard errors of a share of 30,000.
            let error = 4.0 * (share * (1.0 - share) / 30_000_f64).sqrt();
            assert!(
                (f64::from(*count) / 30_000.0 - share).abs() < error,
                "{counts:?}"
            );
        }
        let cut = Sampling { top_p: 0.7, ..hot };
        assert!((0..1_000).all(|p| sample(&logits, &cut, p).unwrap().token < 2));
    }
}
