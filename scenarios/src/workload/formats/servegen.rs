//! ServeGen: not requests but what they are drawn from. One CSV holds, per client and window, the
//! rate and the law of the gaps between requests; JSON lines hold, per client and longer window,
//! the distributions of input and output tokens as texts like `{45: 0.0097, 46: 0.0117}`.

use super::super::input::{Bad, Source};
use super::super::lengths::{Empirical, MAX_TOKENS};
use super::super::table::{MAX_TIME_NS, Table, short};
use super::super::{Facts, TrafficError};
use super::json_reason;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Everything a ServeGen pool says.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Clients by number.
    pub(crate) clients: BTreeMap<u64, PoolClient>,
    /// Length of a rate window in seconds.
    pub(crate) window: f64,
}

/// One client of a pool.
#[derive(Debug, Default)]
pub(crate) struct PoolClient {
    /// Windows with traffic, by time.
    pub(crate) rates: Vec<RateWindow>,
    /// Token distributions by the beginning of their window, in seconds.
    pub(crate) tokens: Vec<(f64, TokenWindow)>,
}

/// One window of a client.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct RateWindow {
    /// Seconds.
    pub(crate) begin: f64,
    /// Requests per second.
    pub(crate) rate: f64,
    pub(crate) law: GapLaw,
}

/// The law of gaps, but for its scale.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum GapLaw {
    Gamma { shape: f64 },
    Weibull { shape: f64 },
}

/// Token distributions of a window.
#[derive(Debug)]
pub(crate) struct TokenWindow {
    pub(crate) input: Empirical,
    pub(crate) output: Empirical,
}

/// Reads a pool. Token windows that end before `from` or begin at or after `to` (seconds) are
/// passed over.
pub(crate) fn read(
    file: &str,
    tokens_file: &str,
    (from, to): (f64, f64),
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<Pool, TrafficError> {
    let mut pool = Pool::default();
    read_rates(file, &mut pool, source, facts)?;
    let mut lines = source.open(tokens_file)?;
    let mut reasoning = Reasoning::default();
    while lines.advance()? {
        let read = serde_json::from_slice::<TokenLine<'_>>(lines.text())
            .map_err(|e| Bad::new("", json_reason(&e)))
            .and_then(|line| pool.add_tokens(&line, (from, to), &mut reasoning));
        if let Err(bad) = read {
            lines.bad_row(bad, source, facts)?;
        }
    }
    if pool.clients.values().all(|c| c.tokens.is_empty()) {
        return Err(lines.empty("it has no token distribution for any time that is played"));
    }
    if reasoning.windows > 0 {
        facts.notes.push(format!(
            "reasoning makes up {:.1} % of output tokens in the mean over {} windows; it is part \
             of the output and not modelled apart",
            100.0 * reasoning.sum / reasoning.windows as f64,
            reasoning.windows
        ));
    }
    lines.finish(0, facts)?;
    Ok(pool)
}

fn read_rates(
    file: &str,
    pool: &mut Pool,
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<(), TrafficError> {
    let mut table = Table::open(
        source.open(file)?,
        &[
            &["client"],
            &["window_start_s"],
            &["rate_rps"],
            &["family"],
            &["shape"],
        ],
    )?;
    let mut begins: BTreeMap<u64, ()> = BTreeMap::new();
    while table.advance()? {
        let row = table.check_width().and_then(|()| rate_row(&table));
        match row {
            Ok((client, begin_ns, window)) => {
                begins.insert(begin_ns, ());
                let client = pool.clients.entry(client).or_default();
                if let Some(window) = window {
                    client.rates.push(window);
                }
            }
            Err(bad) => table.lines().bad_row(bad, source, facts)?,
        }
    }
    let widths = begins.keys().zip(begins.keys().skip(1)).map(|(a, b)| b - a);
    // One window alone does not tell its length; the format's is ten minutes.
    pool.window = widths.min().map_or(600.0, |ns| ns as f64 / 1e9);
    for client in pool.clients.values_mut() {
        client.rates.sort_by(|a, b| a.begin.total_cmp(&b.begin));
        client.rates.dedup_by(|b, a| a.begin == b.begin);
    }
    if pool.clients.values().all(|c| c.rates.is_empty()) {
        return Err(table.lines().empty("no window of any client has traffic"));
    }
    table.into_lines().finish(1, facts)
}

/// A row: client, beginning in ns, and the window unless it is idle.
fn rate_row(table: &Table) -> Result<(u64, u64, Option<RateWindow>), Bad> {
    let client = table.whole(0, 1 << 24)?;
    let begin = table.seconds(1)?.min(MAX_TIME_NS);
    let number = |which: usize| {
        let text = table.text(which)?;
        let value = text
            .parse::<f64>()
            .ok()
            .filter(|x| x.is_finite() && *x >= 0.0);
        value.ok_or_else(|| {
            let reason = format!("`{}` is not a number from zero up", short(text));
            Bad::new(table.name(which), reason)
        })
    };
    let rate = number(2)?;
    if rate > 1e6 {
        let reason = format!("{rate} requests per second of one client are too many");
        return Err(Bad::new(table.name(2), reason));
    }
    let family = table.text(3)?;
    if rate == 0.0 {
        return Ok((client, begin, None));
    }
    let shape = number(4)?;
    if !(1e-4..=1e9).contains(&shape) {
        let reason = format!("a shape of {shape} makes no gaps");
        return Err(Bad::new(table.name(4), reason));
    }
    let law = match family {
        "Gamma" => GapLaw::Gamma { shape },
        "Weibull" => GapLaw::Weibull { shape },
        other => {
            let reason = format!("`{}` is neither Gamma nor Weibull", short(other));
            return Err(Bad::new(table.name(3), reason));
        }
    };
    let begin_s = begin as f64 / 1e9;
    let window = RateWindow {
        begin: begin_s,
        rate,
        law,
    };
    Ok((client, begin, Some(window)))
}

#[derive(Deserialize)]
struct TokenLine<'a> {
    client: u64,
    #[serde(borrow)]
    windows: BTreeMap<&'a str, TokenTexts<'a>>,
}

#[derive(Deserialize)]
struct TokenTexts<'a> {
    input_tokens: &'a str,
    output_tokens: &'a str,
    #[serde(default)]
    reason_ratio: Option<&'a str>,
}

