//! The arithmetic of autoscalers against known figures, and what no autoscaler may do.

use super::forecast::{Forecast, Holt, Season};
use super::*;
use proptest::prelude::*;
use windtunnel_base::quantity::{Rate, Span};
use windtunnel_base::rng::Streams;
use windtunnel_scenarios::schema::scaling::{ScalingRuleSpec, ScalingSignalSpec};

fn secs(s: u64) -> SimTime {
    SimTime::ZERO + SimDuration::from_secs(s)
}

fn span(s: u64) -> Span {
    Span(SimDuration::from_secs(s))
}

/// Goes anywhere at once.
fn free() -> ScalingRuleSpec {
    ScalingRuleSpec {
        stabilization: Some(span(0)),
        replicas: None,
        percent: Some(1e9),
        per: None,
    }
}

fn spec(policy: ScalingPolicySpec) -> ScalingSpec {
    ScalingSpec {
        pool: None,
        min_replicas: 1,
        max_replicas: 1000,
        provisioning: span(120),
        period: span(15),
        tolerance: 0.1,
        policy,
        scale_up: free(),
        scale_down: free(),
    }
}

fn reactive(signal: ScalingSignalSpec) -> ScalingPolicySpec {
    let window = span(0);
    ScalingPolicySpec::Reactive { signal, window }
}

fn concurrency(target: f64) -> ScalingPolicySpec {
    reactive(ScalingSignalSpec::Concurrency { target })
}

fn scaler(spec: &ScalingSpec, start: u32) -> Scaler {
    Scaler::new(spec, start, Streams::new(1).stream("scaling", 0))
}

/// A look at so many replicas, of which so many serve.
fn seen(at: u64, ordered: u32, ready: u32) -> Seen<'static> {
    Seen {
        now: secs(at),
        waiting: 0,
        running: 0,
        concurrency: 0,
        kv_shares: 0.0,
        loads: &[],
        arrivals: 0,
        ready,
        ordered,
    }
}

fn look(policy: ScalingPolicySpec, replicas: u32, concurrency: u64) -> u32 {
    let mut scaler = scaler(&spec(policy), replicas);
    scaler.look(&Seen {
        concurrency,
        ..seen(15, replicas, replicas)
    })
}

/// V-E1 and V-E2: figures of the two autoscalers' own descriptions.
#[test]
fn kubernetes_and_knative_reckon_like_this() {
    for (replicas, each, target, expected) in [
        (4, 200, 100.0, 8),
        (4, 105, 100.0, 4),
        (10, 50, 100.0, 5),
        (3, 90, 50.0, 6),
        (4, 111, 100.0, 5),
        (4, 89, 100.0, 4),
    ] {
        let found = look(concurrency(target), replicas, each * u64::from(replicas));
        assert_eq!(found, expected, "{replicas} of {each} at {target}");
    }
    let knative = 10.0 * 0.7;
    assert_eq!(look(concurrency(knative), 1, 100), 15);
}

#[test]
fn replicas_on_order_count_and_are_not_taken_back_while_others_are_over_their_target() {
    let mut scaler = scaler(&spec(concurrency(100.0)), 4);
    let mut at = |t, concurrency, ordered, ready| {
        scaler.look(&Seen {
            concurrency,
            ..seen(t, ordered, ready)
        })
    };
    assert_eq!(at(15, 800, 4, 4), 8);
    assert_eq!(at(30, 800, 8, 4), 8, "they are on order already");
    assert_eq!(at(45, 500, 8, 4), 8, "those that serve have too much");
    assert_eq!(at(60, 300, 8, 4), 3, "now they have too little");
}

#[test]
fn a_signal_is_its_mean_over_the_window() {
    let signal = ScalingSignalSpec::QueueDepth { target: 1.0 };
    let policy = ScalingPolicySpec::Reactive {
        signal,
        window: span(60),
    };
    let mut scaler = scaler(&spec(policy), 1);
    let mut at = |t, waiting| {
        scaler.look(&Seen {
            waiting,
            ..seen(t, 1, 1)
        })
    };
    assert_eq!(at(15, 0), 1);
    assert_eq!(at(30, 0), 1);
    assert_eq!(at(45, 40), 14, "a third of 40, rounded up");
    assert_eq!(at(60, 40), 20);
    assert_eq!(at(75, 40), 30, "the first look is 60 s old and gone");
}

#[test]
fn time_to_first_token_is_a_quantile_of_what_came() {
    let signal = ScalingSignalSpec::Ttft {
        target: Span(SimDuration::from_millis(100)),
        quantile: 0.9,
    };
    let mut scaler = scaler(&spec(reactive(signal)), 2);
    assert!(scaler.hears_first_tokens());
    assert_eq!(
        scaler.look(&seen(15, 2, 2)),
        2,
        "nothing came, nothing is known"
    );
    for ms in 1..=10 {
        scaler.first_token(secs(20), SimDuration::from_millis(ms * 33));
    }
    // Nine of ten are at most 297 ms, three times the target.
    assert_eq!(scaler.look(&seen(30, 2, 2)), 6);
    assert_eq!(
        scaler.look(&seen(45, 6, 2)),
        6,
        "the next look knows only what came since"
    );
}

