//! Quantities as users write them: a number and its unit in one string. Each type parses,
//! prints so that it parses back to the same value, and tells the JSON schema its `format`.

use crate::time::SimDuration;
use crate::units::NanoUsd;
use std::fmt;
use std::str::FromStr;

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {reason}; write it like {example}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
    reason: String,
    example: &'static str,
}

/// A length of time: `"250ms"`, `"1.5s"`, `"10min"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Span(pub SimDuration);

/// An amount of memory: `"24GiB"`, `"80GB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Bytes(pub u64);

/// Events per second: `"8 req/s"`, `"90 req/min"`, or `"inf"` (all at once).
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
pub struct Rate(pub f64);

/// Bytes per second: `"3.35TB/s"`.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
pub struct Bandwidth(pub f64);

/// Floating-point operations per second: `"989TFLOPS"`.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
pub struct Compute(pub f64);

/// Power: `"700W"`, `"10.2kW"`.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Default)]
pub struct Power(pub f64);

/// Price of an hour: `"$3.00/h"`. Held in nano-dollars per hour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct HourlyPrice(pub NanoUsd);

/// Money: `"$0.01"`. Held in nano-dollars.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Money(pub NanoUsd);

type Units = &'static [(&'static str, f64)];

/// Splits a number from its unit and scales it.
fn parse_scaled(
    text: &str,
    what: &'static str,
    example: &'static str,
    units: Units,
) -> Result<f64, QuantityError> {
    let fail = |reason: String| QuantityError {
        text: text.to_owned(),
        what,
        reason,
        example,
    };
    let trimmed = text.trim();
    let split = trimmed
        .char_indices()
        .find(|&(i, c)| {
            let exponent = matches!(c, 'e' | 'E')
                && trimmed[i + 1..]
                    .starts_with(|d: char| d.is_ascii_digit() || d == '-' || d == '+');
            let in_exponent =
                matches!(c, '-' | '+') && (i == 0 || trimmed[..i].ends_with(['e', 'E']));
            !(c.is_ascii_digit() || c == '.' || c == '_' || exponent || in_exponent)
        })
        .map_or(trimmed.len(), |(i, _)| i);
    let (number, unit) = (trimmed[..split].replace('_', ""), trimmed[split..].trim());
    let value: f64 = number
        .parse()
        .map_err(|_| fail("it does not start with a number".into()))?;
    if !value.is_finite() || value < 0.0 {
        return Err(fail("it must be zero or more".into()));
    }
    let scale = units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|&(_, s)| s);
    let Some(scale) = scale else {
        let known: Vec<_> = units
            .iter()
            .map(|(n, _)| *n)
            .filter(|n| !n.is_empty())
            .collect();
        let said = if unit.is_empty() {
            "it has no unit".to_owned()
        } else {
            format!("unknown unit `{unit}`")
        };
        return Err(fail(format!("{said} (known: {})", known.join(", "))));
    };
    Ok(value * scale)
}

const TIME: Units = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("min", 60e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86400e9),
];
const BYTES: Units = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];
const RATE: Units = &[
    ("req/s", 1.0),
    ("/s", 1.0),
    ("req/min", 1.0 / 60.0),
    ("/min", 1.0 / 60.0),
    ("req/h", 1.0 / 3600.0),
    ("/h", 1.0 / 3600.0),
];
const BANDWIDTH: Units = &[
    ("B/s", 1.0),
    ("MB/s", 1e6),
    ("GB/s", 1e9),
    ("TB/s", 1e12),
    ("GiB/s", 1_073_741_824.0),
    ("Gb/s", 1.25e8),
];
const COMPUTE: Units = &[
    ("FLOPS", 1.0),
    ("GFLOPS", 1e9),
    ("TFLOPS", 1e12),
    ("PFLOPS", 1e15),
];
const POWER: Units = &[("W", 1.0), ("kW", 1e3)];

/// The largest of `units` that divides `value` without rest, so that nothing is lost.
fn print_exact(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    for &(name, scale) in units {
        if value >= scale && value.is_multiple_of(scale) {
            return write!(f, "{}{name}", value / scale);
        }
    }
    write!(f, "{value}{}", units.last().map_or("", |u| u.0))
}

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        let nanos = parse_scaled(s, "a duration", "\"250ms\" or \"10min\"", TIME)?;
        Ok(Self(SimDuration::from_nanos(nanos.round() as u64)))
    }
}
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            ("h", 3_600_000_000_000),
            ("min", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ];
        if self.0.is_zero() {
            f.write_str("0s")
        } else {
            print_exact(f, self.0.as_nanos(), &units)
        }
    }
}
impl FromStr for Bytes {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        Ok(Self(
            parse_scaled(s, "a size", "\"24GiB\"", BYTES)?.round() as u64
        ))
    }
}
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_exact(
            f,
            self.0,
            &[
                ("GiB", 1 << 30),
                ("GB", 1_000_000_000),
                ("MiB", 1 << 20),
                ("MB", 1_000_000),
                ("KiB", 1 << 10),
                ("B", 1),
            ],
        )
    }
}
impl FromStr for Rate {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        if matches!(s.trim(), "inf" | "inf req/s") {
            return Ok(Self(f64::INFINITY));
        }
        parse_scaled(s, "a rate", "\"8 req/s\"", RATE).map(Self)
    }
}
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_infinite() {
            f.write_str("inf")
        } else {
            write!(f, "{} req/s", self.0)
        }
    }
}
impl FromStr for Bandwidth {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        parse_scaled(s, "a bandwidth", "\"900GB/s\"", BANDWIDTH).map(Self)
    }
}
impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B/s", self.0)
    }
}
impl FromStr for Compute {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        parse_scaled(s, "a compute rate", "\"989TFLOPS\"", COMPUTE).map(Self)
    }
}
impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}FLOPS", self.0)
    }
}
impl FromStr for Power {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        parse_scaled(s, "a power", "\"700W\"", POWER).map(Self)
    }
}
impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}W", self.0)
    }
}

