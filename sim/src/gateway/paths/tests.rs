use super::*;
use proptest::prelude::*;
use windtunnel_base::quantity::{Rate, Span};
use windtunnel_engine::config::EngineSpec;
use windtunnel_scenarios::schema::fleet::PoolSpec;
use windtunnel_scenarios::schema::paths::KernelSpec;
use windtunnel_scenarios::schema::paths::LeakageSpec;
use windtunnel_scenarios::schema::{ClassSpec, Scenario};

const SEED: u64 = 5;

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
            error_rate: None,
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
        ..PathsSpec::default()
    };
    Paths::new(
        &spec,
        &scenario.fleet,
        &Names::of(&scenario),
        (QueueOrder::Fcfs, &[]),
        Streams::new(SEED),
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
        paths.choose(RequestId(0), reserved, at(0), Asks::First),
        Path::Pool(0)
    );
    assert_eq!(
        paths.choose(RequestId(1), routine, at(0), Asks::First),
        Path::Pool(1)
    );
    paths.evict("k", at(1), true);
    assert_eq!(
        paths.choose(RequestId(2), routine, at(1), Asks::First),
        Path::Pool(0)
    );
    paths.evict("k", at(2), false);
    assert_eq!(
        paths.choose(RequestId(3), routine, at(2), Asks::First),
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
                paths.choose(id, routine, at(seconds * 1000), Asks::First) == Path::Pool(0)
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
            paths.choose(RequestId(2 * tick), reserved, now, Asks::First);
        }
        // Far more than the bucket allows.
        if tick % 50 == 0
            && paths.choose(RequestId(2 * tick + 1), routine, now, Asks::First) == Path::Pool(0)
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
        (Instead::StaleAnswer, Path::StaleAnswer(Until::Room)),
        (Instead::Queue, Path::Hold(Until::Room)),
    ] {
        let mut paths = paths(EvictionSpec::Step, Some(leakage(overflow)));
        let routine = class(&paths, true);
        paths.evict("k", at(0), true);
        let mut ask = |i| paths.choose(RequestId(i), routine, at(0), Asks::First);
        // The bucket holds five seconds of 8/s.
        assert!((0..40).all(|i| ask(i) == Path::Pool(0)));
        assert_eq!(ask(40), expected);
    }
}

// --- who waits -----------------------------------------------------------------------------------

/// Moves, and who went where when.
struct Gate {
    paths: Paths,
    reserved: ClassId,
    routine: ClassId,
    /// Time, request, and whether it took room in the bucket.
    gone: Vec<(SimTime, RequestId, bool)>,
    asked: u32,
    /// Times at which somebody was looked at.
    alarms: usize,
}

impl Gate {
    fn new(paths: Paths) -> Self {
        Self {
            reserved: class(&paths, false),
            routine: class(&paths, true),
            paths,
            gone: Vec::new(),
            asked: 0,
            alarms: 0,
        }
    }

    fn ask(&mut self, request: RequestId, asks: Asks, now: SimTime) {
        match self.paths.choose(request, self.routine, now, asks) {
            Path::Pool(pool) => self.gone.push((now, request, pool == 0)),
            Path::Hold(until) => {
                let who = Waiter {
                    request,
                    class: self.routine,
                    tenant: TenantId(0),
                    priority: 0,
                };
                self.paths.hold(who, asks, until, false, now);
            }
            other => panic!("{other:?}"),
        }
    }

    /// All that is due until then.
    fn until(&mut self, end: SimTime) {
        while let Some(now) = self.paths.next_due().filter(|&due| due <= end) {
            self.alarms += 1;
            while let Some((request, asks)) = self.paths.due(now) {
                self.ask(request, asks, now);
            }
            assert!(self.paths.next_due().is_none_or(|next| next > now));
        }
    }

