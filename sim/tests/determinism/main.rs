//! Equal inputs give equal runs, whatever is watched or kept; fast-forward changes nothing but speed;
//! policies face the same requests.

#[path = "../common/mod.rs"]
mod common;
/// Random stored answers.
mod stored;
/// Random parts of worlds.
mod parts;
/// Random worlds.
mod worlds;

use common::Script;

use proptest::prelude::*;
use windtunnel_base::ids::RequestId;
use windtunnel_base::quantity::Money;
use windtunnel_base::refusal::Refusal;
use windtunnel_base::time::SimTime;
use windtunnel_base::units::NanoUsd;
use windtunnel_engine::config::EngineSpec;
use windtunnel_ledger::entry::AnswerSource;
use windtunnel_ledger::result::RunResult;
use windtunnel_ledger::rollout::RolloutOutcome;
use windtunnel_ledger::rows::Row;
use windtunnel_ledger::scaling::{ScalingChange, ScalingStep};
use windtunnel_scenarios::schema::paths::OnReject;
use windtunnel_scenarios::schema::policies::RoutingSpec;
use windtunnel_scenarios::schema::token_prices::TokenPricesSpec;
use windtunnel_scenarios::schema::{FaultSpec, Scenario};
use windtunnel_sim::{RunOptions, Step, run};
use worlds::{script, world};

fn options<'a>() -> RunOptions<'a> {
    RunOptions {
        laws: true,
        samples: 50,
        ..RunOptions::default()
    }
}

fn play(scenario: &Scenario, script: &Script, options: RunOptions<'_>) -> RunResult {
    run(scenario, &mut script.clone(), 7, options).unwrap_or_else(|e| panic!("{e}"))
}

/// Everything of a result but the number of events, which fast-forward is there to change.
fn essence(result: &RunResult) -> (String, u64, Vec<Row>, String) {
    let mut rest = result.clone();
    rest.events = 0;
    rest.rows.clear();
    let rows = result.rows.clone();
    (
        result.digest.clone(),
        result.end_ns,
        rows,
        format!("{rest:?}"),
    )
}

fn without_fast_forward(scenario: &Scenario) -> Scenario {
    let mut slow = scenario.clone();
    if let EngineSpec::Continuous(engine) = &mut slow.fleet.engine {
        engine.fast_forward = false;
    }
    slow
}

/// Failures are shown in full; files of them would not find their way back to a test folder.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    /// Exact fast-forward (rows, digest, books, distributions), and laws that hold, over random worlds.
    #[test]
    fn fast_forward_changes_nothing(scenario in world(), script in script()) {
        let fast = play(&scenario, &script, options());
        let slow = play(&without_fast_forward(&scenario), &script, options());
        prop_assert_eq!(essence(&fast), essence(&slow));
    }
}

