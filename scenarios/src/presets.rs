//! Engine presets (`engine.preset = "vllm-v1"`): data files that stand below what an engine's table
//! says itself. A preset names rules and limits of a scheduler and its memory; GPU, model and step
//! times are the scenario's own.

use crate::check::shape::Shape;
use crate::layers::merge;
use crate::library;
use crate::source::{SourceKind, Sources};
use crate::tree::{self, Node, Step, Value};
use windtunnel_engine::config::{ContinuousSpec, EnginePreset};

/// The engine that a preset stands for where nothing else is said, as in a file with that `preset`
/// alone. For another, change its fields: that is what a scenario does.
pub fn engine(preset: EnginePreset) -> ContinuousSpec {
    let text = library::engine(preset).text;
    // The files come with the program and a test reads all of them.
    let mut spec: ContinuousSpec = toml::from_str(text).unwrap_or_default();
    spec.preset = Some(preset);
    spec
}

/// Lays every engine's own table over the preset that it names. What is no preset is left to the
/// check of the tree.
pub(crate) fn apply(root: &mut Node, sources: &mut Sources) {
    let shape = |path: &[Step]| {
        path.iter()
            .try_fold(Shape::root(), |shape, step| shape.step(step, None))
    };
    let [fleet, engine, pools] = ["fleet", "engine", "pools"].map(|k| Step::Key(k.to_owned()));
    let Some(table) = root.as_table_mut().and_then(|t| t.get_mut("fleet")) else {
        return;
    };
    let Some(table) = table.as_table_mut() else {
        return;
    };
    if let (Some(node), Some(shape)) = (
        table.get_mut("engine"),
        shape(&[fleet.clone(), engine.clone()]),
    ) {
        lay_over(node, shape, sources);
    }
    if let (Some(Value::Array(pools_here)), Some(shape)) = (
        table.get_mut("pools").map(|n| &mut n.value),
        shape(&[fleet, pools, Step::Index(0), engine]),
    ) {
        let tables = pools_here.iter_mut().filter_map(Node::as_table_mut);
        for node in tables.filter_map(|t| t.get_mut("engine")) {
            lay_over(node, shape, sources);
        }
    }
}

fn lay_over(node: &mut Node, shape: Shape, sources: &mut Sources) {
    let Some(table) = node.as_table() else { return };
    let name = table.get("preset").and_then(Node::as_text);
    let Some(preset) = name.and_then(EnginePreset::find) else {
        return;
    };
    let kind = table.entry("kind").cloned();
    if kind
        .as_ref()
        .is_some_and(|k| !matches!(k.node.as_text(), Some("continuous" | "reference")))
    {
        return;
    }
    let name = format!("preset:{}", preset.name());
    let text = library::engine(preset).text;
    let id = sources.add(&name, text, SourceKind::File);
    let (mut below, _) = tree::parse(id, text);
    // It must be of the kind that goes over it, or nothing of it would be left.
    if let (Some(kind), Some(table)) = (kind, below.as_table_mut()) {
        table.set(kind);
    }
    let above = std::mem::replace(node, Node::empty_table());
    let at = above.at;
    merge(&mut below, above, shape);
    below.at = at;
    *node = below;
}
