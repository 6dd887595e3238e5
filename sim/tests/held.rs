//! Requests that wait before their pool is chosen: when each goes on, by hand.

mod common;

use common::{Script, U, add_kernel, job, span, stations, units};
use windtunnel_base::ids::ClassId;
use windtunnel_base::quantity::{Rate, Span};
use windtunnel_base::time::SimDuration;
use windtunnel_ledger::entry::AnswerSource;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rows::End;
use windtunnel_scenarios::schema::answers::AnswersSpec;
use windtunnel_scenarios::schema::paths::{EvictionSpec, Instead, LeakageSpec, PathsSpec};
use windtunnel_scenarios::schema::{FaultSpec, Scenario};
use windtunnel_scenarios::workload::{Arrival, Question};
use windtunnel_sim::{RunOptions, run};

/// The kernel is gone from unit 1 to this one: ten seconds.
const BACK: u64 = 5121;

fn play(scenario: &Scenario, script: &Script) -> RunResult {
    run(scenario, &mut script.clone(), 7, RunOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// A frontier and a kernel for the class `routine`, which is evicted; two requests per second may take its
/// place at the frontier, one at a time.
fn world(overflow: Instead) -> Scenario {
    let mut scenario = stations(1, 8);
    let paths = PathsSpec {
        eviction: EvictionSpec::Step,
        leakage: Some(LeakageSpec {
            capacity: Rate(2.0),
            u_max: 1.0,
            burst: Span(SimDuration::ZERO),
            window: Span(SimDuration::from_secs(4)),
            overflow,
            overflow_by_class: Default::default(),
        }),
        ..PathsSpec::default()
    };
    add_kernel(&mut scenario, paths);
    scenario.faults = vec![FaultSpec::KernelEvicted {
        at: span(1),
        lasts: span(BACK - 1),
        kernel: "k".to_owned(),
    }];
    scenario
}

fn of_class(class: u32, mut arrival: Arrival) -> Arrival {
    arrival.class = ClassId(class);
    arrival
}

#[test]
fn they_go_on_when_there_is_room_and_at_once_when_their_kernel_is_back() {
    let routine = |at| of_class(1, job(at, 1));
    let mut leaves = routine(13);
    leaves.patience = Some(units(100));
    let script = Script::new([
        routine(10),
        routine(11),
        routine(12),
        leaves,
        routine(300),
        of_class(0, job(600, 1)),
        routine(5100),
        routine(5101),
    ]);
    let result = play(&world(Instead::Queue), &script);
    // Half a second is 256 units. The one who left makes room for the next; after the request that is no
    // kernel's, at unit 600, a quarter less drips in: 178 / 256 of a request at 7 / 4 per second.
    let delayed = 600 * U + 397_321_429;
    let expected = [
        Some((10 * U, 0)),
        Some((266 * U, 0)),
        Some((522 * U, 0)),
        None,
        Some((delayed, 0)),
        Some((600 * U, 0)),
        Some((5100 * U, 0)),
        Some((BACK * U, 1)),
    ];
    for (row, expected) in result.rows.iter().zip(expected) {
        let went = row.dispatched_ns.zip(row.replica);
        assert_eq!(went, expected, "request {}", row.request);
    }
    assert_eq!(result.rows[3].end, End::Abandoned);
    let paths = result.paths.expect("there are paths");
    assert_eq!((paths.held, paths.overflow, paths.leaked), (5, 5, 5));
    // Nobody asks in vain but once: when the other request has come meanwhile.
    let quiet = play(&world(Instead::StaleKernel), &script);
    let alarms = result.events - quiet.events;
    assert!(alarms <= 5, "{alarms} more events");
}

/// Who would take an expired answer takes one as soon as there is any, fresh ones included.
#[test]
fn they_take_an_answer_that_another_brings() {
    let mut scenario = world(Instead::StaleAnswer);
    scenario.gateway.answers = Some(AnswersSpec {
        ttl: Some(span(50)),
        stale_if_error: span(5000),
        ..AnswersSpec::default()
    });
    let asks = |about, mut arrival: Arrival| {
        arrival.question = Some(Question::plain(about));
        arrival
    };
    let script = Script::new([
        asks(1, of_class(1, job(10, 1))),
        asks(2, of_class(1, job(11, 1))),
        asks(3, of_class(1, job(12, 1))),
        asks(3, of_class(0, job(20, 7))),
    ]);
    let result = play(&scenario, &script);
    let ended = |i: usize| (result.rows[i].ended_ns, result.rows[i].answer);
    assert_eq!(ended(0), (11 * U, None));
    assert_eq!(ended(2), (27 * U, Some(AnswerSource::Stale)));
    assert_eq!(ended(3), (27 * U, None));
    // The other goes on when there is room: the one at unit 20 has left 246 / 256 of a request at 7 / 4 per
    // second to wait for.
    let room = 20 * U + 549_107_143;
    assert_eq!(ended(1), (room + U, None));
}
