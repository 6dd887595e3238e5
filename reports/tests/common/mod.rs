//! A made-up run with something of everything, for documents and their golden files: four replicas
//! that take turns, each with a few slots, Poisson traffic of two classes.

use windtunnel_base::ids::ClassId;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::account::Account;
use windtunnel_ledger::result::Standing;
use windtunnel_ledger::result::{Collector, ReplicaSample, ReplicaTotals, RunResult, Sample};
use windtunnel_ledger::rows::{End, Row};
use windtunnel_scenarios::schema::{ClassSpec, Scenario, VerificationSpec};

const REPLICAS: usize = 4;
const SLOTS: usize = 12;

/// A small generator of its own: golden files must not change with the simulator's.
struct Lcg(u64);

impl Lcg {
    fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(self.unit())
    }
}

/// The scenario of [`run`].
pub(crate) fn scenario() -> Scenario {
    let span = |text: &str| text.parse().ok();
    let mut scenario = Scenario {
        name: "support-kernels".into(),
        purpose: "Two classes share four replicas <during> a working day".into(),
        verification: Some(VerificationSpec::default()),
        thresholds: vec![
            "p99(ttft) <= 2s".into(),
            "p99(tpot) <= 30ms".into(),
            "goodput >= 0.95".into(),
            "p90(e2e{class=batch}) <= 20s".into(),
        ],
        ..Scenario::default()
    };
    scenario.fleet.replicas = REPLICAS as u32;
    let class = |ttft, tpot| ClassSpec {
        ttft,
        tpot,
        ..ClassSpec::default()
    };
    scenario.classes = [
        ("batch".to_owned(), class(span("10s"), None)),
        ("interactive".to_owned(), class(span("1s"), span("40ms"))),
    ]
    .into();
    scenario
}

