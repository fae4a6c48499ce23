//! What the host enqueues for a queue output: functions-host.md §4, with all its surprises.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::answer::Answer;
use crate::host_json::MessageEncoding;

/// The value meant for a binding: `ReturnValue` for `$return`, else the output of that exact name, else the member
/// of a returned object.
pub fn of_binding<'a>(answer: &'a Answer, binding: &str) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    if binding == "$return" {
        return &answer.return_value;
    }
    let output = answer.outputs.as_ref().and_then(|outputs| outputs.get(binding));
    output.or_else(|| answer.return_value.get(binding)).unwrap_or(NOTHING)
}

/// The messages a value makes. `binary`: the binding has `dataType: binary`, so strings are not tried as base64.
pub fn queue_messages(value: &Value, binary: bool) -> Result<Vec<Vec<u8>>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(elements) => elements.iter().map(one_message).collect(),
        Value::String(text) if !binary => match decode(text) {
            Some(bytes) => Ok(vec![bytes]),
            None => text_messages(text),
        },
        Value::String(text) => text_messages(text),
        other => Ok(vec![one_message(other)?]),
    }
}

/// As the queue stores it.
pub fn encode(message: &[u8], encoding: MessageEncoding) -> Result<String, String> {
    match encoding {
        MessageEncoding::Base64 => Ok(STANDARD.encode(message)),
        MessageEncoding::None => String::from_utf8(message.to_vec())
            .map_err(|_| "bytes that are not UTF-8 need messageEncoding base64".to_owned()),
    }
}

fn one_message(value: &Value) -> Result<Vec<u8>, String> {
    match value {
        Value::String(text) => Ok(text.clone().into_bytes()),
        Value::Bool(true) => Ok(b"True".to_vec()),
        Value::Bool(false) => Ok(b"False".to_vec()),
        Value::Number(number) => Ok(number.to_string().into_bytes()),
        other => serde_json::to_vec_pretty(other).map_err(|cause| cause.to_string()),
    }
}

/// A string that looks like JSON is parsed: an array explodes into several messages, an object is indented anew.
fn text_messages(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let trimmed = text.trim();
    let enclosed = |open, close| trimmed.starts_with(open) && trimmed.ends_with(close);
    if !enclosed('{', '}') && !enclosed('[', ']') {
        return Ok(vec![text.as_bytes().to_vec()]);
    }
    match serde_json::from_str(trimmed) {
        Ok(Value::Array(elements)) => elements.iter().map(one_message).collect(),
        Ok(value) => Ok(vec![one_message(&value)?]),
        Err(cause) => Err(format!("a string that looks like JSON but is not: {cause}")),
    }
}

/// .NET's decoder: whitespace is ignored, the empty string is valid.
fn decode(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.chars().filter(|c| !matches!(c, ' ' | '\t' | '\r' | '\n')).collect();
    STANDARD.decode(compact).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn messages(value: Value) -> Vec<String> {
        queue_messages(&value, false)
            .unwrap()
            .into_iter()
            .map(|message| String::from_utf8_lossy(&message).into_owned())
            .collect()
    }

    #[test]
    fn arrays_explode_even_inside_strings() {
        assert_eq!(messages(json!(["a", 1, true])), ["a", "1", "True"]);
        assert_eq!(messages(json!("[1, 2]")), ["1", "2"]);
        assert_eq!(messages(json!(null)), [""; 0]);
    }

    #[test]
    fn strings_that_happen_to_be_base64_become_bytes() {
        assert_eq!(messages(json!("aGk=")), ["hi"]);
        assert_eq!(queue_messages(&json!("test"), false).unwrap(), [STANDARD.decode("test").unwrap()]);
        assert_eq!(queue_messages(&json!("test"), true).unwrap(), [b"test".to_vec()]);
        assert_eq!(messages(json!("hello there")), ["hello there"]);
    }

    #[test]
    fn objects_are_indented_and_broken_json_fails() {
        assert_eq!(messages(json!({"a": 1})), ["{\n  \"a\": 1\n}"]);
        assert_eq!(messages(json!("{\"a\":1}")), ["{\n  \"a\": 1\n}"]);
        assert!(queue_messages(&json!("{nope}"), false).is_err());
    }

    #[test]
    fn a_binding_finds_its_value() {
        let outputs = json!({"jobs": 1}).as_object().cloned();
        let answer = Answer { outputs, return_value: json!({"more": 2}), ..Answer::default() };
        assert_eq!(of_binding(&answer, "jobs"), &json!(1));
        assert_eq!(of_binding(&answer, "Jobs"), &Value::Null);
        assert_eq!(of_binding(&answer, "more"), &json!(2));
        assert_eq!(of_binding(&answer, "$return"), &json!({"more": 2}));
    }
}
