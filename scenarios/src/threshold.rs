//! Conditions on metrics: `p99(ttft) <= 200ms`, `goodput{class=interactive} >= 0.95`.
//!
//! ```text
//! condition  = metric comparison value
//! metric     = NAME [class]                        a metric of the table
//!            | statistic "(" FAMILY [class] ")" [class]
//! class      = "{" "class" "=" NAME "}"
//! statistic  = "mean" | "min" | "max" | "p" NUMBER      such as p50, p99, p99.9
//! comparison = "<" | "<=" | ">" | ">="
//! value      = a quantity in the metric's unit
//! ```
//!
//! What comes of a condition is for the reports to say.

use crate::check::suggest::{did_you_mean, known};
use std::fmt;
use std::ops::Range;
use windtunnel_base::quantity::{Money, Rate, Span};

/// A statistic of a family of times.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Statistic {
    /// Arithmetic mean.
    Mean,
    /// Least.
    Min,
    /// Greatest.
    Max,
    /// The `q`-quantile, `q` between 0 and 1.
    Quantile(f64),
}

/// How a metric compares with its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// Less.
    Below,
    /// Less or equal.
    AtMost,
    /// More.
    Above,
    /// More or equal.
    AtLeast,
}

/// A condition on a metric.
#[derive(Clone, PartialEq, Debug)]
pub struct Threshold {
    /// As written.
    pub text: String,
    /// A metric of [`METRICS`], or with `statistic` a family of [`FAMILIES`].
    pub metric: String,
    /// Which statistic of the family.
    pub statistic: Option<Statistic>,
    /// Of one class only.
    pub class: Option<String>,
    /// How it compares.
    pub comparison: Comparison,
    /// The limit, in `unit`.
    pub value: f64,
    /// The metric's own unit: `ms`, `USD`, `Wh`, `share` (0 to 1), `req/s`, …
    pub unit: &'static str,
}

/// Families of times, in ms, of which any statistic may be asked for.
pub const FAMILIES: &[&str] = &["ttft", "tpot", "itl", "e2e", "queue"];

/// Metrics that are one figure, with their units. Families add `ttft_mean`, `ttft_p50`,
/// `ttft_p90`, `ttft_p99` and so on in ms.
pub const METRICS: &[(&str, &str)] = &[
    ("goodput", "share"),
    ("goodput_rate", "req/s"),
    ("offered_rate", "req/s"),
    ("request_throughput", "req/s"),
    ("output_token_throughput", "tokens/s"),
    ("availability", "share"),
    ("sent", "requests"),
    ("finished", "requests"),
    ("refused", "requests"),
    ("abandoned", "requests"),
    ("unfinished", "requests"),
    ("preemptions", "times"),
    ("prefix_hit_rate", "share"),
    ("verification_pass_rate", "share"),
    ("accepted_outputs", "requests"),
    ("verified_useful_outputs", "requests"),
    ("cost_total", "USD"),
    ("cost_per_verified_output", "USD"),
    ("cost_per_accepted_output", "USD"),
    ("energy_total", "Wh"),
    ("energy_per_verified_output", "Wh"),
    ("toten_per_verified_output", "tokens"),
    ("toten_raw_per_verified_output", "tokens"),
    ("verifier_tax", "share"),
    ("load_imbalance", "ratio"),
    ("batch_mean", "requests"),
    ("in_system_mean", "requests"),
    ("kv_usage_mean", "share"),
    ("extrapolated_share", "share"),
];

/// Statistics of families that have a name of their own among the metrics.
const NAMED_STATISTICS: &[&str] = &["mean", "p50", "p90", "p99"];

/// Unit of a metric that is one figure; none if there is no such metric.
pub fn unit_of(metric: &str) -> Option<&'static str> {
    let found = METRICS.iter().find(|(name, _)| *name == metric);
    found.map(|&(_, unit)| unit).or_else(|| {
        let (family, statistic) = metric.rsplit_once('_')?;
        (FAMILIES.contains(&family) && NAMED_STATISTICS.contains(&statistic)).then_some("ms")
    })
}

/// Why a text is no condition.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ThresholdError {
    /// What is wrong.
    pub reason: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// Known words, an example; may be empty.
    pub note: String,
    /// Which bytes of the text it is about.
    pub span: Range<usize>,
}

const EXAMPLE: &str = "examples: p99(ttft) <= 200ms, goodput{class=chat} >= 0.95";

impl std::str::FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        Parser { text, at: 0 }.condition()
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// A name and where it is.
type Word<'a> = (&'a str, Range<usize>);

