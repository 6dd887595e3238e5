//! A TOML document as a tree whose every key and value remembers where it was written.

use crate::source::{Origin, SourceId};
use std::fmt;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A value and where it was written.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Origin,
}

/// A TOML value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Table(Table),
    Array(Vec<Node>),
    Text(String),
    /// Wide enough to say "too large" of any number that a 64-bit field cannot hold.
    Integer(i128),
    Float(f64),
    Bool(bool),
    /// Dates and times, which no field takes.
    Date(String),
}

impl Value {
    /// What it is, with an article.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::Array(_) => "an array",
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Date(_) => "a date",
        }
    }
}

/// Keys in the order they were written.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Table {
    entries: Vec<Entry>,
}

/// One key with its value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Origin,
    pub(crate) node: Node,
}

impl Table {
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.node)
    }

    pub(crate) fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.key == key)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entry_mut(key).map(|e| &mut e.node)
    }

    /// Sets a key, in its place if it is there, else at the end.
    pub(crate) fn set(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|e| e.key == entry.key) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        let at = self.entries.iter().position(|e| e.key == key)?;
        Some(self.entries.remove(at))
    }

    pub(crate) fn retain(&mut self, keep: impl FnMut(&Entry) -> bool) {
        self.entries.retain(keep);
    }

    /// The text of key `kind`, by which tagged tables say which policy they are.
    pub(crate) fn kind(&self) -> Option<&str> {
        match self.get("kind")?.value {
            Value::Text(ref kind) => Some(kind),
            _ => None,
        }
    }
}

impl Node {
    /// An empty table that nobody wrote.
    pub(crate) fn empty_table() -> Self {
        Self {
            value: Value::Table(Table::default()),
            at: Origin::default(),
        }
    }

    pub(crate) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn as_table_mut(&mut self) -> Option<&mut Table> {
        match &mut self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Where a path leads, or where the deepest part of it that was written is: the value's own
    /// place, or for a table its key.
    pub(crate) fn origin_of(&self, path: &Path) -> Origin {
        let (mut node, mut at) = (self, self.at);
        for step in &path.steps {
            let found = match (&node.value, step) {
                (Value::Table(table), Step::Key(key)) => {
                    table.entry(key).map(|e| (&e.node, e.key_at))
                }
                (Value::Array(items), Step::Index(i)) => items.get(*i).map(|n| (n, n.at)),
                _ => None,
            };
            let Some((next, key_at)) = found else { break };
            node = next;
            // Tables made by merging or by dotted keys have no place of their own.
            let is_leaf = !matches!(next.value, Value::Table(_)) && !next.at.is_default();
            let here = if is_leaf { next.at } else { key_at };
            if !here.is_default() {
                at = here;
            }
        }
        at
    }

    /// As JSON, for reading into types. Floats that JSON cannot hold become null; the check of
    /// the tree refuses them before.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Table(table) => Json::Object(
                table
                    .entries
                    .iter()
                    .map(|e| (e.key.clone(), e.node.to_json()))
                    .collect(),
            ),
            Value::Array(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Text(text) | Value::Date(text) => Json::String(text.clone()),
            Value::Integer(n) => match (u64::try_from(*n), i64::try_from(*n)) {
                (Ok(n), _) => n.into(),
                (_, Ok(n)) => n.into(),
                _ => Json::Null,
            },
            Value::Float(x) => (*x).into(),
            Value::Bool(b) => Json::Bool(*b),
        }
    }

    /// Calls `visit` with the path of every value that is no table, and of every empty one.
    pub(crate) fn leaves<'a>(&'a self, path: &mut Path, visit: &mut dyn FnMut(&Path, &'a Self)) {
        match &self.value {
            Value::Table(table) if !table.entries.is_empty() => {
                for entry in &table.entries {
                    path.push_key(&entry.key);
                    entry.node.leaves(path, visit);
                    path.pop();
                }
            }
            Value::Array(items) if items.iter().any(|n| matches!(n.value, Value::Table(_))) => {
                for (i, item) in items.iter().enumerate() {
                    path.push_index(i);
                    item.leaves(path, visit);
                    path.pop();
                }
            }
            _ => visit(path, self),
        }
    }
}

