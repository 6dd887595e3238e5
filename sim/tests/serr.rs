//! The cascade's scenarios: what each layer is worth, alone and together. One seed, common random
//! numbers: all switches face the same turns, so differences are those of the layers.

use windtunnel_ledger::rows::Row;
use windtunnel_scenarios::load::{LoadEnv, Source, load};
use windtunnel_scenarios::{Override, workload};
use windtunnel_sim::{RunOptions, run};

/// Turns of a scenario under one of the policies `cascade-*`, and further settings.
fn turns(scenario: &str, layers: &str, overrides: &[&str]) -> Vec<Row> {
    let env = LoadEnv {
        policies: vec![Source::Library(format!("cascade-{layers}"))],
        ..LoadEnv::default()
    };
    let overrides: Vec<_> = overrides.iter().map(|o| Override::new(*o)).collect();
    let loaded = load(&Source::Library(scenario.into()), &overrides, &env)
        .unwrap_or_else(|report| panic!("{scenario}: {report}"));
    let traffic = workload::prepare(&loaded.scenario, None, None, false).expect("synthetic");
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    let mut workload = traffic.workload(1);
    run(&loaded.scenario, &mut *workload, 1, options)
        .unwrap_or_else(|e| panic!("{scenario}: {e}"))
        .rows
}

fn mean(rows: &[Row]) -> f64 {
    let times = rows
        .iter()
        .filter_map(|r| Some(r.generated_ns? - r.started_ns?));
    times.sum::<u64>() as f64 / 1e9 / rows.len() as f64
}

fn bad(rows: &[Row]) -> f64 {
    rows.iter().filter(|r| !r.good).count() as f64 / rows.len() as f64
}

/// How many times cheaper a turn is with some layers than with none.
fn gain(scenario: &str, layers: &str) -> f64 {
    mean(&turns(scenario, "none", &[])) / mean(&turns(scenario, layers, &[]))
}

#[test]
fn each_single_layer_has_a_world_in_which_it_is_worth_nothing_and_one_in_which_it_is_not() {
    for (layer, dull, bright) in [
        ("l0", "serr-busy", "serr-agentic"),
        ("l1", "serr-graphs", "serr-launches"),
        ("l2", "serr-critical", "serr-agentic"),
        ("l3", "serr-one-shot", "serr-long-context"),
    ] {
        let (little, much) = (gain(dull, layer), gain(bright, layer));
        assert!(little < 1.1, "{layer} gains {little} in {dull}");
        assert!(much > 1.2, "{layer} gains {much} in {bright}");
        // All layers together gain in both.
        assert!(gain(dull, "all") > 1.1 && gain(bright, "all") > much);
    }
}

#[test]
fn layers_on_agents_do_more_together_than_their_product_says() {
    let alone: Vec<f64> = ["l0", "l1", "l2", "l3"]
        .iter()
        .map(|l| gain("serr-agentic", l))
        .collect();
    // L4 and L5 save nothing by themselves: what they cost is in the whole.
    let all = gain("serr-agentic", "all-but-l5");
    let interaction = all / alone.iter().product::<f64>();
    // Once tokens are cheap, reading prompts dominates, and kept contexts save that: I is above 1,
    // and "multiplicative" is refuted here (it would be .9 to 1.1).
    assert!(interaction > 1.2, "{interaction}: {all} of {alone:?}");
    assert!(alone.iter().all(|s| all > 2.0 * s));
    // 4 to 25 times: the agents are in the range, and the far end takes a world made for it.
    assert!((4.0..25.0).contains(&gain("serr-agentic", "all")));
    assert!(gain("serr-best-case", "all") > 25.0);
    assert!(gain("serr-critical", "all") < 4.0);
}

#[test]
fn false_skips_and_wrong_tokens_spoil_answers() {
    let plain = bad(&turns("serr-busy", "none", &[]));
    // 2 % of the turns after the first of ten are skipped by mistake; 17,500 turns.
    let skipping = bad(&turns("serr-busy", "l0", &[]));
    let want = 0.02 * 0.9;
    assert!(
        (skipping - plain - want).abs() < 0.004,
        "{skipping} {plain}"
    );
    // Under the override nothing critical takes the short path, and nothing is spoiled; without it
    // everything does.
    let guarded = turns("serr-critical", "l2", &[]);
    let careless = turns(
        "serr-critical",
        "l2",
        &["fleet.engine.cascade.route.severity_override=false"],
    );
    assert!(bad(&careless) > 2.0 * bad(&guarded));
    assert!(mean(&careless) < mean(&guarded) / 2.0);
}

#[test]
fn a_lower_threshold_costs_more_and_spoils_less() {
    let points: Vec<(f64, f64)> = ["0.95", "0.85", "0.7", "0.5", "0"]
        .iter()
        .map(|t| {
            let set = format!("fleet.engine.cascade.route.threshold={t}");
            let rows = turns("serr-agentic", "l2", &[&set]);
            (mean(&rows), bad(&rows))
        })
        .collect();
    for pair in points.windows(2) {
        assert!(
            pair[0].0 < pair[1].0 && pair[0].1 >= pair[1].1,
            "{points:?}"
        );
    }
}

#[test]
fn verification_stops_a_drift_that_nobody_else_sees() {
    let half = |rows: &[Row], second: bool| {
        let part: Vec<Row> = rows
            .iter()
            .filter(|r| (r.sent_ns > 40 * 60_000_000_000) == second)
            .cloned()
            .collect();
        bad(&part)
    };
    let blind = turns("serr-drift", "l2", &[]);
    let watched = turns("serr-drift", "l24", &[]);
    // 1 % of answers are bad by themselves, and 1 % more is what L4 aims at.
    assert!(half(&blind, true) > 0.2, "{}", half(&blind, true));
    assert!(half(&watched, true) < 0.03, "{}", half(&watched, true));
    assert!(mean(&blind) < mean(&watched));
}

#[test]
fn small_formats_let_more_turns_find_their_context_and_anchors_take_their_share() {
    let hits = |layers: &str, overrides: &[&str]| {
        let rows = turns("serr-long-context", layers, overrides);
        rows.iter().filter(|r| r.cached_tokens > 0).count() as f64 / rows.len() as f64
    };
    let mixed = hits("l3", &[]);
    let anchored = hits(
        "l3",
        &[
            "fleet.engine.cascade.evidence.anchors=1.0",
            "fleet.engine.cascade.evidence.int8=0.0",
        ],
    );
    assert!(mixed > 1.2 * anchored, "{mixed} {anchored}");
    assert!(hits("none", &[]) < 1e-12);
}
