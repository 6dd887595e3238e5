//! How sure an error is. A percentile rests on few requests, and slow moments come in bunches: another run of the
//! same length would have others. So errors are reckoned anew over stretches drawn with replacement.

use windtunnel_base::rng::Rng;
use windtunnel_reports::fidelity::{Pairs, Run, percentile, value_of};

/// Times that stretches are drawn: the ends of an interval rest on the 25 outermost of them.
const ROUNDS: usize = 1_000;
/// Of all errors, between which the interval lies, in percent.
const INTERVAL: [f64; 2] = [2.5, 97.5];

/// Gives every figure of a distribution the interval that its error would lie in, in 95 runs of 100, if all were as
/// this one; `stretch` is where each request belongs, of so many.
pub(super) fn intervals(run: &mut Run, stretch: &[usize], stretches: usize) {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); stretches];
    for (request, &at) in stretch.iter().enumerate() {
        members[at].push(request);
    }
    let mut rng = Rng::from_seed(ROUNDS as u64);
    let mut errors: Vec<Vec<f64>> = vec![Vec::new(); run.figures.len()];
    for _ in 0..ROUNDS {
        let drawn: Vec<usize> = (0..stretches)
            .flat_map(|_| {
                members[rng.below(stretches as u64) as usize]
                    .iter()
                    .copied()
            })
            .collect();
        for pairs in &run.pairs {
            let (measured, simulated) = of(pairs, &drawn);
            for (figure, errors) in run.figures.iter().zip(&mut errors) {
                if figure.metric != pairs.metric || figure.statistic.is_empty() {
                    continue;
                }
                let [m, s] = [&measured, &simulated].map(|v| value_of(figure.statistic, v));
                let error = m.zip(s).map(|(m, s)| s / m - 1.0);
                errors.extend(error.filter(|e| e.is_finite()));
            }
        }
    }
    for (figure, errors) in run.figures.iter_mut().zip(&mut errors) {
        errors.sort_by(f64::total_cmp);
        let [low, high] = INTERVAL.map(|p| percentile(errors, p));
        figure.interval = low.zip(high).map(|(low, high)| [low, high]);
    }
}

/// The values of some requests, sorted.
fn of(pairs: &Pairs, drawn: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let sorted = |values: &[Option<f64>]| {
        let of = |&request: &usize| values.get(request).copied().flatten();
        let mut some: Vec<f64> = drawn.iter().filter_map(of).collect();
        some.sort_by(f64::total_cmp);
        some
    };
    (sorted(&pairs.measured), sorted(&pairs.simulated))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 stretches of 50 requests whose measured values are normal enough: mean 10, deviation `noise`. The mean of
    /// 2,000 has the deviation `noise / sqrt(2000)`, and twice 1.96 of that is the interval's width.
    #[test]
    fn an_interval_is_as_wide_as_the_mean_is_unsure() {
        let (noise, n) = (2.0, 2_000);
        let mut rng = Rng::from_seed(3);
        let mut value = || {
            let sum: f64 = (0..12).map(|_| rng.f64() - 0.5).sum();
            Some(10.0 + noise * sum)
        };
        let measured: Vec<Option<f64>> = (0..n).map(|_| value()).collect();
        let mut run = Run::new("live");
        run.compare("e2e", "ms", measured, vec![Some(10.5); n], None);
        let stretch: Vec<usize> = (0..n).map(|i| i / 50).collect();
        intervals(&mut run, &stretch, 40);
        let figure = &run.figures[0];
        let [low, high] = figure.interval.unwrap();
        let error = figure.relative_error.unwrap();
        assert!(low < error && error < high, "{low} {error} {high}");
        let width = 2.0 * 1.96 * noise / (n as f64).sqrt() / 10.0;
        // The deviation of 40 blocks' means is itself known to a ninth.
        let ratio = (high - low) / width;
        assert!((0.65..1.35).contains(&ratio), "{ratio}");
    }

    #[test]
    fn what_is_alike_everywhere_is_sure() {
        let mut run = Run::new("live");
        let values = vec![Some(4.0); 100];
        run.compare("ttft", "ms", values, vec![Some(5.0); 100], None);
        intervals(&mut run, &[0; 100], 3);
        for figure in &run.figures {
            let [low, high] = figure.interval.unwrap();
            assert!((low - 0.25).abs() < 1e-12 && (high - 0.25).abs() < 1e-12);
        }
    }
}
