//! FP8 E4M3 as GPUs know it (OCP 8-bit floating point, "FN"): bias 7, no infinities, largest
//! 448, smallest 2^-9; what is larger becomes the largest.

/// The largest number.
pub const MAX: f32 = 448.0;

/// The value of a code; NaN for the two codes that have none.
pub fn decode(code: u8) -> f32 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((code >> 3) & 0xf);
    let mantissa = f32::from(code & 0x7);
    match (exponent, code & 0x7f) {
        (_, 0x7f) => f32::NAN,
        (0, _) => sign * mantissa * 2_f32.powi(-9),
        _ => sign * (1.0 + mantissa / 8.0) * 2_f32.powi(exponent - 7),
    }
}

/// All values by code.
pub fn table() -> [f32; 256] {
    let mut table = [0.0; 256];
    for (code, value) in (0_u8..=255).zip(&mut table) {
        *value = decode(code);
    }
    table
}

/// The nearest code, ties to even; NaN stays NaN.
pub fn encode(value: f32) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    let size = value.abs().min(MAX);
    if size < 2_f32.powi(-6) {
        // Subnormal: multiples of 2^-9. Eight of them are the smallest normal number, and so is code 8.
        return sign | (size * 512.0).round_ties_even() as u8;
    }
    let bits = size.to_bits();
    // Twenty of the 23 bits of mantissa go; half of what they count for decides, ties to even.
    let rounded = bits + 0x7_ffff + ((bits >> 20) & 1);
    let exponent = (rounded >> 23) as i32 - 127 + 7;
    let code = ((exponent as u32) << 3) | ((rounded >> 20) & 0x7);
    sign | code.min(0x7e) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_and_the_ends_are_those_of_the_standard() {
        for code in 0..=255_u8 {
            let value = decode(code);
            if value.is_nan() {
                assert_eq!(code & 0x7f, 0x7f);
            } else {
                assert_eq!(encode(value), code, "{value}");
            }
        }
        assert_eq!(
            (decode(0x7e), decode(0x01), decode(0x08)),
            (448.0, 2_f32.powi(-9), 2_f32.powi(-6))
        );
        assert_eq!((encode(1e9), encode(-1e9)), (0x7e, 0xfe));
    }

    #[test]
    fn encoding_takes_the_nearest_and_ties_the_even() {
        let values: Vec<(u8, f32)> = (0..0x7f_u8).map(|c| (c, decode(c))).collect();
        for pair in values.windows(2) {
            let ((low, a), (high, b)) = (pair[0], pair[1]);
            let middle = f32::midpoint(a, b);
            let even = if low % 2 == 0 { low } else { high };
            assert_eq!(encode(middle), even, "between {a} and {b}");
            assert_eq!(encode(a + 0.49 * (b - a)), low);
            assert_eq!(encode(a + 0.51 * (b - a)), high);
        }
    }
}
