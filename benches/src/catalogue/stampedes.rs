//! Many who ask for the same at once: V-H5, V-H6, V-H9.

use super::answers::{AT_ONCE, not_stored, seconds, totals, within, world};
use super::lab::{Lab, Run};
use super::{CaseError, Check, Point};

pub(super) fn stampede(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let lambda = point.number("lambda", 0.01..=10_000.0)?;
    let fetch = point.number("fetch", 0.001..=1_000.0)?;
    let ttl = point.number("ttl", 0.001..=1e6)?;
    let text = |coalescing: bool| {
        world(
            lambda,
            &seconds(fetch),
            "distinct = 1",
            &format!(
                "[gateway.answers]\nttl = \"{}\"\n[gateway.coalescing]\nenabled = {coalescing}",
                seconds(ttl)
            ),
        )
    };
    let cycle = ttl + fetch + 1.0 / lambda;
    let crowd = 1.0 + lambda * fetch;
    let arrivals = (400.0 * lambda * cycle).min(800_000.0);
    let alone = Lab::new(&text(false), point, arrivals)?.run()?;
    let shared = Lab::new(&text(true), point, arrivals)?.run()?;
    let per_flight = |run: &Run| totals(run).fetches as f64 / totals(run).flights as f64;
    let rate = |run: &Run| totals(run).fetches as f64 / (run.end_ns() as f64 / 1e9);
    Ok(vec![
        Check::sampled(
            "origin calls per expiry, nobody waits for another",
            crowd,
            &alone.each(per_flight),
            0.03,
        ),
        Check::exact(
            "origin calls per expiry, coalesced",
            1.0,
            shared.each(per_flight).mean,
        ),
        Check::sampled(
            "origin calls per second, nobody waits for another",
            crowd / cycle,
            &alone.each(rate),
            0.03,
        ),
        Check::sampled(
            "origin calls per second, coalesced",
            1.0 / cycle,
            &shared.each(rate),
            0.03,
        ),
    ])
}

/// Mean size of a stampede and mean lead of its first fetch, s. With `k = lambda beta delta`, the first
/// fetch comes when `x = k exp(-left / (beta delta))` has grown to a standard exponential; its stampede
/// is all who come within `delta` of it and draw early, or find the answer expired.
fn xfetch(lambda: f64, beta: f64, delta: f64) -> (f64, f64) {
    let (scale, k) = (beta * delta, lambda * beta * delta);
    // Nobody was early enough: the first after the expiry begins it, and all after that one call too.
    let none = (-k).exp();
    let (mut size, mut lead) = (none * (1.0 + lambda * delta), none * (-1.0 / lambda));
    // Midpoints on a logarithmic scale, where both integrands are smooth.
    const STEPS: u32 = 200_000;
    let (low, high) = (1e-12_f64.ln(), k.ln());
    let width = (high - low) / f64::from(STEPS);
    for i in 0..STEPS {
        let x = (low + (f64::from(i) + 0.5) * width).exp();
        let weight = (-x).exp() * x * width;
        let left = scale * (k / x).ln();
        let more = if left >= delta {
            x * (1.0 / beta).exp_m1()
        } else {
            (k - x) + lambda * (delta - left)
        };
        size += weight * (1.0 + more);
        lead += weight * left;
    }
    (size, lead)
}

/// The mean of a standard Gumbel variable.
const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
/// From this `lambda beta delta` on, the formula of the lead leaves out less than a part in 400: it takes
/// for granted that somebody comes early.
const LONG_LEAD: f64 = 3.0;
/// Shares of expiries below this are too rare to be counted.
const SEEN: f64 = 0.01;
/// Requests of the run that counts them.
const EXPIRIES: f64 = 1_200_000.0;

