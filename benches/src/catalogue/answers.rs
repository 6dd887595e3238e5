//! Stored answers and stampedes, V-H4 to V-H10: whole runs of a gateway that keeps answers, in front of a
//! station with room for everybody.

use super::lab::{Lab, Run};
use super::stampedes;
use super::theory;
use super::{Case, CaseError, Check, Param, Point};
use windtunnel_ledger::decision::AnswerTotals;
use windtunnel_ledger::entry::AnswerSource;
use windtunnel_ledger::result::Segment;

const LAMBDA: Param = Param {
    name: "lambda",
    default: "10",
    doc: "requests per second for the one question",
};
const TTL: Param = Param {
    name: "ttl",
    default: "60",
    doc: "time to live, s",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-H4",
        title: "stored answers, LRU, Zipf questions: hit ratio",
        source: "Che, Tung & Wang 2002",
        params: &[
            Param {
                name: "items",
                default: "100000",
                doc: "different questions",
            },
            Param {
                name: "alpha",
                default: "1.0",
                doc: "Zipf exponent of their popularity",
            },
            Param {
                name: "fits",
                default: "0.1",
                doc: "share of the answers that fit",
            },
        ],
        points: &[
            &[("alpha", "0.8"), ("fits", "0.1")],
            &[("alpha", "0.8"), ("fits", "0.2")],
            &[("alpha", "0.8"), ("fits", "0.5")],
            &[("alpha", "1.0"), ("fits", "0.1")],
            &[("alpha", "1.0"), ("fits", "0.2")],
            &[("alpha", "1.0"), ("fits", "0.5")],
            &[("alpha", "1.1"), ("fits", "0.1")],
            &[("alpha", "1.1"), ("fits", "0.2")],
            &[("alpha", "1.1"), ("fits", "0.5")],
            &[("alpha", "1.2"), ("fits", "0.1")],
            &[("alpha", "1.2"), ("fits", "0.2")],
            &[("alpha", "1.2"), ("fits", "0.5")],
        ],
        run: response_cache,
    },
    Case {
        id: "V-H5",
        title: "stampede at an expiry: origin calls with and without coalescing",
        source: "renewal cycle of TTL + fetch + 1/lambda",
        params: &[
            LAMBDA,
            Param {
                name: "fetch",
                default: "2",
                doc: "time of a fetch, s",
            },
            TTL,
        ],
        points: &[
            &[("lambda", "10"), ("fetch", "2"), ("ttl", "60")],
            &[("lambda", "100"), ("fetch", "2"), ("ttl", "20")],
        ],
        run: stampedes::stampede,
    },
    Case {
        id: "V-H6",
        title: "probabilistic early refresh (XFetch): size of a stampede, how early, and how often too late",
        source: "Vattani, Chierichetti & Lowenstein 2015; thinned Poisson arrivals",
        params: &[
            LAMBDA,
            Param {
                name: "beta",
                default: "1",
                doc: "how early",
            },
            Param {
                name: "fetch",
                default: "1",
                doc: "time of a fetch, s",
            },
            Param {
                name: "ttl",
                default: "30",
                doc: "time to live, s; much longer than the lead",
            },
        ],
        points: &[
            &[("lambda", "100"), ("beta", "1")],
            &[("lambda", "10"), ("beta", "1")],
            &[("lambda", "50"), ("beta", "2"), ("ttl", "60")],
            &[("lambda", "30"), ("beta", "0.5")],
            &[("lambda", "3"), ("beta", "1")],
            &[("lambda", "1"), ("beta", "1"), ("ttl", "10")],
            &[("lambda", "1"), ("beta", "2"), ("ttl", "20")],
            &[("lambda", "6"), ("beta", "0.5"), ("ttl", "5")],
        ],
        run: stampedes::early_refresh,
    },
    Case {
        id: "V-H7",
        title: "stale while revalidate: who waits at an expiry",
        source: "exp(-lambda W); RFC 5861",
        params: &[
            LAMBDA,
            Param {
                name: "window",
                default: "60",
                doc: "how long a stale answer may be given, s",
            },
            Param {
                name: "ttl",
                default: "10",
                doc: "time to live, s",
            },
        ],
        points: &[
            &[("lambda", "0.01")],
            &[("lambda", "0.05")],
            &[("lambda", "0.1")],
        ],
        run: revalidation,
    },
    Case {
        id: "V-H8",
        title: "time to live since write and since use: hit ratio",
        source: "lambda T / (1 + lambda T), and 1 - exp(-lambda T)",
        params: &[Param {
            name: "load",
            default: "1",
            doc: "requests per time to live",
        }],
        points: &[
            &[("load", "0.1")],
            &[("load", "1")],
            &[("load", "3")],
            &[("load", "10")],
        ],
        run: time_to_live,
    },
    Case {
        id: "V-H9",
        title: "answers stored together: origin calls when they expire",
        source: "N keys over a window of 2 jitter TTL",
        params: &[
            Param {
                name: "keys",
                default: "1000",
                doc: "answers stored together",
            },
            Param {
                name: "jitter",
                default: "0.1",
                doc: "share of the time to live by which it varies, both ways",
            },
            Param {
                name: "ttl",
                default: "600",
                doc: "time to live, s",
            },
        ],
        points: &[&[("keys", "1000"), ("jitter", "0.1")]],
        run: stampedes::avalanche,
    },
    Case {
        id: "V-H10",
        title: "stale if error: an outage, shorter and longer than the window",
        source: "RFC 5861",
        params: &[
            Param {
                name: "window",
                default: "60",
                doc: "how long an expired answer may be given on an error, s",
            },
            Param {
                name: "outage",
                default: "50",
                doc: "length of the outage, s",
            },
        ],
        points: &[&[("outage", "50")], &[("outage", "200")]],
        run: outage,
    },
];

