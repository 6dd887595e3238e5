//! The merged tree against the JSON schema: unknown keys, wrong types, unknown words, missing
//! keys, quantities. In a tagged table everything is judged by the `kind` that was chosen.

use super::Finding;
use super::shape::{Form, Shape, Variant, places_of_key, quantity_example};
use super::suggest::{did_you_mean, known, nearest};
use crate::diagnostic::Code;
use crate::source::Origin;
use crate::tree::{Entry, Node, Path, Table, Value};
use windtunnel_base::quantity::check_format;

/// Fills in the `kind` of tagged tables that do not say theirs where the field has a default one.
pub(crate) fn fill_kinds(node: &mut Node, shape: Shape) {
    match (&mut node.value, shape.form()) {
        (Value::Table(table), Form::Tagged(variants)) => {
            if table.get("kind").is_none()
                && let Some(kind) = shape.kind_of(None)
            {
                let node = Node {
                    value: Value::Text(kind),
                    at: Origin::default(),
                };
                table.set(Entry {
                    key: "kind".to_owned(),
                    key_at: Origin::default(),
                    node,
                });
            }
            let chosen = table.kind().map(str::to_owned);
            if let Some(v) = variants.iter().find(|v| Some(v.kind) == chosen.as_deref()) {
                fill_record(table, v.shape);
            }
        }
        (Value::Table(table), Form::Record) => fill_record(table, shape),
        (Value::Table(table), Form::Map(values)) => {
            for entry in table.entries_mut() {
                fill_kinds(&mut entry.node, values);
            }
        }
        (Value::Array(items), Form::List(shape)) => {
            items.iter_mut().for_each(|item| fill_kinds(item, shape));
        }
        _ => {}
    }
}

fn fill_record(table: &mut Table, shape: Shape) {
    for entry in table.entries_mut() {
        if let Some(child) = shape.key(&entry.key) {
            fill_kinds(&mut entry.node, child);
        }
    }
}

/// Everything in `root` that the format does not allow.
pub(crate) fn check(root: &Node) -> Vec<Finding> {
    let mut check = Check::default();
    check.node(root, Shape::root(), root.at);
    check.findings
}

#[derive(Default)]
struct Check {
    path: Path,
    findings: Vec<Finding>,
}

impl Check {
    /// `at` is where to point for a table that has no place of its own: its key.
    fn node(&mut self, node: &Node, shape: Shape, at: Origin) {
        let here = if node.at.is_default() { at } else { node.at };
        match (&node.value, shape.form()) {
            (Value::Table(table), Form::Tagged(variants)) => {
                self.tagged(table, shape, &variants, at);
            }
            (Value::Table(table), Form::Record) => self.record(table, shape, None, at),
            (Value::Table(table), Form::Map(values)) => {
                for entry in table.entries() {
                    self.path.push_key(&entry.key);
                    self.node(&entry.node, values, entry.key_at);
                    self.path.pop();
                }
            }
            (Value::Array(items), Form::List(shape)) => {
                for (i, item) in items.iter().enumerate() {
                    self.path.push_index(i);
                    self.node(item, shape, item.at);
                    self.path.pop();
                }
            }
            (Value::Text(text), Form::Words(words)) => {
                if !words.contains(&text.as_str()) {
                    self.unknown_word(text, &words, here);
                }
            }
            (Value::Text(text), Form::NumberOr(words)) if words.contains(&text.as_str()) => {}
            (Value::Text(text), Form::Text(format)) => self.quantity(text, format, here),
            (Value::Integer(n), Form::Integer(least, most)) => {
                self.integer(*n, least, most, here);
            }
            (Value::Integer(_), Form::Number | Form::NumberOr(_))
            | (Value::Bool(_), Form::Bool) => {}
            (Value::Float(x), Form::Number | Form::NumberOr(_)) => {
                if !x.is_finite() {
                    let message = format!("`{}` must be a finite number", self.path);
                    self.push(Code::OutOfRange, here, message);
                }
            }
            (value, form) => self.wrong_type(value, &form, shape, here),
        }
    }

    fn push(&mut self, code: Code, at: Origin, message: String) {
        let finding = Finding::error(code, at, self.path.to_string(), message);
        self.findings.push(finding);
    }

    fn tagged(&mut self, table: &Table, shape: Shape, variants: &[Variant], at: Origin) {
        let noun = noun(shape);
        let kinds: Vec<_> = variants.iter().map(|v| v.kind).collect();
        let Some(kind) = table.get("kind") else {
            let message = format!("`{}` does not say its `kind`", self.path);
            let path = self.path.key("kind").to_string();
            // A key that only one kind has tells what was meant.
            let hint = variants.iter().find(|v| {
                let has = |e: &Entry| v.shape.key(&e.key).is_some();
                !table.entries().is_empty() && table.entries().iter().all(has)
            });
            let label = hint.map_or_else(String::new, |v| {
                format!("add `kind = \"{}\"`, or another", v.kind)
            });
            let finding = Finding::error(Code::MissingKey, at, path, message);
            self.findings.push(finding.label(label).note(known(kinds)));
            return;
        };
        let Some(word) = kind.as_text() else {
            self.path.push_key("kind");
            self.wrong_type(&kind.value, &Form::Words(kinds), shape, kind.at);
            self.path.pop();
            return;
        };
        match variants.iter().find(|v| v.kind == word) {
            Some(variant) => self.record(table, variant.shape, Some((variant, variants)), at),
            None => {
                let path = self.path.key("kind").to_string();
                let message = format!("unknown {noun}");
                let finding = Finding::error(Code::UnknownKind, kind.at, path, message)
                    .label(did_you_mean(word, kinds.iter().copied()))
                    .note(known(kinds));
                self.findings.push(finding);
            }
        }
    }

