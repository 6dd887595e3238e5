//! Every metric is its formula on a hand-made ledger of ten requests: the numbers here were worked
//! out with pen and paper.

use std::collections::BTreeMap;
use windtunnel_base::ids::ClassId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::account::Account;
use windtunnel_ledger::computed::{ComputedTotals, LayerTotals, SignalTotals, StoredTotals};
use windtunnel_ledger::decision::GatewayTotals;
use windtunnel_ledger::gateway::{DriftTotals, PathTotals, PipelineTotals, ProbeTotals, StageKind};
use windtunnel_ledger::result::Standing;
use windtunnel_ledger::result::{Collector, ReplicaSample, ReplicaTotals, RunResult, Sample};
use windtunnel_ledger::rollout::{RolloutOutcome, RolloutStageTotals, RolloutTotals};
use windtunnel_ledger::rows::{End, Row};
use windtunnel_ledger::scaling::ScalingTotals;
use windtunnel_ledger::shared_cache::SharedCacheTotals;
use windtunnel_ledger::state_store::{IndexTotals, StoreTotals};
use windtunnel_reports::Summary;
use windtunnel_reports::metric::METRICS;
use windtunnel_scenarios::schema::{ClassSpec, Scenario, VerificationSpec};

const MS: u64 = 1_000_000;
const MEGA: u64 = 1_000_000;

/// Sent half a second after the one before, started 50 ms later.
fn row(request: u32, end: End) -> Row {
    let sent_ns = u64::from(request) * 500 * MS;
    Row {
        request,
        session: u64::from(request),
        turn: 0,
        tenant: 0,
        class: 0,
        replica: Some(0),
        end,
        measured: false,
        sent_ns,
        dispatched_ns: Some(sent_ns),
        accepted_ns: Some(sent_ns),
        started_ns: Some(sent_ns + 50 * MS),
        first_token_ns: None,
        generated_ns: None,
        last_token_ns: None,
        ended_ns: sent_ns + 900 * MS,
        prompt_tokens: 100,
        cached_tokens: 0,
        output_tokens: 0,
        preemptions: 0,
        accepted_by_verifier: None,
        good: true,
        met_objectives: false,
        attempts: None,
        answer: None,
    }
}

/// A finished one: time to first token and end-to-end latency in ms.
fn finished(request: u32, ttft: u64, e2e: u64, output_tokens: u32) -> Row {
    let row = row(request, End::Finished);
    Row {
        first_token_ns: Some(row.sent_ns + ttft * MS),
        generated_ns: Some(row.sent_ns + e2e * MS),
        last_token_ns: Some(row.sent_ns + e2e * MS),
        ended_ns: row.sent_ns + e2e * MS,
        output_tokens,
        accepted_by_verifier: Some(true),
        met_objectives: true,
        ..row
    }
}

fn ten() -> [(Row, bool); 10] {
    let turned_away = |request, reason| Row {
        class: 1,
        replica: None,
        started_ns: None,
        ..row(request, End::Refused(reason))
    };
    [
        (finished(0, 100, 1000, 10), true),
        (
            Row {
                prompt_tokens: 200,
                cached_tokens: 100,
                ..finished(1, 200, 1100, 10)
            },
            true,
        ),
        (
            Row {
                cached_tokens: 50,
                accepted_by_verifier: Some(false),
                ..finished(2, 300, 1300, 11)
            },
            false,
        ),
        // One token: no TPOT. Bad, and the verifier did not see it.
        (
            Row {
                good: false,
                ..finished(3, 400, 400, 1)
            },
            false,
        ),
        // Too late for its objectives.
        (
            Row {
                prompt_tokens: 300,
                cached_tokens: 150,
                met_objectives: false,
                ..finished(4, 500, 2500, 21)
            },
            false,
        ),
        (
            Row {
                class: 1,
                ..finished(5, 600, 1600, 6)
            },
            true,
        ),
        (turned_away(6, Refusal::QueueFull), false),
        (turned_away(7, Refusal::RateLimited), false),
        (
            Row {
                cached_tokens: 100,
                preemptions: 2,
                ..row(8, End::Abandoned)
            },
            false,
        ),
        (
            Row {
                class: 1,
                prompt_tokens: 1000,
                preemptions: 1,
                ..row(9, End::Unfinished)
            },
            false,
        ),
    ]
}

