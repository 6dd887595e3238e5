//! The byte-level tokenizer: a token per byte, and two that are no byte.

/// Before every text.
pub const BOS: u32 = 256;
/// After every answer.
pub const EOS: u32 = 257;
/// Tokens in all.
pub const VOCAB: u32 = 258;

/// A text's tokens, without [`BOS`] and [`EOS`].
pub fn encode(text: &str) -> impl Iterator<Item = u32> + '_ {
    text.bytes().map(u32::from)
}

/// The text of tokens up to the first [`EOS`]; what is no UTF-8 becomes `U+FFFD`.
pub fn decode(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens
        .iter()
        .take_while(|&&t| t != EOS)
        .filter_map(|&t| u8::try_from(t).ok())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_the_round_trip_and_ends_at_the_end_token() {
        let text = "Grüße 12:30 {\"a\":1}";
        let mut tokens: Vec<u32> = encode(text).collect();
        assert_eq!(decode(&tokens), text);
        tokens.extend([EOS, 65]);
        assert_eq!(decode(&tokens), text);
    }
}