impl<'a> Parser<'a> {
    fn condition(mut self) -> Result<Threshold, ThresholdError> {
        let first = self.word("a metric")?;
        let mut statistic = None;
        let mut class = None;
        let (metric, unit) = if self.accept("(") {
            statistic = Some(read_statistic(&first)?);
            let (family, span) = self.word("a family of times")?;
            if !FAMILIES.contains(&family) {
                return Err(ThresholdError {
                    reason: format!("`{family}` has no statistics"),
                    help: did_you_mean(family, FAMILIES.iter().copied()),
                    note: known(FAMILIES.iter().copied()),
                    span,
                });
            }
            self.class(&mut class)?;
            self.expect(")")?;
            (family, "ms")
        } else {
            let (name, span) = first;
            (name, unit_of(name).ok_or_else(|| no_metric(name, span))?)
        };
        self.class(&mut class)?;
        let comparison = self.comparison()?;
        self.skip_space();
        let value_at = self.at..self.text.trim_end().len().max(self.at);
        let value = read_value(&self.text[value_at.clone()], unit, value_at)?;
        Ok(Threshold {
            text: self.text.to_owned(),
            metric: metric.to_owned(),
            statistic,
            class,
            comparison,
            value,
            unit,
        })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn fail<T>(&self, reason: String) -> Result<T, ThresholdError> {
        let width = self.rest().chars().next().map_or(0, char::len_utf8);
        Err(ThresholdError {
            reason,
            help: String::new(),
            note: EXAMPLE.to_owned(),
            span: self.at..self.at + width,
        })
    }

    fn word(&mut self, what: &str) -> Result<Word<'a>, ThresholdError> {
        self.skip_space();
        let in_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let len = self
            .rest()
            .find(|c| !in_word(c))
            .unwrap_or(self.rest().len());
        if len == 0 {
            return self.fail(format!("{what} is missing"));
        }
        let span = self.at..self.at + len;
        self.at += len;
        Ok((&self.text[span.clone()], span))
    }