/// Ten seconds with the ten requests in the first five.
fn run(warm_up_ns: u64) -> RunResult {
    let mut collector = Collector::new(2, SimDuration::from_secs(1), true);
    for (row, useful) in ten() {
        let standing = Standing {
            useful,
            ..Standing::default()
        };
        collector.row(&row, standing);
    }
    let late = SimTime::from_nanos(9_900 * MS);
    collector.gap(late, ClassId(0), SimDuration::from_millis(100), 3);
    collector.gap(late, ClassId(1), SimDuration::from_millis(200), 1);
    // Nine checks and as many verdicts, one of them wrong each way. The
    // verifier made everybody wait twenty milliseconds longer.
    collector.count(late, ClassId(0), |p| {
        p.checks = 9;
        (p.good_accepted, p.bad_accepted) = (4, 1);
        (p.good_rejected, p.bad_caught) = (1, 3);
        p.with_verifier.record(50 * MS, 10);
        p.without_verifier.record(30 * MS, 10);
    });
    let segment = collector.segment(late);
    let books = &mut segment.books;
    for (account, usd) in [
        (Account::Decode, 6),
        (Account::Idle, 3),
        (Account::Verification, 1),
    ] {
        books
            .money
            .post(Account::Source, account, usd * 1_000_000_000);
    }
    for (account, watt_hours) in [(Account::Decode, 9), (Account::Verification, 1)] {
        books
            .energy
            .post(Account::Source, account, watt_hours * 3_600_000_000);
    }
    books.prompt_tokens_computed = 1500;
    books.prompt_tokens_cached = 500;
    books.output_tokens_generated = 100;
    (books.batch_room, books.batch_padding) = (400, 100);
    (
        segment.steps,
        segment.extrapolated_steps,
        segment.decode_seqs,
    ) = (10, 1, 40);
    let (segments, segment_ns, rows) = collector.finish();
    let replica = |kv_held| ReplicaSample {
        kv_held,
        kv_total: 50,
        ..ReplicaSample::default()
    };
    let sample = |at_ns, in_system, held: [u64; 2]| Sample {
        at_ns,
        in_system,
        replicas: held.map(replica).to_vec(),
        ..Sample::default()
    };
    let totals = |prompt_tokens, output_tokens| ReplicaTotals {
        requests: 4,
        prompt_tokens,
        output_tokens,
        busy_ns: 0,
    };
    RunResult {
        seed: 1,
        digest: "d".into(),
        end_ns: 10_000 * MS,
        class_names: vec!["chat".into(), "batch".into()],
        tenant_names: vec!["default".into()],
        segment_ns,
        segments,
        fixed_warm_up_ns: Some(warm_up_ns),
        samples: vec![
            sample(3_000 * MS, 2, [10, 20]),
            sample(6_000 * MS, 4, [50, 0]),
        ],
        replicas: vec![totals(200, 100), totals(60, 40)],
        rows,
        pipeline: Some(stages()),
        paths: Some(PathTotals {
            eligible: 8,
            kernel: 6,
            leaked: 2,
            reserved: 12,
            fallbacks: Some(3),
            quarantined: 2,
            probing: Some(ProbeTotals {
                probes: 9,
                compared: 8,
                differed: 2,
                price_nano_usd: 450_000_000,
                alarms: 4,
                false_alarms: 1,
            }),
            drift: Some(DriftTotals {
                drifts: 5,
                detected: 3,
                delay_ns: 60 * MS,
                bad_outputs: 7,
            }),
            ..PathTotals::default()
        }),
        rollouts: vec![rolled_back()],
        state_store: Some(store()),
        index: Some(IndexTotals {
            peak_entries: 7,
            followed: 6,
            placed: 2,
            over_bound: 1,
            unknown: 1,
            false_affinity: 3,
            ..IndexTotals::default()
        }),
        gateway: GatewayTotals {
            dispatched: 20,
            stale_routes: Some(2),
            ejections: Some(3),
            ..GatewayTotals::default()
        },
        shared_cache: Some(SharedCacheTotals {
            prompt_tokens: 1000,
            local_tokens: 200,
            shared_tokens: 300,
            refills: 5,
            refill_ns: 50 * MS,
            hidden_ns: 20 * MS,
            fetched_tokens: 400,
            ..SharedCacheTotals::default()
        }),
        computed: Some(computed()),
        ..RunResult::default()
    }
}

