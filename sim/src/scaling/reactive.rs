//! As many replicas as bring a signal to its target: `ceil(replicas * signal / target)`, as the
//! horizontal pod autoscaler of Kubernetes reckons. Of a sum over replicas that is
//! `ceil(sum / target)`, and those that are not ready yet count as replicas without load.

use super::Seen;
use std::collections::VecDeque;
use windtunnel_base::rng::Rng;
use windtunnel_base::sample::Normal;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::scaling::Moments;
use windtunnel_scenarios::schema::scaling::ScalingSignalSpec;

/// A policy that follows a signal.
#[derive(Debug)]
pub(super) struct Reactive {
    signal: Signal,
    window: SimDuration,
    tolerance: f64,
    /// Sums of the signal over replicas, by look.
    readings: VecDeque<(SimTime, f64)>,
}

#[derive(Debug)]
enum Signal {
    QueueDepth(f64),
    Running(f64),
    Concurrency(f64),
    KvUsage(f64),
    Ttft(FirstTokens),
    Cpu(f64, Box<Cpu>),
}

/// Times to first token of late.
#[derive(Debug)]
struct FirstTokens {
    target: f64,
    quantile: f64,
    /// When they came, and how long they took, ns.
    times: VecDeque<(SimTime, u64)>,
    /// The last look.
    looked: SimTime,
}

impl Reactive {
    pub(super) fn new(
        signal: &ScalingSignalSpec,
        window: SimDuration,
        tolerance: f64,
        rng: Rng,
    ) -> Self {
        let signal = match *signal {
            ScalingSignalSpec::QueueDepth { target } => Signal::QueueDepth(target),
            ScalingSignalSpec::Running { target } => Signal::Running(target),
            ScalingSignalSpec::Concurrency { target } => Signal::Concurrency(target),
            ScalingSignalSpec::KvUsage { target } => Signal::KvUsage(target),
            ScalingSignalSpec::Ttft { target, quantile } => Signal::Ttft(FirstTokens {
                target: target.0.as_nanos() as f64,
                quantile,
                times: VecDeque::new(),
                looked: SimTime::ZERO,
            }),
            ScalingSignalSpec::Cpu {
                target,
                correlation,
                mean,
                deviation,
            } => Signal::Cpu(
                target,
                Box::new(Cpu::new(correlation, mean, deviation, rng)),
            ),
        };
        Self {
            signal,
            window,
            tolerance,
            readings: VecDeque::new(),
        }
    }

    /// How many replicas bring the signal to its target.
    pub(super) fn wants(&mut self, seen: &Seen<'_>) -> u32 {
        let (sum, target) = match &mut self.signal {
            Signal::QueueDepth(target) => (seen.waiting as f64, *target),
            Signal::Running(target) => (seen.running as f64, *target),
            Signal::Concurrency(target) => (seen.concurrency as f64, *target),
            Signal::KvUsage(target) => (seen.kv_shares, *target),
            Signal::Cpu(target, cpu) => (cpu.read(seen.loads), *target),
            Signal::Ttft(tokens) => {
                let ratio = tokens.ratio(seen.now, self.window);
                return ratio.map_or(seen.ordered, |ratio| by_ratio(ratio, seen, self.tolerance));
            }
        };
        let sum = self.mean_of_late(seen.now, sum);
        by_sum(sum / target, seen, self.tolerance)
    }

    /// Mean over the window, this reading included.
    fn mean_of_late(&mut self, now: SimTime, sum: f64) -> f64 {
        self.readings.push_back((now, sum));
        let window = self.window;
        while self.readings.len() > 1
            && (self.readings.front()).is_some_and(|&(at, _)| now.since(at) >= window)
        {
            self.readings.pop_front();
        }
        self.readings.iter().map(|r| r.1).sum::<f64>() / self.readings.len() as f64
    }

    pub(super) const fn hears_first_tokens(&self) -> bool {
        matches!(self.signal, Signal::Ttft(_))
    }