    fn accept(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ThresholdError> {
        if self.accept(token) {
            return Ok(());
        }
        self.fail(format!("`{token}` is missing"))
    }

    fn class(&mut self, class: &mut Option<String>) -> Result<(), ThresholdError> {
        self.skip_space();
        let begin = self.at;
        if !self.accept("{") {
            return Ok(());
        }
        let (label, span) = self.word("`class`")?;
        if label != "class" {
            return Err(ThresholdError {
                reason: format!("`{label}` is not what requests can be told apart by"),
                help: "write {class=NAME}".to_owned(),
                note: String::new(),
                span,
            });
        }
        self.expect("=")?;
        let (name, _) = self.word("the name of a class")?;
        self.expect("}")?;
        if class.replace(name.to_owned()).is_some() {
            return Err(ThresholdError {
                reason: "the class is given twice".to_owned(),
                help: String::new(),
                note: String::new(),
                span: begin..self.at,
            });
        }
        Ok(())
    }

    fn comparison(&mut self) -> Result<Comparison, ThresholdError> {
        for (token, comparison) in [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("≤", Comparison::AtMost),
            ("≥", Comparison::AtLeast),
            ("<", Comparison::Below),
            (">", Comparison::Above),
        ] {
            if self.accept(token) {
                return Ok(comparison);
            }
        }
        self.fail("one of <, <=, > and >= is missing".to_owned())
    }
}

fn read_statistic((word, span): &Word<'_>) -> Result<Statistic, ThresholdError> {
    let share = word.strip_prefix('p').and_then(hundredth);
    match (*word, share) {
        ("mean", _) => Ok(Statistic::Mean),
        ("min", _) => Ok(Statistic::Min),
        ("max", _) => Ok(Statistic::Max),
        ("median", _) => Ok(Statistic::Quantile(0.5)),
        (_, Some(q)) if q > 0.0 && q < 1.0 => Ok(Statistic::Quantile(q)),
        _ => Err(ThresholdError {
            reason: format!("unknown statistic `{word}`"),
            help: did_you_mean(word, ["mean", "min", "max", "p50", "p90", "p99"]),
            note: "known: mean, min, max, median and p50, p99, p99.9 and the like".to_owned(),
            span: span.clone(),
        }),
    }
}

fn no_metric(name: &str, span: Range<usize>) -> ThresholdError {
    let names = METRICS.iter().map(|&(name, _)| name);
    let (help, note) = if FAMILIES.contains(&name) {
        let help = format!("say which statistic, such as p99({name}) or mean({name})");
        (help, String::new())
    } else {
        let all = names.clone().chain(FAMILIES.iter().copied());
        let note = format!(
            "{}, and statistics of {}",
            known(names),
            FAMILIES.join(", ")
        );
        (did_you_mean(name, all), note)
    };
    ThresholdError {
        reason: format!("there is no metric `{name}`"),
        help,
        note,
        span,
    }
}

/// A hundredth of a number, exactly as if the point had been moved by hand.
fn hundredth(number: &str) -> Option<f64> {
    format!("{number}e-2").parse().ok()
}

/// A limit in the unit of its metric.
fn read_value(text: &str, unit: &'static str, span: Range<usize>) -> Result<f64, ThresholdError> {
    let fail = |reason: String, example: &str| ThresholdError {
        reason,
        help: format!("write it like {example}"),
        note: String::new(),
        span: span.clone(),
    };
    let plain = |words: &[&str], example: &str| {
        let number = words.iter().find_map(|w| text.strip_suffix(w));
        let number = number.unwrap_or(text).trim_end();
        match number.replace('_', "").parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(x),
            _ => Err(fail(format!("`{text}` is not a limit in {unit}"), example)),
        }
    };
    match unit {
        "ms" => match text.parse::<Span>() {
            Ok(span) => Ok(span.0.as_nanos() as f64 / 1e6),
            Err(error) => Err(fail(error.to_string(), "200ms")),
        },
        "USD" => match text.parse::<Money>() {
            Ok(money) => Ok(money.0.as_usd()),
            Err(error) => Err(fail(error.to_string(), "$0.002")),
        },
        "req/s" => match text.parse::<Rate>() {
            Ok(rate) if rate.0.is_finite() => Ok(rate.0),
            Ok(_) => Err(fail("a limit cannot be endless".to_owned(), "8 req/s")),
            Err(error) => Err(fail(error.to_string(), "8 req/s")),
        },
        "share" => {
            let share = match text.strip_suffix('%') {
                Some(percent) => hundredth(percent.trim_end()),
                None => text.parse().ok(),
            };
            match share {
                Some(x) if (0.0..=1.0).contains(&x) => Ok(x),
                _ => {
                    let reason = format!("`{text}` is not a share between 0 and 1");
                    Err(fail(reason, "0.95 or 95%"))
                }
            }
        }
        "Wh" => {
            let units = [
                ("kWh", 1e3),
                ("mWh", 1e-3),
                ("Wh", 1.0),
                ("kJ", 1.0 / 3.6),
                ("J", 1.0 / 3600.0),
            ];
            let found = units
                .iter()
                .find_map(|(name, scale)| Some((text.strip_suffix(name)?, scale)));
            match found.map(|(n, scale)| (n.trim_end().parse::<f64>(), scale)) {
                Some((Ok(x), scale)) if x.is_finite() => Ok(x * scale),
                _ => Err(fail(format!("`{text}` is not an energy"), "0.5Wh")),
            }
        }
        "tokens/s" => plain(&["tokens/s", "tok/s"], "5000 tokens/s"),
        "tokens" => plain(&["tokens"], "1900 tokens"),
        "requests" | "times" => plain(&["requests", "times"], "100"),
        _ => plain(&[], "1.5"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Threshold {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn conditions_are_read_in_the_units_of_their_metrics() {
        let t = parse("p99(ttft) <= 200ms");
        assert_eq!((t.metric.as_str(), t.class), ("ttft", None));
        assert_eq!(t.statistic, Some(Statistic::Quantile(0.99)));
        assert_eq!(
            (t.comparison, t.value, t.unit),
            (Comparison::AtMost, 200.0, "ms")
        );

        let t = parse(" mean( e2e{class = batch} )<2s ");
        assert_eq!(t.statistic, Some(Statistic::Mean));
        assert_eq!(t.class.as_deref(), Some("batch"));
        assert_eq!((t.comparison, t.value), (Comparison::Below, 2000.0));

        assert_eq!(
            parse("p99(ttft){class=a-b.c} > 1us").class.as_deref(),
            Some("a-b.c")
        );
        assert_eq!(
            parse("p99.9(itl) < 1s").statistic,
            Some(Statistic::Quantile(0.999))
        );
        assert_eq!(parse("goodput{class=chat} >= 95%").value, 0.95);
        assert_eq!(parse("cost_per_verified_output <= $0.002").value, 0.002);
        assert_eq!(parse("energy_per_verified_output < 720J").value, 0.2);
        assert_eq!(
            parse("output_token_throughput > 5_000 tokens/s").value,
            5000.0
        );
        assert_eq!(parse("ttft_p99 ≤ 0.2s").value, 200.0);
    }

    #[test]
    fn errors_say_what_where_and_how() {
        let fail = |text: &str| {
            let e = text.parse::<Threshold>().unwrap_err();
            (
                text[e.span.clone()].to_owned(),
                format!("{} {} {}", e.reason, e.help, e.note),
            )
        };
        for (text, at, says) in [
            ("p99(tftt) < 1s", "tftt", "did you mean `ttft`?"),
            ("ttft < 1s", "ttft", "p99(ttft)"),
            ("goodputt > 0.9", "goodputt", "did you mean `goodput`?"),
            ("p0(ttft) < 1s", "p0", "unknown statistic"),
            ("p99(ttft < 1s", "<", "`)` is missing"),
            ("p99(ttft) 1s", "1", "one of <, <="),
            ("p99(ttft) < 200", "200", "no unit"),
            ("goodput >= 95", "95", "95%"),
            ("cost_total < 3", "3", "$"),
            ("p99(ttft{tenant=x}) < 1s", "tenant", "{class=NAME}"),
            ("p99(ttft{class=x}){class=y} < 1s", "{class=y}", "twice"),
            ("", "", "missing"),
            ("goodput >=", "", "share"),
        ] {
            let (where_, what) = fail(text);
            assert_eq!(where_, at, "{text}: {what}");
            assert!(what.contains(says), "{text}: {what}");
        }
    }
}
