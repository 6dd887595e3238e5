//! Kernels that drift, and finding out by probing: V-D5 to V-D7, C06.

use super::lab::{Lab, Run, Runs};
use super::naive;
use super::{Case, CaseError, Check, Param, Point, Sampled};
use windtunnel_ledger::gateway::{DriftTotals, PathTotals, ProbeTotals};

const EXCESS: Param = Param {
    name: "excess",
    default: "0.25",
    doc: "share of bad answers once the kernel has drifted; none are before",
};
const RATE: Param = Param {
    name: "rate",
    default: "10",
    doc: "requests per second",
};
const LIMIT: Param = Param {
    name: "h",
    default: "4.6",
    doc: "what the sum has to exceed",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-D5",
        title: "sampled checking: requests until the first bad answer is caught",
        source: "mean of a geometric distribution, 1 / (q Se de)",
        params: &[
            Param {
                name: "q",
                default: "0.05",
                doc: "share of answers that are checked",
            },
            Param {
                name: "sensitivity",
                default: "0.9",
                doc: "share of bad answers that a check finds",
            },
            Param {
                name: "error",
                default: "0.2",
                doc: "share of bad answers",
            },
        ],
        points: &[
            &[("q", "0.05")],
            &[("q", "0.01")],
            &[("q", "0.05"), ("error", "0.05")],
        ],
        run: first_catch,
    },
    Case {
        id: "V-D6",
        title: "cost of probing and of bad answers, by the share probed: where it is least",
        source: "q* = sqrt(nu n1 de l / (lam c_p))",
        params: &[
            Param {
                name: "every",
                default: "800",
                doc: "mean seconds until a kernel drifts (1 / nu)",
            },
            Param {
                name: "loss",
                default: "1",
                doc: "dollars lost by a bad answer",
            },
            Param {
                name: "price",
                default: "0.246",
                doc: "dollars paid for a probe",
            },
            EXCESS,
            RATE,
        ],
        points: &[&[("price", "0.246")]],
        run: cost,
    },
    Case {
        id: "V-D7",
        title: "Bernoulli CUSUM (p0 = 0.05, p1 = 0.25): probes until an alarm",
        source: "Monte Carlo: 19.7 and 1400 at h = 4.6; else a plain program",
        params: &[
            Param {
                name: "p",
                default: "0.25",
                doc: "share of probes that differ",
            },
            LIMIT,
        ],
        points: &[&[("p", "0.25")], &[("p", "0.05")]],
        run: run_length,
    },
    Case {
        id: "C06",
        title: "a kernel drifts: time until the alarm, and bad answers until then",
        source: "ARL1 / (q lam), ARL1 by a plain program; excess ARL1 / q",
        params: &[
            Param {
                name: "q",
                default: "0.05",
                doc: "share of answers that are probed",
            },
            EXCESS,
            RATE,
            LIMIT,
        ],
        points: &[&[("q", "0.05")], &[("q", "0.2")]],
        run: delay,
    },
];

/// Requests that one kernel serves at once; a share of them is probed by a verifier in no time, and an alarm
/// costs no time either.
fn world(rate: f64, error: f64, probing: &str, rest: &str) -> String {
    format!(
        "[run]\n\
         warm_up = \"0s\"\n\
         [fleet.engine]\n\
         kind = \"station\"\n\
         [[fleet.pools]]\n\
         name = \"kernel\"\n\
         replicas = 1\n\
         error_rate = {error:?}\n\
         engine = {{ kind = \"station\", servers = 100000 }}\n\
         [gateway.paths]\n\
         kernels = [{{ name = \"k\", class = \"default\", pool = \"kernel\" }}]\n\
         [gateway.paths.probing]\n\
         reference = {{ kind = \"verifier\" }}\n\
         rebuild = \"0s\"\n\
         {probing}\n\
         [traffic]\n\
         request_rate = \"{rate} req/s\"\n\
         service = {{ kind = \"fixed\", value = \"1us\" }}\n\
         {rest}"
    )
}

