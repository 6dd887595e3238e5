//! Unusual but valid scenarios, as people of the field write them, run with all laws watching; the
//! summary and the rows are then held against each other and against what must be.

use crate::place::{Place, metric, rows};
use serde_json::Value;
use std::collections::BTreeMap;

type Rows = Vec<BTreeMap<String, String>>;

/// Runs a scenario, checks its books, and gives its summary and rows.
fn played(text: &str) -> (Value, Rows) {
    let place = Place::new();
    place.write("s.toml", format!("version = 1\n{text}"));
    let done = place.run("run s.toml --rows csv --format json").code(0);
    let summary = done.json();
    let folder = place.folder("out", "s");
    let rows = rows(&place.read(&format!("{folder}/runs/seed-1/requests.csv")));
    balanced(&summary, &rows);
    sane(&summary);
    (summary, rows)
}

fn get(summary: &Value, name: &str) -> f64 {
    metric(summary, name).unwrap_or_else(|| panic!("no {name}: {}", summary["metrics"][name]))
}

/// Everything that was sent ended once, and the rows say so too.
fn balanced(summary: &Value, rows: &Rows) {
    let measured: Vec<_> = rows.iter().filter(|r| r["measured"] == "true").collect();
    let ended = |how: &str| {
        measured
            .iter()
            .filter(|r| r["end"].starts_with(how))
            .count() as f64
    };
    for name in ["finished", "abandoned", "unfinished", "refused"] {
        assert_eq!(get(summary, name), ended(name), "{name}");
    }
    assert_eq!(get(summary, "sent"), measured.len() as f64);
    let all = ["finished", "abandoned", "unfinished", "refused"];
    let sum: f64 = all.iter().map(|name| get(summary, name)).sum();
    assert_eq!(get(summary, "sent"), sum);
    let by_reason = summary["refused_by_reason"].as_object().expect("reasons");
    let reasons: u64 = by_reason
        .values()
        .map(|n| n.as_u64().expect("a count"))
        .sum();
    assert_eq!(get(summary, "refused"), reasons as f64);
    let seconds = summary["runs"][0]["steady"]["window"].clone();
    let ns = |key: &str| seconds[key].as_f64().expect("a time");
    let length = (ns("to_ns") - ns("from_ns")) / 1e9;
    // Answers count when they come, whenever they were asked for.
    let tokens: f64 = rows
        .iter()
        .filter(|r| r["end"] == "finished")
        .filter(|r| r["ended_ns"].parse::<f64>().expect("a time") >= ns("from_ns"))
        .map(|r| r["output_tokens"].parse::<f64>().expect("tokens"))
        .sum();
    let rate = metric(summary, "output_token_throughput").unwrap_or(0.0);
    assert!(
        (rate * length - tokens).abs() <= 1e-6 * tokens,
        "{rate} * {length}, {tokens}"
    );
    if let Some(offered) = metric(summary, "offered_rate") {
        let last = measured
            .iter()
            .map(|r| r["sent_ns"].parse::<f64>().expect("a time"));
        let until = last.fold(0.0, f64::max) - ns("from_ns");
        let counted = offered * until / 1e9;
        assert!(
            (counted - get(summary, "sent")).abs() < 1e-6,
            "{offered}: {counted}"
        );
    }
}

