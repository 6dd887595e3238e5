//! `order: to=Rona id=4821 day=Mon` asks for `Dear Rona, order 4821 ships on Mon.`

use super::words::{is_number, is_word, name, number, pick};
use windtunnel_base::rng::Rng;

const DAYS: [&str; 5] = ["Mon", "Tue", "Wed", "Thu", "Fri"];

pub(super) fn generate(rng: &mut Rng) -> (String, String) {
    let (to, id, day) = (name(rng), number(rng, 4), pick(rng, &DAYS));
    let kind = pick(rng, &["order", "refund", "visit"]);
    let mut fields = [format!("to={to}"), format!("id={id}"), format!("day={day}")];
    // The order of the fields says nothing.
    fields.swap(0, rng.below(3) as usize);
    let body = format!("{kind}: {}", fields.join(" "));
    let answer = match kind {
        "order" => format!("Dear {to}, order {id} ships on {day}."),
        "refund" => format!("Dear {to}, we refund {id} by {day}."),
        _ => format!("Dear {to}, visit {id} is on {day}."),
    };
    (body, answer)
}

pub(super) fn solve(body: &str) -> Option<String> {
    let (kind, fields) = body.split_once(": ")?;
    let field = |key: &str| {
        fields
            .split(' ')
            .find_map(|f| f.strip_prefix(key)?.strip_prefix('='))
    };
    let (to, id, day) = (field("to")?, field("id")?, field("day")?);
    if !is_word(to) || !is_number(id) || !DAYS.contains(&day) {
        return None;
    }
    let rest = match kind {
        "order" => format!("order {id} ships on {day}."),
        "refund" => format!("we refund {id} by {day}."),
        "visit" => format!("visit {id} is on {day}."),
        _ => return None,
    };
    Some(format!("Dear {to}, {rest}"))
}