    fn record(
        &mut self,
        table: &Table,
        shape: Shape,
        tagged: Option<(&Variant, &[Variant])>,
        at: Origin,
    ) {
        for entry in table.entries() {
            match shape.key(&entry.key) {
                Some(child) => {
                    self.path.push_key(&entry.key);
                    self.node(&entry.node, child, entry.key_at);
                    self.path.pop();
                }
                None => self.unknown_key(entry, shape, tagged),
            }
        }
        for key in shape.required() {
            if table.get(key).is_some() {
                continue;
            }
            let of = match tagged {
                Some((variant, _)) => format!(" of kind `{}`", variant.kind),
                None => String::new(),
            };
            let path = self.path.key(key).to_string();
            let message = format!("`{}`{of} needs `{key}`", self.path);
            let mut finding = Finding::error(Code::MissingKey, at, path, message);
            if let Some(child) = shape.key(key) {
                let about = child.about().unwrap_or("missing");
                finding = finding
                    .label(first_sentence(about))
                    .note(format!("example: {}", child.example(key)));
            }
            self.findings.push(finding);
        }
    }

    fn unknown_key(&mut self, entry: &Entry, shape: Shape, tagged: Option<(&Variant, &[Variant])>) {
        let key = entry.key.as_str();
        let path = self.path.key(key).to_string();
        let place = match (self.path.steps.is_empty(), tagged) {
            (true, _) => "at the top level".to_owned(),
            (_, Some((variant, _))) => format!("in `{}` of kind `{}`", self.path, variant.kind),
            _ => format!("in `{}`", self.path),
        };
        let message = format!("unknown key `{key}` {place}");
        let keys: Vec<_> = shape.keys().map(|(k, _)| k).collect();
        let mut finding = Finding::error(Code::UnknownKey, entry.key_at, path, message)
            .label(did_you_mean(key, keys.iter().copied()));
        // A key of another kind is a change of mind, not a slip of the pen.
        let others: Vec<_> = tagged
            .into_iter()
            .flat_map(|(_, variants)| variants)
            .filter(|v| v.shape.key(key).is_some())
            .map(|v| format!("`{}`", v.kind))
            .collect();
        if !others.is_empty() {
            finding = finding.label(format!("belongs to kind {}", others.join(", ")));
        } else if nearest(key, keys.iter().copied()).is_none()
            && let Some(places) = nearest_places(key, &self.path.to_string())
        {
            finding = finding.label(places);
        }
        let keys: Vec<_> = keys.into_iter().filter(|k| *k != "kind").collect();
        if keys.is_empty() {
            finding = finding.note("this kind takes no other keys");
        } else {
            finding = finding.note(known(keys));
        }
        self.findings.push(finding);
    }

