//! A hash over everything that happened, in order: two runs agree if and only if their digests
//! do (up to chance 2^-128).

use xxhash_rust::xxh3::Xxh3;

/// Absorbs words and gives a 128-bit digest (XXH3).
#[derive(Clone)]
pub struct RunDigest {
    state: Box<Xxh3>,
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
        }
    }
}

impl RunDigest {
    /// Absorbs words, little-endian on every platform.
    #[inline]
    pub fn absorb(&mut self, words: [u64; 4]) {
        let mut bytes = [0_u8; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        self.state.update(&bytes);
    }

    /// Absorbs bytes.
    pub fn absorb_bytes(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
    }

    /// The digest so far, as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.state.digest128())
    }
}