    pub(super) fn first_token(&mut self, now: SimTime, after: SimDuration) {
        if let Signal::Ttft(tokens) = &mut self.signal {
            tokens.times.push_back((now, after.as_nanos()));
        }
    }

    pub(super) fn moments(&self) -> Moments {
        match &self.signal {
            Signal::Cpu(_, cpu) => cpu.pairs,
            _ => Moments::default(),
        }
    }
}

/// How many replicas a sum asks for that is `times` the target of one.
fn by_sum(times: f64, seen: &Seen<'_>, tolerance: f64) -> u32 {
    let (ready, ordered) = (f64::from(seen.ready), f64::from(seen.ordered));
    let ratio = times / ordered;
    // Those that serve are over their target, those on order will help: nothing to take back.
    let on_its_way = times > ready && ratio < 1.0;
    if on_its_way || (ratio - 1.0).abs() <= tolerance {
        return seen.ordered;
    }
    times.ceil() as u32
}

/// How many replicas a ratio asks for that is no sum: those that serve, times it.
fn by_ratio(ratio: f64, seen: &Seen<'_>, tolerance: f64) -> u32 {
    if (ratio - 1.0).abs() <= tolerance {
        return seen.ordered;
    }
    let wanted = (f64::from(seen.ready) * ratio).ceil() as u32;
    if ratio > 1.0 {
        wanted.max(seen.ordered)
    } else {
        wanted.min(seen.ordered)
    }
}

impl FirstTokens {
    /// The quantile of the window over its target; none if no answer began in it.
    fn ratio(&mut self, now: SimTime, window: SimDuration) -> Option<f64> {
        let from = if window.is_zero() {
            self.looked
        } else {
            SimTime::from_nanos(now.as_nanos().saturating_sub(window.as_nanos()))
        };
        self.looked = now;
        while (self.times.front()).is_some_and(|&(at, _)| at <= from) {
            self.times.pop_front();
        }
        let mut times: Vec<u64> = self.times.iter().map(|t| t.1).collect();
        // The smallest value that at least this share of all does not exceed.
        let rank = (self.quantile * times.len() as f64).ceil() as usize;
        let (_, &mut value, _) = match times.len() {
            0 => return None,
            n => times.select_nth_unstable(rank.clamp(1, n) - 1),
        };
        Some(value as f64 / self.target)
    }
}

/// Load of processors that goes a little with the requests at a replica. Readings of requests are
/// standardised by their own mean and deviation so far, so the correlation comes out as asked for
/// whatever the load is like.
#[derive(Debug)]
struct Cpu {
    correlation: f64,
    mean: f64,
    deviation: f64,
    noise: Option<Normal>,
    rng: Rng,
    count: f64,
    average: f64,
    squares: f64,
    pairs: Moments,
}

impl Cpu {
    fn new(correlation: f64, mean: f64, deviation: f64, rng: Rng) -> Self {
        let rest = (1.0 - correlation * correlation).max(0.0).sqrt();
        Self {
            correlation,
            mean,
            deviation,
            noise: Normal::new(0.0, rest).ok(),
            rng,
            count: 0.0,
            average: 0.0,
            squares: 0.0,
            pairs: Moments::default(),
        }
    }

    /// How far a reading is from the mean so far, in standard deviations so far.
    fn standardised(&mut self, load: f64) -> f64 {
        self.count += 1.0;
        let before = load - self.average;
        self.average += before / self.count;
        self.squares += before * (load - self.average);
        let deviation = (self.squares / self.count).sqrt();
        if deviation > 0.0 {
            (load - self.average) / deviation
        } else {
            0.0
        }
    }

    /// Sum of the loads of all processors.
    fn read(&mut self, loads: &[u32]) -> f64 {
        let mut sum = 0.0;
        for &load in loads {
            let load = f64::from(load);
            let follows = self.correlation * self.standardised(load);
            let noise = self.noise.map_or(0.0, |n| n.sample(&mut self.rng));
            let cpu = (self.mean + self.deviation * (follows + noise)).clamp(0.0, 1.0);
            self.pairs.add(cpu, load);
            sum += cpu;
        }
        sum
    }
}
