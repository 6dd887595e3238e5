//! Whole runs in requests per second, laws on, rows off: what a user waits for. The shapes of
//! `windtunnel bench`, cut short: what a request costs does not depend on how many there are.

use criterion::{Criterion, Throughput};
use std::time::Duration;
use windtunnel_benches::speed::{Effort, SHAPES, prepare};

/// Enough that the beginning of a run does not count.
const REQUESTS: u64 = 10_000;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole_runs");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    for shape in &SHAPES {
        // Those that need files, and longer runs of a shape that is here already.
        if shape.needs_files() || shape.name.starts_with("flat-") && shape.name != "flat-1k" {
            continue;
        }
        let requests = REQUESTS.min(shape.requests[0]);
        let effort = Effort {
            requests: Some(requests),
            ..Effort::default()
        };
        let prepared = match prepare(shape, &effort) {
            Ok(prepared) => prepared,
            Err(error) => panic!("{error}"),
        };
        group.throughput(Throughput::Elements(requests));
        group.bench_function(shape.name, |b| {
            b.iter(|| match prepared.run() {
                Ok(result) => result.events,
                Err(error) => panic!("{error}"),
            });
        });
    }
    group.finish();
}
