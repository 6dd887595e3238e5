//! `--set key.path=value`: the last layer. Values are typed by the format, so that quotes are
//! needed only where TOML itself would be ambiguous.

use crate::check::Finding;
use crate::check::shape::{Form, Shape};
use crate::diagnostic::{Code, Severity};
use crate::layers::merge;
use crate::source::{Origin, SourceId, SourceKind, Sources};
use crate::tree::{self, Entry, Node, Path, Step, Table, Value};

/// One override, as written: `fleet.replicas=8`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    text: String,
    origin: String,
}

impl Override {
    /// An override of the command line.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            // The engine is the fleet's, and there is no other.
            text: match text.strip_prefix("engine.") {
                Some(rest) => format!("fleet.engine.{rest}"),
                None => text,
            },
            origin: "--set".into(),
        }
    }

    /// An override that something else than `--set` asks for, such as another flag or an axis
    /// of a sweep; `origin` is its name in messages.
    pub fn from_flag(origin: impl Into<String>, key: &str, value: &str) -> Self {
        Self {
            text: format!("{key}={value}"),
            origin: origin.into(),
        }
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// An override taken apart.
struct Parsed {
    path: Path,
    /// Where each step is.
    places: Vec<Origin>,
    source: SourceId,
    /// What stands right of the `=`, and where that begins.
    value: String,
    value_offset: usize,
}

/// Lays all overrides over `root`. Those that choose a `kind` go first, so that their order on
/// the command line does not matter; otherwise the last of two wins.
pub(crate) fn apply(
    root: &mut Node,
    overrides: &[Override],
    sources: &mut Sources,
    findings: &mut Vec<Finding>,
) {
    let mut parsed = Vec::new();
    for over in overrides {
        let source = sources.add(&over.origin, &over.text, SourceKind::Override);
        match parse(&over.text, source) {
            Ok(one) => parsed.push(one),
            Err((message, at)) => findings.push(
                Finding::error(Code::BadOverride, at, String::new(), message)
                    .note("example: --set fleet.replicas=8"),
            ),
        }
    }
    let is_kind = |p: &Parsed| matches!(p.path.steps.last(), Some(Step::Key(k)) if k == "kind");
    let (kinds, rest): (Vec<_>, Vec<_>) = parsed.into_iter().partition(is_kind);
    for one in kinds.iter().chain(&rest) {
        if let Err(finding) = one.apply(root, findings) {
            findings.push(*finding);
        }
    }
}

fn parse(text: &str, source: SourceId) -> Result<Parsed, (String, Origin)> {
    let whole = Origin::new(source, 0..text.len());
    let split = split_at_equals(text)
        .ok_or_else(|| ("an override is written `key.path=value`".to_owned(), whole))?;
    let left = &text[..split];
    let key_error = || {
        let at = Origin::new(source, 0..split.max(1));
        (format!("`{}` is no path of keys", left.trim()), at)
    };
    // Dotted keys are TOML's, quotes included.
    let (document, errors) = tree::parse(source, &format!("{left}=0"));
    if !errors.is_empty() || left.contains(['\n', '#']) {
        return Err(key_error());
    }
    let (mut path, mut places) = (Path::default(), Vec::new());
    let mut node = &document;
    while let Value::Table(table) = &node.value {
        let [entry] = table.entries() else {
            return Err(key_error());
        };
        path.push_key(&entry.key);
        places.push(entry.key_at);
        node = &entry.node;
    }
    let right = &text[split + 1..];
    let value_offset = split + 1 + (right.len() - right.trim_start().len());
    Ok(Parsed {
        path,
        places,
        source,
        value: right.trim().to_owned(),
        value_offset,
    })
}

/// The first `=` outside quotes.
fn split_at_equals(text: &str) -> Option<usize> {
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (None, '=') => return Some(i),
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if c == q => quote = None,
            _ => {}
        }
    }
    None
}

impl Parsed {
    fn apply(&self, root: &mut Node, findings: &mut Vec<Finding>) -> Result<(), Box<Finding>> {
        self.descend(root, (Some(Shape::root()), 0), findings)
    }

