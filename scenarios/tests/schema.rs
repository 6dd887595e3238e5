//! The published JSON schema is the one that the types give.

use std::path::Path;
use windtunnel_scenarios::schema_json::{schema_json, schema_text};

#[test]
fn the_committed_schema_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    let text = schema_text();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap();
    assert!(
        committed == text,
        "schema.json is not what the types say; UPDATE_GOLDEN=1 writes it anew"
    );
}

#[test]
fn editors_of_draft_4_understand_it_and_complete_policies() {
    fn walk(value: &serde_json::Value, is_schema: bool, visit: &mut dyn FnMut(&str)) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, child) in map {
                    if is_schema {
                        visit(key);
                    }
                    // Below these the keys are the format's own.
                    let names = matches!(key.as_str(), "properties" | "definitions");
                    if is_schema && matches!(key.as_str(), "default" | "enum" | "examples") {
                        continue;
                    }
                    walk(child, !(is_schema && names), visit);
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|i| walk(i, is_schema, visit)),
            _ => {}
        }
    }
    let too_new = [
        "const",
        "$defs",
        "if",
        "contains",
        "propertyNames",
        "unevaluatedProperties",
    ];
    walk(schema_json(), true, &mut |key| {
        assert!(!too_new.contains(&key), "`{key}` is newer than draft 4");
    });

    let routing = &schema_json()["definitions"]["RoutingSpec"]["oneOf"];
    let kinds: Vec<_> = routing
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["properties"]["kind"]["enum"][0].as_str().unwrap())
        .collect();
    assert!(
        kinds.contains(&"cache_aware") && kinds.contains(&"weighted"),
        "{kinds:?}"
    );
}