#[test]
fn rules_are_those_of_kubernetes() {
    // By default at most four or as many as there are within 15 s, whichever is more.
    let mut usual = spec(concurrency(1.0));
    (usual.scale_up, usual.scale_down) = Default::default();
    let mut scaler = scaler(&usual, 1);
    let mut at = |t, ordered, concurrency| {
        scaler.look(&Seen {
            concurrency,
            ..seen(t, ordered, ordered)
        })
    };
    assert_eq!(at(15, 1, 100), 5);
    assert_eq!(at(20, 5, 100), 5, "four within 15 s are all");
    assert_eq!(at(30, 5, 100), 10);
    assert_eq!(at(45, 10, 100), 20);
    // They are let go when nobody has wanted more for 300 s.
    assert_eq!(at(60, 20, 100), 40);
    assert_eq!(at(75, 40, 3), 40);
    assert_eq!(at(360, 40, 3), 40, "a hundred were wanted 300 s ago");
    assert_eq!(at(375, 40, 3), 3);
}

#[test]
fn a_timetable_is_followed_ahead_of_time() {
    let entry = |from, replicas| ScheduledReplicas {
        from: span(from),
        replicas,
    };
    let mut daily = spec(ScalingPolicySpec::Scheduled {
        at: vec![entry(600, 5), entry(1200, 2)],
        every: Some(span(3600)),
    });
    let mut scaler = scaler(&daily, 1);
    let mut at = |t| scaler.look(&seen(t, 1, 1));
    assert_eq!([at(15), at(465), at(480), at(600)], [1, 1, 5, 5]);
    // Fewer only when it is time, not when an order would be due.
    assert_eq!([at(1185), at(1200), at(3600)], [5, 2, 2]);
    assert_eq!([at(4065), at(4080)], [2, 5], "and the next day again");
    daily.max_replicas = 3;
    assert_eq!(self::scaler(&daily, 1).look(&seen(480, 1, 1)), 3);
}

