//! What travels on the queues.
//!
//! A message's text is `v1 ` and then JSON. The prefix is the version, and it keeps the Functions host from reading the
//! text as JSON: members of a JSON object would overwrite the message's own metadata (`Id`, `DequeueCount`). A binary
//! reads this version and the one before it.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::azure::{MAX_ENCODED_BYTES, Queue};
use crate::functions::{Payload, PayloadError};
use crate::ids::{CallbackId, DeliveryId, JobId};

const VERSION: &str = "v1 ";

/// Code of a message whose version this binary does not read.
pub const UNKNOWN_VERSION: &str = "message_version_unknown";
/// Code of a message that is not what its version says.
pub const MALFORMED: &str = "message_malformed";

/// A verified delivery on its way from the sender to the database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventMessage {
    pub delivery: DeliveryId,
    pub source: String,
    /// What stood behind the source in the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_path: Option<String>,
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    pub received_at: Timestamp,
    pub verdict: Verdict,
    /// Redacted, in the order received.
    pub headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Length of the body as stored, in bytes.
    pub body_bytes: u64,
    pub body: Body,
    /// Secrets that stood in the body, encrypted with the delivery's id as context.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sealed: Vec<String>,
    /// How often processing was put off, for whatever reason. Lengthens the delay; nothing is given up for it.
    #[serde(default)]
    pub deferrals: u32,
    /// How often processing failed for a reason other than an outage. Counts towards the dead letter.
    #[serde(default)]
    pub failures: u32,
    /// Why processing gave it up: set only on the poison queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
}

/// How the sender proved itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The signature scheme, such as `stripe` or `standard-webhooks`.
    pub scheme: String,
    /// Which of the source's secrets matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_label: Option<String>,
    /// The signed time, where the scheme has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<Timestamp>,
}

/// Where the body is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// UTF-8, as received.
    Text(String),
    /// Anything else, base64.
    Base64(String),
    /// Too large for a message: the name of a blob in the deliveries container.
    Blob(String),
}

/// Says that a row of work may be due. The row is the truth: a hint may be late, doubled or lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint<Id> {
    pub id: Id,
    /// Claims of those who stopped but could not say so to the database: whoever reads this may take their lease over
    /// at once, and their attempt does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abandoned: Vec<Uuid>,
    /// How often in a row the database could not be reached; lengthens the delay.
    #[serde(default)]
    pub outages: u32,
}

pub type JobHint = Hint<JobId>;
pub type CallbackHint = Hint<CallbackId>;

impl<Id> Hint<Id> {
    pub fn new(id: Id) -> Self {
        Self { id, abandoned: Vec::new(), outages: 0 }
    }
}

/// The text of a message of this version.
pub fn encode<T: Serialize>(message: &T) -> Result<String, serde_json::Error> {
    let mut text = Vec::with_capacity(1024);
    text.extend_from_slice(VERSION.as_bytes());
    serde_json::to_writer(&mut text, message)?;
    String::from_utf8(text).map_err(serde::ser::Error::custom)
}

/// By how much a text may grow while its message waits: `deferrals` and `failures` begin with one digit and have ten at
/// most.
const GROWTH: usize = 2 * 9;

/// Whether a text fits a queue message once it is base64, and will however often it is put off.
pub fn fits(text: &str) -> bool {
    Queue::encoded_len(text.len() + GROWTH) <= MAX_ENCODED_BYTES
}

/// A message's text without the base64 that it may still be in: a binding with `"dataType": "binary"` hands texts out that
/// way, and puts what it cannot read on the poison queue as it came.
pub fn plain(text: &str) -> Cow<'_, str> {
    if is_versioned(text) {
        return text.into();
    }
    let inner = BASE64_STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    inner.filter(|inner| is_versioned(inner)).map_or_else(|| text.into(), Cow::Owned)
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, PayloadError> {
    let text = &plain(text);
    let json = text.strip_prefix(VERSION).ok_or_else(|| {
        if is_versioned(text) {
            let detail = "the message does not begin with `v1 `: a newer version put it";
            PayloadError::of_another_version(UNKNOWN_VERSION, detail)
        } else {
            PayloadError::new(MALFORMED, "the message does not begin with `v1 `: somebody else put it")
        }
    })?;
    // The position, never the content: messages hold what senders sent.
    serde_json::from_str(json)
        .map_err(|error| PayloadError::new(MALFORMED, format!("not a v1 message, column {}", error.column())))
}

