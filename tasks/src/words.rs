//! Words and names. Names are made of syllables: there are too many to learn by heart.

use windtunnel_base::rng::Rng;

const ONSETS: [&str; 16] = [
    "b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "h",
];
const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];

/// One of them, each as likely as the others.
pub(super) fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.below(of.len() as u64) as usize]
}

/// A made-up word of `syllables` syllables.
pub(super) fn word(rng: &mut Rng, syllables: u32) -> String {
    let mut word = String::new();
    for _ in 0..syllables {
        word += pick(rng, &ONSETS);
        word += pick(rng, &VOWELS);
    }
    word
}

/// A made-up name.
pub(super) fn name(rng: &mut Rng) -> String {
    let syllables = 2 + rng.below(2) as u32;
    capital(&word(rng, syllables))
}

/// With its first letter large.
pub(super) fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// A number of `digits` digits, without leading zero.
pub(super) fn number(rng: &mut Rng, digits: u32) -> u64 {
    let low = 10_u64.pow(digits - 1);
    low + rng.below(9 * low)
}

/// Whether a word is made of letters alone, and there is one.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic())
}

/// Whether a word is made of digits alone, and there is one.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
