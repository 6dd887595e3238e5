//! `sku:48 owner:rona` asks for `{"sku":48,"owner":"rona"}`.

use super::words::{is_number, is_word, number, word};
use windtunnel_base::rng::Rng;

const KEYS: [&str; 8] = [
    "sku", "owner", "size", "color", "state", "count", "zone", "tag",
];

pub(super) fn generate(rng: &mut Rng) -> (String, String) {
    let fields = 2 + rng.below(2);
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    let mut keys = KEYS.to_vec();
    for _ in 0..fields {
        let key = keys.swap_remove(rng.below(keys.len() as u64) as usize);
        if rng.chance(0.5) {
            let digits = 1 + rng.below(3) as u32;
            let value = number(rng, digits);
            rows.push(format!("{key}:{value}"));
            json.push(format!("\"{key}\":{value}"));
        } else {
            let value = word(rng, 2);
            rows.push(format!("{key}:{value}"));
            json.push(format!("\"{key}\":\"{value}\""));
        }
    }
    (rows.join(" "), format!("{{{}}}", json.join(",")))
}

pub(super) fn solve(body: &str) -> Option<String> {
    let fields: Option<Vec<String>> = body
        .split(' ')
        .map(|field| {
            let (key, value) = field.split_once(':')?;
            match (is_number(value), is_word(value)) {
                (true, _) => Some(format!("\"{key}\":{value}")),
                (_, true) => Some(format!("\"{key}\":\"{value}\"")),
                _ => None,
            }
        })
        .collect();
    Some(format!("{{{}}}", fields?.join(",")))
}
