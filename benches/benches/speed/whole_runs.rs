//! Whole runs in requests per second, laws on, rows off: what a user waits for. The scenarios are made
//! so that each shows another part: `mm1` the world and the ledger, `one_replica` the engine,
//! `shared_prefixes` routing and caches, `smoke` all of it with a verifier and objectives.

use criterion::{Criterion, Throughput};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use windtunnel_benches::execute::{RunPoint, run_point};
use windtunnel_scenarios::{LoadEnv, Override, Source, load, workload};

const MM1: &str = include_str!("../scenarios/mm1.toml");
const ONE_REPLICA: &str = include_str!("../scenarios/one-replica.toml");
const SHARED_PREFIXES: &str = include_str!("../scenarios/shared-prefixes.toml");

/// A point to run, of a text or (without one) the library.
fn point(name: &str, text: Option<&str>, overrides: &[&str]) -> RunPoint {
    let source = match text {
        None => Source::Library(name.to_owned()),
        Some(text) => Source::Text {
            name: name.to_owned(),
            text: text.to_owned(),
            dir: None::<PathBuf>,
        },
    };
    let overrides: Vec<Override> = overrides.iter().map(|&o| Override::new(o)).collect();
    let scenario = match load(&source, &overrides, &LoadEnv::default()) {
        Ok(loaded) => loaded.scenario,
        Err(report) => panic!("{}", report.render(false)),
    };
    let traffic = match workload::prepare(&scenario, None, None, false) {
        Ok(traffic) => traffic,
        Err(error) => panic!("{error}"),
    };
    RunPoint {
        seed: scenario.run.seed,
        scenario: Arc::new(scenario),
        traffic: Arc::new(traffic),
        laws: true,
        rows: false,
        watch: None,
    }
}

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole_runs");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    let routed = |kind: &'static str| [kind, "traffic.num_prompts=10000"];
    for (name, point) in [
        ("smoke", point("smoke", None, &[])),
        (
            "mm1",
            point("mm1", Some(MM1), &["traffic.num_prompts=100000"]),
        ),
        (
            "one_replica",
            point(
                "one-replica",
                Some(ONE_REPLICA),
                &["traffic.num_prompts=10000"],
            ),
        ),
        (
            "shared_prefixes_round_robin",
            point(
                "shared-prefixes",
                Some(SHARED_PREFIXES),
                &routed("gateway.routing.kind=round_robin"),
            ),
        ),
        (
            "shared_prefixes_cache_aware",
            point(
                "shared-prefixes",
                Some(SHARED_PREFIXES),
                &routed("gateway.routing.kind=cache_aware"),
            ),
        ),
    ] {
        let requests = point.traffic.facts().requests.unwrap_or(1);
        group.throughput(Throughput::Elements(requests));
        group.bench_function(name, |b| {
            b.iter(|| match run_point(&point, &|_| ()) {
                Ok(result) => result.events,
                Err(error) => panic!("{error}"),
            });
        });
    }
    group.finish();
}
