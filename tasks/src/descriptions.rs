//! `name=rona lang=rs topic=cache files=48` asks for `rona: a Rust cache library (48 files)`.

use super::words::{is_number, is_word, number, pick, word};
use windtunnel_base::rng::Rng;

const LANGUAGES: [(&str, &str); 5] = [
    ("rs", "Rust"),
    ("py", "Python"),
    ("go", "Go"),
    ("js", "JavaScript"),
    ("hs", "Haskell"),
];
const TOPICS: [&str; 6] = ["cache", "parser", "queue", "router", "logger", "charts"];

pub(super) fn generate(rng: &mut Rng) -> (String, String) {
    let (short, long) = LANGUAGES[rng.below(LANGUAGES.len() as u64) as usize];
    let (name, topic) = (word(rng, 3), pick(rng, &TOPICS));
    let digits = 2 + rng.below(2) as u32;
    let files = number(rng, digits);
    let body = format!("name={name} lang={short} topic={topic} files={files}");
    (
        body,
        format!("{name}: a {long} {topic} library ({files} files)"),
    )
}

pub(super) fn solve(body: &str) -> Option<String> {
    let mut values = ["name=", "lang=", "topic=", "files="]
        .iter()
        .zip(body.split(' '))
        .map(|(key, field)| field.strip_prefix(key));
    let (name, short, topic, files) = (
        values.next()??,
        values.next()??,
        values.next()??,
        values.next()??,
    );
    let (_, long) = LANGUAGES.iter().find(|l| l.0 == short)?;
    (is_word(name) && is_number(files))
        .then(|| format!("{name}: a {long} {topic} library ({files} files)"))
}
