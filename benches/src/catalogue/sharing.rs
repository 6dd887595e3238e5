//! What gateways share: V-R1.

use super::lab::Lab;
use super::{Case, CaseError, Check, Param, Point};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[Case {
    id: "V-R1",
    title: "the gateways' state store as a queue: mean wait of an operation, and the read latency it leaves",
    source: "M/D/1: rho S / (2 (1 - rho)); a round trip and a service at least",
    params: &[
        Param {
            name: "rate",
            default: "11000",
            doc: "reads per second, one per request",
        },
        Param {
            name: "service",
            default: "10",
            doc: "service of one operation, us",
        },
        Param {
            name: "round_trip",
            default: "300",
            doc: "gateway to store and back, us",
        },
    ],
    points: &[&[("rate", "11000")], &[("rate", "31000")]],
    run: store_queue,
}];

/// Requests over all replications: the mean of so many waits deviates by half a percent.
const REQUESTS: f64 = 800_000.0;

fn store_queue(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let rate = point.number("rate", 1.0..=1e6)?;
    let service = point.count("service", 1..=100_000)?;
    let round_trip = point.count("round_trip", 0..=1_000_000)?;
    let rho = rate * service as f64 * 1e-6;
    if rho > 0.9 {
        return Err(point.refuse("rate", "the store must not be loaded above 0.9"));
    }
    // Counts are written at the very end only: what follows on an answer comes spaced by services, and
    // would not be Poisson.
    let text = format!(
        r#"
        version = 1
        fleet.replicas = 100
        fleet.engine = {{ kind = "station", servers = 1000 }}
        gateway.routing = {{ kind = "random" }}
        [gateway.state_store]
        service = "{service}us"
        round_trip = "{round_trip}us"
        refresh = "0s"
        write_batch = "1000h"
        timeout = "1h"
        [traffic]
        request_rate = "{rate} req/s"
        service = {{ kind = "exponential", mean = "5ms" }}
        "#
    );
    let runs = Lab::new(&text, point, REQUESTS)?.run()?;
    let store = |r: &super::lab::Run| r.result.state_store.clone().unwrap_or_default();
    let wait = runs.each(|r| {
        let store = store(r);
        store.waited_ns as f64 / store.served as f64 / 1e3
    });
    let expected = rho * service as f64 / (2.0 * (1.0 - rho));
    let p99 = runs.each(|r| store(r).read.quantile(0.99).unwrap_or(f64::NAN) / 1e6);
    let least = (round_trip + service) as f64 / 1e3;
    let mut checks = vec![
        Check::sampled("mean wait at the store (us)", expected, &wait, 0.03),
        Check::at_least("99 % of reads (ms)", least, p99.mean),
    ];
    if point.text("round_trip") == "300" && point.text("service") == "10" {
        checks.push(Check::at_most("99 % of reads (ms)", 1.0, p99.mean));
    }
    Ok(checks)
}
