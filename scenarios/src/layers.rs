//! Layers of a scenario: what it extends, itself, a policy file, overrides. They are merged as
//! trees: tables key by key, everything else is replaced.

use crate::check::Finding;
use crate::check::shape::Shape;
use crate::check::suggest::{did_you_mean, known};
use crate::diagnostic::Code;
use crate::library;
use crate::load::Source;
use crate::source::{Origin, SourceKind, Sources};
use crate::tree::{self, Entry, Node, Step, Value};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A layer that was read: its tree, and where relative paths in it start.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) tree: Node,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) name: String,
}

/// Reads `source` and all that it extends; the result is one merged tree, or none if that makes no
/// sense because something could not be read.
pub(crate) fn read_chain(
    source: &Source,
    working_dir: &Path,
    sources: &mut Sources,
    findings: &mut Vec<Finding>,
) -> Option<Layer> {
    let mut chain = vec![read(
        source,
        working_dir,
        (working_dir, None),
        sources,
        findings,
    )?];
    let mut seen = vec![identity(source, working_dir)];
    loop {
        let (last, source) = chain.last()?;
        let Some((next, at)) = extends(&last.tree, source) else {
            break;
        };
        // A relative path starts at the file that says it.
        let dir = last.dir.clone().unwrap_or_else(|| working_dir.to_owned());
        let id = identity(&next, &dir);
        if seen.contains(&id) {
            let message = format!("`extends` leads back to {id}");
            let circle = seen.join(" -> ");
            findings.push(
                Finding::error(Code::Cycle, at, "extends".into(), message)
                    .note(format!("{circle} -> {id}")),
            );
            return None;
        }
        seen.push(id);
        chain.push(read(
            &next,
            &dir,
            (working_dir, Some(at)),
            sources,
            findings,
        )?);
    }
    let dir = chain[0].0.dir.clone();
    let name = chain[0].0.name.clone();
    let mut layers = chain.into_iter().rev();
    let (mut merged, _) = layers.next()?;
    for (layer, _) in layers {
        // What a scenario is called and is for is its own.
        if let Some(table) = merged.tree.as_table_mut() {
            table.retain(|e| !matches!(e.key.as_str(), "name" | "purpose"));
        }
        merge(&mut merged.tree, layer.tree, Shape::root());
    }
    if let Some(table) = merged.tree.as_table_mut() {
        table.remove("extends");
    }
    Some(Layer {
        tree: merged.tree,
        dir,
        name,
    })
}

/// Reads a policy file: a path, or a name of the library's policies.
pub(crate) fn read_policy(
    source: &Source,
    working_dir: &Path,
    sources: &mut Sources,
    findings: &mut Vec<Finding>,
) -> Option<Node> {
    let source = match source {
        Source::Library(name) => match library::find_policy(name) {
            Some(entry) => Source::Text {
                name: format!("library:policies/{name}"),
                text: entry.text.to_owned(),
                dir: None,
            },
            None => {
                let names = library::policies().iter().map(|e| e.name);
                let message = format!("there is no policy `{name}` in the library");
                let at = Origin::default();
                let finding = Finding::error(Code::Unreadable, at, String::new(), message)
                    .label(did_you_mean(name, names.clone()))
                    .note(known(names))
                    .note("a path contains `/` or ends in `.toml`");
                findings.push(finding);
                return None;
            }
        },
        other => other.clone(),
    };
    let (layer, _) = read(&source, working_dir, (working_dir, None), sources, findings)?;
    Some(layer.tree)
}

/// What a tree extends, with the place that says so.
fn extends(tree: &Node, of: &Source) -> Option<(Source, Origin)> {
    let node = tree.as_table()?.get("extends")?;
    let text = node.as_text()?;
    let next = match text.strip_prefix("library:") {
        Some(name) => Source::Library(name.to_owned()),
        // Nothing of the library stands in a folder.
        None if matches!(of, Source::Library(_)) => Source::Library(text.to_owned()),
        None => Source::Path(PathBuf::from(text)),
    };
    Some((next, node.at))
}

/// A name by which a source is recognised when it comes again.
fn identity(source: &Source, dir: &Path) -> String {
    match source {
        Source::Library(name) => format!("library:{name}"),
        Source::Text { name, .. } => name.clone(),
        Source::Path(path) => {
            let path = dir.join(path);
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            path.display().to_string()
        }
    }
}

