//! What a prompt is made of.
//!
//! A prompt is a chain of *extents*, then a rest that nobody shares. An extent `(key, tokens)`
//! is the first `tokens` tokens of the token stream named `key`, given everything before it.
//! Two prompts share a prefix exactly as far as their chains agree: whole extents of equal key
//! and length, then the shorter of two extents of equal key. A prefix cache with blocks of `b`
//! tokens can reuse `floor(shared / b)` blocks of it, which is what hashing every block would
//! find, at a cost per extent instead of per block.
//!
//! Contract for producers: if two chains agree up to some extent and continue with the same key,
//! the tokens of the shorter extent are the same in both; if they continue with different keys,
//! their contents differ from there on. Keys already contain their namespace (trace, session,
//! tenant isolation): equal keys of different namespaces must not occur.

use crate::rng::mix64;

/// A stretch of a named token stream at this place of a prompt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extent {
    /// Name of the stream, namespace included.
    pub key: u64,
    /// How many of its tokens, from its beginning; more than zero.
    pub tokens: u32,
}

/// Makes a key from a namespace and a number within it.
pub const fn stream_key(namespace: u64, id: u64) -> u64 {
    mix64(mix64(namespace) ^ id)
}

/// The name of a namespace, from its text.
pub fn namespace(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}

/// Tokens that two prompts share, from their chains.
pub fn shared_tokens(a: &[Extent], b: &[Extent]) -> u64 {
    let mut shared = 0;
    for (x, y) in a.iter().zip(b) {
        if x.key != y.key {
            break;
        }
        shared += u64::from(x.tokens.min(y.tokens));
        if x.tokens != y.tokens {
            break;
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_share_up_to_the_first_difference() {
        let e = |key, tokens| Extent { key, tokens };
        assert_eq!(
            shared_tokens(&[e(1, 10), e(2, 5)], &[e(1, 10), e(2, 7)]),
            15
        );
        assert_eq!(shared_tokens(&[e(1, 10), e(2, 5)], &[e(1, 8), e(2, 7)]), 8);
        assert_eq!(shared_tokens(&[e(1, 10)], &[e(3, 10)]), 0);
    }
}
