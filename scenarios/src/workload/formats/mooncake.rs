//! Mooncake (FAST '25): JSON lines `{"timestamp": ms, "input_length", "output_length",
//! "hash_ids": [...]}`. An id names a block of 512 tokens and all that comes before it, so maximal
//! runs of consecutive ids become extents; the last block may be partial.

use super::super::input::{Bad, Source};
use super::super::lengths::MAX_TOKENS;
use super::super::table::{nanos_of, whole_tokens};
use super::super::{Facts, TrafficError};
use super::{Rows, Runs, json_reason};
use serde::Deserialize;
use windtunnel_base::content::Extent;

/// Tokens of a block.
const BLOCK: u64 = 512;

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: f64,
    output_length: f64,
    #[serde(default)]
    hash_ids: Runs,
}

/// Reads a Mooncake trace.
pub(crate) fn read(
    file: &str,
    source: &Source<'_>,
    facts: &mut Facts,
) -> Result<Rows, TrafficError> {
    let mut lines = source.open(file)?;
    let mut rows = Rows::default();
    let mut empty_answers = 0_u64;
    while lines.advance()? {
        let parsed = serde_json::from_slice::<Line>(lines.text())
            .map_err(|e| Bad::new("", json_reason(&e)))
            .and_then(|line| check(&line).map(|numbers| (line, numbers)));
        match parsed {
            Ok((line, (at, input, output))) => {
                empty_answers += u64::from(output == 0);
                rows.at.push(at);
                rows.input.push(input);
                rows.output.push(output.max(1));
                append(&line.hash_ids, input, &mut rows.extents);
                rows.prefix_ends.push(rows.extents.len() as u64);
            }
            Err(bad) => lines.bad_row(bad, source, facts)?,
        }
    }
    super::note_empty_answers(empty_answers, facts);
    lines.finish(0, facts)?;
    Ok(rows)
}

fn check(line: &Line) -> Result<(u64, u32, u32), Bad> {
    let of = |column: &'static str| move |reason| Bad::new(column, reason);
    let at = nanos_of(line.timestamp, 1e6).map_err(of("timestamp"))?;
    let input = whole_tokens(line.input_length, 1).map_err(of("input_length"))?;
    let output = whole_tokens(line.output_length, 0).map_err(of("output_length"))?;
    let blocks = u64::from(input).div_ceil(BLOCK);
    if line.hash_ids.ids > blocks {
        return Err(Bad::new(
            "hash_ids",
            format!(
                "{} blocks of {BLOCK} tokens are more than the {input} tokens of the prompt",
                line.hash_ids.ids
            ),
        ));
    }
    Ok((at, input, output))
}

/// Appends the extents of a prompt of `input` tokens.
fn append(ids: &Runs, input: u32, out: &mut Vec<Extent>) {
    let mut left = u64::from(input.min(MAX_TOKENS));
    for &(first, count) in &ids.runs {
        let tokens = (u64::from(count) * BLOCK).min(left);
        left -= tokens;
        if tokens > 0 {
            out.push(Extent {
                key: first,
                tokens: tokens as u32,
            });
        }
    }
}
