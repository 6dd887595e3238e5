use super::*;
use windtunnel_base::quantity::{Rate, Span};
use windtunnel_engine::config::EngineSpec;
use windtunnel_scenarios::schema::fleet::PoolSpec;
use windtunnel_scenarios::schema::paths::KernelSpec;
use windtunnel_scenarios::schema::{ClassSpec, Scenario};

fn at(ms: u64) -> SimTime {
    SimTime::ZERO + SimDuration::from_millis(ms)
}

fn span(seconds: u64) -> Span {
    Span(SimDuration::from_secs(seconds))
}

/// Two replicas of the frontier, one of a kernel for class `routine`, one of a small model.
fn paths(eviction: EvictionSpec, leakage: Option<LeakageSpec>) -> Paths {
    let mut scenario = Scenario::default();
    scenario.fleet.replicas = 2;
    for name in ["kernels", "small"] {
        scenario.fleet.pools.push(PoolSpec {
            token_prices: None,
            name: name.to_owned(),
            replicas: 1,
            engine: EngineSpec::Continuous(Box::default()),
        });
    }
    for class in ["reserved", "routine"] {
        scenario
            .classes
            .insert(class.to_owned(), ClassSpec::default());
    }
    let spec = PathsSpec {
        frontier: None,
        kernels: vec![KernelSpec {
            name: "k".to_owned(),
            class: "routine".to_owned(),
            pool: "kernels".to_owned(),
        }],
        eviction,
        leakage,
        small: Some("small".to_owned()),
    };
    Paths::new(
        &spec,
        &scenario.fleet,
        &Names::of(&scenario),
        Streams::new(5),
    )
}

fn class(paths: &Paths, eligible: bool) -> ClassId {
    let found = paths.by_class.iter().position(|k| k.is_some() == eligible);
    ClassId(found.expect("both kinds of classes") as u32)
}

fn leakage(overflow: Instead) -> LeakageSpec {
    LeakageSpec {
        capacity: Rate(10.0),
        u_max: 0.8,
        burst: span(5),
        window: span(10),
        overflow,
        overflow_by_class: Default::default(),
    }
}

#[test]
fn everybody_has_a_pool() {
    let mut paths = paths(EvictionSpec::Step, None);
    assert_eq!(paths.pools(), [vec![0, 1], vec![2], vec![3]]);
    let (reserved, routine) = (class(&paths, false), class(&paths, true));
    assert_eq!(
        paths.choose(RequestId(0), reserved, at(0), false),
        Path::Pool(0)
    );
    assert_eq!(
        paths.choose(RequestId(1), routine, at(0), false),
        Path::Pool(1)
    );
    paths.evict("k", at(1), true);
    assert_eq!(
        paths.choose(RequestId(2), routine, at(1), false),
        Path::Pool(0)
    );
    paths.evict("k", at(2), false);
    assert_eq!(
        paths.choose(RequestId(3), routine, at(2), false),
        Path::Pool(1)
    );
    let totals = paths.totals();
    assert_eq!((totals.eligible, totals.leaked, totals.kernel), (3, 1, 2));
}

/// The share that goes to the frontier rises evenly from the kernel's delay on, within three standard
/// errors of its binomial.
#[test]
fn a_jittered_eviction_rises_evenly() {
    let jittered = EvictionSpec::Jittered {
        over: span(120),
        jitter: span(60),
        meanwhile: Instead::StaleKernel,
    };
    let mut paths = paths(jittered, None);
    let routine = class(&paths, true);
    paths.evict("k", at(0), true);
    let delay = paths.kernels[0].delay.as_secs_f64();
    assert!((0.0..60.0).contains(&delay));
    for seconds in [0_u64, 50, 100, 150, 200] {
        let p = ((seconds as f64 - delay) / 120.0).clamp(0.0, 1.0);
        let n = 4_000;
        let leaked = (0..n)
            .filter(|&i| {
                let id = RequestId(seconds as u32 * n + i);
                paths.choose(id, routine, at(seconds * 1000), false) == Path::Pool(0)
            })
            .count() as f64;
        let error = 3.0 * (p * (1.0 - p) / f64::from(n)).sqrt() + 1e-9;
        assert!(
            (leaked / f64::from(n) - p).abs() <= error,
            "{seconds}: {leaked} of {n}, p {p}"
        );
    }
}

/// The bucket lets through what the others leave of `u_max` times the capacity: 8/s less 3/s.
#[test]
fn leakage_is_what_the_others_leave() {
    let mut paths = paths(EvictionSpec::Step, Some(leakage(Instead::Reject)));
    let (reserved, routine) = (class(&paths, false), class(&paths, true));
    paths.evict("k", at(0), true);
    let mut leaked = 0;
    for tick in 0..300_000_u32 {
        let now = at(u64::from(tick));
        if tick % 333 == 0 {
            paths.choose(RequestId(2 * tick), reserved, now, false);
        }
        // Far more than the bucket allows.
        if tick % 50 == 0
            && paths.choose(RequestId(2 * tick + 1), routine, now, false) == Path::Pool(0)
        {
            leaked += 1;
        }
    }
    // At first the window is empty, and the bucket full of five seconds.
    let expected = 300.0 * 5.0;
    assert!((f64::from(leaked) - expected).abs() < 60.0, "{leaked}");
}

#[test]
fn overflow_goes_where_it_should() {
    for (overflow, expected) in [
        (Instead::Reject, Path::Refuse),
        (Instead::Small, Path::Pool(2)),
        (Instead::StaleKernel, Path::Stale(1)),
        (Instead::StaleAnswer, Path::StaleAnswer(at(1_000))),
    ] {
        let mut none = leakage(overflow);
        none.capacity = Rate(0.0);
        let mut paths = paths(EvictionSpec::Step, Some(none));
        let routine = class(&paths, true);
        paths.evict("k", at(0), true);
        assert_eq!(paths.choose(RequestId(0), routine, at(0), false), expected);
    }
    let mut paths = paths(EvictionSpec::Step, Some(leakage(Instead::Queue)));
    let routine = class(&paths, true);
    paths.evict("k", at(0), true);
    let held = (0..100).find_map(
        |i| match paths.choose(RequestId(i), routine, at(0), false) {
            Path::Hold(until) => Some((i, until)),
            _ => None,
        },
    );
    // The bucket held five seconds of 8/s; the next one drips in an eighth of a second.
    assert_eq!(held, Some((40, at(125))));
}
