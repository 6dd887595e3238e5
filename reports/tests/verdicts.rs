//! Verdicts: steadiness, conditions, comparisons, explanations.

mod common;

use windtunnel_ledger::decision::Decision;
use windtunnel_ledger::entry::{Entry, Fact};
use windtunnel_ledger::result::{Population, RunResult, Sample, Segment};
use windtunnel_ledger::rows::{End, Row};
use windtunnel_reports::Summary;
use windtunnel_reports::compare::{self, Change, CompareError};
use windtunnel_reports::explain::{self, ExplainError, Network, Part};
use windtunnel_reports::steady::{self, Stationarity};
use windtunnel_reports::threshold::Verdict;
use windtunnel_scenarios::schema::Scenario;

const SECOND: u64 = 1_000_000_000;

/// A run of one-second segments with these levels of requests in the system, each request taking
/// as many tenths of a second; a hundred are sent in each but the last, which nobody counts.
fn leveled(levels: &[u32]) -> RunResult {
    let segment = |&level: &u32| {
        let mut all = Population {
            sent: 100,
            finished: 100,
            ..Population::default()
        };
        all.e2e.record(u64::from(level) * SECOND / 10, 100);
        Segment {
            all,
            ..Segment::default()
        }
    };
    let sample = |(i, &level): (usize, &u32)| Sample {
        at_ns: i as u64 * SECOND + 1,
        in_system: level,
        ..Sample::default()
    };
    RunResult {
        segment_ns: SECOND,
        end_ns: levels.len() as u64 * SECOND,
        segments: levels.iter().map(segment).collect(),
        samples: levels.iter().enumerate().map(sample).collect(),
        class_names: vec!["default".into()],
        ..RunResult::default()
    }
}

#[test]
fn warm_up_ends_where_levels_settle() {
    // Five segments of filling up, then noise around 50.
    let levels = [
        2, 12, 22, 32, 42, 50, 51, 49, 50, 50, 51, 49, 50, 51, 49, 50, 50, 49, 51, 50,
    ];
    let found = steady::assess(&leveled(&levels));
    assert_eq!(
        found.verdict,
        Stationarity::Stationary,
        "{}",
        found.evidence
    );
    assert_eq!(found.window.first_segment, 5);
    assert_eq!(found.window.from_ns, 5 * SECOND);
    assert!(found.window.detected);
    // Settled from the start: nothing goes.
    let found = steady::assess(&leveled(&[50, 51, 49, 50, 50, 51, 49, 50, 51, 49, 50, 50]));
    assert_eq!(
        (found.window.first_segment, found.verdict),
        (0, Stationarity::Stationary)
    );
}

#[test]
fn what_piles_up_is_overloaded() {
    let growing: Vec<u32> = (0..20).map(|i| 10 + 5 * i).collect();
    let found = steady::assess(&leveled(&growing));
    assert_eq!(found.verdict, Stationarity::Growing);
    assert!(
        found.evidence.contains("grow by 5.000 per second"),
        "{}",
        found.evidence
    );
    assert!(
        found.evidence.contains("100.000 per second arrive"),
        "{}",
        found.evidence
    );
    // Half a request in a hundred stays: within what chance does.
    let creeping: Vec<u32> = (0..20).map(|i| 500 + i / 2).collect();
    assert_ne!(
        steady::assess(&leveled(&creeping)).verdict,
        Stationarity::Growing
    );
}

#[test]
fn a_growing_load_is_told_from_a_slow_system() {
    let mut run = leveled(&(0..20).map(|i| 10 + 5 * i).collect::<Vec<_>>());
    assert!(!steady::assess(&run).evidence.contains("more at the end"));
    // From 106 per segment at the fifth (the earliest cut as good as the best one, which is half) to
    // 119 at the last but one.
    for (segment, sent) in run.segments.iter_mut().zip(101..) {
        segment.all.sent = sent;
    }
    let found = steady::assess(&run);
    assert_eq!(found.verdict, Stationarity::Growing);
    assert!(
        found
            .evidence
            .ends_with(", 12 % more at the end than at the begin"),
        "{}",
        found.evidence
    );
}