proptest! {
    #![proptest_config(cases(200))]

    /// Watching changes nothing: laws, samples, rows, decisions, progress.
    #[test]
    fn watching_changes_nothing(scenario in world(), script in script()) {
        let plain = play(&scenario, &script, RunOptions { keep_rows: false, laws: false, ..options() });
        let mut reports = 0;
        let mut count = |_| reports += 1;
        let watched = play(&scenario, &script, RunOptions {
            laws: true,
            keep_rows: true,
            samples: 10,
            record_decisions: true,
            watch: Some(RequestId(0)),
            progress: Some(&mut count),
            ..options()
        });
        prop_assert_eq!(&plain.digest, &watched.digest);
        prop_assert_eq!(plain.events, watched.events);
        prop_assert_eq!(format!("{:?}", plain.segments), format!("{:?}", watched.segments));
        prop_assert_eq!(watched.rows.len(), script_sent(&watched));
        prop_assert!(watched.samples.len() <= 10);
        prop_assert_eq!(watched.gateway.dispatched as usize,
            watched.decisions.iter().filter(|d| d.replica.is_some()).count());
    }

    /// Prices change what a run costs, and nothing else.
    #[test]
    fn prices_change_nothing_but_what_is_paid(scenario in world(), script in script()) {
        let mut free = scenario.clone();
        free.fleet.token_prices = None;
        let mut paid = scenario;
        paid.fleet.token_prices = Some(TokenPricesSpec {
            input: Money(NanoUsd(3_000_001)),
            output: Money(NanoUsd(15_000_007)),
            ..TokenPricesSpec::default()
        });
        let [free, paid] = [free, paid].map(|s| play(&s, &script, options()));
        prop_assert_eq!(&free.rows, &paid.rows);
        prop_assert_eq!((free.end_ns, free.events), (paid.end_ns, paid.events));
        prop_assert_eq!(format!("{:?}", free.shared_cache), format!("{:?}", paid.shared_cache));
    }

    /// The log of steps changes nothing and leaves nothing out: it is in order, every step knows
    /// what it left, and times and tokens add up to those of the books.
    #[test]
    fn steps_add_up(scenario in world(), script in script()) {
        let plain = play(&scenario, &script, options());
        let mut log: Vec<Step> = Vec::new();
        let mut listen = |step: &Step| log.push(*step);
        let logged = play(&scenario, &script, RunOptions { steps: Some(&mut listen), ..options() });
        prop_assert_eq!(essence(&plain), essence(&logged));
        let end = SimTime::from_nanos(plain.end_ns);
        let llms = scenario.fleet.sizes().next().map_or(0, |(_, _, most)| most as usize);
        for (r, totals) in plain.replicas.iter().take(llms).enumerate() {
            let own: Vec<&Step> = log.iter().filter(|s| s.replica.index() == r).collect();
            prop_assert!(own.windows(2).all(|w| w[0].to <= w[1].from));
            prop_assert!(own.iter().all(|s| s.to > end || s.after.is_some()));
            let busy: u64 = own.iter().map(|s| s.to.min(end).since(s.from).as_nanos()).sum();
            let whole = own.iter().filter(|s| s.to <= end);
            let tokens: u64 = whole.map(|s| u64::from(s.shape.sampled)).sum();
            prop_assert_eq!((busy, tokens), (totals.busy_ns, totals.output_tokens));
        }
    }

    /// Two policies face the same requests: equal arrivals, lengths and truths.
    #[test]
    fn policies_do_not_move_arrivals(mut scenario in world(), script in script()) {
        // How good an answer is may depend on who gives it, which policies decide.
        scenario.fleet.pools.iter_mut().for_each(|pool| pool.error_rate = None);
        scenario.faults.retain(|fault| !matches!(fault, FaultSpec::KernelDrift { .. }));
        // So may whether a kernel gives it, whose bad answers the frontier may replace.
        if let Some(paths) = &mut scenario.gateway.paths {
            paths.on_reject = OnReject::Deliver;
        }
        let mut other = scenario.clone();
        other.gateway.routing = RoutingSpec::Random;
        other.run.cut_off = None;
        let mut first = scenario;
        first.run.cut_off = None;
        let [a, b] = [first, other].map(|s| play(&s, &script, options()).rows);
        let sent = |r: &Row| (r.sent_ns, r.prompt_tokens, r.class, r.session);
        prop_assert_eq!(a.iter().map(sent).collect::<Vec<_>>(), b.iter().map(sent).collect::<Vec<_>>());
        // An answer from elsewhere is as good as that is, and policies decide whether there is one.
        let own = |r: &&Row| matches!(r.answer, None | Some(AnswerSource::Attempt));
        for (a, b) in a.iter().zip(&b).filter(|(a, b)| own(a) && own(b)) {
            prop_assert_eq!(a.good, b.good);
        }
    }
}

fn script_sent(result: &RunResult) -> usize {
    result.segments.iter().map(|s| s.all.sent as usize).sum()
}