    /// Takes step `i`, making the tables that are not there.
    fn descend(
        &self,
        node: &mut Node,
        (shape, i): (Option<Shape>, usize),
        findings: &mut Vec<Finding>,
    ) -> Result<(), Box<Finding>> {
        let Some(step @ Step::Key(key)) = self.path.steps.get(i) else {
            let value = self.typed(shape);
            match shape {
                Some(shape) => merge(node, value, shape),
                None => *node = value,
            }
            return Ok(());
        };
        let at = self.places[i];
        let items = match shape.map(Shape::form) {
            Some(Form::List(items)) => Some(items),
            _ => None,
        };
        if items.is_some() || matches!(node.value, Value::Array(_)) {
            let element = self.element(node, key, i, at)?;
            return self.descend(element, (items, i + 1), findings);
        }
        if !matches!(node.value, Value::Table(_)) {
            // What is here is replaced: the check of the tree says whether a table may be.
            *node = Node {
                value: Value::Table(Table::default()),
                at,
            };
        }
        let child = shape.and_then(|s| s.step(step, node.as_table()));
        if i + 1 == self.path.steps.len() {
            let kept = |node: &Node| node.as_table().map_or(0, |t| t.entries().len());
            let before = node.clone();
            self.set_key(node, shape, child, key, at);
            if key == "kind" && shape.is_some_and(Shape::is_engine) && kept(node) < kept(&before) {
                findings.extend(self.forgotten(&before, at));
            }
            return Ok(());
        }
        let Some(table) = node.as_table_mut() else {
            return Ok(());
        };
        if table.get(key).is_none() {
            table.set(Entry {
                key: key.clone(),
                key_at: at,
                node: Node::empty_table(),
            });
        }
        match table.get_mut(key) {
            Some(next) => self.descend(next, (child, i + 1), findings),
            None => Ok(()),
        }
    }

    /// What was said of an engine that is of another kind now, and holds no more.
    fn forgotten(&self, before: &Node, at: Origin) -> Option<Finding> {
        let entries = before.as_table()?.entries().iter();
        let keys = entries.filter(|e| e.key != "kind");
        let keys: Vec<String> = keys.map(|e| format!("`{}`", e.key)).collect();
        let mut above = self.path.clone();
        above.steps.pop();
        let message = format!(
            "`{above}` is an engine of another kind now: {} no longer count",
            keys.join(", ")
        );
        let mut finding = Finding::error(Code::Pointless, at, self.path.to_string(), message)
            .label("keys belong to their kind")
            .note("set what the new kind is to have, each by a `--set` of its own");
        finding.severity = Severity::Warning;
        Some(finding).filter(|_| !keys.is_empty())
    }

    /// Sets the last key by merging a table of that key alone, so that the rule of `kind` holds
    /// for overrides too.
    fn set_key(
        &self,
        node: &mut Node,
        shape: Option<Shape>,
        child: Option<Shape>,
        key: &str,
        at: Origin,
    ) {
        let mut table = Table::default();
        table.set(Entry {
            key: key.to_owned(),
            key_at: at,
            node: self.typed(child),
        });
        let layer = Node {
            value: Value::Table(table),
            at: Origin::default(),
        };
        match shape {
            Some(shape) => merge(node, layer, shape),
            None => {
                if let (Some(table), Value::Table(new)) = (node.as_table_mut(), layer.value) {
                    new.entries().iter().for_each(|e| table.set(e.clone()));
                }
            }
        }
    }

    /// The element of an array that a step names. An absent array has no elements.
    fn element<'n>(
        &self,
        node: &'n mut Node,
        key: &str,
        i: usize,
        at: Origin,
    ) -> Result<&'n mut Node, Box<Finding>> {
        let mut path = Path::default();
        path.steps.extend_from_slice(&self.path.steps[..i]);
        let items = match &mut node.value {
            Value::Array(items) => items.as_mut_slice(),
            _ => &mut [],
        };
        let count = items.len();
        let found = key.parse::<usize>().ok().and_then(|n| items.get_mut(n));
        found.ok_or_else(|| {
            let message = format!("`{path}` has no element `{key}`");
            let label = match count {
                0 => "it is empty; set it as a whole, like `=[{…}]`".to_owned(),
                1 => "it has one element: 0".to_owned(),
                n => format!("it has elements 0 to {}", n - 1),
            };
            let full = self.path.to_string();
            Box::new(Finding::error(Code::BadOverride, at, full, message).label(label))
        })
    }

    /// The value, read as what the format wants at this place.
    fn typed(&self, shape: Option<Shape>) -> Node {
        let at = Origin::new(
            self.source,
            self.value_offset..self.value_offset + self.value.len(),
        );
        let text = || Node {
            value: Value::Text(self.value.clone()),
            at,
        };
        let toml = || tree::parse_value(self.source, &self.value, self.value_offset);
        let quoted = self.value.starts_with(['"', '\'']);
        match shape.map(Shape::form) {
            Some(Form::Words(_) | Form::Text(_)) if !quoted => text(),
            _ => toml().unwrap_or_else(text),
        }
    }
}
