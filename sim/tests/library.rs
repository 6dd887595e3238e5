//! The library's own traffic through the world: every scenario obeys the laws, and policies face the
//! same requests.

use windtunnel_engine::config::EngineSpec;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::Row;
use windtunnel_scenarios::load::{LoadEnv, Source, load};
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_scenarios::{Override, library, workload};
use windtunnel_sim::{RunOptions, run};

fn scenario(name: &str, overrides: &[&str]) -> Scenario {
    let overrides: Vec<_> = overrides.iter().map(|o| Override::new(*o)).collect();
    let source = Source::Library(name.to_owned());
    match load(&source, &overrides, &LoadEnv::default()) {
        Ok(loaded) => loaded.scenario,
        Err(report) => panic!("{name}: {report:?}"),
    }
}

fn play(scenario: &Scenario, seed: u64) -> RunResult {
    let traffic = workload::prepare(scenario, None, None, false).expect("synthetic traffic");
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    let mut workload = traffic.workload(seed);
    run(scenario, &mut *workload, seed, options)
        .unwrap_or_else(|e| panic!("{}: {e}", scenario.name))
}

/// Layers leave out work of models that compute.
const NO_LAYERS: &str = "fleet.engine.cascade.layers={ l0 = false, l1 = false, l2 = false, l3 = false, l4 = false, l5 = false }";

#[test]
fn every_scenario_obeys_the_laws_and_repeats() {
    let mut played = 0;
    for entry in library::list() {
        let whole = scenario(entry.name, &[]);
        if whole.traffic.trace.is_some() {
            continue; // traces do not come with the program
        }
        let mut overrides = vec!["traffic.num_prompts=150"];
        if matches!(whole.fleet.engine, EngineSpec::Reference(_)) {
            // Nothing here computes: the same world, simulated.
            overrides.push("fleet.engine.kind=continuous");
            overrides.push(NO_LAYERS);
        }
        let short = scenario(entry.name, &overrides);
        let [a, b] = [play(&short, 3), play(&short, 3)];
        assert_eq!(a.digest, b.digest, "{}", entry.name);
        // One scenario leaves nothing to chance.
        let drawn = entry.name != "leader-failure";
        let other = play(&short, 4).digest;
        assert_eq!(a.digest != other, drawn, "{}", entry.name);
        let sent: u64 = a.segments.iter().map(|s| s.all.sent).sum();
        let finished: u64 = a.segments.iter().map(|s| s.all.finished).sum();
        assert!(
            sent <= 150 && finished > 0,
            "{}: {finished} of {sent}",
            entry.name
        );
        played += 1;
    }
    assert!(played >= 8, "only {played} scenarios without traces");
}

#[test]
fn policies_and_fleets_face_the_same_requests() {
    let base = scenario("chat-burst", &["traffic.num_prompts=400"]);
    let sent = |row: &Row| {
        let lengths = (row.prompt_tokens, row.output_tokens);
        (
            row.sent_ns,
            row.tenant,
            row.class,
            row.session,
            lengths,
            row.good,
        )
    };
    let faced: Vec<_> = play(&base, 11).rows.iter().map(sent).collect();
    assert_eq!(faced.len(), 400);
    for routing in [
        RoutingSpec::Random,
        RoutingSpec::RoundRobin,
        RoutingSpec::LlmD,
    ] {
        let mut other = base.clone();
        other.gateway.routing = routing;
        other.fleet.replicas += 1;
        let again: Vec<_> = play(&other, 11).rows.iter().map(sent).collect();
        assert_eq!(faced, again);
    }
}

/// While a kernel is gone, expired answers to the same questions stand in for it where there are any; the
/// others wait.
#[test]
fn stale_answers_stand_in_for_an_evicted_kernel() {
    let play_with = |meanwhile: &str| {
        let overrides = [
            "gateway.answers.ttl=30s".to_owned(),
            "gateway.answers.stale_if_error=20min".to_owned(),
            "traffic.questions.distinct=400".to_owned(),
            format!("gateway.paths.eviction.meanwhile=\"{meanwhile}\""),
            format!("gateway.paths.leakage.overflow=\"{meanwhile}\""),
        ];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        play(&scenario("kernel-eviction", &overrides), 5)
    };
    let [stale, queue] = ["stale_answer", "queue"].map(play_with);
    let given = stale.gateway.answers.stale_on_error;
    assert!(given > 100, "{given}");
    assert_eq!(queue.gateway.answers.stale_on_error, 0);
    let paths = |r: &RunResult| r.paths.expect("there are paths");
    assert_eq!(paths(&stale).stale_kernel, 0);
    assert!(2 * paths(&stale).held < paths(&queue).held);
    // What they are given is no older than the answers' rule allows: laws::answers looks at each.
    let refused = |r: &RunResult| {
        r.segments
            .iter()
            .map(|s| s.all.refused.iter().sum::<u64>())
            .sum::<u64>()
    };
    assert_eq!(refused(&stale), 0);
}

/// S7: with probing, drift is found out within one and a half times what theory says; without, never.
#[test]
fn drift_is_found_out_by_probing_alone() {
    let drift = |overrides: &[&str]| {
        let result = play(&scenario("kernel-drift", overrides), 1);
        let paths = result.paths.expect("there are kernels");
        (paths.drift.expect("they drift"), paths.probing)
    };
    let (found, _) = drift(&[]);
    let seconds = found.delay_ns as f64 / 1e9 / found.detected as f64;
    assert!(found.detected >= 6 && seconds <= 59.0, "{found:?}");
    assert!(found.bad_outputs <= 950, "{found:?}");
    let (unseen, _) = drift(&["gateway.paths.probing.share=0.0"]);
    assert_eq!((unseen.drifts, unseen.detected), (8, 0));
    assert!(unseen.bad_outputs > 5 * 950, "{unseen:?}");
}
