//! The pseudo-random generator of Go's `math/rand`, for reproducing systems whose decisions depend
//! on it. Nothing else draws from it.
//!
//! An additive lagged Fibonacci generator, `x[n] = x[n-273] + x[n-607]` modulo `2^64`. Seeding
//! fills its state with a multiplicative congruential sequence, xor a fixed "cooked" state. Go
//! ships that state as a table; its published definition is the state after `7.8e12` steps from
//! seed 1. A step is linear, so the state so far ahead is computed here in some forty squarings of
//! a polynomial, once per process.

use std::sync::OnceLock;

/// Words of state.
const LENGTH: usize = 607;
/// The shorter lag.
const TAP: usize = 273;
/// Steps behind the cooked state.
const COOKED_STEPS: u64 = 7_800_000_000_000;
/// Modulus of the seeding sequence, a prime.
const MODULUS: i64 = (1 << 31) - 1;

/// A sequence as `rand.New(rand.NewSource(seed))` gives it.
#[derive(Clone, Debug)]
pub struct GoRand {
    state: Vec<u64>,
    tap: usize,
    feed: usize,
}

impl GoRand {
    /// The sequence of a seed.
    pub fn new(seed: i64) -> Self {
        static COOKED: OnceLock<Vec<u64>> = OnceLock::new();
        let cooked = COOKED.get_or_init(cooked);
        let mut state = fill(seed, 40, 20);
        for (word, cooked) in state.iter_mut().zip(cooked) {
            *word ^= cooked;
        }
        Self {
            state,
            tap: 0,
            feed: LENGTH - TAP,
        }
    }

    /// 64 random bits (`Uint64`).
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.tap = self.tap.checked_sub(1).unwrap_or(LENGTH - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(LENGTH - 1);
        let word = self.state[self.feed].wrapping_add(self.state[self.tap]);
        self.state[self.feed] = word;
        word
    }

    /// Uniform on `0..n` (`Intn`), for `n` from 1 to `2^31 - 1`.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "no number is below zero");
        // `Int31`: the upper 31 of the lower 63 bits.
        let mut draw = || ((self.next_u64() << 1) >> 33) as u32;
        if n.is_power_of_two() {
            return draw() & (n - 1);
        }
        let most = (1_u32 << 31) - 1 - (1_u32 << 31) % n;
        loop {
            let value = draw();
            if value <= most {
                return value % n;
            }
        }
    }
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo), as `hash/fnv` gives it.
pub const fn fnv1a(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// A state of words that are three numbers of the sequence `x -> 48271 x mod 2^31 - 1` each,
/// shifted against one another.
fn fill(seed: i64, first_shift: u32, second_shift: u32) -> Vec<u64> {
    let mut x = seed.rem_euclid(MODULUS) as u64;
    if x == 0 {
        x = 89_482_311;
    }
    let mut next = || {
        x = x * 48_271 % MODULUS as u64;
        x
    };
    for _ in 0..20 {
        next();
    }
    let mut word = || (next() << first_shift) ^ (next() << second_shift) ^ next();
    (0..LENGTH).map(|_| word()).collect()
}

/// The state that seeds are mixed with. Word `n` of the sequence stands in place `333 - n` of
/// the state, round and round; the word `7.8e12` steps ahead of another is the same combination
/// of the 607 words from there on, whichever that is: the coefficients of `x^7.8e12` modulo
/// `x^607 - x^334 - 1`.
fn cooked() -> Vec<u64> {
    let place = |n: u64| {
        let back = (n % LENGTH as u64) as usize;
        (LENGTH - TAP - 1 + LENGTH - back) % LENGTH
    };
    let start = fill(1, 20, 10);
    let mut words: Vec<u64> = (0..LENGTH as u64).map(|n| start[place(n)]).collect();
    for n in LENGTH..2 * LENGTH {
        words.push(words[n - TAP].wrapping_add(words[n - LENGTH]));
    }
    let ahead = power_of_x(COOKED_STEPS);
    let mut state = vec![0; LENGTH];
    for from in 0..LENGTH {
        let terms = ahead.iter().zip(&words[from..]);
        let word = terms.fold(0_u64, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
        state[place(COOKED_STEPS + from as u64)] = word;
    }
    state
}

/// `x^exponent` modulo the characteristic polynomial, lowest coefficient first.
fn power_of_x(exponent: u64) -> Vec<u64> {
    let mut result = vec![0; LENGTH];
    result[0] = 1;
    for bit in (0..64 - exponent.leading_zeros()).rev() {
        result = product(&result, &result);
        if exponent >> bit & 1 == 1 {
            // Times x: the top coefficient wraps round.
            let top = result[LENGTH - 1];
            result.rotate_right(1);
            result[LENGTH - TAP] = result[LENGTH - TAP].wrapping_add(top);
        }
    }
    result
}

fn product(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut wide = vec![0_u64; 2 * LENGTH - 1];
    for (i, &a) in a.iter().enumerate() {
        for (sum, &b) in wide[i..].iter_mut().zip(b) {
            *sum = sum.wrapping_add(a.wrapping_mul(b));
        }
    }
    // x^607 = x^334 + 1.
    for i in (LENGTH..wide.len()).rev() {
        let top = wide[i];
        wide[i - TAP] = wide[i - TAP].wrapping_add(top);
        wide[i - LENGTH] = wide[i - LENGTH].wrapping_add(top);
    }
    wide.truncate(LENGTH);
    wide
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What programs in Go print, as widely documented for seed 1.
    #[test]
    fn draws_what_go_draws() {
        let mut rng = GoRand::new(1);
        let int63: Vec<u64> = (0..3).map(|_| rng.next_u64() & (u64::MAX >> 1)).collect();
        let expected = [
            5_577_006_791_947_779_410,
            8_674_665_223_082_153_551,
            6_129_484_611_666_145_821,
        ];
        assert_eq!(int63, expected);
        let mut rng = GoRand::new(1);
        let below: Vec<u32> = (0..10).map(|_| rng.below(100)).collect();
        assert_eq!(below, [81, 87, 47, 59, 81, 18, 25, 40, 56, 0]);
    }

    #[test]
    fn powers_of_two_take_the_low_bits_and_negative_seeds_are_taken_as_go_does() {
        let (mut a, mut b) = (GoRand::new(-5), GoRand::new(MODULUS - 5));
        for _ in 0..100 {
            let whole = ((b.next_u64() << 1) >> 33) as u32;
            assert_eq!(a.below(8), whole % 8);
        }
    }

    #[test]
    fn fnv_hashes_as_published() {
        assert_eq!(fnv1a(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a("foobar"), 0x8594_4171_f739_67e8);
    }
}
