//! queueTrigger: the message text is a JSON string of a JSON string, metadata values are quoted.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::{Members, Sys, body, date, merge_binding_data, quoted};
use crate::functions::Binding;

/// How long the real host keeps a received message invisible.
const HOST_LEASE: Duration = Duration::from_secs(600);

/// A queue message as the host hands it over. `expires_at` of a message that never expires is .NET's
/// largest date, which the caller need not know: `None` stands for it.
#[derive(Debug, Clone)]
pub struct QueueEnvelope<'a> {
    pub binding: &'a str,
    /// `dataType` is `binary`.
    pub binary: bool,
    pub text: &'a str,
    pub id: &'a str,
    pub pop_receipt: &'a str,
    pub dequeue_count: u32,
    pub inserted_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub next_visible_at: Timestamp,
}

/// The body of the envelope request.
pub fn queue_message(message: &QueueEnvelope<'_>, sys: &Sys<'_>) -> serde_json::Result<Vec<u8>> {
    let text = if message.binary {
        Value::String(STANDARD.encode(message.text))
    } else {
        quoted(&Value::from(message.text))
    };
    let never = Value::from("9999-12-31T23:59:59+00:00");
    let mut metadata = Members::default()
        .with("DequeueCount", quoted(&Value::from(message.dequeue_count)))
        .with("ExpirationTime", message.expires_at.map_or(never, date))
        .with("Id", quoted(&Value::from(message.id)))
        .with("InsertionTime", date(message.inserted_at))
        .with("NextVisibleTime", date(message.next_visible_at))
        .with("PopReceipt", quoted(&Value::from(message.pop_receipt)));
    merge_binding_data(&mut metadata, message.text);
    body(&Members::default().with(message.binding, text), &metadata.with("sys", sys.members()))
}

/// The envelope of an admin invocation: there is no message, so only `sys` and what the text leaks.
pub fn bare_text(binding: &str, text: &str, sys: &Sys<'_>) -> serde_json::Result<Vec<u8>> {
    let mut metadata = Members::default();
    merge_binding_data(&mut metadata, text);
    body(&Members::default().with(binding, quoted(&Value::from(text))), &metadata.with("sys", sys.members()))
}

/// A message as it would look when received for the first time, for `devhost invoke`.
pub fn fresh_message<'a>(binding: &'a Binding, text: &'a str) -> QueueEnvelope<'a> {
    let now = Timestamp::now();
    QueueEnvelope {
        binding: &binding.name,
        binary: binding.binary,
        text,
        id: "00000000-0000-0000-0000-000000000000",
        pop_receipt: "AAAAAA==",
        dequeue_count: 1,
        inserted_at: now,
        expires_at: None,
        next_visible_at: now + HOST_LEASE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> QueueEnvelope<'_> {
        QueueEnvelope {
            binding: "job",
            binary: false,
            text,
            id: "6f1c...",
            pop_receipt: "AgAAAA==",
            dequeue_count: 1,
            inserted_at: "2026-01-01T10:00:00.25Z".parse().unwrap(),
            expires_at: Some("2026-01-08T10:00:00Z".parse().unwrap()),
            next_visible_at: "2026-01-01T10:10:00Z".parse().unwrap(),
        }
    }

    fn encode(message: &QueueEnvelope<'_>) -> String {
        let now = "2026-01-01T10:00:01.1234567Z".parse().unwrap();
        let sys = Sys { function: "process", now, rand_guid: "24ad...".to_owned() };
        String::from_utf8(queue_message(message, &sys).unwrap()).unwrap()
    }

    #[test]
    fn is_byte_for_byte_the_contracts_example() {
        // functions-host.md §3, queueTrigger, without its line breaks.
        let expected = concat!(
            r#"{"Data":{"job":"\"{\\\"a\\\":1}\""},"#,
            r#""Metadata":{"DequeueCount":"1","ExpirationTime":"2026-01-08T10:00:00+00:00","#,
            r#""Id":"\"6f1c...\"","InsertionTime":"2026-01-01T10:00:00+00:00","NextVisibleTime":"2026-01-01T10:10:00+00:00","#,
            r#""PopReceipt":"\"AgAAAA==\"","a":"\"1\"","#,
            r#""sys":{"MethodName":"process","UtcNow":"2026-01-01T10:00:01.1234567Z","RandGuid":"24ad..."}}}"#,
        );
        assert_eq!(encode(&message(r#"{"a":1}"#)), expected);
    }

    #[test]
    fn members_of_a_json_object_pollute_and_overwrite_metadata() {
        let text = r#"{"id":"forged","DEQUEUECOUNT":99,"ok":true,"nested":{"x":[1]},"list":[1],"none":null,"QueueTrigger":"q"}"#;
        let envelope: Value = serde_json::from_str(&encode(&message(text))).unwrap();
        let metadata = envelope["Metadata"].as_object().unwrap();
        assert_eq!(metadata["Id"], r#""forged""#);
        assert_eq!(metadata["DequeueCount"], r#""99""#);
        assert_eq!(metadata["ok"], r#""True""#);
        assert_eq!(metadata["nested"], serde_json::json!({"x": [1]}));
        for absent in ["list", "none", "QueueTrigger", "id"] {
            assert!(!metadata.contains_key(absent), "{absent}");
        }
    }

    #[test]
    fn text_that_is_no_json_object_leaves_metadata_alone() {
        for text in ["v1 {\"a\":1}", "[{\"a\":1}]", "hi", ""] {
            let envelope: Value = serde_json::from_str(&encode(&message(text))).unwrap();
            assert_eq!(envelope["Metadata"].as_object().unwrap().len(), 7, "{text}");
            let inner: String = serde_json::from_str(envelope["Data"]["job"].as_str().unwrap()).unwrap();
            assert_eq!(inner, text);
        }
    }

    #[test]
    fn binary_is_plain_base64_and_endless_messages_end_with_the_calendar() {
        let envelope = encode(&QueueEnvelope { binary: true, expires_at: None, ..message("hi") });
        assert!(envelope.starts_with(r#"{"Data":{"job":"aGk="}"#), "{envelope}");
        assert!(envelope.contains(r#""ExpirationTime":"9999-12-31T23:59:59+00:00""#));
    }
}