#[test]
fn growth_shows_with_a_fixed_warm_up_too() {
    let mut run = leveled(&(0..20).map(|i| 10 + 5 * i).collect::<Vec<_>>());
    run.fixed_warm_up_ns = Some(3 * SECOND);
    let found = steady::assess(&run);
    assert_eq!(
        (found.verdict, found.window.first_segment),
        (Stationarity::Growing, 3)
    );
    assert!(!found.window.detected);
    // A warm-up longer than the run leaves its last segment, not nothing.
    run.fixed_warm_up_ns = Some(3_000 * SECOND);
    assert_eq!(steady::assess(&run).window.first_segment, 19);
}

#[test]
fn short_runs_do_not_pretend() {
    let found = steady::assess(&leveled(&[50; 5]));
    assert_eq!(found.verdict, Stationarity::TooShort);
    let found = steady::assess(&RunResult::default());
    assert_eq!(found.verdict, Stationarity::TooShort);
    // A jump in the last third: half the run is the most that warm-up may take.
    let jump: Vec<u32> = (0..20).map(|i| if i < 14 { 10 } else { 90 - i }).collect();
    assert_ne!(
        steady::assess(&leveled(&jump)).verdict,
        Stationarity::Stationary
    );
}

fn summary(conditions: &[&str], runs: &[RunResult]) -> Summary {
    let scenario = Scenario {
        thresholds: conditions.iter().map(|&c| c.to_owned()).collect(),
        ..common::scenario()
    };
    Summary::from_runs(&scenario, "x", "h", runs)
}

#[test]
fn conditions_pass_fail_or_stay_open() {
    let runs: Vec<_> = (1..=5).map(|seed| common::run(seed, 11.0)).collect();
    let p99 = summary(&[], &runs).metrics["tpot_p99"].clone();
    let [low, high] = p99.ci95.unwrap();
    let limits = [high + 0.01, low - 0.01, p99.value.unwrap()];
    let conditions = limits.map(|ms| format!("p99(tpot) <= {:.0}ns", ms * 1e6));
    let texts: Vec<&str> = conditions.iter().map(String::as_str).collect();
    let judged = summary(&texts, &runs);
    let verdicts: Vec<_> = judged.thresholds.iter().map(|t| t.verdict).collect();
    assert_eq!(verdicts, [Verdict::Pass, Verdict::Fail, Verdict::Undecided]);
    assert_eq!(
        (judged.ci.passed, judged.ci.failed, judged.ci.undecided),
        (1, 1, 1)
    );
    assert_eq!(judged.ci.verdict, Verdict::Fail, "the worst counts");
    let margins: Vec<_> = judged
        .thresholds
        .iter()
        .map(|t| t.margin.unwrap())
        .collect();
    assert!(margins[0] > 0.0 && margins[1] < 0.0);
    assert!((margins[0] - (limits[0] - p99.value.unwrap())).abs() < 1e-5);
    // One seed: its figure decides.
    let judged = summary(&texts[..2], &runs[..1]);
    assert!(
        judged
            .thresholds
            .iter()
            .all(|t| t.verdict != Verdict::Undecided)
    );
}

#[test]
fn conditions_on_what_is_not_there_are_undecided() {
    let runs = [common::run(1, 11.0)];
    let judged = summary(
        &[
            "p99.99(ttft) <= 1s",
            "p50(ttft{class=nobody}) <= 1s",
            "cost_total{class=batch} <= $1",
        ],
        &runs,
    );
    for outcome in &judged.thresholds {
        assert_eq!(outcome.verdict, Verdict::Undecided, "{}", outcome.condition);
        assert_eq!(outcome.value, None);
        assert!(outcome.reason.is_some());
    }
    let reason = judged.thresholds[0].reason.clone().unwrap();
    assert!(
        reason.starts_with("p99.99 needs at least 50000 values"),
        "{reason}"
    );
    assert_eq!(judged.ci.verdict, Verdict::Undecided);
}

#[test]
fn a_condition_on_a_class_reads_that_class() {
    let runs = [common::run(1, 11.0)];
    let judged = summary(
        &[
            "goodput{class=batch} >= 0.5",
            "mean(ttft{class=batch}) >= 0ms",
        ],
        &runs,
    );
    let of = |name: &str| judged.by_class["batch"][name].value;
    assert_eq!(judged.thresholds[0].value, of("goodput"));
    assert_eq!(judged.thresholds[1].value, of("ttft_mean"));
    assert_ne!(of("goodput"), judged.metrics["goodput"].value);
}