/// Nano-dollars from a text that must start with a dollar sign.
fn parse_usd(
    text: &str,
    what: &'static str,
    example: &'static str,
    suffix: &'static str,
) -> Result<NanoUsd, QuantityError> {
    let fail = |reason: &str| QuantityError {
        text: text.to_owned(),
        what,
        reason: reason.to_owned(),
        example,
    };
    let body = text
        .trim()
        .strip_prefix('$')
        .ok_or_else(|| fail("it does not start with `$`"))?;
    let number = body
        .strip_suffix(suffix)
        .ok_or_else(|| fail("the `/h` at its end is missing"))?;
    let value: f64 = number
        .trim()
        .replace('_', "")
        .parse()
        .map_err(|_| fail("there is no number after `$`"))?;
    if !(0.0..1e9).contains(&value) {
        return Err(fail("it must lie between zero and a billion"));
    }
    Ok(NanoUsd::from_f64(value * 1e9))
}
fn print_usd(f: &mut fmt::Formatter<'_>, nano: u64, suffix: &str) -> fmt::Result {
    let fraction = format!("{:09}", nano % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    write!(f, "${}{dot}{fraction}{suffix}", nano / 1_000_000_000)
}
impl FromStr for HourlyPrice {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        parse_usd(s, "a price per hour", "\"$3.00/h\"", "/h").map(Self)
    }
}
impl fmt::Display for HourlyPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_usd(f, self.0.0, "/h")
    }
}
impl FromStr for Money {
    type Err = QuantityError;
    fn from_str(s: &str) -> Result<Self, QuantityError> {
        parse_usd(s, "an amount of money", "\"$0.01\"", "").map(Self)
    }
}
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_usd(f, self.0.0, "")
    }
}

macro_rules! as_text {
    ($($name:ident $format:literal $description:literal $example:literal)*) => { $(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "format": $format,
                    "description": $description,
                    "examples": [$example]
                })
            }
        }
    )* };
}

as_text! {
    Span "wt-duration" "a length of time with its unit: ns, us, ms, s, min, h, d" "250ms"
    Bytes "wt-bytes" "an amount of memory with its unit: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB" "24GiB"
    Rate "wt-rate" "events per second (req/s), minute (req/min) or hour (req/h); or inf" "8 req/s"
    Bandwidth "wt-bandwidth" "bytes per second: MB/s, GB/s, TB/s, GiB/s, Gb/s" "900GB/s"
    Compute "wt-compute" "operations per second: GFLOPS, TFLOPS, PFLOPS" "989TFLOPS"
    Power "wt-power" "W or kW" "700W"
    HourlyPrice "wt-hourly-price" "US dollars per hour" "$3.00/h"
    Money "wt-money" "US dollars" "$0.01"
}

/// Checks a text against one of the `wt-…` formats of the JSON schema.
///
/// # Errors
/// What is wrong with it, with an example of how to write it. Unknown formats pass.
pub fn check_format(format: &str, text: &str) -> Result<(), QuantityError> {
    match format {
        "wt-duration" => text.parse::<Span>().map(drop),
        "wt-bytes" => text.parse::<Bytes>().map(drop),
        "wt-rate" => text.parse::<Rate>().map(drop),
        "wt-bandwidth" => text.parse::<Bandwidth>().map(drop),
        "wt-compute" => text.parse::<Compute>().map(drop),
        "wt-power" => text.parse::<Power>().map(drop),
        "wt-hourly-price" => text.parse::<HourlyPrice>().map(drop),
        "wt-money" => text.parse::<Money>().map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both<T: FromStr<Err = QuantityError> + fmt::Display + PartialEq + fmt::Debug>(
        text: &str,
    ) -> T {
        let value: T = text.parse().unwrap();
        assert_eq!(
            value.to_string().parse::<T>().unwrap(),
            value,
            "{text} does not survive printing"
        );
        value
    }

    #[test]
    fn quantities_parse_and_print_without_loss() {
        assert_eq!(both::<Span>("250ms").0, SimDuration::from_millis(250));
        assert_eq!(both::<Span>("1.5 s").0, SimDuration::from_millis(1500));
        assert_eq!(both::<Span>("0s").0, SimDuration::ZERO);
        assert_eq!(both::<Bytes>("24GiB").0, 24 << 30);
        assert_eq!(both::<Rate>("90 req/min").0, 1.5);
        assert_eq!(both::<Rate>("inf").0, f64::INFINITY);
        assert_eq!(both::<Bandwidth>("3.35TB/s").0, 3.35e12);
        assert_eq!(both::<Compute>("9.89e2TFLOPS").0, 989e12);
        assert_eq!(both::<Power>("10.2kW").0, 10_200.0);
        assert_eq!(both::<HourlyPrice>("$2.99/h").0, NanoUsd(2_990_000_000));
        assert_eq!(both::<Money>("$0.000001").0, NanoUsd(1_000));
    }

    #[test]
    fn errors_name_reason_and_remedy() {
        let text = "250".parse::<Span>().unwrap_err().to_string();
        assert!(text.contains("no unit") && text.contains("250ms"), "{text}");
        let text = "8 rps".parse::<Rate>().unwrap_err().to_string();
        assert!(text.contains("`rps`") && text.contains("req/s"), "{text}");
        assert!("-3s".parse::<Span>().is_err());
        assert!("ms".parse::<Span>().is_err());
        assert!("3/h".parse::<HourlyPrice>().is_err());
    }
}