/// No figure is negative, no share above one, quantiles rise, and a part is not more than the whole.
fn sane(summary: &Value) {
    let metrics = summary["metrics"].as_object().expect("metrics");
    for (name, m) in metrics {
        let Some(value) = m["value"].as_f64() else {
            assert!(
                m["reason"].is_string(),
                "{name} has neither value nor reason"
            );
            continue;
        };
        assert!(value.is_finite() && value >= 0.0, "{name} is {value}");
        if m["unit"] == "share" {
            assert!(value <= 1.0, "{name} is {value}");
        }
    }
    let of = |name: &str| metric(summary, name);
    for family in ["ttft", "tpot", "itl", "e2e", "queue"] {
        let known: Vec<f64> = ["p50", "p90", "p99"]
            .iter()
            .filter_map(|s| of(&format!("{family}_{s}")))
            .collect();
        assert!(known.is_sorted(), "{family}: {known:?}");
    }
    if let (Some(ttft), Some(e2e)) = (of("ttft_mean"), of("e2e_mean")) {
        assert!(ttft <= e2e, "{ttft} > {e2e}");
    }
    if let (Some(good), Some(all)) = (of("goodput_rate"), of("request_throughput")) {
        assert!(good <= all, "{good} > {all}");
    }
}

fn column(rows: &Rows, name: &str) -> Vec<f64> {
    let parsed = rows.iter().filter_map(|r| r[name].parse().ok());
    parsed.collect()
}

const CHAT: &str = r#"
input = { kind = "lognormal", mean = 300.0, sigma = 0.5 }
output = { kind = "lognormal", mean = 80.0, sigma = 0.5 }
"#;

#[test]
fn conversations_of_two_classes_behind_a_kv_router() {
    let (summary, rows) = played(
        r#"
        fleet.replicas = 4
        gateway.routing.kind = "kv_router"
        classes.interactive = { priority = 0, ttft = "300ms", tpot = "40ms" }
        classes.batch = { priority = 5, e2e = "60s" }
        [traffic]
        request_rate = "4 req/s"
        num_prompts = 800
        [[traffic.clients]]
        name = "chat"
        class = "interactive"
        tenant = "a"
        share = 3.0
        input = { kind = "lognormal", mean = 200.0, sigma = 1.0 }
        output = { kind = "lognormal", mean = 150.0, sigma = 0.8 }
        [traffic.clients.session]
        turns = { kind = "uniform", min = 2, max = 8 }
        think_time = { kind = "exponential", mean = "5s" }
        max_context = 8000
        [[traffic.clients]]
        name = "batch"
        class = "batch"
        tenant = "b"
        input = { kind = "fixed", tokens = 3000 }
        output = { kind = "fixed", tokens = 20 }
        "#,
    );
    let by_class = summary["by_class"].as_object().expect("classes");
    let of = |class: &str, name: &str| by_class[class][name]["value"].as_f64();
    let sent = of("interactive", "sent").zip(of("batch", "sent"));
    assert_eq!(sent.map(|(a, b)| a + b), metric(&summary, "sent"));
    // Only conversations come again with something that is cached.
    assert!(of("interactive", "prefix_hit_rate") > Some(0.3));
    assert_eq!(of("batch", "prefix_hit_rate"), Some(0.0));
    assert!(column(&rows, "prompt_tokens").iter().all(|&n| n <= 8_000.0));
    // A turn comes after the answer to the one before.
    let mut last: BTreeMap<&str, f64> = BTreeMap::new();
    for row in rows.iter().filter(|r| r["class_name"] == "interactive") {
        let sent: f64 = row["sent_ns"].parse().expect("a time");
        let ended: f64 = row["ended_ns"].parse().expect("a time");
        if let Some(before) = last.insert(&row["session"], ended) {
            assert!(before < sent, "{row:?}");
        }
    }
}