/// A kernel withdrawn after four seconds.
fn rolled_back() -> RolloutTotals {
    let stage = |from, to, exposed, harm, risk| RolloutStageTotals {
        from_ns: from * MS,
        to_ns: Some(to * MS),
        exposed,
        harm,
        risk: Some(risk),
        ..RolloutStageTotals::default()
    };
    RolloutTotals {
        kernel: "k".into(),
        outcome: RolloutOutcome::RolledBack,
        decided_at_ns: Some(5_000 * MS),
        stages: vec![
            stage(1_000, 2_000, 0, 0.0, 0.0),
            stage(2_000, 5_000, 11, 4.5, 3.0),
        ],
    }
}

/// Ten tokens computed with all layers on.
fn computed() -> ComputedTotals {
    let stored = |blocks| StoredTotals {
        blocks,
        bytes: blocks * MEGA,
    };
    ComputedTotals {
        tokens: 10,
        launches: 250,
        operations: 70 * MEGA,
        weight_bytes: 30 * MEGA,
        kv_read_bytes: 8 * MEGA,
        kv_written_bytes: 2 * MEGA,
        model_steps: 4,
        model_sequences: 6,
        kv_mean_bytes: 3e6,
        counted_seconds: 2.0,
        layers: Some(LayerTotals {
            on: [true; 6],
            turns: 8,
            skipped: 2,
            skipped_wrong: 1,
            danger_runs: 1,
            computed_tokens: 8,
            short_tokens: 6,
            critical_short: 3,
            drafts: 12,
            drafts_kept: 9,
            draft_steps: 3,
            // As pages of one number: 16 and 8 bits are told apart by their count alone.
            f16: stored(1),
            int8: stored(3),
            fp8: stored(16),
            accepted: 5,
            checks: 4,
            mismatches: 1,
            false_accepts: 0.5,
            checking_seconds: 0.1,
            compared: 3,
            compared_tokens: 20,
            same_tokens: 19,
            drawn_tokens: 16,
            divergence: 0.8,
            publications: 7,
            lost_publications: 1,
            signals: SignalTotals {
                risk: 0.25,
                novelty: 0.5,
                drift: 0.125,
                confidence: 0.75,
            },
            skip_threshold: 0.12,
            route_threshold: 0.4,
        }),
    }
}

/// Nine requests of 1 to 9 ms in two stages, four of them attacks.
fn stages() -> PipelineTotals {
    let has = |kind| matches!(kind, StageKind::Parse | StageKind::IngressFilter);
    let mut totals = PipelineTotals::new(StageKind::ALL.map(has));
    for i in 1..=9 {
        for kind in [StageKind::Parse, StageKind::IngressFilter] {
            totals.stages[kind as usize].record(MS, None, true);
        }
        totals.passed(i * MS, Some(8 * MS));
    }
    (
        totals.attacks,
        totals.attacks_blocked,
        totals.honest_blocked,
    ) = (4, 3, 1);
    totals
}

