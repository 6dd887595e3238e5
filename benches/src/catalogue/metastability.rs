//! Retries and metastability, V-M1 to V-M4: clients that try again, and servers that cannot keep up.

use super::lab::{Lab, Run};
use super::{Case, CaseError, Check, Param, Point};
use windtunnel_scenarios::schema::clients::MOST_LAYERS;

const LOAD: Param = Param {
    name: "lam",
    default: "0.6",
    doc: "requests per second; the server does one per second",
};
const RETRIES: Param = Param {
    name: "r",
    default: "1",
    doc: "retries after the first attempt",
};
const STALL: Param = Param {
    name: "stall",
    default: "100",
    doc: "seconds that the server stands still, from 500 s on",
};

/// The cases of this file.
pub(super) const CASES: &[Case] = &[
    Case {
        id: "V-M1",
        title: "M/M/1 with timeouts and retries: collapse after a stall",
        source: "collapse sustains itself iff lam (1 + r) > mu; Bronson et al., HotOS 2021; Huang et al., OSDI 2022",
        params: &[LOAD, RETRIES, STALL],
        points: &[
            &[("lam", "0.45"), ("r", "1"), ("stall", "100")],
            &[("lam", "0.6"), ("r", "1"), ("stall", "10")],
            &[("lam", "0.6"), ("r", "1"), ("stall", "20")],
            &[("lam", "0.6"), ("r", "1"), ("stall", "100")],
            &[("lam", "0.3"), ("r", "2"), ("stall", "100")],
            &[("lam", "0.4"), ("r", "2"), ("stall", "100")],
            &[("lam", "0.6"), ("r", "0"), ("stall", "100")],
        ],
        run: collapse,
    },
    Case {
        id: "V-M2",
        title: "the same at lam = 0.7, r = 1 after 100 s, with a fix",
        source: "each keeps lam (1 + r) at mu or below, or serves who still waits",
        params: &[Param {
            name: "fix",
            default: "budget",
            doc: "none, budget (10 %), cancel (dead work) or lifo",
        }],
        points: &[
            &[("fix", "none")],
            &[("fix", "budget")],
            &[("fix", "cancel")],
            &[("fix", "lifo")],
        ],
        run: fixes,
    },
    Case {
        id: "V-M3",
        title: "independent failures: attempts per request",
        source: "(1 - p^n) / (1 - p) with n = (r + 1)^layers; Site Reliability Engineering, chapter 21",
        params: &[
            Param {
                name: "p",
                default: "0.5",
                doc: "probability that an attempt fails",
            },
            Param {
                name: "r",
                default: "3",
                doc: "retries after the first attempt",
            },
            Param {
                name: "layers",
                default: "1",
                doc: "callers above one another that all try again",
            },
            Param {
                name: "budget",
                default: "none",
                doc: "share of requests that may be tried again, or none",
            },
        ],
        points: &[
            &[("p", "0.1")],
            &[("p", "0.5")],
            &[("p", "0.9")],
            &[("p", "0.9"), ("r", "1"), ("layers", "3")],
            &[("p", "1"), ("layers", "3")],
            &[("p", "0.9"), ("budget", "0.1")],
            &[("p", "1"), ("layers", "3"), ("budget", "0.1")],
        ],
        run: amplification,
    },
    Case {
        id: "V-M4",
        title: "adaptive throttling: what servers see of an overload",
        source: "Site Reliability Engineering, chapter 21: held back with probability max(0, (requests - K accepts) / (requests + 1))",
        params: &[
            Param {
                name: "k",
                default: "2",
                doc: "attempts that may be sent per accepted one",
            },
            Param {
                name: "overload",
                default: "10",
                doc: "requests per request that the servers can do",
            },
        ],
        points: &[
            &[("k", "2")],
            &[("k", "1.5")],
            &[("k", "2"), ("overload", "5")],
        ],
        run: throttling,
    },
];

/// When runs about collapse end: long after a backlog that can be worked off has been.
const END: f64 = 5_000.0;
/// From when on they are looked at, as a share of that.
const LATE: f64 = 0.6;
/// Requests answered, of those sent, above which a system counts as well, and below which as collapsed.
/// In between there is nothing: what seeds differ by is a few per cent.
const WELL: f64 = 0.9;
const COLLAPSED: f64 = 0.1;

