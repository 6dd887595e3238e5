//! The JSON schema of scenario files: generated from the types, then put into words that old
//! dialects know too, because the editors' TOML plug-ins stop at draft 4.

use crate::schema::Scenario;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// The schema, as `windtunnel scenario schema` prints it and as the check of files uses it.
pub fn schema_json() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(generate);
    &SCHEMA
}

/// The schema as text, for a file.
pub fn schema_text() -> String {
    // Printing what was just generated cannot fail.
    let mut text = serde_json::to_string_pretty(schema_json()).unwrap_or_default();
    text.push('\n');
    text
}

fn generate() -> Value {
    let generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let mut root = generator.into_root_schema_for::<Scenario>().to_value();
    simplify(&mut root);
    if let Some(root) = root.as_object_mut() {
        root.insert(
            "$schema".into(),
            "http://json-schema.org/draft-04/schema#".into(),
        );
        root.insert("title".into(), "Windtunnel scenario".into());
    }
    root
}

/// Rewrites a schema and all within it.
fn simplify(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    for key in ["properties", "definitions"] {
        if let Some(Value::Object(children)) = object.get_mut(key) {
            children.values_mut().for_each(simplify);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = object.get_mut(key) {
            simplify(child);
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(Value::Array(children)) = object.get_mut(key) {
            children.iter_mut().for_each(simplify);
        }
    }
    drop_null(object);
    if let Some(value) = object.remove("const") {
        object.insert("enum".into(), Value::Array(vec![value]));
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        // Documentation comments are wrapped for the source; editors wrap by themselves.
        *text = text.replace('\n', " ");
    }
}

/// TOML has no null: what may be absent is just not required.
fn drop_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|c| c.get("type").is_none_or(|t| t != "null"));
        if choices.len() == 1 {
            // `allOf` keeps the description beside a reference, which old dialects drop otherwise.
            if let Some(only) = object.remove("anyOf") {
                object.insert("allOf".into(), only);
            }
        }
    }
    match object.get_mut("default") {
        Some(Value::Null) => {
            object.remove("default");
        }
        Some(default) => strip_nulls(default),
        None => {}
    }
}

/// Removes every null from tables, as TOML cannot say them.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