#[derive(Default)]
struct Reasoning {
    sum: f64,
    windows: u64,
}

impl Pool {
    fn add_tokens(
        &mut self,
        line: &TokenLine<'_>,
        (from, to): (f64, f64),
        reasoning: &mut Reasoning,
    ) -> Result<(), Bad> {
        let mut windows = Vec::with_capacity(line.windows.len());
        for (begin, texts) in &line.windows {
            let time = begin
                .parse::<f64>()
                .ok()
                .filter(|b| (0.0..1e10).contains(b));
            let Some(time) = time else {
                let reason = format!("`{}` is not a time in seconds", short(begin));
                return Err(Bad::new("windows", reason));
            };
            windows.push((time, begin, texts));
        }
        windows.sort_by(|a, b| a.0.total_cmp(&b.0));
        let ends: Vec<f64> = windows.iter().skip(1).map(|w| w.0).collect();
        let mut tokens = Vec::new();
        for (i, (begin, name, texts)) in windows.iter().enumerate() {
            let end = ends.get(i).copied().unwrap_or(f64::INFINITY);
            if end <= from || *begin >= to {
                continue;
            }
            let field = |field: &str| format!("windows.{name}.{field}");
            let parse = |what: &str, text: &str| {
                token_map(text).map_err(|reason| Bad::new(field(what), reason))
            };
            let input = parse("input_tokens", texts.input_tokens)?;
            let output = parse("output_tokens", texts.output_tokens)?;
            if let (Some(input), Some(output)) = (input, output) {
                tokens.push((*begin, TokenWindow { input, output }));
                if let Some(text) = texts.reason_ratio {
                    let mean = mean_of_map(text)
                        .map_err(|reason| Bad::new(field("reason_ratio"), reason))?;
                    if let Some(mean) = mean {
                        reasoning.sum += mean;
                        reasoning.windows += 1;
                    }
                }
            }
        }
        // A client without a rate sends nothing, whatever its distributions.
        if let Some(client) = self.clients.get_mut(&line.client) {
            client.tokens = tokens;
        }
        Ok(())
    }
}

/// The entries of a text like `{45: 0.0097, 46: 0.0117}`.
fn entries(text: &str, mut each: impl FnMut(f64, f64) -> Result<(), String>) -> Result<(), String> {
    let inner = text
        .trim()
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .ok_or_else(|| format!("`{}` does not stand in braces", short(text)))?;
    for entry in inner.split(',') {
        if entry.trim().is_empty() {
            continue;
        }
        let parsed = entry
            .split_once(':')
            .and_then(|(key, value)| Some((key.trim().parse().ok()?, value.trim().parse().ok()?)));
        let (key, value): (f64, f64) =
            parsed.ok_or_else(|| format!("`{}` is not `number: weight`", short(entry)))?;
        if !(key.is_finite() && value.is_finite() && value >= 0.0) {
            return Err(format!("`{}` is no weight from zero up", short(entry)));
        }
        each(key, value)?;
    }
    Ok(())
}

/// A distribution of tokens; none if the map is empty or has no weight.
fn token_map(text: &str) -> Result<Option<Empirical>, String> {
    let mut tokens = Vec::new();
    let mut weights = Vec::new();
    entries(text, |key, weight| {
        if !(0.0..=f64::from(MAX_TOKENS)).contains(&key) {
            return Err(format!("{key} is no number of tokens"));
        }
        if weight > 0.0 {
            tokens.push(key.round() as u32);
            weights.push(weight);
        }
        Ok(())
    })?;
    if tokens.is_empty() {
        return Ok(None);
    }
    Empirical::new(&tokens, Some(&weights)).map(Some)
}

/// The mean key of a map.
fn mean_of_map(text: &str) -> Result<Option<f64>, String> {
    let (mut sum, mut total) = (0.0, 0.0);
    entries(text, |key, weight| {
        sum += key * weight;
        total += weight;
        Ok(())
    })?;
    Ok((total > 0.0).then(|| sum / total))
}