    fn unknown_word(&mut self, text: &str, words: &[&'static str], at: Origin) {
        let message = format!("`{}` is not one of the known values", self.path);
        let finding = Finding::error(Code::UnknownValue, at, self.path.to_string(), message)
            .label(did_you_mean(text, words.iter().copied()))
            .note(known(words.iter().copied()));
        self.findings.push(finding);
    }

    fn quantity(&mut self, text: &str, format: Option<&'static str>, at: Origin) {
        let Some(format) = format else { return };
        let checked = match format {
            "wt-auto-or-duration" if text == "auto" => Ok(()),
            "wt-auto-or-duration" => check_format("wt-duration", text),
            _ => check_format(format, text),
        };
        if let Err(error) = checked {
            let message = format!("`{}`: {error}", self.path);
            let mut finding = Finding::error(Code::BadQuantity, at, self.path.to_string(), message);
            if let Some(better) = usual_unit(format, text) {
                finding = finding.label(format!("did you mean \"{better}\"?"));
            } else if format == "wt-auto-or-duration" {
                finding = finding.label("write `auto` or a time such as \"60s\"");
            }
            self.findings.push(finding);
        }
    }

    fn integer(&mut self, n: i128, least: i128, most: i128, at: Origin) {
        if n < least {
            let message = format!("`{}` must be {least} or more", self.path);
            self.push(Code::OutOfRange, at, message);
        } else if n > most {
            let message = format!("`{}` must be at most {most}", self.path);
            self.push(Code::OutOfRange, at, message);
        }
    }

    fn wrong_type(&mut self, value: &Value, form: &Form, shape: Shape, at: Origin) {
        let wanted = match form {
            Form::Tagged(_) => "a table with a `kind`",
            Form::Record | Form::Map(_) => "a table",
            Form::List(_) => "an array",
            Form::Words(_) => "one of the known words",
            Form::Text(Some(_)) => "a string with number and unit",
            Form::Text(None) => "a string",
            Form::Integer(..) => "a whole number",
            Form::Number | Form::NumberOr(_) => "a number",
            Form::Bool => "true or false",
        };
        let message = format!(
            "`{}` must be {wanted}, not {}",
            self.path,
            value.type_name()
        );
        let mut finding = Finding::error(Code::WrongType, at, self.path.to_string(), message);
        finding = match (form, value) {
            (Form::Text(Some(format)), Value::Integer(_) | Value::Float(_)) => {
                finding.label(format!(
                    "write number and unit in one string, like \"{}\"",
                    quantity_example(format)
                ))
            }
            (Form::Integer(..) | Form::Number, Value::Text(text))
                if text.parse::<f64>().is_ok() =>
            {
                finding.label("leave the quotes out")
            }
            (Form::Bool, Value::Text(text)) if matches!(text.as_str(), "true" | "false") => {
                finding.label("leave the quotes out")
            }
            (Form::Tagged(_), Value::Text(kind)) => {
                let tags = shape.tags();
                let key = self.last_key();
                if tags.contains(&kind.as_str()) {
                    finding.label(format!("write {key} = {{ kind = {kind:?} }}"))
                } else {
                    finding.note(format!("example: {}", shape.example(&key)))
                }
            }
            (Form::Tagged(_) | Form::Record | Form::Map(_) | Form::List(_), _) => {
                finding.note(format!("example: {}", shape.example(&self.last_key())))
            }
            (Form::Words(words), _) => finding.note(known(words.iter().copied())),
            (Form::NumberOr(words), _) => finding.note(format!("or {}", words.join(", "))),
            _ => finding,
        };
        self.findings.push(finding);
    }

    fn last_key(&self) -> String {
        let last = self.path.steps.iter().rev().find_map(|step| match step {
            crate::tree::Step::Key(key) => Some(key.clone()),
            crate::tree::Step::Index(_) => None,
        });
        last.unwrap_or_default()
    }
}

/// What a tagged table chooses, in words.
fn noun(shape: Shape) -> &'static str {
    match shape.type_name() {
        Some("RoutingSpec") => "routing policy",
        Some("AdmissionSpec") => "admission policy",
        Some("ArrivalSpec") => "arrival process",
        Some("LengthSpec") => "distribution of lengths",
        Some("TimeSpec") => "distribution of times",
        Some("EngineSpec") => "kind of engine",
        Some("CostSpec") => "cost model",
        Some("EnergySpec") => "energy model",
        Some("FilterSpec") => "filter",
        _ => "kind",
    }
}

/// Where else a key stands: those places first that share most of their path with `at`, at most three.
fn nearest_places(key: &str, at: &str) -> Option<String> {
    const SHOWN: usize = 3;
    let mut places = places_of_key(key);
    let shared = |place: &str| {
        let steps = place.split('.').zip(at.split('.'));
        steps.take_while(|(a, b)| a == b).count()
    };
    places.sort_by_key(|p| (std::cmp::Reverse(shared(p)), p.split('.').count()));
    let more = places.len().saturating_sub(SHOWN);
    let shown: Vec<_> = places
        .iter()
        .take(SHOWN)
        .map(|p| format!("`{p}`"))
        .collect();
    let shown = Some(shown.join(", ")).filter(|s| !s.is_empty())?;
    Some(match more {
        0 => format!("there is {shown}"),
        _ => format!("there is {shown} and {more} more places"),
    })
}

/// Units as people write them elsewhere, and ours.
const UNITS: &[(&str, &str)] = &[
    ("rps", "req/s"),
    ("qps", "req/s"),
    ("requests/s", "req/s"),
    ("rpm", "req/min"),
    ("msec", "ms"),
    ("sec", "s"),
    ("secs", "s"),
    ("seconds", "s"),
    ("mins", "min"),
    ("minutes", "min"),
    ("hours", "h"),
    ("days", "d"),
    ("Gb", "GB"),
    ("gb", "GB"),
    ("G", "GiB"),
    ("Gi", "GiB"),
    ("GBps", "GB/s"),
    ("TFLOP/s", "TFLOPS"),
];

/// The same quantity with the unit that was meant, if it is one of the usual slips.
fn usual_unit(format: &str, text: &str) -> Option<String> {
    let format = match format {
        "wt-auto-or-duration" => "wt-duration",
        other => other,
    };
    let money = format!("${text}");
    let with_unit = UNITS.iter().filter_map(|(slip, unit)| {
        let number = text.strip_suffix(slip)?;
        Some(format!("{number}{unit}"))
    });
    with_unit
        .chain([money.clone(), format!("{money}/h")])
        .find(|better| check_format(format, better).is_ok())
}

fn first_sentence(text: &str) -> String {
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}