struct Storm<'a> {
    lam: f64,
    retries: u64,
    stall: f64,
    order: &'a str,
    cancel: bool,
    budget: &'a str,
}

impl Storm<'_> {
    fn text(&self) -> String {
        let Storm {
            lam,
            retries,
            stall,
            order,
            cancel,
            budget,
        } = self;
        let fault = if *stall > 0.0 {
            format!("[[faults]]\nkind = \"stall\"\nat = \"500s\"\nfor = \"{stall}s\"")
        } else {
            String::new()
        };
        format!(
            r#"
            version = 1
            run.cut_off = "{END}s"
            fleet.engine = {{ kind = "station", servers = 1, order = "{order}" }}
            [traffic]
            request_rate = "{lam} req/s"
            duration = "{END}s"
            service = {{ kind = "exponential", mean = "1s" }}
            [clients]
            attempt_timeout = "30s"
            cancel_dead_work = {cancel}
            retries = {{ max = {retries}, on = ["timed_out"] }}
            {budget}
            {fault}
            "#
        )
    }

    /// Answers and attempts per second of each replication, late in the run.
    fn play(&self, point: &Point<'_>) -> Result<Vec<(f64, f64)>, CaseError> {
        let runs = Lab::whole(&self.text(), point)?.run()?;
        Ok(runs.results().into_iter().map(late).collect())
    }

    /// What all replications must agree on.
    fn check(&self, point: &Point<'_>, collapses: bool) -> Result<Vec<Check>, CaseError> {
        let played = self.play(point)?;
        let count = |is: &dyn Fn(f64) -> bool| {
            played.iter().filter(|rates| is(rates.0 / self.lam)).count() as f64
        };
        let all = played.len() as f64;
        let (collapsed, well) = (
            count(&|share| share < COLLAPSED),
            count(&|share| share > WELL),
        );
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| played.iter().map(of).sum::<f64>() / all;
        let window = END * (1.0 - LATE) * all;
        // Three standard errors of a Poisson count over all that was looked at.
        let noise = |rate: f64| 3.0 * (rate / window).sqrt();
        let attempts = self.lam * (1.0 + self.retries as f64);
        Ok(if collapses {
            vec![
                Check::exact("seeds that stay collapsed", all, collapsed),
                Check::within("answers in time (1/s)", 0.0, mean(&|r| r.0), 0.005),
                Check::within(
                    "attempts (1/s), lam (1 + r)",
                    attempts,
                    mean(&|r| r.1),
                    (1.0 + self.retries as f64) * noise(self.lam),
                ),
            ]
        } else {
            vec![
                Check::exact("seeds that recover", all, well),
                Check::within(
                    "answers in time (1/s), lam",
                    self.lam,
                    mean(&|r| r.0),
                    noise(self.lam) + 0.01 * self.lam,
                ),
            ]
        })
    }
}

/// Answers and attempts per second over the whole segments late in a run.
fn late(result: &windtunnel_ledger::result::RunResult) -> (f64, f64) {
    let length = result.segment_ns as f64 / 1e9;
    let first = (END * LATE / length).ceil() as usize;
    let until = (END / length).floor() as usize;
    let segments = result.segments.iter().take(until).skip(first);
    let (mut answers, mut attempts, mut seconds) = (0, 0, 0.0);
    for segment in segments {
        answers += segment.all.delivered;
        attempts += segment.all.attempts;
        seconds += length;
    }
    (answers as f64 / seconds, attempts as f64 / seconds)
}

fn collapse(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let lam = point.number("lam", 0.05..=0.95)?;
    let retries = point.count("r", 0..=10)?;
    let stall = point.number("stall", 0.0..=1_000.0)?;
    let sustains = lam * (1.0 + retries as f64) > 1.0;
    // A stall that nobody times out in triggers nothing; one well beyond the timeout does.
    let collapses = sustains && stall > 60.0;
    if sustains && (25.0..=60.0).contains(&stall) {
        let reason =
            "about as long as the timeout of 30 s: seeds need not agree; try up to 20, or from 61";
        return Err(point.refuse("stall", reason));
    }
    let storm = Storm {
        lam,
        retries,
        stall,
        order: "fcfs",
        cancel: false,
        budget: "",
    };
    storm.check(point, collapses)
}