fn store() -> StoreTotals {
    let mut totals = StoreTotals {
        reads: 40,
        unasked: 10,
        blind: 5,
        writes: 20,
        ..StoreTotals::default()
    };
    totals.read.record(MS, 10);
    totals
}

/// Metrics of runs with stored answers or with clients that try again; those have tests of their own.
const OF_OTHER_RUNS: &[&str] = &[
    "stored_answer_hit_rate",
    "stale_answer_rate",
    "coalesced_rate",
    "wrong_answer_rate",
    "origin_calls",
    "origin_calls_per_flight",
    "origin_call_peak",
    "amplification",
    "retries",
    "hedges",
    "throttled",
    "wasted_share",
    "replicas_mean",
    "replicas_peak",
    "replica_hours",
    "replica_orders",
    "time_to_capacity",
    "short_of_capacity",
    "signal_correlation",
    "gateway_queue_peak",
];

/// Of a fleet that scales: 36 replica-seconds in 10 s.
#[test]
fn metrics_of_scaling_are_their_formulas() {
    let mut run = run(0);
    let mut scaling = ScalingTotals {
        orders: 3,
        peak: 5,
        provisioned_ns: 36_000_000_000,
        checks: 20,
        short_checks: 5,
        ..ScalingTotals::default()
    };
    for (seconds, (cpu, load)) in [(2, (0.1, 1.0)), (4, (0.3, 3.0))] {
        scaling.time_to_capacity.record(seconds * 1_000 * MS, 1);
        scaling.signal.add(cpu, load);
    }
    run.scaling = Some(scaling);
    (run.gateway.queued, run.gateway.queue_peak) = (9, 4);
    let summary = Summary::from_runs(&scenario(), "ten", "hash", &[run]);
    for (name, value, n) in [
        ("replicas_mean", 3.6, 20),
        ("replicas_peak", 5.0, 5),
        ("replica_hours", 0.01, 20),
        ("replica_orders", 3.0, 3),
        ("time_to_capacity", 3_000.0, 2),
        ("short_of_capacity", 0.25, 20),
        ("signal_correlation", 1.0, 2),
        ("gateway_queue_peak", 4.0, 4),
    ] {
        let found = &summary.metrics[name];
        let distance = (found.value.expect(name) - value).abs();
        assert!(distance < 1e-9 && found.n == n, "{name}: {found:?}");
    }
    // Replicas that come and go have no equal shares to compare.
    assert!(!summary.metrics.contains_key("load_imbalance"));
    let text = windtunnel_reports::render::table::render(&summary);
    let line = text.lines().find(|l| l.starts_with("scaling"));
    let told = "scaling  3.60 replicas on average · 5 at most · 0.0100 h paid · 3 ordered";
    assert!(line.is_some_and(|line| line.starts_with(told)), "{text}");
}

fn scenario() -> Scenario {
    let objective = ClassSpec {
        ttft: "1s".parse().ok(),
        ..ClassSpec::default()
    };
    Scenario {
        classes: [
            ("chat".to_owned(), objective.clone()),
            ("batch".to_owned(), objective),
        ]
        .into(),
        verification: Some(VerificationSpec::default()),
        ..Scenario::default()
    }
}

fn summary(warm_up_ns: u64) -> Summary {
    Summary::from_runs(&scenario(), "ten", "hash", &[run(warm_up_ns)])
}

