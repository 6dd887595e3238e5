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
    ("amplification", "ratio"),
    ("retries", "times"),
    ("hedges", "times"),
    ("throttled", "times"),
    ("wasted_share", "share"),
    ("preemptions", "times"),
    ("store_read_rate", "1/s"),
    ("store_write_rate", "1/s"),
    ("store_read_p99", "ms"),
    ("store_blind_share", "share"),
    ("affinity_share", "share"),
    ("affinity_entries_peak", "entries"),
    ("false_affinity", "share"),
    ("stale_route_rate", "share"),
    ("local_cache_hit_rate", "share"),
    ("shared_cache_hit_rate", "share"),
    ("refills", "requests"),
    ("refill_mean", "ms"),
    ("refill_hidden_share", "share"),
    ("refill_wasted_share", "share"),
    ("prefix_hit_rate", "share"),
    ("stored_answer_hit_rate", "share"),
    ("stale_answer_rate", "share"),
    ("coalesced_rate", "share"),
    ("wrong_answer_rate", "share"),
    ("origin_calls", "requests"),
    ("origin_calls_per_flight", "ratio"),
    ("origin_call_peak", "requests"),
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
    ("bad_release_rate", "share"),
    ("gateway_latency_mean", "ms"),
    ("gateway_latency_p50", "ms"),
    ("gateway_latency_p99", "ms"),
    ("gateway_p99_sum", "ms"),
    ("gateway_over_budget", "share"),
    ("gateway_left_out", "requests"),
    ("attacks_blocked", "share"),
    ("honest_blocked", "share"),
    ("kernel_hit_rate", "share"),
    ("leakage_rate", "share"),
    ("frontier_escalation_rate", "share"),
    ("replicas_mean", "replicas"),
    ("replicas_peak", "replicas"),
    ("replica_hours", "h"),
    ("replica_orders", "orders"),
    ("time_to_capacity", "ms"),
    ("short_of_capacity", "share"),
    ("signal_correlation", "ratio"),
    ("gateway_queue_peak", "requests"),
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
mod tests {
    use super::*;

    fn parse(text: &str) -> Threshold {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn value(text: &str) -> f64 {
        match parse(text).limit {
            Limit::Value(value) => value,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn figures_of_one_run_are_compared_with_each_other() {
        let t = parse(
            "p99(ttft{class=chat, phase=during}) <= 1.05 * p99(ttft{class=chat,phase=before})",
        );
        assert_eq!(t.operand.phase.as_deref(), Some("during"));
        let Limit::Times(factor, other) = t.limit else {
            panic!("{t:?}");
        };
        assert_eq!((factor, other.phase.as_deref()), (1.05, Some("before")));
        assert_eq!(other.class.as_deref(), Some("chat"));
        let t = parse("goodput{phase=after} >= goodput{phase=before}");
        assert!(matches!(t.limit, Limit::Times(1.0, _)));
        for (text, at, says) in [
            ("goodput{phase=later} >= 1", "later", "before"),
            ("goodput >= 0.9 * ttft_p99", " ttft_p99", "share"),
            ("goodput >= x * goodput", "x", "factor"),
            ("goodput >= 2 * goodput 3", "3", "follow"),
        ] {
            let e = text.parse::<Threshold>().unwrap_err();
            assert_eq!(&text[e.span.clone()], at, "{text}: {e:?}");
            let said = format!("{} {} {}", e.reason, e.help, e.note);
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn conditions_are_read_in_the_units_of_their_metrics() {
        let t = parse("p99(ttft) <= 200ms");
        assert_eq!(
            (t.operand.metric.as_str(), &t.operand.class),
            ("ttft", &None)
        );
        assert_eq!(t.operand.statistic, Some(Statistic::Quantile(0.99)));
        assert_eq!((t.comparison, t.operand.unit), (Comparison::AtMost, "ms"));
        assert_eq!(t.limit, Limit::Value(200.0));

        let t = parse(" mean( e2e{class = batch} )<2s ");
        assert_eq!(t.operand.statistic, Some(Statistic::Mean));
        assert_eq!(t.operand.class.as_deref(), Some("batch"));
        assert_eq!(
            (t.comparison, t.limit),
            (Comparison::Below, Limit::Value(2000.0))
        );

        assert_eq!(
            parse("p99(ttft){class=a-b.c} > 1us")
                .operand
                .class
                .as_deref(),
            Some("a-b.c")
        );
        assert_eq!(
            parse("p99.9(itl) < 1s").operand.statistic,
            Some(Statistic::Quantile(0.999))
        );
        assert_eq!(value("goodput{class=chat} >= 95%"), 0.95);
        assert_eq!(value("cost_per_verified_output <= $0.002"), 0.002);
        assert_eq!(value("energy_per_verified_output < 720J"), 0.2);
        assert_eq!(value("output_token_throughput > 5_000 tokens/s"), 5000.0);
        assert_eq!(value("ttft_p99 ≤ 0.2s"), 200.0);
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
            ("p99(ttft{class=x}){class=y} < 1s", "class=y", "twice"),
            ("", "", "missing"),
            ("goodput >=", "", "share"),
        ] {
            let (where_, what) = fail(text);
            assert_eq!(where_, at, "{text}: {what}");
            assert!(what.contains(says), "{text}: {what}");
        }
    }
}
