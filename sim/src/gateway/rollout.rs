//! Kernels that come into use in stages: which stage each has come to, what its sequential test makes of the
//! comparisons (Wald 1945), and how great a risk the next stage would be. Nothing here knows an error rate.

use windtunnel_base::time::{SimDuration, SimTime};
use windtunnel_ledger::rollout::{RolloutOutcome, RolloutStageTotals, RolloutTotals};
use windtunnel_scenarios::schema::probing::ReferenceSpec;
use windtunnel_scenarios::schema::rollout::{RolloutSpec, RolloutStage, SequentialTestSpec};

/// A sequential probability ratio test of a share.
#[derive(Clone, Copy, Debug)]
pub struct Sprt {
    /// What an outcome adds: one that differs, and one that does not.
    steps: [f64; 2],
    /// Sums at which it ends: passed, failed.
    limits: [f64; 2],
    sum: f64,
}

impl Sprt {
    /// One that has seen nothing.
    pub fn new(spec: &SequentialTestSpec) -> Self {
        let SequentialTestSpec {
            p0,
            p1,
            alpha,
            beta,
        } = *spec;
        Self {
            steps: [p1 / p0, (1.0 - p1) / (1.0 - p0)].map(libm::log),
            limits: [beta / (1.0 - alpha), (1.0 - beta) / alpha].map(libm::log),
            sum: 0.0,
        }
    }

    /// Takes an outcome; says whether it has passed, once that is known.
    pub fn outcome(&mut self, differs: bool) -> Option<bool> {
        let [up, down] = self.steps;
        self.sum += if differs { up } else { down };
        let [passed, failed] = self.limits;
        if self.sum >= failed {
            Some(false)
        } else {
            (self.sum <= passed).then_some(true)
        }
    }

    /// Outcomes until the end on average, if the share is `p1`. Wald's approximation leaves out how far the last
    /// outcome goes over a limit, which matters in short tests; those are followed outcome by outcome.
    fn length_if_unfit(&self, spec: &SequentialTestSpec) -> f64 {
        let ([up, down], [passed, failed]) = (self.steps, self.limits);
        let drift = spec.p1 * up + (1.0 - spec.p1) * down;
        let wald = ((1.0 - spec.beta) * failed + spec.beta * passed) / drift;
        match wald < FOLLOWED {
            true => self.length(spec.p1),
            false => wald,
        }
    }

    /// The same for any share, exactly: after `n` outcomes the sum depends on how many differed, so it is enough
    /// to know how probable each number is while the test goes on.
    fn length(&self, p: f64) -> f64 {
        let ([up, down], [passed, failed]) = (self.steps, self.limits);
        // Probabilities of `fewest`, `fewest + 1` and so on that differed.
        let (mut on, mut fewest) = (vec![1.0], 0_u64);
        let (mut outcomes, mut length) = (0_u64, 0.0);
        loop {
            let still: f64 = on.iter().sum();
            if still < 1e-9 {
                return length;
            }
            length += still;
            outcomes += 1;
            let mut next = vec![0.0; on.len() + 1];
            for (i, mass) in on.iter().enumerate() {
                next[i] += mass * (1.0 - p);
                next[i + 1] += mass * p;
            }
            let goes_on = |differed: u64| {
                let sum = differed as f64 * up + (outcomes - differed) as f64 * down;
                sum > passed && sum < failed
            };
            // The sum rises with the number that differed: those that go on are neighbours.
            let all = (fewest..).zip(next);
            let (numbers, masses): (Vec<u64>, Vec<f64>) = all.filter(|&(d, _)| goes_on(d)).unzip();
            fewest = numbers.first().copied().unwrap_or_default();
            on = masses;
        }
    }
}

/// Tests that take longer than this by Wald's approximation are left to that.
const FOLLOWED: f64 = 5_000.0;

/// What a rollout comes to next.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Next {
    /// A stage begins.
    Stage(RolloutStage),
    /// It has passed the test of its last stage, and goes on as that says.
    Stay,
    /// The kernel is to be withdrawn.
    Withdraw,
}

/// One kernel's rollout.
#[derive(Clone, Debug)]
pub struct Rollout {
    spec: RolloutSpec,
    stage: usize,
    test: Sprt,
    /// The class's requests since then.
    since: SimTime,
    seen: u64,
    /// From a request to its outcome, of those that the kernel served: how many, and their sum in seconds.
    delays: (u64, f64),
    totals: RolloutTotals,
}

