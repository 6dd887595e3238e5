//! Formats of stored numbers. Eight-bit ones share a scale per head and page: the largest number is
//! the largest of the format.

use super::e4m3;
use half::f16;
use serde::{Deserialize, Serialize};

/// How the numbers of a page are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvFormat {
    /// 32-bit floats: exact on CPU, for checks.
    F32,
    /// 16-bit floats: anchors, and pages that are being filled.
    F16,
    /// 8-bit floats (E4M3) with a scale.
    Fp8,
    /// 8-bit integers with a scale.
    Int8,
}

impl KvFormat {
    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Fp8 | Self::Int8 => 1,
        }
    }

    /// Whether there is a scale.
    pub const fn scaled(self) -> bool {
        matches!(self, Self::Fp8 | Self::Int8)
    }

    /// The scale for numbers of which the largest has this size; 1 for formats without.
    pub fn scale(self, largest: f32) -> f32 {
        let top = match self {
            Self::F32 | Self::F16 => return 1.0,
            Self::Fp8 => e4m3::MAX,
            Self::Int8 => 127.0,
        };
        if largest > 0.0 { largest / top } else { 1.0 }
    }

    /// Stores numbers; `bytes` has room for exactly them.
    pub fn store(self, numbers: &[f32], scale: f32, bytes: &mut [u8]) {
        debug_assert_eq!(bytes.len(), numbers.len() * self.bytes());
        let room = bytes.chunks_exact_mut(self.bytes());
        for (x, room) in numbers.iter().zip(room) {
            match self {
                Self::F32 => room.copy_from_slice(&x.to_le_bytes()),
                Self::F16 => room.copy_from_slice(&f16::from_f32(*x).to_le_bytes()),
                Self::Fp8 => room[0] = e4m3::encode(x / scale),
                Self::Int8 => {
                    room[0] = (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8 as u8
                }
            }
        }
    }

    /// Reads numbers back.
    pub fn load(self, bytes: &[u8], scale: f32, table: &[f32; 256], numbers: &mut [f32]) {
        debug_assert_eq!(bytes.len(), numbers.len() * self.bytes());
        let stored = bytes.chunks_exact(self.bytes());
        let each = numbers.iter_mut().zip(stored);
        // A loop per format, so that each becomes one of vectors.
        match self {
            Self::F32 => each.for_each(|(x, b)| *x = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Self::F16 => each.for_each(|(x, b)| *x = widened(u16::from_le_bytes([b[0], b[1]]))),
            Self::Fp8 => each.for_each(|(x, b)| *x = table[usize::from(b[0])] * scale),
            Self::Int8 => each.for_each(|(x, b)| *x = f32::from(b[0] as i8) * scale),
        }
    }
}

/// The number that the bits of a 16-bit float mean.
fn widened(half: u16) -> f32 {
    /// What exponents of 32 bits are larger by: 2^112.
    const LARGER: f32 = f32::from_bits((112 + 127) << 23);
    let bits = u32::from(half & 0x7fff) << 13;
    // Products are exact, those below the normal numbers too; all ones is no number but infinite or none.
    let size = if half & 0x7c00 == 0x7c00 {
        bits | 0x7f80_0000
    } else {
        (f32::from_bits(bits) * LARGER).to_bits()
    };
    f32::from_bits(size | u32::from(half & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windtunnel_base::rng::Rng;

    #[test]
    fn all_halves_are_widened_as_the_standard_says() {
        for bits in 0..=u16::MAX {
            let (want, got) = (f16::from_bits(bits).to_f32(), widened(bits));
            let same = want.to_bits() == got.to_bits() || (want.is_nan() && got.is_nan());
            assert!(same, "{bits:#x}: {got} for {want}");
        }
    }

    /// V-Q1: signal over quantisation noise of a normal source, in dB, in groups of 128.
    fn sqnr(format: KvFormat, fixed_scale: Option<f32>) -> f64 {
        let mut rng = Rng::from_seed(1);
        let table = e4m3::table();
        let (mut signal, mut noise) = (0.0_f64, 0.0_f64);
        for _ in 0..4_000 {
            let group: Vec<f32> = (0..128)
                .map(|_| {
                    ((-2.0 * rng.f64_open().ln()).sqrt()
                        * (std::f64::consts::TAU * rng.f64()).cos()) as f32
                })
                .collect();
            let largest = group.iter().fold(0_f32, |m, x| m.max(x.abs()));
            let scale = fixed_scale.unwrap_or_else(|| format.scale(largest));
            let mut bytes = vec![0; 128 * format.bytes()];
            format.store(&group, scale, &mut bytes);
            let mut back = vec![0_f32; 128];
            format.load(&bytes, scale, &table, &mut back);
            for (x, y) in group.iter().zip(&back) {
                signal += f64::from(*x).powi(2);
                noise += f64::from(x - y).powi(2);
            }
        }
        10.0 * (signal / noise).log10()
    }

    #[test]
    fn noise_is_that_of_the_catalogue() {
        // 512,000 numbers: the standard error of either figure is below 0.02 dB.
        assert!((sqnr(KvFormat::Int8, None) - 43.8).abs() < 0.1);
        assert!(
            (sqnr(KvFormat::Fp8, Some(1.0)) - 31.5).abs() < 0.1,
            "{}",
            sqnr(KvFormat::Fp8, Some(1.0))
        );
        assert!(sqnr(KvFormat::F16, None) > 70.0);
        assert!(sqnr(KvFormat::F32, None).is_infinite());
    }

    #[test]
    fn the_mixed_cache_has_the_catalogue_s_bits() {
        // V-Q3: 80 % FP8, 15 % INT8, 5 % FP16.
        let bits = 8.0
            * (0.8 * KvFormat::Fp8.bytes() as f64
                + 0.15 * KvFormat::Int8.bytes() as f64
                + 0.05 * KvFormat::F16.bytes() as f64);
        assert!((bits - 8.4).abs() < 1e-12);
    }
}
