//! Conditions on metrics: `p99(ttft) <= 200ms`, `goodput{class=interactive} >= 0.95`.
//!
//! ```text
//! condition  = metric comparison (value | [NUMBER "*"] metric)
//! metric     = NAME [labels]                       a metric of the table
//!            | statistic "(" FAMILY [labels] ")" [labels]
//! labels     = "{" label {"," label} "}"
//! label      = "class" "=" NAME | "phase" "=" ("before" | "during" | "after")
//! statistic  = "mean" | "min" | "max" | "p" NUMBER      such as p50, p99, p99.9
//! comparison = "<" | "<=" | ">" | ">="
//! value      = a quantity in the metric's unit
//! ```
//!
//! What comes of a condition is for the reports to say.

/// What conditions may be about.
mod metrics;

pub use metrics::{FAMILIES, METRICS, unit_of};

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

/// A figure of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Operand {
    /// A metric of [`METRICS`], or with `statistic` a family of [`FAMILIES`].
    pub metric: String,
    /// Which statistic of the family.
    pub statistic: Option<Statistic>,
    /// Of one class only.
    pub class: Option<String>,
    /// Of one phase only: one of [`PHASES`].
    pub phase: Option<String>,
    /// The metric's own unit: `ms`, `USD`, `Wh`, `share` (0 to 1), `req/s`, …
    pub unit: &'static str,
}

/// A condition on a metric.
#[derive(Clone, PartialEq, Debug)]
pub struct Threshold {
    /// As written.
    pub text: String,
    /// What is compared.
    pub operand: Operand,
    /// How it compares.
    pub comparison: Comparison,
    /// With what.
    pub limit: Limit,
}

/// What a figure is compared with.
#[derive(Clone, PartialEq, Debug)]
pub enum Limit {
    /// A value in the figure's unit.
    Value(f64),
    /// So many times another figure of the same run and unit.
    Times(f64, Operand),
}

impl Threshold {
    /// The figures that it is about.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        let other = match &self.limit {
            Limit::Value(_) => None,
            Limit::Times(_, other) => Some(other),
        };
        std::iter::once(&self.operand).chain(other)
    }
}

/// Parts of a run around a disturbance.
pub const PHASES: &[&str] = &["before", "during", "after"];

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

const EXAMPLE: &str = "examples: p99(ttft) <= 200ms, goodput{class=chat} >= 0.95, p99(e2e{phase=during}) <= 1.05 * p99(e2e{phase=before})";

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
        let operand = self.operand()?;
        let comparison = self.comparison()?;
        self.skip_space();
        let from = self.at;
        let limit = match self.relative(&operand)? {
            Some(limit) => limit,
            None => {
                let value_at = from..self.text.trim_end().len().max(from);
                let text = &self.text[value_at.clone()];
                Limit::Value(read_value(text, operand.unit, value_at)?)
            }
        };
        Ok(Threshold {
            text: self.text.to_owned(),
            operand,
            comparison,
            limit,
        })
    }

    fn operand(&mut self) -> Result<Operand, ThresholdError> {
        let first = self.word("a metric")?;
        let mut statistic = None;
        let mut labels = [None, None];
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
            self.labels(&mut labels)?;
            self.expect(")")?;
            (family, "ms")
        } else {
            let (name, span) = first;
            (name, unit_of(name).ok_or_else(|| no_metric(name, span))?)
        };
        self.labels(&mut labels)?;
        let [class, phase] = labels;
        Ok(Operand {
            metric: metric.to_owned(),
            statistic,
            class,
            phase,
            unit,
        })
    }

    /// The right side, if it is a figure of the run: `1.05 * p99(ttft{phase=before})`.
    fn relative(&mut self, left: &Operand) -> Result<Option<Limit>, ThresholdError> {
        let rest = self.rest();
        let factor = match rest.split_once('*') {
            Some((number, _)) => match number.trim().parse::<f64>() {
                Ok(factor) if factor.is_finite() && factor >= 0.0 => {
                    self.at += number.len() + 1;
                    factor
                }
                _ => return self.fail(format!("`{}` is not a factor", number.trim())),
            },
            // Values begin with a digit, metrics with a letter.
            None if rest.starts_with(char::is_alphabetic) && rest != "inf" => 1.0,
            None => return Ok(None),
        };
        let from = self.at;
        let right = self.operand()?;
        self.skip_space();
        if !self.rest().is_empty() {
            return self.fail("nothing may follow here".to_owned());
        }
        if right.unit != left.unit {
            return Err(ThresholdError {
                reason: format!(
                    "a figure in {} cannot be compared with one in {}",
                    left.unit, right.unit
                ),
                help: String::new(),
                note: EXAMPLE.to_owned(),
                span: from..self.at,
            });
        }
        Ok(Some(Limit::Times(factor, right)))
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

    /// What follows in braces: of which class, in which phase.
    fn labels(&mut self, labels: &mut [Option<String>; 2]) -> Result<(), ThresholdError> {
        if !self.accept("{") {
            return Ok(());
        }
        loop {
            self.skip_space();
            let begin = self.at;
            let (label, span) = self.word("`class` or `phase`")?;
            let Some(which) = ["class", "phase"].iter().position(|l| *l == label) else {
                return Err(ThresholdError {
                    reason: format!("`{label}` is not what requests can be told apart by"),
                    help: "write {class=NAME} or {phase=during}".to_owned(),
                    note: String::new(),
                    span,
                });
            };
            self.expect("=")?;
            let (name, span) = self.word(&format!("the name of a {label}"))?;
            if label == "phase" && !PHASES.contains(&name) {
                return Err(ThresholdError {
                    reason: format!("there is no phase `{name}`"),
                    help: did_you_mean(name, PHASES.iter().copied()),
                    note: known(PHASES.iter().copied()),
                    span,
                });
            }
            if labels[which].replace(name.to_owned()).is_some() {
                return Err(ThresholdError {
                    reason: format!("the {label} is given twice"),
                    help: String::new(),
                    note: String::new(),
                    span: begin..self.at,
                });
            }
            if !self.accept(",") {
                return self.expect("}");
            }
        }
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
mod tests;