/// Time of a fetch that is to be none, in words; short against any gap.
pub(super) const AT_ONCE: &str = "1us";

/// A gateway that keeps answers, in front of a station that never makes anybody wait.
pub(super) fn world(rate: f64, fetch: &str, questions: &str, rest: &str) -> String {
    format!(
        "[run]
         warm_up = \"0s\"
         [fleet.engine]
         kind = \"station\"
         servers = 100000
         [traffic]
         request_rate = \"{rate} req/s\"
         service = {{ kind = \"fixed\", value = \"{fetch}\" }}
         questions = {{ {questions} }}
         {rest}"
    )
}

pub(super) fn seconds(value: f64) -> String {
    format!("{}ns", (value * 1e9).round() as u64)
}

pub(super) fn totals(run: &Run) -> AnswerTotals {
    run.result.gateway.answers
}

fn response_cache(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let items = point.count("items", 100..=1_000_000)?;
    let alpha = point.number("alpha", 0.0..=3.0)?;
    let fits = point.number("fits", 0.001..=0.99)?;
    let capacity = (items as f64 * fits).round().max(10.0);
    let p = theory::zipf(items as usize, alpha);
    // The cache has filled up when as many requests came as its characteristic time says.
    let fill = theory::che_time(&p, capacity);
    let (warm_up, counted) = (1.5 * fill, 400_000.0);
    let text = world(
        1_000.0,
        AT_ONCE,
        &format!("distinct = {items}, zipf = {alpha:?}"),
        &format!("[gateway.answers]\ncapacity = {capacity}"),
    );
    // One long run instead of eight.
    let requests = 8.0 * (warm_up + counted);
    let lab = Lab::settled(&text, point, requests, warm_up / (warm_up + counted))?;
    let run = lab.once()?;
    let kept = run.class("default");
    let hits = kept.elsewhere[AnswerSource::Stored as usize] as f64;
    let expected = theory::che_lru(&p, capacity);
    let hit = hits / kept.sent as f64;
    let noise = 3.0 * (expected * (1.0 - expected) / kept.sent as f64).sqrt();
    Ok(vec![Check::within(
        "hit ratio",
        expected,
        hit,
        noise.max(0.005),
    )])
}

fn revalidation(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let lambda = point.number("lambda", 1e-4..=100.0)?;
    let window = point.number("window", 0.0..=1e5)?;
    let ttl = point.number("ttl", 0.001..=1e5)?;
    let text = world(
        lambda,
        AT_ONCE,
        "distinct = 1",
        &format!(
            "[gateway.answers]\nttl = \"{}\"\nstale_while_revalidate = \"{}\"",
            seconds(ttl),
            seconds(window)
        ),
    );
    let runs = Lab::new(&text, point, 400_000.0)?.run()?;
    let waits = runs.each(|run| {
        let totals = totals(run);
        // The first of all found nothing at all.
        (totals.fetches - totals.refreshes - 1) as f64 / (totals.fetches - 1) as f64
    });
    Ok(vec![Check::sampled(
        "share of expiries at which a client waits",
        (-lambda * window).exp(),
        &waits,
        0.03,
    )])
}

fn time_to_live(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let load = point.number("load", 0.001..=1_000.0)?;
    let hit = |since: &str| -> Result<_, CaseError> {
        let text = world(
            load,
            AT_ONCE,
            "distinct = 1",
            &format!("[gateway.answers]\nttl = \"1s\"\nttl_since = \"{since}\""),
        );
        let runs = Lab::new(&text, point, 400_000.0)?.run()?;
        Ok(runs.each(|run| {
            let kept = run.class("default");
            kept.elsewhere[AnswerSource::Stored as usize] as f64 / kept.sent as f64
        }))
    };
    Ok(vec![
        Check::sampled(
            "hit ratio, time since write",
            load / (1.0 + load),
            &hit("write")?,
            0.01,
        ),
        Check::sampled(
            "hit ratio, time since use",
            -(-load).exp_m1(),
            &hit("use")?,
            0.01,
        ),
    ])
}

/// Requests of a segment that no stored answer served.
pub(super) fn not_stored(segment: &Segment) -> u64 {
    segment.all.sent - segment.all.elsewhere.iter().sum::<u64>()
}

/// The segments that lie within a stretch of a run, in seconds, and how long they are together.
pub(super) fn within(run: &Run, from: f64, to: f64) -> (Vec<&Segment>, f64) {
    let length = run.result.segment_ns as f64 / 1e9;
    let inside = |i: usize| i as f64 * length >= from && (i + 1) as f64 * length <= to;
    let segments = run.result.segments.iter().enumerate();
    let found: Vec<_> = segments.filter(|(i, _)| inside(*i)).map(|s| s.1).collect();
    let seconds = found.len() as f64 * length;
    (found, seconds)
}

fn outage(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let window = point.number("window", 0.0..=10_000.0)?;
    let outage = point.number("outage", 1.0..=100_000.0)?;
    let (ttl, begins) = (10.0, 30.0);
    let end = begins + outage + 30.0;
    let text = world(
        100.0,
        AT_ONCE,
        "distinct = 100, in_turn = true",
        &format!(
            "arrivals = {{ kind = \"constant\" }}\nduration = \"{}\"\n\
             [gateway.answers]\nttl = \"{}\"\nstale_if_error = \"{}\"\n\
             [[faults]]\nkind = \"origin_errors\"\nat = \"{}\"\nfor = \"{}\"\nshare = 1.0",
            seconds(end),
            seconds(ttl),
            seconds(window),
            seconds(begins),
            seconds(outage),
        ),
    );
    let run = Lab::whole(&text, point)?.once()?;
    let refused =
        |segments: &[&Segment]| -> u64 { segments.iter().flat_map(|s| s.all.refused).sum() };
    let all: Vec<&Segment> = run.result.segments.iter().collect();
    if outage <= window {
        let errors = refused(&all) as f64;
        return Ok(vec![Check::exact("errors for resident keys", 0.0, errors)]);
    }
    // The last may have been written just as it began.
    let (dead, _) = within(&run, begins + ttl + window, begins + outage);
    let sent: u64 = dead.iter().map(|s| s.all.sent).sum();
    let before = within(&run, 0.0, begins + window).0;
    Ok(vec![
        Check::exact(
            "errors while the window lasts",
            0.0,
            refused(&before) as f64,
        ),
        Check::exact(
            "requests that fail after it, of those sent then",
            sent as f64,
            refused(&dead) as f64,
        ),
    ])
}