#[test]
fn comparisons_pair_by_seed() {
    let base: Vec<_> = (1..=6).map(|seed| common::run(seed, 9.0)).collect();
    let mut other = base.clone();
    other.remove(0);
    for (i, run) in other.iter_mut().enumerate() {
        run.digest.push('x');
        for segment in &mut run.segments {
            // Ten to fourteen milliseconds more, whatever the seed's own level is.
            let n = segment.all.e2e.count();
            let mean = segment.all.e2e.mean().unwrap_or(0.0) as u64;
            segment.all.e2e = Default::default();
            segment
                .all
                .e2e
                .record(mean + (10 + i as u64) * 1_000_000, n);
        }
    }
    let (base, other) = (summary(&[], &base), summary(&[], &other));
    let compared = compare::compare(&base, &other).unwrap();
    assert_eq!(compared.seeds, [2, 3, 4, 5, 6]);
    let of = |name: &str| {
        compared
            .metrics
            .iter()
            .find(|m| m.metric == name && m.class.is_none())
            .unwrap()
    };
    let e2e = of("e2e_mean");
    // Mean of 10 to 14 ms; variance 2.5, t(4) = 2.776. The levels of the seeds differ by far
    // more, so unpaired intervals would overlap.
    assert!((e2e.difference - 12.0).abs() < 1e-3, "{e2e:?}");
    let [low, high] = e2e.ci95.unwrap();
    assert!(
        (high - low - 2.0 * 2.776 * (2.5_f64 / 5.0).sqrt()).abs() < 1e-2,
        "{e2e:?}"
    );
    assert_eq!((e2e.change, e2e.pairs), (Change::Worse, 5));
    assert_eq!(of("ttft_mean").change, Change::Same);
    let text = compared.table(0.0, false);
    assert!(
        text.contains("e2e_mean") && !text.contains("ttft_mean"),
        "{text}"
    );
    assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
    let back = compare::compare(&other, &base).unwrap();
    assert_eq!(
        back.metrics
            .iter()
            .find(|m| m.metric == "e2e_mean")
            .unwrap()
            .change,
        Change::Better
    );
}

#[test]
fn comparisons_refuse_what_does_not_pair() {
    let one = summary(&[], &[common::run(1, 9.0)]);
    let two = summary(&[], &[common::run(2, 9.0)]);
    let error = compare::compare(&one, &two).unwrap_err();
    assert!(matches!(error, CompareError::NothingPairs { .. }));
    assert!(error.to_string().contains("run both with the same seeds"));
    let same = compare::compare(&one, &one).unwrap();
    assert!(same.identical && same.metrics.iter().all(|m| m.change == Change::Same));
    assert!(same.table(0.0, false).contains("identical"));
    // One pair that differs is no evidence.
    let mut other = two.clone();
    other.runs[0].seed = 1;
    let compared = compare::compare(&one, &other).unwrap();
    assert!(
        compared
            .metrics
            .iter()
            .all(|m| matches!(m.change, Change::Same | Change::NoDifferenceShown))
    );
}

const NETWORK: Network = Network {
    client_ns: 10,
    replica_ns: 5,
};

/// Client 10, gateway 20, network 5, queue 100, prefill 200, decode 700, verifier 50, back 15.
fn story(request: u32) -> Row {
    Row {
        request,
        session: 0,
        turn: 0,
        tenant: 0,
        class: 0,
        replica: Some(0),
        end: End::Finished,
        measured: true,
        sent_ns: 1_000,
        dispatched_ns: Some(1_030),
        accepted_ns: Some(1_035),
        started_ns: Some(1_135),
        first_token_ns: Some(1_350),
        generated_ns: Some(2_035),
        last_token_ns: Some(2_050),
        ended_ns: 2_100,
        prompt_tokens: 1,
        cached_tokens: 0,
        output_tokens: 8,
        preemptions: 0,
        accepted_by_verifier: Some(true),
        good: true,
        met_objectives: true,
        attempts: None,
        answer: None,
    }
}

