//! Laws see what engines, policies and workloads do wrong: each lie is told in a run and reported.

mod common;

use common::{Script, U, job, stations};
use std::fmt::Debug;
use windtunnel_base::content::Extent;
use windtunnel_base::ids::RequestId;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;
use windtunnel_base::units::NanoUsd;
use windtunnel_engine::batch::BatchShape;
use windtunnel_engine::engine::{
    CacheEvent, Engine, EngineOutcome, EngineStats, Outcome, StepObserver,
};
use windtunnel_engine::replica::Replica;
use windtunnel_engine::request::Submission;
use windtunnel_scenarios::schema::Scenario;
use windtunnel_scenarios::workload::{Arrival, Workload};
use windtunnel_sim::{
    Discrepancy, Law, Machine, RunError, RunOptions, Violation, replicas, run_on,
};

/// What an engine can do wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    /// None: the control of the controls.
    None,
    /// Says twice that a request has finished.
    FinishTwice,
    /// Says that a request finished that never began to talk.
    FinishSilently,
    /// Rests while requests wait.
    Rest,
    /// Its step ends before it began.
    EndInThePast,
    /// Says forever that something ends now.
    StandStill,
    /// Its blocks do not add up.
    LeakMemory,
    /// Keeps blocks when all have left.
    KeepMemory,
    /// Reports steps that overlap.
    WorkTwice,
}

/// An honest station, but for its lie.
#[derive(Debug)]
struct Liar {
    inner: Replica,
    lie: Lie,
    still: u32,
}

impl Engine for Liar {
    fn submit<O: StepObserver>(
        &mut self,
        now: SimTime,
        submission: &Submission<'_>,
        observer: &mut O,
    ) -> Result<(), Refusal> {
        self.inner.submit(now, submission, observer)
    }

    fn cancel<O: StepObserver>(&mut self, now: SimTime, id: RequestId, observer: &mut O) -> bool {
        self.inner.cancel(now, id, observer)
    }

    fn next_event(&mut self, now: SimTime, outcomes: &mut Vec<EngineOutcome>) -> Option<SimTime> {
        let honest = self.inner.next_event(now, outcomes);
        match self.lie {
            Lie::Rest => None,
            Lie::EndInThePast if now > SimTime::ZERO => {
                Some(SimTime::from_nanos(now.as_nanos() - 1))
            }
            Lie::StandStill if honest.is_some() => Some(now),
            _ => honest,
        }
    }

    fn advance<O: StepObserver>(
        &mut self,
        now: SimTime,
        outcomes: &mut Vec<EngineOutcome>,
        observer: &mut O,
    ) {
        if self.lie == Lie::StandStill {
            self.still += 1;
            assert!(self.still < 1_000_000, "nobody stopped it");
            return;
        }
        self.inner.advance(now, outcomes, observer);
        match self.lie {
            Lie::FinishTwice => outcomes.extend(outcomes.last().copied()),
            Lie::FinishSilently => outcomes.retain(|o| o.outcome != Outcome::FirstToken),
            Lie::WorkTwice => {
                let shape = BatchShape {
                    decode_seqs: 1,
                    ..BatchShape::default()
                };
                for _ in 0..2 {
                    let nothing = windtunnel_base::units::MicroJoules::ZERO;
                    observer.step(SimTime::ZERO, now, &shape, nothing, false);
                }
            }
            _ => {}
        }
    }

    fn stats(&self, now: SimTime) -> EngineStats {
        let kept = u64::from(self.lie == Lie::KeepMemory);
        EngineStats {
            kv_held: kept,
            kv_total: kept,
            ..self.inner.stats(now)
        }
    }

    fn watch_cache(&mut self, _: bool) {}

    fn cached_prefix_tokens(&self, _: &[Extent], _: u32) -> u32 {
        0
    }

    fn record_cache_events(&mut self, _: bool) {}

    fn take_cache_events(&mut self, _: &mut Vec<CacheEvent>) {}
}

impl Machine for Liar {
    fn hourly_price(&self) -> NanoUsd {
        NanoUsd(3_600_000_000_000)
    }

