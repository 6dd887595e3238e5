//! Numbers as people read them: three significant digits, a unit beside each.

/// A figure with its unit: `81 ms`, `1.25 s`, `96.9 %`, `$0.00241`, `1,904 tokens`.
pub fn figure(value: f64, unit: &str) -> String {
    match unit {
        "ms" => milliseconds(value),
        "share" => format!("{} %", digits(value * 100.0)),
        "USD" => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}${}", digits(value.abs()))
        }
        "" | "ratio" => digits(value),
        _ => format!("{} {unit}", digits(value)),
    }
}

/// A difference of two figures: shares in percentage points.
pub fn difference(value: f64, unit: &str) -> String {
    match unit {
        "share" => format!("{} pp", digits(value * 100.0)),
        _ => figure(value, unit),
    }
}

/// A count: `40,000`.
pub fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// A large count in short: `845`, `12.3k`, `1.45M`.
pub fn compact(n: u64) -> String {
    match n {
        0..10_000 => count(n),
        10_000..1_000_000 => format!("{}k", digits(n as f64 / 1e3)),
        _ => format!("{}M", digits(n as f64 / 1e6)),
    }
}

fn milliseconds(ms: f64) -> String {
    match ms.abs() {
        0.0 => "0 ms".to_owned(),
        x if x < 1e-3 => format!("{} ns", digits(ms * 1e6)),
        x if x < 0.9995 => format!("{} µs", digits(ms * 1e3)),
        x if x < 999.5 => format!("{} ms", digits(ms)),
        x if x < 599_500.0 => format!("{} s", digits(ms / 1e3)),
        _ => format!("{} min", digits(ms / 6e4)),
    }
}

/// Three significant digits at least, never fewer than the integer part has.
pub fn digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}").replace("-0", "0");
    }
    // The exponent after rounding to three digits: 9.999 counts as 10.0.
    let rounded = format!("{:.2e}", value.abs());
    let exponent: i32 = rounded
        .split_once('e')
        .and_then(|(_, e)| e.parse().ok())
        .unwrap_or(0);
    let decimals = (2 - exponent).clamp(0, 12) as usize;
    grouped(&format!("{value:.decimals$}"))
}

/// Commas between thousands of the integer part.
fn grouped(number: &str) -> String {
    let (sign, rest) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let (whole, fraction) = rest
        .split_once('.')
        .map_or((rest, None), |(w, f)| (w, Some(f)));
    let mut out = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        for (value, unit, text) in [
            (81.234, "ms", "81.2 ms"),
            (0.5, "ms", "500 µs"),
            (0.9999, "ms", "1.00 ms"),
            (9.999, "ms", "10.0 ms"),
            (12_345.0, "ms", "12.3 s"),
            (999.4, "ms", "999 ms"),
            (999.6, "ms", "1.00 s"),
            (0.0, "ms", "0 ms"),
            (3_600_000.0, "ms", "60.0 min"),
            (0.969_1, "share", "96.9 %"),
            (1.0, "share", "100 %"),
            (0.002_414, "USD", "$0.00241"),
            (-12.5, "USD", "-$12.5"),
            (1_904.4, "tokens", "1,904 tokens"),
            (1_234_567.0, "requests", "1,234,567 requests"),
            (1.042, "ratio", "1.04"),
            (0.000_012_34, "Wh", "0.0000123 Wh"),
        ] {
            assert_eq!(figure(value, unit), text);
        }
        assert_eq!(difference(0.019, "share"), "1.90 pp");
        assert_eq!(count(40_000), "40,000");
        assert_eq!(count(999), "999");
    }
}
