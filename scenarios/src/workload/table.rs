//! CSV as traces use it: a header, then one row per line. Columns are found by name, in any order;
//! a field may stand in double quotes but never runs over a line, so that one stray quote costs
//! one row and not the rest of the file.

use super::TrafficError;
use super::input::{Bad, Lines};
use super::lengths::MAX_TOKENS;
use std::ops::Range;

/// The latest time in a trace, in nanoseconds: 30 years. Later ones are another unit.
pub(crate) const MAX_TIME_NS: u64 = 946_080_000_000_000_000;

/// A table whose wanted columns have been found.
#[derive(Debug)]
pub(crate) struct Table {
    lines: Lines,
    /// Names of the wanted columns as the file writes them, and where they stand.
    wanted: Vec<(String, usize)>,
    header: Vec<String>,
    /// The fields of the row at hand.
    fields: Vec<Range<usize>>,
}

impl Table {
    /// Reads the header and finds `wanted` columns; each may be given by several names, and
    /// letter case does not count.
    ///
    /// # Errors
    /// If the file is empty or a column is missing.
    pub(crate) fn open(mut lines: Lines, wanted: &[&[&str]]) -> Result<Self, TrafficError> {
        if !lines.advance()? {
            return Err(lines.empty("the file is empty"));
        }
        let mut fields = Vec::new();
        split(lines.text(), &mut fields);
        let header: Vec<String> = fields
            .iter()
            .map(|f| String::from_utf8_lossy(&lines.text()[f.clone()]).into_owned())
            .collect();
        let mut found = Vec::new();
        for names in wanted {
            let is_it = |h: &String| names.iter().any(|n| n.eq_ignore_ascii_case(h.trim()));
            let Some(at) = header.iter().position(is_it) else {
                let has: String = header.join(", ").chars().take(200).collect();
                return Err(lines.wrong_format(format!(
                    "the header lacks the column `{}`; it has: {has}",
                    names[0]
                )));
            };
            found.push((header[at].clone(), at));
        }
        Ok(Self {
            lines,
            wanted: found,
            header,
            fields,
        })
    }

    /// Finds one more column, if the file has it, and says its place among the wanted.
    pub(crate) fn optional(&mut self, name: &str) -> Option<usize> {
        let found = self
            .header
            .iter()
            .position(|h| h.eq_ignore_ascii_case(name))?;
        self.wanted.push((name.to_owned(), found));
        Some(self.wanted.len() - 1)
    }

    /// Goes to the next row; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, TrafficError> {
        let more = self.lines.advance()?;
        if more {
            split(self.lines.text(), &mut self.fields);
        }
        Ok(more)
    }

    /// Whether the row has as many fields as the header.
    pub(crate) fn check_width(&self) -> Result<(), Bad> {
        if self.fields.len() == self.header.len() {
            return Ok(());
        }
        Err(Bad::new(
            "",
            format!(
                "the row has {} fields where the header has {}",
                self.fields.len(),
                self.header.len()
            ),
        ))
    }

    /// The text of wanted column `which`.
    pub(crate) fn text(&self, which: usize) -> Result<&str, Bad> {
        let (name, at) = &self.wanted[which];
        let field = self.fields.get(*at).cloned().unwrap_or(0..0);
        let bytes = self.lines.text().get(field).unwrap_or_default();
        std::str::from_utf8(bytes)
            .map(str::trim)
            .map_err(|_| Bad::new(name, "it is no text (not UTF-8)"))
    }

    /// Tokens in wanted column `which`, from `least` up.
    pub(crate) fn tokens(&self, which: usize, least: u32) -> Result<u32, Bad> {
        tokens_of(self.text(which)?, least).map_err(|e| Bad::new(&self.wanted[which].0, e))
    }

    /// A time in seconds in wanted column `which`, in nanoseconds.
    pub(crate) fn seconds(&self, which: usize) -> Result<u64, Bad> {
        seconds_of(self.text(which)?).map_err(|e| Bad::new(&self.wanted[which].0, e))
    }

    /// A whole number in wanted column `which`.
    pub(crate) fn whole(&self, which: usize, most: u64) -> Result<u64, Bad> {
        let text = self.text(which)?;
        let value = text.parse::<u64>().ok().filter(|n| *n <= most);
        value.ok_or_else(|| {
            let reason = format!("`{}` is not a whole number up to {most}", short(text));
            Bad::new(&self.wanted[which].0, reason)
        })
    }

    /// The name of wanted column `which` as the file writes it.
    pub(crate) fn name(&self, which: usize) -> &str {
        &self.wanted[which].0
    }

    /// The lines beneath.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// The lines beneath, to be finished.
    pub(crate) fn into_lines(self) -> Lines {
        self.lines
    }
}

/// Splits a line at commas outside double quotes; quotes around a field are left off.
fn split(line: &[u8], fields: &mut Vec<Range<usize>>) {
    fields.clear();
    let mut begin = 0;
    let mut quoted = false;
    for (i, &byte) in line.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                fields.push(unquoted(line, begin..i));
                begin = i + 1;
            }
            _ => {}
        }
    }
    fields.push(unquoted(line, begin..line.len()));
}

fn unquoted(line: &[u8], field: Range<usize>) -> Range<usize> {
    match &line[field.clone()] {
        [b'"', .., b'"'] => field.start + 1..field.end - 1,
        _ => field,
    }
}

/// Tokens from a text: a whole number, also written `12.0`.
pub(crate) fn tokens_of(text: &str, least: u32) -> Result<u32, String> {
    if let Ok(tokens) = text.parse::<u32>() {
        return whole_tokens(f64::from(tokens), least);
    }
    match text.parse::<f64>() {
        Ok(value) => whole_tokens(value, least),
        Err(_) if text.is_empty() => Err("it is empty".into()),
        Err(_) => Err(format!("`{}` is not a number", short(text))),
    }
}

/// Tokens from a number.
pub(crate) fn whole_tokens(value: f64, least: u32) -> Result<u32, String> {
    if value.fract() != 0.0 {
        Err(format!("{value} is not a whole number of tokens"))
    } else if value < f64::from(least) {
        Err(format!("{value} tokens are less than {least}"))
    } else if value > f64::from(MAX_TOKENS) {
        Err(format!("{value} tokens are more than {MAX_TOKENS}"))
    } else {
        Ok(value as u32)
    }
}

/// Nanoseconds from seconds as text.
pub(crate) fn seconds_of(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(value) => nanos_of(value, 1e9),
        Err(_) if text.is_empty() => Err("it is empty".into()),
        Err(_) => Err(format!("`{}` is not a time in seconds", short(text))),
    }
}

/// Nanoseconds, to the nearest, from a number of units of `scale` nanoseconds.
pub(crate) fn nanos_of(value: f64, scale: f64) -> Result<u64, String> {
    let nanos = (value * scale).round();
    if value.is_nan() {
        Err("it is not a time".into())
    } else if value < 0.0 {
        Err(format!("{value} is before the beginning"))
    } else if nanos > MAX_TIME_NS as f64 {
        Err(format!(
            "{value:e} lies more than 30 years after the beginning"
        ))
    } else {
        Ok(nanos as u64)
    }
}

/// A text cut to what a message can hold.
pub(crate) fn short(text: &str) -> String {
    let mut cut: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        cut.push('…');
    }
    cut
}