    fn idle_microwatts(&self) -> u64 {
        0
    }

    fn is_station(&self) -> bool {
        self.lie != Lie::WorkTwice // stations have no steps to report
    }

    fn block_tokens(&self) -> u32 {
        16
    }

    fn stall(&mut self, now: SimTime, until: SimTime) {
        self.inner.stall(now, until);
    }

    fn set_speed(&mut self, now: SimTime, factor: f64) {
        self.inner.set_speed(now, factor);
    }

    fn check_memory(&self, _: bool) -> Result<(), Discrepancy> {
        if self.lie == Lie::LeakMemory {
            return Err(Discrepancy {
                expected: "10 blocks".into(),
                found: "9 blocks".into(),
            });
        }
        Ok(())
    }
}

fn scenario() -> Scenario {
    stations(1, 1)
}

/// Three jobs on a lying station: the breach, if any.
fn tell(lie: Lie) -> Option<Box<Violation>> {
    let inner = replicas(&scenario().fleet).expect("a station").remove(0);
    let liar = Liar {
        inner,
        lie,
        still: 0,
    };
    let mut jobs = Script::new([job(1, 5), job(2, 5), job(30, 1)]);
    match run_on(&scenario(), vec![liar], &mut jobs, 1, RunOptions::default()) {
        Ok(_) => None,
        Err(RunError::Law(violation)) => Some(violation),
        Err(other) => panic!("{other}"),
    }
}

fn breaks(lie: Lie) -> (Law, Option<u32>) {
    let violation = tell(lie).unwrap_or_else(|| panic!("{lie:?} went unnoticed"));
    let text = violation.to_string();
    assert!(
        text.contains("expected") && text.contains("found"),
        "{text}"
    );
    (violation.law, violation.request.map(|r| r.0))
}

#[test]
fn an_honest_engine_passes() {
    assert_eq!(tell(Lie::None), None);
}

#[test]
fn lies_of_engines_are_reported() {
    assert_eq!(breaks(Lie::FinishTwice), (Law::Causality, Some(0)));
    assert_eq!(breaks(Lie::FinishSilently), (Law::Causality, Some(0)));
    assert_eq!(breaks(Lie::Rest), (Law::Progress, None));
    assert_eq!(breaks(Lie::EndInThePast), (Law::Causality, None));
    assert_eq!(breaks(Lie::StandStill), (Law::Progress, None));
    assert_eq!(breaks(Lie::LeakMemory), (Law::Memory, None));
    assert_eq!(breaks(Lie::KeepMemory), (Law::Memory, None));
    assert_eq!(breaks(Lie::WorkTwice), (Law::Books, None));
}

#[test]
fn lies_about_time_are_reported() {
    /// Says that a request is due, and gives one of another time.
    struct Late(Script);
    impl Workload for Late {
        fn next_at(&mut self) -> Option<SimTime> {
            self.0.next_at()
        }
        fn take(&mut self, prefix: &mut Vec<Extent>) -> Arrival {
            let mut arrival = self.0.take(prefix);
            arrival.at = SimTime::from_nanos(arrival.at.as_nanos() - U / 2);
            arrival
        }
        fn departed(&mut self, _: RequestId, _: SimTime, _: bool) {}
    }
    let mut late = Late(Script::new([job(1, 1)]));
    let outcome = windtunnel_sim::run(&scenario(), &mut late, 1, RunOptions::default());
    assert!(matches!(outcome, Err(RunError::Law(v)) if v.law == Law::Causality));
}

#[test]
fn laws_can_be_left_out() {
    let inner = replicas(&scenario().fleet).expect("a station").remove(0);
    let liar = Liar {
        inner,
        lie: Lie::Rest,
        still: 0,
    };
    let options = RunOptions {
        laws: false,
        ..RunOptions::default()
    };
    let mut jobs = Script::new([job(1, 5)]);
    let result = run_on(&scenario(), vec![liar], &mut jobs, 1, options).expect("nobody looks");
    // What never ended is unfinished, not lost.
    assert_eq!(result.rows.len(), 1);
    assert_eq!(result.rows[0].end, windtunnel_ledger::rows::End::Unfinished);
}
