//! Templates, and what they are filled with.

use serde_json::{Value, json};

use super::split;
use crate::respond::template::{Limits, Template};

/// What stands in every event.
const SECRET: &str = "Nn3zq1Ow6t8yKc5b";
const LIMITS: Limits = Limits { fuel: 20_000, max_bytes: 10_000 };

/// A template, a line `---`, an event's payload. A rendering ends, gives no more than it may, and what is wrong with it is
/// told without quoting the event; the payload is never read as a template.
pub fn templates(data: &[u8]) {
    let (source, payload) = split(data, b"\n---\n");
    let Ok(source) = std::str::from_utf8(source) else { return };
    let template = match Template::new(source) {
        Ok(template) => template,
        Err(error) => return inside(source, error.at),
    };
    for name in template.names() {
        inside(source, template.place_of(&name));
    }
    let payload: Value = serde_json::from_slice(payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(payload).into_owned()));
    let event = json!({ "event": { "payload": payload, "key": SECRET, "subject": null, "run": 1 } });
    match template.render(&event, LIMITS) {
        Ok(text) => assert!(text.len() <= LIMITS.max_bytes),
        Err(error) => {
            assert!(!error.problem.contains(SECRET), "{error}");
            inside(source, error.at);
        }
    }
    // As a value the same text is a text.
    let echo = Template::new("{{ event.payload }}").expect("a template");
    let large = Limits { fuel: 1_000_000, max_bytes: usize::MAX };
    let said = echo.render(&json!({ "event": { "payload": source } }), large);
    assert_eq!(said.as_deref(), Ok(source));
}

fn inside(source: &str, at: Option<usize>) {
    assert!(at.is_none_or(|at| source.is_char_boundary(at)), "{at:?} is no place in it");
}
