//! JSON that fits a schema, with what a message says put where it belongs.

use serde_json::{Map, Number, Value, json};

/// Schemas may refer to themselves.
const DEEPEST: usize = 12;

/// A JSON text that fits `schema`; the text `{}` if that is no schema.
pub(super) fn fill(schema: &str, message: &str) -> String {
    let root: Value = serde_json::from_str(schema).unwrap_or(Value::Null);
    let mut filler = Filler { root: &root, hints: Hints::of(message) };
    let value = match root.as_object() {
        Some(object) if !object.is_empty() => filler.value(&root, "", 0),
        _ => json!({}),
    };
    value.to_string()
}

/// What a message offers: each is used once, in order, the last again and again.
struct Hints<'m> {
    lower: String,
    quoted: Vec<&'m str>,
    places: Vec<String>,
    numbers: Vec<&'m str>,
    message: &'m str,
}

struct Filler<'s> {
    root: &'s Value,
    hints: Hints<'s>,
}

impl<'m> Hints<'m> {
    fn of(message: &'m str) -> Self {
        let words: Vec<&str> = message.split_whitespace().collect();
        let number = |word: &&str| word.parse::<f64>().is_ok_and(f64::is_finite);
        let after =
            |at: &usize| matches!(words[*at - 1], "in" | "for" | "at" | "to" | "of" | "from" | "near");
        let mut places: Vec<String> =
            (1..words.len()).filter(after).filter_map(|at| name(&words[at..])).collect();
        if places.is_empty() {
            let mut rest = words.get(1..).unwrap_or_default();
            while !rest.is_empty() {
                let found = name(rest);
                let taken = found.as_ref().map_or(1, |name| name.split(' ').count());
                places.extend(found.filter(|name| name.len() > 1));
                rest = &rest[taken..];
            }
        }
        let numbers = words.iter().map(|word| word.trim_matches(|c: char| !c.is_ascii_digit() && c != '-'));
        Self {
            lower: message.to_lowercase(),
            quoted: message.split('"').skip(1).step_by(2).filter(|text| !text.is_empty()).collect(),
            places: places.into_iter().rev().collect(),
            numbers: numbers.filter(number).collect::<Vec<_>>().into_iter().rev().collect(),
            message: message.trim(),
        }
    }

    fn text(&mut self, name: &str) -> String {
        if !self.quoted.is_empty() {
            self.quoted.reverse();
            let text = next(&mut self.quoted);
            self.quoted.reverse();
            return text.unwrap_or_default();
        }
        let whole =
            ["query", "question", "prompt", "text", "message", "search", "input", "expression", "content"];
        if whole.iter().any(|word| name.contains(word)) {
            return self.message.to_owned();
        }
        next(&mut self.places).unwrap_or_else(|| "example".to_owned())
    }

    fn number(&mut self) -> Option<f64> {
        let last = if self.numbers.len() > 1 { self.numbers.pop() } else { self.numbers.last().copied() };
        last.and_then(|number| number.parse().ok())
    }
}

/// The name that `words` begin with, if they do: capitalised words in a row, up to the first that a mark follows. A
/// comma goes on to what it lies in: `Paris, France`.
fn name(words: &[&str]) -> Option<String> {
    let mut name = Vec::new();
    for word in words.iter().take_while(|word| word.starts_with(char::is_uppercase)) {
        let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        name.push(*word);
        if !matches!(&word[bare.len()..], "" | ",") {
            break;
        }
    }
    let name = name.join(" ");
    let name = name.trim_end_matches(|c: char| !c.is_alphanumeric());
    (!name.is_empty()).then(|| name.to_owned())
}

/// Each is used once, the last again and again.
fn next<T: Clone + Into<String>>(list: &mut Vec<T>) -> Option<String> {
    let last = if list.len() > 1 { list.pop() } else { list.last().cloned() };
    last.map(Into::into)
}

