//! F31: what tenants have in common and what not, in caches of prompts and in what routers remember.

use std::collections::BTreeSet;
use windtunnel_ledger::result::RunResult;
use windtunnel_scenarios::load::{LoadEnv, Source, load};
use windtunnel_scenarios::workload;
use windtunnel_sim::{RunOptions, run};

/// Two tenants who ask the same few questions in turn, of several columns each.
fn play(replicas: u32, gateway: &str) -> RunResult {
    let text = format!(
        r#"
        version = 1
        [fleet]
        replicas = {replicas}
        [fleet.engine]
        kind = "continuous"
        gpu = "h100-sxm"
        model = "llama-3.1-8b"
        [gateway]
        {gateway}
        [traffic]
        request_rate = "4 req/s"
        num_prompts = 400
        input = {{ kind = "fixed", tokens = 400 }}
        output = {{ kind = "fixed", tokens = 20 }}
        questions = {{ distinct = 5, in_turn = true }}
        [[traffic.clients]]
        name = "first"
        tenant = "first"
        [[traffic.clients]]
        name = "second"
        tenant = "second"
        "#
    );
    let source = Source::Text {
        name: "two tenants".into(),
        text,
        dir: None,
    };
    let scenario = match load(&source, &[], &LoadEnv::default()) {
        Ok(loaded) => loaded.scenario,
        Err(report) => panic!("{report:?}"),
    };
    let traffic = workload::prepare(&scenario, None, None, false).expect("synthetic traffic");
    let options = RunOptions {
        names: Some(traffic.names()),
        ..RunOptions::default()
    };
    run(&scenario, &mut *traffic.workload(1), 1, options).unwrap_or_else(|e| panic!("{e}"))
}

/// Requests whose prompt was not cached at all, by tenant.
fn cold(result: &RunResult) -> [usize; 2] {
    let tenants: BTreeSet<u32> = result.rows.iter().map(|row| row.tenant).collect();
    let cold = |tenant: &u32| {
        let rows = result.rows.iter().filter(|row| row.tenant == *tenant);
        rows.filter(|row| row.cached_tokens == 0).count()
    };
    let counts: Vec<_> = tenants.iter().map(cold).collect();
    counts.try_into().unwrap_or_else(|all| panic!("{all:?}"))
}

#[test]
fn a_cache_gives_no_tenant_the_prompt_of_another_where_they_are_isolated() {
    let shared = play(1, "");
    assert_eq!(cold(&shared).iter().sum::<usize>(), 5, "once for both");
    let isolated = play(1, "isolate_tenants = true");
    assert_eq!(cold(&isolated), [5, 5], "once for each of them");
    // Nothing else changes: the same requests at the same times.
    let sent = |result: &RunResult| -> Vec<_> {
        let rows = result.rows.iter();
        rows.map(|row| (row.sent_ns, row.tenant)).collect()
    };
    assert_eq!(sent(&shared), sent(&isolated));
}

#[test]
fn nobody_follows_another_tenant_in_a_map() {
    for key in ["columns", "prompt"] {
        for isolated in [false, true] {
            let gateway = format!(
                "isolate_tenants = {isolated}\n\
                 routing = {{ kind = \"affinity\", key = \"{key}\", epsilon = \"none\" }}"
            );
            let index = play(4, &gateway).index.expect("a map");
            // Five questions of two tenants: each is placed once, whatever the other has.
            assert_eq!(index.placed, 10, "{key} {isolated}");
            assert_eq!(index.peak_entries, 10);
            assert_eq!(index.followed, 390);
        }
    }
}

/// Routers that go by prompts alone take the same words for the same content, unless told otherwise.
#[test]
fn a_router_by_prefix_tells_isolated_tenants_apart() {
    let hashed = |isolated: bool| {
        let gateway = format!(
            "isolate_tenants = {isolated}\n\
             routing = {{ kind = \"prefix_hash\", load_factor = 1000.0 }}"
        );
        let result = play(64, &gateway);
        let rows = result.rows.iter();
        let homes: BTreeSet<_> = rows.map(|row| row.replica).collect();
        homes.len()
    };
    // Five prompts have five homes of 64 at most, and ten have up to ten.
    let (together, apart) = (hashed(false), hashed(true));
    assert!(together <= 5, "{together}");
    assert!(apart > 5 && apart <= 10, "{apart}");
}