fn detector(h: f64) -> String {
    format!("detector = {{ kind = \"log_likelihood\", p0 = 0.05, p1 = 0.25, h = {h:?} }}")
}

fn paths(run: &Run) -> PathTotals {
    run.result.paths.unwrap_or_default()
}

fn probed(run: &Run) -> ProbeTotals {
    paths(run).probing.unwrap_or_default()
}

fn drifted(run: &Run) -> DriftTotals {
    paths(run).drift.unwrap_or_default()
}

/// A ratio over the replications in which there is one.
fn each(runs: &Runs, figure: impl Fn(&Run) -> (u64, u64)) -> Sampled {
    let values = runs.values(|run| {
        let (part, of) = figure(run);
        part as f64 / of as f64
    });
    let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    Sampled::of(&values)
}

fn first_catch(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let q = point.number("q", 0.001..=1.0)?;
    let sensitivity = point.number("sensitivity", 0.01..=1.0)?;
    let error = point.number("error", 0.001..=1.0)?;
    let expected = 1.0 / (q * sensitivity * error);
    // The first difference raises an alarm.
    let probing = format!(
        "share = {q:?}\nsensitivity = {sensitivity:?}\n{}",
        detector(0.1)
    );
    let text = world(1_000.0, error, &probing, "");
    let runs = Lab::new(&text, point, 6_000.0 * expected)?.run()?;
    let requests = each(&runs, |run| (paths(run).eligible, probed(run).alarms));
    Ok(vec![Check::sampled(
        "requests to the first catch",
        expected,
        &requests,
        0.03,
    )])
}

fn run_length(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let p = point.number("p", 0.01..=1.0)?;
    let h = point.number("h", 0.1..=20.0)?;
    let plain = naive::bernoulli_cusum(p, (0.05, 0.25), h, point.length(10_000.0), point.seed);
    let text = world(1_000.0, p, &format!("share = 1.0\n{}", detector(h)), "");
    let runs = Lab::new(&text, point, 3_000.0 * plain.mean.min(2_000.0))?.run()?;
    let probes = each(&runs, |run| (probed(run).compared, probed(run).alarms));
    let mut checks = vec![Check::both_sampled(
        "probes to an alarm, as a plain program",
        &plain,
        &probes,
        0.05,
    )];
    let known = [(0.25, 19.7), (0.05, 1400.0)];
    if let Some((_, known)) = known.iter().find(|(at, _)| *at == p && h == 4.6) {
        let name = "probes to an alarm";
        checks.push(Check::sampled(name, *known, &probes, 0.05));
    }
    Ok(checks)
}

/// A kernel that drifts again and again, once it was built anew.
fn drifting(every: f64, excess: f64) -> String {
    format!(
        "[[faults]]\nkind = \"kernel_drift\"\nkernel = \"k\"\nat = \"0s\"\n\
         every = \"{every}s\"\nexcess = {excess:?}\n"
    )
}

fn delay(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let q = point.number("q", 0.001..=1.0)?;
    let excess = point.number("excess", 0.1..=1.0)?;
    let rate = point.number("rate", 0.1..=1000.0)?;
    let h = point.number("h", 0.1..=20.0)?;
    // Before it drifts no answer is bad, so the sum is zero when it does.
    let plain = naive::bernoulli_cusum(excess, (0.05, 0.25), h, 20_000, point.seed);
    let expected = plain.mean / (q * rate);
    let every = 4.0 * expected;
    let probing = format!("share = {q:?}\n{}", detector(h));
    let text = world(rate, 0.0, &probing, &drifting(every, excess));
    let drifts = 1_000.0;
    let runs = Lab::new(&text, point, drifts * (every + expected) * rate)?.run()?;
    let seconds = |run: &Run| (drifted(run).delay_ns, drifted(run).detected);
    let delay = each(&runs, seconds);
    let delay = Sampled {
        mean: delay.mean / 1e9,
        standard_error: delay.standard_error / 1e9,
    };
    let bad = each(&runs, |run| {
        (drifted(run).bad_outputs, drifted(run).detected)
    });
    let false_alarms = runs.each(|run| probed(run).false_alarms as f64);
    Ok(vec![
        Check::sampled("seconds to the alarm", expected, &delay, 0.05),
        Check::sampled(
            "bad answers to the alarm",
            excess * plain.mean / q,
            &bad,
            0.05,
        ),
        Check::exact("false alarms", 0.0, false_alarms.mean),
    ])
}