/// Reads one text, which lies in `dir`. `asked` is from where paths are shown, and the place that asks
/// for it, if it is an `extends`.
fn read(
    source: &Source,
    dir: &Path,
    asked: (&Path, Option<Origin>),
    sources: &mut Sources,
    findings: &mut Vec<Finding>,
) -> Option<(Layer, Source)> {
    let (seen_from, at) = asked;
    let key = if at.is_some() { "extends" } else { "" };
    let at = at.unwrap_or_default();
    let (shown, text, layer_dir) = match source {
        Source::Library(name) => {
            let Some(entry) = library::find(name) else {
                let message = format!("there is no scenario `{name}` in the library");
                let names = library::list().iter().map(|e| e.name);
                let mut finding = Finding::error(Code::Unreadable, at, key.into(), message)
                    .label(did_you_mean(name, names.clone()))
                    .note(known(names));
                if at.is_default() {
                    finding = finding.note("a path contains `/` or ends in `.toml`");
                }
                findings.push(finding);
                return None;
            };
            (format!("library:{name}"), entry.text.to_owned(), None)
        }
        Source::Text { name, text, dir } => (name.clone(), text.clone(), dir.clone()),
        Source::Path(path) => {
            let full = dir.join(path);
            match std::fs::read_to_string(&full) {
                Ok(text) => {
                    let dir = full.parent().map(Path::to_owned);
                    // What another file extends is named as seen from here, not from there.
                    let shown = if at.is_default() {
                        path
                    } else {
                        full.strip_prefix(seen_from).unwrap_or(&full)
                    };
                    (shown.display().to_string(), text, dir)
                }
                Err(error) => {
                    let message = format!("cannot read {}: {error}", full.display());
                    let mut finding = Finding::error(Code::Unreadable, at, key.into(), message);
                    if let Some(remedy) = remedy(&error).filter(|_| at.is_default()) {
                        finding = finding.note(remedy);
                    }
                    findings.push(finding);
                    return None;
                }
            }
        }
    };
    let id = sources.add(&shown, &text, SourceKind::File);
    let (tree, errors) = tree::parse(id, &text);
    for (message, at) in errors {
        let finding = Finding::error(Code::Syntax, at, String::new(), message);
        findings.push(finding);
    }
    let name = match source {
        Source::Library(name) => name.clone(),
        _ => Path::new(&shown)
            .file_stem()
            .map_or_else(|| shown.clone(), |s| s.to_string_lossy().into_owned()),
    };
    let layer = Layer {
        tree,
        dir: layer_dir,
        name,
    };
    Some((layer, source.clone()))
}

/// What to do about a file that cannot be read.
fn remedy(error: &std::io::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::NotFound => Some(
            "`windtunnel scenario list` shows the library, `windtunnel scenario new FILE` writes a file to start from",
        ),
        ErrorKind::InvalidData => Some("a scenario is a text file in UTF-8"),
        ErrorKind::IsADirectory => Some("this is a folder; name the file in it"),
        _ => None,
    }
}

/// Lays `upper` over `lower`. Where both are tables their keys are merged, except that a table
/// whose `kind` changes keeps nothing of the old one, whose keys belong to the old kind. Kinds of engines that
/// are told by the same keys (one computes what the other simulates) keep them.
pub(crate) fn merge(lower: &mut Node, upper: Node, shape: Shape) {
    merge_known(lower, upper, Some(shape));
}

fn merge_known(lower: &mut Node, upper: Node, shape: Option<Shape>) {
    let Node { value, at } = upper;
    let (Value::Table(below), Value::Table(_)) = (&mut lower.value, &value) else {
        *lower = Node { value, at };
        return;
    };
    let Value::Table(above) = value else { return };
    if let Some(shape) = shape
        && shape.is_tagged()
        && let Some(kind) = above.kind()
        && let Some(before) = shape.kind_of(Some(below))
        && before != kind
        && !shape.shares_keys(&before, kind)
    {
        below.retain(|_| false);
    }
    lower.at = if at.is_default() { lower.at } else { at };
    for entry in above.entries() {
        let Entry { key, key_at, node } = entry.clone();
        let child = shape.and_then(|s| s.step(&Step::Key(key.clone()), Some(below)));
        match below.entry_mut(&key) {
            Some(old) => {
                merge_known(&mut old.node, node, child);
                old.key_at = key_at;
            }
            None => below.set(Entry { key, key_at, node }),
        }
    }
}