fn fixes(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let fix = point.text("fix");
    if !["none", "budget", "cancel", "lifo"].contains(&fix) {
        return Err(point.refuse("fix", "known: none, budget, cancel, lifo"));
    }
    let budget = match fix {
        "budget" => "retry_budget = { share = 0.1, burst = 10 }",
        _ => "",
    };
    let storm = Storm {
        lam: 0.7,
        retries: 1,
        stall: 100.0,
        order: if fix == "lifo" { "lifo" } else { "fcfs" },
        cancel: fix == "cancel",
        budget,
    };
    storm.check(point, fix == "none")
}

/// Attempts per request.
fn per_request(run: &Run) -> f64 {
    let all = run.class("default");
    all.attempts as f64 / all.sent as f64
}

fn amplification(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let p = point.number("p", 0.0..=1.0)?;
    let retries = point.count("r", 0..=20)?;
    let layers = point.count("layers", 1..=u64::from(MOST_LAYERS))? as u32;
    let budget = match point.text("budget") {
        "none" => None,
        _ => Some(point.number("budget", 0.0..=1.0)?),
    };
    let table = budget.map_or_else(String::new, |share| {
        format!("retry_budget = {{ share = {share}, burst = 1 }}")
    });
    let text = format!(
        r#"
        version = 1
        fleet.engine = {{ kind = "station", servers = 1000 }}
        [traffic]
        request_rate = "1000 req/s"
        service = {{ kind = "fixed", value = "1ms" }}
        [clients]
        retries = {{ max = {retries}, layers = {layers}, on = ["unavailable"] }}
        {table}
        [[faults]]
        kind = "origin_errors"
        at = "0s"
        for = "1000h"
        share = {p}
        "#
    );
    // A caller tries again when all below it have: one after another, as long as they fail.
    let all = (retries + 1).pow(layers);
    let most = (0..all).map(|n| p.powi(n as i32)).sum::<f64>();
    // As many attempts altogether, however many each request makes.
    let runs = Lab::settled(&text, point, (8e5 / most).max(2e3), 0.0)?.run()?;
    let attempts = runs.each(per_request);
    if let Some(share) = budget {
        let sent = runs.each(|run| run.class("default").sent as f64).mean;
        let limit = (1.0 + share + 1.0 / sent).powi(layers as i32);
        return Ok(vec![Check::at_most(
            "attempts per request, at most 1 + budget by every caller",
            limit,
            attempts.mean,
        )]);
    }
    let name = "attempts per request";
    Ok(vec![Check::sampled(name, most, &attempts, 0.01)])
}

fn throttling(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let k = point.number("k", 1.1..=5.0)?;
    let overload = point.number("overload", 1.0..=100.0)?;
    if overload < 2.0 * k {
        return Err(point.refuse(
            "overload",
            "must be twice `k` or more: an overload all the time",
        ));
    }
    // Ten servers of a second each, and no queue: what they cannot do at once is refused.
    let rate = 10.0 * overload;
    let text = format!(
        r#"
        version = 1
        fleet.engine = {{ kind = "station", servers = 10, queue_limit = 0 }}
        [traffic]
        request_rate = "{rate} req/s"
        service = {{ kind = "exponential", mean = "1s" }}
        [clients]
        throttling = {{ k = {k}, window = "60s" }}
        "#
    );
    // A window and more is left out at the begin.
    let runs = Lab::settled(&text, point, 8.0 * 600.0 * rate, 0.3)?.run()?;
    let seen = runs.each(|run| {
        let all = run.class("default");
        all.attempts as f64 / all.delivered as f64
    });
    Ok(vec![Check::sampled(
        "attempts that servers see per accepted one, K",
        k,
        &seen,
        0.05,
    )])
}
