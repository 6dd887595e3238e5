//! Loops over rows of 32-bit floats, written so that the compiler makes vectors of them.

use super::{THREADED, THREADED_WEIGHTS};
use windtunnel_gemm::{Matrix, Threads};

/// The rows of `x` by a matrix; shared among threads if that is a large product.
pub(super) fn product(x: &[f32], matrix: &Matrix) -> Vec<f32> {
    let rows = x.len() / matrix.inputs().max(1);
    let large = is_shared(rows, matrix.inputs() * matrix.outputs());
    matrix.product(x, if large { Threads::All } else { Threads::One })
}

/// Whether a product of so many rows with so many weights is shared among threads.
pub(crate) const fn is_shared(rows: usize, weights: usize) -> bool {
    weights >= THREADED_WEIGHTS || rows * weights >= THREADED
}

/// Rows divided by the root of their mean square, and multiplied by a weight per column.
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(width) {
        let mean = dot(row, row) / width as f32;
        let scale = 1.0 / (mean + eps).sqrt();
        out.extend(row.iter().zip(weight).map(|(x, w)| x * scale * w));
    }
    out
}

/// Adds `more` to `x`.
pub(super) fn add(x: &mut [f32], more: &[f32]) {
    for (x, more) in x.iter_mut().zip(more) {
        *x += more;
    }
}

/// SwiGLU: of rows that are a gate and what it lets through, `width` numbers each.
pub(super) fn gated(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks_exact(2 * width) {
        let (gate, up) = row.split_at(width);
        out.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + exp(-g)) * u));
    }
    out
}

/// The sum of products.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, which the compiler turns into vectors.
    let mut sums = [0_f32; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = ca
        .remainder()
        .iter()
        .zip(cb.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in ca.zip(cb) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Turns scores into shares that sum to one: `exp(s * scale)` over its sum. Scores that are no
/// numbers give shares that are none.
pub(super) fn softmax(scores: &mut [f32], scale: f32) {
    let top = scores.iter().fold(f32::NEG_INFINITY, |m, &s| m.max(s));
    let mut sums = [0_f32; 8];
    let mut eights = scores.chunks_exact_mut(8);
    for eight in &mut eights {
        for (s, sum) in eight.iter_mut().zip(&mut sums) {
            *s = exp((*s - top) * scale);
            *sum += *s;
        }
    }
    let mut total: f32 = sums.iter().sum();
    for s in eights.into_remainder() {
        *s = exp((*s - top) * scale);
        total += *s;
    }
    let share = 1.0 / total;
    for s in scores {
        *s *= share;
    }
}

/// `e^x` within 2 parts in ten million, in steps that vectors have: the standard library's is a call
/// per number. Not a number stays none; below -87 it is zero, above 88 infinite.
pub(super) fn exp(x: f32) -> f32 {
    /// Adding and taking away this number rounds to whole ones.
    const ROUND: f32 = 12_582_912.0;
    /// The natural logarithm of 2 in two parts; the first has few bits, so that products are exact.
    const LN2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN2.0) - n * LN2.1;
    // Its series about zero, where |r| is below 0.35: the term left out is below 1e-8.
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0
                    + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0))))));
    let exponent = (n.clamp(-126.0, 127.0) as i32 + 127) as u32;
    let power = series * f32::from_bits(exponent << 23);
    let power = if x < -87.0 { 0.0 } else { power };
    if x > 88.0 { f32::INFINITY } else { power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_those_of_the_library() {
        for i in -8_800..=8_800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            if x < -87.0 {
                assert_eq!(exp(x), 0.0);
            } else {
                let error = (f64::from(exp(x)) - want).abs() / want;
                assert!(error < 2e-7, "{x}: {error}");
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn shares_sum_to_one_and_what_is_no_number_stays_none() {
        let mut scores: Vec<f32> = (0..19).map(|i| ((i * 7) % 11) as f32 * 3.0).collect();
        let want: Vec<f64> = scores
            .iter()
            .map(|&s| (f64::from(s) * 0.25).exp())
            .collect();
        let total: f64 = want.iter().sum();
        softmax(&mut scores, 0.25);
        for (share, want) in scores.iter().zip(want) {
            assert!((f64::from(*share) - want / total).abs() < 1e-7);
        }
        let mut broken = [1.0, f32::NAN, 2.0];
        softmax(&mut broken, 1.0);
        assert!(broken.iter().all(|s| s.is_nan()));
    }

    #[test]
    fn gates_and_norms_are_their_formulas() {
        let out = gated(&[0.0, 2.0, -3.0, 4.0, 5.0, 6.0], 3);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        for (x, want) in out.iter().zip([0.0, silu(2.0) * 5.0, silu(-3.0) * 6.0]) {
            assert!((f64::from(*x) - want).abs() < 1e-5, "{x} {want}");
        }
        let out = rms_norm(&[3.0, 4.0, 0.0, 0.0], &[1.0, 2.0], 0.0);
        let root = 12.5_f32.sqrt();
        assert_eq!(out[..2], [3.0 * (1.0 / root), 4.0 * (1.0 / root) * 2.0]);
        // A row of zeros without an epsilon has no direction.
        assert!(out[2].is_nan());
    }
}
