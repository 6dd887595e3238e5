//! Business hours of regions, E13.

use super::lab::Lab;
use super::{Case, CaseError, Check, Param, Point};
use std::f64::consts::TAU;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[Case {
    id: "E13",
    title: "business hours of three regions: arrivals of each, and what is left of the peaks together",
    source: "a sum of waves; thinned Poisson arrivals",
    params: &[
        Param {
            name: "amplitude",
            default: "0.6",
            doc: "by which share a region's rate swings around its mean",
        },
        Param {
            name: "offsets",
            default: "0,-6,-13",
            doc: "local time of each region less that of the first, hours",
        },
    ],
    points: &[&[("amplitude", "0.6")]],
    run: business_hours,
}];

/// Hours of a day, and seconds of an hour.
const DAY: f64 = 24.0;
const HOUR: f64 = 3_600.0;
/// Local hour of everybody's peak.
const PEAK: f64 = 14.0;
/// Days that are drawn.
const DAYS: f64 = 2.0;

/// A wave, from the times at which something came, in hours: its amplitude relative to the mean, and when it
/// is highest.
fn wave(times: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut n, mut sum) = (0.0, (0.0, 0.0));
    for time in times {
        let (sin, cos) = (TAU * time / DAY).sin_cos();
        (n, sum) = (n + 1.0, (sum.0 + cos, sum.1 + sin));
    }
    let amplitude = 2.0 * f64::hypot(sum.0, sum.1) / n;
    let peak = f64::atan2(sum.1, sum.0) / TAU * DAY;
    (amplitude, peak.rem_euclid(DAY))
}

fn business_hours(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let amplitude = point.number("amplitude", 0.05..=1.0)?;
    let offsets = point.text("offsets").split(',').map(|o| o.trim().parse());
    let offsets: Result<Vec<f64>, _> = offsets.collect();
    let offsets = offsets.map_err(|_| point.refuse("offsets", "hours separated by commas"))?;
    if offsets.len() > 9 || !offsets.iter().all(|o| (-DAY..=DAY).contains(o)) {
        return Err(point.refuse("offsets", "one to nine, of at most a day"));
    }
    let regions = offsets.len() as f64;
    // Three standard errors of an amplitude of 0.6 are a percent of it.
    let each = point.length(750_000.0) as f64;
    let rate = each / (DAYS * DAY * HOUR);
    let peaks: Vec<_> = offsets.iter().map(|o| (PEAK - o).rem_euclid(DAY)).collect();
    let text = world(rate * regions, amplitude, &peaks);
    let arrivals = Lab::arrivals_by_class(&text, point.seed)?;
    let mut checks = Vec::new();
    for (region, &peak) in peaks.iter().enumerate() {
        let of = arrivals.iter().filter(|&&(_, class)| class == region);
        let hours: Vec<f64> = of.map(|(at, _)| at / HOUR).collect();
        let n = hours.len() as f64;
        let (found, highest) = wave(hours.into_iter());
        let error = (2.0 / n).sqrt();
        let at_least = |share: f64, noise: f64| share.max(3.0 * noise);
        let name = |what: &str| format!("region {}: {what}", region + 1);
        checks.extend([
            Check::within(
                name("requests per second"),
                rate,
                n / (DAYS * DAY * HOUR),
                at_least(0.01 * rate, rate / n.sqrt()),
            ),
            Check::within(
                name("amplitude"),
                amplitude,
                found,
                at_least(0.01 * amplitude, error),
            ),
            Check::within(
                name("hour of the peak, first region's time"),
                peak,
                highest,
                at_least(0.01 * DAY, error / amplitude / TAU * DAY),
            ),
        ]);
    }
    let sum = |part: fn(f64) -> f64| peaks.iter().map(|p| part(TAU * p / DAY)).sum::<f64>();
    let together = amplitude * f64::hypot(sum(f64::cos), sum(f64::sin)) / regions;
    let (found, _) = wave(arrivals.iter().map(|(at, _)| at / HOUR));
    let error = (2.0 / arrivals.len() as f64).sqrt();
    checks.push(Check::within(
        "all together: amplitude, the length of the mean arrow",
        together,
        found,
        (0.01 * amplitude).max(3.0 * error),
    ));
    Ok(checks)
}

/// Regions as clients, each with a class and a peak of its own.
fn world(rate: f64, amplitude: f64, peaks: &[f64]) -> String {
    let classes = (0..peaks.len()).map(|i| format!("region-{i} = {{}}\n"));
    let clients = peaks.iter().enumerate().map(|(i, peak)| {
        let (peak, day) = (peak * HOUR, DAY * HOUR);
        let wave = format!(
            r#"kind = "diurnal", amplitude = {amplitude:?}, period = "{day}s", peak = "{peak}s""#
        );
        format!("[[traffic.clients]]\nclass = \"region-{i}\"\narrivals = {{ {wave} }}\n")
    });
    format!(
        r#"
        version = 1
        [fleet.engine]
        kind = "station"
        [classes]
        {}
        [traffic]
        request_rate = "{rate} req/s"
        duration = "{}s"
        service = {{ kind = "fixed", value = "1ms" }}
        {}
        "#,
        classes.collect::<String>(),
        DAYS * DAY * HOUR,
        clients.collect::<String>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_found_where_it_is() {
        // Ten times as many at six as at midnight.
        let times = [6.0; 10].into_iter().chain([0.0]);
        let (amplitude, peak) = wave(times);
        assert!((amplitude - 2.0 * 101_f64.sqrt() / 11.0).abs() < 1e-12);
        assert!((peak - (10_f64.atan2(1.0) / TAU * 24.0)).abs() < 1e-12);
    }
}
