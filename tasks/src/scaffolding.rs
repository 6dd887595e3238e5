//! `fn rona(felo: int, mi: text) -> int` asks for `def rona(felo, mi):|  return 0`.

use super::words::{is_word, pick, word};
use windtunnel_base::rng::Rng;

const TYPES: [(&str, &str); 4] = [
    ("int", "0"),
    ("text", "\"\""),
    ("list", "[]"),
    ("bool", "False"),
];

pub(super) fn generate(rng: &mut Rng) -> (String, String) {
    let kinds = TYPES.map(|t| t.0);
    let function = word(rng, 3);
    let count = 1 + rng.below(2);
    let mut names: Vec<String> = (0..count).map(|_| word(rng, 2)).collect();
    // Parameters have names of their own.
    names.dedup();
    let signature: Vec<String> = names
        .iter()
        .map(|n| format!("{n}: {}", pick(rng, &kinds)))
        .collect();
    let (kind, zero) = TYPES[rng.below(TYPES.len() as u64) as usize];
    let body = format!("fn {function}({}) -> {kind}", signature.join(", "));
    (
        body,
        format!("def {function}({}):|  return {zero}", names.join(", ")),
    )
}

pub(super) fn solve(body: &str) -> Option<String> {
    let (head, kind) = body.strip_prefix("fn ")?.split_once(" -> ")?;
    let (function, list) = head.strip_suffix(')')?.split_once('(')?;
    let names: Option<Vec<&str>> = list
        .split(", ")
        .map(|p| {
            p.split_once(": ")
                .map(|(name, _)| name)
                .filter(|n| is_word(n))
        })
        .collect();
    let (_, zero) = TYPES.iter().find(|t| t.0 == kind)?;
    Some(format!(
        "def {function}({}):|  return {zero}",
        names?.join(", ")
    ))
}