impl Rollout {
    /// One that has not begun.
    pub fn new(kernel: &str, spec: &RolloutSpec) -> Self {
        Self {
            spec: spec.clone(),
            stage: 0,
            test: Sprt::new(&spec.test),
            since: SimTime::ZERO,
            seen: 0,
            delays: (0, 0.0),
            totals: RolloutTotals {
                kernel: kernel.to_owned(),
                ..RolloutTotals::default()
            },
        }
    }

    /// How it is done.
    pub const fn spec(&self) -> &RolloutSpec {
        &self.spec
    }

    /// The stage under way, if one is.
    pub fn stage(&self) -> Option<&RolloutStage> {
        let begun = !self.totals.stages.is_empty();
        let on = matches!(
            self.totals.outcome,
            RolloutOutcome::UnderWay | RolloutOutcome::Full
        );
        self.spec.stages.get(self.stage).filter(|_| begun && on)
    }

    /// The number of the stage under way, for those who are told later what came of it.
    pub fn number(&self) -> u8 {
        self.stage as u8
    }

    /// A request of the kernel's class came, whoever serves it.
    pub fn request(&mut self) {
        self.seen += 1;
    }

    /// The first stage begins.
    pub fn begin(&mut self, now: SimTime) -> Next {
        self.enter(0, now)
    }

    /// The pilot risk magnitude of a stage: what reaches users per excess of `p1 - p0`, from its first request
    /// until the test has failed and the withdrawal has come through. Requests come as often as so far.
    fn risk(&self, stage: &RolloutStage, now: SimTime) -> Option<f64> {
        if matches!(stage, RolloutStage::Full {}) {
            return None;
        }
        let spec = &self.spec;
        let exposure = stage.exposure();
        if exposure == 0.0 {
            return Some(0.0);
        }
        let elapsed = now.since(self.since).as_secs_f64();
        let rate = if elapsed > 0.0 {
            self.seen as f64 / elapsed
        } else {
            0.0
        };
        let late = self.delay_to_outcome(stage) + spec.propagation.0.as_secs_f64() / 2.0;
        let outcomes = self.test.length_if_unfit(&spec.test);
        let requests = outcomes / spec.checked + exposure * rate * late;
        let excess = spec.test.p1 - spec.test.p0;
        Some(requests * excess * stage.passed_on() * spec.severity)
    }

    /// Seconds from a request to its outcome: as seen so far, or if there was none yet, what is known to be
    /// needed.
    fn delay_to_outcome(&self, stage: &RolloutStage) -> f64 {
        let (n, sum) = self.delays;
        if n > 0 {
            return sum / n as f64;
        }
        let reference = match self.spec.reference {
            ReferenceSpec::Frontier => SimDuration::ZERO,
            ReferenceSpec::Verifier { latency } => latency.0,
        };
        let human = match *stage {
            RolloutStage::Assist { latency, .. } => latency.0,
            _ => SimDuration::ZERO,
        };
        reference.max(human).as_secs_f64()
    }

    fn enter(&mut self, stage: usize, now: SimTime) -> Next {
        let Some(next) = self.spec.stages.get(stage).copied() else {
            self.decide(RolloutOutcome::Full, now);
            return Next::Stay;
        };
        let risk = self.risk(&next, now);
        if risk.zip(self.spec.max_risk).is_some_and(|(r, max)| r > max) {
            return self.end(RolloutOutcome::TooRisky, now);
        }
        self.close(now);
        self.stage = stage;
        self.test = Sprt::new(&self.spec.test);
        if matches!(next, RolloutStage::Full {}) {
            self.decide(RolloutOutcome::Full, now);
        }
        self.totals.stages.push(RolloutStageTotals {
            kind: kind(&next).to_owned(),
            exposure: next.exposure(),
            from_ns: now.as_nanos(),
            risk,
            ..RolloutStageTotals::default()
        });
        Next::Stage(next)
    }

    fn close(&mut self, now: SimTime) {
        if let Some(last) = self.totals.stages.last_mut() {
            last.to_ns = Some(now.as_nanos());
        }
    }