#[test]
fn every_metric_is_its_formula() {
    let expected: BTreeMap<&str, (f64, u64)> = [
        ("ttft_mean", (2100.0 / 6.0, 6)),
        ("tpot_mean", ((4.0 * 100.0 + 200.0) / 5.0, 5)),
        ("itl_mean", ((3.0 * 100.0 + 200.0) / 4.0, 4)),
        ("e2e_mean", (7900.0 / 6.0, 6)),
        ("queue_mean", (50.0, 8)),
        // Requests 0, 1, 2, 3 and 5 met their objectives; all ten count.
        ("goodput", (0.5, 10)),
        ("goodput_rate", (5.0 / 10.0, 5)),
        // The last is sent at 4.5 s.
        ("offered_rate", (10.0 / 4.5, 10)),
        ("request_throughput", (6.0 / 10.0, 6)),
        ("output_token_throughput", (59.0 / 10.0, 6)),
        // Request 3 finished with a bad answer.
        ("availability", (0.5, 10)),
        ("sent", (10.0, 10)),
        ("finished", (6.0, 6)),
        ("refused", (2.0, 2)),
        ("abandoned", (1.0, 1)),
        ("unfinished", (1.0, 1)),
        ("preemptions", (3.0, 3)),
        ("prefix_hit_rate", (400.0 / 2000.0, 8)),
        ("padding_share", (0.25, 400)),
        ("verification_pass_rate", (5.0 / 6.0, 6)),
        ("accepted_outputs", (5.0, 5)),
        ("verified_useful_outputs", (3.0, 3)),
        ("cost_total", (10.0, 10)),
        ("cost_per_verified_output", (10.0 / 3.0, 3)),
        ("cost_per_accepted_output", (10.0 / 5.0, 5)),
        ("energy_total", (10.0, 10)),
        ("energy_per_verified_output", (10.0 / 3.0, 3)),
        // 100 + 0.2 * 1500 + 0.02 * 500 = 410.
        ("toten_per_verified_output", (410.0 / 3.0, 3)),
        ("toten_raw_per_verified_output", (2100.0 / 3.0, 3)),
        ("verifier_tax", (0.1, 6)),
        // Within one part in 1024, as all quantiles: both lie on the grid.
        ("verifier_tax_latency", (20.0, 10)),
        ("verifier_tax_energy", (0.1, 9)),
        ("verifier_spend", (1.0, 9)),
        ("verifier_energy", (1.0, 9)),
        ("checks_per_answer", (1.0, 9)),
        ("bad_caught", (3.0, 3)),
        ("bad_accepted", (1.0, 1)),
        ("good_rejected", (1.0, 1)),
        // A dollar and a cent.
        ("error_cost", (1.01, 9)),
        // Three dollars saved, one for checks, a cent for the good one.
        ("net_verifier_value", (3.0 - 1.0 - 0.01, 9)),
        ("load_imbalance", (300.0 / 200.0, 8)),
        ("batch_mean", (4.0, 10)),
        ("in_system_mean", (3.0, 2)),
        // 30 of 100 blocks, then 50 of 100.
        ("kv_usage_mean", (0.4, 2)),
        ("extrapolated_share", (0.1, 10)),
        ("bad_release_rate", (0.2, 5)),
        ("gateway_latency_mean", (5.0, 9)),
        ("gateway_over_budget", (1.0 / 9.0, 9)),
        ("gateway_left_out", (0.0, 0)),
        ("attacks_blocked", (0.75, 4)),
        ("honest_blocked", (0.2, 5)),
        ("kernel_hit_rate", (0.75, 8)),
        ("leakage_rate", (0.25, 8)),
        ("frontier_escalation_rate", (0.1, 20)),
        ("fallback_rate", (0.5, 6)),
        // In ten seconds.
        ("store_read_rate", (4.0, 40)),
        ("store_write_rate", (2.0, 20)),
        ("store_blind_share", (0.1, 50)),
        ("affinity_share", (0.6, 10)),
        ("affinity_entries_peak", (7.0, 7)),
        ("false_affinity", (0.5, 6)),
        ("stale_route_rate", (0.1, 20)),
        ("ejections", (3.0, 3)),
        ("local_cache_hit_rate", (0.2, 1000)),
        ("shared_cache_hit_rate", (0.3, 1000)),
        ("refills", (5.0, 5)),
        ("refill_mean", (10.0, 5)),
        ("refill_hidden_share", (0.4, 5)),
        ("refill_wasted_share", (0.25, 400)),
        ("launches_per_token", (25.0, 10)),
        ("operations_per_token", (7.0, 10)),
        ("moved_per_token", (4.0, 10)),
        ("kv_in_use_mean", (3.0, 4)),
        ("span_mean", (1.5, 4)),
        ("turns_skipped", (0.25, 8)),
        ("wrong_skips", (0.5, 2)),
        ("skip_threshold", (0.12, 8)),
        ("short_path_share", (0.75, 8)),
        ("critical_short", (3.0, 3)),
        ("probes", (9.0, 9)),
        ("probe_cost", (0.45, 9)),
        ("probe_disagreement", (0.25, 8)),
        ("drift_alarms", (4.0, 4)),
        ("drift_false_alarms", (1.0, 1)),
        ("drift_quarantine", (0.25, 8)),
        ("drift_delay", (20.0, 3)),
        ("drifts_unnoticed", (2.0, 2)),
        ("drift_bad_outputs", (7.0, 7)),
        ("rollout_exposure", (11.0, 11)),
        ("rollout_harm", (4.5, 2)),
        ("rollout_risk", (3.0, 2)),
        ("rollout_time", (4_000.0, 1)),
        ("rollouts_withdrawn", (1.0, 1)),
        ("draft_acceptance", (0.75, 12)),
        ("tokens_per_draft_step", (4.0, 3)),
        ("route_threshold", (0.4, 8)),
        ("kv_bits_mean", (8.4, 20)),
        ("kv_f16_stored", (1.0, 20)),
        ("kv_int8_stored", (3.0, 20)),
        ("kv_fp8_stored", (16.0, 20)),
        ("shadow_checks", (4.0, 4)),
        ("shadow_mismatches", (1.0, 1)),
        ("shadow_false_accepts", (0.1, 5)),
        ("shadow_time_share", (0.05, 4)),
        ("compared_answers", (3.0, 3)),
        ("token_agreement", (0.95, 20)),
        ("token_divergence", (0.05, 16)),
        ("risk_signal", (0.25, 7)),
        ("novelty_signal", (0.5, 7)),
        ("drift_signal", (0.125, 7)),
        ("confidence_signal", (0.75, 7)),
    ]
    .into();
    let summary = summary(0);
    for metric in METRICS {
        if OF_OTHER_RUNS.contains(&metric.name) {
            assert!(
                !summary.metrics.contains_key(metric.name),
                "{}",
                metric.name
            );
            continue;
        }
        let estimate = &summary.metrics[metric.name];
        assert_eq!(estimate.unit, metric.unit);
        if let Some(&(value, n)) = expected.get(metric.name) {
            let read = estimate.value.unwrap();
            assert!(
                (read - value).abs() < 1e-9,
                "{} {read} {value}",
                metric.name
            );
            assert_eq!(estimate.n, n, "{}", metric.name);
        } else {
            // Ten requests cannot support a quantile: p50 needs ten that finished.
            assert!(metric.name.contains("_p"), "{} is not tested", metric.name);
            assert_eq!(estimate.value, None, "{}", metric.name);
            let reason = estimate.reason.as_deref().unwrap();
            assert!(reason.contains("values per run, there are"), "{reason}");
        }
    }
    let refused: Vec<_> = summary.refused_by_reason.into_iter().collect();
    assert_eq!(
        refused,
        [("queue_full".to_owned(), 1), ("rate_limited".to_owned(), 1)]
    );
}

