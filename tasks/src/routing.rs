//! `Rona writes: my parcel 4821 came broken` asks for `shipping #4821`.

use super::words::{is_number, name, number};
use windtunnel_base::rng::Rng;

/// Teams, and what people write to them; `#` stands for a number.
const TEAMS: [(&str, [&str; 5]); 5] = [
    (
        "billing",
        [
            "I was charged twice for #",
            "wrong amount on invoice #",
            "please refund payment #",
            "the price of # is wrong",
            "my card failed for #",
        ],
    ),
    (
        "login",
        [
            "I cannot sign in as user #",
            "reset my password for #",
            "account # is locked",
            "no code came for user #",
            "user # lost access",
        ],
    ),
    (
        "shipping",
        [
            "my parcel # came broken",
            "where is package #",
            "delivery # is late",
            "box # was empty",
            "please send # again",
        ],
    ),
    (
        "bugs",
        [
            "error # when I save",
            "the app crashed with #",
            "page # does not load",
            "button # does nothing",
            "screen # stays blank",
        ],
    ),
    (
        "sales",
        [
            "please quote # seats",
            "can I buy # more",
            "discount for # units",
            "upgrade plan # today",
            "renew contract #",
        ],
    ),
];

pub(super) fn generate(rng: &mut Rng) -> (String, String) {
    let (team, phrases) = &TEAMS[rng.below(TEAMS.len() as u64) as usize];
    let phrase = phrases[rng.below(phrases.len() as u64) as usize];
    let id = number(rng, 3).to_string();
    let body = format!("{} writes: {}", name(rng), phrase.replace('#', &id));
    (body, format!("{team} #{id}"))
}

pub(super) fn solve(body: &str) -> Option<String> {
    let (_, message) = body.split_once(" writes: ")?;
    let id = message.split(' ').find(|w| is_number(w))?;
    let phrase = message.replacen(id, "#", 1);
    let (team, _) = TEAMS
        .iter()
        .find(|(_, phrases)| phrases.contains(&phrase.as_str()))?;
    Some(format!("{team} #{id}"))
}
