//! One request drawn by a synthetic workload: arrival, lengths, prefix, truth. It bounds how fast any
//! run can be, because everything about a request is drawn before it enters the system.

use criterion::{Criterion, Throughput};
use std::hint::black_box;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload::{self, Traffic};

/// Requests of one seed; then the next seed is played.
const REQUESTS: u64 = 1 << 20;

/// The traffic of a scenario that consists of it alone.
fn traffic(text: &str) -> Traffic {
    let text = format!(
        "version = 1\n[traffic]\nrequest_rate = \"10 req/s\"\nnum_prompts = {REQUESTS}\n{text}"
    );
    let scenario: Scenario = match toml::from_str(&text) {
        Ok(scenario) => scenario,
        Err(error) => panic!("{error}"),
    };
    match workload::prepare(&scenario, None, None, false) {
        Ok(traffic) => traffic,
        Err(error) => panic!("{error}"),
    }
}

const POISSON: &str = r#"
arrivals = { kind = "poisson" }
input = { kind = "lognormal", mean = 512.0, sigma = 0.8, min = 16, max = 4096 }
output = { kind = "lognormal", mean = 128.0, sigma = 0.7, min = 4, max = 1024 }
"#;

const GAMMA_WITH_PREFIXES: &str = r#"
arrivals = { kind = "gamma", burstiness = 0.5 }
input = { kind = "lognormal", mean = 512.0, sigma = 0.8, min = 16, max = 4096 }
output = { kind = "lognormal", mean = 128.0, sigma = 0.7, min = 4, max = 1024 }
prefix = { groups = 400, zipf = 0.6, tokens = { kind = "fixed", tokens = 2048 } }
"#;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("workload/request");
    group.throughput(Throughput::Elements(1));
    for (name, text) in [
        ("poisson_lognormal", POISSON),
        ("gamma_lognormal_prefixes", GAMMA_WITH_PREFIXES),
    ] {
        let traffic = traffic(text);
        let mut seed = 0;
        let mut source = traffic.workload(seed);
        let mut prefix = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                if source.next_at().is_none() {
                    seed += 1;
                    source = traffic.workload(seed);
                }
                prefix.clear();
                black_box(source.take(&mut prefix))
            });
        });
    }
    group.finish();
}
