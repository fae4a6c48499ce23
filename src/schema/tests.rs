use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema(schema: Value) -> Schema {
    Schema::new(schema).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let schema = schema(json!({
        "$defs": { "name": { "type": "string", "minLength": 1 } },
        "type": "object",
        "properties": {
            "name": { "$ref": "#/$defs/name" },
            "age": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
            "kind": { "oneOf": [{ "enum": ["a"] }, { "enum": ["b"] }] },
            "all": { "items": { "type": "number", "minimum": 0 }, "maxItems": 3, "uniqueItems": true },
            "when": { "format": "date" }, "price": { "multipleOf": 0.01, "exclusiveMaximum": 10 },
        },
        "required": ["name"],
        "additionalProperties": false,
    }));
    for (value, places) in [
        (
            json!({ "name": "Ada", "age": null, "kind": "b", "all": [1, 0.5], "when": "2026-01-31", "price": 4.35 }),
            vec![],
        ),
        (json!({ "age": 36 }), vec![""]),
        (json!({ "name": "", "age": 1.5 }), vec!["/age", "/name"]),
        (json!({ "name": 1, "kind": "c", "more": 1 }), vec!["/kind", "", "/name"]),
        (json!({ "name": "x", "all": [-1, "2"] }), vec!["/all/0", "/all/1"]),
        (json!({ "name": "x", "all": [1, 1.0] }), vec!["/all"]),
        (
            json!({ "name": "x", "all": [1, 2, 3, 4], "when": "tomorrow", "price": 10 }),
            vec!["/all", "/price", "/when"],
        ),
        (json!([]), vec![""]),
    ] {
        let found: Vec<String> = schema.misfits(&value, 10).into_iter().map(|misfit| misfit.place).collect();
        assert_eq!(found, places, "{value}");
    }
}

#[test]
fn a_misfit_says_nothing_of_the_value() {
    let schema = schema(json!({
        "type": "object", "properties": { "kind": { "enum": ["a"] } }, "additionalProperties": { "type": "null" },
    }));
    let value = json!({ "kind": "s3cr3t", "s3cr3t": 1 });
    let told: String = schema.misfits(&value, 10).iter().map(ToString::to_string).collect();
    assert!(told.contains("/kind") && told.contains("/*") && !told.contains("s3cr3t"), "{told}");
}

#[test]
fn a_schema_outside_the_subset_is_refused_with_its_place() {
    for (schema, place) in [
        (json!({ "pattern": "^a" }), "/pattern"),
        (json!({ "properties": { "a": { "if": {} } } }), "/properties/a/if"),
        (json!({ "type": "text" }), "/type"),
        (json!({ "format": "email" }), "/format"),
        (json!({ "$ref": "#/$defs/none" }), "/$ref"),
        (json!({ "$ref": "https://example.com/schema" }), "/$ref"),
        (json!({ "anyOf": [] }), "/anyOf"),
        (json!({ "items": 1 }), "/items"),
        (json!({ "$defs": { "a": { "not": {} } } }), "/$defs/a/not"),
        (json!({ "minLength": -1 }), "/minLength"),
        (json!(1), ""),
    ] {
        let error = Schema::new(schema.clone()).unwrap_err();
        assert_eq!(error.place, place, "{schema}: {error}");
    }
    assert!(Schema::new(json!({ "title": "x", "x-ours": 1, "$defs": { "a": {} } })).is_ok());
}

#[test]
fn a_schema_that_refers_to_itself_comes_to_an_end() {
    let list = schema(json!({
        "type": "object", "properties": { "next": { "anyOf": [{ "type": "null" }, { "$ref": "#" }] } },
    }));
    assert!(list.misfits(&json!({ "next": { "next": { "next": null } } }), 10).is_empty());
    assert_eq!(list.misfits(&json!({ "next": { "next": 1 } }), 10).len(), 1);
    let endless = schema(json!({ "$ref": "#" }));
    assert_eq!(endless.misfits(&json!(1), 10).len(), 1);
}

proptest! {
    /// Whatever a model says, checking it ends, keeps to its limit, and takes what fits.
    #[test]
    fn any_value_is_judged(text in "\\PC{0,60}", number in any::<f64>()) {
        let schema = schema(json!({
            "type": "object", "required": ["a"],
            "properties": { "a": { "type": ["string", "number"] }, "b": { "$ref": "#" } },
        }));
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        prop_assert!(schema.misfits(&value, 2).len() <= 2);
        let found = schema.misfits(&json!({ "a": text, "b": { "a": number } }), 2).len();
        prop_assert!(found <= usize::from(!number.is_finite()), "{}", found);
    }
}