#[test]
fn a_70b_model_on_four_gpus_that_swaps() {
    let (summary, rows) = played(
        r#"
        [fleet.engine]
        kind = "continuous"
        gpu = "h100-sxm"
        model = "llama-3.1-70b"
        tensor_parallel = 4
        kv = { preemption = "swap", blocks = 1500, swap_space = "8GiB" }
        [traffic]
        request_rate = "3 req/s"
        num_prompts = 150
        input = { kind = "lognormal", mean = 1500.0, sigma = 0.6, max = 8000 }
        output = { kind = "lognormal", mean = 400.0, sigma = 0.6, max = 2000 }
        "#,
    );
    let thrown: f64 = column(&rows, "preemptions").iter().sum();
    assert!(thrown > 0.0, "memory is short: {thrown}");
    assert!(get(&summary, "kv_usage_mean") > 0.5);
    // Four GPUs at their list price, for as long as the window is.
    let window = &summary["runs"][0]["steady"]["window"];
    let ns = window["to_ns"].as_f64().zip(window["from_ns"].as_f64());
    let hours = ns.map_or(0.0, |(to, from)| (to - from) / 3.6e12);
    let per_gpu_hour = get(&summary, "cost_total") / hours / 4.0;
    assert!((2.0..6.0).contains(&per_gpu_hour), "{per_gpu_hour} USD");
}

#[test]
fn a_cost_table_says_how_much_lies_outside_it() {
    let (summary, _) = played(
        r#"
        [fleet.engine]
        kind = "continuous"
        [fleet.engine.cost]
        kind = "table"
        decode = [
            { seqs = 1, context = 0, ms = 10.0 }, { seqs = 1, context = 1000, ms = 10.0 },
            { seqs = 64, context = 0, ms = 10.0 }, { seqs = 64, context = 1000, ms = 10.0 },
        ]
        prefill = [
            { tokens = 1, context = 0, ms = 50.0 }, { tokens = 1000, context = 0, ms = 50.0 },
            { tokens = 1, context = 1000, ms = 50.0 }, { tokens = 1000, context = 1000, ms = 50.0 },
        ]
        [traffic]
        request_rate = "0.2 req/s"
        num_prompts = 60
        input = { kind = "uniform", min = 100, max = 900 }
        output = { kind = "fixed", tokens = 11 }
        "#,
    );
    // Alone, a request takes one prefill and ten decode steps of what the table says.
    assert!(
        (get(&summary, "tpot_mean") - 10.0).abs() < 0.6,
        "{}",
        get(&summary, "tpot_mean")
    );
    assert!(
        (get(&summary, "ttft_p50") - 50.0).abs() < 0.6,
        "{}",
        get(&summary, "ttft_p50")
    );
    assert_eq!(metric(&summary, "extrapolated_share"), Some(0.0));
}

#[test]
fn static_batches_wait_for_their_slowest() {
    let engine = |kind: &str| {
        format!(
            r#"
            fleet.engine = {{ kind = "continuous", scheduler = {{ kind = "{kind}", max_num_seqs = 8 }} }}
            [traffic]
            request_rate = "5 req/s"
            num_prompts = 300
            input = {{ kind = "uniform", min = 10, max = 500 }}
            output = {{ kind = "uniform", min = 1, max = 200 }}
            "#
        )
    };
    let (fixed, _) = played(&engine("static"));
    let (continuous, _) = played(&engine("fcfs"));
    // Orca's point: who arrives waits for a whole batch, not for a step.
    assert!(get(&fixed, "queue_mean") > 10.0 * get(&continuous, "queue_mean"));
}

#[test]
fn priorities_with_too_little_memory() {
    let (summary, _) = played(
        r#"
        fleet.engine = { kind = "continuous", scheduler = { kind = "priority" }, kv = { blocks = 300 } }
        classes.hi = { priority = 0 }
        classes.lo = { priority = 10 }
        [traffic]
        request_rate = "30 req/s"
        num_prompts = 400
        input = { kind = "uniform", min = 100, max = 500 }
        output = { kind = "uniform", min = 50, max = 300 }
        clients = [{ name = "h", class = "hi" }, { name = "l", class = "lo" }]
        "#,
    );
    let mean = |class: &str| summary["by_class"][class]["ttft_mean"]["value"].as_f64();
    assert!(
        mean("hi") < mean("lo").map(|ms| ms / 2.0),
        "{:?} {:?}",
        mean("hi"),
        mean("lo")
    );
    assert!(get(&summary, "preemptions") > 0.0);
    let warned = summary["warnings"].to_string();
    assert!(warned.contains("overloaded"), "{warned}");
}