#[test]
fn a_forecast_follows_a_ramp_without_lag() {
    // 10 more per look: Holt's trend comes to lie on it exactly.
    let mut forecast = Forecast::new(Holt::new(0.5, 0.3), None);
    let rate = |n: f64| 100.0 + 10.0 * n;
    for n in 0..200 {
        // A rate counted over a look is that of its middle.
        forecast.see(rate(f64::from(n) + 0.5));
    }
    for ahead in [0.0, 1.0, 8.0] {
        let (found, expected) = (forecast.ahead(ahead), rate(200.0 + ahead));
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn a_season_seen_once_is_known_and_a_crowd_on_top_of_it_is_trend() {
    let wave = |n: usize| 10.0 + [0.0, 3.0, 8.0, 5.0, 1.0, 0.0][n % 6];
    let mut forecast = Forecast::new(Holt::new(0.5, 0.1), Some(Season::new(6, 0.5)));
    for n in 0..24 {
        forecast.see(wave(n));
    }
    for ahead in 0..6 {
        let found = forecast.ahead(ahead as f64);
        assert!((found - wave(24 + ahead)).abs() < 1e-9, "{ahead}: {found}");
    }
    // Four more than usual, and they stay: the level of what differs goes there.
    for n in 24..30 {
        forecast.see(wave(n) + 4.0);
    }
    let found = forecast.ahead(0.0) - wave(30);
    assert!((3.0..5.5).contains(&found), "{found}");
}

#[test]
fn predictive_orders_what_is_needed_when_the_order_is_ready() {
    let mut rising = spec(ScalingPolicySpec::Predictive {
        per_replica: Rate(10.0),
        level: 1.0,
        trend: 1.0,
        season: None,
        seasonal: 0.5,
        work_off: Some(span(60)),
    });
    rising.tolerance = 0.0;
    let mut scaler = scaler(&rising, 1);
    // 30 per s in the first look, 60 in the second: 2 per s and second, from 22.5 s on.
    let at = |t, arrivals, waiting| Seen {
        arrivals,
        waiting,
        ..seen(t, 1, 1)
    };
    assert_eq!(scaler.look(&at(15, 450, 0)), 3);
    // At 150 s: 60 + 2 * 127.5 = 315 per s.
    assert_eq!(scaler.look(&at(30, 1350, 0)), 32);
    // What waits is to be gone within a minute: 6000 are ten replicas more. The rate stays at 60.
    assert_eq!(scaler.look(&at(45, 2250, 6000)), 16);
}

#[test]
fn processors_tell_as_much_of_the_load_as_asked_for() {
    for correlation in [0.0, 0.2, 0.9] {
        let cpu = ScalingSignalSpec::Cpu {
            target: 0.5,
            correlation,
            mean: 0.5,
            deviation: 0.1,
        };
        let mut scaler = scaler(&spec(reactive(cpu)), 4);
        let mut loads = Streams::new(3).stream("test", 0);
        for t in 1..20_000 {
            let loads: Vec<u32> = (0..4).map(|_| loads.below(30) as u32).collect();
            let loads = &loads[..];
            scaler.look(&Seen {
                loads,
                ..seen(t, 4, 4)
            });
        }
        let found = scaler.moments().correlation().unwrap();
        // Standard error of a correlation over 80,000 pairs: 0.0035.
        assert!((found - correlation).abs() < 0.011, "{found} {correlation}");
    }
}

/// What may happen to a pool between looks.
#[derive(Clone, Debug)]
enum Turn {
    Wants(u32),
    Arrives,
    Rests,
}

proptest! {
    /// However a pool is told to change: it has as many as wanted unless replicas on their way out are in
    /// the way, nobody is ordered twice, ready ones go only when none is on order, and the
    /// integral is that of a plain count.
    #[test]
    fn pools_keep_count(turns in prop::collection::vec(
        (1_u64..50, prop_oneof![
            3 => (1_u32..9).prop_map(Turn::Wants),
            2 => Just(Turn::Arrives),
            2 => Just(Turn::Rests),
        ]), 1..60)) {
        let mut pool = Pool::new(10..18, 2);
        // 0 off, 1 on order, 2 ready, 3 on its way out.
        let mut plain = [2, 2, 0, 0, 0, 0, 0, 0];
        let (mut now, mut paid, mut most) = (0, 0_u128, 2);
        let place = |id: windtunnel_base::ids::ReplicaId| id.index() - 10;
        for (gap, turn) in turns {
            now += gap;
            paid += u128::from(gap) * plain.iter().filter(|&&s| s > 0).count() as u128;
            let at = SimTime::from_nanos(now);
            let with = |state| plain.iter().position(|&s| s == state);
            let id = |place: usize| windtunnel_base::ids::ReplicaId(place as u32 + 10);
            match turn {
                Turn::Arrives => if let Some(p) = with(1) {
                    pool.becomes_ready(at, id(p));
                    plain[p] = 2;
                },
                Turn::Rests => if let Some(p) = with(3) {
                    prop_assert!(pool.is_draining(id(p)));
                    pool.release(at, id(p));
                    plain[p] = 0;
                },
                Turn::Wants(wanted) => {
                    let mut changes = Vec::new();
                    pool.change_to(at, wanted, &mut changes);
                    for change in changes {
                        let (id, from, to) = match change {
                            Change::Order(id) => (id, 0, 1),
                            Change::Cancel(id) => (id, 1, 0),
                            Change::Drain(id) => (id, 2, 3),
                        };
                        prop_assert_eq!(plain[place(id)], from);
                        prop_assert!(to != 3 || !plain.contains(&1));
                        plain[place(id)] = to;
                    }
                    let there = plain.iter().filter(|&&s| s == 1 || s == 2).count() as u32;
                    let free = plain.iter().filter(|&&s| s == 0).count();
                    prop_assert!(there == wanted || (there < wanted && free == 0));
                }
            }
            most = most.max(plain.iter().filter(|&&s| s > 0).count() as u32);
            let ready = plain.iter().filter(|&&s| s == 2).count() as u32;
            prop_assert_eq!(pool.ready(), ready);
            prop_assert_eq!(pool.off().count(), plain.iter().filter(|&&s| s == 0).count());
        }
        let totals = pool.totals(SimTime::from_nanos(now));
        prop_assert_eq!((totals.provisioned_ns, totals.peak), (paid, most));
    }

    /// Rules never go beyond what is wanted, nor the wrong way, and without limits and windows they
    /// are not there.
    #[test]
    fn rules_only_hold_back(
        wants in prop::collection::vec((1_u64..40, 1_u32..50), 1..40),
        up in 1_u32..6, percent in 1.0_f64..200.0, window in 0_u64..100,
    ) {
        let rule = ScalingRuleSpec {
            stabilization: Some(span(window)),
            replicas: Some(up),
            percent: Some(percent),
            per: Some(span(20)),
        };
        let mut held = Rules::new(&rule, &rule, 5);
        let mut unheld = Rules::new(&free(), &free(), 5);
        let (mut now, mut present, mut free) = (0, 5, 5);
        for (gap, wanted) in wants {
            now += gap;
            let next = held.hold_back(secs(now), present, wanted);
            let between = present.min(wanted)..=present.max(wanted);
            prop_assert!(between.contains(&next) || window > 0, "{present} {wanted} {next}");
            free = unheld.hold_back(secs(now), free, wanted);
            prop_assert_eq!(free, wanted);
            present = next.max(1);
        }
    }
}