/// Whether a text begins as ours do, with any version.
fn is_versioned(text: &str) -> bool {
    let version = text.strip_prefix('v').and_then(|rest| rest.split_once(' ')).map(|(version, _)| version);
    version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Payload for EventMessage {
    fn decode(text: &str) -> Result<Self, PayloadError> {
        decode(text)
    }
}

impl<Id: DeserializeOwned + Send + 'static> Payload for Hint<Id> {
    fn decode(text: &str) -> Result<Self, PayloadError> {
        decode(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_round_trips_and_cannot_be_taken_for_json() {
        let hint = Hint { id: JobId::new(), abandoned: vec![Uuid::now_v7()], outages: 2 };
        let text = encode(&hint).unwrap();
        assert!(text.starts_with("v1 {"));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_err());
        assert_eq!(JobHint::decode(&text).unwrap(), hint);
    }

    #[test]
    fn what_a_binary_binding_handed_out_is_read_like_the_text_itself() {
        let hint = Hint::new(JobId::new());
        let text = encode(&hint).unwrap();
        let base64 = BASE64_STANDARD.encode(&text);
        assert_eq!(JobHint::decode(&base64).unwrap(), hint);
        assert_eq!(plain(&base64), text);
        assert!(JobHint::decode(&BASE64_STANDARD.encode("v2 {}")).unwrap_err().may_mend);
        for foreign in ["aGVsbG8=", "v1 not base64", "test", ""] {
            assert_eq!(plain(foreign), foreign);
        }
    }

    #[test]
    fn fields_added_later_and_fields_left_out_are_both_read() {
        let id = JobId::new();
        let hint = JobHint::decode(&format!(r#"v1 {{"id":"{id}","added_later":true}}"#)).unwrap();
        assert_eq!(hint, Hint::new(id));
    }

    #[test]
    fn an_unknown_version_is_named_and_the_content_is_not() {
        let error = JobHint::decode(r#"v9 {"secret":"s3cr3t"}"#).unwrap_err().to_string();
        assert!(error.contains("v1"), "{error}");
        let error = JobHint::decode(r#"v1 {"id":"s3cr3t"}"#).unwrap_err().to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
    }

    #[test]
    fn only_a_later_version_is_worth_waiting_for() {
        let may_mend = |text: &str| JobHint::decode(text).unwrap_err().may_mend;
        assert!(may_mend("v2 {}") && may_mend("v10 [1]"));
        assert!(!may_mend("v1 {}") && !may_mend("hello") && !may_mend("v {}") && !may_mend(r#"{"id":1}"#));
    }

    #[test]
    fn what_fits_still_fits_however_often_it_is_put_off() {
        let mut message = EventMessage {
            delivery: DeliveryId::new(),
            source: "stripe".to_owned(),
            event_path: None,
            request_id: String::new(),
            trace_parent: None,
            received_at: Timestamp::UNIX_EPOCH,
            verdict: Verdict { scheme: "stripe".to_owned(), secret_label: None, signed_at: None },
            headers: Vec::new(),
            content_type: None,
            body_bytes: 0,
            body: Body::Text(String::new()),
            sealed: Vec::new(),
            deferrals: 0,
            failures: 0,
            given_up: None,
        };
        let empty = encode(&message).unwrap().len();
        let (mut fitting, mut text) = (0, String::new());
        for bytes in 49_000..49_200 {
            message.body = Body::Text("x".repeat(bytes - empty));
            text = encode(&message).unwrap();
            assert_eq!(text.len(), bytes);
            if !fits(&text) {
                break;
            }
            fitting = bytes;
        }
        assert!(fitting > 49_100 && !fits(&text), "{fitting}");
        message.body = Body::Text("x".repeat(fitting - empty));
        (message.deferrals, message.failures) = (u32::MAX, u32::MAX);
        let grown = encode(&message).unwrap();
        assert!(Queue::encoded_len(grown.len()) <= MAX_ENCODED_BYTES, "{}", grown.len());
    }
}
