//! What of an event a template sees.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::ids::EventId;

/// An event, as a `respond` route works on it.
#[derive(Clone)]
pub struct EventData {
    pub id: EventId,
    pub source: String,
    pub event_type: String,
    pub key: String,
    pub subject: Option<String>,
    pub received_at: Timestamp,
    /// Counts replays, from 1.
    pub run: i32,
    /// JSON, or text where it is none.
    pub payload: Value,
    /// Redacted, by lower-case name.
    pub headers: Map<String, Value>,
}

// Payloads are nobody's business in a log.
impl std::fmt::Debug for EventData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventData")
            .field("id", &self.id)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Fields of `event` that we ourselves say: they may stand in instructions.
pub const OURS: &[&str] = &["id", "source", "received_at", "run"];
/// Fields of `event` that a sender says.
pub const SENDERS: &[&str] = &["type", "key", "subject", "payload", "headers"];

/// What a template is filled with.
#[derive(Debug, Serialize)]
pub struct Context {
    event: Value,
}

impl EventData {
    /// A payload as templates see it.
    pub fn payload_of(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// Headers as they are stored (an array of `[name, value]`) by name; of several of one name the first.
    pub fn headers_of(stored: &Value) -> Map<String, Value> {
        let mut headers = Map::new();
        for pair in stored.as_array().into_iter().flatten() {
            if let (Some(name), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
                headers.entry(name.to_ascii_lowercase()).or_insert_with(|| value.into());
            }
        }
        headers
    }

    /// All of it.
    pub fn context(&self) -> Context {
        let mut event = self.ours();
        event.insert("type".to_owned(), self.event_type.as_str().into());
        event.insert("key".to_owned(), self.key.as_str().into());
        // Absent, not null, so that using it is an error where there is none.
        if let Some(subject) = &self.subject {
            event.insert("subject".to_owned(), subject.as_str().into());
        }
        event.insert("payload".to_owned(), self.payload.clone());
        event.insert("headers".to_owned(), self.headers.clone().into());
        Context { event: event.into() }
    }

    /// Only what we ourselves say.
    pub fn trusted_context(&self) -> Context {
        Context { event: self.ours().into() }
    }

    fn ours(&self) -> Map<String, Value> {
        let fields = json!({
            "id": self.id, "source": self.source, "received_at": self.received_at, "run": self.run,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trusted_context_has_nothing_a_sender_says() {
        let event = EventData {
            id: EventId::new(),
            source: "crm".into(),
            event_type: "feedback.create".into(),
            key: "k".into(),
            subject: Some("66f".into()),
            received_at: Timestamp::UNIX_EPOCH,
            run: 1,
            payload: EventData::payload_of(br#"{"name":"Ada"}"#),
            headers: EventData::headers_of(&json!([["Content-Type", "a"], ["content-type", "b"], ["x", 1]])),
        };
        let names = |context: Context| {
            let names: Vec<String> = context.event.as_object().unwrap().keys().cloned().collect();
            names
        };
        let mut all: Vec<&str> = OURS.iter().chain(SENDERS).copied().collect();
        all.sort_unstable();
        assert_eq!(names(event.context()), all);
        assert_eq!(names(event.trusted_context()).len(), OURS.len());
        assert_eq!(event.headers, json!({ "content-type": "a" }).as_object().unwrap().clone());
        assert_eq!(EventData::payload_of(b"not json"), json!("not json"));
        assert!(!format!("{event:?}").contains("Ada"));
    }
}