/// One step of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// The way from the root to a value: `traffic.clients.0.share`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Path {
    pub(crate) steps: Vec<Step>,
}

impl Path {
    /// Reads `a.b.0.c`; steps of digits alone are places in arrays.
    pub(crate) fn of(dotted: &str) -> Self {
        let mut path = Self::default();
        for step in dotted.split('.').filter(|s| !s.is_empty()) {
            match step.parse() {
                Ok(i) => path.push_index(i),
                Err(_) => path.push_key(step),
            }
        }
        path
    }

    pub(crate) fn push_key(&mut self, key: &str) {
        self.steps.push(Step::Key(key.to_owned()));
    }

    pub(crate) fn push_index(&mut self, index: usize) {
        self.steps.push(Step::Index(index));
    }

    pub(crate) fn pop(&mut self) {
        self.steps.pop();
    }

    /// Itself and one key more.
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.push_key(key);
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            match step {
                Step::Key(key) => write!(f, "{dot}{}", quoted_key(key))?,
                Step::Index(index) => write!(f, "{dot}{index}")?,
            }
        }
        Ok(())
    }
}

/// A key as TOML writes it: quoted if it is not plain.
pub(crate) fn quoted_key(key: &str) -> String {
    let plain = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

/// A syntax error: what, and where.
pub(crate) type SyntaxError = (String, Origin);

/// Reads a document; what can be read is returned beside the errors.
pub(crate) fn parse(source: SourceId, text: &str) -> (Node, Vec<SyntaxError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let end = text.len().saturating_sub(1)..text.len();
    let errors = errors
        .iter()
        .map(|e| {
            let span = e.span().unwrap_or_else(|| end.clone());
            (e.message().to_owned(), Origin::new(source, span))
        })
        .collect();
    let at = Origin::new(source, 0..1);
    let value = Value::Table(convert_table(source, table.get_ref()));
    (Node { value, at }, errors)
}

/// Reads one value, as after an `=`, that begins `offset` bytes into the source.
pub(crate) fn parse_value(source: SourceId, text: &str, offset: usize) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    let mut node = convert(source, &value);
    shift(&mut node, source, offset, text.len());
    Some(node)
}

/// Overrides are one line: every part of a value points at the whole of it.
fn shift(node: &mut Node, source: SourceId, offset: usize, len: usize) {
    let at = Origin::new(source, offset..offset + len);
    node.at = at;
    match &mut node.value {
        Value::Table(table) => {
            for entry in &mut table.entries {
                entry.key_at = at;
                shift(&mut entry.node, source, offset, len);
            }
        }
        Value::Array(items) => {
            for item in items {
                shift(item, source, offset, len);
            }
        }
        _ => {}
    }
}

fn convert_table(source: SourceId, table: &DeTable<'_>) -> Table {
    let mut keyed: Vec<_> = table.iter().collect();
    keyed.sort_by_key(|(key, _)| key.span().start);
    let entries = keyed
        .into_iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_at: Origin::new(source, key.span()),
            node: convert(source, value),
        })
        .collect();
    Table { entries }
}

fn convert_array(source: SourceId, array: &DeArray<'_>) -> Vec<Node> {
    array.iter().map(|item| convert(source, item)).collect()
}

fn convert(source: SourceId, value: &Spanned<DeValue<'_>>) -> Node {
    let at = Origin::new(source, value.span());
    let value = match value.get_ref() {
        DeValue::Table(table) => Value::Table(convert_table(source, table)),
        DeValue::Array(array) => Value::Array(convert_array(source, array)),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => Value::Integer(
            i128::from_str_radix(n.as_str(), n.radix())
                // Longer than 38 digits: no field is that wide.
                .unwrap_or(i128::MAX),
        ),
        DeValue::Float(x) => Value::Float(x.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
    };
    Node { value, at }
}
