//! A value against a schema that was read before.

use serde_json::{Map, Value};

use super::{DEEPEST, Misfit};

pub(super) fn misfits(root: &Value, schema: &Value, value: &Value, most: usize) -> Vec<Misfit> {
    let mut check = Check { root, most, found: Vec::new() };
    check.schema(schema, value, "", 0);
    check.found
}

struct Check<'s> {
    root: &'s Value,
    most: usize,
    found: Vec<Misfit>,
}

impl Check<'_> {
    fn note(&mut self, place: &str, keyword: &'static str, problem: impl Into<String>) {
        if self.found.len() < self.most {
            self.found.push(Misfit { place: place.to_owned(), keyword, problem: problem.into() });
        }
    }

    fn fits(&self, schema: &Value, value: &Value, depth: usize) -> bool {
        let mut inner = Check { root: self.root, most: 1, found: Vec::new() };
        inner.schema(schema, value, "", depth);
        inner.found.is_empty()
    }

    fn schema(&mut self, schema: &Value, value: &Value, place: &str, depth: usize) {
        if self.found.len() >= self.most {
            return;
        }
        if depth > DEEPEST {
            return self.note(place, "$ref", "is nested too deeply");
        }
        let rules = match schema {
            Value::Object(rules) => rules,
            Value::Bool(true) => return,
            _ => return self.note(place, "false", "is not allowed"),
        };
        if let Some(pointer) =
            rules.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'))
        {
            match self.root.pointer(pointer) {
                Some(target) => self.schema(target, value, place, depth + 1),
                None => self.note(place, "$ref", "leads nowhere"),
            }
        }
        self.value(rules, value, place);
        self.choices(rules, value, place, depth);
        match value {
            Value::Object(object) => self.object(rules, object, place, depth),
            Value::Array(items) => self.array(rules, items, place, depth),
            Value::String(text) => self.string(rules, text, place),
            Value::Number(_) => self.number(rules, value, place),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn value(&mut self, rules: &Map<String, Value>, value: &Value, place: &str) {
        let holds = match rules.get("type") {
            None => true,
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| is(value, kind)),
            Some(kind) => is(value, kind),
        };
        if !holds {
            let wanted = rules.get("type").map(ToString::to_string).unwrap_or_default();
            self.note(place, "type", format!("must be of type {wanted}"));
        }
        if let Some(words) = rules.get("enum").and_then(Value::as_array)
            && !words.iter().any(|word| same(word, value))
        {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            self.note(place, "enum", format!("must be one of {}", words.join(", ")));
        }
        if let Some(only) = rules.get("const")
            && !same(only, value)
        {
            self.note(place, "const", format!("must be {only}"));
        }
    }

    fn choices(&mut self, rules: &Map<String, Value>, value: &Value, place: &str, depth: usize) {
        let list = |keyword: &str| rules.get(keyword).and_then(Value::as_array);
        let fitting = |schemas: &Vec<Value>| {
            schemas.iter().filter(|schema| self.fits(schema, value, depth + 1)).count()
        };
        let any = list("anyOf").map(fitting);
        let one = list("oneOf").map(fitting);
        if any == Some(0) {
            self.note(place, "anyOf", "fits none of the schemas it may fit");
        }
        match one {
            None | Some(1) => {}
            Some(0) => self.note(place, "oneOf", "fits none of the schemas it may fit"),
            Some(_) => self.note(place, "oneOf", "fits more than one of the schemas"),
        }
        for schema in list("allOf").into_iter().flatten() {
            self.schema(schema, value, place, depth + 1);
        }
    }

    fn object(&mut self, rules: &Map<String, Value>, object: &Map<String, Value>, place: &str, depth: usize) {
        for name in rules.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(name) = name.as_str().filter(|name| !object.contains_key(*name)) {
                self.note(place, "required", format!("lacks the property {name:?}"));
            }
        }
        let known = rules.get("properties").and_then(Value::as_object);
        let rest = rules.get("additionalProperties");
        for (name, value) in object {
            match (known.and_then(|known| known.get(name)), rest) {
                (Some(schema), _) => {
                    self.schema(schema, value, &format!("{place}/{}", escaped(name)), depth + 1);
                }
                (None, None | Some(Value::Bool(true))) => {}
                (None, Some(Value::Bool(false))) => {
                    self.note(place, "additionalProperties", "has a property that is not allowed");
                }
                // The name is the value's own: it does not become part of a place.
                (None, Some(schema)) => self.schema(schema, value, &format!("{place}/*"), depth + 1),
            }
        }
        let count = object.len() as u64;
        self.bounds(rules, ("minProperties", "maxProperties"), count, "properties", place);
    }

    fn array(&mut self, rules: &Map<String, Value>, items: &[Value], place: &str, depth: usize) {
        if let Some(schema) = rules.get("items") {
            for (at, item) in items.iter().enumerate() {
                self.schema(schema, item, &format!("{place}/{at}"), depth + 1);
            }
        }
        let unique = rules.get("uniqueItems") == Some(&Value::Bool(true));
        let repeated = |(at, item): (usize, &Value)| items[..at].iter().any(|earlier| same(earlier, item));
        if unique && items.iter().enumerate().any(repeated) {
            self.note(place, "uniqueItems", "has an item twice");
        }
        self.bounds(rules, ("minItems", "maxItems"), items.len() as u64, "items", place);
    }

    fn string(&mut self, rules: &Map<String, Value>, text: &str, place: &str) {
        let length = text.chars().count() as u64;
        self.bounds(rules, ("minLength", "maxLength"), length, "characters", place);
        let fits = match rules.get("format").and_then(Value::as_str) {
            Some("date") => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
            Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
            Some("uuid") => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
            Some("uri") => url::Url::parse(text).is_ok(),
            _ => true,
        };
        if !fits {
            let format = rules.get("format").map(ToString::to_string).unwrap_or_default();
            self.note(place, "format", format!("must be of format {format}"));
        }
    }

    fn number(&mut self, rules: &Map<String, Value>, value: &Value, place: &str) {
        let Some(number) = value.as_f64() else { return };
        let rule = |keyword: &str| rules.get(keyword).and_then(Value::as_f64);
        type Holds = fn(f64, f64) -> bool;
        type Bound = (&'static str, Option<f64>, Holds, &'static str);
        let bounds: [Bound; 4] = [
            ("minimum", rule("minimum"), |n, bound| n >= bound, "at least"),
            ("maximum", rule("maximum"), |n, bound| n <= bound, "at most"),
            ("exclusiveMinimum", rule("exclusiveMinimum"), |n, bound| n > bound, "more than"),
            ("exclusiveMaximum", rule("exclusiveMaximum"), |n, bound| n < bound, "less than"),
        ];
        for (keyword, bound, holds, words) in bounds {
            if let Some(bound) = bound.filter(|bound| !holds(number, *bound)) {
                self.note(place, keyword, format!("must be {words} {bound}"));
            }
        }
        if let Some(step) = rule("multipleOf") {
            // Steps such as 0.01 have no exact form.
            let steps = number / step;
            if (steps - steps.round()).abs() > 1e-9 * steps.abs().max(1.0) {
                self.note(place, "multipleOf", format!("must be a multiple of {step}"));
            }
        }
    }

    fn bounds(
        &mut self,
        rules: &Map<String, Value>,
        (least, most): (&'static str, &'static str),
        count: u64,
        what: &str,
        place: &str,
    ) {
        let rule = |keyword: &str| rules.get(keyword).and_then(Value::as_u64);
        if let Some(bound) = rule(least).filter(|bound| count < *bound) {
            self.note(place, least, format!("must have at least {bound} {what}"));
        }
        if let Some(bound) = rule(most).filter(|bound| count > *bound) {
            self.note(place, most, format!("must have at most {bound} {what}"));
        }
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Equal as JSON Schema has it: 1 and 1.0 are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("number") => value.is_number(),
        Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}