#[test]
fn classes_divide_the_requests() {
    let summary = summary(0);
    let of = |class: &str, name: &str| summary.by_class[class][name].value.unwrap();
    assert_eq!((of("chat", "sent"), of("batch", "sent")), (6.0, 4.0));
    assert_eq!(of("chat", "ttft_mean"), 1500.0 / 5.0);
    assert_eq!(
        (of("batch", "ttft_mean"), of("batch", "tpot_mean")),
        (600.0, 200.0)
    );
    assert_eq!(
        (of("chat", "goodput"), of("batch", "goodput")),
        (4.0 / 6.0, 0.25)
    );
    // Nobody keeps books by class.
    assert!(!summary.by_class["chat"].contains_key("cost_total"));
}

#[test]
fn a_fixed_warm_up_drops_whole_segments() {
    // 1.5 s reaches into the second segment, so both go: requests 0 to 3.
    let summary = summary(1_500 * MS);
    assert_eq!(summary.runs[0].steady.window.from_ns, 2_000 * MS);
    assert_eq!(summary.metrics["sent"].value, Some(6.0));
    assert_eq!(summary.metrics["ttft_mean"].value, Some(1100.0 / 2.0));
    // Two of those sent in the window finished, and one that was sent before it.
    assert_eq!(summary.metrics["request_throughput"].value, Some(3.0 / 8.0));
    // Postings of the kept segments stay, whoever they were made for.
    assert_eq!(summary.metrics["cost_total"].value, Some(10.0));
    let mut rows = run(0).rows;
    summary.runs[0].steady.window.mark(&mut rows);
    let measured: Vec<u32> = rows
        .iter()
        .filter(|r| r.measured)
        .map(|r| r.request)
        .collect();
    assert_eq!(measured, [4, 5, 6, 7, 8, 9]);
}