    fn end(&mut self, outcome: RolloutOutcome, now: SimTime) -> Next {
        self.close(now);
        self.decide(outcome, now);
        Next::Withdraw
    }

    fn decide(&mut self, outcome: RolloutOutcome, now: SimTime) {
        self.totals.outcome = outcome;
        self.totals.decided_at_ns = Some(now.as_nanos());
    }

    /// A comparison of that stage came to an end: what is next, if that changes anything. Of stages that are
    /// over nothing is learned.
    pub fn outcome(&mut self, stage: u8, differs: bool, now: SimTime) -> Option<Next> {
        if stage != self.number()
            || self.totals.outcome != RolloutOutcome::UnderWay
            || self.totals.stages.is_empty()
        {
            return None;
        }
        if let Some(totals) = self.totals.stages.last_mut() {
            totals.compared += 1;
            totals.differed += u64::from(differs);
        }
        match self.test.outcome(differs)? {
            true => Some(self.enter(self.stage + 1, now)),
            false => Some(self.end(RolloutOutcome::RolledBack, now)),
        }
    }

    /// So long after a request that the kernel served, the outcome of its comparison was known.
    pub fn told_after(&mut self, delay: SimDuration) {
        self.delays.0 += 1;
        self.delays.1 += delay.as_secs_f64();
    }

    /// An answer that the kernel gave in a stage has reached its user; `worse`: bad, and the frontier's would
    /// not have been.
    pub fn reached(&mut self, stage: u8, worse: bool) {
        let severity = self.spec.severity;
        if let Some(totals) = self.totals.stages.get_mut(usize::from(stage)) {
            totals.exposed += 1;
            totals.harm += if worse { severity } else { 0.0 };
        }
    }

    /// What it came to.
    pub fn totals(&self) -> RolloutTotals {
        self.totals.clone()
    }
}