impl Filler<'_> {
    fn value(&mut self, schema: &Value, name: &str, depth: usize) -> Value {
        let root = self.root;
        if depth > DEEPEST {
            return Value::Null;
        }
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return self.one_of(words);
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let target = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return target.map_or(Value::Null, |target| self.value(target, name, depth + 1));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(key).and_then(Value::as_array) {
                let real = choices.iter().find(|choice| choice.get("type") != Some(&json!("null")));
                return real.map_or(Value::Null, |choice| self.value(choice, name, depth + 1));
            }
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
            let mut merged = Map::new();
            for each in all {
                if let Value::Object(fields) = self.value(each, name, depth + 1) {
                    merged.extend(fields);
                }
            }
            return merged.into();
        }
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
            }
            _ if schema.get("properties").is_some() => "object",
            _ => "string",
        };
        match kind {
            "object" => self.object(schema, depth),
            "array" => {
                let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).clamp(1, 20);
                let most = schema.get("maxItems").and_then(Value::as_u64).unwrap_or(least);
                let string = json!({"type": "string"});
                let items = schema.get("items").unwrap_or(&string);
                let unique = schema.get("uniqueItems") == Some(&json!(true));
                let mut list: Vec<Value> = Vec::new();
                for _ in 0..least.min(most) {
                    let item = self.value(items, name, depth + 1);
                    let item = if unique { self.distinct(items, item, &list, depth) } else { Some(item) };
                    list.extend(item);
                }
                list.into()
            }
            "integer" => {
                let number = self.number(schema).round();
                // Within what an f64 holds exactly; schemas ask for no more.
                json!(number as i64)
            }
            "number" => Number::from_f64(self.number(schema)).map_or(json!(0), Value::Number),
            "boolean" => {
                json!(!["not ", "no ", "don't", "without"].iter().any(|word| self.hints.lower.contains(word)))
            }
            "null" => Value::Null,
            _ => self.string(schema, name).into(),
        }
    }

    /// `value`, or one like it that is not in `seen`.
    fn distinct(&self, schema: &Value, value: Value, seen: &[Value], depth: usize) -> Option<Value> {
        let new = |value: &Value| !seen.contains(value);
        if new(&value) {
            return Some(value);
        }
        if depth > DEEPEST || schema.get("const").is_some() {
            return None;
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return words.iter().find(|word| new(word)).cloned();
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(target.strip_prefix('#')?)?;
            return self.distinct(target, value, seen, depth + 1);
        }
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        match value {
            Value::Bool(yes) => Some(json!(!yes)).filter(new),
            Value::String(text) if schema.get("format").is_none() => {
                let most = bound("maxLength").map_or(usize::MAX, |most| most as usize);
                let numbered = |number: usize| {
                    let number = number.to_string();
                    let kept = text.chars().take(most.saturating_sub(number.len()));
                    Value::String(kept.collect::<String>() + &number)
                };
                (2..2 + 2 * (seen.len() + 1)).map(numbered).find(new)
            }
            Value::Number(number) => {
                let step = bound("multipleOf").filter(|step| *step > 0.0).unwrap_or(1.0);
                let least = bound("minimum").or(bound("exclusiveMinimum")).unwrap_or(f64::MIN);
                let most = bound("maximum").or(bound("exclusiveMaximum")).unwrap_or(f64::MAX);
                let steps = (1u32..=20).flat_map(|steps| [f64::from(steps), -f64::from(steps)]);
                let mut near = steps.filter_map(|steps| {
                    let near = number.as_f64()? + steps * step;
                    let is_edge =
                        Some(near) == bound("exclusiveMinimum") || Some(near) == bound("exclusiveMaximum");
                    let whole = number.is_i64() || number.is_u64();
                    let json = if whole { json!(near as i64) } else { json!(near) };
                    ((least..=most).contains(&near) && !is_edge).then_some(json)
                });
                near.find(new)
            }
            Value::Object(fields) => fields.iter().find_map(|(name, field)| {
                let taken: Vec<Value> = seen.iter().filter_map(|each| each.get(name).cloned()).collect();
                let property = schema.get("properties")?.get(name)?;
                let mut changed = fields.clone();
                changed.insert(name.clone(), self.distinct(property, field.clone(), &taken, depth + 1)?);
                Some(changed.into())
            }),
            _ => None,
        }
    }

    fn one_of(&self, words: &[Value]) -> Value {
        let named = |word: &&Value| {
            word.as_str()
                .is_some_and(|word| !word.is_empty() && self.hints.lower.contains(&word.to_lowercase()))
        };
        words.iter().find(named).or(words.first()).cloned().unwrap_or_default()
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let mut out = Map::new();
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            // What may be left out is, where it could go on for ever.
            if required.contains(&name.as_str()) || depth < 3 {
                out.insert(name.clone(), self.value(property, &name.to_lowercase(), depth + 1));
            }
        }
        out.into()
    }

    fn number(&mut self, schema: &Value) -> f64 {
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|bound| bound + 1.0));
        let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|bound| bound - 1.0));
        let mut number = self.hints.number().unwrap_or(1.0);
        if let Some(step) = bound("multipleOf").filter(|step| *step > 0.0) {
            number = (number / step).ceil() * step;
        }
        if let Some(most) = most {
            number = number.min(most);
        }
        least.map_or(number, |least| number.max(least))
    }

    fn string(&mut self, schema: &Value, name: &str) -> String {
        let fixed = match schema.get("format").and_then(Value::as_str) {
            Some("date") => Some("2026-01-31"),
            Some("date-time") => Some("2026-01-31T12:00:00Z"),
            Some("time") => Some("12:00:00Z"),
            Some("email") => Some("someone@example.com"),
            Some("uri" | "url") => Some("https://example.com/"),
            Some("uuid") => Some("01938f6e-0000-7000-8000-000000000000"),
            Some("ipv4") => Some("192.0.2.1"),
            Some("hostname") => Some("example.com"),
            _ => None,
        };
        let mut text = fixed.map_or_else(|| self.hints.text(name), str::to_owned);
        let length =
            |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if let Some(most) = length("maxLength") {
            text = text.chars().take(most).collect();
        }
        let least = length("minLength").unwrap_or(0).min(10_000);
        let lacking = least.saturating_sub(text.chars().count());
        text.extend(std::iter::repeat_n('x', lacking));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(schema: Value, message: &str) -> Value {
        serde_json::from_str(&fill(&schema.to_string(), message)).unwrap()
    }

    #[test]
    fn the_message_fills_what_it_can() {
        let weather = json!({"type": "object", "required": ["location"], "properties": {
            "location": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7}}});
        assert_eq!(
            filled(weather, "What is the weather in Paris, in fahrenheit, for 12 days?"),
            json!({"location": "Paris", "unit": "fahrenheit", "days": 7})
        );
        let sum = json!({"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}});
        assert_eq!(filled(sum, "Add 2 and 3.5!"), json!({"a": 2.0, "b": 3.5}));
    }

    #[test]
    fn items_that_must_differ_do() {
        for items in [
            json!({"type": "string"}),
            json!({"type": "string", "maxLength": 4}),
            json!({"enum": ["a", "b", "c"]}),
            json!({"type": "integer", "minimum": 1, "maximum": 3}),
            json!({"type": "number", "multipleOf": 0.5}),
            json!({"type": "object", "properties": {"on": {"const": 1}, "name": {"type": "string"}}}),
            json!({"$ref": "#/$defs/word"}),
        ] {
            let list = json!({"type": "array", "uniqueItems": true, "minItems": 3, "items": items});
            let schema = json!({"$defs": {"word": {"enum": [1, 2, 3, 4]}}, "type": "object", "properties": {"list": list}});
            let filled = filled(schema, "Three names for Ada");
            let list = filled["list"].as_array().unwrap();
            assert!(list.len() == 3 && (1..3).all(|at| !list[..at].contains(&list[at])), "{items}: {list:?}");
            if items["maxLength"] == 4 {
                assert!(list.iter().all(|text| text.as_str().unwrap().len() <= 4), "{list:?}");
            }
        }
    }

    #[test]
    fn every_kind_of_schema_is_filled() {
        let schema = json!({"type": "object", "$defs": {"node": {"type": "object", "required": ["next"], "properties": {
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}},
            "properties": {
                "when": {"type": "string", "format": "date"}, "maybe": {"type": ["null", "integer"]},
                "list": {"type": "array", "minItems": 2, "items": {"type": "boolean"}},
                "code": {"type": "string", "minLength": 9, "maxLength": 9}, "kind": {"const": "k"},
                "node": {"$ref": "#/$defs/node"}, "step": {"type": "integer", "multipleOf": 5}, "any": {}}});
        let value = filled(schema, "Do it");
        assert_eq!(
            (&value["when"], &value["maybe"], &value["list"]),
            (&json!("2026-01-31"), &json!(1), &json!([true, true]))
        );
        assert_eq!(
            (value["code"].as_str().map(str::len), &value["kind"], &value["step"]),
            (Some(9), &json!("k"), &json!(5))
        );
        assert!(value["node"]["next"].is_object());
        assert_eq!(
            (fill("{}", "x"), fill("null", "x"), fill("nonsense", "x")),
            ("{}".into(), "{}".into(), "{}".into())
        );
    }
}
