//! The boundary states of the library: each holds with its safeguard, and fails without.

use std::sync::Arc;
use windtunnel_benches::execute::{RunPoint, run_point};
use windtunnel_reports::summary::Summary;
use windtunnel_reports::threshold::Verdict;
use windtunnel_scenarios::load::{LoadEnv, Source, load};
use windtunnel_scenarios::overrides::Override;
use windtunnel_scenarios::workload;

/// A scenario, and the settings of which each takes a safeguard away; the first of them is the one that
/// its head names. Settings joined by `;` go together.
const PACK: &[(&str, &[&str])] = &[
    (
        "kernel-eviction",
        &["gateway.paths.eviction={kind=\"step\"};gateway.paths.leakage={capacity=\"1000 req/s\"}"],
    ),
    (
        "verifier-outage",
        &["classes.high-risk.unverified=\"release\""],
    ),
    (
        "prompt-injection",
        &["gateway.pipeline.ingress_filter.true_positive_rate=0.0"],
    ),
    (
        "store-failover",
        &[
            "gateway.state_store.on_blackout=\"refuse\"",
            "gateway.state_store.persistent=false",
        ],
    ),
    ("prefix-hot-spot", &["gateway.routing.epsilon=\"none\""]),
    (
        "brown-out",
        &[
            "clients.retry_budget.share=3.0;gateway.admission={kind=\"open\"}",
            "gateway.answers.stale_if_error=\"0s\"",
        ],
    ),
    ("metastable", &["clients.retry_budget.share=1.0"]),
    ("stampede", &["gateway.coalescing.enabled=false"]),
    (
        "leader-failure",
        &["gateway.coalescing.on_failure=\"fan_out\""],
    ),
    ("ttl-avalanche", &["gateway.answers.ttl_jitter=0.0"]),
    (
        "revalidation",
        &["gateway.answers.stale_while_revalidate=\"0s\""],
    ),
    ("origin-outage", &["gateway.answers.stale_if_error=\"0s\""]),
    (
        "similar-questions",
        &["gateway.answers.semantic.rule={kind=\"threshold\", at_least=0.8}"],
    ),
    ("shared-cache", &["fleet.shared_cache.bandwidth=\"1GB/s\""]),
    (
        "crowd-at-peak",
        &[
            "gateway.admission={kind=\"open\"};fleet.scaling.policy={kind=\"reactive\", signal={kind=\"queue_depth\", target=4.0}}",
            "gateway.admission={kind=\"open\"}",
            "fleet.scaling.policy={kind=\"reactive\", signal={kind=\"queue_depth\", target=4.0}}",
        ],
    ),
    ("lost-replica", &["gateway.outlier_detection.enabled=false"]),
    ("noisy-neighbour", &["gateway.queue.order=\"fcfs\""]),
];

fn outcome(name: &str, settings: &str) -> Summary {
    let overrides: Vec<Override> = settings
        .split(';')
        .filter(|s| !s.is_empty())
        .map(Override::new)
        .collect();
    let source = Source::Library(name.to_owned());
    let loaded = load(&source, &overrides, &LoadEnv::default())
        .unwrap_or_else(|report| panic!("{name} with {settings}: {report:?}"));
    let traffic = workload::prepare(&loaded.scenario, None, None, false)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let seed = loaded.scenario.run.seed;
    let point = RunPoint {
        scenario: Arc::new(loaded.scenario),
        traffic: Arc::new(traffic),
        seed,
        laws: true,
        rows: false,
        watch: None,
    };
    let run = run_point(&point, &|_| {}).unwrap_or_else(|e| panic!("{name} with {settings}: {e}"));
    Summary::from_runs(&point.scenario, name, "", &[run])
}

fn told(summary: &Summary) -> String {
    let line = |t: &windtunnel_reports::threshold::Outcome| {
        format!("  {:?} {} is {:?}", t.verdict, t.condition, t.value)
    };
    let lines: Vec<String> = summary.thresholds.iter().map(line).collect();
    lines.join("\n")
}

#[test]
fn safeguards_hold_and_are_needed() {
    let mut wrong = Vec::new();
    for &(name, without) in PACK {
        let with = outcome(name, "");
        if with.ci.verdict != Verdict::Pass || with.thresholds.is_empty() {
            wrong.push(format!("{name} does not hold:\n{}", told(&with)));
        }
        for settings in without {
            let summary = outcome(name, settings);
            if summary.ci.verdict != Verdict::Fail {
                let told = told(&summary);
                wrong.push(format!("{name} holds with {settings} too:\n{told}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
