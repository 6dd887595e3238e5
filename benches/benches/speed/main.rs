//! How fast the parts are, and the whole. `cargo bench -p windtunnel-benches` runs all of it in a few
//! minutes; a word behind `--` picks the benchmarks whose names contain it. What the figures should
//! be, and what the least possible work would cost, is in `PERFORMANCE.md`.

/// The event queue by pending events.
mod event_queue;
/// One request drawn by a synthetic workload.
mod workload;
/// One routing decision by size of the fleet.
mod routing;
/// Prefix caches by length and cuts of the prompt.
mod prefix_cache;
/// One engine step by size of the batch.
mod engine_step;
/// One evaluation of a cost model.
mod step_cost;
/// Whole runs, in requests per second.
mod whole_runs;

use criterion::Criterion;
use std::time::Duration;

fn main() {
    let mut parts = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    event_queue::benches(&mut parts);
    workload::benches(&mut parts);
    routing::benches(&mut parts);
    prefix_cache::benches(&mut parts);
    engine_step::benches(&mut parts);
    step_cost::benches(&mut parts);
    whole_runs::benches(&mut parts);
    parts.final_summary();
}