/// The least point of the parabola through `(ln x, y)`, by least squares over a grid that is even around its
/// middle in `ln x`.
fn least(grid: &[(f64, f64)]) -> f64 {
    let n = grid.len() as f64;
    let middle = grid.iter().map(|(x, _)| x.ln()).sum::<f64>() / n;
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        let each = grid.iter().map(|&(x, y)| of(x.ln() - middle, y));
        each.sum::<f64>()
    };
    let (s2, s4) = (sum(&|x, _| x * x), sum(&|x, _| x.powi(4)));
    let (y, xy, x2y) = (sum(&|_, y| y), sum(&|x, y| x * y), sum(&|x, y| x * x * y));
    let slope = xy / s2;
    let curve = (x2y - s2 * y / n) / (s4 - s2 * s2 / n);
    (middle - slope / (2.0 * curve)).exp()
}

fn cost(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let every = point.number("every", 1.0..=1e6)?;
    let loss = point.number("loss", 0.001..=1e6)?;
    let price = point.number("price", 1e-6..=1e6)?;
    let excess = point.number("excess", 0.1..=1.0)?;
    let rate = point.number("rate", 0.1..=1000.0)?;
    let plain = naive::bernoulli_cusum(excess, (0.05, 0.25), 4.6, 20_000, point.seed);
    let best = (plain.mean * excess * loss / (every * rate * price)).sqrt();
    if !(0.004..=0.25).contains(&best) {
        return Err(point.refuse("price", "brings the best share out of 0.004 to 0.25"));
    }
    let drifts = 100.0;
    let at = |share: f64| -> Result<f64, CaseError> {
        let probing = format!("share = {share:?}\nprice = \"${price}\"\n{}", detector(4.6));
        let text = world(rate, 0.0, &probing, &drifting(every, excess));
        let runs = Lab::new(&text, point, drifts * every * rate)?.run()?;
        let cost = runs.each(|run| {
            let paid = probed(run).price_nano_usd as f64 / 1e9;
            let lost = loss * drifted(run).bad_outputs as f64;
            (paid + lost) / (run.end_ns() as f64 / 1e9)
        });
        Ok(cost.mean)
    };
    let root = std::f64::consts::SQRT_2;
    let grid = [0.5, 0.5 * root, 1.0, root, 2.0].map(|part| part * best);
    let costs: Result<Vec<f64>, CaseError> = grid.into_iter().map(at).collect();
    let pairs: Vec<(f64, f64)> = grid.into_iter().zip(costs?).collect();
    let in_the_middle = pairs[2].1;
    // Both parts are equal there; at four times as much, or as little, they come to 17/8 of that.
    let expected = 2.0 * best * rate * price;
    Ok(vec![
        Check::relative("share at which the cost is least", best, least(&pairs), 0.2),
        Check::relative("dollars per second there", expected, in_the_middle, 0.2),
        Check::at_least(
            "the same at a quarter of it",
            1.5 * in_the_middle,
            at(best / 4.0)?,
        ),
        Check::at_least(
            "the same at four times it",
            1.5 * in_the_middle,
            at(best * 4.0)?,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a q + b / q` is least at `sqrt(b / a)`, and even around it in `ln q`.
    #[test]
    fn the_least_point_is_found() {
        let grid = [0.01, 0.02, 0.04, 0.08].map(|q| (q, 3.0 * q + 0.0024 / q));
        let found = least(&grid);
        assert!(
            (found / (0.0024_f64 / 3.0).sqrt() - 1.0).abs() < 0.02,
            "{found}"
        );
    }
}
