//! The part of YAML that profiles and traces use: nested tables by indentation, lists in brackets
//! or by dashes, plain and quoted values, comments. Anchors, multi-line texts and several documents
//! are refused rather than misread.

use super::ProfileError;
use super::files::Files;
use serde_json::{Map, Value as Json};
use std::path::Path;

pub(super) fn read(files: &mut Files, path: &Path) -> Result<Json, ProfileError> {
    let text = files.text(path)?;
    parse(&text)
        .map_err(|(line, reason)| ProfileError::new(path, line, reason, "write it in plain YAML"))
}

/// A line that says something.
struct Line<'a> {
    number: u64,
    indent: usize,
    text: &'a str,
}

/// Reads a document.
///
/// # Errors
/// The line, from 1, and what is wrong with it.
pub fn parse(text: &str) -> Result<Json, (u64, String)> {
    let mut lines = Vec::new();
    for (i, raw) in text.lines().enumerate() {
        let number = i as u64 + 1;
        let body = without_comment(raw).trim_end();
        let inner = body.trim_start_matches(' ');
        if inner.is_empty() || body == "---" {
            continue;
        }
        if inner.starts_with('\t') {
            return Err((number, "it is indented by a tab".into()));
        }
        lines.push(Line {
            number,
            indent: body.len() - inner.len(),
            text: inner,
        });
    }
    let mut at = 0;
    let value = match lines.first() {
        Some(first) => block(&lines, &mut at, first.indent, 0)?,
        None => Json::Null,
    };
    match lines.get(at) {
        Some(rest) => Err((rest.number, "its indentation fits nothing above it".into())),
        None => Ok(value),
    }
}

/// Deeper nesting is no profile.
const MAX_DEPTH: usize = 32;

/// The table or list whose entries stand at `indent`.
fn block(
    lines: &[Line<'_>],
    at: &mut usize,
    indent: usize,
    depth: usize,
) -> Result<Json, (u64, String)> {
    let number = lines[*at].number;
    if depth > MAX_DEPTH {
        return Err((number, "it is nested too deeply".into()));
    }
    if lines[*at].text.starts_with("- ") || lines[*at].text == "-" {
        return list(lines, at, indent, depth);
    }
    let mut table = Map::new();
    while let Some(line) = lines.get(*at).filter(|l| l.indent == indent) {
        let Some((key, rest)) = split_key(line.text) else {
            return Err((line.number, format!("`{}` is no `key: value`", line.text)));
        };
        *at += 1;
        let value = if rest.is_empty() {
            match lines.get(*at) {
                Some(next)
                    if next.indent > indent
                        || (next.indent == indent && next.text.starts_with("- ")) =>
                {
                    block(lines, at, next.indent, depth + 1)?
                }
                _ => Json::Null,
            }
        } else {
            // A list in brackets may run over lines.
            let mut joined = rest.to_owned();
            while opens(&joined)
                && let Some(next) = lines.get(*at).filter(|l| l.indent > indent)
            {
                joined.push(' ');
                joined.push_str(next.text);
                *at += 1;
            }
            inline(&joined).map_err(|reason| (line.number, reason))?
        };
        if table.insert(key.to_owned(), value).is_some() {
            return Err((line.number, format!("`{key}` is there twice")));
        }
    }
    Ok(Json::Object(table))
}

fn list(
    lines: &[Line<'_>],
    at: &mut usize,
    indent: usize,
    depth: usize,
) -> Result<Json, (u64, String)> {
    let mut items = Vec::new();
    while let Some(line) = lines.get(*at).filter(|l| l.indent == indent) {
        let Some(rest) = line.text.strip_prefix('-') else {
            break;
        };
        let rest = rest.trim_start();
        let inner_indent = indent + line.text.len() - rest.len();
        *at += 1;
        if rest.is_empty() {
            match lines.get(*at).filter(|l| l.indent > indent) {
                Some(next) => items.push(block(lines, at, next.indent, depth + 1)?),
                None => items.push(Json::Null),
            }
        } else if split_key(rest).is_some() && !rest.starts_with(['"', '\'', '[', '{']) {
            // A table whose first key stands behind the dash.
            let mut inner = vec![Line {
                number: line.number,
                indent: inner_indent,
                text: rest,
            }];
            while let Some(next) = lines.get(*at).filter(|l| l.indent > indent) {
                inner.push(Line { ..*next });
                *at += 1;
            }
            let mut inner_at = 0;
            items.push(block(&inner, &mut inner_at, inner_indent, depth + 1)?);
            if let Some(rest) = inner.get(inner_at) {
                return Err((rest.number, "its indentation fits nothing above it".into()));
            }
        } else {
            items.push(inline(rest).map_err(|reason| (line.number, reason))?);
        }
    }
    Ok(Json::Array(items))
}

/// Whether a bracket is not yet closed.
fn opens(text: &str) -> bool {
    let count = |set: &[char]| text.matches(set).count();
    text.starts_with(['[', '{']) && count(&['[', '{']) > count(&[']', '}'])
}

/// `key: rest`.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let (key, rest) = match text.split_once(": ") {
        Some(split) => split,
        None => (text.strip_suffix(':')?, ""),
    };
    let key = key.trim();
    let inner = ['"', '\'']
        .iter()
        .find_map(|&q| key.strip_prefix(q).and_then(|k| k.strip_suffix(q)));
    Some((inner.unwrap_or(key), rest.trim()))
}

/// A value on one line.
fn inline(text: &str) -> Result<Json, String> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('[') {
        let Some(inner) = inner.strip_suffix(']') else {
            return Err("a bracket is not closed".into());
        };
        return parts(inner).into_iter().map(inline).collect();
    }
    if let Some(inner) = text.strip_prefix('{') {
        let Some(inner) = inner.strip_suffix('}') else {
            return Err("a brace is not closed".into());
        };
        let mut table = Map::new();
        for part in parts(inner) {
            let (key, value) = split_key(part).ok_or_else(|| format!("`{part}` has no key"))?;
            table.insert(key.to_owned(), inline(value)?);
        }
        return Ok(Json::Object(table));
    }
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote) {
            let inner = inner.strip_suffix(quote);
            return inner
                .map(|s| Json::String(s.replace("''", "'")))
                .ok_or_else(|| "a quotation mark is not closed".into());
        }
    }
    if text.starts_with(['|', '>', '&', '*', '!']) {
        return Err(format!("`{text}` is beyond plain YAML"));
    }
    Ok(plain(text))
}

fn plain(text: &str) -> Json {
    match text {
        "null" | "~" | "" => return Json::Null,
        "true" => return Json::Bool(true),
        "false" => return Json::Bool(false),
        _ => {}
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Json::from(whole);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match text.parse::<f64>() {
        Ok(float) if numeric && float.is_finite() => Json::from(float),
        _ => Json::String(text.to_owned()),
    }
}

/// The parts between commas that stand in no bracket or quotation.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth, mut quote) = (Vec::new(), 0, 0_i32, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(text[from..i].trim());
                from = i + 1;
            }
            _ => {}
        }
    }
    if !text[from..].trim().is_empty() {
        parts.push(text[from..].trim());
    }
    parts
}

/// A line without what follows ` #` outside of quotations.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (i, c) in line.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return &line[..i],
            None if (c == '"' || c == '\'') && !before.is_alphanumeric() => quote = Some(c),
            None => {}
        }
        before = c;
    }
    line
}
