//! Scenarios as text: complete, with origins, and what differs between two.

use crate::expand::expand;
use crate::load::Loaded;
use crate::schema::Scenario;
use crate::schema::policies::RoutingSpec;
use crate::source::{SourceKind, Sources};
use crate::tree::{self, Node, Path, Table, Value, quoted_key};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A scenario as complete TOML for people: what it was read from in front, the general policy
/// behind a preset beside it and, with `origins`, behind every value the place where it was
/// written (`default` if nowhere).
pub fn show(loaded: &Loaded, origins: bool) -> String {
    let mut out = String::new();
    for source in loaded.sources.iter() {
        // Writing to a string cannot fail.
        let _ = match source.kind {
            SourceKind::File => writeln!(out, "# {}", source.name),
            SourceKind::Override => writeln!(out, "# {} {}", source.name, source.text),
        };
    }
    let _ = writeln!(out, "# content hash {}", loaded.content_hash);
    let comment = |path: &Path| {
        let place = loaded.origins.get(&path.to_string());
        origins.then(|| place.map_or_else(|| "default".to_owned(), place_of))
    };
    let mut print = Printer {
        out: &mut out,
        comment: &comment,
        section: &|path| section_comment(loaded, path),
    };
    print.document(&tree_of(&loaded.scenario));
    out
}

fn place_of(place: &crate::source::Place) -> String {
    match place.kind {
        SourceKind::File => format!("{}:{}", place.source, place.line),
        SourceKind::Override => place.source.clone(),
    }
}

/// What to say below the header of a table: what a preset of the routing policy stands for.
fn section_comment(loaded: &Loaded, path: &Path) -> Option<String> {
    if path.to_string() != "gateway.routing" {
        return None;
    }
    let spec = &loaded.scenario.gateway.routing;
    let (general, period) = expand(spec);
    if general == *spec {
        return None;
    }
    let mut text = format!("# stands for {}", inline(&tree_of_routing(&general)));
    if let Some(period) = period {
        text += &format!("\n# the real one reads statistics every {period}");
    }
    Some(text)
}

fn tree_of_routing(spec: &RoutingSpec) -> Node {
    // A policy can be said in TOML wherever a scenario can.
    let text = toml::to_string(spec).unwrap_or_default();
    let id = Sources::default().add("", &text, SourceKind::File);
    tree::parse(id, &text).0
}

/// What differs between two scenarios, key by key: `-` as in `a`, `+` as in `b`. Empty if they
/// agree in all but name and purpose.
pub fn diff(a: &Loaded, b: &Loaded) -> String {
    let (left, right) = (leaves(&a.scenario), leaves(&b.scenario));
    let mut out = String::new();
    let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for key in keys {
        let (old, new) = (left.get(key), right.get(key));
        if old == new {
            continue;
        }
        for (sign, value) in [('-', old), ('+', new)] {
            if let Some(value) = value {
                let _ = writeln!(out, "{sign} {key} = {value}");
            }
        }
    }
    out
}

/// Every value by its key, name and purpose left out.
fn leaves(scenario: &Scenario) -> BTreeMap<Path, String> {
    let tree = tree_of(scenario);
    let mut found = BTreeMap::new();
    tree.leaves(&mut Path::default(), &mut |path, node| {
        let about = ["name", "purpose"].iter().any(|k| *path == Path::of(k));
        if !about {
            found.insert(path.clone(), inline(node));
        }
    });
    found
}

/// A scenario as canonical TOML with every default written out.
pub(crate) fn resolved(scenario: &Scenario) -> String {
    let mut out = String::new();
    let mut print = Printer {
        out: &mut out,
        comment: &|_| None,
        section: &|_| None,
    };
    print.document(&tree_of(scenario));
    out
}

/// A scenario as a tree whose keys are in the order of the format.
pub(crate) fn tree_of(scenario: &Scenario) -> Node {
    // Every value of a checked scenario can be said in TOML, and what was printed can be read.
    let text = toml::to_string(scenario).unwrap_or_default();
    let id = Sources::default().add("", &text, SourceKind::File);
    let (mut tree, errors) = tree::parse(id, &text);
    debug_assert!(
        errors.is_empty(),
        "a printed scenario does not parse: {errors:?}"
    );
    if let Some(table) = tree.as_table_mut() {
        table.remove("extends");
    }
    tree
}

/// Writes trees as TOML.
pub(crate) struct Printer<'a> {
    pub(crate) out: &'a mut String,
    /// What to say behind the value of a key.
    pub(crate) comment: &'a dyn Fn(&Path) -> Option<String>,
    /// What to say below the header of a table.
    pub(crate) section: &'a dyn Fn(&Path) -> Option<String>,
}

impl Printer<'_> {
    pub(crate) fn document(&mut self, root: &Node) {
        if let Some(table) = root.as_table() {
            self.table(table, &mut Path::default(), &mut String::new());
        }
    }

    /// Plain values first, then sub-tables: TOML reads what follows a header as part of it.
    /// `header` is the path without places in arrays, as headers are written.
    fn table(&mut self, table: &Table, path: &mut Path, header: &mut String) {
        for entry in table.entries().iter().filter(|e| !is_section(&e.node)) {
            path.push_key(&entry.key);
            let comment = (self.comment)(path).map_or_else(String::new, |c| format!("  # {c}"));
            let value = inline(&entry.node);
            // Writing to a string cannot fail.
            let _ = writeln!(self.out, "{} = {value}{comment}", quoted_key(&entry.key));
            path.pop();
        }
        for entry in table.entries().iter().filter(|e| is_section(&e.node)) {
            path.push_key(&entry.key);
            let before = header.len();
            if before > 0 {
                header.push('.');
            }
            header.push_str(&quoted_key(&entry.key));
            match &entry.node.value {
                Value::Table(inner) => {
                    if inner.entries().iter().any(|e| !is_section(&e.node))
                        || inner.entries().is_empty()
                    {
                        let _ = writeln!(self.out, "\n[{header}]");
                    }
                    if let Some(text) = (self.section)(path) {
                        let _ = writeln!(self.out, "{text}");
                    }
                    self.table(inner, path, header);
                }
                Value::Array(items) => {
                    for (i, item) in items.iter().enumerate() {
                        path.push_index(i);
                        let _ = writeln!(self.out, "\n[[{header}]]");
                        if let Some(inner) = item.as_table() {
                            self.table(inner, path, header);
                        }
                        path.pop();
                    }
                }
                _ => {}
            }
            header.truncate(before);
            path.pop();
        }
    }
}

/// Whether a value has a header of its own.
fn is_section(node: &Node) -> bool {
    match &node.value {
        Value::Table(_) => true,
        Value::Array(items) => {
            !items.is_empty() && items.iter().all(|n| matches!(n.value, Value::Table(_)))
        }
        _ => false,
    }
}

/// A value on one line.
pub(crate) fn inline(node: &Node) -> String {
    match &node.value {
        Value::Table(table) => {
            let parts: Vec<_> = table
                .entries()
                .iter()
                .map(|e| format!("{} = {}", quoted_key(&e.key), inline(&e.node)))
                .collect();
            format!("{{ {} }}", parts.join(", "))
        }
        Value::Array(items) => {
            let parts: Vec<_> = items.iter().map(inline).collect();
            format!("[{}]", parts.join(", "))
        }
        // TOML's own printer knows which characters must be escaped.
        Value::Text(text) => toml::Value::String(text.clone()).to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Float(x) => toml::Value::Float(*x).to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Date(date) => date.clone(),
    }
}
