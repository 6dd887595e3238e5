//! Whether answers are good, where that depends on who gives them: pools with error rates of their own, and
//! kernels that drift. An environment model: nobody who decides knows of it.
//!
//! Each request has one draw for all pools: it is bad where the error rate is more than that. So what is bad at
//! one pool is bad at every worse one, and two policies under one seed face the same requests. An answer in the
//! place of a rejected one has a draw of its own. Drift follows from the time, and needs no events.

use crate::verification::AnswerId;
use windtunnel_base::ids::ReplicaId;
use windtunnel_base::rng::{Rng, Streams};
use windtunnel_base::sample::Exponential;
use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::gateway::DriftTotals;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::schema::faults::FaultSpec;

/// What an answer is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Goodness {
    /// It is good.
    pub(crate) good: bool,
    /// It is bad, and would be good if its kernel had not drifted.
    pub(crate) drifted: bool,
    /// It is bad, and would be good at the frontier.
    pub(crate) worse: bool,
}

/// Error rates, and what becomes of them.
#[derive(Debug)]
pub(crate) struct Quality {
    /// Share of bad answers of each replica.
    by_replica: Vec<f64>,
    /// That of the frontier.
    frontier: f64,
    /// What makes each kernel drift.
    kernels: Vec<Vec<Drift>>,
    streams: Streams,
    totals: DriftTotals,
}

/// What makes a kernel drift.
#[derive(Debug)]
struct Drift {
    excess: f64,
    /// Time in which that rises.
    over: SimDuration,
    lasts: Option<SimDuration>,
    /// When the next one begins.
    next: SimTime,
    /// When the present one began.
    began: Option<SimTime>,
    /// It was followed by an alarm.
    found: bool,
    /// Time from the end of one to the beginning of the next, if there is a next.
    pause: Option<(Exponential, Rng)>,
}

impl Quality {
    /// The error rates of a checked scenario; `None` if they are the same everywhere and at any time.
    /// `frontier` is one of the frontier's replicas.
    pub(crate) fn new(
        scenario: &Scenario,
        frontier: Option<u32>,
        streams: Streams,
    ) -> Option<Box<Self>> {
        let rates = scenario.fleet.error_rates();
        let drifts = |fault: &FaultSpec| matches!(fault, FaultSpec::KernelDrift { .. });
        if rates.iter().all(Option::is_none) && !scenario.faults.iter().any(drifts) {
            return None;
        }
        let all = scenario.verification.as_ref().map_or(0.0, |v| v.error_rate);
        let paths = scenario.gateway.paths.iter();
        let kernels = paths.flat_map(|paths| &paths.kernels);
        let of_kernel = |name: &String| {
            let faults = scenario.faults.iter().zip(0..);
            let own = faults.filter_map(|(fault, i)| Drift::of(fault, name, i, streams));
            own.collect()
        };
        let by_replica: Vec<f64> = rates.iter().map(|rate| rate.unwrap_or(all)).collect();
        let frontier = frontier.and_then(|id| by_replica.get(id as usize).copied());
        Some(Box::new(Self {
            by_replica,
            frontier: frontier.unwrap_or(all),
            kernels: kernels.map(|kernel| of_kernel(&kernel.name)).collect(),
            streams,
            totals: DriftTotals::default(),
        }))
    }

    /// What an answer is like that a replica is to give now, as a kernel or not. Of an attack
    /// comes nothing good.
    pub(crate) fn of(
        &mut self,
        (answer, attack): (AnswerId, bool),
        replica: ReplicaId,
        kernel: Option<u8>,
        now: SimTime,
    ) -> Goodness {
        let luck = self.streams.stream("quality", answer.key()).f64();
        let rate = self.by_replica[replica.index()];
        let excess = kernel.map_or(0.0, |kernel| self.excess(kernel, now));
        let good = luck >= rate + excess && !attack;
        Goodness {
            good,
            drifted: !good && luck >= rate && !attack,
            worse: !good && luck >= self.frontier && !attack,
        }
    }

    /// The drifts of a kernel, as they are by now.
    fn drifts(&mut self, kernel: u8, now: SimTime) -> &mut [Drift] {
        let drifts = &mut self.kernels[usize::from(kernel)];
        for drift in drifts.iter_mut() {
            self.totals.drifts += drift.advance(now);
        }
        drifts
    }