#[test]
fn what_a_scenario_cannot_have_is_absent() {
    let bare = Scenario::default();
    let mut run = run(0);
    run.replicas.truncate(1);
    run.samples.clear();
    for segment in &mut run.segments {
        segment.books = Default::default();
    }
    let summary = Summary::from_runs(&bare, "bare", "hash", &[run]);
    for name in [
        "goodput",
        "goodput_rate",
        "verified_useful_outputs",
        "accepted_outputs",
        "cost_total",
        "cost_per_verified_output",
        "energy_total",
        "toten_per_verified_output",
        "verifier_tax",
        "load_imbalance",
        "in_system_mean",
        "kv_usage_mean",
    ] {
        assert!(!summary.metrics.contains_key(name), "{name}");
    }
    assert!(summary.metrics.contains_key("availability"));
}

#[test]
fn no_useful_output_is_a_reason_not_a_number() {
    let mut run = run(0);
    for segment in &mut run.segments {
        segment.all.verified_useful = 0;
    }
    let summary = Summary::from_runs(&scenario(), "ten", "hash", &[run]);
    let cost = &summary.metrics["cost_per_verified_output"];
    assert_eq!((cost.value, cost.n), (None, 0));
    let json = serde_json::to_value(cost).unwrap();
    assert_eq!(json["value"], serde_json::Value::Null);
    assert_eq!(json["reason"], "no answer was accepted in time and good");
}

#[test]
fn quantiles_are_those_of_sorting() {
    let mut run = run(0);
    let all = &mut run.segments[0].all;
    *all = Default::default();
    (1..=1000).for_each(|i| all.ttft.record(i * MS, 1));
    (1..=499).for_each(|i| all.e2e.record(i * MS, 1));
    for segment in &mut run.segments[1..] {
        segment.all = Default::default();
    }
    let summary = Summary::from_runs(&scenario(), "ten", "hash", &[run]);
    for (name, exact) in [
        ("ttft_p50", 500.0),
        ("ttft_p90", 900.0),
        ("ttft_p99", 990.0),
    ] {
        let value = summary.metrics[name].value.unwrap();
        assert!(
            (exact..=exact * (1.0 + 1.0 / 1024.0)).contains(&value),
            "{name} {value}"
        );
    }
    // Four and a bit beyond the 99th percentile of 499 values are too few.
    assert_eq!(summary.metrics["e2e_p99"].value, None);
    let reason = summary.metrics["e2e_p99"].reason.clone().unwrap();
    assert_eq!(
        reason,
        "p99 needs at least 500 values per run, there are 499"
    );
    assert!(summary.metrics["e2e_p90"].value.is_some());
}
