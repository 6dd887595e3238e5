//! Chance. One named generator (xoshiro256++) and one stream per purpose and entity, derived
//! from the run's seed by a fixed, well-mixing function. A component that draws more moves no
//! other stream, so two policies under one seed face the same requests.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng};

/// The generator's name, for manifests.
pub const GENERATOR: &str = "xoshiro256++";

/// The final mix of splitmix64 (Steele, Lea and Flood 2014): a bijection that spreads every
/// input bit over the whole word.
pub const fn mix64(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Rng(Xoshiro256PlusPlus);

impl Rng {
    /// A stream from a seed of its own; prefer [`Streams::stream`].
    pub fn from_seed(seed: u64) -> Self {
        let mut bytes = [0_u8; 32];
        let mut z = seed;
        for chunk in bytes.chunks_exact_mut(8) {
            z = mix64(z);
            chunk.copy_from_slice(&z.to_le_bytes());
        }
        Self(Xoshiro256PlusPlus::from_seed(bytes))
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform on [0, 1), with 53 random bits.
    #[inline]
    pub fn f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform on (0, 1]: safe under a logarithm.
    #[inline]
    pub fn f64_open(&mut self) -> f64 {
        ((self.next_u64() >> 11) + 1) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform on 0..n, without bias (Lemire's multiply-and-reject).
    ///
    /// # Panics
    /// If `n` is zero.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "no number is below zero");
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            let low = wide as u64;
            if low >= n || low >= n.wrapping_neg() % n {
                return (wide >> 64) as u64;
            }
        }
    }

    /// True with probability `p`.
    #[inline]
    pub fn chance(&mut self, p: f64) -> bool {
        self.f64() < p
    }
}

/// Derives every stream of a run from its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// The streams of one run.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The run's seed.
    pub const fn seed(self) -> u64 {
        self.seed
    }

    /// The stream for one purpose (`"arrivals"`) and entity (a client, a replica; 0 if there is
    /// only one). Calling it twice gives the same stream from its start.
    pub fn stream(self, purpose: &str, entity: u64) -> Rng {
        // Each word is absorbed by a bijective mix, so distinct (seed, purpose, entity) cannot
        // be made equal by a lucky XOR.
        let mut z = mix64(self.seed ^ 0x7769_6e64_7475_6e6e);
        for chunk in purpose.as_bytes().chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            z = mix64(z ^ u64::from_le_bytes(word));
        }
        z = mix64(z ^ purpose.len() as u64);
        Rng::from_seed(mix64(z ^ mix64(entity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_purpose_entity_and_seed_and_repeat() {
        let s = Streams::new(1);
        let first = |mut r: Rng| r.next_u64();
        assert_eq!(
            first(s.stream("arrivals", 0)),
            first(s.stream("arrivals", 0))
        );
        assert_ne!(
            first(s.stream("arrivals", 0)),
            first(s.stream("arrivals", 1))
        );
        assert_ne!(
            first(s.stream("arrivals", 0)),
            first(s.stream("lengths", 0))
        );
        assert_ne!(
            first(s.stream("arrivals", 0)),
            first(Streams::new(2).stream("arrivals", 0))
        );
    }

    #[test]
    fn uniforms_stay_in_their_ranges_and_centre() {
        let mut r = Rng::from_seed(7);
        let mut sum = 0.0;
        for _ in 0..100_000 {
            let u = r.f64();
            assert!((0.0..1.0).contains(&u));
            let v = r.f64_open();
            assert!(v > 0.0 && v <= 1.0);
            assert!(r.below(10) < 10);
            sum += u;
        }
        // Standard error of the mean is 0.29/sqrt(1e5) < 0.001; five of them.
        assert!((sum / 1e5 - 0.5).abs() < 0.005);
    }
}
