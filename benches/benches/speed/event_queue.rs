//! The hold model (Vaucher and Duval 1975): take the next event, schedule one an exponential time
//! later, with a constant number pending. The usual measure of an event queue, because its cost
//! depends on how many are pending and on little else.

use criterion::{BenchmarkId, Criterion, Throughput};
use windtunnel_base::queue::EventQueue;
use windtunnel_base::rng::Rng;
use windtunnel_base::time::{SimDuration, SimTime};

/// Increments drawn in advance, so that drawing is not measured; a power of two.
const DRAWN: usize = 1 << 16;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("event_queue/hold");
    group.throughput(Throughput::Elements(1));
    let mut rng = Rng::from_seed(1);
    let increments: Vec<SimDuration> = (0..DRAWN)
        .map(|_| SimDuration::from_nanos((-libm::log(rng.f64_open()) * 1e9) as u64))
        .collect();
    for pending in [100, 10_000, 1_000_000] {
        group.bench_function(BenchmarkId::from_parameter(pending), |b| {
            let mut queue = EventQueue::new();
            for event in 0..pending {
                let at = SimTime::ZERO + increments[event as usize % DRAWN];
                queue.schedule(at, 0, event);
            }
            let mut next = 0;
            b.iter(|| {
                if let Some((now, event)) = queue.pop() {
                    queue.schedule(now + increments[next % DRAWN], 0, event);
                }
                next += 1;
            });
        });
    }
    group.finish();
}