#[test]
fn stations_that_share_have_no_use_for_tokens() {
    let place = Place::new();
    let text = r#"
        version = 1
        fleet.replicas = 2
        fleet.engine = { kind = "station", order = "sharing", price = "$2/h" }
        [traffic]
        request_rate = "14 req/s"
        num_prompts = 3000
        service = { kind = "lognormal", mean = "100ms", sigma = 1.0 }
    "#;
    place.write("s.toml", text);
    let done = place.run("run s.toml").code(0);
    assert!(!done.err.contains("traffic.input"), "{done}");
    let (summary, _) = played(&text.replace("version = 1", ""));
    // Processor sharing makes nobody wait for his begin.
    assert_eq!(metric(&summary, "queue_p99"), Some(0.0));
    // Between one pooled server and two separate ones: 100 ms at least, 1 / (1 - rho) of it at most.
    let mean = get(&summary, "e2e_mean");
    assert!((100.0..333.0).contains(&mean), "{mean} ms");
}

#[test]
fn sixty_four_replicas_and_two_choices() {
    let (summary, rows) = played(&format!(
        "fleet.replicas = 64\ngateway.routing.kind = \"power_of_two\"\n[traffic]\n\
         request_rate = \"300 req/s\"\nnum_prompts = 2000\n{CHAT}"
    ));
    let used: std::collections::BTreeSet<_> = rows.iter().map(|r| &r["replica"]).collect();
    assert_eq!(used.len(), 64);
    assert!(get(&summary, "load_imbalance") < 2.0);
}

#[test]
fn stale_telemetry_under_the_inference_extension() {
    let world = |telemetry: &str| {
        played(&format!(
            "fleet.replicas = 6\nfleet.telemetry = {telemetry}\ngateway.routing.kind = \"gie\"\n\
             [traffic]\nrequest_rate = \"40 req/s\"\nnum_prompts = 800\n{CHAT}\
             prefix = {{ groups = 20, tokens = {{ kind = \"fixed\", tokens = 1000 }}, zipf = 1.0, system_tokens = 100 }}\n"
        ))
        .0
    };
    let stale = world("{ period = \"1s\", delay = \"50ms\" }");
    let fresh = world("{}");
    assert!(get(&stale, "prefix_hit_rate") > 0.5);
    assert!(get(&fresh, "prefix_hit_rate") > 0.5);
    // What is old misleads: they must differ.
    assert_ne!(stale["runs"][0]["digest"], fresh["runs"][0]["digest"]);
}

#[test]
fn a_gateway_queue_with_a_limit_turns_away() {
    let (summary, rows) = played(&format!(
        "fleet.replicas = 2\ngateway.queue = {{ max_in_flight = 4, limit = 10 }}\n[traffic]\n\
         request_rate = \"60 req/s\"\nnum_prompts = 600\n{CHAT}"
    ));
    assert!(get(&summary, "refused") > 0.0);
    assert_eq!(
        summary["refused_by_reason"]["queue_full"].as_f64(),
        metric(&summary, "refused")
    );
    // Two replicas of four and ten places to wait; the next to come is refused at once.
    assert!(get(&summary, "in_system_mean") <= 18.0);
    for row in rows.iter().filter(|r| r["end"].starts_with("refused")) {
        assert_eq!(row["sent_ns"], row["ended_ns"], "{row:?}");
        assert!(row["started_ns"].is_empty(), "{row:?}");
    }
}