    fn excess(&mut self, kernel: u8, now: SimTime) -> f64 {
        let drifts = self.drifts(kernel, now);
        drifts.iter().map(|drift| drift.excess_at(now)).sum()
    }

    /// An alarm was raised about a kernel: whether it has drifted.
    pub(crate) fn alarm(&mut self, kernel: u8, now: SimTime) -> bool {
        let (mut drifted, mut detected, mut delay_ns) = (false, 0, 0);
        for drift in self.drifts(kernel, now) {
            let Some(began) = drift.began else {
                continue;
            };
            drifted = true;
            if !std::mem::replace(&mut drift.found, true) {
                detected += 1;
                delay_ns += now.since(began).as_nanos();
            }
        }
        self.totals.detected += detected;
        self.totals.delay_ns += delay_ns;
        drifted
    }

    /// A kernel was built anew: it is as it was at first.
    pub(crate) fn rebuilt(&mut self, kernel: u8, now: SimTime) {
        for drift in self.drifts(kernel, now) {
            if drift.began.is_some() {
                drift.mend(now);
            }
        }
    }

    /// An answer came to a client that was bad for drift alone.
    pub(crate) const fn came_through(&mut self) {
        self.totals.bad_outputs += 1;
    }

    /// What drift came to by the end of the run, if there was any to come.
    pub(crate) fn finish(&mut self, end: SimTime) -> Option<DriftTotals> {
        for kernel in 0..self.kernels.len() {
            self.drifts(kernel as u8, end);
        }
        let any = self.kernels.iter().any(|drifts| !drifts.is_empty());
        any.then_some(self.totals)
    }
}

impl Drift {
    /// What a fault does to a kernel; it is the scenario's `index`-th.
    fn of(fault: &FaultSpec, name: &str, index: u64, streams: Streams) -> Option<Self> {
        let FaultSpec::KernelDrift {
            at,
            lasts,
            kernel,
            excess,
            over,
            every,
        } = fault
        else {
            return None;
        };
        if kernel != name {
            return None;
        }
        let pause = every.and_then(|mean| Exponential::new(mean.0.as_secs_f64()).ok());
        let mut drift = Self {
            excess: *excess,
            over: over.0,
            lasts: lasts.map(|lasts| lasts.0),
            next: SimTime::ZERO + at.0,
            began: None,
            found: false,
            pause: pause.map(|pause| (pause, streams.stream("kernel drift", index))),
        };
        if drift.pause.is_some() {
            drift.mend(drift.next);
        }
        Some(drift)
    }

    /// Begins and ends what begins and ends by now; how many begin.
    fn advance(&mut self, now: SimTime) -> u64 {
        let mut begun = 0;
        loop {
            let end = |since: SimTime| Some(since.saturating_add(self.lasts?));
            match self.began {
                Some(since) => match end(since).filter(|&end| end <= now) {
                    Some(end) => self.mend(end),
                    None => return begun,
                },
                None if self.next <= now => {
                    (self.began, self.found) = (Some(self.next), false);
                    begun += 1;
                }
                None => return begun,
            }
        }
    }

    /// The kernel has not drifted any more; it may drift again.
    fn mend(&mut self, at: SimTime) {
        self.began = None;
        self.next = match &mut self.pause {
            None => SimTime::MAX,
            Some((pause, rng)) => {
                let pause = SimDuration::from_secs_f64_saturating(pause.sample(rng));
                at.saturating_add(pause)
            }
        };
    }