const fn kind(stage: &RolloutStage) -> &'static str {
    match stage {
        RolloutStage::Replay { .. } => "replay",
        RolloutStage::Shadow { .. } => "shadow",
        RolloutStage::Assist { .. } => "assist",
        RolloutStage::Canary { .. } => "canary",
        RolloutStage::Full {} => "full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Streams;

    fn at(seconds: u64) -> SimTime {
        SimTime::ZERO + SimDuration::from_secs(seconds)
    }

    fn spec(stages: &[RolloutStage]) -> RolloutSpec {
        RolloutSpec {
            stages: stages.to_vec(),
            ..RolloutSpec::default()
        }
    }

    /// By hand, with p0 = .05, p1 = .25, alpha = beta = .05: ln 5 up, ln(.75 / .95) down, +- ln 19.
    #[test]
    fn the_test_ends_where_it_ends_by_hand() {
        let run = |outcomes: &[bool]| {
            let mut test = Sprt::new(&SequentialTestSpec::default());
            outcomes
                .iter()
                .map(|&o| test.outcome(o))
                .collect::<Vec<_>>()
        };
        // 1.609, 3.219
        assert_eq!(run(&[true, true]), [None, Some(false)]);
        // -0.236 each: the thirteenth is at -3.073, the twelfth at -2.837.
        let passed = run(&[false; 13]);
        assert_eq!((passed[11], passed[12]), (None, Some(true)));
    }

    /// V-S1: .01 against .02 takes 856 and 737 outcomes on average and errs in .044 and .0495 of cases.
    #[test]
    fn lengths_and_errors_are_those_of_the_catalogue() {
        let spec = SequentialTestSpec {
            p0: 0.01,
            p1: 0.02,
            ..SequentialTestSpec::default()
        };
        let runs = 4_000_u32;
        for (p, length, passes) in [(0.01, 856.0, 0.956), (0.02, 737.0, 0.0495)] {
            let mut rng = Streams::new(1).stream("outcomes", (p * 1000.0) as u64);
            let (mut outcomes, mut passed) = (0_u64, 0_u32);
            for _ in 0..runs {
                let mut test = Sprt::new(&spec);
                let end = loop {
                    outcomes += 1;
                    if let Some(end) = test.outcome(rng.chance(p)) {
                        break end;
                    }
                };
                passed += u32::from(end);
            }
            let mean = outcomes as f64 / f64::from(runs);
            assert!((mean / length - 1.0).abs() < 0.04, "{mean} of {length}");
            let share = f64::from(passed) / f64::from(runs);
            let error = (passes * (1.0_f64 - passes) / f64::from(runs)).sqrt();
            assert!(
                (share - passes).abs() < 4.0 * error + 0.001,
                "{share} of {passes}"
            );
        }
        // Exactly, and by Wald's approximation 677.1.
        let exact = Sprt::new(&spec).length_if_unfit(&spec);
        assert!((exact / 737.0 - 1.0).abs() < 0.02, "{exact}");
    }

    /// By hand: with one outcome at most the length is one; with two differences or one equality to the end it
    /// is one and the chance of a difference.
    #[test]
    fn short_tests_are_followed_to_their_end() {
        let test = |up, down| Sprt {
            steps: [up, down],
            limits: [-1.0, 1.0],
            sum: 0.0,
        };
        assert!((test(1.0, -1.0).length(0.3) - 1.0).abs() < 1e-12);
        assert!((test(0.5, -1.6).length(0.3) - 1.3).abs() < 1e-12);
        // Up and down by half: a walk between two walls two steps away, from the middle.
        let walk = test(0.5, -0.5).length(0.5);
        assert!((walk - 4.0).abs() < 1e-6, "{walk}");
    }

    #[test]
    fn stages_follow_one_another_and_late_outcomes_tell_nothing() {
        let shadow = RolloutStage::Shadow { share: 1.0 };
        let canary = RolloutStage::Canary { share: 0.5 };
        let mut rollout = Rollout::new("k", &spec(&[shadow, canary, RolloutStage::Full {}]));
        assert_eq!(rollout.outcome(0, true, at(1)), None, "it has not begun");
        assert_eq!(rollout.stage(), None);
        assert_eq!(rollout.begin(at(5)), Next::Stage(shadow));
        let mut pass = |stage, now| {
            let told: Vec<_> = (0..13)
                .filter_map(|_| rollout.outcome(stage, false, at(now)))
                .collect();
            (told, rollout.outcome(stage, true, at(now)))
        };
        assert_eq!(pass(0, 20), (vec![Next::Stage(canary)], None));
        assert_eq!(pass(1, 30).0, [Next::Stage(RolloutStage::Full {})]);
        assert_eq!(pass(2, 40), (vec![], None), "nothing is tested any more");
        let totals = rollout.totals();
        assert_eq!(totals.outcome, RolloutOutcome::Full);
        assert_eq!(totals.decided_ns(), Some(25_000_000_000));
        // Without a stage in full use, the last is kept.
        let mut short = Rollout::new("k", &spec(&[canary]));
        short.begin(at(0));
        let told = (0..13).filter_map(|_| short.outcome(0, false, at(9)));
        assert_eq!(told.collect::<Vec<_>>(), [Next::Stay]);
        assert_eq!(short.stage(), Some(&canary));
        let compared: Vec<u64> = totals.stages.iter().map(|s| s.compared).collect();
        assert_eq!(compared, [13, 13, 0]);
    }

    /// By hand: the length of the test, and at ten requests a second 2.5 s of half of them until the withdrawal, at an excess
    /// of a fifth, twice as severe.
    #[test]
    fn the_risk_is_the_formula_and_may_be_too_great() {
        let canary = RolloutStage::Canary { share: 0.5 };
        let shadow = RolloutStage::Shadow { share: 1.0 };
        let mut rollout = Rollout::new(
            "k",
            &RolloutSpec {
                severity: 2.0,
                ..spec(&[shadow, canary])
            },
        );
        rollout.begin(at(0));
        (0..100).for_each(|_| rollout.request());
        let n = rollout.test.length(0.25);
        let expected = (n + 0.5 * 10.0 * 2.5) * 0.2 * 2.0;
        let found = rollout.risk(&canary, at(10)).expect("it is tested");
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        assert_eq!(rollout.risk(&shadow, at(10)), Some(0.0));
        rollout.spec.max_risk = Some(expected - 0.1);
        let told: Vec<_> = (0..13)
            .filter_map(|_| rollout.outcome(0, false, at(10)))
            .collect();
        assert_eq!(told, [Next::Withdraw]);
        assert_eq!(rollout.totals().outcome, RolloutOutcome::TooRisky);
        assert_eq!(rollout.stage(), None);
    }
}