    fn step(&mut self, what: Move, now: SimTime) {
        self.until(now);
        match what {
            Move::Other => {
                let other = RequestId(u32::MAX);
                self.paths.choose(other, self.reserved, now, Asks::First);
            }
            Move::Ask => {
                self.asked += 1;
                self.ask(RequestId(self.asked - 1), Asks::First, now);
            }
            Move::Leave(request) => {
                self.paths.leaves(RequestId(request), now);
            }
            Move::Kernel(evicted) => {
                for request in self.paths.evict("k", now, evicted) {
                    self.ask(request, Asks::Again, now);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// A request that no kernel serves.
    Other,
    /// A request of the kernel's.
    Ask,
    /// A client loses patience.
    Leave(u32),
    /// The kernel is evicted, or back.
    Kernel(bool),
}

fn queueing(burst: u64, window: u64) -> LeakageSpec {
    LeakageSpec {
        burst: span(burst),
        window: span(window),
        ..leakage(Instead::Queue)
    }
}

/// To the nanosecond: 8/s, of which others take an eighth each for ten seconds.
#[test]
fn who_waits_for_room_goes_on_when_it_is_there() {
    let mut gate = Gate::new(paths(EvictionSpec::Step, Some(queueing(1, 8))));
    gate.step(Move::Kernel(true), at(0));
    // Eight at once empty the bucket; two more wait, an eighth of a second each.
    (0..10).for_each(|_| gate.step(Move::Ask, at(0)));
    assert_eq!(gate.gone.len(), 8);
    gate.until(at(124));
    assert_eq!(gate.gone.len(), 8);
    gate.until(at(1000));
    assert_eq!(
        gate.gone[8..],
        [8, 9].map(|i| (at(125 * (u64::from(i) - 7)), RequestId(i), true))
    );
    // Sixteen others within eight seconds leave 6/s, the bucket empty.
    (0..8).for_each(|_| gate.step(Move::Ask, at(10_000)));
    (0..16).for_each(|_| gate.step(Move::Other, at(10_000)));
    gate.step(Move::Ask, at(10_000));
    // Seven hundred and twenty more stop the rest, until they leave the window at once.
    gate.until(at(10_100));
    (0..720).for_each(|_| gate.step(Move::Other, at(10_100)));
    gate.until(at(60_000));
    // 0.6 of a request had come by then; the first sixteen leave at 18 s, which leaves nothing still.
    let (when, who, _) = gate.gone[18];
    assert_eq!(who, RequestId(18));
    assert_eq!(when, at(18_100 + 50), "0.4 of a request at 8/s");
    assert_eq!(gate.gone.len(), 19);
    assert_eq!(gate.paths.totals().held, 3);
}

/// A kernel that is back serves all who waited for it, at once and in order.
#[test]
fn a_kernel_that_is_back_lets_everybody_go() {
    let jittered = EvictionSpec::Jittered {
        over: span(100),
        jitter: span(1),
        meanwhile: Instead::Queue,
    };
    let mut gate = Gate::new(paths(jittered, Some(queueing(1, 8))));
    gate.step(Move::Kernel(true), at(0));
    (0..50).for_each(|i| gate.step(Move::Ask, at(i)));
    assert!(gate.gone.is_empty());
    gate.step(Move::Leave(7), at(60));
    gate.step(Move::Kernel(false), at(500));
    let gone: Vec<u32> = gate.gone.iter().map(|g| g.1.0).collect();
    let all: Vec<u32> = (0..50).filter(|&i| i != 7).collect();
    assert_eq!(gone, all);
    assert!(gate.gone.iter().all(|g| g.0 == at(500) && !g.2));
    assert_eq!(gate.paths.next_due(), None);
}

/// The same world looked at every millisecond, in whole numbers: a request is `1000 * window` grains.
struct Poll {
    usable: u64,
    burst: u64,
    window: u64,
    over: Option<u64>,
    delay: SimDuration,
    evicted: Option<u64>,
    reasons: u32,
    others: Vec<u64>,
    level: u64,
    gained: u64,
    /// Who waits for chance, and who in line.
    timed: Vec<u32>,
    line: Vec<u32>,
    gone: Vec<u64>,
    asked: u32,
}

impl Poll {
    fn price(&self) -> u64 {
        1000 * self.window
    }

    fn drip(&self) -> u64 {
        (self.usable * self.window).saturating_sub(self.others.len() as u64)
    }

    fn full(&self) -> u64 {
        (self.drip() * 1000 * self.burst).max(self.price())
    }

    /// A millisecond passes; everybody asks.
    fn tick(&mut self, ms: u64) {
        self.gained += self.drip();
        self.level = (self.level + self.drip()).min(self.full());
        let window = 1000 * self.window;
        self.others.retain(|came| ms - came < window);
        for request in std::mem::take(&mut self.timed) {
            self.ask(request, ms);
        }
        self.serve(ms);
    }

    fn ask(&mut self, request: u32, ms: u64) {
        let Some(since) = self.evicted else {
            return self.gone.push(ms);
        };
        if let Some(over) = self.over {
            let mut rng = Streams::new(SEED).stream("eviction", request.into());
            let rise = at(ms - since)
                .since(SimTime::ZERO)
                .saturating_sub(self.delay);
            if rng.f64() >= rise.as_secs_f64() / over as f64 {
                return self.timed.push(request);
            }
        }
        self.line.push(request);
        self.serve(ms);
    }

    fn serve(&mut self, ms: u64) {
        self.level = self.level.min(self.full());
        while !self.line.is_empty() && self.level >= self.price() {
            self.level -= self.price();
            self.line.remove(0);
            self.gone.push(ms);
        }
    }

    fn step(&mut self, what: Move, ms: u64) {
        match what {
            Move::Other => self.others.push(ms),
            Move::Ask => {
                self.asked += 1;
                self.ask(self.asked - 1, ms);
            }
            Move::Leave(request) => {
                self.timed.retain(|&r| r != request);
                self.line.retain(|&r| r != request);
            }
            Move::Kernel(evicted) => {
                let before = self.reasons > 0;
                self.reasons = match evicted {
                    true => self.reasons + 1,
                    false => self.reasons.saturating_sub(1),
                };
                if before == (self.reasons > 0) {
                    return;
                }
                self.evicted = evicted.then_some(ms);
                let mut again = std::mem::take(&mut self.timed);
                again.append(&mut self.line);
                again.into_iter().for_each(|request| self.ask(request, ms));
            }
        }
    }
}

fn moves() -> impl Strategy<Value = Vec<(u64, Move)>> {
    let what = prop_oneof![
        6 => Just(Move::Ask),
        6 => Just(Move::Other),
        2 => (0_u32..60).prop_map(Move::Leave),
        1 => any::<bool>().prop_map(Move::Kernel),
    ];
    prop::collection::vec((prop_oneof![Just(0_u64), 0_u64..300], what), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against asking every millisecond: of those who ask, as many have gone at any time, or more; nobody is
    /// forgotten; the bucket gives no more than has dripped in; and in line, who came first goes first.
    #[test]
    fn nobody_waits_longer_than_if_all_asked_all_the_time(
        moves in moves(), burst in 0_u64..3, window in 1_u64..4, over in prop::option::of(1_u64..4),
    ) {
        let eviction = match over {
            None => EvictionSpec::Step,
            Some(over) => EvictionSpec::Jittered {
                over: span(over),
                jitter: span(1),
                meanwhile: Instead::Queue,
            },
        };
        let mut gate = Gate::new(paths(eviction, Some(queueing(burst, window))));
        gate.step(Move::Kernel(true), at(0));
        let mut poll = Poll {
            usable: 8, burst, window, over,
            delay: gate.paths.kernels[0].delay,
            evicted: Some(0),
            reasons: 1,
            others: Vec::new(), level: 0, gained: 0,
            timed: Vec::new(), line: Vec::new(), gone: Vec::new(), asked: 0,
        };
        let first = poll.full();
        poll.level = first;
        let (mut ms, most) = (0, 2 * moves.len() + 4);
        let mut left = moves.into_iter().peekable();
        let mut next = left.peek().map_or(0, |m| m.0);
        let mut idle = 0;
        while idle < 30_000 {
            while left.peek().is_some() && next == ms {
                let (_, what) = left.next().expect("it is there");
                next += left.peek().map_or(0, |m| m.0);
                gate.step(what, at(ms));
                poll.step(what, ms);
            }
            idle += u64::from(left.peek().is_none());
            ms += 1;
            gate.until(at(ms));
            poll.tick(ms);
            prop_assert!(gate.gone.len() >= poll.gone.len(), "at {} ms", ms);
            let taken = gate.gone.iter().filter(|g| g.2).count() as u64;
            prop_assert!(taken * poll.price() <= first + poll.gained, "at {} ms", ms);
            let everybody = poll.timed.is_empty() && poll.line.is_empty();
            if everybody && gate.paths.next_due().is_none() && left.peek().is_none() {
                break;
            }
        }
        prop_assert_eq!(gate.paths.next_due(), None, "everybody has gone");
        // An alarm lets somebody go on, or came too early because of somebody else.
        prop_assert!(gate.alarms <= most, "{} alarms", gate.alarms);
        if over.is_none() {
            let in_turn = gate.gone.iter().filter(|g| g.2).map(|g| g.1);
            prop_assert!(in_turn.is_sorted());
        }
        let totals = gate.paths.totals();
        prop_assert_eq!(totals.eligible, u64::from(gate.asked));
    }
}