    /// What it adds to the error rate now, having been advanced to now.
    fn excess_at(&self, now: SimTime) -> f64 {
        let Some(began) = self.began else {
            return 0.0;
        };
        if self.over.is_zero() {
            return self.excess;
        }
        let risen = now.since(began).as_secs_f64() / self.over.as_secs_f64();
        self.excess * risen.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::ids::RequestId;

    fn quality(drift: &str) -> Quality {
        let text = format!(
            r#"{{
                "version": 1,
                "fleet": {{
                    "error_rate": 0.05,
                    "engine": {{ "kind": "station" }},
                    "pools": [{{
                        "name": "k", "replicas": 1, "error_rate": 0.1,
                        "engine": {{ "kind": "station" }}
                    }}]
                }},
                "gateway": {{ "paths": {{
                    "kernels": [{{ "name": "k", "class": "default", "pool": "k" }}]
                }} }},
                "faults": [{{ "kind": "kernel_drift", "kernel": "k", {drift} }}]
            }}"#
        );
        let scenario: Scenario = serde_json::from_str(&text).expect("a scenario");
        *Quality::new(&scenario, Some(0), Streams::new(3)).expect("rates")
    }

    fn at(seconds: u64) -> SimTime {
        SimTime::ZERO + SimDuration::from_secs(seconds)
    }

    const N: u32 = 20_000;

    fn first(i: u32) -> AnswerId {
        AnswerId::new(RequestId(i), false)
    }

    /// Which of many requests are bad there.
    fn bad(quality: &mut Quality, replica: u32, now: SimTime) -> Vec<bool> {
        let kernel = (replica == 1).then_some(0);
        let bad = |i| {
            !quality
                .of((first(i), false), ReplicaId(replica), kernel, now)
                .good
        };
        (0..N).map(bad).collect()
    }

    fn share(bad: &[bool]) -> f64 {
        bad.iter().filter(|&&bad| bad).count() as f64 / f64::from(N)
    }

    /// Four standard errors of a share.
    fn close(share: f64, p: f64) -> bool {
        (share - p).abs() < 4.0 * (p * (1.0 - p) / f64::from(N)).sqrt()
    }

    #[test]
    fn what_is_bad_at_one_pool_is_bad_at_every_worse_one() {
        let mut quality = quality(r#""at": "10s""#);
        let (frontier, kernel) = (bad(&mut quality, 0, at(0)), bad(&mut quality, 1, at(0)));
        let drifted = bad(&mut quality, 1, at(10));
        assert!(close(share(&frontier), 0.05) && close(share(&kernel), 0.1));
        assert!(close(share(&drifted), 0.3));
        let implies = |a: &[bool], b: &[bool]| a.iter().zip(b).all(|(a, b)| !a || *b);
        assert!(implies(&frontier, &kernel) && implies(&kernel, &drifted));
        let told = |i| quality.of((first(i), false), ReplicaId(1), Some(0), at(10));
        let by_drift = (0..N).map(told).filter(|g| g.drifted).count();
        let more = |bad: &[bool]| bad.iter().filter(|&&bad| bad).count();
        assert_eq!(by_drift, more(&drifted) - more(&kernel));
    }

    #[test]
    fn a_ramp_rises_and_ends() {
        let mut quality = quality(r#""at": "10s", "over": "20s", "for": "30s", "excess": 0.4"#);
        let excess: Vec<f64> = [9, 10, 20, 30, 39, 40]
            .map(|s| quality.excess(0, at(s)))
            .into();
        assert_eq!(excess, [0.0, 0.0, 0.2, 0.4, 0.4, 0.0]);
        assert_eq!(
            quality.finish(at(50)).map(|t| (t.drifts, t.detected)),
            Some((1, 0))
        );
    }

    #[test]
    fn alarms_are_told_apart_and_a_new_kernel_is_as_good_as_new() {
        let mut quality = quality(r#""at": "10s""#);
        assert!(!quality.alarm(0, at(9)));
        assert!(quality.alarm(0, at(14)) && quality.alarm(0, at(15)));
        quality.rebuilt(0, at(20));
        assert_eq!(quality.excess(0, at(21)), 0.0);
        let totals = quality.finish(at(99)).expect("it drifts");
        assert_eq!((totals.drifts, totals.detected), (1, 1));
        assert_eq!(totals.delay_ns, 4_000_000_000);
    }

    /// A renewal process: mean time between beginnings is the mean pause and the time each lasts.
    #[test]
    fn drift_at_random_comes_as_often_as_it_should() {
        let mut quality = quality(r#""at": "0s", "every": "100s", "for": "25s""#);
        let end = 2_000_000;
        let drifts = quality.finish(at(end)).expect("it drifts").drifts as f64;
        let expected = end as f64 / 125.0;
        // Variance of the number of renewals: n * variance / mean^2 of the gaps.
        let error = (expected * (100.0_f64 / 125.0).powi(2)).sqrt();
        assert!(
            (drifts - expected).abs() < 4.0 * error,
            "{drifts} of {expected}"
        );
    }
}
