//! A hash over everything that happened, in order: two runs agree if and only if their digests
//! do (up to chance 2^-128).

use xxhash_rust::xxh3::Xxh3;

/// Bytes that are hashed at once; a multiple of what one call absorbs.
const AT_ONCE: usize = 1024;

/// Absorbs words and gives a 128-bit digest (XXH3).
#[derive(Clone)]
pub struct RunDigest {
    state: Box<Xxh3>,
    /// Words that came and are not hashed yet: hashing a few bytes costs a call, a copy and a wait for
    /// what was just written.
    pending: Box<[u8; AT_ONCE]>,
    filled: usize,
}

impl std::fmt::Debug for RunDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunDigest({})", self.hex())
    }
}

impl Default for RunDigest {
    fn default() -> Self {
        Self {
            state: Box::new(Xxh3::new()),
            pending: Box::new([0; AT_ONCE]),
            filled: 0,
        }
    }
}

impl RunDigest {
    /// Absorbs words, little-endian on every platform.
    #[inline]
    pub fn absorb(&mut self, words: [u64; 4]) {
        let bytes = &mut self.pending[self.filled..self.filled + 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        self.filled += 32;
        if self.filled == AT_ONCE {
            self.hash_pending();
        }
    }

    /// Absorbs bytes.
    pub fn absorb_bytes(&mut self, bytes: &[u8]) {
        self.hash_pending();
        self.state.update(bytes);
    }

    fn hash_pending(&mut self) {
        if self.filled == 0 {
            return;
        }
        self.state.update(&self.pending[..self.filled]);
        self.filled = 0;
    }

    /// The digest so far, as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        let mut state = self.state.clone();
        state.update(&self.pending[..self.filled]);
        format!("{:032x}", state.digest128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    /// However words and bytes come, the digest is that of all bytes in a row, at any time.
    #[test]
    fn is_the_hash_of_all_bytes_in_a_row() {
        let (mut digest, mut all) = (RunDigest::default(), Vec::new());
        for i in 0..200_u64 {
            let words = [i, i << 40, !i, i * i];
            digest.absorb(words);
            words.iter().for_each(|w| all.extend(w.to_le_bytes()));
            if i % 37 == 0 {
                let text = vec![i as u8; i as usize * 11];
                digest.absorb_bytes(&text);
                all.extend(text);
            }
            assert_eq!(
                digest.hex(),
                format!("{:032x}", xxh3_128(&all)),
                "after {i}"
            );
        }
    }
}