#[test]
fn clients_that_lose_patience() {
    let (summary, rows) = played(&format!(
        "fleet.engine = {{ kind = \"continuous\", scheduler = {{ max_num_seqs = 4 }} }}\n\
         classes.default = {{ deadline = \"1500ms\", ttft = \"500ms\" }}\nverification = {{}}\n[traffic]\n\
         request_rate = \"20 req/s\"\nnum_prompts = 500\n{CHAT}"
    ));
    assert!(get(&summary, "abandoned") > 0.0);
    assert!(get(&summary, "goodput") < 1.0);
    for row in &rows {
        let ns = |key: &str| row[key].parse::<i64>().expect("a time");
        let waited = ns("ended_ns") - ns("sent_ns");
        match row["end"].as_str() {
            "abandoned" => assert_eq!(waited, 1_500_000_000, "{row:?}"),
            _ => assert!(
                row["generated_ns"].is_empty()
                    || ns("generated_ns") - ns("sent_ns") <= 1_500_000_000
            ),
        }
    }
}

#[test]
fn bursts_and_days_together() {
    let (summary, rows) = played(&format!(
        "fleet.replicas = 3\n[traffic]\nrequest_rate = \"20 req/s\"\nduration = \"2min\"\n{CHAT}\
         clients = [\n{{ name = \"bursty\", arrivals = {{ kind = \"on_off\", on = \"2s\", off = \"8s\" }} }},\n\
         {{ name = \"daily\", share = 2.0, arrivals = {{ kind = \"diurnal\", amplitude = 0.9, period = \"2min\" }} }},\n]\n"
    ));
    let last = column(&rows, "sent_ns").into_iter().fold(0.0, f64::max);
    assert!(last < 120e9, "{last}");
    // 2400 are expected; bursts of 2 s in 10 s make the number vary by some 10 %.
    assert!((1_600..3_200).contains(&rows.len()), "{}", rows.len());
    assert!(get(&summary, "offered_rate") > 0.0);
}

#[test]
fn answers_of_one_token_have_no_time_per_token() {
    let (summary, _) = played(
        r#"
        [traffic]
        request_rate = "10 req/s"
        num_prompts = 200
        input = { kind = "empirical", tokens = [1, 2, 3] }
        output = { kind = "fixed", tokens = 1 }
        "#,
    );
    assert_eq!(metric(&summary, "ttft_mean"), metric(&summary, "e2e_mean"));
    assert!(
        summary["metrics"]["tpot_mean"].is_null(),
        "{}",
        summary["metrics"]["tpot_mean"]
    );
    assert!(summary["metrics"]["itl_mean"].is_null());
}

#[test]
fn a_single_request_is_measured_and_not_warmed_up_away() {
    let one = "[traffic]\nrequest_rate = \"10 req/s\"\nnum_prompts = 1\n\
               input = { kind = \"fixed\", tokens = 100 }\noutput = { kind = \"fixed\", tokens = 50 }\n";
    for n in [1, 2, 5, 40] {
        let (summary, rows) = played(&one.replace("= 1\n", &format!("= {n}\n")));
        assert_eq!(get(&summary, "finished"), f64::from(n));
        assert_eq!(rows.len(), n as usize);
        let words = summary["warnings"].to_string();
        assert!(n > 1 || !words.contains("1 requests"), "{words}");
    }
}

#[test]
fn prompts_that_are_too_long_are_turned_away() {
    let engine = "fleet.engine = { kind = \"continuous\", max_model_len = 4096 }\n[traffic]\n\
                  request_rate = \"10 req/s\"\nnum_prompts = 300\noutput = { kind = \"fixed\", tokens = 50 }\n";
    let (summary, rows) = played(&format!(
        "{engine}input = {{ kind = \"empirical\", tokens = [100, 10000] }}\n"
    ));
    let long = rows
        .iter()
        .filter(|r| r["prompt_tokens"] == "10000")
        .count();
    let turned_away = rows
        .iter()
        .filter(|r| r["end"].starts_with("refused"))
        .count();
    assert!(long > 100 && long == turned_away, "{long} {turned_away}");
    assert!(summary["refused_by_reason"]["too_long"].as_u64() > Some(0));
    // All of them: a run without an answer is still a run.
    let (summary, _) = played(&format!(
        "{engine}input = {{ kind = \"fixed\", tokens = 10000 }}\n"
    ));
    assert_eq!(get(&summary, "refused"), 300.0);
    assert_eq!(get(&summary, "availability"), 0.0);
    assert!(summary["metrics"]["ttft_mean"].is_null());
}