pub(super) fn early_refresh(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let lambda = point.number("lambda", 0.1..=10_000.0)?;
    let beta = point.number("beta", 0.01..=100.0)?;
    let fetch = point.number("fetch", 0.001..=1_000.0)?;
    let ttl = point.number("ttl", 0.001..=1e6)?;
    let (size, lead) = xfetch(lambda, beta, fetch);
    if ttl < 3.0 * lead {
        return Err(point.refuse("ttl", "must be three times the mean lead at least"));
    }
    let text = |coalescing: bool| {
        world(
            lambda,
            &seconds(fetch),
            "distinct = 1",
            &format!(
                "[gateway.answers]\nttl = \"{}\"\nearly_refresh = {beta:?}\n\
                 [gateway.coalescing]\nenabled = {coalescing}",
                seconds(ttl)
            ),
        )
    };
    let cycle = ttl + fetch - lead;
    let arrivals = (1_000.0 * lambda * cycle).min(1_200_000.0);
    let runs = Lab::new(&text(false), point, arrivals)?.run()?;
    // At first nothing is stored, and all who come before the first answer fetch: one, and `lambda * fetch`
    // more on average, which are no stampede of an expiry.
    let crowd = runs.each(|run| {
        let (all, flights) = (totals(run).fetches as f64, totals(run).flights as f64);
        (all - 1.0 - lambda * fetch) / (flights - 1.0)
    });
    // The run ends anywhere in its last cycle, on average in the middle.
    let early = runs.each(|run| {
        let cycle = run.end_ns() as f64 / 1e9 / (totals(run).flights as f64 - 0.5);
        ttl + fetch - cycle
    });
    let mut checks = vec![
        Check::sampled("fetches per stampede", size, &crowd, 0.03),
        Check::sampled("mean lead of the first, s", lead, &early, 0.03),
    ];
    let k = lambda * beta * fetch;
    if k >= LONG_LEAD {
        let formula = beta * fetch * (k.ln() + EULER_GAMMA);
        let name = "the same by its formula, beta delta (ln(lambda beta delta) + 0.5772)";
        checks.push(Check::sampled(name, formula, &early, 0.03));
    }
    // Nobody draws early in the whole lifetime.
    let reached = (k * (-ttl / (beta * fetch)).exp_m1()).exp();
    if reached >= SEEN {
        let runs = Lab::new(&text(true), point, EXPIRIES)?.run()?;
        // One fetch per expiry, by a client if it was reached and else by the gateway; the first of all
        // found nothing at all.
        let waited = runs.each(|run| {
            let totals = totals(run);
            (totals.fetches - totals.refreshes - 1) as f64 / (totals.fetches - 1) as f64
        });
        let name = "share of expiries that are reached, exp(-lambda beta delta)";
        checks.push(Check::sampled(name, reached, &waited, 0.03));
    }
    Ok(checks)
}

pub(super) fn avalanche(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let keys = point.count("keys", 1..=100_000)?;
    let jitter = point.number("jitter", 0.01..=0.5)?;
    let ttl = point.number("ttl", 10.0..=1e5)?;
    // Each is asked every hundredth of the window, so it is fetched when it expires.
    let spread = 2.0 * jitter * ttl;
    let rate = keys as f64 / (spread / 100.0);
    let text = |jitter: f64| {
        world(
            rate,
            AT_ONCE,
            &format!("distinct = {keys}, in_turn = true"),
            &format!(
                "arrivals = {{ kind = \"constant\" }}\nduration = \"{}\"\n\
                 [gateway.answers]\nttl = \"{}\"\nttl_jitter = {jitter:?}",
                seconds(1.2 * ttl),
                seconds(ttl)
            ),
        )
    };
    let runs = Lab::whole(&text(jitter), point)?.run()?;
    let (from, to) = (ttl * (1.0 - jitter) + spread / 100.0, ttl * (1.0 + jitter));
    let calls = runs.each(|run| {
        let (segments, seconds) = within(run, from + spread / 100.0, to);
        segments.iter().map(|s| not_stored(s)).sum::<u64>() as f64 / seconds
    });
    let together = Lab::whole(&text(0.0), point)?.once()?;
    let (busy, seconds) = within(&together, ttl - spread, ttl + spread);
    let worst = busy.iter().map(|s| not_stored(s)).max().unwrap_or_default();
    let each = seconds / busy.len().max(1) as f64;
    Ok(vec![
        Check::sampled(
            "origin calls per second, with jitter",
            keys as f64 / spread,
            &calls,
            0.05,
        ),
        Check::at_least(
            "without: share of the keys in the worst stretch as long as a segment",
            (each / (spread / 100.0)).min(1.0) * 0.5,
            worst as f64 / keys as f64,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integral_gives_the_published_numbers() {
        for (lambda, beta, size, lead) in [
            (100.0, 1.0, std::f64::consts::E, Some(5.18)),
            (10.0, 1.0, 2.706, Some(2.88)),
            (50.0, 2.0, 1.649, None),
            (30.0, 0.5, 7.12, None),
            (3.0, 1.0, 2.38, None),
        ] {
            let (found, early) = xfetch(lambda, beta, 1.0);
            assert!((found - size).abs() < 0.006, "{lambda} {beta}: {found}");
            assert!(
                lead.is_none_or(|lead| (early - lead).abs() < 0.006),
                "{early}"
            );
        }
    }

    /// The lead has a closed form with the exponential integral `E1`: what comes early, less what waits
    /// for the first request after the expiry.
    #[test]
    fn the_integral_of_the_lead_is_its_closed_form() {
        for (lambda, beta, e1) in [
            (1.0, 1.0, 0.219_383_934_395_520_3),
            (1.0, 2.0, 0.048_900_510_708_061_1),
            (6.0, 0.5, 0.013_048_381_094_197),
        ] {
            let (_, lead) = xfetch(lambda, beta, 1.0);
            let k: f64 = lambda * beta;
            let exact = beta * (k.ln() + EULER_GAMMA + e1) - (-k).exp() / lambda;
            assert!((lead - exact).abs() < 1e-6, "{lambda} {beta}: {lead}");
        }
    }
}
