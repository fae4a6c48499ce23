//! JSON Schema, as much of it as the published document uses. A keyword it does not know is an error, so that nothing
//! is passed over in silence; a hundred lines here weigh less than a validator's thirty crates.

use serde_json::Value;

/// Says nothing about values.
const SILENT: &[&str] =
    &["title", "description", "default", "example", "examples", "discriminator", "deprecated", "$schema"];

/// What of `value` does not fit `schema`, each with its place. `root` is where references begin.
pub fn errors(root: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    check(root, schema, value, "", &mut errors);
    errors
}

fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    errors(root, schema, value).is_empty()
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str, errors: &mut Vec<String>) {
    let keywords =
        schema.as_object().unwrap_or_else(|| panic!("{place}: a schema is an object, not {schema}"));
    for (keyword, rule) in keywords {
        let any = |count: fn(usize) -> bool| {
            let fitting = list(rule).iter().filter(|schema| fits(root, schema, value)).count();
            count(fitting)
        };
        let holds = match keyword.as_str() {
            keyword if SILENT.contains(&keyword) || keyword.starts_with("x-") => true,
            "$ref" => {
                let pointer =
                    rule.as_str().and_then(|text| text.strip_prefix('#')).expect("a local reference");
                check(root, root.pointer(pointer).expect("what is referred to"), value, place, errors);
                true
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|one| is(value, one)),
                one => is(value, one),
            },
            "enum" => list(rule).contains(value),
            "const" => rule == value,
            "anyOf" => any(|fitting| fitting > 0),
            "oneOf" => any(|fitting| fitting == 1),
            "allOf" => {
                list(rule).iter().for_each(|schema| check(root, schema, value, place, errors));
                true
            }
            "required" => list(rule).iter().all(|name| value.get(name.as_str().expect("a name")).is_some()),
            "properties" => {
                for (name, schema) in rule.as_object().expect("properties") {
                    if let Some(value) = value.get(name) {
                        check(root, schema, value, &format!("{place}/{name}"), errors);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name))
                {
                    match rule {
                        Value::Bool(true) => {}
                        Value::Bool(false) => errors.push(format!("{place}/{name}: is not allowed")),
                        schema => check(root, schema, value, &format!("{place}/{name}"), errors),
                    }
                }
                true
            }
            "items" => {
                for (at, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, value, &format!("{place}/{at}"), errors);
                }
                true
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minLength" => length(value).is_none_or(|length| length >= rule.as_u64().unwrap()),
            "maxLength" => length(value).is_none_or(|length| length <= rule.as_u64().unwrap()),
            "minItems" => items(value).is_none_or(|items| items >= rule.as_u64().unwrap()),
            "maxItems" => items(value).is_none_or(|items| items <= rule.as_u64().unwrap()),
            unknown => panic!("{place}: a schema with '{unknown}'"),
        };
        if !holds {
            errors.push(format!("{place}: {value} against {keyword} {rule}"));
        }
    }
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().expect("a list")
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn items(value: &Value) -> Option<u64> {
    value.as_array().map(|items| items.len() as u64)
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("a type '{other}'"),
    }
}

#[test]
fn what_does_not_fit_is_told() {
    use serde_json::json;
    let root = json!({ "components": { "name": { "type": "string", "minLength": 1 } } });
    let schema = json!({
        "type": "object",
        "properties": { "name": { "$ref": "#/components/name" }, "age": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
                        "kind": { "oneOf": [{ "enum": ["a"] }, { "enum": ["b"] }] }, "all": { "items": { "type": "number", "minimum": 0 } } },
        "required": ["name"],
        "additionalProperties": false,
    });
    for (value, wrong) in [
        (json!({ "name": "Ada", "age": null, "kind": "b", "all": [1, 0.5] }), 0),
        (json!({ "age": 36 }), 1),
        (json!({ "name": "", "age": 1.5 }), 2),
        (json!({ "name": 1, "kind": "c", "more": 1 }), 3),
        (json!({ "name": "x", "all": [-1, "2"] }), 2),
        (json!([]), 2),
    ] {
        let errors = errors(&root, &schema, &value);
        assert_eq!(errors.len(), wrong, "{value}: {errors:#?}");
    }
}
