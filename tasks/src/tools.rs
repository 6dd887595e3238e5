//! `remind me to call Rona at 9:30` asks for `remind(time="09:30",text="call Rona")`.

use super::words::{is_word, name, number, pick};
use windtunnel_base::rng::Rng;

const VERBS: [&str; 5] = ["call", "meet", "pay", "thank", "visit"];

pub(super) fn generate(rng: &mut Rng) -> (String, String) {
    let (verb, who) = (pick(rng, &VERBS), name(rng));
    match rng.below(3) {
        0 => {
            let (hour, minute) = (1 + rng.below(12), 5 * rng.below(12));
            let body = format!("remind me to {verb} {who} at {hour}:{minute:02}");
            (
                body,
                format!("remind(time=\"{hour:02}:{minute:02}\",text=\"{verb} {who}\")"),
            )
        }
        1 => {
            let digits = 2 + rng.below(2) as u32;
            let sum = number(rng, digits);
            (
                format!("send {who} {sum} euros"),
                format!("transfer(to=\"{who}\",amount={sum},currency=\"EUR\")"),
            )
        }
        _ => {
            let digits = 1 + rng.below(2) as u32;
            let days = number(rng, digits);
            (
                format!("weather in {who} for {days} days"),
                format!("forecast(city=\"{who}\",days={days})"),
            )
        }
    }
}

pub(super) fn solve(body: &str) -> Option<String> {
    if let Some(rest) = body.strip_prefix("remind me to ") {
        let (text, time) = rest.split_once(" at ")?;
        let (hour, minute) = time.split_once(':')?;
        let hour: u32 = hour.parse().ok()?;
        let minute: u32 = minute.parse().ok()?;
        return Some(format!(
            "remind(time=\"{hour:02}:{minute:02}\",text=\"{text}\")"
        ));
    }
    if let Some(rest) = body.strip_prefix("send ") {
        let (who, sum) = rest.strip_suffix(" euros")?.split_once(' ')?;
        let sum: u64 = sum.parse().ok()?;
        return is_word(who)
            .then(|| format!("transfer(to=\"{who}\",amount={sum},currency=\"EUR\")"));
    }
    let (city, days) = body
        .strip_prefix("weather in ")?
        .strip_suffix(" days")?
        .split_once(" for ")?;
    let days: u64 = days.parse().ok()?;
    is_word(city).then(|| format!("forecast(city=\"{city}\",days={days})"))
}
