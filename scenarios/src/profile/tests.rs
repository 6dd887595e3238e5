//! The readers' own parts.

use super::yaml::parse;
use serde_json::json;

#[test]
fn plain_yaml_is_read_as_it_is_meant() {
    let text = "\
---
name: 'it''s' # a comment
when: '2026-08-17T19:43:32+00:00'
empty:
grid: 0, 16-2048 x2
share: 0.5
big: 1_000
yes: true
labels: [n<=2, 'a, b', kvB>1k,
         sr<=5%]
nested:
  list:
  - 1
  - name: x
    value: -2
  -
    - deep
  map: { a: 1, b: [2, 3] }
last: null
";
    let expected = json!({
        "name": "it's",
        "when": "2026-08-17T19:43:32+00:00",
        "empty": null,
        "grid": "0, 16-2048 x2",
        "share": 0.5,
        "big": 1000,
        "yes": true,
        "labels": ["n<=2", "a, b", "kvB>1k", "sr<=5%"],
        "nested": {
            "list": [1, { "name": "x", "value": -2 }, ["deep"]],
            "map": { "a": 1, "b": [2, 3] },
        },
        "last": null,
    });
    assert_eq!(parse(text), Ok(expected));
    assert_eq!(parse(""), Ok(json!(null)));
}

#[test]
fn bad_yaml_is_refused_with_its_line() {
    for (text, line) in [
        ("a: 1\na: 2\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a:\n\t- 1\n", 2),
        ("just words\n", 1),
        ("a: [1, 2\n", 1),
        ("a: 'open\n", 2),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.0, line, "{text}: {error:?}");
    }
}