#[test]
fn all_at_once() {
    let text = format!("[traffic]\nrequest_rate = \"inf\"\nnum_prompts = 300\n{CHAT}");
    let (summary, rows) = played(&text);
    assert!(column(&rows, "sent_ns").iter().all(|&ns| ns == 0.0));
    // A rate of requests that all came in one instant means nothing.
    assert!(summary["metrics"]["offered_rate"].is_null());
    let (closed, rows) = played(&format!("{text}max_concurrency = 16\n"));
    assert!(get(&closed, "in_system_mean") <= 16.0);
    assert!(column(&rows, "sent_ns").iter().any(|&ns| ns > 0.0));
}

#[test]
fn a_run_that_is_cut_off_counts_what_was_under_way() {
    let (summary, rows) = played(&format!(
        "run.cut_off = \"10s\"\n[traffic]\nrequest_rate = \"80 req/s\"\nduration = \"60s\"\n{}",
        CHAT.replace("80.0", "800.0")
    ));
    assert!(get(&summary, "unfinished") > 0.0);
    assert!(
        rows.iter()
            .all(|r| r["ended_ns"].parse::<f64>().is_ok_and(|ns| ns <= 10e9))
    );
}

#[test]
fn a_mixed_fleet_with_a_bucket_per_tenant() {
    let (summary, rows) = played(
        r#"
        fleet.replicas = 1
        fleet.pools = [{ replicas = 2, engine = { kind = "continuous", gpu = "a100-80gb", model = "llama-3.1-8b" } }]
        gateway.routing.kind = "round_robin"
        gateway.admission = { kind = "token_bucket", rate = "5 req/s", burst = 10 }
        run.warm_up = "0s"
        [traffic]
        request_rate = "20 req/s"
        num_prompts = 600
        input = { kind = "fixed", tokens = 300 }
        output = { kind = "fixed", tokens = 100 }
        clients = [{ tenant = "a", share = 9.0 }, { tenant = "b" }]
        "#,
    );
    let refused = |tenant: &str| {
        let of = rows.iter().filter(|r| r["tenant_name"] == tenant);
        of.filter(|r| r["end"].starts_with("refused")).count()
    };
    // 18 requests a second against 5, and 2 against 5.
    assert!(refused("a") > 200, "{}", refused("a"));
    assert_eq!(refused("b"), 0);
    assert_eq!(get(&summary, "refused"), refused("a") as f64);
}

#[test]
fn every_network_hop_is_paid() {
    let world = |network: &str| {
        played(&format!(
            "fleet.network = {network}\nrun.warm_up = \"0s\"\n[traffic]\nrequest_rate = \"1 req/s\"\n\
             num_prompts = 100\ninput = {{ kind = \"fixed\", tokens = 300 }}\noutput = {{ kind = \"fixed\", tokens = 10 }}\n"
        ))
        .0
    };
    let near = world("{}");
    let far = world("{ client_to_gateway = \"20ms\", gateway_to_replica = \"5ms\" }");
    // Requests seldom meet, so the hops show: there and back for the client, there for the queue.
    let more = |name: &str| get(&far, name) - get(&near, name);
    assert!(
        (more("ttft_mean") - 50.0).abs() < 0.5,
        "{}",
        more("ttft_mean")
    );
    assert!(
        (more("e2e_mean") - 50.0).abs() < 0.5,
        "{}",
        more("e2e_mean")
    );
    assert!(
        (more("queue_mean") - 25.0).abs() < 0.5,
        "{}",
        more("queue_mean")
    );
}
