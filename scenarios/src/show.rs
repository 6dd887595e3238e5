//! Scenarios as text: complete, with origins, and what differs between two.

use crate::schema::Scenario;
use crate::source::{SourceKind, Sources};
use crate::tree::{self, Node, Path, Table, Value, quoted_key};
use std::fmt::Write as _;

/// A scenario as canonical TOML with every default written out.
pub(crate) fn resolved(scenario: &Scenario) -> String {
    let mut out = String::new();
    let mut print = Printer {
        out: &mut out,
        comment: &|_| None,
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
