//! Figures by tenant, worked out by hand.

use windtunnel_base::ids::TenantId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::account::Account;
use windtunnel_ledger::result::Standing;
use windtunnel_ledger::result::{Collector, RunResult};
use windtunnel_ledger::rows::{End, Row};
use windtunnel_reports::Summary;
use windtunnel_reports::render::table;
use windtunnel_reports::tenants::{OTHERS, SHOWN};
use windtunnel_scenarios::schema::{ClassSpec, Scenario};

const MS: u64 = 1_000_000;

fn row(request: u32, tenant: u32, ttft: u64) -> Row {
    let sent_ns = u64::from(request) * MS;
    let at = |ms: u64| Some(sent_ns + ms * MS);
    Row {
        request,
        session: 0,
        turn: 0,
        tenant,
        class: 0,
        replica: Some(0),
        end: End::Finished,
        measured: true,
        sent_ns,
        dispatched_ns: at(0),
        accepted_ns: at(0),
        started_ns: at(0),
        first_token_ns: at(ttft),
        generated_ns: at(ttft),
        last_token_ns: at(ttft),
        ended_ns: sent_ns + ttft * MS,
        prompt_tokens: 100,
        cached_tokens: 50,
        output_tokens: 10,
        preemptions: 0,
        accepted_by_verifier: None,
        good: true,
        met_objectives: ttft <= 20,
        attempts: None,
        answer: None,
    }
}

/// Tenants by the number of their requests; every fifth of tenant 0 is refused, whose others take 30 ms, those
/// of the others 10 ms. A hundred dollars for replicas, and one per request of tenant 1 for tokens.
fn run(requests: &[u32]) -> RunResult {
    let mut collector = Collector::new(1, SimDuration::from_secs(1), false);
    collector.compare_tenants();
    let mut request = 0;
    let mut charged = 0;
    for (tenant, &n) in requests.iter().enumerate() {
        for i in 0..n {
            let mut row = row(request, tenant as u32, if tenant == 0 { 30 } else { 10 });
            if tenant == 0 && i % 5 == 0 {
                row.end = End::Refused(Refusal::Shed);
                (row.started_ns, row.met_objectives) = (None, false);
            }
            collector.row(&row, Standing::default());
            if tenant == 1 {
                charged += 1;
                let dollar = 1_000_000_000 * 1_000_000;
                collector.charge(SimTime::from_nanos(MS), TenantId(1), dollar);
            }
            request += 1;
        }
    }
    let money = &mut collector.segment(SimTime::from_nanos(MS)).books.money;
    money.post(Account::Source, Account::Service, 100_000_000_000);
    money.post(Account::Source, Account::Tokens, charged * 1_000_000_000);
    let tenants = collector.take_tenants();
    let (segments, segment_ns, _) = collector.finish();
    RunResult {
        end_ns: 2_000 * MS,
        class_names: vec!["default".into()],
        tenant_names: (0..requests.len()).map(|t| format!("tenant-{t}")).collect(),
        tenants,
        segment_ns,
        segments,
        fixed_warm_up_ns: Some(0),
        ..RunResult::default()
    }
}

fn summary(requests: &[u32]) -> Summary {
    let mut scenario = Scenario::default();
    let class = ClassSpec {
        ttft: "20ms".parse().ok(),
        ..ClassSpec::default()
    };
    scenario.classes.insert("default".into(), class);
    Summary::from_runs(&scenario, "tenants", "hash", &[run(requests)])
}

fn value(summary: &Summary, tenant: &str, metric: &str) -> f64 {
    let figures = &summary.by_tenant[tenant];
    let estimate = figures.get(metric).and_then(|e| e.value);
    estimate.unwrap_or_else(|| panic!("no {metric} of {tenant}"))
}

#[test]
fn each_tenant_has_its_own_figures_and_costs_add_up() {
    let found = summary(&[20, 40]);
    assert_eq!(found.by_tenant.len(), 2);
    let of = |tenant, metric| value(&found, tenant, metric);
    for (metric, expected) in [
        ("sent", [20.0, 40.0]),
        ("finished", [16.0, 40.0]),
        ("refused", [4.0, 0.0]),
        ("goodput", [0.0, 1.0]),
        ("prompt_tokens", [1600.0, 4000.0]),
        ("output_tokens", [160.0, 400.0]),
        // Sixteen requests and forty, each the same work; forty dollars for tokens are the second one's.
        ("cost", [100.0 * 16.0 / 56.0, 100.0 * 40.0 / 56.0 + 40.0]),
        ("prefix_hit_rate", [0.5, 0.5]),
    ] {
        for (tenant, expected) in ["tenant-0", "tenant-1"].into_iter().zip(expected) {
            let found = of(tenant, metric);
            assert!(
                (found - expected).abs() < 1e-9,
                "{tenant} {metric}: {found}"
            );
        }
    }
    // Distributions give a quantile within a part in 1024.
    assert!((of("tenant-0", "ttft_p50") / 30.0 - 1.0).abs() < 1e-3);
    assert!((of("tenant-1", "ttft_p50") / 10.0 - 1.0).abs() < 1e-3);
    let figures = &found.by_tenant["tenant-1"];
    assert_eq!(figures["ttft_p99"].value, None, "too few for that");
    // Figures of requests are those of all, taken apart.
    assert_eq!(found.metrics["sent"].n, 60);
    assert_eq!(found.metrics["cost_total"].value, Some(140.0));
}

#[test]
fn the_largest_are_shown_and_the_others_together() {
    // Forty tenants: the later ones are larger, and only the first 32 are told apart.
    let requests: Vec<u32> = (1..=40).collect();
    let found = summary(&requests);
    assert_eq!(found.by_tenant.len(), SHOWN + 1);
    let table = table::render(&found);
    let mut lines = table.lines().skip_while(|l| !l.starts_with("tenant "));
    let head = lines.next().unwrap_or_default();
    for column in [
        "sent", "refused", "TTFT p50", "goodput", "prompt", "output", "cost",
    ] {
        assert!(head.contains(column), "{head}");
    }
    let names: Vec<&str> = lines
        .take(SHOWN + 1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut expected: Vec<String> = (20..32).rev().map(|t| format!("tenant-{t}")).collect();
    expected.push(OTHERS.to_owned());
    assert_eq!(names, expected);
    assert!(
        table.lines().all(|line| line.chars().count() <= 100),
        "{table}"
    );
    // Nothing is lost.
    let sum = |metric: &str| -> f64 {
        let tenants = found.by_tenant.keys();
        tenants.map(|tenant| value(&found, tenant, metric)).sum()
    };
    assert_eq!(sum("sent"), f64::from(requests.iter().sum::<u32>()));
    let total = found.metrics["cost_total"].value.unwrap_or_default();
    assert!((sum("cost") / total - 1.0).abs() < 1e-9);
}

#[test]
fn one_tenant_alone_is_everybody() {
    let found = summary(&[20]);
    assert!(found.by_tenant.is_empty());
    let json = serde_json::to_string(&found).expect("a summary");
    assert!(!json.contains("by_tenant"));
    assert!(!table::render(&found).contains("\ntenant "));
}
