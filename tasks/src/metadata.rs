//! `Rona and Felo by Kadu Mive, 1987` asks for `author=Mive;year=1987;title=Rona and Felo`.

use super::words::{is_number, is_word, name, pick};
use windtunnel_base::rng::Rng;

pub(super) fn generate(rng: &mut Rng) -> (String, String) {
    let link = pick(rng, &["and", "of", "in"]);
    let title = format!("{} {link} {}", name(rng), name(rng));
    let (first, last) = (name(rng), name(rng));
    let year = 1800 + rng.below(225);
    let body = format!("{title} by {first} {last}, {year}");
    let answer = format!("author={last};year={year};title={title}");
    (body, answer)
}

pub(super) fn solve(body: &str) -> Option<String> {
    let (title, rest) = body.split_once(" by ")?;
    let (author, year) = rest.split_once(", ")?;
    let last = author.split(' ').nth(1)?;
    (is_word(last) && is_number(year)).then(|| format!("author={last};year={year};title={title}"))
}
