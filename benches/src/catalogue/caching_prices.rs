//! Prompt caches that are paid for by the token: V-Z4.

use super::lab::Lab;
use super::{Case, CaseError, Check, Param, Point};
use windtunnel_ledger::account::Account;

/// The cases of this file.
pub(super) const CASES: &[Case] = &[Case {
    id: "V-Z4",
    title: "a prompt asked for m times where caches are paid for by the token: cost relative to no cache",
    source: "(write + read (m - 1)) / m; cheaper than no cache from a hit share of (write - 1) / (write - read) on",
    params: &[
        Param {
            name: "uses",
            default: "2",
            doc: "requests for the prompt, m",
        },
        Param {
            name: "write",
            default: "1.25",
            doc: "price of writing a token to the cache, relative to reading it anew",
        },
        Param {
            name: "read",
            default: "0.1",
            doc: "price of a token found there, likewise",
        },
    ],
    points: &[
        &[("uses", "1")],
        &[("uses", "2")],
        &[("uses", "3")],
        &[("uses", "5")],
        &[("uses", "10")],
    ],
    run: caching_prices,
}];

/// Tokens of the prompt, in whole blocks.
const PROMPT: u64 = 4096;
/// Price of a million input tokens, in micro-dollars: three dollars.
const INPUT: f64 = 3e6;

/// Cost of the prompt per request, relative to input tokens at their plain price, and hit share, of a whole
/// run of `uses` requests one after the other.
fn relative(point: &Point<'_>, uses: u64, write: f64, read: f64) -> Result<(f64, f64), CaseError> {
    let price = |factor: f64| format!("${}", (INPUT * factor).round() / 1e6);
    let text = format!(
        r#"
        version = 1
        [fleet.engine]
        kind = "continuous"
        gpu_price = "$0/h"
        [fleet.token_prices]
        input = "{input}"
        cache_write = "{write}"
        cached_input = "{read}"
        output = "$15"
        [traffic]
        num_prompts = {uses}
        request_rate = "0.1 req/s"
        arrivals = {{ kind = "constant" }}
        input = {{ kind = "fixed", tokens = 1 }}
        output = {{ kind = "fixed", tokens = 8 }}
        [traffic.prefix]
        groups = 1
        tokens = {{ kind = "fixed", tokens = {PROMPT} }}
        "#,
        input = price(1.0),
        write = price(write),
        read = price(read),
    );
    let run = Lab::whole(&text, point)?.once()?;
    let paid: u64 = run
        .result
        .segments
        .iter()
        .map(|s| s.books.money.received(Account::Tokens))
        .sum();
    let all: u64 = run
        .result
        .segments
        .iter()
        .map(|s| s.books.money.total())
        .sum();
    if all != paid {
        return Err(CaseError::Run(
            "something was paid for beside tokens".into(),
        ));
    }
    // A token of each request's own, and its eight of output.
    let beside = uses as f64 * (INPUT + 8.0 * 15e6) / 1e3;
    let plain = (uses * PROMPT) as f64 * INPUT / 1e3;
    let cached: u64 = run
        .result
        .segments
        .iter()
        .map(|s| s.books.prompt_tokens_cached)
        .sum();
    let hits = cached as f64 / (uses * PROMPT) as f64;
    Ok(((paid as f64 - beside) / plain, hits))
}

fn caching_prices(point: &Point<'_>) -> Result<Vec<Check>, CaseError> {
    let uses = point.count("uses", 1..=10_000)?;
    let write = point.number("write", 0.0..=10.0)?;
    let read = point.number("read", 0.0..=10.0)?;
    let m = uses as f64;
    let (cost, hits) = relative(point, uses, write, read)?;
    // Prices are whole millionths of a dollar.
    let mut checks = vec![
        Check::within("relative cost", (write + read * (m - 1.0)) / m, cost, 1e-6),
        Check::within("hit share", (m - 1.0) / m, hits, 1e-12),
    ];
    if uses > 1 && write > 1.0 && read < 1.0 {
        // Between the first request and all of them cost is a line in the hit share.
        let (first, _) = relative(point, 1, write, read)?;
        let found = hits * (first - 1.0) / (first - cost);
        let expected = (write - 1.0) / (write - read);
        checks.push(Check::within("break-even hit share", expected, found, 1e-5));
    }
    Ok(checks)
}