/// A made-up run; `rate` in requests per second, at most about 13 is stable.
pub(crate) fn run(seed: u64, rate: f64) -> RunResult {
    let mut chance = Lcg(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut collector = Collector::new(2, SimDuration::from_millis(500), true);
    let mut free = vec![vec![0.0_f64; SLOTS]; REPLICAS];
    let (mut now, mut lives) = (0.0, Vec::new());
    let mut totals = vec![ReplicaTotals::default(); REPLICAS];
    for request in 0.. {
        now += chance.exponential(1.0 / rate);
        if now > 300.0 {
            break;
        }
        let replica = request as usize % REPLICAS;
        let class = u32::from(chance.unit() < 0.7);
        let output = 2 + chance.exponential(150.0) as u32;
        let prompt = 50 + chance.exponential(600.0) as u32;
        let slot = (0..SLOTS)
            .min_by(|&a, &b| free[replica][a].total_cmp(&free[replica][b]))
            .unwrap_or(0);
        let started = free[replica][slot].max(now + 0.002);
        let gap = 0.018 + 0.01 * chance.unit();
        let first = started + 0.03 + f64::from(prompt) * 5e-5;
        let end = first + gap * f64::from(output - 1);
        free[replica][slot] = end;
        let (accepted, good) = (chance.unit() < 0.96, chance.unit() < 0.99);
        let refused = chance.unit() < 0.003;
        let ns = |s: f64| (s * 1e9) as u64;
        let met = match class {
            1 => first - now <= 1.0,
            _ => first - now <= 10.0,
        };
        let mut row = Row {
            request,
            session: u64::from(request),
            turn: 0,
            tenant: 0,
            class,
            replica: Some(replica as u32),
            end: End::Finished,
            measured: false,
            sent_ns: ns(now),
            dispatched_ns: Some(ns(now + 0.001)),
            accepted_ns: Some(ns(now + 0.002)),
            started_ns: Some(ns(started)),
            first_token_ns: Some(ns(first + 0.002)),
            generated_ns: Some(ns(end)),
            last_token_ns: Some(ns(end + 0.002)),
            ended_ns: ns(end + 0.002),
            prompt_tokens: prompt,
            cached_tokens: prompt / 3,
            output_tokens: output,
            preemptions: u32::from(chance.unit() < 0.001),
            accepted_by_verifier: Some(accepted),
            good,
            met_objectives: met,
            attempts: None,
            answer: None,
        };
        if refused {
            row = Row {
                end: End::Refused(windtunnel_base::refusal::Refusal::QueueFull),
                replica: None,
                accepted_ns: None,
                started_ns: None,
                first_token_ns: None,
                generated_ns: None,
                last_token_ns: None,
                ended_ns: ns(now + 0.001),
                output_tokens: 0,
                accepted_by_verifier: None,
                met_objectives: false,
                ..row
            };
        } else {
            lives.push((replica, now, started, end));
            totals[replica].requests += 1;
            totals[replica].prompt_tokens += u64::from(prompt);
            totals[replica].output_tokens += u64::from(output);
            totals[replica].busy_ns += ns((end - started) / SLOTS as f64);
            account(&mut collector, &row, gap, end);
        }
        let standing = Standing {
            useful: accepted && good && met && !refused,
            ..Standing::default()
        };
        collector.row(&row, standing);
    }
    let end = lives.iter().map(|l| l.3).fold(300.0, f64::max) + 0.002;
    let samples = samples(&lives, end);
    let (segments, segment_ns, rows) = collector.finish();
    RunResult {
        seed,
        digest: format!("{seed:032x}"),
        end_ns: (end * 1e9) as u64,
        class_names: vec!["batch".into(), "interactive".into()],
        tenant_names: vec!["default".into()],
        segment_ns,
        segments,
        samples,
        replicas: totals,
        rows,
        events: 123_456,
        ..RunResult::default()
    }
}

fn account(collector: &mut Collector, row: &Row, gap: f64, end: f64) {
    let at = SimTime::from_nanos((end * 1e9) as u64);
    let tokens = u64::from(row.output_tokens);
    let gap = SimDuration::from_nanos((gap * 1e9) as u64);
    collector.gap(at, ClassId(row.class), gap, tokens - 1);
    let segment = collector.segment(at);
    let books = &mut segment.books;
    for (account, nano_usd) in [
        (Account::Prefill, u64::from(row.prompt_tokens) * 60),
        (Account::Decode, tokens * 1_900),
        (Account::Mixed, tokens * 300),
        (Account::Idle, 140_000),
        (Account::Verification, 30_000),
    ] {
        books.money.post(Account::Source, account, nano_usd);
        books.energy.post(Account::Source, account, nano_usd * 4);
    }
    books.prompt_tokens_computed += u64::from(row.prompt_tokens - row.cached_tokens);
    books.prompt_tokens_cached += u64::from(row.cached_tokens);
    books.output_tokens_generated += tokens;
    segment.steps += tokens;
    segment.extrapolated_steps += tokens / 40;
    segment.decode_seqs += tokens * 9;
}

fn samples(lives: &[(usize, f64, f64, f64)], end: f64) -> Vec<Sample> {
    (0..=end as u64)
        .map(|second| {
            let at = second as f64;
            let mut sample = Sample {
                at_ns: second * 1_000_000_000,
                replicas: vec![
                    ReplicaSample {
                        kv_total: 4_000,
                        ..ReplicaSample::default()
                    };
                    REPLICAS
                ],
                ..Sample::default()
            };
            for &(replica, sent, started, ended) in lives {
                if sent <= at && at < ended {
                    sample.in_system += 1;
                    let r = &mut sample.replicas[replica];
                    if started <= at {
                        r.running += 1;
                        r.kv_held += 60 + ((at - started) * 20.0) as u64;
                    } else {
                        r.waiting += 1;
                    }
                }
            }
            for r in &mut sample.replicas {
                r.kv_cached = (r.kv_total - r.kv_held) / 2;
            }
            sample
        })
        .collect()
}
