//! Throughput and latency against closed forms. Steps are decode-only but for the first token.

use crate::harness::{Call, Job, built, drive};
use windtunnel_base::quantity::Span;
use windtunnel_base::rng::Streams;
use windtunnel_base::time::SimDuration;
use windtunnel_engine::config::{
    ContinuousSpec, CostSpec, EngineSpec, KvSpec, LinearSpec, SchedulerKind, SchedulerSpec,
};
use windtunnel_engine::replica::Replica;

fn engine(kind: SchedulerKind, seqs: u32, cost: LinearSpec) -> Replica {
    let spec = ContinuousSpec {
        scheduler: SchedulerSpec {
            kind,
            max_num_seqs: seqs,
            ..SchedulerSpec::default()
        },
        kv: KvSpec {
            blocks: Some(1 << 24),
            prefix_cache: false,
            watermark: 0.0,
            ..KvSpec::default()
        },
        cost: CostSpec::Linear(cost),
        ..ContinuousSpec::default()
    };
    built(&EngineSpec::Continuous(Box::new(spec)))
}

fn equal_steps() -> LinearSpec {
    LinearSpec {
        base: Some(Span(SimDuration::from_millis(10))),
        ..LinearSpec::default()
    }
}

/// Static time over continuous time for the same requests, all there from the beginning.
fn gain(batch: u32, jobs: &[Job]) -> f64 {
    let calls: Vec<_> = (0..jobs.len() as u32)
        .map(|id| (0, Call::Submit(id)))
        .collect();
    let [fixed, joining] = [SchedulerKind::Static, SchedulerKind::Fcfs].map(|kind| {
        let mut engine = engine(kind, batch, equal_steps());
        let log = drive(&mut engine, jobs, &calls, true);
        log.outcomes.last().map_or(0, |o| o.0) as f64
    });
    fixed / joining
}

/// V-C1: with exponential lengths a static batch lasts E[max] = H_B means, a slot one.
#[test]
fn joining_gains_the_harmonic_number_over_static_batches() {
    for (batch, expected) in [(4_u32, 2.0833), (8, 2.7179), (16, 3.3807)] {
        let mut rng = Streams::new(7).stream("lengths", u64::from(batch));
        let batches = 3000;
        let jobs: Vec<_> = (0..batch * batches)
            .map(|_| {
                let tokens = -400.0 * libm::log(rng.f64_open());
                Job::new(1, tokens.ceil() as u32)
            })
            .collect();
        // Relative deviations: a batch's maximum has variance sum 1/k^2 (in means), at most 1.65;
        // the mean of all has 1 over their number. Rounding up adds half a token to both.
        let deviation = (1.65_f64.sqrt() / expected + 1.0 / f64::from(batch).sqrt())
            / f64::from(batches).sqrt();
        let gain = gain(batch, &jobs);
        let error = gain / expected - 1.0;
        assert!(
            error.abs() < 3.0 * deviation,
            "batch {batch}: {gain}, {deviation}"
        );
        assert!(3.0 * deviation < 0.07, "the run is long enough to tell");
    }
}

/// V-C2: the same with lognormal lengths; the expectations are Monte Carlo figures.
#[test]
fn joining_gains_less_where_lengths_are_alike() {
    for (sigma, batch, expected) in [(0.5, 8_u32, 1.887), (1.0, 8, 3.083), (0.5, 32, 2.561)] {
        let mut rng = Streams::new(11).stream("lengths", u64::from(batch));
        let jobs: Vec<_> = (0..batch * 3000)
            .map(|_| {
                let angle = std::f64::consts::TAU * rng.f64();
                let radius = (-2.0 * libm::log(rng.f64_open())).sqrt();
                let tokens = 300.0 * libm::exp(sigma * radius * libm::cos(angle));
                Job::new(1, tokens.ceil() as u32)
            })
            .collect();
        let gain = gain(batch, &jobs);
        // Over 3,000 batches the maximum is known to 1.5 % even with sigma 1.
        let error = gain / expected - 1.0;
        assert!(error.abs() < 0.04, "sigma {sigma}, batch {batch}: {gain}");
    }
}

/// V-C3: Poisson arrivals without a cap. With x tokens per millisecond and steps of a + b B the
/// batch settles at B = x a / (1 - x b).
#[test]
fn an_open_engine_settles_at_the_mean_field() {
    let micros = |us: f64| Some(Span(SimDuration::from_nanos((us * 1e3) as u64)));
    let fit = LinearSpec {
        base: micros(6781.0),
        per_seq: micros(86.6),
        ..LinearSpec::default()
    };
    for (per_second, batch, itl_ms) in [(10.0, 41.5, 10.38), (20.0, 176.6, 22.07)] {
        let mut rng = Streams::new(3).stream("arrivals", per_second as u64);
        let mut at = 0.0;
        let requests = (1200.0 * per_second) as u32;
        let mut calls = Vec::new();
        for id in 0..requests {
            at -= libm::log(rng.f64_open()) / per_second;
            calls.push(((at * 1e9) as u64, Call::Submit(id)));
        }
        let jobs = vec![Job::new(1, 400); requests as usize];
        let mut engine = engine(SchedulerKind::Chunked, 8192, fit.clone());
        let log = drive(&mut engine, &jobs, &calls, true);
        // The middle of the run, without its filling and emptying.
        let (from, to) = (0.1 * at * 1e9, 0.9 * at * 1e9);
        let middle = |s: &&(u64, u64, _, _, _)| (s.0 as f64) > from && (s.1 as f64) < to;
        let (mut time, mut area, mut tokens) = (0.0, 0.0, 0.0);
        for step in log.steps.iter().filter(middle) {
            let seconds = (step.1 - step.0) as f64 / 1e9;
            time += seconds;
            area += seconds * f64::from(step.2.decode_seqs);
            tokens += f64::from(step.2.decode_seqs);
        }
        let (mean_batch, mean_itl) = (area / time, area / tokens * 1e3);
        assert!(
            (mean_batch / batch - 1.0).abs() < 0.04,
            "{per_second}/s: {mean_batch}"
        );
        assert!(
            (mean_itl / itl_ms - 1.0).abs() < 0.04,
            "{per_second}/s: {mean_itl}"
        );
    }
}