#[test]
fn a_life_is_cut_into_its_parts() {
    let decision = Decision {
        at_ns: 1_030,
        request: 7,
        replica: Some(0),
        refused: None,
        candidates: Vec::new(),
    };
    let entry = |at, fact| Entry {
        at: windtunnel_base::time::SimTime::from_nanos(at),
        request: windtunnel_base::ids::RequestId(7),
        fact,
    };
    let mut run = RunResult {
        rows: vec![story(3), story(7)],
        decisions: vec![decision],
        ..RunResult::default()
    };
    let life = explain::request(&run, 7, &NETWORK).unwrap();
    assert_eq!(
        life.parts,
        [
            (Part::Network, 10 + 5 + 15),
            (Part::Gateway, 20),
            (Part::Queue, 100),
            (Part::Prefill, 200),
            (Part::Decode, 700),
            (Part::Verification, 50),
        ]
    );
    assert_eq!(life.total_ns, 1_100);
    assert!((life.share(Part::Decode) - 700.0 / 1_100.0).abs() < 1e-12);
    assert_eq!(life.decisions.len(), 1);
    let text = windtunnel_reports::render::story::life(&life);
    assert!(
        text.contains("decode             700 ns   63.6 %"),
        "{text}"
    );
    assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
    // Watched: out of memory from 1500 to 1600, within decode.
    run.watched = vec![
        entry(1_500, Fact::Preempted { generated: 2 }),
        entry(1_600, Fact::Started { cached_tokens: 0 }),
    ];
    let life = explain::request(&run, 7, &NETWORK).unwrap();
    assert!(life.parts.contains(&(Part::Decode, 600)));
    assert!(life.parts.contains(&(Part::Preempted, 100)));
    assert_eq!(explain::request(&run, 8, &NETWORK), None);
}

#[test]
fn a_life_that_ended_early_stops_where_it_was() {
    let refused = Row {
        end: End::Abandoned,
        started_ns: None,
        first_token_ns: None,
        generated_ns: None,
        accepted_by_verifier: None,
        ended_ns: 1_200,
        ..story(0)
    };
    let run = RunResult {
        rows: vec![refused],
        ..RunResult::default()
    };
    let life = explain::request(&run, 0, &NETWORK).unwrap();
    assert_eq!(
        life.parts,
        [(Part::Network, 15), (Part::Gateway, 20), (Part::Queue, 165)]
    );
}

#[test]
fn a_damaged_row_gives_no_figure() {
    let damaged = Row {
        ended_ns: 5,
        first_token_ns: Some(2),
        last_token_ns: Some(5),
        started_ns: Some(1),
        ..story(0)
    };
    let figures = (
        damaged.ttft_ns(),
        damaged.e2e_ns(),
        damaged.tpot_ns(),
        damaged.queue_ns(),
    );
    assert_eq!(figures, (None, None, None, None));
    let run = RunResult {
        rows: vec![damaged],
        ..RunResult::default()
    };
    let life = explain::request(&run, 0, &NETWORK).unwrap();
    assert_eq!((life.total_ns, life.parts), (0, vec![]));
}

#[test]
fn the_dominant_part_of_a_quantile_is_named() {
    // A thousand equal requests, of which the slowest twenty queued a thousand times longer.
    let rows: Vec<Row> = (0..1000)
        .map(|i| {
            let late = if i < 20 {
                100_000 + u64::from(i)
            } else {
                u64::from(i) / 100
            };
            let row = story(i);
            let after = |ns: Option<u64>| ns.map(|ns| ns + late);
            Row {
                started_ns: after(row.started_ns),
                first_token_ns: after(row.first_token_ns),
                generated_ns: after(row.generated_ns),
                last_token_ns: after(row.last_token_ns),
                ended_ns: row.ended_ns + late,
                ..row
            }
        })
        .collect();
    let run = RunResult {
        rows,
        ..RunResult::default()
    };
    for metric in ["ttft", "e2e"] {
        let found = explain::quantile(&run, 0, metric, 0.99, &NETWORK).unwrap();
        assert_eq!(found.dominant, Part::Queue);
        assert!(found.dominant_share > 0.999, "{found:?}");
        let text = windtunnel_reports::render::story::quantile(&found);
        assert!(
            text.contains("queue explains 100 % of the distance from the median"),
            "{text}"
        );
        let sum: f64 = found.parts.iter().map(|p| p.at_quantile_ms).sum();
        assert!(
            (sum - found.value_ms).abs() < 1e-5,
            "parts add up: {found:?}"
        );
    }
    let few = RunResult {
        rows: run.rows[..100].to_vec(),
        ..RunResult::default()
    };
    let error = explain::quantile(&few, 0, "ttft", 0.99, &NETWORK).unwrap_err();
    assert!(matches!(error, ExplainError::TooFew(_)));
    let error = explain::quantile(&run, 0, "goodput", 0.99, &NETWORK).unwrap_err();
    assert!(matches!(error, ExplainError::Metric(_)));
}