/// The random worlds are worth their while: everything that can happen to a request does.
#[test]
fn random_worlds_see_everything() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut all = windtunnel_ledger::result::Population::default();
    let (mut cached, mut queued, mut cancelled, mut ahead) = (0, 0, 0, 0);
    let mut paths = windtunnel_ledger::gateway::PathTotals::default();
    let mut probing = windtunnel_ledger::gateway::ProbeTotals::default();
    let (mut unanswered, mut drift_came_through) = (0, 0);
    let (mut tried, mut rolled_back, mut in_full, mut harmed) = ([0_u64; 4], 0_u64, 0_u64, 0_u64);
    let (mut passed, mut scaled) = (0, windtunnel_ledger::scaling::ScalingTotals::default());
    let (mut cold, mut ejected) = (0, 0);
    let mut answers = windtunnel_ledger::decision::AnswerTotals::default();
    for _ in 0..1500 {
        let mut draw = || {
            let scenario = world().new_tree(&mut runner).expect("a world").current();
            (
                scenario,
                script().new_tree(&mut runner).expect("traffic").current(),
            )
        };
        let (scenario, script) = draw();
        let result = play(&scenario, &script, options());
        let slow = play(&without_fast_forward(&scenario), &script, options());
        ahead += u64::from(result.events < slow.events);
        result.segments.iter().for_each(|s| all.merge(&s.all));
        cached += all.cached_tokens;
        queued += result.gateway.queued;
        cancelled += result.gateway.cancelled;
        ejected += result.gateway.ejections.unwrap_or(0);
        passed += result.pipeline.map_or(0, |p| p.time.count());
        if let Some(more) = result.scaling {
            scaled.orders += more.orders;
            scaled.cancelled += more.cancelled;
            scaled.drains += more.drains;
            let released = |c: &&ScalingChange| c.step == ScalingStep::Released;
            cold += more.changes.iter().filter(released).count() as u64 - more.cancelled;
            scaled.short_checks += more.short_checks;
        }
        for rollout in &result.rollouts {
            let stages = || rollout.stages.iter();
            let of = |kind| stages().any(|s| s.kind == kind && s.compared > 0);
            let kinds = ["replay", "shadow", "assist", "canary"];
            (tried.iter_mut().zip(kinds)).for_each(|(n, kind)| *n += u64::from(of(kind)));
            rolled_back += u64::from(rollout.outcome == RolloutOutcome::RolledBack);
            in_full += u64::from(rollout.outcome == RolloutOutcome::Full);
            harmed += stages().filter(|s| s.harm > 0.0).count() as u64;
        }
        let more = &result.gateway.answers;
        answers.exact += more.exact;
        answers.stale += more.stale;
        answers.similar += more.similar;
        answers.stale_on_error += more.stale_on_error;
        answers.refreshes += more.refreshes;
        answers.coalesced += more.coalesced;
        answers.promoted += more.promoted;
        answers.failed_with_leader += more.failed_with_leader;
        answers.follower_timeouts += more.follower_timeouts;
        if let Some(more) = result.paths {
            paths.stale_kernel += more.stale_kernel;
            paths.held += more.held;
            paths.leaked += more.leaked;
            paths.quarantined += more.quarantined;
            let probed = more.probing.unwrap_or_default();
            probing.compared += probed.compared;
            probing.alarms += probed.alarms;
            unanswered += probed.probes - probed.compared;
            drift_came_through += more.drift.map_or(0, |d| d.bad_outputs);
        }
    }
    let lost = all.refused[Refusal::Unavailable as usize];
    assert!(
        all.refused.iter().filter(|&&n| n > 0).count() >= 4,
        "{:?}",
        all.refused
    );
    for (what, n) in [
        ("finished", all.finished),
        ("abandoned", all.abandoned),
        ("unfinished", all.unfinished),
        ("preempted", all.preemptions),
        ("found in cache", cached),
        ("waiting at the gateway", queued),
        ("cancelled", cancelled),
        ("verified", all.verified),
        ("runs that went ahead", ahead),
        ("lost with their replicas", lost),
        ("ejected", ejected),
        ("through the stages", passed),
        ("held back", paths.held),
        ("served by evicted kernels", paths.stale_kernel),
        ("leaked", paths.leaked),
        ("of suspect kernels", paths.quarantined),
        ("probes compared", probing.compared),
        ("probes that came to nothing", unanswered),
        ("alarms", probing.alarms),
        ("bad for drift", drift_came_through),
        ("replayed", tried[0]),
        ("in shadow", tried[1]),
        ("suggested to humans", tried[2]),
        ("canaries", tried[3]),
        ("kernels withdrawn", rolled_back),
        ("kernels in full use", in_full),
        ("harmed by new kernels", harmed),
        ("replicas ordered", scaled.orders),
        ("orders taken back", scaled.cancelled),
        ("replicas on their way out", scaled.drains),
        ("of those, released", cold),
        ("looks that found a queue", scaled.short_checks),
        ("given stored answers", answers.exact),
        ("given stale answers", answers.stale),
        ("given answers to similar questions", answers.similar),
        (
            "given stale answers for want of others",
            answers.stale_on_error,
        ),
        ("made anew for nobody", answers.refreshes),
        ("waiting for others", answers.coalesced),
        ("promoted", answers.promoted),
        (
            "failed with whom they waited for",
            answers.failed_with_leader,
        ),
        ("going on alone", answers.follower_timeouts),
    ] {
        assert!(n >= 5, "{what}: {n}");
    }
}
