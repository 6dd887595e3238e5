//! The boundary states of the library: each holds with its safeguard, and fails without.

use std::sync::Arc;
use windtunnel_benches::execute::{RunPoint, run_point};
use windtunnel_reports::compare::{self, Change};
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
    ("kernel-drift", &["gateway.paths.probing.share=0.0"]),
    (
        "kernel-rollout",
        &["gateway.paths.rollouts.extraction.stages=[{kind=\"full\"}]"],
    ),
    (
        "verifier-outage",
        &["classes.high-risk.unverified=\"release\""],
    ),
    (
        "verifier-ladder",
        &[
            "verification.ladder.climb=\"always\"",
            "verification.ladder.accept_below=0.5",
        ],
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
    (
        "quantised-edge",
        &[
            "fleet.engine.model=\"llama-3.1-8b-fp8\";fleet.error_rate=0.025",
            "fleet.engine.model=\"llama-3.1-8b\";fleet.error_rate=0.02",
        ],
    ),
    (
        "edge-cache",
        &[
            "gateway.answers.enabled=false",
            "fleet.network.client_to_gateway=80ms;fleet.network.gateway_to_replica=0s",
        ],
    ),
    (
        "three-regions",
        &["traffic.clients.1.arrivals.peak=14min;traffic.clients.2.arrivals.peak=14min"],
    ),
    (
        "similar-lengths",
        &["fleet.engine.scheduler.length_buckets.bounds=[100000]"],
    ),
];

fn outcome(name: &str, settings: &str) -> Summary {
    over_seeds(name, settings, 1)
}

/// The same under so many seeds.
fn over_seeds(name: &str, settings: &str, seeds: u64) -> Summary {
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
    let (scenario, traffic) = (Arc::new(loaded.scenario), Arc::new(traffic));
    let run = |i| {
        let point = RunPoint {
            scenario: Arc::clone(&scenario),
            traffic: Arc::clone(&traffic),
            seed: scenario.run.seed + i,
            laws: true,
            rows: false,
            watch: None,
        };
        run_point(&point, &|_| {}).unwrap_or_else(|e| panic!("{name} with {settings}: {e}"))
    };
    let runs: Vec<_> = (0..seeds).map(run).collect();
    Summary::from_runs(&scenario, name, "", &runs)
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

/// S10 is about outages of one, five and thirty seconds; the library's lasts five.
#[test]
fn a_store_may_be_gone_for_a_second_or_for_half_a_minute() {
    let gone_for =
        |lasts: &str| format!("faults=[{{kind=\"store_blackout\", at=\"120s\", for=\"{lasts}\"}}]");
    for (lasts, hits_left) in [("1s", 0.8), ("30s", 0.7)] {
        let summary = outcome("store-failover", &gone_for(lasts));
        for condition in &summary.thresholds {
            // The longer it is gone, the more conversations only one of the gateways knows.
            let share = match condition.condition.contains("phase=during") {
                true => 0.8 * condition.value.unwrap_or(f64::NAN) / condition.limit,
                false => 1.0,
            };
            let holds = condition.verdict == Verdict::Pass || share < 0.8;
            assert!(holds && share >= hits_left, "{lasts}:\n{}", told(&summary));
        }
    }
    // Without the last known map, half a minute of refusals is far more than the half per cent allowed.
    let refusing = "gateway.state_store.on_blackout=\"refuse\"";
    let summary = outcome("store-failover", &format!("{};{refusing}", gone_for("30s")));
    assert_eq!(summary.ci.verdict, Verdict::Fail, "{}", told(&summary));
}

/// C12: while its kernel is gone, who is reserved room at the frontier waits at most a twentieth longer with
/// leakage control, and more than half again without, even where degradation is jittered.
#[test]
fn leakage_control_alone_keeps_the_reserved_from_waiting() {
    let inflation = |settings: &str| {
        let summary = outcome("kernel-eviction", settings);
        // What its first condition compares is 1.05 times that before.
        let reserved = &summary.thresholds[0];
        assert!(reserved.condition.contains("class=reserved,phase=during"));
        1.05 * reserved.value.unwrap_or(f64::NAN) / reserved.limit
    };
    let step = "gateway.paths.eviction={kind=\"step\"}";
    let open = "gateway.paths.leakage={capacity=\"1000 req/s\"}";
    assert!(inflation(step) <= 1.05);
    let both = format!("{step};{open}");
    assert!(inflation(&both) > 1.5);
}

/// C15: what a change saves in energy per verified output is told with its sign and its interval, paired over
/// seeds. Here: prompts that begin alike go to replicas in turn, and more of them are computed anew.
#[test]
fn energy_saved_has_a_sign_and_an_interval() {
    let energy = |settings: &str| over_seeds("chat-burst", settings, 5);
    let (base, other) = (energy(""), energy("gateway.routing={kind=\"round_robin\"}"));
    let compared = compare::compare(&base, &other).expect("common seeds");
    let mut metrics = compared.metrics.iter();
    let paired = metrics
        .find(|p| p.metric == "energy_per_verified_output" && p.class.is_none())
        .expect("replicas have a power");
    let [low, high] = paired.ci95.expect("five pairs have an interval");
    assert!(0.0 < low && low < paired.difference && paired.difference < high);
    assert_eq!((paired.pairs, paired.change), (5, Change::Worse));
    let back = compare::compare(&other, &base).expect("common seeds");
    let saved = back.metrics.iter().find(|p| p.metric == paired.metric);
    assert_eq!(
        saved.map(|p| (p.change, -p.difference)),
        Some((Change::Better, paired.difference))
    );
}
