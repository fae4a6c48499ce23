//! JSON Schema, as much of it as structured output uses: what an answer must look like before anything acts on it.
//!
//! Known are `type`, `enum`, `const`, `anyOf`, `oneOf`, `allOf`, `properties`, `required`, `additionalProperties`,
//! `minProperties`, `maxProperties`, `items`, `minItems`, `maxItems`, `uniqueItems`, `minLength`, `maxLength`, `format`
//! (`date`, `date-time`, `uuid`, `uri`), `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf` and
//! `$ref` within the schema; of words that only explain, those in `SILENT`. Any other keyword is refused when the
//! schema is read, so that nothing is passed over in silence when a value is checked. A validator of everything would
//! bring some thirty crates.

mod check;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

/// Keywords that say nothing about values. `x-…` likewise.
const SILENT: &[&str] = &[
    "$comment",
    "$id",
    "$schema",
    "default",
    "deprecated",
    "description",
    "discriminator",
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];
const TYPES: &[&str] = &["array", "boolean", "integer", "null", "number", "object", "string"];
const FORMATS: &[&str] = &["date", "date-time", "uri", "uuid"];
/// Schemas within schemas, and references followed without coming nearer to the end of a value.
const DEEPEST: usize = 64;

/// A schema of which every keyword is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Where references begin.
    root: Arc<Value>,
    /// JSON pointer to the schema in it.
    at: String,
}

/// Why a schema is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SchemaError {
    /// JSON pointer into the schema.
    pub place: String,
    pub problem: String,
}

/// What of a value does not fit. Holds none of the value but where it is, so that it may stand in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// JSON pointer into the value, as far as the schema knows the names on the way.
    pub place: String,
    /// The keyword that was not met.
    pub keyword: &'static str,
    /// The same as a sentence.
    pub problem: String,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.place.is_empty() { "the whole" } else { &self.place };
        write!(f, "{place}: {}", self.problem)
    }
}

impl Schema {
    /// Reads a schema; refuses it for the first keyword that is not known or not as it should be.
    pub fn new(root: Value) -> Result<Self, SchemaError> {
        Self::within(&Arc::new(root), "")
    }

    /// The schema at a JSON pointer of a document that holds several, with all that it refers to.
    pub fn within(document: &Arc<Value>, at: &str) -> Result<Self, SchemaError> {
        let schema = document.pointer(at).unwrap_or(&Value::Null);
        read(document, schema, at, 0, &mut BTreeSet::new())?;
        Ok(Self { root: Arc::clone(document), at: at.to_owned() })
    }

    /// What of `value` does not fit, at most `most` findings.
    pub fn misfits(&self, value: &Value, most: usize) -> Vec<Misfit> {
        let schema = self.root.pointer(&self.at).unwrap_or(&Value::Bool(false));
        check::misfits(&self.root, schema, value, most)
    }
}

/// `seen`: what was referred to already.
fn read(
    root: &Value,
    schema: &Value,
    place: &str,
    depth: usize,
    seen: &mut BTreeSet<String>,
) -> Result<(), SchemaError> {
    let refuse = |place: &str, problem: &str| {
        Err(SchemaError { place: place.to_owned(), problem: problem.to_owned() })
    };
    if depth > DEEPEST {
        return refuse(place, "is nested too deeply");
    }
    let keywords: &Map<String, Value> = match schema {
        Value::Object(keywords) => keywords,
        Value::Bool(_) => return Ok(()),
        _ => return refuse(place, "a schema is an object"),
    };
    for (keyword, rule) in keywords {
        let at = format!("{place}/{keyword}");
        let mut inner =
            |schema: &Value, step: &str| read(root, schema, &format!("{at}{step}"), depth + 1, seen);
        let number = || rule.is_number();
        let count = || rule.as_u64().is_some();
        let fits = match keyword.as_str() {
            "$defs" | "definitions" | "properties" => {
                let Some(schemas) = rule.as_object() else { return refuse(&at, "expected schemas by name") };
                for (name, schema) in schemas {
                    inner(schema, &format!("/{name}"))?;
                }
                true
            }
            word if SILENT.contains(&word) || word.starts_with("x-") => true,
            "$ref" => {
                let Some(pointer) = rule.as_str().and_then(|text| text.strip_prefix('#')) else {
                    return refuse(&at, "only references within the schema (#/…) are taken");
                };
                let Some(target) = root.pointer(pointer) else {
                    return refuse(&at, "leads nowhere in this schema");
                };
                if seen.insert(pointer.to_owned()) {
                    read(root, target, pointer, depth + 1, seen)?;
                }
                true
            }
            "type" => {
                let known = |kind: &Value| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
                match rule {
                    Value::Array(kinds) => !kinds.is_empty() && kinds.iter().all(known),
                    kind => known(kind),
                }
            }
            "enum" => rule.as_array().is_some_and(|words| !words.is_empty()),
            "const" => true,
            "anyOf" | "oneOf" | "allOf" => {
                let Some(schemas) = rule.as_array().filter(|schemas| !schemas.is_empty()) else {
                    return refuse(&at, "expected a list of schemas");
                };
                for (number, schema) in schemas.iter().enumerate() {
                    inner(schema, &format!("/{number}"))?;
                }
                true
            }
            "required" => rule.as_array().is_some_and(|names| names.iter().all(|name| name.is_string())),
            "additionalProperties" | "items" => {
                inner(rule, "")?;
                true
            }
            "minProperties" | "maxProperties" | "minItems" | "maxItems" | "minLength" | "maxLength" => {
                count()
            }
            "uniqueItems" => rule.is_boolean(),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => number(),
            "multipleOf" => rule.as_f64().is_some_and(|step| step > 0.0),
            "format" => match rule.as_str() {
                Some(format) if FORMATS.contains(&format) => true,
                _ => {
                    return refuse(&at, &format!("is not checked here; there are {}", FORMATS.join(", ")));
                }
            },
            _ => {
                return refuse(
                    &at,
                    "is outside the subset that answers are checked against (docs/respond.md)",
                );
            }
        };
        if !fits {
            return refuse(&at, "is not as JSON Schema wants it");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
