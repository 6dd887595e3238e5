//! Means over seeds and their intervals. Seeds are independent repeats, so Student's t applies to
//! their per-seed values; requests within one run are not, so no interval is made from those.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// The 97.5 % point of Student's t, for two-sided 95 % intervals. `None` without a degree of
/// freedom.
pub fn t_975(degrees: usize) -> Option<f64> {
    if degrees == 0 {
        return None;
    }
    let t = StudentsT::new(0.0, 1.0, degrees as f64).ok()?;
    Some(t.inverse_cdf(0.975))
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Standard error of the mean, `s / sqrt(n)` with `n - 1` in the variance; `None` below two values.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (values.len() >= 2).then(|| (squares / (n - 1.0) / n).sqrt())
}

/// Two-sided 95 % interval of the mean of independent values: `mean ± t(n-1) s / sqrt(n)`. `None`
/// below two values.
pub fn ci95(values: &[f64]) -> Option<[f64; 2]> {
    let half = t_975(values.len().checked_sub(1)?)? * standard_error(values)?;
    let mean = mean(values)?;
    Some([mean - half, mean + half])
}

/// Slope of a least-squares line and its t statistic; `None` below three points or without spread
/// in `x`. A perfect fit has an infinite t.
pub fn slope(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let (mx, my) = (
        points.iter().map(|p| p.0).sum::<f64>() / n,
        points.iter().map(|p| p.1).sum::<f64>() / n,
    );
    let sxx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    let sxy: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    if sxx <= 0.0 {
        return None;
    }
    let slope = sxy / sxx;
    let rest: f64 = points
        .iter()
        .map(|p| (p.1 - my - slope * (p.0 - mx)).powi(2))
        .sum();
    let error = (rest / (n - 2.0) / sxx).sqrt();
    let t = if slope == 0.0 { 0.0 } else { slope / error };
    Some((slope, t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_students() {
        // Tables give t(0.975) = 12.706, 2.776 and 2.262 for 1, 4 and 9 degrees of freedom.
        for (degrees, t) in [(1, 12.706), (4, 2.776), (9, 2.262)] {
            assert!((t_975(degrees).unwrap() - t).abs() < 1e-3);
        }
        // Five values with mean 3 and s = sqrt(2.5): half width 2.776 * 0.7071.
        let [low, high] = ci95(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((low - 1.0368).abs() < 1e-3 && (high - 4.9632).abs() < 1e-3);
        assert_eq!(ci95(&[1.0]), None);
        assert_eq!(ci95(&[]), None);
    }

    #[test]
    fn a_line_is_found_and_noise_is_not() {
        let (b, t) = slope(&[(0.0, 1.0), (1.0, 3.1), (2.0, 4.9), (3.0, 7.0)]).unwrap();
        assert!((b - 1.98).abs() < 1e-9 && t > 30.0);
        let (b, t) = slope(&[(0.0, 1.0), (1.0, -1.0), (2.0, -1.0), (3.0, 1.0)]).unwrap();
        assert_eq!((b, t), (0.0, 0.0));
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
